"""The update of every parameter, fused into one pass over flat vectors: SGD, Adam, averaging."""

import numpy as np
from numba import njit


def sgd_update(
    params: np.ndarray,
    grads: np.ndarray,
    velocity: np.ndarray,
    decay: np.ndarray,
    lr: float,
    momentum: float,
    nesterov: bool,
) -> None:
    """In place, all float32 vectors of one length; `decay` is each number's weight decay."""
    f = np.float32
    _sgd(
        params,
        grads,
        velocity,
        decay,
        f(lr),
        f(momentum),
        f(momentum if nesterov else 0),
        f(nesterov),
    )


def adam_update(
    params: np.ndarray,
    grads: np.ndarray,
    mean: np.ndarray,
    square: np.ndarray,
    decay: np.ndarray,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    step: int,
) -> None:
    """In place, all float32 vectors of one length; `step` counts from 1."""
    f = np.float32
    lr_now = lr * np.sqrt(1 - beta2**step) / (1 - beta1**step)
    eps_now = eps * np.sqrt(1 - beta2**step)
    _adam(params, grads, mean, square, decay, f(lr), f(lr_now), f(beta1), f(beta2), f(eps_now))


def ema_update(average: np.ndarray, params: np.ndarray, keep: float) -> None:
    """average = keep * average + (1 - keep) * params, in place."""
    _ema(average, params, np.float32(keep))


@njit(cache=True, nogil=True, error_model="numpy")
def _sgd(params, grads, velocity, decay, lr, momentum, ahead, nesterov):  # type: ignore[no-untyped-def]
    for i in range(params.size):
        g = grads[i] + decay[i] * params[i]
        v = momentum * velocity[i] + g
        velocity[i] = v
        # Nesterov: g + momentum * v; plain: v
        params[i] -= lr * (nesterov * g + (ahead + (np.float32(1) - nesterov)) * v)


@njit(cache=True, nogil=True, error_model="numpy")
def _adam(params, grads, mean, square, decay, lr, lr_now, beta1, beta2, eps):  # type: ignore[no-untyped-def]
    one = np.float32(1)
    for i in range(params.size):
        g = grads[i]
        mean[i] = beta1 * mean[i] + (one - beta1) * g
        square[i] = beta2 * square[i] + (one - beta2) * g * g
        params[i] -= lr * decay[i] * params[i] + lr_now * mean[i] / (np.sqrt(square[i]) + eps)


@njit(cache=True, nogil=True, error_model="numpy")
def _ema(average, params, keep):  # type: ignore[no-untyped-def]
    for i in range(average.size):
        average[i] = keep * average[i] + (np.float32(1) - keep) * params[i]
