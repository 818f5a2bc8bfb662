"""From gradients to new parameters: SGD with momentum, Adam, Muon.

An optimiser is a value too: what it remembers (velocities, moments) is a dict of vectors, one entry
for each number in the flat parameter vector, passed in and out.
"""

from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import cache
from math import sqrt
from typing import Annotated

import numpy as np
from threadpoolctl import ThreadpoolController

from tinysqueeze.kernels import optimiser as kernels
from tinysqueeze.kernels.kernel import Kernel
from tinysqueeze.network.models import Model
from tinysqueeze.network.params import trained_shapes
from tinysqueeze.processors import default_threads, workers
from tinysqueeze.ranges import Kept, Range, setting
from tinysqueeze.training.settings import check

Slots = dict[str, np.ndarray]  # "velocity" -> a vector as long as the parameters


Places = tuple[tuple[int, int, int], ...]  # of matrices in the flat vector: (start, rows, columns)


class Optimiser:
    """How a step is taken. `decay` holds each number's own weight decay (0 for biases and norms).

    `matrices` are the weights that it treats as matrices, of a length of their own; see `Muon`.
    """

    slots: tuple[str, ...]
    kernel: Kernel
    matrices: Places = ()

    def __post_init__(self) -> None:
        check(self)

    def fitted(self, model: Model, frozen: Collection[str] = ()) -> "Optimiser":
        """The same, for the parameters of `model` in a flat vector, without the `frozen` paths."""
        return self

    def start(self, params: np.ndarray) -> Slots:
        """What it remembers before the first step: zeros."""
        return {name: np.zeros_like(params) for name in self.slots}

    def numbers(self, lr: float, step: int) -> dict[str, float]:
        """What its kernel must know beside the vectors and the rate."""
        raise NotImplementedError

    def update(
        self,
        params: np.ndarray,
        grads: np.ndarray,
        slots: Slots,
        decay: np.ndarray,
        lr: float,
        step: int,
        threads: int | None = None,
    ) -> None:
        """Change params and slots in place. `step` counts from 1; `threads`: otherwise all."""
        vectors = {"params": params, "grads": grads, "decay": decay, **slots}
        kernels.move(self.kernel, vectors, threads, lr=lr, **self.numbers(lr, step))


@dataclass(frozen=True)
class SGD(Optimiser):
    """Stochastic gradient descent with (Nesterov) momentum, as PyTorch defines it.

    velocity = momentum * velocity + g;  params -= lr * velocity, or with Nesterov lr * (g + momentum
    * velocity): the gradient is taken as if the momentum step had been made (Sutskever et al. 2013).
    """

    momentum: Kept = setting(0.9, "kept of the steps before")
    nesterov: bool = setting(True, "as if the momentum step had been made")
    slots = ("velocity",)
    kernel = kernels.sgd

    def numbers(self, lr: float, step: int) -> dict[str, float]:
        """Its two settings."""
        return {"momentum": self.momentum, "nesterov": self.nesterov}


@dataclass(frozen=True)
class Adam(Optimiser):
    """Adam with decoupled weight decay (Kingma & Ba 2015, Algorithm 1; Loshchilov & Hutter 2019).

    Each number moves by lr * mean / (sqrt(square) + eps): running means of its gradient and of the
    gradient's square, corrected for having started at zero.
    """

    beta1: Kept = setting(0.9, "kept of the gradients' mean, each step")
    beta2: Kept = setting(0.999, "kept of their squares' mean")
    eps: Annotated[float, Range(0, 1, above=True)] = setting(1e-8, "added to the square's root")
    slots = ("mean", "square")
    kernel = kernels.adam

    def numbers(self, lr: float, step: int) -> dict[str, float]:
        """With what undoes the start from zero."""
        beta1, beta2 = self.beta1, self.beta2
        return {
            "beta1": beta1, "beta2": beta2, "new1": 1 - beta1, "new2": 1 - beta2, "eps": self.eps,
            "step_size": lr / (1 - beta1**step), "correction": 1 / sqrt(1 - beta2**step),
        }  # fmt: skip


