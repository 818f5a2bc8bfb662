"""The numbers behind the panels, as pure functions: count a layer, a Fire, a design, measure times."""

import time
from functools import lru_cache
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

from tinysqueeze.network.compose import Concat
from tinysqueeze.network.layers import Conv2D, Layer
from tinysqueeze.network.others import alexnet
from tinysqueeze.study.count import FLOAT_BYTES, Table, count, count_layer

RUNS = 7  # timed for each setting
TIMED = {
    "channels": (16, 64, 256), "filters": (32, 128), "size": (7, 27, 55), "percent3x3": (0, 50, 100),
}  # fmt: skip
"""The settings of `one_by_one` that are timed; at others the panel says that they are not."""
WAYS = ("1×1 only", "your mix", "3×3 only")


class Timing(NamedTuple):
    """Milliseconds of one setting."""

    median: float
    low: float  # the lower quartile
    high: float


def expand_layer(channels: int, filters: int, share3x3: float) -> Concat:
    """A layer of 1x1 and 3x3 filters side by side, `share3x3` of them 3x3; one arm may be absent."""
    wide = round(filters * share3x3)
    arms = (("1x1", Conv2D(filters - wide, 1)), ("3x3", Conv2D(wide, 3, pad=1)))
    return Concat(tuple(arm for arm in arms if arm[1].filters))


def one_against_three(channels: int, filters: int, share3x3: float, size: int) -> dict[str, Table]:
    """The same number of filters three ways: all 1x1, the chosen mix, all 3x3."""
    layers = (expand_layer(channels, filters, share) for share in (0.0, share3x3, 1.0))
    shape = (size, size, channels)
    return {n: count_layer(layer, shape) for n, layer in zip(WAYS, layers, strict=True)}


@lru_cache(maxsize=1)
def timings() -> dict[tuple[int, ...], Timing]:
    """Forward passes on this machine, by (channels, filters, size, percent of 3x3); a second or two.

    On one thread, so that what else the machine does disturbs them less.
    """
    with threadpool_limits(1):
        return {setting: _timed(*setting) for setting in product(*TIMED.values())}


def _timed(channels: int, filters: int, size: int, percent3x3: int) -> Timing:
    layer = expand_layer(channels, filters, percent3x3 / 100)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, size, size, channels), np.float32)
    params = random_params(layer, (size, size, channels), rng)
    layer.forward(params, x)  # compiled and warm
    times = []
    for _ in range(RUNS):
        start = time.perf_counter()
        layer.forward(params, x)
        times.append(time.perf_counter() - start)
    low, median, high = 1000 * np.quantile(times, (0.25, 0.5, 0.75))
    return Timing(float(median), float(low), float(high))


def random_params(layer: Layer, in_shape: tuple[int, ...], rng: np.random.Generator) -> Any:
    """Random float32 parameters for a layer without batch norm, as its forward pass wants them."""

    def fill(shapes: dict[str, Any]) -> dict[str, Any]:
        return {
            name: fill(shape) if isinstance(shape, dict) else rng.standard_normal(shape, np.float32)
            for name, shape in shapes.items()
        }

    return fill(layer.param_shapes(in_shape))


@lru_cache(maxsize=1)
def alexnet_megabytes() -> float:
    """The paper's 240 MB: the grouped AlexNet's float32 parameters."""
    return count(alexnet()).parameters * FLOAT_BYTES / 1e6
