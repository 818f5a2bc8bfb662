"""The lowered form of a network: numbered maps, and nodes that read one or two of them and write one.

Map 0 is the image, and every other map is written once: by one node, or by several side by side, each
from its own channel on (the arms of a Concat). So nothing is ever overwritten, and a pass may leave
out a node or a map without asking who else might have changed it.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np

from tinysqueeze.errors import ShapeError
from tinysqueeze.network.layers import Layer, Shape
from tinysqueeze.network.models import Activation
from tinysqueeze.network.window import Window


@dataclass(frozen=True)
class Node:
    """One operation on map `source`; its result fills the channels from `offset` on of map `target`.

    `path` is the path of the layer it does, under which its arrays, if any, lie among the parameters.
    """

    path: str
    source: int
    target: int
    offset: int = field(default=0, kw_only=True)

    @property
    def sources(self) -> tuple[int, ...]:
        """The maps it reads."""
        return (self.source,)

    def reading(self, old: int, new: int) -> Self:
        """The same node, reading map `new` where it read `old`."""
        return replace(self, source=new) if self.source == old else self

    def writing(self, target: int, offset: int) -> Self:
        """The same node, writing what it wrote to another map, `offset` channels further on."""
        return replace(self, target=target, offset=self.offset + offset)

    @property
    def what(self) -> str:
        """What it does, in a few words."""
        return type(self).__name__.lower()


@dataclass(frozen=True)
class Conv(Node):
    """A convolution. weight (KH, KW, C / groups, F) and bias (F,) lie under its path.

    A fully connected layer is one as well: of a 1x1 window over the one pixel of a (C,) map, or, behind
    a Flatten that is gone, of a window as large as the map. Its weight (KH * KW * C, F) holds the same
    numbers in the same order.
    """

    window: Window
    filters: int
    bias: bool = True
    groups: int = 1
    activation: Activation | None = None  # what `fuse` put behind it

    @property
    def what(self) -> str:
        """Kernel, filters and whatever is not plain."""
        filters = f"{self.filters} filter{'s' * (self.filters != 1)}"
        words = [f"{_by(self.window.kernel)} convolution", filters]
        words += _steps(self.window) + [f"{self.groups} groups"] * (self.groups > 1)
        return ", ".join(words + ([self.activation] if self.activation else []))


@dataclass(frozen=True)
class Norm(Node):
    """A batch norm: weight, bias, mean and var (C,) lie under its path."""

    eps: float
    momentum: float

    @property
    def what(self) -> str:
        """Its name."""
        return "batch norm"


@dataclass(frozen=True)
class Activate(Node):
    """A function of each number alone."""

    kind: Activation

    @property
    def what(self) -> str:
        """Its name."""
        return self.kind


@dataclass(frozen=True)
class Pool(Node):
    """Max-pool, or average where `average`; then padding counts as zeros if `counts_padding`."""

    window: Window
    average: bool = False
    counts_padding: bool = True

    @property
    def what(self) -> str:
        """Kernel, kind, stride and padding."""
        words = [f"{_by(self.window.kernel)} {'average' if self.average else 'max'} pool"]
        return ", ".join(words + _steps(self.window) + ["ceil"] * self.window.ceil)


@dataclass(frozen=True)
class Mean(Node):
    """The mean over all pixels: (H, W, C) -> (C,)."""

    @property
    def what(self) -> str:
        """Its name."""
        return "mean of all pixels"


@dataclass(frozen=True)
class Add(Node):
    """The sum of two maps."""

    second: int
    activation: Activation | None = None  # what `fuse` put behind it

    @property
    def sources(self) -> tuple[int, ...]:
        """Both maps."""
        return (self.source, self.second)

    def reading(self, old: int, new: int) -> Self:
        """The same node, reading map `new` where it read `old`."""
        node = super().reading(old, new)
        return replace(node, second=new) if self.second == old else node

    @property
    def what(self) -> str:
        """Its name."""
        return f"sum, {self.activation}" if self.activation else "sum"


@dataclass(frozen=True)
class Drop(Node):
    """Dropout: nothing outside training."""

    rate: float

    @property
    def what(self) -> str:
        """Its name and rate."""
        return f"dropout {self.rate:g}"


@dataclass(frozen=True)
class Copy(Node):
    """The same numbers in another map: an arm of a Concat that others read as well."""


@dataclass(frozen=True)
class Other(Node):
    """A layer that no other node describes, run by its own `forward`; its arrays lie under its path."""

    layer: Layer

    @property
    def what(self) -> str:
        """The layer."""
        return str(self.layer)


@dataclass(frozen=True)
class Graph:
    """The nodes in the order of running. `shapes[i]` is one image's shape in map i, as layers see it.

    That is (H, W, C), or (C,) behind a mean, a Flatten or a fully connected layer. `output` is the map
    that holds the result. Raises ShapeError unless every map is written in whole, by nodes whose results
    fit it, before it is read.
    """

    name: str
    shapes: tuple[Shape, ...]
    nodes: tuple[Node, ...]
    output: int

    def __post_init__(self) -> None:
        left = [shape[-1] for shape in self.shapes]  # channels of each map that are not yet written
        left[0] = 0
        parts: dict[int, list[tuple[int, int]]] = {}
        for node in self.nodes:
            if any(left[number] for number in node.sources):
                raise ShapeError(f"{self.name}: {node} reads a map before all of it is written")
            result, whole = self.result(node), self.size(node.target)
            first, stop = node.offset, node.offset + result[2]
            taken = parts.setdefault(node.target, [])
            if any(other < stop and first < end for other, end in taken) or node.target == 0:
                raise ShapeError(f"{self.name}: {node} writes over what is in map {node.target}")
            if result[:2] != whole[:2] or stop > whole[2]:
                raise ShapeError(f"{self.name}: {node} gives {result}, which does not fit {whole}")
            taken.append((first, stop))
            left[node.target] -= stop - first
        if any(left):
            raise ShapeError(f"{self.name}: nobody writes all of map {np.argmax(left)}")

    @classmethod
    def of(cls, name: str, shapes: Sequence[Shape], nodes: Iterable[Node], output: int) -> "Graph":
        """A graph without the nodes whose result nobody reads, its maps numbered as they are written."""
        needed, kept = {output}, []
        for node in reversed(list(nodes)):
            if node.target in needed:
                needed.update(node.sources)
                kept.append(node)
        numbers = {0: 0}
        for node in reversed(kept):
            numbers.setdefault(node.target, len(numbers))
        return cls(
            name,
            tuple(shapes[old] for old in numbers),
            tuple(renumbered(node, numbers) for node in reversed(kept)),
            numbers[output],
        )

    def readers(self, number: int) -> tuple[Node, ...]:
        """The nodes that read a map."""
        return tuple(node for node in self.nodes if number in node.sources)

    def writers(self, number: int) -> tuple[Node, ...]:
        """The nodes that write a map; more than one where they write side by side."""
        return tuple(node for node in self.nodes if node.target == number)

    def size(self, number: int) -> tuple[int, int, int]:
        """(H, W, C) of a map; a (C,) map is one pixel."""
        return _size(self.shapes[number])

    def channels(self, node: Node) -> int:
        """How many channels a node writes."""
        return self.result(node)[2]

    def result(self, node: Node) -> tuple[int, int, int]:
        """(H, W, C) of what a node makes. Raises ShapeError where it can't read its sources."""
        height, width, channels = size = self.size(node.source)
        match node:
            case Conv():
                if channels % node.groups or node.filters % node.groups:
                    raise ShapeError(f"{channels} channels in {node.groups} groups", node.path)
                return *node.window.out_size(height, width), node.filters
            case Pool():
                return *node.window.out_size(height, width), channels
            case Mean():
                return 1, 1, channels
            case Add() if self.size(node.second) != size:
                raise ShapeError(f"{size} and {self.size(node.second)} don't add up", node.path)
            case Other():
                return _size(node.layer.out_shape(self.shapes[node.source]))
        return size

    def done_after(self) -> Iterator[tuple[Node, tuple[int, ...]]]:
        """Each node, with the maps that nobody reads after it (the output stays)."""
        last = {number: node for node in self.nodes for number in node.sources}
        for node in self.nodes:
            mine = (n for n in set(node.sources) if last[n] is node and n != self.output)
            yield node, tuple(mine)

    def text(self) -> str:
        """A table: a line a node, with the maps that it reads and writes."""
        rows = [("node", "what it does", "reads", "writes", "channels", "shape")]
        rows.append(("image", "", "", "0", "", _by(self.shapes[0])))
        for node in self.nodes:
            first, count = node.offset, self.channels(node)
            part = count < self.shapes[node.target][-1]
            rows.append((
                node.path or "-", node.what, ", ".join(map(str, node.sources)), str(node.target),
                f"{first} to {first + count - 1}" if part else "all", _by(self.shapes[node.target]),
            ))  # fmt: skip
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = (
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        )
        return "\n".join((f"{self.name}: map {self.output} is the result", *lines))


def _size(shape: Shape) -> tuple[int, int, int]:
    return (1, 1, shape[0]) if len(shape) == 1 else (shape[0], shape[1], shape[2])


def renumbered(node: Node, numbers: Mapping[int, int]) -> Node:
    """The same node over maps that have other numbers."""
    node = replace(node, source=numbers[node.source], target=numbers[node.target])
    return replace(node, second=numbers[node.second]) if isinstance(node, Add) else node


def _by(sides: Sequence[int]) -> str:
    return "x".join(map(str, sides))


def _steps(window: Window) -> list[str]:
    """Stride and padding, where they are not plain."""
    named = (("stride", window.stride, (1, 1)), ("pad", window.pad, (0, 0)))
    return [
        f"{name} {sides[0] if sides[0] == sides[1] else _by(sides)}"
        for name, sides, plain in named
        if sides != plain
    ]
