"""What a plan does, step by step, and how the maps are laid out between: before any memory is thought of.

Several nodes of the graph may be one step; `grouping` says which.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from tinysqueeze.graph import Graph, Node, Norm
from tinysqueeze.kernels import TARGET
from tinysqueeze.network.layers import Shape
from tinysqueeze.network.models import Activation
from tinysqueeze.network.window import Window

BOUNDS = {
    None: {"shut": -np.inf, "full": -np.inf}, "relu": {"shut": 0.0, "full": 0.0},
    "hard-swish": {"shut": -3.0, "full": 3.0},
}  # fmt: skip
"""By activation: 0 up to `shut`, the number itself from `full` on (see `Emitter.activate`)."""


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
    """One convolution of a step; it writes the channels from `offset` (padded) of the result.

    With `phases` it reads the image in squares of so many pixels a side: see `phases.py`.
    """

    path: str
    window: Window
    filters: int
    bias: bool
    offset: int = 0
    phases: int = 1

    @property
    def vectors(self) -> int:
        """Vectors of output channels, padding included."""
        return TARGET.padded(self.filters) // TARGET.lanes


@dataclass(frozen=True)
class Step:
    """What is done at a time: maps are read, by number, and one is written."""

    name: str
    reads: tuple[int, ...]
    target: int

    @property
    def source(self) -> int:
        """The first map it reads."""
        return self.reads[0]


@dataclass(frozen=True)
class ConvStep(Step):
    """Convolutions of map `source`, then norm, activation, bypass and pool as far as they are there.

    `result` is the map before the pool, `target` the number of the map after it. A second map that
    is read is the bypass, which is added.
    """

    arms: tuple[Arm, ...]
    result: Map
    activation: Activation | None = None
    norm: Norm | None = None
    pool: Window | None = None

    @property
    def bypass(self) -> int | None:
        """The map that is added."""
        return self.reads[1] if len(self.reads) > 1 else None

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
    def bends(self) -> bool:
        """Is it a hard-swish on the convolutions themselves? Its slope is not seen from its result."""
        return self.activation == "hard-swish" and self.norm is None

    @property
    def bounds(self) -> dict[str, float]:
        """Those of its activation, as kernels call them."""
        return BOUNDS[self.activation]

    @property
    def low(self) -> float:
        """Where the convolutions themselves cut off: 0 for a ReLU behind them, else minus infinity."""
        return 0.0 if self.activation == "relu" and self.norm is None else -np.inf


@dataclass(frozen=True)
class PhaseStep(Step):
    """The image in squares, for a convolution whose window in the image this is."""

    window: Window


@dataclass(frozen=True)
class DropStep(Step):
    """Dropout, in place on a map; `number` tells the dropouts of a network apart."""

    rate: float
    number: int


@dataclass(frozen=True)
class MeanStep(Step):
    """Global average pooling, which gives the logits."""


@dataclass(frozen=True)
class JoinStep(Step):
    """The sum of maps, or the copy of one, in the channels of `target` that begin at float `place`."""

    place: int
    channels: int  # floats of a pixel, padding included


@dataclass(frozen=True)
class NodeStep(Step):
    """A node that is run by its layer; a sum or a copy only where its maps are laid out differently."""

    node: Node


@dataclass(frozen=True)
class StepList:
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

    def is_head(self, i: int) -> bool:
        """Is step i the last convolution, of which only the mean is wanted?"""
        step = self.steps[i]
        readers = self.readers(step.target)
        return (
            isinstance(step, ConvStep) and len(readers) == 1 and readers[0] is self.steps[i + 1]
            and isinstance(readers[0], MeanStep) and len(step.arms) == 1 and not step.pool
            and step.bypass is None
        )  # fmt: skip

    def convs(self) -> Iterator[tuple[int, ConvStep]]:
        """The steps of convolutions, by number."""
        return ((i, step) for i, step in enumerate(self.steps) if isinstance(step, ConvStep))
