"""The numbers behind the panels, as pure functions: count a layer, a Fire, a design, measure a time."""

import time
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from tinysqueeze.network.compose import Concat
from tinysqueeze.network.layers import Conv2D, Layer
from tinysqueeze.network.others import alexnet
from tinysqueeze.network.params import flatten, trained_shapes
from tinysqueeze.study.count import FLOAT_BYTES


@dataclass(frozen=True)
class Cost:
    """What one layer costs on one image. `activation_bytes` is its float32 output."""

    parameters: int
    multiply_adds: int
    activation_bytes: int
    im2col_bytes: int


def expand_layer(channels: int, filters: int, share3x3: float) -> Concat:
    """A layer of 1x1 and 3x3 filters side by side, `share3x3` of them 3x3; one arm may be absent."""
    wide = round(filters * share3x3)
    arms = (("1x1", Conv2D(filters - wide, 1)), ("3x3", Conv2D(wide, 3, pad=1)))
    return Concat(tuple(arm for arm in arms if arm[1].filters))


def cost(layer: Concat, size: int, channels: int) -> Cost:
    """Count a layer of convolutions side by side, on a size x size map of `channels`."""
    convs = [arm for _, arm in layer.arms if isinstance(arm, Conv2D)]
    pixels = size * size
    shapes = [conv.param_shapes((size, size, channels)) for conv in convs]
    weights = [int(np.prod(shape["weight"])) for shape in shapes]
    patches = sum(conv.window.area for conv in convs if not conv.window.is_pointwise)
    return Cost(
        parameters=sum(weights) + sum(conv.filters for conv in convs),
        multiply_adds=pixels * sum(weights),
        activation_bytes=FLOAT_BYTES * pixels * sum(conv.filters for conv in convs),
        im2col_bytes=FLOAT_BYTES * pixels * channels * patches,
    )


def one_against_three(channels: int, filters: int, share3x3: float, size: int) -> dict[str, Cost]:
    """The same number of filters three ways: all 1x1, the chosen mix, all 3x3."""
    names = ("1×1 only", "your mix", "3×3 only")
    layers = (expand_layer(channels, filters, share) for share in (0.0, share3x3, 1.0))
    return {n: cost(layer, size, channels) for n, layer in zip(names, layers, strict=True)}


@lru_cache(maxsize=256)
def milliseconds(channels: int, filters: int, share3x3: float, size: int) -> float:
    """The time of one forward pass of such a layer on this machine: the best within a tenth of a second."""
    layer = expand_layer(channels, filters, share3x3)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, size, size, channels), np.float32)
    params = random_params(layer, (size, size, channels), rng)
    layer.forward(params, x)  # compiled and warm
    times: list[float] = []
    while sum(times) < 0.1 and len(times) < 50:
        start = time.perf_counter()
        layer.forward(params, x)
        times.append(time.perf_counter() - start)
    return min(times) * 1000


def random_params(layer: Layer, in_shape: tuple[int, ...], rng: np.random.Generator) -> Any:
    """Random float32 parameters for a layer without batch norm, as its forward pass wants them."""

    def fill(shapes: dict[str, Any]) -> dict[str, Any]:
        return {
            name: fill(shape) if isinstance(shape, dict) else rng.standard_normal(shape, np.float32)
            for name, shape in shapes.items()
        }

    return fill(layer.param_shapes(in_shape))


def total_parameters(layer: Layer, in_shape: tuple[int, ...]) -> int:
    """How many numbers a layer trains."""
    return sum(int(np.prod(shape)) for shape in flatten(layer.param_shapes(in_shape)).values())


@lru_cache(maxsize=1)
def alexnet_megabytes() -> float:
    """The paper's 240 MB: the grouped AlexNet's float32 parameters."""
    return sum(int(np.prod(s)) for s in trained_shapes(alexnet()).values()) * FLOAT_BYTES / 1e6
