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


Forward = tuple[np.ndarray, Cache]  # y, and what `backward` will need
Backward = tuple[np.ndarray, Params]  # dx, and the gradients, named as the parameters


@dataclass(frozen=True)
class Mode:
    """How a layer runs: with which operations, and for training if there is a random generator."""

    ops: ModuleType = fast
    rng: np.random.Generator | None = None

    @property
    def training(self) -> bool:
        """Training draws dropout masks and normalises by the batch's own statistics."""
        return self.rng is not None


EVAL = Mode()


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

    def forward(self, params: Params, x: np.ndarray, mode: Mode = EVAL) -> Forward:
        """y, and a cache of what `backward` will need."""
        raise NotImplementedError

    def backward(self, params: Params, cache: Cache, dy: np.ndarray, mode: Mode = EVAL) -> Backward:
        """dx and the gradients, named as the parameters."""
        raise NotImplementedError

    def moved_buffers(self, params: Params, cache: Cache) -> Params:
        """The buffers after a training step, from what its forward pass saw."""
        return {}

    def _expect(self, fits: bool, expected: str, got: object, remedy: str) -> None:
        if not fits:
            kind = type(self).__name__
            raise ShapeError(f"{kind}: expected {expected}, got {got}; {remedy}")

    def _expect_outputs(self, name: str, count: object) -> None:
        fits = isinstance(count, int | np.integer) and bool(count >= 0)
        self._expect(fits, f"{name}, a whole number", count, "each makes one channel")

    def _expect_map(self, shape: Shape) -> None:
        remedy = "images are (N, H, W, C), channels last"
        self._expect(len(shape) == 3, "(H, W, C)", shape, remedy)


@dataclass(frozen=True)
class Conv2D(Layer):
    """Convolution with `filters` kernels, by products of patches and weights; 1x1 needs no patches.

    weight (KH, KW, C, F), bias (F,).
    """

    filters: int
    kernel: Pair
    stride: Pair = 1
    pad: Pair = 0
    bias: bool = True

    def __post_init__(self) -> None:
        self._expect_outputs("filters", self.filters)

    @property
    def window(self) -> Window:
        """The window this convolution slides."""
        return Window.of(self.kernel, self.stride, self.pad)

    def out_shape(self, in_shape: Shape) -> Shape:
        """(H, W, C) -> (OH, OW, F)."""
        self._expect_map(in_shape)
        return *self.window.out_size(*in_shape[:2]), self.filters

    def param_shapes(self, in_shape: Shape) -> dict[str, Any]:
        """weight (KH, KW, C, F) and bias (F,)."""
        self._expect_map(in_shape)
        weight = (*self.window.kernel, in_shape[2], self.filters)
        return {"weight": weight} | ({"bias": (self.filters,)} if self.bias else {})

    def forward(self, params: Params, x: np.ndarray, mode: Mode = EVAL) -> Forward:
        """x (N, H, W, C) -> y (N, OH, OW, F)."""
        weight = params["weight"]
        last = "channels come last here: images.transpose(0, 2, 3, 1) if yours come first"
        self._expect(
            x.ndim == 4, "images (N, H, W, C)", x.shape, "add the batch axis: images[None]"
        )
        fits = x.shape[3] == weight.shape[2]
        self._expect(fits, f"{weight.shape[2]} channels (the last axis)", x.shape, last)
        bias = params["bias"] if self.bias else np.zeros(self.filters, x.dtype)
        return mode.ops.conv2d(x, weight, bias, self.window), {"x": x}

    def backward(self, params: Params, cache: Cache, dy: np.ndarray, mode: Mode = EVAL) -> Backward:
        """dx, {"weight", "bias"}."""
        x, weight = cache["x"], params["weight"]
        dx, dweight, dbias = mode.ops.conv2d_backward(x, weight, self.window, dy)
        return dx, {"weight": dweight} | ({"bias": dbias} if self.bias else {})


