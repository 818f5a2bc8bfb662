"""Inference in integers: int8 weights, one byte a value in every map, and sums that Python and C share.

A map holds bytes q that stand for scale * (q - zero); after a ReLU zero is 0. Each filter has its own
weight scale, so that its largest weight is ±127 (Jacob et al. 2018, "Quantization and training of
neural networks for efficient integer-arithmetic-only inference"; Krishnamoorthi 2018, section 3). A
sum of products is exact in int32, and is brought to the scale of its target by one rule:

    q = clamp(zero + floor((sum * multiplier + 2^(shift-1)) / 2^shift), lowest, 255)

with a 31-bit multiplier, in 64 bits. A hard-swish is a table of 256 bytes. Nothing is left to rounding
modes, so the same bytes come out of this file and of the exported C.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinysqueeze.devices.memory import deployed, stages_of, window_of
from tinysqueeze.errors import UserError
from tinysqueeze.graph.form import Activate, Add, Conv, Copy, Graph, Mean, Node, Pool
from tinysqueeze.graph.passes import folded_params
from tinysqueeze.graph.run import Maps, activate, averaged_over, compute, convolve, place
from tinysqueeze.labels import check_images
from tinysqueeze.network.models import Model
from tinysqueeze.network.ops import reference
from tinysqueeze.network.ops.reference import hard_swish, windows
from tinysqueeze.network.params import flatten
from tinysqueeze.network.window import Window

Bytes = NDArray[np.uint8]
WIDE_RANGE = 1 << 15  # what the last convolution gives are integers about this large
PIXELS = 1 << 16  # of images at a time: their maps in floats are large
EXACT = 1 << 24  # float32 holds every integer below


@dataclass(frozen=True, eq=False)
class Grid:
    """What the bytes of a map stand for: scale * (q - zero).

    One scale and one zero for all channels, but for the image, which may have one of each a channel.
    """

    scale: NDArray[np.float64]  # (C,)
    zero: NDArray[np.int64]  # (1,) or (C,)

    def encode(self, x: np.ndarray) -> Bytes:
        """The nearest bytes."""
        return np.clip(np.rint(x / self.scale) + self.zero, 0, 255).astype(np.uint8)

    def decode(self, q: np.ndarray) -> np.ndarray:
        """What they stand for."""
        return self.scale * (q.astype(np.float64) - self.zero)


@dataclass(frozen=True, eq=False)
class Int8Conv:
    """A convolution's integers: weight int8 (KH, KW, C / groups, F), the rest one a filter.

    `unit`, what one of a sum is worth, is only for people and for calibration.
    """

    weight: NDArray[np.int8]
    bias: NDArray[np.int32]
    multiplier: NDArray[np.int32]
    shift: NDArray[np.uint8]
    unit: NDArray[np.float64]


@dataclass(frozen=True)
class Int8Add:
    """A sum's integers: what each map is multiplied by before the common shift."""

    first: int
    second: int
    shift: int


