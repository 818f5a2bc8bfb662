"""The best network of a size: one price for every bit, found by trying. Stops between layers, and goes on.

A *try* rounds the whole network at one price, layer by layer. When it comes near the size, the last layer,
which no other depends on, takes up what is left: its own price is moved until the file is just full.

    sizing = Sizing()
    for step in search(weights, 350_000, images, sizing):   # keep `sizing` whenever you like
        print(step.what, step.share)
    sizing.best                                             # a Compressed
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from math import exp, log, prod

import numpy as np
from numpy.typing import NDArray

from tinysqueeze.errors import UserError
from tinysqueeze.graph import Conv, lower, without_dropout
from tinysqueeze.weights.compression import calibrate
from tinysqueeze.weights.compression.calibrate import Layer
from tinysqueeze.weights.compression.fileformat import Compressed, to_bytes
from tinysqueeze.weights.compression.pipeline import is_rounded, merged_norms, pack
from tinysqueeze.weights.compression.rans import encode_levels
from tinysqueeze.weights.compression.rounding import (
    LARGEST,
    Matrix,
    Rounded,
    feedback_factor,
    round_to_price,
    stiffness,
    suggested_step,
)
from tinysqueeze.weights.compression.tensors import Dense, Stepped, Tensor
from tinysqueeze.weights.trained import WeightSet

TRIES = 8  # of a price, each a whole compression
USUAL = 2  # that it takes
NEAR_ENOUGH = 0.997  # of the target size
FINALLY = 0.985
LOWEST, HIGHEST = (
    log(1e-15),
    log(1e3),
)  # the logarithms of prices: grids as fine as can be, nothing left
REACH = 0.12  # of its own bytes that the last layer gives or takes
HALVINGS = 10  # of the logarithm of its price, from LEEWAY on either side
LEEWAY = 1.5
FINEST = 256  # steps of that logarithm, for each factor of e
PREPARING = 0.7  # of the time of a try

Rounder = Callable[[float], Layer]
"""From a price, in the layer's own unit of error a bit, to what the layer becomes."""
SizeOf = Callable[[Mapping[str, Layer]], int]
"""From layers by path to the bytes of the file."""


@dataclass(eq=False)
class Sizing:
    """A search under way: all that must be kept to go on as if it had never stopped.

    `units` say what a squared error of a layer's output counts, `stiffness` what `rounding` means by it;
    `tries` are the logarithms of prices and the bytes they gave, `layers` those of the try under way.
    """

    units: dict[str, float] = field(default_factory=dict)
    stiffness: dict[str, float] = field(default_factory=dict)
    tries: list[tuple[float, int]] = field(default_factory=list)
    layers: dict[str, Layer] = field(default_factory=dict)
    best: Compressed | None = None
    bytes: int = 0  # of `best`


@dataclass(frozen=True)
class Step:
    """One more layer: what is being done, and the share of all that is done (0 to 1, an estimate)."""

    what: str
    share: float


def to_size(
    weights: WeightSet,
    target: int,
    images: NDArray[np.float32] | None = None,
    coding: str = "ans",
) -> Compressed:
    """`search` to its end: the best network in at most `target` bytes."""
    sizing = Sizing()
    for _ in search(weights, target, images, sizing, coding):
        pass
    assert sizing.best is not None
    return sizing.best


def search(
    weights: WeightSet,
    target: int,
    images: NDArray[np.float32] | None,
    sizing: Sizing,
    coding: str = "ans",
) -> Iterator[Step]:
    """Find the best network in at most `target` bytes, from where `sizing` stands, into `sizing.best`.

    `images` (N, H, W, C), prepared for the network, are photographs of the kind it will see, without
    labels; some fifty do. Without any, the error of the weights themselves is kept small, which costs
    accuracy. Yields after every layer; `sizing` is whole then. Raises UserError where it cannot be made
    so small, at once if nothing could.
    """
    size_of = partial(_size, weights, coding)
    rounding = _Plain(weights, size_of) if images is None else _Calibrated(weights, size_of, images)
    if rounding.least > target:
        raise _too_large(weights, target, f"with every weight 0 it takes {rounding.least:,}")
    yield from rounding.prepare(sizing)
    while len(sizing.tries) < TRIES and sizing.bytes <= _enough(sizing) * target:
        price = _next_price(rounding, sizing, target)
        if price in dict(sizing.tries):
            break
        yield from _one_try(rounding, sizing, price, target, size_of)
    if sizing.best is None:
        sizes = ", ".join(f"{size:,}" for _, size in sizing.tries)
        raise _too_large(weights, target, f"{len(sizing.tries)} tries took {sizes}")


def _enough(sizing: Sizing) -> float:
    """The share of the size that will do: less once it has been tried often."""
    return NEAR_ENOUGH if len(sizing.tries) < TRIES // 2 else FINALLY