@dataclass(frozen=True)
class Linear(Layer):
    """Fully connected: y = x @ weight + bias, weight (C, F)."""

    features: int
    bias: bool = True

    def __post_init__(self) -> None:
        self._expect_outputs("features", self.features)

    def out_shape(self, in_shape: Shape) -> Shape:
        """(C,) -> (F,)."""
        self._expect(len(in_shape) == 1, "(C,)", in_shape, "put a Flatten before it")
        return (self.features,)

    def param_shapes(self, in_shape: Shape) -> dict[str, Any]:
        """weight (C, F) and bias (F,)."""
        weight = (in_shape[0], self.features)
        return {"weight": weight} | ({"bias": (self.features,)} if self.bias else {})

    def forward(self, params: Params, x: np.ndarray, mode: Mode = EVAL) -> Forward:
        """x (N, C) -> y (N, F)."""
        weight = params["weight"]
        fits = x.ndim == 2 and x.shape[1] == weight.shape[0]
        self._expect(fits, f"(N, {weight.shape[0]})", x.shape, "put a Flatten before it")
        bias = params["bias"] if self.bias else np.zeros(self.features, x.dtype)
        return mode.ops.linear(x, weight, bias), {"x": x}

    def backward(self, params: Params, cache: Cache, dy: np.ndarray, mode: Mode = EVAL) -> Backward:
        """dx, {"weight", "bias"}."""
        dx, dweight, dbias = mode.ops.linear_backward(cache["x"], params["weight"], dy)
        return dx, {"weight": dweight} | ({"bias": dbias} if self.bias else {})


@dataclass(frozen=True)
class ReLU(Layer):
    """max(x, 0)."""

    def forward(self, params: Params, x: np.ndarray, mode: Mode = EVAL) -> Forward:
        """Any shape -> the same."""
        y = mode.ops.relu(x)
        return y, {"y": y}

    def backward(self, params: Params, cache: Cache, dy: np.ndarray, mode: Mode = EVAL) -> Backward:
        """dy where y was positive."""
        return mode.ops.relu_backward(cache["y"], dy), {}


@dataclass(frozen=True)
class HardSwish(Layer):
    """x * (x / 6 + 1/2, kept from 0 to 1): a ReLU with a soft bend.

    Howard et al., Searching for MobileNetV3, 2019, §5.2.
    """

    def forward(self, params: Params, x: np.ndarray, mode: Mode = EVAL) -> Forward:
        """Any shape -> the same."""
        y, piece = mode.ops.hard_swish(x)
        return y, {"x": x, "piece": piece}

    def backward(self, params: Params, cache: Cache, dy: np.ndarray, mode: Mode = EVAL) -> Backward:
        """dy times the slope at x."""
        return mode.ops.hard_swish_backward(cache["x"], cache["piece"], dy), {}


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
        self._expect_map(in_shape)
        fits = all(2 * p <= k for p, k in zip(self.window.pad, self.window.kernel, strict=True))
        remedy = "a window over padding alone has no value"
        self._expect(fits, "padding of at most half the kernel", self, remedy)
        return *self.window.out_size(*in_shape[:2]), in_shape[2]


@dataclass(frozen=True)
class MaxPool2D(_Pool2D):
    """The largest value of each window, channel by channel; `ceil` as in Caffe and PyTorch."""

    def forward(self, params: Params, x: np.ndarray, mode: Mode = EVAL) -> Forward:
        """x (N, H, W, C) -> y (N, OH, OW, C)."""
        self.out_shape(x.shape[1:])
        y, argmax = mode.ops.max_pool2d(x, self.window)
        return y, {"argmax": argmax, "x_shape": x.shape}

    def backward(self, params: Params, cache: Cache, dy: np.ndarray, mode: Mode = EVAL) -> Backward:
        """dy goes to the pixel that won."""
        return mode.ops.max_pool2d_backward(cache["argmax"], cache["x_shape"], self.window, dy), {}


@dataclass(frozen=True)
class AvgPool2D(_Pool2D):
    """The mean of each window, channel by channel; padding counts, a ceil overhang does not."""

    def forward(self, params: Params, x: np.ndarray, mode: Mode = EVAL) -> Forward:
        """x (N, H, W, C) -> y (N, OH, OW, C)."""
        self.out_shape(x.shape[1:])
        return mode.ops.avg_pool2d(x, self.window), {"x_shape": x.shape}

    def backward(self, params: Params, cache: Cache, dy: np.ndarray, mode: Mode = EVAL) -> Backward:
        """dy is shared equally in its window."""
        return mode.ops.avg_pool2d_backward(cache["x_shape"], self.window, dy), {}


