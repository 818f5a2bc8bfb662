"""Counting without allocating: parameters, multiply-adds, activation and im2col bytes, by layer."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from tinysqueeze.graph import Add, Copy, Graph, GraphModel, is_graphs_own, layer_of, lower
from tinysqueeze.network.compose import leaves
from tinysqueeze.network.layers import Conv2D, Layer, Shape
from tinysqueeze.network.models import Model
from tinysqueeze.network.others import GroupedConv2D
from tinysqueeze.network.params import flatten

FLOAT_BYTES = 4  # float32
Part = tuple[str, Any, Shape, Shape]  # path, layer, and the shapes of what it reads and makes


@dataclass(frozen=True)
class Row:
    """One layer. Multiply-adds, activation bytes (its output) and im2col bytes are for the batch."""

    path: str
    kind: str
    kernel: tuple[int, int] | None
    in_shape: Shape
    out_shape: Shape
    parameters: int
    multiply_adds: int
    activation_bytes: int
    im2col_bytes: int


@dataclass(frozen=True)
class Table:
    """All layers of a model and their totals."""

    model: str
    input_shape: Shape
    batch: int
    rows: tuple[Row, ...]

    def total(self, column: str) -> int:
        """The sum of a column: "parameters", "multiply_adds", "activation_bytes", "im2col_bytes"."""
        return sum(getattr(row, column) for row in self.rows)

    @property
    def parameters(self) -> int:
        """Trained numbers of the whole model."""
        return self.total("parameters")

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds of one forward pass over the batch."""
        return self.total("multiply_adds")

    @property
    def activation_bytes(self) -> int:
        """Bytes of all layers' outputs."""
        return self.total("activation_bytes")

    def share(self, kernel: int, column: str = "parameters") -> float:
        """What part of a column is in convolutions of kernel x kernel."""
        part = sum(getattr(row, column) for row in self.rows if row.kernel == (kernel, kernel))
        return part / max(self.total(column), 1)

    def as_dict(self) -> dict[str, Any]:
        """The same, ready for JSON."""
        columns = ("parameters", "multiply_adds", "activation_bytes", "im2col_bytes")
        return {
            "model": self.model,
            "input_shape": list(self.input_shape),
            "batch": self.batch,
            **{column: self.total(column) for column in columns},
            "megabytes": self.parameters * FLOAT_BYTES / 1e6,
            "share_1x1": self.share(1),
            "share_3x3": self.share(3),
            "layers": [asdict(row) for row in self.rows],
        }


def count(model: Model, input_size: int | None = None, batch: int = 1) -> Table:
    """Count a model, by default at its own input size; no array is made.

    A multiply-add is one multiplication with its addition: prod(out_shape) * prod(weight[:-1]).
    Activation bytes are each layer's float32 output; im2col bytes are the patches that a plain
    im2col would write (a pointwise convolution needs none). A graph is counted node by node.
    """
    model = model.at(input_size)
    if isinstance(model, GraphModel):
        parts = (_row(*part, batch) for part in _nodes(lower(model)))
        return Table(model.name, model.input_shape, batch, tuple(parts))
    return count_layer(model, model.input_shape, batch, model.name)


def count_layer(layer: Layer, in_shape: Shape, batch: int = 1, name: str = "") -> Table:
    """The same of any layer or composition, for examples of `in_shape`."""
    rows = (_row(*found, batch) for found in leaves(layer, in_shape))
    return Table(name, in_shape, batch, tuple(rows))


def _nodes(graph: Graph) -> Iterator[Part]:
    """Each node as the layer that it is, or, where no layer does it, as it stands."""
    for node in graph.nodes:
        height_width = graph.result(node)[:2] if len(graph.shapes[node.target]) == 3 else ()
        out_shape = (*height_width, graph.channels(node))
        what = (
            node if isinstance(node, Add | Copy) or is_graphs_own(node) else layer_of(graph, node)
        )
        yield node.path, what, graph.shapes[node.source], out_shape


def _row(path: str, layer: Any, in_shape: Shape, out_shape: Shape, batch: int) -> Row:
    weights = flatten(layer.param_shapes(in_shape)) if isinstance(layer, Layer) else {}
    fan_in = int(np.prod(weights["weight"][:-1])) if len(weights.get("weight", ())) > 1 else 0
    size, positions = int(np.prod(out_shape)), int(np.prod(out_shape[:2]))
    is_conv = isinstance(layer, Conv2D | GroupedConv2D)
    patches = 0
    if is_conv and not layer.window.is_pointwise:
        patches = positions * layer.window.area * in_shape[-1]
    return Row(
        path=path,
        kind=type(layer).__name__,
        kernel=layer.window.kernel if is_conv else None,
        in_shape=in_shape,
        out_shape=out_shape,
        parameters=sum(int(np.prod(shape)) for shape in weights.values()),
        multiply_adds=batch * size * fan_in,
        activation_bytes=batch * size * FLOAT_BYTES,
        im2col_bytes=batch * patches * FLOAT_BYTES,
    )
