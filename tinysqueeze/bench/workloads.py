"""What is measured: a few workloads, and their networks as plain data.

The other sides must not import this package: its libraries would count as their memory and start-up.
So a network is handed to them as a description in JSON and arrays by path.
"""

from dataclasses import dataclass, field, replace
from typing import Any

from tinysqueeze.errors import UserError
from tinysqueeze.graph.form import Activate, Add, Conv, Copy, Drop, Graph, Mean, Node, Norm, Pool
from tinysqueeze.graph.lowering import lower
from tinysqueeze.graph.passes import with_copies, without_dropout
from tinysqueeze.network.models import Model, build
from tinysqueeze.training.recipes import RECIPES


@dataclass(frozen=True)
class Workload:
    """A network, a batch size, and whether it is trained (a whole SGD step) or only run."""

    name: str
    title: str
    spec: dict[str, Any] = field(hash=False)
    batch: int
    training: bool = False

    @property
    def model(self) -> Model:
        """The network."""
        return build(self.spec)

    def with_sizes(self, batch: int | None = None, input_size: int | None = None) -> "Workload":
        """The same with another batch or image size; its name says so."""
        spec = self.spec if input_size is None else self.spec | {"input_size": input_size}
        batch = batch or self.batch
        side = build(spec).input_shape[0]
        return replace(self, name=f"{self.name}-{batch}x{side}", spec=spec, batch=batch)

    def quick(self) -> "Workload":
        """A thin network and few images: for trying whether everything works, not for its speed."""
        thin = {
            "base_e": 16,
            "incr_e": 16,
            "stem_filters": 16,
            "squeeze_ratio": 0.25,
            "classes": 10,
        }
        return replace(self, spec=self.spec | thin, batch=min(self.batch, 4))


CIFAR = {"name": "squeezenet_cifar", "final_relu": True}
WORKLOADS = {
    w.name: w
    for w in (
        Workload("train", "training step, CIFAR-size SqueezeNet", CIFAR, 64, training=True),
        Workload("infer", "inference, CIFAR-size SqueezeNet", CIFAR, 64),
        Workload("v10", "inference, SqueezeNet v1.0", {"name": "squeezenet1_0"}, 1),
        Workload(
            "norm",
            "training step with batch norm and simple bypass",
            {"name": "squeezenet_cifar", "norm": True, "bypass": "simple"},
            64,
            training=True,
        ),
        Workload("v11", "inference, SqueezeNet v1.1", {"name": "squeezenet1_1"}, 1),
        Workload("one", "inference, CIFAR-size SqueezeNet", CIFAR, 1),
        Workload(
            "fast",
            "training step, network of the recipe fast",
            {"name": "squeezenet_cifar", **RECIPES["fast"].model},
            64,
            training=True,
        ),
    )
}
USUAL = ("train", "infer", "v10", "norm")


def describe(model: Model, training: bool = False) -> dict[str, Any]:
    """A network as plain data: its nodes in order, each with the maps it reads and writes.

    {"output": 9, "nodes": [{"kind": "Conv", "path": "conv1", "sources": [0], "target": 1, "done": [0],
    "kernel": ...}, ...]}; map 0 is the image, and the maps in `done` are read no more. Raises UserError
    for a layer that no SqueezeNet has.
    """
    graph = lower(model)
    for node in graph.nodes:
        if training and isinstance(node, Drop) and node.rate:
            raise _unknown(node)
    graph = with_copies(without_dropout(graph), ())
    nodes: list[dict[str, Any]] = []
    waiting: dict[int, list[int]] = {}
    for node, done in graph.done_after():
        sources, finished = node.sources, list(done)
        if isinstance(node, Copy):  # what is copied into one map is joined there at once
            copies = graph.writers(node.target)
            finished = waiting.setdefault(node.target, [])
            finished += done
            if node is not copies[-1]:
                continue
            sources = tuple(c.source for c in sorted(copies, key=lambda copy: copy.offset))
        nodes.append({
            "kind": _kind(node), "path": node.path, "sources": sources,
            "target": node.target, "done": finished, "channels": graph.size(node.source)[2],
            **_numbers(graph, node),
        })  # fmt: skip
    return {"output": graph.output, "nodes": nodes}


def _kind(node: Node) -> str:
    if isinstance(node, Activate):
        return {"relu": "ReLU", "hard-swish": "HardSwish"}[node.kind]
    return "Concat" if isinstance(node, Copy) else type(node).__name__


def _numbers(graph: Graph, node: Node) -> dict[str, Any]:
    """What else the other sides must know of a node."""
    match node:
        case Conv(groups=1, bias=True) if len(graph.shapes[node.source]) == 3:
            return _window(node) | {"filters": node.filters}
        case Pool(average=False):
            return _window(node)
        case Norm():
            return {"eps": node.eps, "momentum": node.momentum}
        case Activate() | Mean() | Add() | Copy():
            return {}
    raise _unknown(node)


def _window(node: Conv | Pool) -> dict[str, Any]:
    window = node.window
    sides = {"kernel": window.kernel, "stride": window.stride, "pad": window.pad}
    return sides | {"ceil": window.ceil}


def _unknown(node: Node) -> UserError:
    return UserError(f"{node.path}: the other sides of the benchmark have no {node.what}")
