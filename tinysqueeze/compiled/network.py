"""A model as a list of fused steps: what the plan makes of it before any memory is thought of.

Layers that belong together become one step: convolutions side by side that read the same map (the
two arms of a Fire's expand layer), the batch norm and ReLU that follow, the bypass that is added,
and the max-pool at the end. A layer that no kernel can do becomes a `LayerStep`, which the plan runs
through the layer's own `forward` and `backward`.
"""

from dataclasses import dataclass, field, replace

import numpy as np

from tinysqueeze.kernels import TARGET
from tinysqueeze.network.compose import Block, Chain, Concat, Residual, join
from tinysqueeze.network.layers import (
    BatchNorm,
    Conv2D,
    Dropout,
    GlobalAvgPool2D,
    HardSwish,
    Layer,
    MaxPool2D,
    ReLU,
    Shape,
)
from tinysqueeze.network.window import Window


@dataclass(frozen=True)
class Map:
    """What flows between steps: height x width pixels of channels, in segments.

    Each segment (an arm of a Concat) begins at a whole vector, so `positions` says where channel c
    lies in a pixel of `padded` floats. A segment that ends at a whole vector joins the next one.
    """

    height: int
    width: int
    segments: tuple[int, ...]

    @classmethod
    def of(cls, height: int, width: int, segments: tuple[int, ...]) -> "Map":
        """With neighbouring segments joined where nothing lies between them."""
        joined: list[int] = []
        for segment in segments:
            if joined and joined[-1] % TARGET.lanes == 0:
                joined[-1] += segment
            else:
                joined.append(segment)
        return cls(height, width, tuple(joined))

    @property
    def channels(self) -> int:
        """Channels without padding."""
        return sum(self.segments)

    @property
    def padded(self) -> int:
        """Floats that a pixel takes."""
        return sum(TARGET.padded(segment) for segment in self.segments)

    @property
    def pixels(self) -> int:
        """Pixels of an image."""
        return self.height * self.width

    @property
    def positions(self) -> np.ndarray:
        """The place of each channel in a pixel, (channels,)."""
        places, start = [], 0
        for segment in self.segments:
            places.append(np.arange(start, start + segment))
            start += TARGET.padded(segment)
        return np.concatenate(places)

    @property
    def shape(self) -> Shape:
        """(H, W, C) as a layer sees it."""
        return self.height, self.width, self.channels


@dataclass(frozen=True)
class Arm:
    """One convolution of a step; it writes the channels from `offset` (padded) of the result."""

    path: str
    window: Window
    filters: int
    bias: bool
    offset: int = 0

    @property
    def vectors(self) -> int:
        """Vectors of output channels, padding included."""
        return TARGET.padded(self.filters) // TARGET.lanes


@dataclass(frozen=True)
class ConvStep:
    """Convolutions of map `source`, then norm, activation, bypass and pool as far as they are there.

    `result` is the map before the pool, `target` the number of the map after it.
    """

    source: int
    target: int
    arms: tuple[Arm, ...]
    result: Map
    norm: tuple[str, BatchNorm] | None = None
    relu: bool = False
    hard_swish: bool = False
    bypass: int | None = None  # the map that is added
    pool: Window | None = None

    @property
    def name(self) -> str:
        """The paths of its convolutions."""
        return " + ".join(arm.path for arm in self.arms)

    @property
    def pools_norm(self) -> bool:
        """Does the pool follow norm and activation at once, with no bypass in between?"""
        return self.norm is not None and self.pool is not None and self.bypass is None

    @property
    def floor(self) -> float:
        """0 for ReLU, minus infinity for none."""
        return 0.0 if self.relu else -np.inf

    @property
    def bend(self) -> dict[str, float]:
        """Up to where the activation is shut and from where it is full; see `Emitter.activate`."""
        if self.hard_swish:
            return {"shut": -3, "full": 3}
        return {"shut": self.floor, "full": self.floor}


@dataclass(frozen=True)
class DropStep:
    """Dropout, in place on a map."""

    path: str
    source: int
    rate: float
    number: int

    @property
    def target(self) -> int:
        """The same map."""
        return self.source

    name = property(lambda self: self.path)


@dataclass(frozen=True)
class MeanStep:
    """Global average pooling."""

    path: str
    source: int
    target: int

    name = property(lambda self: self.path)


@dataclass(frozen=True)
class LayerStep:
    """A layer that is run step by step."""

    path: str
    layer: Layer
    source: int
    target: int
    out_shape: Shape

    name = property(lambda self: self.path)


Step = ConvStep | DropStep | MeanStep | LayerStep


@dataclass(frozen=True)
class Network:
    """The steps, and the maps that they number; map 0 is the image, `output` the logits."""

    maps: tuple[Map, ...]
    steps: tuple[Step, ...]
    output: int

    @property
    def written(self) -> set[int]:
        """The maps that exist: the image, and every step's target (not what a pool has fused)."""
        return {0} | {step.target for step in self.steps}

    def readers(self, number: int) -> list[Step]:
        """The steps that read a map, bypasses included."""
        return [s for s in self.steps if number in (s.source, getattr(s, "bypass", None))]


def lower(model: Layer, in_shape: Shape, training: bool) -> Network:
    """The steps of a model for images of `in_shape` (H, W, C)."""
    builder = _Builder([Map.of(in_shape[0], in_shape[1], in_shape[2:])], training)
    output = builder.layer(model, "", 0)
    steps = [
        LayerStep(step.path, GlobalAvgPool2D(), step.source, step.target, (maps.channels,))
        if isinstance(step, MeanStep) and (step.target != output or step.source == 0)
        else step
        for step in builder.steps
        for maps in [builder.maps[step.target]]
    ]
    return Network(tuple(builder.maps), tuple(steps), output)


