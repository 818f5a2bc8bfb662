"""Softmax cross-entropy: the loss at the end of every network here, and its gradient."""

import numpy as np

from tinysqueeze.errors import ShapeError
from tinysqueeze.layers import EVAL, Run


def softmax_cross_entropy(
    logits: np.ndarray, labels: np.ndarray, smoothing: float = 0.0, run: Run = EVAL
) -> tuple[float, np.ndarray]:
    """The mean loss of a batch and dlogits.

    logits (N, classes) floats, labels (N,) integers in 0 .. classes-1, smoothing in [0, 1) (Szegedy
    et al. 2016, section 7). Raises ShapeError where they do not fit.
    """
    if logits.ndim != 2 or labels.shape != logits.shape[:1]:
        raise ShapeError(
            f"loss: expected logits (N, classes) and labels (N,), got {logits.shape} and "
            f"{labels.shape}; a network ends with a global average pool or a Linear layer"
        )
    if labels.size and not 0 <= labels.min() <= labels.max() < logits.shape[1]:
        raise ShapeError(
            f"loss: labels go from {labels.min()} to {labels.max()}, but the network has "
            f"{logits.shape[1]} classes; build it with classes={int(labels.max()) + 1}"
        )
    return run.ops.softmax_cross_entropy(logits, labels, smoothing)
