"""Planted bugs: what each classic mistake in a convolution's backward looks like to a gradient check."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from tinysqueeze.network.ops import reference
from tinysqueeze.network.window import Window
from tinysqueeze.show.pictures.charts import heat_maps
from tinysqueeze.show.pictures.style import Picture
from tinysqueeze.show.widgets.panel import Choice, Panel

Grads = tuple[np.ndarray, np.ndarray, np.ndarray]  # dx, dweight, dbias
Backward = Callable[[np.ndarray, np.ndarray, Window, np.ndarray], Grads]


def _dropped_overlap(x: np.ndarray, weight: np.ndarray, window: Window, dy: np.ndarray) -> Grads:
    """col2im with = where += belongs: of all windows that saw a pixel, the last one wins."""
    _, dweight, dbias = reference.conv2d_backward(x, weight, window, dy)
    (kh, kw), (sh, sw), (ph, pw) = window.kernel, window.stride, window.pad
    n, oh, ow, filters = dy.shape
    drows = dy.reshape(-1, filters) @ weight.reshape(-1, filters).T
    dwindows = drows.reshape(n, oh, ow, kh, kw, x.shape[3])
    padded = np.zeros((n, x.shape[1] + 2 * ph, x.shape[2] + 2 * pw, x.shape[3]))
    for i in range(kh):
        for j in range(kw):
            padded[:, i : i + oh * sh : sh, j : j + ow * sw : sw] = dwindows[:, :, :, i, j]
    return padded[:, ph : ph + x.shape[1], pw : pw + x.shape[2]], dweight, dbias


def _forgotten_crop(x: np.ndarray, weight: np.ndarray, window: Window, dy: np.ndarray) -> Grads:
    """The padding is cut off at the wrong corner: dx is shifted by the padding."""
    dx, dweight, dbias = reference.conv2d_backward(x, weight, window, dy)
    return np.roll(dx, window.pad, axis=(1, 2)), dweight, dbias


def _swapped_axes(x: np.ndarray, weight: np.ndarray, window: Window, dy: np.ndarray) -> Grads:
    """The kernel's height and width are swapped in dweight."""
    dx, dweight, dbias = reference.conv2d_backward(x, weight, window, dy)
    return dx, dweight.transpose(1, 0, 2, 3), dbias


def _forgotten_bias(x: np.ndarray, weight: np.ndarray, window: Window, dy: np.ndarray) -> Grads:
    """dbias is summed over the examples, but only for the first pixel."""
    dx, dweight, _ = reference.conv2d_backward(x, weight, window, dy)
    return dx, dweight, dy[:, 0, 0].sum(axis=0)


def _averaged(x: np.ndarray, weight: np.ndarray, window: Window, dy: np.ndarray) -> Grads:
    """dweight is divided by the number of examples a second time."""
    dx, dweight, dbias = reference.conv2d_backward(x, weight, window, dy)
    return dx, dweight / len(x), dbias


BUGS: dict[str, Backward] = {
    "no bug": reference.conv2d_backward,
    "= instead of += in col2im": _dropped_overlap,
    "padding cropped at the wrong corner": _forgotten_crop,
    "kernel axes swapped in dweight": _swapped_axes,
    "dbias sums one pixel only": _forgotten_bias,
    "divided by the batch twice": _averaged,
}


@dataclass(frozen=True)
class Comparison:
    """Backward's array and the finite differences, of one gradient."""

    backward: np.ndarray
    numeric: np.ndarray

    @property
    def error(self) -> float:
        """The worst difference, relative to the largest true gradient."""
        return float(np.abs(self.backward - self.numeric).max() / np.abs(self.numeric).max())


@cache
def compare(bug: str, seed: int = 0) -> dict[str, Comparison]:
    """dx, dweight and dbias of a small padded convolution, with a bug or without, checked in full."""
    rng = np.random.default_rng(seed)
    window = Window.of(3, pad=1)
    x, weight = rng.standard_normal((2, 5, 5, 2)), rng.standard_normal((3, 3, 2, 4))
    bias, dy = rng.standard_normal(4), rng.standard_normal((2, 5, 5, 4))
    found = BUGS[bug](x, weight, window, dy)

    def numeric(array: np.ndarray) -> np.ndarray:
        slopes, flat = np.zeros_like(array), array.reshape(-1)
        for i, value in enumerate(flat.copy()):
            sides = []
            for moved in (value + 1e-5, value - 1e-5):
                flat[i] = moved
                sides.append(float((reference.conv2d(x, weight, bias, window) * dy).sum()))
            flat[i] = value
            slopes.flat[i] = (sides[0] - sides[1]) / 2e-5
        return slopes

    pairs = zip(("dx", "dweight", "dbias"), found, (x, weight, bias), strict=True)
    return {name: Comparison(backward, numeric(array)) for name, backward, array in pairs}


def _verdicts(found: dict[str, Comparison]) -> list[tuple[str, str, str]]:
    return [
        (name, f"error {c.error:.1e}", "ok" if c.error < 1e-6 else "WRONG")
        for name, c in found.items()
    ]


def _errors(found: dict[str, Comparison]) -> dict[str, np.ndarray]:
    """Of each gradient, as much as is drawn."""
    errors = {name: c.backward - c.numeric for name, c in found.items()}
    return {
        "dx, one channel": errors["dx"][0, :, :, 0],
        "dweight, one filter": errors["dweight"][:, :, 0, 0],
        "dbias": errors["dbias"],
    }


def tell_bug(bug: str) -> str:
    """The error of each gradient, a line each."""
    return "\n".join(
        f"{name:<8} {how}  {verdict}" for name, how, verdict in _verdicts(compare(bug))
    )


def draw_bug(bug: str) -> Picture:
    """The error of each gradient as a heat-map: blank where backward is right."""
    return heat_maps(_errors(compare(bug)), f"backward − finite difference: {bug}")


@cache
def _every_bug() -> dict[str, Any]:
    """What a browser shows of each: finite differences are ours to take."""
    found = {bug: compare(bug) for bug in BUGS}
    maps = {
        bug: [
            {"name": name, "size": array.shape, "values": array.ravel().tolist()}
            for name, array in _errors(pairs).items()
        ]
        for bug, pairs in found.items()
    }
    return {bug: {"rows": _verdicts(found[bug]), "maps": maps[bug]} for bug in BUGS}


def gradient_heat_map() -> Panel:
    """Plant a bug in a convolution's backward and see what a gradient check makes of it."""
    controls = {"bug": Choice("planted bug", tuple(BUGS), "= instead of += in col2im")}
    title = "The gradient check: backward − finite difference"
    return Panel("gradient_heat_map", title, controls, tell_bug, draw_bug, _every_bug())
