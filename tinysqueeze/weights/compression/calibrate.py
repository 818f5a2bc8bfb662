"""Compress against photographs: each layer is rounded so that its outputs on them stay.

No labels are needed, only images like those that the network will see. Two walks:
1. `sensitivities`: round one layer at a time and measure how the answers change. The ratio of that
   change (Kullback-Leibler divergence, nats) to the error of the layer's own output puts the errors
   of all layers in one unit.
2. `layer_by_layer`: from the first layer to the last, the original and the compressed network side by
   side. Each layer's target is what it should put out given what it *now* gets: the least-squares
   fit to the original's output (as Frantar & Alistarh 2022, "Optimal Brain Compression", do for a
   compressed model), so that later layers mend what earlier ones broke. Biases are fitted with it.

Both are iterators that yield the path of each layer that is done: whoever runs them shows how far they
are, and may stop. The networks run in float64, and sensitivities are rounded: how a processor rounds its
last bits would otherwise decide some weights, through them all that follow, and so the file.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from tinysqueeze.compiled import compile as compile_plan
from tinysqueeze.graph import Activate, Conv, compute, lower, place, without_dropout
from tinysqueeze.network.layers import Params
from tinysqueeze.network.models import Model
from tinysqueeze.network.ops import fast
from tinysqueeze.network.ops.reference import softmax
from tinysqueeze.network.params import flatten, unflatten
from tinysqueeze.weights.compression.rans import encode_levels
from tinysqueeze.weights.compression.rounding import (
    LARGEST,
    Matrix,
    Rounded,
    round_to_price,
    suggested_step,
)
from tinysqueeze.weights.compression.tensors import Dense, Stepped

Images = NDArray[np.float32]
Batches = list[np.ndarray]

BATCH = 10
ROWS = 20_000  # places looked at in a layer: 30 times the widest layer's inputs
RIDGE = 0.01  # how firmly the fit holds on to the original weights, of H's mean diagonal
PROBED = 30  # images are enough to measure a sensitivity
SAME = 1e-12  # of an input's square: a variance that is none
STEPS = 8  # sensitivities are powers of 2 ** (1 / STEPS): thirty images don't say more
STEP_BYTES = 5  # of a grid in the file, beside its levels: step and coding
PROBE = 3e-3  # in `sensitivities`: squared error of a layer's output, of its variance


@dataclass(frozen=True, eq=False)
class Moments:
    """Second moments of a layer's input rows x, a constant 1 last: (D + 1, D + 1), means over rows.

    `own` is E[x xᵀ] of the compressed network, `cross` E[x₀ xᵀ] with the original's rows x₀.
    """

    own: Matrix
    cross: Matrix

    def centred(self) -> Matrix:
        """(D, D) covariance: what is left of an error once the bias has made up for its mean."""
        mean = self.own[:-1, -1]
        found = self.own[:-1, :-1] - np.outer(mean, mean)
        # Of an input that never changes, rounding may leave less than nothing.
        np.fill_diagonal(found, np.maximum(found.diagonal(), SAME * self.own.diagonal()[:-1]))
        return found

    def fitted(self, full: Matrix) -> Matrix:
        """The weights (D + 1, F), bias last, whose outputs on x are nearest to x₀ᵀ full."""
        size = len(self.own)
        mean = np.trace(self.own[:-1, :-1]) / (size - 1)
        firm = max(RIDGE * mean, 1e-12) * np.eye(size)  # nothing comes in where all before is 0
        firm[-1, -1] = 1e-6
        return full + np.linalg.solve(self.own + firm, (self.cross - self.own).T @ full)


def rows_of(conv: Conv, x: np.ndarray) -> np.ndarray:
    """What each output pixel is computed from: x (N, H, W, C) -> (N, P, KH * KW * C)."""
    patches = fast.im2col(x, conv.window)
    return patches.reshape(len(x), -1, patches.shape[-1])


def moments(conv: Conv, original: Batches, now: Batches, behind: Matrix | None = None) -> Moments:
    """Over at most ROWS places, chosen evenly, the same in both networks.

    Where a ReLU follows, `behind` are the original's weights (D + 1, F), bias last: a place then counts
    by the share of the filters that the ReLU lets through there, since errors elsewhere do not show.
    """
    images = sum(map(len, now))
    size = rows_of(conv, now[0][:1]).shape[-1] + 1
    own, cross = np.zeros((size, size)), np.zeros((size, size))
    count = 0.0
    for x0, x in zip(original, now, strict=True):
        places = rows_of(conv, x)
        chosen = np.linspace(0, places.shape[1] - 1, max(min(places.shape[1], ROWS // images), 1))
        picked = chosen.round().astype(int)
        a, b = (_with_ones(p[:, picked]) for p in (rows_of(conv, x0), places))
        share = np.ones(len(a)) if behind is None else (a @ behind > 0).mean(axis=1)
        weighted = b * share[:, None]
        own += b.T @ weighted
        cross += a.T @ weighted
        count += share.sum()
    return Moments(own / max(count, 1e-300), cross / max(count, 1e-300))


def _with_ones(rows: np.ndarray) -> np.ndarray:
    flat = rows.reshape(-1, rows.shape[-1])
    return np.concatenate([flat, np.ones((len(flat), 1), flat.dtype)], axis=1)


Flat = dict[str, np.ndarray]
Visit = Callable[[Conv, Batches, Batches], Flat]


def side_by_side(model: Model, flat: Flat, images: Images, visit: Visit) -> Iterator[str]:
    """Run two networks at once, the original and the one that is being compressed.

    At each convolution or linear layer, `visit(node, its inputs there, its inputs here)` gives the arrays
    by path that change here. Inputs are lists of batches, each (N, H, W, C). Yields the layer's path.
    """
    graph = without_dropout(lower(model))
    original = now = [{0: batch} for batch in batches_of(images)]
    changed = flat
    for node, done in graph.done_after():
        if isinstance(node, Conv):
            seen = (
                [maps[node.source].reshape(-1, *graph.size(node.source)) for maps in side]
                for side in (original, now)
            )
            new = visit(node, *seen)
            if new and now is original:  # from here on they differ
                now = [{number: x.copy() for number, x in maps.items()} for maps in original]
            changed = changed | new
        sides = [(original, flat)] if now is original else [(original, flat), (now, changed)]
        for side, arrays in sides:
            for maps in side:
                place(graph, node, maps, compute(graph, node, arrays, maps))
                for number in done:
                    del maps[number]
        if isinstance(node, Conv):
            yield node.path


def batches_of(images: Images) -> Batches:
    """A few images at a time, which bounds the memory of im2col, in float64."""
    return [images[start : start + BATCH].astype(float) for start in range(0, len(images), BATCH)]


def original_moments(
    model: Model, params: Params, images: Images, found: dict[str, Moments]
) -> Iterator[str]:
    """Put into `found` the moments of every layer's input in the network as it is, by the layer's path.

    Grouped convolutions see only part of their input, and are not calibrated.
    """

    flat, rectified = _float64(params), before_relu(model)

    def note(conv: Conv, original: Batches, now: Batches) -> Flat:
        if conv.groups == 1:
            behind = full_matrix(flat, conv.path) if conv.path in rectified else None
            found[conv.path] = moments(conv, original, now, behind)
        return {}

    return side_by_side(model, flat, images, note)


def before_relu(model: Model) -> set[str]:
    """The layers whose outputs nothing but a ReLU sees, by path."""
    graph = lower(model)
    readers = {node: graph.readers(node.target) for node in graph.nodes if isinstance(node, Conv)}
    return {
        node.path
        for node, those in readers.items()
        if those and all(isinstance(r, Activate) and r.kind == "relu" for r in those)
    }


def sensitivities(
    model: Model,
    params: Params,
    images: Images,
    known: Mapping[str, Moments],
    found: dict[str, float],
) -> Iterator[str]:
    """Put into `found`, by path: nats of change in the answers, per squared error of a layer's output.

    Layers that are in it already are left out.
    """
    plan = compile_plan(model, BATCH, training=False, precision="2x2", params=params)
    images = images[:: max(len(images) // PROBED, 1)]
    before = plan.predict(images)
    flat = flatten(params)
    for path, seen in known.items():
        if path not in found:
            changed, error = _disturbed(full_matrix(flat, path), seen)
            plan.load(unflatten(flat | as_params(changed, flat, path)))
            nats = divergence(before, plan.predict(images))
            exact = max(nats / max(error, 1e-30), 1e-30)  # 0 where a layer is dead
            found[path] = float(2 ** (np.rint(STEPS * np.log2(exact)) / STEPS))
        yield path


def _disturbed(full: Matrix, seen: Moments) -> tuple[Matrix, float]:
    """The layer rounded to a grid whose plain error is about PROBE of the signal, and that error."""
    covariance = seen.centred()
    signal = np.einsum("df,de,ef->", full[:-1], covariance, full[:-1])
    noise = max(np.trace(covariance) * full.shape[1] / 12, 1e-30)
    step = max(np.sqrt(PROBE * max(signal, 0.0) / noise), np.abs(full).max() / 2**20, 1e-30)
    change = np.rint(full[:-1] / step) * step - full[:-1]
    error = np.einsum("df,de,ef->", change, covariance, change) / 2
    return full + np.concatenate([change, -(seen.own[-1:, :-1] @ change)]), float(error)


def divergence(before: np.ndarray, after: np.ndarray) -> float:
    """Mean Kullback-Leibler divergence of the class probabilities, in nats; logits (N, classes)."""
    p, q = softmax(before.astype(float)), softmax(after.astype(float))
    return float(np.mean(np.sum(p * (np.log(p + 1e-300) - np.log(q + 1e-300)), axis=1)))


@dataclass(frozen=True, eq=False)
class Layer:
    """A layer as it will be stored: its grid, and the bias that goes with it, if it has one."""

    grid: Rounded
    bias: Dense | Stepped | None = None


@dataclass(frozen=True, eq=False)
class Fit:
    """One layer, to be rounded at any price (the error's unit a bit): `fit(price)`.

    conv       the layer, whose `full` weights (D + 1, F) are the original's
    original   its inputs in the original network; `now`: those in the compressed one
    rectified  whether a ReLU follows
    """

    conv: Conv
    full: Matrix
    original: Batches
    now: Batches
    rectified: bool

    @cached_property
    def seen(self) -> Moments:
        """The inputs' moments, taken when the first price is asked."""
        behind = self.full if self.rectified else None
        return moments(self.conv, self.original, self.now, behind)

    @cached_property
    def target(self) -> Matrix:
        """(D + 1, F): what to round."""
        return self.seen.fitted(self.full) if self.conv.bias else self.full

    def __call__(self, price: float) -> Layer:
        """Rounded; what the weights' errors change on average is made up for by the bias."""
        seen, target = self.seen, self.target
        if not self.conv.bias:
            return Layer(round_to_price(target[:-1], seen.own[:-1, :-1], price))
        grid = round_to_price(target[:-1], seen.centred(), price)
        bias = target[-1] + seen.own[-1, :-1] @ (target[:-1] - grid.levels * grid.step)
        return Layer(grid, rounded_bias(bias, price))


def rounded_bias(bias: NDArray[np.float64], price: float) -> Dense | Stepped:
    """On the grid that this price asks for, as the weight of an input that is always 1; or in 16 bits.

    Whichever is smaller: a short bias is not worth a table of its own.
    """
    step = max(suggested_step(price, 1.0), float(np.abs(bias).max()) / LARGEST, 1e-30)
    stepped = Stepped(np.rint(bias / step).astype(np.int32), float(np.float32(step)))
    dense = Dense(bias.astype(np.float32), half=True)
    return stepped if len(encode_levels(stepped.steps)) + STEP_BYTES < 2 * bias.size else dense


def layer_by_layer(
    model: Model,
    params: Params,
    images: Images,
    paths: Collection[str],
    choose: Callable[[str, Fit], Layer],
) -> Iterator[str]:
    """Round the layers of these paths, the first one first, each as `choose(path, fit)` says.

    Each is fitted to what the layers before it give now.
    """
    flat, rectified = _float64(params), before_relu(model)

    def visit(conv: Conv, original: Batches, now: Batches) -> Flat:
        path = conv.path
        if path not in paths:
            return {}
        fit = Fit(conv, full_matrix(flat, path), original, now, path in rectified)
        layer = choose(path, fit)
        weight = layer.grid.levels * layer.grid.step
        new = {f"{path}/weight": weight.reshape(flat[f"{path}/weight"].shape)}
        if layer.bias is not None:
            new[f"{path}/bias"] = layer.bias.values().astype(np.float64)
        return new

    return side_by_side(model, flat, images, visit)


def full_matrix(flat: Mapping[str, np.ndarray], path: str) -> Matrix:
    """(D + 1, F): the weight as a matrix, the bias (or zeros) as its last row."""
    weight = flat[f"{path}/weight"]
    matrix = weight.reshape(-1, weight.shape[-1])
    bias = flat.get(f"{path}/bias", np.zeros(weight.shape[-1], np.float32))
    return np.concatenate([matrix, bias[None]]).astype(float)


def as_params(full: Matrix, flat: Mapping[str, np.ndarray], path: str) -> dict[str, np.ndarray]:
    """The reverse of `full_matrix`: arrays by path, float32."""
    shape = flat[f"{path}/weight"].shape
    found = {f"{path}/weight": full[:-1].reshape(shape).astype(np.float32)}
    if f"{path}/bias" in flat:
        found[f"{path}/bias"] = full[-1].astype(np.float32)
    return found


def _float64(params: Params) -> Flat:
    return {path: array.astype(np.float64) for path, array in flatten(params).items()}
