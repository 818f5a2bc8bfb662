"""What a plan does, step by step, and how the maps are laid out between: before any memory is thought of.

Several nodes of the graph may be one step; `grouping` says which.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from tinysqueeze.graph import (
    Graph,
    Node,
    Norm,
)
from tinysqueeze.kernels import TARGET
from tinysqueeze.network.layers import Shape
from tinysqueeze.network.models import Activation
from tinysqueeze.network.window import Window


@dataclass(frozen=True)
class Bounds:
    """An activation: 0 up to `low`, the number itself from `high` on (see `Emitter.activate`)."""

    low: float
    high: float

    @property
    def fields(self) -> dict[str, float]:
        """As the kernels of norms and pools call them."""
        return {"shut": self.low, "full": self.high}


BOUNDS = {None: Bounds(-np.inf, -np.inf), "relu": Bounds(0, 0), "hard-swish": Bounds(-3, 3)}


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
    activation: Activation | None = None
    norm: Norm | None = None
    bypass: int | None = None  # the map that is added
    pool: Window | None = None

    @property
    def name(self) -> str:
        """The paths of its convolutions."""
        return " + ".join(arm.path for arm in self.arms)

    @property
    def reads(self) -> tuple[int, ...]:
        """The maps it reads."""
        return (self.source,) if self.bypass is None else (self.source, self.bypass)

    @property
    def what(self) -> str:
        """What it does, in a few words."""
        kinds = " and ".join("x".join(map(str, arm.window.kernel)) for arm in self.arms)
        words = [f"{kinds} convolution"] + ["batch norm"] * (self.norm is not None)
        words += {None: [], "relu": ["ReLU"], "hard-swish": ["hard-swish"]}[self.activation]
        words += ["bypass"] * (self.bypass is not None) + ["max-pool"] * (self.pool is not None)
        return ", ".join(words)

    @property
    def pools_norm(self) -> bool:
        """Does the pool follow norm and activation at once, with no bypass in between?"""
        return self.norm is not None and self.pool is not None and self.bypass is None

    @property
    def bounds(self) -> Bounds:
        """Its activation."""
        return BOUNDS[self.activation]

    @property
    def low(self) -> float:
        """Where the convolutions themselves cut off: 0 for ReLU, else minus infinity."""
        return 0.0 if self.activation == "relu" else -np.inf


@dataclass(frozen=True)
class DropStep:
    """Dropout, in place on a map."""

    name: str
    source: int
    rate: float
    number: int  # tells the dropouts of a network apart
    what = "dropout"

    @property
    def target(self) -> int:
        """The same map."""
        return self.source

    @property
    def reads(self) -> tuple[int, ...]:
        """The maps it reads."""
        return (self.source,)


@dataclass(frozen=True)
class MeanStep:
    """Global average pooling, which gives the logits."""

    name: str
    source: int
    target: int
    what = "global average pool"

    @property
    def reads(self) -> tuple[int, ...]:
        """The maps it reads."""
        return (self.source,)


@dataclass(frozen=True)
class JoinStep:
    """The sum of maps, or the copy of one, in the channels of `target` that begin at float `place`."""

    name: str
    reads: tuple[int, ...]
    target: int
    place: int
    channels: int  # floats of a pixel, padding included

    @property
    def what(self) -> str:
        """Which of the two it is."""
        return "sum" if len(self.reads) > 1 else "copy"


@dataclass(frozen=True)
class NodeStep:
    """A node that is run by its layer; a sum or a copy only where its maps are laid out differently."""

    node: Node
    reads: tuple[int, ...]
    target: int

    @property
    def name(self) -> str:
        """The node's path."""
        return self.node.path

    @property
    def source(self) -> int:
        """The first map it reads."""
        return self.reads[0]


Step = ConvStep | DropStep | MeanStep | JoinStep | NodeStep


@dataclass(frozen=True)
class Steps:
    """The steps in order, and the maps by the graph's numbers; map 0 is the image.

    Dropout in place leaves its result where it found it, so not every map of the graph is here.
    """

    graph: Graph
    maps: dict[int, Map]
    steps: tuple[Step, ...]
    output: int

    @property
    def written(self) -> set[int]:
        """The maps that exist: the image, and every step's target (not what a pool has fused)."""
        return {0} | {step.target for step in self.steps}

    def readers(self, number: int) -> list[Step]:
        """The steps that read a map, bypasses included."""
        return [step for step in self.steps if number in step.reads]

    def convs(self) -> Iterator[tuple[int, ConvStep]]:
        """The steps of convolutions, by number."""
        return ((i, step) for i, step in enumerate(self.steps) if isinstance(step, ConvStep))