def _one_try(
    rounding: "_Plain",
    sizing: Sizing,
    price: float,
    target: int,
    size_of: SizeOf,
) -> Iterator[Step]:
    """Round the network at a price given by its logarithm; the last layer fills the file."""
    last = list(rounding.matrices)[-1]
    size = 0

    def choose(path: str, fit: Rounder) -> Layer:
        nonlocal size
        if path not in sizing.layers:
            at = partial(_priced, fit, rounding.units(sizing)[path])
            sizing.layers[path] = at(price)
            if path == last:
                size = size_of(sizing.layers)
                _fill(sizing.layers, path, at, price, target, size_of)
        return sizing.layers[path]

    number, done, whole = len(sizing.tries), 0.0, sum(rounding.work.values())
    for path in rounding.walk(choose):
        if path == last:
            _finish(rounding.weights, sizing, price, size, target, size_of)
        done += rounding.work.get(path, 0.0)
        expected = PREPARING + max(USUAL, number + 1)
        yield Step(
            f"try {number + 1} of about {max(USUAL, number + 1)}, {path}",
            min((PREPARING + number + done / whole) / expected, 1.0),
        )


def _priced(fit: Rounder, unit: float, price: float) -> Layer:
    return fit(exp(price) / unit)


def _fill(
    layers: dict[str, Layer],
    path: str,
    at: Rounder,
    price: float,
    target: int,
    size_of: SizeOf,
) -> None:
    """Move the price of one layer alone until the file is just full, where that is within its reach."""
    size = size_of(layers)
    if abs(size - target) > REACH * layers[path].grid.bits / 8:
        return
    low, high = (price - LEEWAY, price) if size <= target else (price, price + LEEWAY)
    fits = layers[path] if size <= target else None
    for _ in range(HALVINGS):
        if fits is not None and size_of(layers | {path: fits}) > (1 + NEAR_ENOUGH) / 2 * target:
            break
        middle = (low + high) / 2
        tried = at(middle)
        if size_of(layers | {path: tried}) <= target:
            fits, high = tried, middle
        else:
            low = middle
    layers[path] = fits or layers[path]


def _finish(
    weights: WeightSet,
    sizing: Sizing,
    price: float,
    size: int,
    target: int,
    size_of: SizeOf,
) -> None:
    """A try is over: what it took at its price, and the file if it is the best so far."""
    filled = size_of(sizing.layers)
    if sizing.bytes < filled <= target:
        sizing.best = pack(weights, _assembled(weights, sizing.layers))
        sizing.bytes = filled
    sizing.tries.append((price, size))
    sizing.layers = {}


def _next_price(rounding: "_Plain", sizing: Sizing, target: int) -> float:
    """The logarithm of the price to try: where the sizes seen so far, or else a slope, meet the target.

    It is rounded, so that the last bits of sums decide nothing.
    """
    return round(_meeting(rounding, sizing, target) * FINEST) / FINEST


def _meeting(rounding: "_Plain", sizing: Sizing, target: int) -> float:
    if not sizing.tries:
        return rounding.guess(target, sizing)
    too_large = max((t for t in sizing.tries if t[1] > target), default=None)
    small = min((t for t in sizing.tries if t[1] <= target), default=None)
    if too_large and small and too_large[0] < small[0] and too_large[1] > small[1]:
        share = log(too_large[1] / target) / log(too_large[1] / small[1])
        if len(sizing.tries) > 3:  # it does not meet it fast: by halves
            share = 0.5
        return too_large[0] + share * (small[0] - too_large[0])
    price, size = sizing.tries[-1]
    seen = rounding.guess(target * rounding.estimate(price, sizing) / size, sizing)
    seen = max(seen, price + 0.02) if size > target else min(seen, price - 0.02)
    return min(max(seen, LOWEST), HIGHEST)