@dataclass(frozen=True)
class Muon(Optimiser):
    """Momentum, orthogonalised: a convolution's weights turn by the same angle in all directions.

    A gradient's large singular values belong to the few directions that much of the batch agrees on;
    Muon makes all of them 1, so that rare directions are learned as fast (K. Jordan et al., Muon: an
    optimizer for hidden layers in neural networks, 2024). `matrices` says where those weights lie in
    the flat vector, each as (start, rows, columns) with rows = KH * KW * C and columns = F.

    Each keeps the length that He's initialisation gives it and moves by `turn * lr` of it, so that
    weight decay has nothing to do there (`decay` must be 0). Everything else goes by SGD with Nesterov
    momentum.
    """

    momentum: Kept = setting(0.9, "kept of the steps before")
    turn: Annotated[float, Range(0, 1000, above=True)] = setting(
        0.15, "how far filters move, as a share of their length times lr"
    )
    matrices: Places = ()  # a network's, not a recipe's: see `fitted`
    slots = ("velocity", "momentum")

    def fitted(self, model: Model, frozen: Collection[str] = ()) -> "Muon":
        """With the places of all convolutions but the last one and the frozen ones."""
        return replace(self, matrices=filter_matrices(model, frozen))

    def update(
        self,
        params: np.ndarray,
        grads: np.ndarray,
        slots: Slots,
        decay: np.ndarray,
        lr: float,
        step: int,
        threads: int | None = None,
    ) -> None:
        """One step, in place; the gradients of `matrices` are used up (0 afterwards)."""

        def turn(place: tuple[int, int, int]) -> None:
            start, rows, columns = place
            weight, grad, mean = (
                vector[start : start + rows * columns].reshape(rows, columns)
                for vector in (params, grads, slots["momentum"])
            )
            mean *= self.momentum
            mean += grad
            length = np.float32(sqrt(2 * columns))  # of a weight with variance 2 / rows
            size = self.turn * lr * length / sqrt(min(rows, columns))
            weight *= length / np.linalg.norm(weight)
            weight -= np.float32(size) * orthogonalise(grad + np.float32(self.momentum) * mean)
            grad[...] = 0

        largest_first = sorted(self.matrices, key=lambda place: -place[1] * place[2] ** 2)
        with _blas().limit(limits=1):  # a matrix a thread: they are too small to be shared
            list(workers(threads or default_threads()).map(turn, largest_first))
        rest = SGD(self.momentum)
        rest.update(params, grads, {"velocity": slots["velocity"]}, decay, lr, step, threads)


def filter_matrices(model: Model, frozen: Collection[str] = ()) -> Places:
    """Where the weights of all convolutions but the last, the classifier, lie in the flat vector.

    Each as (start, rows, columns): a (KH, KW, C, F) weight is a matrix of KH * KW * C rows and F
    columns. The `frozen` paths are left out.
    """
    found, start = [], 0
    for path, shape in trained_shapes(model).items():
        size = int(np.prod(shape))
        if len(shape) == 4:
            found.append((path, (start, size // shape[3], shape[3])))
        start += size
    return tuple(place for path, place in found[:-1] if path not in frozen)


@cache
def _blas() -> ThreadpoolController:
    return ThreadpoolController().select(user_api="blas")


def orthogonalise(matrix: np.ndarray, steps: int = 5) -> np.ndarray:
    """The nearest matrix whose singular values are all about 1 (0.7 to 1.2), without computing them.

    `matrix` = U S Vᵀ becomes about U Vᵀ by Newton-Schulz iterations: an odd polynomial of the matrix is
    that polynomial of each singular value, and this one lifts small values fast (Jordan et al. 2024).
    Each iterate is factor @ matrix, so only the small square factor has to be iterated: 3x3 filters
    are a matrix several times as long as it is wide. `matrix` (rows, columns) and the result are alike
    in shape and dtype, float32 or float64.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    one = np.eye(len(wide), dtype=matrix.dtype)
    square = wide @ wide.T
    factor = one / (np.sqrt(np.trace(square)) + 1e-7)  # the length of `matrix`
    for _ in range(steps):
        now = factor @ square @ factor  # of the iterate, as `square` of the matrix
        factor = (a * one + b * now + c * (now @ now)) @ factor
    x: np.ndarray = factor @ wide
    return x if wide is matrix else x.T


OPTIMISERS: dict[str, type[Optimiser]] = {"sgd": SGD, "adam": Adam, "muon": Muon}
"""By the name that the command line and checkpoints give them."""
