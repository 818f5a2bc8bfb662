"""The layers: each describes itself, knows its forward and backward, and holds no arrays.

A layer is a frozen value. Parameters, caches and gradients are dicts that go in and come out, so a
lesson can look at each of them by name, and counting, tracing or compiling a network are plain
functions of the value.
"""

from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from tinysqueeze.errors import ShapeError
from tinysqueeze.network.ops import fast
from tinysqueeze.network.window import Pair, Window

Shape = tuple[int, ...]
Params = dict[str, Any]  # nested: name -> array, or name -> Params
Cache = dict[str, Any]


@dataclass(frozen=True)
class Run:
    """How to run: with which operations, and, if there is a random generator, in training mode."""

    ops: ModuleType = fast
    rng: np.random.Generator | None = None

    @property
    def training(self) -> bool:
        """Training draws dropout masks and normalises by the batch's own statistics."""
        return self.rng is not None


EVAL = Run()


class Layer:
    """A step of a network, as a value. It holds no arrays and never changes."""

    def out_shape(self, in_shape: Shape) -> Shape:
        """Shape of one example after this layer, e.g. (H, W, C) -> (OH, OW, F)."""
        return in_shape

    def param_shapes(self, in_shape: Shape) -> dict[str, Any]:
        """What is trained: {"weight": (KH, KW, C, F), "bias": (F,)}; nested for compositions."""
        return {}

    def buffer_shapes(self, in_shape: Shape) -> dict[str, Any]:
        """What lives beside the parameters but is not trained (batch norm's running statistics)."""
        return {}

    def forward(self, params: Params, x: np.ndarray, run: Run = EVAL) -> tuple[np.ndarray, Cache]:
        """y, and a cache of what `backward` will need."""
        raise NotImplementedError

    def backward(
        self, params: Params, cache: Cache, dy: np.ndarray, run: Run = EVAL
    ) -> tuple[np.ndarray, Params]:
        """dx and the gradients, named as the parameters."""
        raise NotImplementedError

    def moved_buffers(self, params: Params, cache: Cache) -> Params:
        """The buffers after a training step, from what its forward pass saw."""
        return {}


def _expect(condition: bool, layer: Layer, expected: str, got: object, remedy: str) -> None:
    if not condition:
        raise ShapeError(f"{type(layer).__name__}: expected {expected}, got {got}; {remedy}")


def _expect_map(layer: Layer, shape: Shape) -> None:
    _expect(len(shape) == 3, layer, "(H, W, C)", shape, "images are (N, H, W, C), channels last")


