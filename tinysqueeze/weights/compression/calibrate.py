"""Compress against photographs: each layer is rounded so that its outputs on them stay.

No labels are needed, only images like those that the network will see. Two walks:
1. `sensitivities`: round one layer at a time and measure how the answers change. The ratio of that
   change (Kullback-Leibler divergence, nats) to the error of the layer's own output puts the errors
   of all layers in one unit.
2. `calibrated`: from the first layer to the last, the original and the compressed network side by
   side. Each layer's target is what it should put out given what it *now* gets: the least-squares
   fit to the original's output (as Frantar & Alistarh 2022, "Optimal Brain Compression", do for a
   compressed model), so that later layers mend what earlier ones broke. Biases are fitted with it.

Both networks run in float64, and sensitivities are rounded: how a processor rounds its last bits would
otherwise decide some weights, through them all that follow, and so the file.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tinysqueeze.compiled import compile as compile_plan
from tinysqueeze.network.compose import Block, Chain, Concat, Residual, join, sub
from tinysqueeze.network.layers import Conv2D, Layer, Linear, Params
from tinysqueeze.network.models import Model
from tinysqueeze.network.ops import fast
from tinysqueeze.network.ops.reference import softmax
from tinysqueeze.network.params import flatten, map_params, unflatten
from tinysqueeze.weights.compression.rounding import Matrix, Rounded, round_to_price

Images = NDArray[np.float32]
Batches = list[np.ndarray]

BATCH = 10
ROWS = 20_000  # places looked at in a layer: 30 times the widest layer's inputs
RIDGE = 0.01  # how firmly the fit holds on to the original weights, of H's mean diagonal
PROBED = 30  # images are enough to measure a sensitivity
STEPS = 8  # sensitivities are powers of 2 ** (1 / STEPS): thirty images don't say more
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
        return self.own[:-1, :-1] - np.outer(mean, mean)

    def fitted(self, full: Matrix) -> Matrix:
        """The weights (D + 1, F), bias last, whose outputs on x are nearest to x₀ᵀ full."""
        size = len(self.own)
        firm = RIDGE * np.trace(self.own[:-1, :-1]) / (size - 1) * np.eye(size)
        firm[-1, -1] = 1e-6
        return full + np.linalg.solve(self.own + firm, (self.cross - self.own).T @ full)


def rows_of(layer: Conv2D | Linear, x: np.ndarray) -> np.ndarray:
    """What each output pixel is computed from: x (N, H, W, C) -> (N, P, KH * KW * C)."""
    if isinstance(layer, Linear):
        return x[:, None]
    patches = fast.im2col(x, layer.window)
    return patches.reshape(len(x), -1, patches.shape[-1])


def moments(layer: Conv2D | Linear, original: Batches, now: Batches) -> Moments:
    """Over at most ROWS places, chosen evenly, the same in both networks."""
    images = sum(map(len, now))
    size = rows_of(layer, now[0][:1]).shape[-1] + 1
    own, cross = np.zeros((size, size)), np.zeros((size, size))
    count = 0
    for x0, x in zip(original, now, strict=True):
        places = rows_of(layer, x)
        chosen = np.linspace(0, places.shape[1] - 1, max(min(places.shape[1], ROWS // images), 1))
        picked = chosen.round().astype(int)
        a, b = (_with_ones(p[:, picked]) for p in (rows_of(layer, x0), places))
        own += b.T @ b
        cross += a.T @ b
        count += len(a)
    return Moments(own / count, cross / count)


def _with_ones(rows: np.ndarray) -> np.ndarray:
    flat = rows.reshape(-1, rows.shape[-1])
    return np.concatenate([flat, np.ones((len(flat), 1), flat.dtype)], axis=1)


Visit = Callable[[str, Conv2D | Linear, Batches, Batches], Params]


def side_by_side(
    layer: Layer, params: Params, original: Batches, now: Batches, visit: Visit, path: str = ""
) -> tuple[Batches, Batches]:
    """Run two networks at once, the original and the one that is being compressed.

    At each layer with weights, `visit(path, layer, its inputs there, its inputs here)` gives the
    parameters to go on with here. Inputs and outputs are lists of batches.
    """
    match layer:
        case Block():
            return side_by_side(layer.body, params, original, now, visit, path)
        case Chain():
            for name, step in layer.steps:
                original, now = side_by_side(
                    step, sub(params, name), original, now, visit, join(path, name)
                )
            return original, now
        case Concat():
            arms = [
                side_by_side(arm, sub(params, name), original, now, visit, join(path, name))
                for name, arm in layer.arms
            ]
            return _combined(lambda *y: np.concatenate(y, axis=-1), arms)
        case Residual():
            through = side_by_side(layer.body, params, original, now, visit, path)
            if layer.shortcut is None:
                return _combined(np.add, [through, (original, now)])
            around = side_by_side(
                layer.shortcut, params["bypass"], original, now, visit, join(path, "bypass")
            )
            return _combined(np.add, [through, around])
    changed = params
    if isinstance(layer, Conv2D | Linear):
        changed = visit(path, layer, original, now)
    there = [layer.forward(params, x)[0] for x in original]
    if now is original and changed is params:
        return there, there
    return there, [layer.forward(changed, x)[0] for x in now]


def _combined(
    how: Callable[..., np.ndarray], arms: list[tuple[Batches, Batches]]
) -> tuple[Batches, Batches]:
    """Join arms, batch by batch, on both sides (once, where nothing differs yet)."""
    there, here = zip(*arms, strict=True)
    joined = [how(*parts) for parts in zip(*there, strict=True)]
    if all(a is b for a, b in arms):
        return joined, joined
    return joined, [how(*parts) for parts in zip(*here, strict=True)]


def batches_of(images: Images) -> Batches:
    """A few images at a time, which bounds the memory of im2col, in float64."""
    return [images[start : start + BATCH].astype(float) for start in range(0, len(images), BATCH)]


def can_be_rounded(layer: Layer) -> bool:
    """Grouped convolutions see only part of their input, and are not calibrated."""
    return isinstance(layer, Linear) or (isinstance(layer, Conv2D) and layer.groups == 1)


def original_moments(model: Model, params: Params, images: Images) -> dict[str, Moments]:
    """The moments of every layer's input in the network as it is, by the layer's path."""
    found: dict[str, Moments] = {}
    params = map_params(_float64, params)

    def note(path: str, layer: Conv2D | Linear, original: Batches, now: Batches) -> Params:
        if can_be_rounded(layer):
            found[path] = moments(layer, original, now)
        return _at(params, path)

    x = batches_of(images)
    side_by_side(model, params, x, x, note)
    return found


def sensitivities(
    model: Model, params: Params, images: Images, known: Mapping[str, Moments]
) -> dict[str, float]:
    """For each layer by path: nats of change in the answers, per squared error of its output."""
    plan = compile_plan(model, BATCH, training=False, precision="f2", params=params)
    images = images[:: max(len(images) // PROBED, 1)]
    before = plan.predict(images)
    flat = flatten(params)
    found = {}
    for path, seen in known.items():
        full = full_matrix(flat, path)
        covariance = seen.centred()
        signal = np.einsum("df,de,ef->", full[:-1], covariance, full[:-1])
        # A grid whose plain rounding error is about PROBE of the signal.
        noise = max(np.trace(covariance) * full.shape[1] / 12, 1e-30)
        step = max(np.sqrt(PROBE * max(signal, 0.0) / noise), np.abs(full).max() / 2**20, 1e-30)
        levels = np.rint(full[:-1] / step)
        change = levels * step - full[:-1]
        error = np.einsum("df,de,ef->", change, covariance, change) / 2
        changed = full + np.concatenate([change, -(seen.own[-1:, :-1] @ change)])
        plan.load(unflatten(flat | as_params(changed, flat, path)))
        nats = divergence(before, plan.predict(images))
        exact = max(nats / max(float(error), 1e-30), 1e-30)  # 0 where a layer is dead
        found[path] = float(2 ** (np.rint(STEPS * np.log2(exact)) / STEPS))
    return found


def divergence(before: np.ndarray, after: np.ndarray) -> float:
    """Mean Kullback-Leibler divergence of the class probabilities, in nats; logits (N, classes)."""
    p, q = softmax(before.astype(float)), softmax(after.astype(float))
    return float(np.mean(np.sum(p * (np.log(p + 1e-300) - np.log(q + 1e-300)), axis=1)))


def calibrated(
    model: Model,
    params: Params,
    images: Images,
    sensitivity: Mapping[str, float],
    price: float,
    done: Callable[[str], None] = lambda path: None,
) -> tuple[dict[str, Rounded], dict[str, NDArray[np.float32]]]:
    """Round every layer at one price (nats a bit): the grids by layer, and the fitted biases by path.

    `done(path)` is called after each layer.
    """
    params = map_params(_float64, params)
    flat = flatten(params)
    rounded: dict[str, Rounded] = {}
    biases: dict[str, NDArray[np.float32]] = {}

    def visit(path: str, layer: Conv2D | Linear, original: Batches, now: Batches) -> Params:
        if path not in sensitivity:
            return _at(params, path)
        seen = moments(layer, original, now)
        full = full_matrix(flat, path)
        target = seen.fitted(full) if layer.bias else full
        covariance = seen.centred() if layer.bias else seen.own[:-1, :-1]
        found = round_to_price(target[:-1], covariance, price / sensitivity[path])
        rounded[path] = found
        weight = found.levels * found.step
        new = {"weight": weight.reshape(flat[f"{path}/weight"].shape)}
        if layer.bias:
            bias = target[-1] + seen.own[-1, :-1] @ (target[:-1] - weight)
            biases[f"{path}/bias"] = bias.astype(np.float16).astype(np.float32)
            new["bias"] = _float64(biases[f"{path}/bias"])
        done(path)
        return new

    x = batches_of(images)
    side_by_side(model, params, x, x, visit)
    return rounded, biases


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


def _float64(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float64)


def _at(params: Params, path: str) -> Params:
    for name in path.split("/"):
        params = params[name]
    return params