@dataclass(frozen=True)
class GlobalAvgPool2D(Layer):
    """The mean over all pixels: one number a channel, whatever the image's size."""

    def out_shape(self, in_shape: Shape) -> Shape:
        """(H, W, C) -> (C,)."""
        self._expect_map(in_shape)
        return in_shape[2:]

    def forward(self, params: Params, x: np.ndarray, mode: Mode = EVAL) -> Forward:
        """x (N, H, W, C) -> y (N, C)."""
        self.out_shape(x.shape[1:])
        return mode.ops.global_avg_pool2d(x), {"x_shape": x.shape}

    def backward(self, params: Params, cache: Cache, dy: np.ndarray, mode: Mode = EVAL) -> Backward:
        """dy / (H*W) to each pixel."""
        return mode.ops.global_avg_pool2d_backward(cache["x_shape"], dy), {}


@dataclass(frozen=True)
class Flatten(Layer):
    """(H, W, C) -> (H*W*C,), for a Linear layer to follow."""

    def out_shape(self, in_shape: Shape) -> Shape:
        """The product of the sides."""
        return (int(np.prod(in_shape)),)

    def forward(self, params: Params, x: np.ndarray, mode: Mode = EVAL) -> Forward:
        """x (N, ...) -> y (N, .)."""
        return x.reshape(len(x), -1), {"x_shape": x.shape}

    def backward(self, params: Params, cache: Cache, dy: np.ndarray, mode: Mode = EVAL) -> Backward:
        """The same numbers in x's shape."""
        return dy.reshape(cache["x_shape"]), {}


@dataclass(frozen=True)
class Softmax(Layer):
    """exp(x) / sum(exp(x)) over the last axis. Train with `loss.softmax_cross_entropy` instead."""

    def forward(self, params: Params, x: np.ndarray, mode: Mode = EVAL) -> Forward:
        """Any shape -> the same, summing to 1."""
        y = mode.ops.softmax(x)
        return y, {"y": y}

    def backward(self, params: Params, cache: Cache, dy: np.ndarray, mode: Mode = EVAL) -> Backward:
        """y * (dy - sum(dy * y))."""
        return mode.ops.softmax_backward(cache["y"], dy), {}


@dataclass(frozen=True)
class Dropout(Layer):
    """In training, zeroes each value with probability `rate` and scales up the rest (Srivastava 2014)."""

    rate: float

    def __post_init__(self) -> None:
        self._expect(0 <= self.rate < 1, "a rate in [0, 1)", self.rate, "0.5 is usual")

    def forward(self, params: Params, x: np.ndarray, mode: Mode = EVAL) -> Forward:
        """Any shape -> the same; outside training, x itself."""
        if mode.rng is None or self.rate == 0:
            return x, {"mask": None}
        mask = mode.ops.dropout_mask(x, self.rate, mode.rng)
        return x * mask, {"mask": mask}

    def backward(self, params: Params, cache: Cache, dy: np.ndarray, mode: Mode = EVAL) -> Backward:
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

    def forward(self, params: Params, x: np.ndarray, mode: Mode = EVAL) -> Forward:
        """x (..., C) -> the same shape."""
        channels = f"{len(params['weight'])} channels (the last axis)"
        fits = x.shape[-1] == len(params["weight"])
        self._expect(fits, channels, x.shape, "check the layer before")
        mean, var = (
            mode.ops.channel_moments(x) if mode.training else (params["mean"], params["var"])
        )
        y = mode.ops.batch_norm(x, params["weight"], params["bias"], mean, var, self.eps)
        return y, {"x": x, "mean": mean, "var": var, "batch_stats": mode.training}

    def backward(self, params: Params, cache: Cache, dy: np.ndarray, mode: Mode = EVAL) -> Backward:
        """dx, {"weight", "bias"}."""
        x, mean, var = cache["x"], cache["mean"], cache["var"]
        dx, dweight, dbias = mode.ops.batch_norm_backward(
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
