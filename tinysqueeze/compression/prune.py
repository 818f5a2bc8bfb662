"""Leave out what is small: magnitude pruning (Han et al. 2015; Deep Compression, section 2)."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

Flat = Mapping[str, NDArray[np.float32]]


def threshold(weight: NDArray[np.float32], fraction: float) -> float:
    """The magnitude below which `fraction` (0 to 1) of the weights lie."""
    if not 0 <= fraction < 1:
        raise ValueError(
            f"the fraction to prune must be at least 0 and less than 1, not {fraction}"
        )
    return float(np.quantile(np.abs(weight), fraction)) if fraction else 0.0


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
