"""The one list of awkward cases that every layer is put through, and what the tests of it share."""

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np

from tinysqueeze.network.compose import Chain, Concat, Residual
from tinysqueeze.network.layers import (
    EVAL,
    AvgPool2D,
    BatchNorm,
    Conv2D,
    Dropout,
    Flatten,
    GlobalAvgPool2D,
    HardSwish,
    Layer,
    Linear,
    MaxPool2D,
    Mode,
    Params,
    ReLU,
    Shape,
    Softmax,
)
from tinysqueeze.network.models import Fire, Model
from tinysqueeze.network.ops import fast, reference
from tinysqueeze.network.others import GroupedConv2D
from tinysqueeze.network.params import flatten, initialise, unflatten

OPS = {"reference": reference, "fast": fast}

# name: (layer, shape of a batch of inputs)
CASES: dict[str, tuple[Layer, Shape]] = {
    "conv 1x1": (Conv2D(4, 1), (2, 3, 5, 3)),
    "conv 1x1, stride 2, pad 1": (Conv2D(4, 1, 2, 1), (2, 3, 5, 3)),
    "conv 3x3, pad 1": (Conv2D(4, 3, pad=1), (2, 5, 4, 3)),
    "conv 3x3 over one pixel": (Conv2D(4, 3, pad=1), (2, 1, 1, 3)),
    "conv 3x5, non-square all over": (Conv2D(2, (3, 5), (2, 1), (1, 2)), (2, 7, 6, 3)),
    "conv 7x7, stride 2, remainder": (Conv2D(2, 7, 2), (2, 10, 9, 1)),
    "conv 2x2, stride beyond it": (Conv2D(3, 2, 3), (2, 7, 6, 2)),
    "conv 2x1, places that see only padding": (Conv2D(3, (2, 1), 1, (3, 2)), (1, 2, 1, 3)),
    "conv in groups": (GroupedConv2D(4, 3, pad=1, groups=2), (2, 4, 3, 6)),
    "conv in groups without bias": (GroupedConv2D(6, (2, 3), 3, (1, 2), bias=False), (2, 4, 5, 3)),
    "conv without bias": (Conv2D(3, 2, bias=False), (2, 4, 3, 2)),
    **{
        f"{kind.__name__} {name}": (kind(*window), shape)
        for kind in (MaxPool2D, AvgPool2D)
        for name, window, shape in (
            ("2x2", (2, 2), (2, 4, 6, 3)),
            ("3x3, stride 2, remainder", (3, 2), (2, 6, 8, 2)),
            ("3x3, ceil", (3, 2, 0, True), (2, 6, 7, 2)),
            ("3x3, pad 1, ceil", (3, 2, 1, True), (2, 6, 5, 2)),
            ("2x3, non-square all over", ((2, 3), (1, 2), (1, 1)), (2, 5, 6, 2)),
            ("2x2, stride beyond it, ceil", (2, 3, 0, True), (2, 7, 6, 2)),
            ("2x2 over one pixel, ceil", (2, 2, 0, True), (2, 1, 1, 3)),
        )
    },
    "global average": (GlobalAvgPool2D(), (2, 3, 5, 4)),
    "relu": (ReLU(), (2, 3, 4, 5)),
    "hard-swish": (HardSwish(), (4, 5, 6, 7)),
    "flatten": (Flatten(), (2, 3, 2, 4)),
    "linear": (Linear(4), (3, 5)),
    "linear without bias": (Linear(4, bias=False), (3, 5)),
    "softmax": (Softmax(), (3, 5)),
    "dropout": (Dropout(0.4), (2, 3, 3, 4)),
    "batch norm": (BatchNorm(), (3, 4, 3, 5)),
    "batch norm of vectors": (BatchNorm(eps=1e-3, momentum=0.3), (6, 4)),
    "concat": (Concat((("a", Conv2D(2, 1)), ("b", Conv2D(3, 3, pad=1)))), (2, 4, 3, 2)),
    "bypass": (Residual(Conv2D(3, 3, pad=1)), (2, 4, 3, 3)),
    "complex bypass": (Residual(Conv2D(4, 3, pad=1), Conv2D(4, 1)), (2, 4, 3, 2)),
    "bypass by a pool": (Residual(Conv2D(3, 3, 2, 1), MaxPool2D(3, 2, 1)), (2, 4, 6, 3)),
    "fire": (Fire(2, 3, 3), (2, 4, 3, 4)),
    "fire with batch norm": (Fire(4, 3, 3, norm=True), (2, 4, 3, 4)),
    "fire with linear squeeze": (Fire(4, 3, 3, norm=True, linear_squeeze=True), (2, 4, 3, 4)),
    "fire with hard-swish": (Fire(2, 3, 3, activation="hard-swish"), (2, 4, 3, 4)),
    "chain": (
        Chain((("conv", Conv2D(4, 3)), ("relu", ReLU()), ("pool", MaxPool2D(2, 2, ceil=True)))),
        (2, 7, 6, 2),
    ),
}


