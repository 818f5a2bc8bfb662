"""A network for inference as a short list of steps over numbered maps.

Compositions are unrolled, batch norms folded into the convolutions before them, ReLUs into whatever
writes the map, dropout is gone, and the arms of a Concat write side by side into one map. The memory
planner, the int8 network and the C export all work on this list.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from tinysqueeze.errors import UserError
from tinysqueeze.network.compose import Block, Chain, Concat, Residual, join
from tinysqueeze.network.layers import (
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
    ReLU,
    Shape,
)
from tinysqueeze.network.models import Model
from tinysqueeze.network.ops import fast
from tinysqueeze.network.params import flatten
from tinysqueeze.network.window import Window


@dataclass(frozen=True)
class Norm:
    """A batch norm to fold: its path, its eps, and the first of its channels that is meant."""

    path: str
    eps: float
    first: int


@dataclass(frozen=True)
class Conv:
    """A convolution into channels offset .. offset + filters of the map `target`.

    A fully connected layer is one too, with a window as large as the map. `path` is where its weight
    lies among the parameters; "" means a weight of ones (a batch norm that stands alone).
    """

    source: int
    target: int
    path: str
    window: Window
    filters: int
    groups: int = 1
    offset: int = 0
    relu: bool = False
    norms: tuple[Norm, ...] = ()

    @property
    def sources(self) -> tuple[int, ...]:
        """The maps it reads."""
        return (self.source,)


@dataclass(frozen=True)
class Pool:
    """Max-pool, or average where `average`; a global average is a window as large as the map."""

    source: int
    target: int
    window: Window
    average: bool = False
    offset: int = 0

    @property
    def sources(self) -> tuple[int, ...]:
        """The maps it reads."""
        return (self.source,)


@dataclass(frozen=True)
class Add:
    """The sum of two maps, after which a ReLU may follow."""

    first: int
    second: int
    target: int
    relu: bool = False

    @property
    def sources(self) -> tuple[int, ...]:
        """The maps it reads."""
        return (self.first, self.second)


@dataclass(frozen=True)
class _Elementwise:
    """A function of each number alone."""

    source: int
    target: int

    @property
    def sources(self) -> tuple[int, ...]:
        """The maps it reads."""
        return (self.source,)


class Rectify(_Elementwise):
    """A ReLU that could not be folded, since somebody else reads the map before it."""


class Swish(_Elementwise):
    """A hard-swish, always a step of its own."""


Step = Conv | Pool | Add | Rectify | Swish


@dataclass(frozen=True)
class Steps:
    """The list. Map 0 is the image; `shapes[i]` is (H, W, C) of map i; `output` holds the logits."""

    name: str
    shapes: tuple[Shape, ...]
    steps: tuple[Step, ...]
    output: int

    def writers(self, value: int) -> tuple[Step, ...]:
        """The steps that write a map."""
        return tuple(step for step in self.steps if step.target == value)

    def readers(self, value: int) -> tuple[Step, ...]:
        """The steps that read a map."""
        return tuple(step for step in self.steps if value in step.sources)


def lower(model: Model) -> Steps:
    """The steps that compute the model's logits. Raises UserError for what has no step here."""
    lowering = _Lowering([model.input_shape])
    output = lowering.layer(model, "", 0)
    return Steps(model.name, tuple(lowering.shapes), tuple(lowering.steps), output)