@dataclass(frozen=True, eq=False)
class Int8Network:
    """A quantised network. Map 0 takes bytes, the output is int32: logits are `logit_scale` of it.

    The map `wide`, which the last convolution writes, holds int32 as well: a byte is too coarse for
    a thousand classes, and since its pixels only add up to the logits, it need never be stored.
    """

    graph: Graph
    grids: dict[int, Grid]
    convs: dict[int, Int8Conv]  # by the position of the node
    adds: dict[int, Int8Add]
    tables: dict[int, Bytes]  # by the position of a hard-swish: what it makes of each of 256 bytes
    wide: int
    logit_scale: float

    @property
    def parameter_bytes(self) -> int:
        """Bytes of weights, biases, multipliers, shifts and tables."""
        arrays = [
            array
            for conv in self.convs.values()
            for array in (conv.weight, conv.bias, conv.multiplier, conv.shift)
        ]
        return sum(array.nbytes for array in (*arrays, *self.tables.values()))

    def encode(self, images: np.ndarray) -> Bytes:
        """Images as the float network takes them, (N, H, W, C), as bytes."""
        return self.grids[0].encode(images)

    def integers(self, image_bytes: Bytes) -> NDArray[np.int32]:
        """The int32 logits (N, classes) of encoded images (N, H, W, C)."""
        maps: dict[int, np.ndarray] = {0: image_bytes}
        for i, node in enumerate(self.graph.nodes):
            place(self.graph, node, maps, self.run_node(i, node, maps))
        return maps[self.graph.output].reshape(len(image_bytes), -1)

    def logits(self, images: np.ndarray) -> NDArray[np.float32]:
        """The logits (N, classes) of images as the float network takes them."""
        return (self.integers(self.encode(images)) * self.logit_scale).astype(np.float32)

    def run_node(self, i: int, node: Node, maps: Mapping[int, np.ndarray]) -> np.ndarray:
        """What node i makes of the maps it reads."""
        x = maps[node.source].reshape(-1, *self.graph.size(node.source))
        zero_in, zero_out = self.grids[node.source].zero, self.grids[node.target].zero
        match node:
            case Conv():
                conv, relu = self.convs[i], node.activation == "relu"
                scaled = rescale(sums(x, zero_in, conv, node), conv.multiplier, conv.shift)
                if node.target == self.wide:
                    low = 0 if relu else -(1 << 31)
                    return np.clip(scaled, low, (1 << 31) - 1).astype(np.int32)
                return to_bytes(scaled, zero_out, relu)
            case Mean() if node.target == self.graph.output:
                centred = x.astype(np.int32) - zero_in.astype(np.int32)
                return centred.sum(axis=(1, 2), dtype=np.int32)
            case Pool(average=False):
                return windows(x, node.window, fill=0).max(axis=(3, 4))
            case Pool():
                return mean_bytes(x, zero_in, node.window, averaged_over(x.shape, node))
            case Mean():
                pixels = np.array(prod(x.shape[1:3]))
                return mean_bytes(x, zero_in, window_of(self.graph, node), pixels)
            case Add():
                add, second = self.adds[i], self.grids[node.second].zero
                other = maps[node.second].reshape(x.shape)
                total = (x - zero_in) * add.first + (other - second) * add.second
                relu = node.activation == "relu"
                return to_bytes(rescale(total, np.int64(1), add.shift), zero_out, relu)
            case Activate(kind="relu"):
                return np.maximum(x, zero_in.astype(np.uint8))
            case Activate():
                return self.tables[i][x]
        return x  # a copy


def sums(x: Bytes, zero: np.ndarray, conv: Int8Conv, node: Conv) -> NDArray[np.int64]:
    """Bias plus sums of (q - zero) * weight, (N, OH, OW, F): what int32 accumulation gives.

    Added up by BLAS, exactly: in float32 where no sum can reach EXACT, else in float64 (below 2^53).
    """
    weights = np.abs(conv.weight.astype(np.int64)).sum(axis=(0, 1, 2))
    most = int(weights.max()) * int(np.maximum(np.abs(zero), np.abs(255 - zero)).max())
    kind = np.float32 if most < EXACT else np.float64
    centred, none = x.astype(kind) - zero.astype(kind), np.zeros(len(conv.bias), kind)
    found = convolve(centred, conv.weight.astype(kind), none, node.window, node.groups)
    return found.astype(np.int64) + conv.bias


def mean_sums(x: Bytes, zero: np.ndarray, conv: Int8Conv, node: Conv) -> NDArray[np.float64]:
    """The mean of `sums` over all images and pixels, (F,): as they are linear, the sums of a mean patch."""
    high, wide = node.window.out_size(*x.shape[1:3])
    centred = x.sum(axis=0, dtype=np.int64, keepdims=True) - len(x) * zero
    patch = windows(centred, node.window).sum(axis=(0, 1, 2)) / (len(x) * high * wide)
    weight, bias = conv.weight.astype(np.float64), conv.bias.astype(np.float64)
    return convolve(
        patch[None], weight, bias, Window(node.window.kernel), node.groups, reference
    ).ravel()


