"""Leave out what is small: magnitude pruning (Han et al. 2015; Deep Compression, section 2)."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Flat = Mapping[str, NDArray[np.float32]]


def mask(weight: NDArray[np.float32], fraction: float) -> NDArray[np.bool_]:
    """Which weights stay: True for the largest in magnitude, False for `fraction` of them."""
    order = np.argsort(np.abs(weight), axis=None, kind="stable")
    keep = np.ones(weight.size, bool)
    keep[order[: round(fraction * weight.size)]] = False
    return keep.reshape(weight.shape)


def masks(flat: Flat, fractions: float | Mapping[str, float]) -> dict[str, NDArray[np.bool_]]:
    """A mask for every weight by path, each layer pruned by its own fraction; biases stay whole."""
    return {
        path: mask(weight, fractions if isinstance(fractions, float | int) else fractions[path])
        for path, weight in flat.items()
        if path.endswith("weight") and weight.ndim > 1
    }


def fractions_by_layer(flat: Flat, overall: float) -> dict[str, float]:
    """How much of each layer to prune so that `overall` (0 to 1) of all weights go.

    By one threshold for all layers on a score that says what share of what is still there a weight
    makes up: its square over the sum of all squares in its layer not smaller (LAMP, Lee et al. 2021,
    arXiv:2010.07611, equation 5). So thin layers, which have nothing to spare, keep more.
    """
    scores = {}
    for path, weight in flat.items():
        if path.endswith("weight") and weight.ndim > 1:
            squares = np.sort(np.square(weight, dtype=np.float64), axis=None)
            left = np.cumsum(squares[::-1])[::-1]  # with itself and all larger ones
            scores[path] = squares / np.maximum(left, 1e-300)
    together = np.sort(np.concatenate(list(scores.values())))
    least = together[min(round(overall * len(together)), len(together) - 1)]
    return {path: float(np.mean(score < least)) for path, score in scores.items()}


def apply_masks(flat: Flat, keep: Mapping[str, NDArray[np.bool_]]) -> None:
    """Set what is pruned to zero, in place.

    Called after every step of an optimiser it is *retraining*: gradients reach the weights that are
    left, the others stay zero (Deep Compression, section 2, third step).
    """
    for path, kept in keep.items():
        flat[path][...] *= kept


def density(flat: Flat) -> float:
    """What fraction of all weights is not zero, biases left aside."""
    weights = [array for path, array in flat.items() if path.endswith("weight") and array.ndim > 1]
    return sum(np.count_nonzero(w) for w in weights) / sum(w.size for w in weights)