def make_params(layer: Layer, in_shape: Shape, rng: np.random.Generator) -> Params:
    """Random float64 parameters and buffers of a layer; variances are positive."""
    shapes = flatten(layer.param_shapes(in_shape)) | flatten(layer.buffer_shapes(in_shape))
    flat = {path: rng.standard_normal(shape) for path, shape in shapes.items()}
    return unflatten({path: a**2 + 0.5 if path.endswith("var") else a for path, a in flat.items()})


def small_params(model: Model, rng: np.random.Generator) -> Params:
    """Random float64 parameters that keep activations of one size; no bias or statistic is plain."""
    flat = flatten(initialise(model, seed=3, dtype=np.float64))
    return unflatten({path: a + 0.1 * rng.random(a.shape) for path, a in flat.items()})


def make_case(
    name: str, dtype: type = np.float64, seed: int = 0
) -> tuple[Layer, Params, np.ndarray, np.ndarray]:
    """A case's layer, and read-only random parameters, x and dy for it."""
    layer, shape = CASES[name]
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(shape)
    dy = rng.standard_normal((shape[0], *layer.out_shape(shape[1:])))
    params = make_params(layer, shape[1:], rng)
    frozen = {path: read_only(a.astype(dtype)) for path, a in flatten(params).items()}
    return layer, unflatten(frozen), read_only(x.astype(dtype)), read_only(dy.astype(dtype))


def read_only(array: np.ndarray) -> np.ndarray:
    """The array, made to raise where anyone writes to it."""
    array.flags.writeable = False
    return array


def ops_with(**replaced: object) -> SimpleNamespace:
    """The reference operations, some of them replaced."""
    return SimpleNamespace(**{**vars(reference), **replaced})


def training_mode(ops: object = fast) -> Mode:
    """A mode for training, seeded, the same at each call."""
    return Mode(ops, np.random.default_rng(1))  # type: ignore[arg-type]


MODES: dict[str, Callable[..., Mode]] = {
    "evaluation": lambda ops=fast: EVAL if ops is fast else Mode(ops),
    "training": training_mode,
}


def step(layer: Layer, params: Params, x: np.ndarray, dy: np.ndarray, mode: Mode) -> dict:
    """Forward and backward: {"y", "dx", and each gradient by path}."""
    y, cache = layer.forward(params, x, mode)
    dx, grads = layer.backward(params, cache, dy, mode)
    return {"y": y, "dx": dx} | flatten(grads)


def apart(a: np.ndarray, b: np.ndarray) -> float:
    """The largest difference of two arrays, relative to their largest value (at least 0.1).

    The floor is for gradients that are zero but for rounding: a bias before a batch norm, say.
    """
    assert a.shape == b.shape
    return float(np.abs(a - b).max(initial=0) / max(np.abs(b).max(initial=0), 0.1))