def rescale(total: np.ndarray, multiplier: Any, shift: Any) -> NDArray[np.int64]:
    """floor((total * multiplier + half) / 2^shift) in int64."""
    shift = np.asarray(shift, np.int64)
    scaled = total * np.asarray(multiplier, np.int64)
    scaled += np.int64(1) << (shift - 1)
    scaled >>= shift
    return scaled


def to_bytes(scaled: np.ndarray, zero: np.ndarray, relu: bool) -> Bytes:
    """Onto the target's grid; after a ReLU nothing lies below zero."""
    return np.clip(scaled + zero, zero if relu else 0, 255).astype(np.uint8)


def mean_bytes(x: Bytes, zero: np.ndarray, window: Window, count: np.ndarray) -> Bytes:
    """The average over `count` pixels of each window to the nearest byte, halves up; padding is zero."""
    total = windows(x.astype(np.int64), window, fill=int(zero[0])).sum(axis=(3, 4))
    beyond = window.area - count  # seen as zeros, not counted
    return ((2 * (total - beyond * zero) + count) // (2 * count)).astype(np.uint8)


# --------------------------------------------------------------------------------------- quantising


def quantise(
    model: Model,
    params: Mapping[str, Any],
    images: np.ndarray,
    pixel: tuple[Any, Any] | None = None,
) -> Int8Network:
    """A network in integers, calibrated on some images; labels are not needed.

    images   (N, H, W, C) float32, preprocessed as the float network takes them; dozens are enough
    pixel    (scale, zero) a channel if image = scale * (byte - zero): the integer network then takes
             the photograph's own bytes; else the image's range is calibrated as every map's is

    Raises UserError where the network has a layer that integers do not do, or maps that are not finite,
    ShapeError for images that do not fit.
    """
    graph, folds = deployed(model)
    check(graph)
    images = check_images(images, f"{graph.name}, to calibrate", graph.shapes[0])
    if not len(images):
        raise UserError("quantising needs at least one image to calibrate on")
    flat = flatten(folded_params(folds, params))
    with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is refused below
        ranges, means = calibrate(graph, flat, images)
    measured = (images, *flat.values(), list(ranges.values()))
    if not all(np.isfinite(numbers).all() for numbers in measured):
        raise UserError(
            f"{graph.name}: images to calibrate on, parameters, or maps between them are not all finite"
        )
    grids = {value: _grid(*span, graph.shapes[value][-1]) for value, span in ranges.items()}
    offset = np.zeros(graph.shapes[0][-1])
    if pixel is not None:
        scale, zero = (np.broadcast_to(np.asarray(a, np.float64), offset.shape) for a in pixel)
        grids[0] = Grid(scale, np.rint(zero).astype(np.int64))
        offset = (grids[0].zero - zero) * scale  # what rounding the zero leaves, for the biases
    wide = wide_map(graph)
    if wide >= 0:
        grids[wide] = _wide_grid(grids[wide])
    network = Int8Network(graph, grids, {}, {}, {}, wide, _logit_scale(graph, grids))
    for i, node in enumerate(graph.nodes):
        if isinstance(node, Conv):
            channels = graph.size(node.source)[2] // node.groups
            shape = (*node.window.kernel, channels, node.filters)
            weight = flat[f"{node.path}/weight"].reshape(shape).astype(np.float64)
            bias = flat[f"{node.path}/bias"] if node.bias else np.zeros(node.filters)
            if node.source == 0:
                bias = bias + _by_channel(weight, offset, node.groups).sum(axis=(0, 1, 2))
            weight = _by_channel(weight, grids[node.source].scale, node.groups)
            mine = slice(node.offset, node.offset + node.filters)
            network.convs[i] = int8_conv(weight, bias, grids[node.target].scale[mine])
        elif isinstance(node, Add):
            scales = [float(grids[value].scale[0]) for value in (*node.sources, node.target)]
            network.adds[i] = _int8_add(*scales)
        elif isinstance(node, Activate) and node.kind == "hard-swish":
            network.tables[i] = _swish_table(grids[node.source], grids[node.target])
    _correct_biases(network, means, images)
    return network


def pixel_grid(preprocess: Any) -> tuple[np.ndarray, np.ndarray]:
    """(scale, zero) a channel of a `Preprocess`, which gives (byte / divide_by - mean) / std."""
    divide_by, std = preprocess.divide_by, np.array(preprocess.std)
    return 1 / (divide_by * std), divide_by * np.array(preprocess.mean)


def _by_channel(weight: np.ndarray, factor: np.ndarray, groups: int) -> np.ndarray:
    """weight (KH, KW, C / groups, F) times a factor for each of the C channels."""
    parts = zip(np.split(weight, groups, axis=3), np.split(factor, groups), strict=True)
    return np.concatenate([w * f[:, None] for w, f in parts], axis=3)


def check(graph: Graph) -> None:
    """Raises UserError for networks that the integer rules above do not cover."""
    last = graph.writers(graph.output)
    linear = graph.size(graph.output)[:2] == (1, 1) and all(isinstance(n, Conv) for n in last)
    if not last or not (isinstance(last[0], Mean) or linear):
        raise UserError(
            f"{graph.name}: int8 and C need a network that ends with a global average pool or a "
            "fully connected layer"
        )
    if not all(isinstance(node, Conv) for node in graph.readers(0)):
        raise UserError(f"{graph.name}: int8 and C need a convolution as the first layer")


def wide_map(graph: Graph) -> int:
    """The map of int32 that the last convolution writes; -1 if a network ends otherwise."""
    last = stages_of(graph)[-1]
    return last.convs[0].target if last.convs else -1


def calibrate(
    graph: Graph, flat: Mapping[str, Any], images: np.ndarray
) -> tuple[dict[int, tuple[float, float]], dict[int, np.ndarray]]:
    """What the network does with some images in floats.

    The smallest and the largest value of each map, 0 included: maps between which bytes are merely moved
    (pools, ReLUs) share the wider of their ranges. And by the position of each convolution the means of
    its filters before the activation, (F,) float64.
    """
    ranges: dict[int, tuple[float, float]] = {}
    means: dict[int, np.ndarray] = {}

    def widen(value: int, x: np.ndarray) -> None:
        low, high = ranges.get(value, (0.0, 0.0))
        ranges[value] = min(low, float(x.min())), max(high, float(x.max()))

    for few in _few_at_a_time(images):
        maps: Maps = {0: images[few]}
        widen(0, maps[0])
        for i, (node, done) in enumerate(graph.done_after()):
            if isinstance(node, Conv):
                y = compute(graph, replace(node, activation=None), flat, maps)
                share = y[0].size // node.filters * len(images)  # pixels of all images
                means[i] = means.get(i, 0.0) + y.sum(axis=(0, 1, 2), dtype=np.float64) / share
                y = activate(y, node.activation)
            else:
                y = compute(graph, node, flat, maps)
            widen(node.target, y)
            place(graph, node, maps, y)
            for value in done:
                del maps[value]
    tied = [
        (node.source, node.target)
        for node in graph.nodes
        if (isinstance(node, Pool | Mean | Copy) and node.target != graph.output)
        or (isinstance(node, Activate) and node.kind == "relu")
    ]
    for _ in tied:  # a chain of ties is no longer than this
        for pair in tied:
            lows, highs = zip(*(ranges[value] for value in pair), strict=True)
            ranges |= dict.fromkeys(pair, (min(lows), max(highs)))
    return ranges, means


def _few_at_a_time(images: np.ndarray) -> list[slice]:
    """Parts of the images, of about PIXELS each."""
    count = max(1, PIXELS // max(1, prod(images.shape[1:-1])))
    return [slice(start, start + count) for start in range(0, len(images), count)]


def _grid(low: float, high: float, channels: int) -> Grid:
    """256 steps from low to high, one of them exactly on 0."""
    scale = ((high - low) or 1.0) / 255  # a map may be all zeros
    return Grid(np.full(channels, scale), np.rint(np.full(1, -low / scale)).astype(np.int64))


def _wide_grid(grid: Grid) -> Grid:
    """The same range in finer steps, of one size for all channels."""
    return Grid(
        np.full_like(grid.scale, grid.scale.max() * 255 / WIDE_RANGE), np.zeros(1, np.int64)
    )


def _logit_scale(graph: Graph, grids: dict[int, Grid]) -> float:
    """What one of the integer output is worth: a sum over all pixels of what the last map holds."""
    end = graph.writers(graph.output)[0]
    summed = end.source if isinstance(end, Mean) else graph.output
    return float(grids[summed].scale[0]) / prod(graph.size(summed)[:2])


def _correct_biases(
    network: Int8Network, means: Mapping[int, np.ndarray], images: np.ndarray
) -> None:
    """Move each bias so that a filter's mean over the images is what it is in floats, `means`.

    Rounding shifts means, and the shifts of a layer feed the next; so layer by layer, each with the
    corrected ones before it (Nagel et al. 2019, section 4.2, here from images).
    """
    graph = network.graph
    parts = _few_at_a_time(images)
    maps: Maps = {0: np.concatenate([network.encode(images[few]) for few in parts])}
    for i, (node, done) in enumerate(graph.done_after()):
        if isinstance(node, Conv):
            conv, zero = network.convs[i], network.grids[node.source].zero
            x = maps[node.source].reshape(-1, *graph.size(node.source))
            drift = means[i] / conv.unit - mean_sums(x, zero, conv, node)
            network.convs[i] = replace(conv, bias=conv.bias + np.rint(drift).astype(np.int32))
        given = ({value: maps[value][few] for value in node.sources} for few in parts)
        place(graph, node, maps, np.concatenate([network.run_node(i, node, few) for few in given]))
        for value in done:
            del maps[value]


def int8_conv(weight: np.ndarray, bias: np.ndarray, scale_out: np.ndarray) -> Int8Conv:
    """Quantise one convolution, filter by filter; the source's scales are in the weight already.

    The largest weight becomes ±127, unless the bias would then not fit int32 beside the sums.
    """
    largest = np.abs(weight).max(axis=(0, 1, 2))
    unit = np.maximum(largest / 127, np.abs(bias) / (1 << 29))
    unit = np.where(unit > 0, unit, scale_out)  # a filter may be all zeros
    weight, bias = np.rint(weight / unit), np.rint(bias / unit)
    multiplier, shift = fixed_point(unit / scale_out)
    return Int8Conv(weight.astype(np.int8), bias.astype(np.int32), multiplier, shift, unit)


def fixed_point(factor: np.ndarray) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
    """factor ~ multiplier / 2^shift with a multiplier of 31 bits; below 2^-31 it is 0."""
    mantissa, exponent = np.frexp(factor)  # factor = mantissa * 2^exponent, 0.5 <= mantissa < 1
    multiplier = np.minimum(np.rint(mantissa * (1 << 31)), (1 << 31) - 1)
    shift = 31 - exponent
    if shift.min() < 1:
        raise UserError("a layer's output is so much finer than its input that int8 cannot hold it")
    multiplier = np.where(shift > 62, 0, multiplier)
    return multiplier.astype(np.int32), np.minimum(shift, 62).astype(np.uint8)


def _swish_table(given: Grid, made: Grid) -> Bytes:
    """What a hard-swish makes of each byte of a map whose channels share one scale."""
    scale = float(given.scale[0])
    y, _ = hard_swish(scale * (np.arange(256) - given.zero))
    return Grid(made.scale[:1], made.zero).encode(y)


def _int8_add(first: float, second: float, target: float) -> Int8Add:
    """Multipliers for one common shift, the larger with 31 bits less one for the sum."""
    _, shift = fixed_point(np.array([max(first, second) / target]))
    factor = 2.0 ** int(shift[0])
    half = [min(round(scale / target * factor), (1 << 31) - 1) for scale in (first, second)]
    return Int8Add(half[0], half[1], int(shift[0]))
