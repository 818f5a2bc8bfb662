"""From a model to its graph: the only walk over compositions outside the network's own files."""

from dataclasses import dataclass, field, replace

from tinysqueeze.errors import UserError
from tinysqueeze.graph.form import (
    Activate,
    Add,
    Conv,
    Copy,
    Drop,
    Graph,
    Mean,
    Node,
    Norm,
    Other,
    Pool,
    renumbered,
)
from tinysqueeze.graph.passes import without_copies
from tinysqueeze.graph.whole import Whole
from tinysqueeze.network import layers
from tinysqueeze.network.compose import Block, Chain, Concat, Residual, join
from tinysqueeze.network.layers import Layer, Shape
from tinysqueeze.network.models import Model
from tinysqueeze.network.others import GroupedConv2D
from tinysqueeze.network.window import Window


def lower(model: Model) -> Graph:
    """A node for every layer, and one for every sum; nothing is fused or left out yet.

    Raises ShapeError, with the layer's path, for a model whose layers don't fit one another.
    """
    model.out_shape(model.input_shape)
    model.param_shapes(model.input_shape)
    walk = _Walk([model.input_shape])
    output = walk.layer(model, "", 0)
    return without_copies(Graph.of(model.name, walk.shapes, walk.nodes, output))


@dataclass
class _Walk:
    """The maps and nodes so far; `layer` appends what computes a layer of a map."""

    shapes: list[Shape]
    nodes: list[Node] = field(default_factory=list)

    def layer(self, layer: Layer, path: str, x: int) -> int:
        """The number of the map that holds `layer` of map `x`."""
        match layer:
            case Chain():
                for name, step in layer.steps:
                    x = self.layer(step, join(path, name), x)
                return x
            case Block():
                return self.layer(layer.body, path, x)
            case Whole():
                return self.whole(layer.graph, path, x)
            case Concat():
                arms = [self.layer(arm, join(path, name), x) for name, arm in layer.arms]
                return self.beside(path, arms)
            case Residual():  # the way around first, so that the sum may follow the body at once
                around = x
                if layer.shortcut is not None:
                    around = self.layer(layer.shortcut, join(path, "bypass"), x)
                through = self.layer(layer.body, path, x)
                y = self.new(self.shapes[through])
                self.nodes.append(Add(join(path, "sum"), through, y, around))
                return y
        y = self.new(layer.out_shape(self.shapes[x]))
        self.nodes.append(node_of(layer, path, x, y))
        return y

    def beside(self, path: str, arms: list[int]) -> int:
        """Arms copied side by side into one map; `without_copies` lets them write there themselves."""
        channels = [self.shapes[arm][-1] for arm in arms]
        y = self.new((*self.shapes[arms[0]][:-1], sum(channels)))
        for i, arm in enumerate(arms):
            self.nodes.append(Copy(join(path, "copy"), arm, y, offset=sum(channels[:i])))
        return y

    def whole(self, graph: Graph, path: str, x: int) -> int:
        """All nodes of a graph, on map `x`."""
        numbers = {0: x} | {i: self.new(shape) for i, shape in enumerate(graph.shapes) if i}
        for node in graph.nodes:
            self.nodes.append(renumbered(replace(node, path=join(path, node.path)), numbers))
        return numbers[graph.output]

    def new(self, shape: Shape) -> int:
        """The number of a new map."""
        self.shapes.append(shape)
        return len(self.shapes) - 1


KNOWN = {
    layers.AvgPool2D, layers.BatchNorm, layers.Conv2D, layers.Dropout, layers.GlobalAvgPool2D,
    layers.HardSwish, layers.Linear, layers.MaxPool2D, layers.ReLU, GroupedConv2D,
}  # fmt: skip


def node_of(layer: Layer, path: str, source: int, target: int) -> Node:
    """A layer that is no composition, as a node."""
    ends = (path, source, target)
    if type(layer) not in KNOWN:  # a subclass as well: it may compute something else
        return Other(*ends, layer)
    match layer:
        case layers.Conv2D():
            return Conv(*ends, layer.window, layer.filters, layer.bias)
        case GroupedConv2D():
            return Conv(*ends, layer.window, layer.filters, layer.bias, layer.groups)
        case layers.Linear():
            return Conv(*ends, Window.of(1), layer.features, layer.bias)
        case layers.BatchNorm():
            return Norm(*ends, layer.eps, layer.momentum)
        case layers.ReLU():
            return Activate(*ends, "relu")
        case layers.HardSwish():
            return Activate(*ends, "hard-swish")
        case layers.MaxPool2D() | layers.AvgPool2D():
            return Pool(*ends, layer.window, isinstance(layer, layers.AvgPool2D))
        case layers.GlobalAvgPool2D():
            return Mean(*ends)
        case layers.Dropout():
            return Drop(*ends, layer.rate)
    return Other(*ends, layer)


def is_graphs_own(node: Node) -> bool:
    """Does no layer do this? So it is with an average that leaves its padding out of the count."""
    return isinstance(node, Pool) and node.average and not node.counts_padding


def layer_of(graph: Graph, node: Node) -> Layer:
    """The layer that a node stands for, without what `fuse` put behind it: the way back of `node_of`.

    Raises UserError for a node that no layer does.
    """
    match node:
        case Conv() if len(graph.shapes[node.source]) == 1:
            return layers.Linear(node.filters, node.bias)
        case Conv(window=window):
            sides = (window.kernel, window.stride, window.pad)
            if node.groups > 1:
                kernel, stride, pad = sides
                return GroupedConv2D(node.filters, kernel, node.groups, stride, pad, node.bias)
            return layers.Conv2D(node.filters, *sides, node.bias)
        case Norm():
            return layers.BatchNorm(node.eps, node.momentum)
        case Activate():
            return layers.ReLU() if node.kind == "relu" else layers.HardSwish()
        case Pool(window=window) if not is_graphs_own(node):
            kind = layers.AvgPool2D if node.average else layers.MaxPool2D
            return kind(window.kernel, window.stride, window.pad, window.ceil)
        case Mean():
            return layers.GlobalAvgPool2D()
        case Drop():
            return layers.Dropout(node.rate)
        case Other():
            return node.layer
    raise UserError(f"{graph.name}: no layer does {node.path} ({node.what}); run the graph instead")