class _Plain:
    """Without photographs: each layer's squared error relative to its weights counts the same."""

    def __init__(self, weights: WeightSet, size_of: SizeOf) -> None:
        self.weights = weights
        self.matrices: dict[str, Matrix] = {
            path.removesuffix("/weight"): array.reshape(-1, array.shape[-1]).astype(float)
            for path, array in weights.flat.items()
            if is_rounded(path, array)
        }
        self.work = {path: float(matrix.size) for path, matrix in self.matrices.items()}
        self.least = size_of({path: _nothing_left(m) for path, m in self.matrices.items()})

    def units(self, sizing: Sizing) -> Mapping[str, float]:
        """What a squared error of a layer's weights counts."""
        return {path: 1 / max((m**2).sum(), 1e-30) for path, m in self.matrices.items()}

    def prepare(self, sizing: Sizing) -> Iterator[Step]:
        """Nothing is to be measured."""
        sizing.stiffness = dict.fromkeys(self.matrices, 1.0)
        return iter(())

    def walk(self, choose: Callable[[str, Rounder], Layer]) -> Iterator[str]:
        """Round every layer as `choose(path, rounder)` says."""
        for path, matrix in self.matrices.items():
            choose(path, partial(_rounded_alone, matrix))
            yield path

    def estimate(self, price: float, sizing: Sizing) -> int:
        """Roughly the file's bytes at a price, given by its logarithm: what plain rounding takes."""
        units, size = self.units(sizing), self.least
        for path, matrix in self.matrices.items():
            step = suggested_step(exp(price) / units[path], sizing.stiffness[path])
            step = max(step, float(np.abs(matrix).max()) / LARGEST, 1e-30)
            levels = np.clip(np.rint(matrix / step), -LARGEST, LARGEST).astype(np.int32)
            size += len(encode_levels(levels))
        return size

    def guess(self, target: float, sizing: Sizing) -> float:
        """The logarithm of a price where the estimate is near the target."""
        low, high = LOWEST, HIGHEST
        while high - low > 1 / FINEST:
            middle = (low + high) / 2
            below = self.estimate(middle, sizing) <= target
            low, high = (low, middle) if below else (middle, high)
        return high if high > LOWEST + 1 / FINEST else LOWEST


class _Calibrated(_Plain):
    """With photographs: errors are counted in nats of change in the answers."""

    def __init__(self, weights: WeightSet, size_of: SizeOf, images: NDArray[np.float32]) -> None:
        super().__init__(weights, size_of)
        self.images = images
        graph = without_dropout(lower(weights.model))
        convolutions = [n for n in graph.nodes if isinstance(n, Conv) and n.groups == 1]
        self.matrices = {n.path: self.matrices[n.path] for n in convolutions}
        self.work = {n.path: self._work(n, prod(graph.shapes[n.target][:-1])) for n in convolutions}

    def _work(self, conv: Conv, pixels: int) -> float:
        """Multiply-adds, roughly: both networks' outputs and the moments of the inputs."""
        inputs, filters = self.matrices[conv.path].shape
        return 2.0 * inputs * (filters * pixels * len(self.images) + inputs * calibrate.ROWS)

    def units(self, sizing: Sizing) -> Mapping[str, float]:
        """Nats of change in the answers, per squared error of a layer's output."""
        return sizing.units

    def prepare(self, sizing: Sizing) -> Iterator[Step]:
        """Measure how the answers depend on every layer, unless that is known already."""
        if len(sizing.stiffness) == len(self.matrices):
            return
        model, params, whole = self.weights.model, self.weights.params, PREPARING + USUAL
        found: dict[str, calibrate.Moments] = {}
        share, each = 0.0, PREPARING / whole / len(self.matrices) / 2
        for path in calibrate.original_moments(model, params, self.images, found):
            share += each
            yield Step(f"what reaches {path}", min(share, 1.0))
        for path in calibrate.sensitivities(model, params, self.images, found, sizing.units):
            share += each
            yield Step(f"how the answers depend on {path}", min(share, 1.0))
        sizing.stiffness = {
            path: stiffness(feedback_factor(seen.centred())) for path, seen in found.items()
        }

    def walk(self, choose: Callable[[str, Rounder], Layer]) -> Iterator[str]:
        """Round every layer, fitted to what the layers before it give now."""
        model, params = self.weights.model, self.weights.params
        return calibrate.layer_by_layer(model, params, self.images, self.matrices, choose)


def _rounded_alone(matrix: Matrix, price: float) -> Layer:
    return Layer(round_to_price(matrix, np.eye(len(matrix)), price))


def _nothing_left(matrix: Matrix) -> Layer:
    return Layer(Rounded(np.zeros(matrix.shape, np.int32), 1.0, 0.0, 0.0))


def _size(weights: WeightSet, coding: str, layers: Mapping[str, Layer]) -> int:
    """Bytes of the file, to the byte."""
    return len(to_bytes(pack(weights, _assembled(weights, layers)), coding))


def _assembled(weights: WeightSet, layers: Mapping[str, Layer]) -> dict[str, Tensor]:
    """Every array in the form it is stored in."""
    tensors: dict[str, Tensor] = {}
    for path, array in weights.flat.items():
        layer, name = layers.get(path.rpartition("/")[0]), path.rpartition("/")[2]
        if layer and name == "weight":
            grid = layer.grid
            tensors[path] = Stepped(grid.levels.reshape(array.shape), float(np.float32(grid.step)))
        elif layer and name == "bias" and layer.bias is not None:
            tensors[path] = layer.bias
        else:
            tensors[path] = Dense(array, half=name == "bias" or is_rounded(path, array))
    return tensors | merged_norms(weights.model, weights.flat)


def _too_large(weights: WeightSet, target: int, why: str) -> UserError:
    return UserError(f"{weights.model.name} does not fit into {target:,} bytes: {why}")
