"""From a network to a small file: without loss, as in the paper, or to a size.

    small = to_size(weights, 350_000, images=photographs)   # a Compressed
    fileformat.write("squeezenet.tsq", small)
    unpack(fileformat.read("squeezenet.tsq"))               # a WeightSet again

What a file costs to send is in `sending_times`.
"""

from collections.abc import Callable, Mapping
from math import exp, log
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinysqueeze.errors import UserError
from tinysqueeze.weights.compression import calibrate
from tinysqueeze.weights.compression.fileformat import Compressed, to_bytes
from tinysqueeze.weights.compression.kmeans import Start, share
from tinysqueeze.weights.compression.prune import mask
from tinysqueeze.weights.compression.rounding import (
    LARGEST,
    Rounded,
    bit_costs,
    feedback_factor,
    round_to_price,
    stiffness,
    suggested_step,
)
from tinysqueeze.weights.compression.tensors import Dense, Shared, Stepped, Tensor, exactly
from tinysqueeze.weights.trained import (
    WeightSet,
    describe,
    fitting,
    names_of,
    preprocess_fields,
    preprocess_of,
)

Progress = Callable[[str], None]
TRIES = 6  # of a price, each a whole compression
NEAR_ENOUGH = 0.985  # of the target size
HIGHEST = log(1e3)  # the logarithm of a price at which nothing is left
MOST_BITS = 12  # of k-means: 4,096 values


def pack(weights: WeightSet, tensors: Mapping[str, Tensor]) -> Compressed:
    """With what it takes to use the network: the preparation of its images, the names of classes."""
    extra: dict[str, Any] = {"preprocess": preprocess_fields(weights)}
    if weights.classes:
        extra["classes"] = list(weights.classes)
    if weights.wnids:
        extra["wnids"] = list(weights.wnids)
    return Compressed(weights.model, tensors, extra)


def unpack(compressed: Compressed, source: str = "a .tsq file") -> WeightSet:
    """The network to run, its weights as float32. Raises FormatError where the metadata lack."""
    extra = compressed.extra
    return WeightSet(
        compressed.model,
        fitting(compressed.model, compressed.params()),
        description=describe(compressed.model, source),
        **preprocess_of(extra.get("preprocess")),
        classes=names_of(extra.get("classes", [])),
        wnids=names_of(extra.get("wnids", [])),
    )


def lossless(weights: WeightSet) -> Compressed:
    """The same weights to the bit; layers with up to 255 different weights are stored as codes."""
    return pack(weights, {path: exactly(array) for path, array in weights.flat.items()})


def is_rounded(path: str, array: NDArray[np.float32]) -> bool:
    """Weights of convolutions and linear layers are; biases and batch norms are few and stay."""
    return path.endswith("/weight") and array.ndim > 1


def shared(
    weights: WeightSet, bits: int, prune: float = 0.0, start: Start = "linear"
) -> Compressed:
    """The paper's pipeline: prune the smallest fraction of each layer, share the rest by k-means.

    2^bits values a layer, zero one of them; the rest in 16 bits. Raises UserError.
    """
    if not 1 <= bits <= MOST_BITS or not 0 <= prune < 1:
        raise UserError(f"bits must be 1 to {MOST_BITS} and prune at least 0 and less than 1")
    tensors: dict[str, Tensor] = {}
    for path, array in weights.flat.items():
        if is_rounded(path, array):
            codebook, codes = share(array * mask(array, prune), bits, start)
            tensors[path] = Shared(codes, np.trim_zeros(codebook[1:], "b"), half=True)
        else:
            tensors[path] = Dense(array, half=path.endswith("/bias"))
    return pack(weights, tensors)


def to_size(
    weights: WeightSet,
    target: int,
    images: NDArray[np.float32] | None = None,
    say: Progress = lambda what: None,
) -> Compressed:
    """The best network in at most `target` bytes.

    `images` (N, H, W, C), prepared for the network, are photographs of the kind it will see, without
    labels; some fifty do. Without any, the error of the weights themselves is kept small, which costs
    accuracy. `say` is told what is being done. Raises UserError where it cannot be made so small.
    """
    at_price = _Plain(weights) if images is None else _Calibrated(weights, images, say)
    price = at_price.guess(target)
    best: tuple[int, Compressed] | None = None
    last: tuple[float, int] | None = None
    for _ in range(TRIES):
        say(f"rounding at {exp(price):.2g} nats a bit")
        found = at_price(exp(price))
        size = len(to_bytes(found))
        if size <= target and (best is None or size > best[0]):
            best = size, found
        if NEAR_ENOUGH * target < size <= target:
            break
        if last is None or last[1] == size or last[0] == price:
            slope = 2 * log(at_price.estimate(price + 0.5) / at_price.estimate(price))
        else:
            slope = log(size / last[1]) / (price - last[0])
        last = price, size
        price = min(price + log((1 + NEAR_ENOUGH) / 2 * target / size) / min(slope, -0.03), HIGHEST)
    if best is None:
        raise UserError(
            f"{weights.model.name} does not fit into {target:,} bytes: the last try took {size:,}"
        )
    return best[1]


