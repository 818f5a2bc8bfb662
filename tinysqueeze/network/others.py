"""The networks to compare with, AlexNet and VGG-16, and the convolution in groups that AlexNet needs."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from tinysqueeze.network.layers import (
    EVAL,
    Backward,
    Cache,
    Conv2D,
    Dropout,
    Flatten,
    Forward,
    Layer,
    Linear,
    MaxPool2D,
    Mode,
    Params,
    ReLU,
    Shape,
)
from tinysqueeze.network.models import Classes, Layers, Model, Pixels, known, passable
from tinysqueeze.network.window import Pair, Window
from tinysqueeze.ranges import within_ranges


@dataclass(frozen=True)
class GroupedConv2D(Layer):
    """A convolution whose channels and filters are cut into equal parts: part i sees only part i.

    weight (KH, KW, C / groups, F), bias (F,) (Krizhevsky et al. 2012, section 3.5).
    """

    filters: int
    kernel: Pair
    groups: int
    stride: Pair = 1
    pad: Pair = 0
    bias: bool = True

    @property
    def part(self) -> Conv2D:
        """The convolution that each group is."""
        return Conv2D(self.filters // self.groups, self.kernel, self.stride, self.pad, self.bias)

    @property
    def window(self) -> Window:
        """The window this convolution slides."""
        return Window.of(self.kernel, self.stride, self.pad)

    def out_shape(self, in_shape: Shape) -> Shape:
        """(H, W, C) -> (OH, OW, F)."""
        self._expect_parts(in_shape)
        return *self.window.out_size(*in_shape[:2]), self.filters

    def param_shapes(self, in_shape: Shape) -> dict[str, Any]:
        """weight (KH, KW, C / groups, F) and bias (F,)."""
        self._expect_parts(in_shape)
        weight = (*self.window.kernel, in_shape[2] // self.groups, self.filters)
        return {"weight": weight} | ({"bias": (self.filters,)} if self.bias else {})

    def forward(self, params: Params, x: np.ndarray, mode: Mode = EVAL) -> Forward:
        """x (N, H, W, C) -> y (N, OH, OW, F)."""
        channels = params["weight"].shape[2] * self.groups
        fits = x.ndim == 4 and x.shape[3] == channels
        self._expect(fits, f"(N, H, W, {channels})", x.shape, "channels come last")
        parts = zip(self._split_params(params), self._split(x), strict=True)
        found = [self.part.forward(own, share, mode) for own, share in parts]
        return np.concatenate([y for y, _ in found], axis=3), {"x": x}

    def backward(self, params: Params, cache: Cache, dy: np.ndarray, mode: Mode = EVAL) -> Backward:
        """dx, {"weight", "bias"}."""
        xs, dys = self._split(cache["x"]), self._split(dy)
        parts = zip(self._split_params(params), xs, dys, strict=True)
        found = [self.part.backward(own, {"x": x}, share, mode) for own, x, share in parts]
        grads = {name: [grads[name] for _, grads in found] for name in found[0][1]}
        dx = np.concatenate([dx for dx, _ in found], axis=3)
        return dx, {name: np.concatenate(shares, axis=-1) for name, shares in grads.items()}

    def _expect_parts(self, in_shape: Shape) -> None:
        self._expect_map(in_shape)
        sizes = in_shape[2], self.filters
        fits = self.groups >= 1 and all(size % self.groups == 0 for size in sizes)
        expected = f"channels and filters divisible by groups={self.groups}"
        self._expect(fits, expected, sizes, "change groups")

    def _split(self, array: np.ndarray) -> list[np.ndarray]:
        """One array for each group, cut along the last axis."""
        return np.split(array, self.groups, axis=-1)

    def _split_params(self, params: Params) -> list[Params]:
        """The parameters of each group."""
        cut = [self._split(array) for array in params.values()]
        return [dict(zip(params, arrays, strict=True)) for arrays in zip(*cut, strict=True)]


def _convs(widths: list[int], start: int, pool: bool = True) -> Layers:
    steps: Layers = []
    for i, width in enumerate(widths, start):
        steps += [(f"conv{i}", Conv2D(width, 3, pad=1)), (f"conv{i}_relu", ReLU())]
    return [*steps, (f"pool{start + len(widths) - 1}", MaxPool2D(2, 2))] if pool else steps


def _classifier(first: int, classes: int) -> Layers:
    """Two hidden layers of 4,096 and the logits: where AlexNet and VGG keep most of their weights."""
    steps: Layers = [("flatten", Flatten())]
    for i in (first, first + 1):
        steps += [(f"fc{i}", Linear(4096)), (f"fc{i}_relu", ReLU()), (f"drop{i}", Dropout(0.5))]
    return [*steps, (f"fc{first + 2}", Linear(classes))]


def _whole(name: str, steps: Layers, classes: int, size: int) -> Model:
    spec = {"name": name, "classes": classes, "input_size": size}
    return passable(Model(name, tuple(steps), (size, size, 3), spec))


@known
@within_ranges
def alexnet(classes: Classes = 1000, input_size: Pixels = 227) -> Model:
    """The AlexNet of the paper's 240 MB: two groups, 60,965,224 parameters (Krizhevsky et al. 2012).

    Local response normalisation has no parameters and is left out.
    """
    steps = [
        ("conv1", Conv2D(96, 11, stride=4)), ("conv1_relu", ReLU()), ("pool1", MaxPool2D(3, 2)),
        ("conv2", GroupedConv2D(256, 5, groups=2, pad=2)), ("conv2_relu", ReLU()), ("pool2", MaxPool2D(3, 2)),
        ("conv3", Conv2D(384, 3, pad=1)), ("conv3_relu", ReLU()),
        ("conv4", GroupedConv2D(384, 3, groups=2, pad=1)), ("conv4_relu", ReLU()),
        ("conv5", GroupedConv2D(256, 3, groups=2, pad=1)), ("conv5_relu", ReLU()), ("pool5", MaxPool2D(3, 2)),
        *_classifier(6, classes),
    ]  # fmt: skip
    return _whole("alexnet", steps, classes, input_size)


@known
@within_ranges
def alexnet_torchvision(classes: Classes = 1000, input_size: Pixels = 224) -> Model:
    """torchvision's AlexNet, another net: no groups, other widths, 61,100,840 parameters."""
    steps = [
        ("conv1", Conv2D(64, 11, stride=4, pad=2)), ("conv1_relu", ReLU()), ("pool1", MaxPool2D(3, 2)),
        ("conv2", Conv2D(192, 5, pad=2)), ("conv2_relu", ReLU()), ("pool2", MaxPool2D(3, 2)),
        *_convs([384, 256, 256], 3, pool=False), ("pool5", MaxPool2D(3, 2)),
        *_classifier(6, classes),
    ]  # fmt: skip
    return _whole("alexnet_torchvision", steps, classes, input_size)


@known
@within_ranges
def vgg16(classes: Classes = 1000, input_size: Pixels = 224) -> Model:
    """VGG-16 (Simonyan & Zisserman 2015, configuration D): 138,357,544 parameters."""
    steps = [
        *_convs([64, 64], 1), *_convs([128, 128], 3), *_convs([256] * 3, 5),
        *_convs([512] * 3, 8), *_convs([512] * 3, 11), *_classifier(14, classes),
    ]  # fmt: skip
    return _whole("vgg16", steps, classes, input_size)
