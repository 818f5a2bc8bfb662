"""What an optimiser does to each number of a flat vector, in one pass over memory each.

All vectors are float32, contiguous and of one length, and are changed in place. `decay` holds each
number's own weight decay. The work is shared by a team of `threads` (otherwise as many as there are
processors); every number is on its own, so the result does not depend on how many there are.
"""

from functools import cache
from typing import Any

import numpy as np
from numba import float32

from tinysqueeze.errors import ShapeError
from tinysqueeze.kernels.kernel import Kernel, kernel
from tinysqueeze.kernels.team import Program, Split, Stage, Team
from tinysqueeze.kernels.vectors import floats


@kernel("params grads velocity decay lr:f momentum:f nesterov")
def sgd(job: Any, first: int, count: int, thread: int) -> None:
    """velocity = momentum * velocity + g; params -= lr * velocity (Nesterov: g + momentum * it).

    As PyTorch defines it (Sutskever et al. 2013).
    """
    params, grads = floats(job.params + 4 * first), floats(job.grads + 4 * first)
    velocity, decay = floats(job.velocity + 4 * first), floats(job.decay + 4 * first)
    lr, momentum = float32(job.lr), float32(job.momentum)
    ahead = momentum if job.nesterov else float32(1)
    now = float32(1) if job.nesterov else float32(0)
    for i in range(count):
        g = grads[i] + decay[i] * params[i]
        v = momentum * velocity[i] + g
        velocity[i] = v
        params[i] -= lr * (now * g + ahead * v)


@kernel(
    "params grads mean square decay lr:f beta1:f beta2:f new1:f new2:f step_size:f correction:f eps:f"
)
def adam(job: Any, first: int, count: int, thread: int) -> None:
    """Adam with decoupled weight decay; `step_size` and `correction` undo the start from zero.

    Kingma & Ba 2015; Loshchilov & Hutter 2019.
    """
    params, grads = floats(job.params + 4 * first), floats(job.grads + 4 * first)
    mean, square = floats(job.mean + 4 * first), floats(job.square + 4 * first)
    decay = floats(job.decay + 4 * first)
    lr, step_size, correction = float32(job.lr), float32(job.step_size), float32(job.correction)
    beta1, beta2, eps = float32(job.beta1), float32(job.beta2), float32(job.eps)
    new1, new2 = float32(job.new1), float32(job.new2)  # 1 - beta, which float32 would round badly
    for i in range(count):
        g = grads[i]
        m = beta1 * mean[i] + new1 * g
        s = beta2 * square[i] + new2 * g * g
        mean[i] = m
        square[i] = s
        step = step_size * m / (np.sqrt(s) * correction + eps)
        params[i] -= step + lr * decay[i] * params[i]


@kernel("average params keep:f")
def ema(job: Any, first: int, count: int, thread: int) -> None:
    """average = keep * average + (1 - keep) * params."""
    average, params = floats(job.average + 4 * first), floats(job.params + 4 * first)
    keep = float32(job.keep)
    for i in range(count):
        average[i] += (float32(1) - keep) * (params[i] - average[i])


def ema_update(
    average: np.ndarray, params: np.ndarray, keep: float, threads: int | None = None
) -> None:
    """Moves `average` towards `params`, keeping the share `keep` of it, in place."""
    move(ema, {"average": average, "params": params}, threads, keep=keep)


@cache
def _team(threads: int | None) -> Team:
    return Team(threads)


def move(
    kernel: Kernel, vectors: dict[str, np.ndarray], threads: int | None, **numbers: float
) -> None:
    """Runs one of these kernels on its vectors. Raises ShapeError where they don't match."""
    size = len(vectors["params"])
    for name, vector in vectors.items():
        fits = vector.dtype == np.float32 and vector.shape == (size,)
        if not (fits and vector.flags.c_contiguous):
            raise ShapeError(
                f"{kernel.name}: {name} should be {size} contiguous float32 numbers, "
                f"got {vector.dtype} {vector.shape}; all vectors must match"
            )
    stage = Stage(Split.EACH)
    stage.add(kernel.job(**vectors, **numbers), units=size)
    _team(threads).run(Program([stage]))
