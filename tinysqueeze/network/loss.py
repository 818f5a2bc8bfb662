"""Softmax cross-entropy: the loss at the end of every network here, and its gradient."""

import numpy as np

from tinysqueeze.errors import ShapeError
from tinysqueeze.labels import check_labels
from tinysqueeze.network.layers import EVAL, Mode


def softmax_cross_entropy(
    logits: np.ndarray, labels: np.ndarray, smoothing: float = 0.0, mode: Mode = EVAL
) -> tuple[float, np.ndarray]:
    """The mean loss of a batch and dlogits.

    logits (N, classes) floats; labels (N,) integers in 0 .. classes-1, or (N, classes) shares of each
    class that sum to 1; smoothing in [0, 1) (Szegedy et al. 2016, section 7). Raises ShapeError where
    they do not fit, see `labels.check_labels`.
    """
    if logits.ndim != 2:
        raise ShapeError(
            f"loss: expected logits (N, classes), got {logits.shape}; a network ends with a global "
            "average pool or a Linear layer"
        )
    labels = check_labels(labels, len(logits), logits.shape[1])
    return mode.ops.softmax_cross_entropy(logits, labels, smoothing)


def count_right(logits: np.ndarray, labels: np.ndarray) -> int:
    """How many images' largest logit is that of their label, or of its largest share.

    logits (N, classes), labels as in `softmax_cross_entropy`. Raises ShapeError.
    """
    labels = check_labels(labels, len(logits), logits.shape[1])
    right = labels if labels.ndim == 1 else labels.argmax(axis=1)
    return int((logits.argmax(axis=1) == right).sum())