class _NotFusable(Exception):
    """The residual at hand can't be lowered; it becomes a LayerStep."""


@dataclass
class _Builder:
    """Walks through a model; the last step may still grow as long as its result is the newest map."""

    maps: list[Map]
    training: bool
    steps: list[Step] = field(default_factory=list)
    held: list[int] = field(default_factory=list)  # maps that a bypass will read again

    def layer(self, layer: Layer, path: str, source: int) -> int:
        """Appends the steps of `layer` on map `source`; returns the number of the result."""
        match layer:
            case Chain():
                for name, part in layer.steps:
                    source = self.layer(part, join(path, name), source)
                return source
            case Block():
                return self.layer(layer.body, path, source)
            case Conv2D() if self.can_convolve(layer, source):
                return self.convolutions(((path, layer),), source)
            case Concat() if all(
                isinstance(arm, Conv2D) and self.can_convolve(arm, source) for _, arm in layer.arms
            ):
                arms = tuple((join(path, name), arm) for name, arm in layer.arms)
                return self.convolutions(arms, source)  # type: ignore[arg-type]
            case Residual():
                return self.residual(layer, path, source)
            case Dropout() if not (self.training and layer.rate):
                return source
            case Dropout() if source not in self.held and self.steps:
                self.steps.append(DropStep(path, source, layer.rate, len(self.steps)))
                return source
            case GlobalAvgPool2D():
                target = self.new(Map.of(1, 1, self.maps[source].segments))
                self.steps.append(MeanStep(path, source, target))
                return target
        return self.grown(layer, path, source) or self.unfused(layer, path, source)

    def new(self, new: Map) -> int:
        """The number of a new map."""
        self.maps.append(new)
        return len(self.maps) - 1

    def can_convolve(self, conv: Conv2D, source: int) -> bool:
        """Kernels give a gradient to the input only for stride 1."""
        needs_dx = self.training and source != 0
        return conv.window.stride == (1, 1) or not needs_dx

    def convolutions(self, convs: tuple[tuple[str, Conv2D], ...], source: int) -> int:
        """One step for convolutions side by side."""
        arms, offset = [], 0
        for path, conv in convs:
            arms.append(Arm(path, conv.window, conv.filters, conv.bias, offset))
            offset += TARGET.padded(conv.filters)
        size = self.maps[source]
        height, width = convs[0][1].window.out_size(size.height, size.width)
        result = Map.of(height, width, tuple(arm.filters for arm in arms))
        target = self.new(result)
        self.steps.append(ConvStep(source, target, tuple(arms), result))
        return target

    def grown(self, layer: Layer, path: str, source: int) -> int | None:
        """Lets the last step do this layer as well, if it can; else None."""
        last = self.steps[-1] if self.steps else None
        if not isinstance(last, ConvStep) or last.target != source or source in self.held:
            return None
        if last.pool or (last.bypass is not None and not isinstance(layer, MaxPool2D)):
            return None
        match layer:
            case BatchNorm() if not (last.norm or last.relu or last.hard_swish):
                self.steps[-1] = replace(last, norm=(path, layer))
                return source
            case HardSwish() if not (last.relu or last.hard_swish) and (
                last.norm or not self.training
            ):
                self.steps[-1] = replace(last, hard_swish=True)
                return source
            case ReLU() if not (last.relu or last.hard_swish):
                self.steps[-1] = replace(last, relu=True)
                return source
            case MaxPool2D() if layer.window.area < 256:
                result = last.result
                size = layer.window.out_size(result.height, result.width)
                target = self.new(Map.of(*size, result.segments))
                self.steps[-1] = replace(last, pool=layer.window, target=target)
                return target
        return None

    def residual(self, layer: Residual, path: str, source: int) -> int:
        """The shortcut's steps, then the body's, to whose last one the bypass is joined.

        Or the whole thing as one layer.
        """
        maps, steps = list(self.maps), list(self.steps)
        self.held.append(source)
        try:
            around = source
            if layer.shortcut is not None:
                around = self.layer(layer.shortcut, join(path, "bypass"), source)
            target = self.layer(layer.body, path, source)
            self.join_bypass(around, source, target)
            return target
        except _NotFusable:
            self.maps[:], self.steps[:] = maps, steps
            return self.unfused(layer, path, source)
        finally:
            self.held.pop()

    def join_bypass(self, around: int, source: int, target: int) -> None:
        """Adds map `around` to the result of the last step."""
        last = self.steps[-1] if self.steps else None
        fits = (
            isinstance(last, ConvStep) and last.target == target != source and last.source != source
            and last.bypass is None and last.pool is None and source != 0
            and self.maps[around] == last.result
        )  # fmt: skip
        if not fits or not isinstance(last, ConvStep):
            raise _NotFusable
        self.steps[-1] = replace(last, bypass=around)

    def unfused(self, layer: Layer, path: str, source: int) -> int:
        """A step that runs the layer itself."""
        shape = layer.out_shape(_layer_shape(self.maps[source], self.steps, source))
        height, width, channels = shape if len(shape) == 3 else (1, 1, shape[-1])
        target = self.new(Map.of(height, width, (channels,)))
        self.steps.append(LayerStep(path, layer, source, target, shape))
        return target


def _layer_shape(source: Map, steps: list[Step], number: int) -> Shape:
    """The shape that a layer expects of a map: (C,) behind a mean or a layer that gave (C,)."""
    for step in steps:
        if step.target == number and (
            isinstance(step, MeanStep) or (isinstance(step, LayerStep) and len(step.out_shape) == 1)
        ):
            return (source.channels,)
    return source.shape
