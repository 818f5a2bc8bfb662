"""What runs a model for training: the interface, and the two engines of ours, made from one value."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from tinysqueeze.compiled import compile as compile_plan
from tinysqueeze.network.layers import Params
from tinysqueeze.network.models import Model
from tinysqueeze.network.stepwise import StepByStep


class Predicts(Protocol):
    """Whatever turns images (N, H, W, C) into logits (N, classes): an Engine, or a plan in integers."""

    def predict(self, images: np.ndarray) -> np.ndarray: ...


class Engine(Predicts, Protocol):
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


@dataclass(frozen=True, eq=False)
class EngineSpec:
    """What an engine is made from; each takes of it what it needs.

    batch      images a step, of this rank alone
    params     a tree that fits the model (copied), or None for fresh ones
    threads    of the processor, or None for all
    precision  of 3x3 convolutions, as `compiled.compile` names them
    training   or else it only predicts
    """

    model: Model
    batch: int
    params: Params | None = None
    threads: int | None = None
    precision: str = "4x4"
    training: bool = True


EngineMaker = Callable[[EngineSpec], Engine]


def compiled_engine(spec: EngineSpec) -> Engine:
    """The compiled plan: fused kernels."""
    return compile_plan(
        spec.model, spec.batch, training=spec.training, precision=spec.precision,
        threads=spec.threads, params=spec.params,
    )  # fmt: skip


def stepwise_engine(spec: EngineSpec) -> Engine:
    """Layer by layer: any batch, Numba's threads, no Winograd."""
    return StepByStep(spec.model, spec.params)


ENGINES: Mapping[str, EngineMaker] = {"compiled": compiled_engine, "stepwise": stepwise_engine}
"""By name; `bench.torch_engine` is one more, where PyTorch is installed."""