@dataclass
class _Lowering:
    """Walks a model and writes steps; `held` are the maps that somebody will read again later."""

    shapes: list[Shape]
    steps: list[Step] = field(default_factory=list)
    held: list[int] = field(default_factory=list)

    def layer(self, layer: Layer, path: str, value: int) -> int:
        """Append what computes `layer` of map `value`; returns the map of the result."""
        match layer:
            case Chain():
                for name, step in layer.steps:
                    value = self.layer(step, join(path, name), value)
                return value
            case Block():
                return self.layer(layer.body, path, value)
            case Concat():
                return self.concat(layer, path, value)
            case Residual():
                return self.residual(layer, path, value)
            case Conv2D():
                return self.conv(layer.window, layer.filters, layer.groups, path, value)
            case Linear():
                window = Window.of((self.shapes[value][0], self.shapes[value][1]))
                return self.conv(window, layer.features, 1, path, value)
            case BatchNorm():
                return self.norm(layer, path, value)
            case ReLU():
                return self.relu(value)
            case HardSwish():
                target = self.new(self.shapes[value])
                self.steps.append(Swish(value, target))
                return target
            case MaxPool2D() | AvgPool2D():
                return self.pool(layer.window, isinstance(layer, AvgPool2D), value)
            case GlobalAvgPool2D():
                return self.pool(
                    Window.of((self.shapes[value][0], self.shapes[value][1])), True, value
                )
            case Dropout() | Flatten():  # nothing to do, and the same numbers in memory
                return value
        raise UserError(
            f"{path}: a {type(layer).__name__} cannot be planned, quantised or exported to C; "
            "end the network at its logits"
        )

    def new(self, shape: Shape) -> int:
        """The number of a new map."""
        self.shapes.append(shape)
        return len(self.shapes) - 1

    def conv(self, window: Window, filters: int, groups: int, path: str, value: int) -> int:
        """A convolution into a new map."""
        target = self.new((*window.out_size(*self.shapes[value][:2]), filters))
        self.steps.append(Conv(value, target, path, window, filters, groups))
        return target

    def pool(self, window: Window, average: bool, value: int) -> int:
        """A pool into a new map."""
        height, width, channels = self.shapes[value]
        target = self.new((*window.out_size(height, width), channels))
        self.steps.append(Pool(value, target, window, average))
        return target

    def norm(self, layer: BatchNorm, path: str, value: int) -> int:
        """Fold into the convolutions that wrote the map; else a convolution of one weight a channel."""
        writers = self.own_writers(value)
        if not writers or not all(isinstance(self.steps[i], Conv) for i in writers):
            channels = self.shapes[value][2]
            value = self.conv(Window.of(1), channels, channels, "", value)
            writers = [len(self.steps) - 1]
        for i in writers:
            step = self.steps[i]
            assert isinstance(step, Conv)
            norm = Norm(path, layer.eps, step.offset)
            self.steps[i] = replace(step, norms=(*step.norms, norm))
        return value

    def relu(self, value: int) -> int:
        """Fold into whatever wrote the map; else a step of its own."""
        writers = self.own_writers(value)
        if writers and all(isinstance(self.steps[i], Conv | Add) for i in writers):
            for i in writers:
                self.steps[i] = replace(self.steps[i], relu=True)  # type: ignore[arg-type]
            return value
        target = self.new(self.shapes[value])
        self.steps.append(Rectify(value, target))
        return target

    def own_writers(self, value: int) -> list[int]:
        """Positions of the steps that wrote a map, if nothing but what comes next reads it.

        A folded ReLU comes after a folded norm, so that a map which has its ReLU is finished.
        """
        found = [i for i, step in enumerate(self.steps) if step.target == value]
        finished = any(getattr(self.steps[i], "relu", False) for i in found)
        return [] if value in self.held or finished else found

    def concat(self, layer: Concat, path: str, value: int) -> int:
        """Every arm, then their last steps turned to write into one map."""
        self.held.append(value)
        arms = [self.layer(arm, join(path, name), value) for name, arm in layer.arms]
        self.held.pop()
        height, width, _ = self.shapes[arms[0]]
        target = self.new((height, width, sum(self.shapes[arm][2] for arm in arms)))
        first = 0
        for arm in arms:
            self.turn(arm, target, first)
            first += self.shapes[arm][2]
        return target

    def turn(self, arm: int, target: int, first: int) -> None:
        """Let what wrote map `arm` write into channels first .. of `target`; else copy it there."""
        writers = [i for i, step in enumerate(self.steps) if step.target == arm]
        movable = all(isinstance(self.steps[i], Conv | Pool) for i in writers)
        if arm in self.held or not writers or not movable:
            self.steps.append(Pool(arm, target, Window.of(1), offset=first))  # a copy
            return
        for i in writers:
            step = self.steps[i]
            assert isinstance(step, Conv | Pool)
            self.steps[i] = replace(step, target=target, offset=step.offset + first)

    def residual(self, layer: Residual, path: str, value: int) -> int:
        """The body, the shortcut, and their sum."""
        self.held.append(value)
        body = self.layer(layer.body, path, value)
        around = value
        if layer.shortcut is not None:
            self.held.append(body)
            around = self.layer(layer.shortcut, join(path, "bypass"), value)
            self.held.pop()
        self.held.pop()
        target = self.new(self.shapes[body])
        self.steps.append(Add(body, around, target))
        return target


def weights(steps: Steps, step: Conv, params: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """weight (KH, KW, C / groups, F) and bias (F,) of a step, batch norms folded in, float32."""
    flat = flatten(params)
    channels = steps.shapes[step.source][2] // step.groups
    shape = (*step.window.kernel, channels, step.filters)
    weight = flat[f"{step.path}/weight"].reshape(shape) if step.path else np.ones(shape)
    bias = flat.get(f"{step.path}/bias", np.zeros(step.filters))
    weight, bias = weight.astype(np.float64), bias.astype(np.float64)
    for norm in step.norms:
        mine = slice(norm.first, norm.first + step.filters)
        scale, shift, mean, var = (
            flat[f"{norm.path}/{name}"][mine].astype(np.float64)
            for name in ("weight", "bias", "mean", "var")
        )
        scale = scale / np.sqrt(var + norm.eps)
        weight, bias = weight * scale, (bias - mean) * scale + shift
    return weight.astype(np.float32), bias.astype(np.float32)


def run(steps: Steps, params: Mapping[str, Any], images: np.ndarray) -> dict[int, np.ndarray]:
    """Every map of some images (N, H, W, C), by number; the logits are (N, 1, 1, classes)."""
    maps = {0: images}
    for step in steps.steps:
        place(steps, step, maps, run_step(steps, step, params, maps))
    return maps


def run_step(
    steps: Steps, step: Step, params: Mapping[str, Any], maps: Mapping[int, np.ndarray]
) -> np.ndarray:
    """What a step makes of the maps it reads."""
    x = maps[step.sources[0]]
    match step:
        case Conv():
            weight, bias = weights(steps, step, params)
            window = step.window
            layer = Conv2D(step.filters, window.kernel, window.stride, window.pad, step.groups)
            y, _ = layer.forward({"weight": weight, "bias": bias}, x)
            return fast.relu(y) if step.relu else y
        case Pool() if step.average:
            return fast.avg_pool2d(x, step.window)
        case Pool():
            return fast.max_pool2d(x, step.window)[0]
        case Add():
            y = x + maps[step.second]
            return fast.relu(y) if step.relu else y
        case Rectify():
            return fast.relu(x)
        case Swish():
            return fast.hard_swish(x)[0]


def place(steps: Steps, step: Step, maps: dict[int, np.ndarray], y: np.ndarray) -> None:
    """File a step's result; where several steps share a map, in its own channels."""
    shape = (len(y), *steps.shapes[step.target])
    if y.shape == shape:
        maps[step.target] = y
        return
    whole = maps.setdefault(step.target, np.empty(shape, y.dtype))
    first = getattr(step, "offset", 0)
    whole[..., first : first + y.shape[-1]] = y
