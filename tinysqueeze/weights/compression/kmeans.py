"""Weight sharing: a few values for a whole layer, found by k-means (Deep Compression, section 3)."""

from typing import Literal

import numba as nb
import numpy as np
from numpy.typing import NDArray

Start = Literal["linear", "density", "random"]


def start_values(
    values: NDArray[np.floating], count: int, start: Start = "linear", seed: int = 0
) -> NDArray[np.float64]:
    """The centroids k-means begins with, in order (Deep Compression, section 3.2).

    "random" picks weights, so that most land near zero, where most weights are. "density" spaces
    them evenly over the distribution of the weights. "linear" spaces them evenly between the
    smallest and the largest: it alone leaves centroids for the few large weights, which matter most.
    """
    values = np.asarray(values, np.float64).reshape(-1)
    if start == "linear":
        return np.linspace(values.min(), values.max(), count)
    if start == "density":
        return np.quantile(values, (np.arange(count) + 0.5) / count)
    if start == "random":
        chosen = np.random.default_rng(seed).choice(values, count, replace=len(values) < count)
        return np.sort(chosen)
    raise ValueError(f"centroids start 'linear', 'density' or 'random', not {start!r}")


def kmeans(
    values: NDArray[np.floating],
    count: int,
    start: Start = "linear",
    seed: int = 0,
    iterations: int = 300,
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Lloyd's algorithm on numbers: (count,) centroids in order, and the centroid of each value.

    In one dimension the values of a cluster lie side by side: on sorted values a cluster is a slice,
    its mean a difference of two running sums, and an iteration costs `count` binary searches. It
    stops where nothing moves. An empty cluster keeps its centroid.
    """
    flat = np.asarray(values, np.float64).reshape(-1)
    centroids = start_values(flat, count, start, seed)
    ordered = np.sort(flat)
    sums = np.concatenate([[0.0], np.cumsum(ordered)])
    for _ in range(iterations):
        borders = np.searchsorted(ordered, (centroids[1:] + centroids[:-1]) / 2)
        edges = np.concatenate([[0], borders, [len(flat)]])
        sizes = np.diff(edges)
        moved = np.where(sizes > 0, np.diff(sums[edges]) / np.maximum(sizes, 1), centroids)
        if np.array_equal(moved, centroids):
            break
        centroids = moved
    return centroids, nearest(flat, centroids).reshape(np.shape(values))


def nearest(values: NDArray[np.floating], centroids: NDArray[np.floating]) -> NDArray[np.int64]:
    """The index of the nearest of the sorted centroids."""
    return np.searchsorted((centroids[1:] + centroids[:-1]) / 2, values)


@nb.njit(cache=True)
def codebook_gradient(dweight: np.ndarray, codes: np.ndarray, count: int) -> np.ndarray:
    """d loss / d centroid: the sum of the gradients of all weights that share it.

    dweight float and codes integer, both of any one shape -> (count,) float64. Deep Compression,
    section 3.3: "the gradients are grouped by the code and summed".
    """
    total = np.zeros(count)
    for gradient, code in zip(dweight.flat, codes.flat):  # noqa: B905 (Numba knows no strict)
        total[code] += gradient
    return total


def share(
    weight: NDArray[np.float32], bits: int, start: Start = "linear", seed: int = 0
) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """Share a layer's weights: (2^bits,) codebook, and codes of the weight's shape.

    Code 0 is the weight 0.0, what pruning left; the other 2^bits - 1 are k-means centroids of the
    rest. A layer with fewer different weights than that keeps them as they are.
    """
    stored = weight[weight != 0]
    codes = np.zeros(weight.shape, np.int32)
    different = np.unique(stored)
    if len(different) < 1 << bits:
        centroids = different.astype(np.float64)
        codes[weight != 0] = 1 + np.searchsorted(different, stored)
    else:
        centroids, indices = kmeans(stored, (1 << bits) - 1, start, seed)
        codes[weight != 0] = 1 + indices
    codebook = np.zeros(1 << bits, np.float32)
    codebook[1 : 1 + len(centroids)] = centroids
    return codebook, codes
