"""Does backward tell the truth? Finite differences against it, for a layer or a whole model.

A gradient says how the loss changes when one number changes a little; so change it a little and
see. In float64, (loss(v + h) - loss(v - h)) / 2h agrees with a right gradient to some eight digits.
Two things spoil that, and neither is a wrong gradient: float32, which rounds the difference away,
and kinks, where a ReLU or a max-pool switches between v - h and v + h. The check therefore works in
float64, watches which way every ReLU and max-pool went, retries with a smaller h, and skips (and
counts) what stays on a kink.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinysqueeze.network.layers import EVAL, Layer, Params, Run
from tinysqueeze.network.loss import softmax_cross_entropy
from tinysqueeze.network.models import Model
from tinysqueeze.network.params import flatten, map_params

STEPS = (1e-5, 1e-6, 1e-7)  # h, tried in turn where a larger one crosses a kink
TOLERANCE = 1e-6


@dataclass(frozen=True)
class Check:
    """The verdict on one array: how far backward and finite differences are apart.

    `error` is the worst difference, less what rounding explains, relative to the largest gradient
    in the array; `index`, `analytic` and `numeric` are that worst place and both numbers. `skipped`
    of `checked` + `skipped` places sat on a kink.
    """

    path: str
    error: float
    index: tuple[int, ...]
    analytic: float
    numeric: float
    checked: int
    skipped: int

    @property
    def ok(self) -> bool:
        """Close enough, and something was checked at all."""
        return self.checked > 0 and self.error < TOLERANCE

    def __str__(self) -> str:
        verdict = "ok   " if self.ok else "WRONG"
        skipped = f", {self.skipped} on kinks" if self.skipped else ""
        return (
            f"{verdict} {self.path:<28} error {self.error:.1e} over {self.checked}{skipped}; worst at "
            f"{self.index}: backward {self.analytic:+.9e}, finite difference {self.numeric:+.9e}"
        )


Loss = Callable[[], tuple[float, list[np.ndarray]]]


def compare(
    path: str, array: np.ndarray, gradient: np.ndarray, loss: Loss, places: np.ndarray
) -> Check:
    """Check `gradient` at some flat `places` of `array` (float64), which `loss()` reads.

    `loss` returns the loss and its switches (see `switches`). The array is nudged in place and put
    back, to the bit.
    """
    flat, wanted = array.reshape(-1), gradient.reshape(-1)
    _, still = loss()
    tried = np.array([_difference(flat, place, loss, still) for place in places])
    numeric, noise = tried.T
    smooth = ~np.isnan(numeric)
    if not smooth.any():
        return Check(path, np.inf, (), np.nan, np.nan, 0, len(places))
    kept, found = places[smooth], numeric[smooth]
    off = np.maximum(np.abs(wanted[kept] - found) - noise[smooth], 0)
    off[np.isnan(off)] = np.inf
    worst = int(off.argmax())
    scale = max(np.abs(wanted[kept]).max(), np.abs(found).max(), 1e-8)
    index = tuple(int(i) for i in np.unravel_index(kept[worst], array.shape))
    return Check(
        path,
        float(off[worst] / scale),
        index,
        float(wanted[kept[worst]]),
        float(found[worst]),
        len(kept),
        len(places) - len(kept),
    )


def _difference(
    flat: np.ndarray, place: int, loss: Loss, still: list[np.ndarray]
) -> tuple[float, float]:
    """The central difference at one place and the size of its rounding; NaN on a kink."""
    value = flat[place]
    try:
        for step in STEPS:
            flat[place] = value + step
            above, up = loss()
            flat[place] = value - step
            below, down = loss()
            if _same(up, still) and _same(down, still):
                size = max(abs(above), abs(below), 1)  # its terms may be larger than their sum
                rounding = 16 * np.finfo(np.float64).eps * size
                return (above - below) / (2 * step), rounding / step
    finally:
        flat[place] = value
    return np.nan, np.nan


def _same(a: list[np.ndarray], b: list[np.ndarray]) -> bool:
    return all(np.array_equal(p, q) for p, q in zip(a, b, strict=True))


def switches(cache: Mapping[str, Any]) -> list[np.ndarray]:
    """Which way every ReLU (on or off), hard-swish (which piece) and max-pool (which pixel) went."""
    named = [(path.split("/")[-1], kept) for path, kept in flatten(cache).items()]
    found = [(name, kept) for name, kept in named if name in ("y", "argmax", "piece")]
    return [kept > 0 if name == "y" else kept for name, kept in found]


def check_layer(
    layer: Layer,
    params: Params,
    x: np.ndarray,
    run: Run = EVAL,
    seed: int = 0,
    most: int | None = None,
) -> Iterator[Check]:
    """Check a layer's gradients of x and every parameter, against a random upstream gradient dy.

    The loss is sum(y * dy), so that dy is its gradient. x (N, ...) and params are copied to
    float64. `most` limits how many places of each array are tried (all, if None). In training mode
    the layer must be a function: batch norm is, dropout draws anew and is not.
    """
    params, x = map_params(_float64, params), _float64(x)
    y, cache = layer.forward(params, x, run)
    rng = np.random.default_rng((seed, 1))  # not the stream that x itself may come from
    dy = rng.standard_normal(y.shape)
    dx, grads = layer.backward(params, cache, dy, run)

    def loss() -> tuple[float, list[np.ndarray]]:
        y, cache = layer.forward(params, x, run)
        return float((y * dy).sum()), switches(cache)

    return _check_all({"x": x} | flatten(params), {"x": dx} | flatten(grads), loss, rng, most)


def check_model(
    model: Model,
    params: Params,
    images: np.ndarray,
    labels: np.ndarray,
    run: Run = EVAL,
    smoothing: float = 0.0,
    seed: int = 0,
    most: int | None = 8,
) -> Iterator[Check]:
    """Check a whole model's gradients through the loss: the images' ("x") and every parameter's.

    images (N, H, W, C), labels (N,). All is done in float64; `most` places of each array are tried.
    Yields a Check as each array is done.
    """
    params, images = map_params(_float64, params), _float64(images)

    def loss() -> tuple[float, list[np.ndarray]]:
        logits, cache = model.forward(params, images, run)
        return softmax_cross_entropy(logits, labels, smoothing, run)[0], switches(cache)

    logits, cache = model.forward(params, images, run)
    _, dlogits = softmax_cross_entropy(logits, labels, smoothing, run)
    dx, grads = model.backward(params, cache, dlogits, run)
    rng = np.random.default_rng(seed)
    return _check_all({"x": images} | flatten(params), {"x": dx} | flatten(grads), loss, rng, most)


def _check_all(
    arrays: Mapping[str, np.ndarray],
    gradients: Mapping[str, np.ndarray],
    loss: Loss,
    rng: np.random.Generator,
    most: int | None,
) -> Iterator[Check]:
    """Every array that has a gradient (buffers have none)."""
    for path, gradient in gradients.items():
        size = arrays[path].size
        places = np.arange(size) if most is None or most >= size else rng.choice(size, most, False)
        yield compare(path, arrays[path], gradient, loss, places)


def _float64(array: np.ndarray) -> np.ndarray:
    return np.array(array, dtype=np.float64)