class _Plain:
    """Without photographs: each layer's squared error relative to its weights counts the same."""

    def __init__(self, weights: WeightSet) -> None:
        self.weights = weights
        self.matrices = {
            path.removesuffix("/weight"): array.reshape(-1, array.shape[-1]).astype(float)
            for path, array in weights.flat.items()
            if is_rounded(path, array)
        }
        # What a squared error of the layer's outputs, or here of its weights, counts.
        self.units = {path: 1 / max((m**2).sum(), 1e-30) for path, m in self.matrices.items()}
        self.stiffness = dict.fromkeys(self.matrices, 1.0)

    def __call__(self, price: float) -> Compressed:
        """Round at this price a bit."""
        rounded = {
            path: round_to_price(matrix, np.eye(len(matrix)), price / self.units[path])
            for path, matrix in self.matrices.items()
        }
        return pack(self.weights, _assembled(self.weights.flat, rounded, {}))

    def estimate(self, price: float) -> int:
        """Roughly the file's bytes at a price, given by its logarithm: what plain rounding takes."""
        coded = {f"{path}/weight" for path in self.matrices}
        rest = (array.size for path, array in self.weights.flat.items() if path not in coded)
        bits = 16.0 * sum(rest)
        for path, matrix in self.matrices.items():
            step = suggested_step(exp(price) / self.units[path], self.stiffness[path])
            levels = np.clip(np.rint(matrix / step), -LARGEST, LARGEST).astype(np.int32)
            bits += bit_costs(levels)[levels + LARGEST].sum()
        return int(bits / 8)

    def guess(self, target: int) -> float:
        """The logarithm of a price where the estimate is near the target."""
        low, high = log(1e-15), HIGHEST
        while high - low > 0.05:
            middle = (low + high) / 2
            low, high = (middle, high) if self.estimate(middle) > target else (low, middle)
        return high


class _Calibrated(_Plain):
    """With photographs: errors are counted in nats of change in the answers."""

    def __init__(self, weights: WeightSet, images: NDArray[np.float32], say: Progress) -> None:
        super().__init__(weights)
        self.images = images
        say("looking at what every layer receives")
        found = calibrate.original_moments(weights.model, weights.params, images)
        say("measuring how the answers depend on every layer")
        self.units = calibrate.sensitivities(weights.model, weights.params, images, found)
        self.matrices = {path: self.matrices[path] for path in found}
        self.stiffness = {
            path: stiffness(feedback_factor(seen.centred())) for path, seen in found.items()
        }

    def __call__(self, price: float) -> Compressed:
        """Round at this price, in nats a bit."""
        weights = self.weights
        rounded, biases = calibrate.calibrated(
            weights.model, weights.params, self.images, self.units, price
        )
        return pack(weights, _assembled(weights.flat, rounded, biases))


def _assembled(
    flat: Mapping[str, NDArray[np.float32]],
    rounded: Mapping[str, Rounded],
    biases: Mapping[str, NDArray[np.float32]],
) -> dict[str, Tensor]:
    """Every array in the form it is stored in."""
    tensors: dict[str, Tensor] = {}
    for path, array in flat.items():
        grid = rounded.get(path.removesuffix("/weight")) if path.endswith("/weight") else None
        if grid is not None:
            tensors[path] = Stepped(grid.levels.reshape(array.shape), float(np.float32(grid.step)))
        else:
            half = path.endswith("/bias") or is_rounded(path, array)
            tensors[path] = Dense(biases.get(path, array), half=half)
    return tensors


NETWORKS_TO_SEND = {  # bytes as published: the paper's Table 2, and the authors' files
    "AlexNet, 32 bits": 240_000_000,
    "SqueezeNet, 32 bits": 4_800_000,
    "SqueezeNet, Deep Compression, as released": 675_763,
    "SqueezeNet, Deep Compression, 6 bits (paper)": 470_000,
}
MEGABITS = (1, 10, 100)


def sending_times(ours: Mapping[str, int]) -> list[dict[str, Any]]:
    """Rows for a table: name, bytes, and seconds to send it at 1, 10 and 100 Mbit/s.

    `ours` are names and sizes in bytes that are put below the published ones. Pure transfer time, no
    protocol overhead.
    """
    return [
        {"name": name, "bytes": size}
        | {f"seconds at {rate} Mbit/s": 8 * size / (rate * 1e6) for rate in MEGABITS}
        for name, size in (NETWORKS_TO_SEND | dict(ours)).items()
    ]
