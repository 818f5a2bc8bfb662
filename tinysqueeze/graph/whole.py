"""A graph as a layer: what was read as one runs wherever a model does, though no layers make it up."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinysqueeze.errors import UserError
from tinysqueeze.graph.form import Conv, Graph, Norm, Other
from tinysqueeze.graph.run import run
from tinysqueeze.graph.spec import GRAPH, graph_from, spec_of
from tinysqueeze.network.compose import join
from tinysqueeze.network.layers import EVAL, Backward, Cache, Forward, Layer, Mode, Params, Shape
from tinysqueeze.network.models import Model, build
from tinysqueeze.network.params import unflatten


@dataclass(frozen=True)
class Whole(Layer):
    """All of a graph, for inference; its arrays are called after its nodes' paths."""

    graph: Graph

    def out_shape(self, in_shape: Shape) -> Shape:
        """The result's. Raises ShapeError for any image but the graph's own."""
        expected = self.graph.shapes[0]
        remedy = "a network read as a graph takes images of one size alone"
        self._expect(in_shape == expected, str(expected), in_shape, remedy)
        return self.graph.shapes[self.graph.output]

    def param_shapes(self, in_shape: Shape) -> dict[str, Any]:
        """Weights and biases of its convolutions and norms."""
        return unflatten(self._arrays(("weight", "bias")))

    def buffer_shapes(self, in_shape: Shape) -> dict[str, Any]:
        """Mean and variance of its norms."""
        return unflatten(self._arrays(("mean", "var")))

    def _arrays(self, names: tuple[str, ...]) -> dict[str, Shape]:
        return {
            join(node.path, name): shape
            for node in self.graph.nodes
            for name, shape in arrays_of(self.graph, node).items()
            if name in names
        }

    def forward(self, params: Params, x: np.ndarray, mode: Mode = EVAL) -> Forward:
        """The result, outside training. Raises UserError in training."""
        if mode.rng is not None:
            raise UserError(f"{self.graph.name} was read as a graph, which runs but does not train")
        return run(self.graph, params, x, mode.ops)[self.graph.output], Cache()

    def backward(self, params: Params, cache: Cache, dy: np.ndarray, mode: Mode = EVAL) -> Backward:
        """Raises UserError: a graph has no backward pass."""
        raise UserError(f"{self.graph.name} was read as a graph, which has no backward pass")


def arrays_of(graph: Graph, node: object) -> Mapping[str, Shape]:
    """The shapes of a node's arrays, by name. Raises UserError for a layer that has some of its own."""
    match node:
        case Conv():
            source = graph.shapes[node.source]
            depth = source[-1] // node.groups
            window = node.window.kernel if len(source) == 3 else ()
            weight = {"weight": (*window, depth, node.filters)}
            return weight | ({"bias": (node.filters,)} if node.bias else {})
        case Norm():
            return dict.fromkeys(("weight", "bias", "mean", "var"), graph.shapes[node.source][-1:])
        case Other() if node.layer.param_shapes(graph.shapes[node.source]):
            raise UserError(f"{graph.name}: {node.path} ({node.what}) has arrays of its own")
    return {}


@dataclass(frozen=True)
class GraphModel(Model):
    """A network that was read as a graph: it has no metaparameters, and its images one size."""

    def at(self, input_size: int | None) -> "GraphModel":
        """Itself. Raises UserError for any other size."""
        if input_size is None or self.input_shape[:2] == (input_size, input_size):
            return self
        height, width, _ = self.input_shape
        raise UserError(
            f"{self.name} was read as a graph, which takes images of {height}x{width} pixels alone: "
            "export it at the size that you want"
        )

    def with_changes(self, **changes: Any) -> "GraphModel":
        """Raises UserError: there is nothing to change."""
        raise UserError(
            f"{self.name} was read as a graph, which has no {', '.join(changes)} to change: it "
            "predicts, but does not train; change it where it was made"
        )


def model_of(graph: Graph) -> GraphModel:
    """A model that is nothing but the graph: it predicts, is measured and exported as any other.

    Its spec holds the graph itself. Raises UserError for one that no file can hold (`spec_of`).
    """
    return GraphModel(graph.name, (("", Whole(graph)),), graph.shapes[0], spec_of(graph))


def rebuild(spec: Any) -> Model:
    """The model of a spec that a file holds: a graph's, or one that `build` knows. Raises UserError."""
    if not isinstance(spec, dict) or spec.get("name") != GRAPH:
        return build(spec)
    graph = graph_from(spec)
    return GraphModel(graph.name, (("", Whole(graph)),), graph.shapes[0], spec)