@dataclass(frozen=True)
class Conv2D(Layer):
    """Convolution with `filters` kernels, by im2col and one matrix product; 1x1 needs no im2col.

    weight (KH, KW, C / groups, F), bias (F,). With groups, the channels and the filters are cut into
    that many equal parts and part i sees only part i (AlexNet, section 3.5).
    """

    filters: int
    kernel: Pair
    stride: Pair = 1
    pad: Pair = 0
    groups: int = 1
    bias: bool = True

    @property
    def window(self) -> Window:
        """The window this convolution slides."""
        return Window.of(self.kernel, self.stride, self.pad)

    def out_shape(self, in_shape: Shape) -> Shape:
        """(H, W, C) -> (OH, OW, F)."""
        _expect_map(self, in_shape)
        return *self.window.out_size(*in_shape[:2]), self.filters

    def param_shapes(self, in_shape: Shape) -> dict[str, Any]:
        """weight (KH, KW, C / groups, F) and bias (F,)."""
        _expect_map(self, in_shape)
        channels, parts = in_shape[2], self.groups
        fits = channels % parts == 0 and self.filters % parts == 0
        _expect(
            fits,
            self,
            f"channels and filters divisible by groups={parts}",
            channels,
            "change groups",
        )
        shapes: dict[str, Any] = {"weight": (*self.window.kernel, channels // parts, self.filters)}
        return shapes | ({"bias": (self.filters,)} if self.bias else {})

    def forward(self, params: Params, x: np.ndarray, run: Run = EVAL) -> tuple[np.ndarray, Cache]:
        """x (N, H, W, C) -> y (N, OH, OW, F)."""
        weight = params["weight"]
        _expect(
            x.ndim == 4, self, "images (N, H, W, C)", x.shape, "add the batch axis: images[None]"
        )
        _expect(
            x.shape[3] == weight.shape[2] * self.groups,
            self,
            f"{weight.shape[2] * self.groups} channels (the last axis)",
            x.shape,
            "channels come last here: images.transpose(0, 2, 3, 1) if yours come first",
        )
        bias = params["bias"] if self.bias else np.zeros(self.filters, x.dtype)
        parts = [
            run.ops.conv2d(part, w, b, self.window)
            for part, w, b in zip(
                self._split(x), self._split(weight), self._split(bias), strict=True
            )
        ]
        return parts[0] if self.groups == 1 else np.concatenate(parts, axis=3), {"x": x}

    def backward(
        self, params: Params, cache: Cache, dy: np.ndarray, run: Run = EVAL
    ) -> tuple[np.ndarray, Params]:
        """dx, {"weight", "bias"}."""
        arrays = (self._split(a) for a in (cache["x"], params["weight"], dy))
        parts = [
            run.ops.conv2d_backward(x, w, self.window, d) for x, w, d in zip(*arrays, strict=True)
        ]
        joined = [
            np.concatenate(a, axis=-1) if self.groups > 1 else a[0]
            for a in zip(*parts, strict=True)
        ]
        dx, dweight, dbias = joined
        return dx, {"weight": dweight} | ({"bias": dbias} if self.bias else {})

    def _split(self, array: np.ndarray) -> list[np.ndarray]:
        """One array for each group, cut along the last axis."""
        return np.split(array, self.groups, axis=-1) if self.groups > 1 else [array]


@dataclass(frozen=True)
class Linear(Layer):
    """Fully connected: y = x @ weight + bias, weight (C, F)."""

    features: int
    bias: bool = True

    def out_shape(self, in_shape: Shape) -> Shape:
        """(C,) -> (F,)."""
        _expect(len(in_shape) == 1, self, "(C,)", in_shape, "put a Flatten before it")
        return (self.features,)

    def param_shapes(self, in_shape: Shape) -> dict[str, Any]:
        """weight (C, F) and bias (F,)."""
        return {"weight": (in_shape[0], self.features)} | (
            {"bias": (self.features,)} if self.bias else {}
        )

    def forward(self, params: Params, x: np.ndarray, run: Run = EVAL) -> tuple[np.ndarray, Cache]:
        """x (N, C) -> y (N, F)."""
        fits = x.ndim == 2 and x.shape[1] == params["weight"].shape[0]
        _expect(fits, self, f"(N, {params['weight'].shape[0]})", x.shape, "put a Flatten before it")
        bias = params["bias"] if self.bias else np.zeros(self.features, x.dtype)
        return run.ops.linear(x, params["weight"], bias), {"x": x}

    def backward(
        self, params: Params, cache: Cache, dy: np.ndarray, run: Run = EVAL
    ) -> tuple[np.ndarray, Params]:
        """dx, {"weight", "bias"}."""
        dx, dweight, dbias = run.ops.linear_backward(cache["x"], params["weight"], dy)
        return dx, {"weight": dweight} | ({"bias": dbias} if self.bias else {})


@dataclass(frozen=True)
class ReLU(Layer):
    """max(x, 0)."""

    def forward(self, params: Params, x: np.ndarray, run: Run = EVAL) -> tuple[np.ndarray, Cache]:
        """Any shape -> the same."""
        y = run.ops.relu(x)
        return y, {"y": y}

    def backward(
        self, params: Params, cache: Cache, dy: np.ndarray, run: Run = EVAL
    ) -> tuple[np.ndarray, Params]:
        """dy where y was positive."""
        return run.ops.relu_backward(cache["y"], dy), {}


@dataclass(frozen=True)
class HardSwish(Layer):
    """x * (x / 6 + 1/2, kept from 0 to 1): a ReLU with a soft bend.

    Howard et al., Searching for MobileNetV3, 2019, §5.2.
    """

    def forward(self, params: Params, x: np.ndarray, run: Run = EVAL) -> tuple[np.ndarray, Cache]:
        """Any shape -> the same."""
        y, piece = run.ops.hard_swish(x)
        return y, {"x": x, "piece": piece}

    def backward(
        self, params: Params, cache: Cache, dy: np.ndarray, run: Run = EVAL
    ) -> tuple[np.ndarray, Params]:
        """dy times the slope at x."""
        return run.ops.hard_swish_backward(cache["x"], cache["piece"], dy), {}


@dataclass(frozen=True)
class _Pool2D(Layer):
    """What both pools share: a window, and one output channel for each channel in."""

    kernel: Pair
    stride: Pair
    pad: Pair = 0
    ceil: bool = False

    @property
    def window(self) -> Window:
        """The window this pool slides."""
        return Window.of(self.kernel, self.stride, self.pad, self.ceil)

    def out_shape(self, in_shape: Shape) -> Shape:
        """(H, W, C) -> (OH, OW, C)."""
        _expect_map(self, in_shape)
        _expect(
            all(2 * p <= k for p, k in zip(self.window.pad, self.window.kernel, strict=True)),
            self,
            "padding of at most half the kernel",
            self,
            "a window over padding alone has no value",
        )
        return *self.window.out_size(*in_shape[:2]), in_shape[2]


@dataclass(frozen=True)
class MaxPool2D(_Pool2D):
    """The largest value of each window, channel by channel; `ceil` as in Caffe and PyTorch."""

    def forward(self, params: Params, x: np.ndarray, run: Run = EVAL) -> tuple[np.ndarray, Cache]:
        """x (N, H, W, C) -> y (N, OH, OW, C)."""
        self.out_shape(x.shape[1:])
        y, argmax = run.ops.max_pool2d(x, self.window)
        return y, {"argmax": argmax, "x_shape": x.shape}

    def backward(
        self, params: Params, cache: Cache, dy: np.ndarray, run: Run = EVAL
    ) -> tuple[np.ndarray, Params]:
        """dy goes to the pixel that won."""
        return run.ops.max_pool2d_backward(cache["argmax"], cache["x_shape"], self.window, dy), {}


@dataclass(frozen=True)
class AvgPool2D(_Pool2D):
    """The mean of each window, channel by channel; padding counts, a ceil overhang does not."""

    def forward(self, params: Params, x: np.ndarray, run: Run = EVAL) -> tuple[np.ndarray, Cache]:
        """x (N, H, W, C) -> y (N, OH, OW, C)."""
        self.out_shape(x.shape[1:])
        return run.ops.avg_pool2d(x, self.window), {"x_shape": x.shape}

    def backward(
        self, params: Params, cache: Cache, dy: np.ndarray, run: Run = EVAL
    ) -> tuple[np.ndarray, Params]:
        """dy is shared equally in its window."""
        return run.ops.avg_pool2d_backward(cache["x_shape"], self.window, dy), {}


@dataclass(frozen=True)
class GlobalAvgPool2D(Layer):
    """The mean over all pixels: one number a channel, whatever the image's size."""

    def out_shape(self, in_shape: Shape) -> Shape:
        """(H, W, C) -> (C,)."""
        _expect_map(self, in_shape)
        return in_shape[2:]

    def forward(self, params: Params, x: np.ndarray, run: Run = EVAL) -> tuple[np.ndarray, Cache]:
        """x (N, H, W, C) -> y (N, C)."""
        return run.ops.global_avg_pool2d(x), {"x_shape": x.shape}

    def backward(
        self, params: Params, cache: Cache, dy: np.ndarray, run: Run = EVAL
    ) -> tuple[np.ndarray, Params]:
        """dy / (H*W) to each pixel."""
        return run.ops.global_avg_pool2d_backward(cache["x_shape"], dy), {}


@dataclass(frozen=True)
class Flatten(Layer):
    """(H, W, C) -> (H*W*C,), for a Linear layer to follow."""

    def out_shape(self, in_shape: Shape) -> Shape:
        """The product of the sides."""
        return (int(np.prod(in_shape)),)

    def forward(self, params: Params, x: np.ndarray, run: Run = EVAL) -> tuple[np.ndarray, Cache]:
        """x (N, ...) -> y (N, .)."""
        return x.reshape(len(x), -1), {"x_shape": x.shape}

    def backward(
        self, params: Params, cache: Cache, dy: np.ndarray, run: Run = EVAL
    ) -> tuple[np.ndarray, Params]:
        """The same numbers in x's shape."""
        return dy.reshape(cache["x_shape"]), {}


@dataclass(frozen=True)
class Softmax(Layer):
    """exp(x) / sum(exp(x)) over the last axis. Train with `loss.softmax_cross_entropy` instead."""

    def forward(self, params: Params, x: np.ndarray, run: Run = EVAL) -> tuple[np.ndarray, Cache]:
        """Any shape -> the same, summing to 1."""
        y = run.ops.softmax(x)
        return y, {"y": y}

    def backward(
        self, params: Params, cache: Cache, dy: np.ndarray, run: Run = EVAL
    ) -> tuple[np.ndarray, Params]:
        """y * (dy - sum(dy * y))."""
        return run.ops.softmax_backward(cache["y"], dy), {}


@dataclass(frozen=True)
class Dropout(Layer):
    """In training, zeroes each value with probability `rate` and scales up the rest (Srivastava 2014)."""

    rate: float

    def __post_init__(self) -> None:
        _expect(0 <= self.rate < 1, self, "a rate in [0, 1)", self.rate, "0.5 is usual")

    def forward(self, params: Params, x: np.ndarray, run: Run = EVAL) -> tuple[np.ndarray, Cache]:
        """Any shape -> the same; outside training, x itself."""
        if run.rng is None or self.rate == 0:
            return x, {"mask": None}
        mask = run.ops.dropout_mask(x, self.rate, run.rng)
        return x * mask, {"mask": mask}

    def backward(
        self, params: Params, cache: Cache, dy: np.ndarray, run: Run = EVAL
    ) -> tuple[np.ndarray, Params]:
        """dy through the same mask."""
        return dy if cache["mask"] is None else dy * cache["mask"], {}


@dataclass(frozen=True)
class BatchNorm(Layer):
    """Normalises each channel over the batch, then scales and shifts it (Ioffe & Szegedy 2015).

    Training uses the batch's mean and variance and moves the running ones by `momentum` of the way
    (variance unbiased, as PyTorch does); evaluation uses the running ones.
    """

    eps: float = 1e-5
    momentum: float = 0.1

    def param_shapes(self, in_shape: Shape) -> dict[str, Any]:
        """weight (C,), the scale, and bias (C,), the shift."""
        return {"weight": in_shape[-1:], "bias": in_shape[-1:]}

    def buffer_shapes(self, in_shape: Shape) -> dict[str, Any]:
        """Running mean (C,) and var (C,)."""
        return {"mean": in_shape[-1:], "var": in_shape[-1:]}

    def forward(self, params: Params, x: np.ndarray, run: Run = EVAL) -> tuple[np.ndarray, Cache]:
        """x (..., C) -> the same shape."""
        channels = params["weight"].shape[0]
        _expect(
            x.shape[-1] == channels,
            self,
            f"{channels} channels (the last axis)",
            x.shape,
            "check the layer before",
        )
        mean, var = run.ops.channel_moments(x) if run.training else (params["mean"], params["var"])
        y = run.ops.batch_norm(x, params["weight"], params["bias"], mean, var, self.eps)
        return y, {"x": x, "mean": mean, "var": var, "batch_stats": run.training}

    def backward(
        self, params: Params, cache: Cache, dy: np.ndarray, run: Run = EVAL
    ) -> tuple[np.ndarray, Params]:
        """dx, {"weight", "bias"}."""
        x, mean, var = cache["x"], cache["mean"], cache["var"]
        dx, dweight, dbias = run.ops.batch_norm_backward(
            x, params["weight"], mean, var, self.eps, dy, cache["batch_stats"]
        )
        return dx, {"weight": dweight, "bias": dbias}

    def moved_buffers(self, params: Params, cache: Cache) -> Params:
        """The running statistics, a step of `momentum` towards the batch's."""
        if not cache["batch_stats"]:
            return {name: params[name] for name in ("mean", "var")}
        count = cache["x"].size // cache["x"].shape[-1]
        batch = {"mean": cache["mean"], "var": cache["var"] * (count / max(count - 1, 1))}
        keep = 1 - self.momentum
        return {
            name: (keep * params[name] + self.momentum * seen).astype(params[name].dtype)
            for name, seen in batch.items()
        }
