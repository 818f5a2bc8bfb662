"""Softmax cross-entropy: the loss at the end of every network here, and its gradient."""

import numpy as np

from tinysqueeze.errors import ShapeError
from tinysqueeze.network.layers import EVAL, Mode


def softmax_cross_entropy(
    logits: np.ndarray, labels: np.ndarray, smoothing: float = 0.0, mode: Mode = EVAL
) -> tuple[float, np.ndarray]:
    """The mean loss of a batch and dlogits.

    logits (N, classes) floats; labels (N,) integers in 0 .. classes-1, or (N, classes) shares of an
    image's label that sum to 1; smoothing in [0, 1) (Szegedy et al. 2016, section 7). Raises
    ShapeError where they do not fit.
    """
    if logits.ndim != 2:
        raise ShapeError(
            f"loss: expected logits (N, classes), got {logits.shape}; a network ends with a global "
            "average pool or a Linear layer"
        )
    check_labels(labels, *logits.shape)
    return mode.ops.softmax_cross_entropy(logits, labels, smoothing)


def check_labels(labels: np.ndarray, images: int, classes: int) -> None:
    """Raises ShapeError unless labels are `images` integers below `classes`, or as many rows of shares."""
    if labels.shape not in ((images,), (images, classes)):
        raise ShapeError(
            f"loss: logits are ({images}, {classes}), so labels must be ({images},) integers or "
            f"({images}, {classes}) shares, not {labels.shape}"
        )
    if not labels.size:
        return
    if labels.ndim == 2:
        sums = labels.sum(axis=1)
        if labels.min() < 0 or np.abs(sums - 1).max() > 1e-3:
            raise ShapeError(
                f"loss: each image's shares must be at least 0 and sum to 1; the least is "
                f"{labels.min():.3g}, sums go from {sums.min():.3g} to {sums.max():.3g}"
            )
    elif not 0 <= labels.min() <= labels.max() < classes:
        raise ShapeError(
            f"loss: labels go from {labels.min()} to {labels.max()}, but the network has "
            f"{classes} classes; build it with classes={int(labels.max()) + 1}"
        )


def count_right(logits: np.ndarray, labels: np.ndarray) -> int:
    """How many images' largest logit is that of their label, or of its largest share."""
    right = labels if labels.ndim == 1 else labels.argmax(axis=1)
    return int((logits.argmax(axis=1) == right).sum())
