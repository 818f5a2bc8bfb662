"""What runs a model for training: the interface, and the two engines of ours behind one signature."""

from collections.abc import Callable
from typing import Protocol

import numpy as np

from tinysqueeze.compiled import compile as compile_plan
from tinysqueeze.network.layers import Params
from tinysqueeze.network.models import Model
from tinysqueeze.network.stepwise import StepByStep


class Engine(Protocol):
    """What runs the model: `stepwise.StepByStep`, or `compiled.Plan`, the same but faster."""

    model: Model
    vector: np.ndarray
    grad_vector: np.ndarray
    params: Params
    losses: np.ndarray  # (N,): of each image of the last step

    @property
    def threads(self) -> int | None: ...

    def views(self, vector: np.ndarray) -> Params: ...
    def load(self, params: Params) -> None: ...
    def loss_and_grads(
        self, images: np.ndarray, labels: np.ndarray, smoothing: float = 0.0, seed: int = 0
    ) -> tuple[float, int]: ...
    def predict(self, images: np.ndarray) -> np.ndarray: ...


EngineMaker = Callable[[Model, int, Params | None, int | None, str], Engine]
"""(model, images a batch, parameters, threads, precision of 3x3 convolutions) -> an engine."""


def compiled_engine(
    model: Model, batch: int, params: Params | None, threads: int | None, precision: str
) -> Engine:
    """The compiled plan: fused kernels."""
    return compile_plan(model, batch, precision=precision, threads=threads, params=params)


def stepwise_engine(
    model: Model,
    batch: int,
    params: Params | None,
    threads: int | None = None,
    precision: str = "direct",
) -> Engine:
    """Layer by layer: any batch, Numba's threads, no Winograd."""
    return StepByStep(model, params)
