"""A graph as JSON and back, for files: every node and every field checked, sizes and depth bounded.

    {"name": "graph", "title": "resnet", "shapes": [[32, 32, 3], [32, 32, 8], ...], "output": 9, "nodes": [
        {"kind": "conv", "path": "conv1", "source": 0, "target": 1, "filters": 8, "kernel": [3, 3]}, ...]}

What a node's class gives a default is left out where it is that. What comes from a file is believed no
further than the table below says: `graph_from` raises UserError for anything that it can't be.
"""

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from math import prod
from typing import Annotated, Any

from tinysqueeze.errors import ShapeError, UserError
from tinysqueeze.graph import form
from tinysqueeze.graph.form import Conv, Graph, Mean, Node, Norm, Other, Pool
from tinysqueeze.network.layers import Flatten, Layer, Shape, Softmax
from tinysqueeze.network.models import Activation, Pad
from tinysqueeze.network.window import Window
from tinysqueeze.ranges import Range, Text, checked

GRAPH = "graph"  # the name in a spec, where a model's own has "squeezenet1_0"
MOST_NODES = 4096
LARGEST_MAP = 1 << 28  # numbers in one map: 1 GB
LARGEST_MAPS = 1 << 30  # numbers in all maps together

Title = Annotated[str, Text(r"[A-Za-z_]\w{0,59}", "up to 60 letters, digits and _")]
Path = Annotated[str, Text(r"[\w.-]+(/[\w.-]+)*", "letters, digits, _ . - and / between", 200)]
Map = Annotated[int, Range(0, MOST_NODES)]
Written = Annotated[int, Range(1, MOST_NODES)]
Size = Annotated[int, Range(1, LARGEST_MAP)]
Filters = Annotated[int, Range(1, 1 << 20)]
Sides = Annotated[tuple[Annotated[int, Range(1, 16_384)], ...], Range(2, 2)]
Strides = Annotated[tuple[Annotated[int, Range(1, 255)], ...], Range(2, 2)]
Pads = Annotated[tuple[Pad, ...], Range(2, 2)]
Sizes = Annotated[tuple[Size, ...], Range(1, 3)]
Shapes = Annotated[tuple[Sizes, ...], Range(1, MOST_NODES + 1)]

Channel = Annotated[int, Range(0, LARGEST_MAP)]
ENDS: dict[str, Any] = {"path": Path, "source": Map, "target": Written, "offset": Channel}
WINDOW: dict[str, Any] = {"kernel": Sides, "stride": Strides, "pad": Pads}
WHOLE = {"title": Title, "shapes": Shapes, "output": Map}


@dataclass(frozen=True)
class Kind:
    """How a kind of node stands in a file: its class, its fields beside its ends, and their ranges."""

    make: type[Node]
    fields: dict[str, Any]
    layer: Layer | None = None  # what an Other runs

    def is_of(self, node: Node) -> bool:
        """Is this the kind of a node?"""
        return type(node) is self.make and getattr(node, "layer", None) == self.layer


KINDS = {
    "conv": Kind(
        form.Conv, WINDOW | {"filters": Filters, "bias": bool, "groups": Annotated[int, Range(1, 1 << 20)]}
    ),
    "norm": Kind(
        form.Norm, {"eps": Annotated[float, Range(0, 1000)], "momentum": Annotated[float, Range(0, 1)]}
    ),
    "activate": Kind(form.Activate, {"function": Activation}),
    "pool": Kind(form.Pool, WINDOW | {"ceil": bool, "average": bool, "counts_padding": bool}),
    "mean": Kind(form.Mean, {}),
    "add": Kind(form.Add, {"second": Map}),
    "drop": Kind(form.Drop, {"rate": Annotated[float, Range(0, 1, below=True)]}),
    "copy": Kind(form.Copy, {}),
    "flatten": Kind(form.Other, {}, Flatten()),
    "softmax": Kind(form.Other, {}, Softmax()),
}  # fmt: skip


def spec_of(graph: Graph) -> dict[str, Any]:
    """The graph as JSON-able values. Raises UserError for one that `graph_from` would refuse."""
    spec = {
        "name": GRAPH,
        "title": graph.name,
        "shapes": [list(shape) for shape in graph.shapes],
        "output": graph.output,
        "nodes": [_told(graph, node) for node in graph.nodes],
    }
    graph_from(spec)
    return spec


def _told(graph: Graph, node: Node) -> dict[str, Any]:
    """A node as JSON-able values, but for its defaults."""
    kind = next((name for name, kind in KINDS.items() if kind.is_of(node)), None)
    if kind is None or getattr(node, "activation", None):
        raise UserError(f"{graph.name}: {node.path} ({node.what}) has no place in a file")
    told = asdict(node)
    told.pop("layer", None)
    told.pop("activation", None)
    if "window" in told:
        told |= {side: list(n) if side != "ceil" else n for side, n in told.pop("window").items()}
    if "kind" in told:  # of an activation
        told["function"] = told.pop("kind")
    return {"kind": kind} | {k: v for k, v in told.items() if v != _defaults(type(node)).get(k)}


def _defaults(make: type[Node]) -> dict[str, Any]:
    """What a node's fields are where a file says nothing."""
    found = {f.name: f.default for owner in (make, Window) for f in fields(owner)}
    return {name: list(d) if isinstance(d, tuple) else d for name, d in found.items()}


def graph_from(spec: Mapping[str, Any]) -> Graph:
    """The reverse of `spec_of`. Raises UserError, which names the node, for anything else."""
    whole = {name: value for name, value in spec.items() if name not in ("name", "nodes")}
    nodes, missing = spec.get("nodes"), sorted(set(WHOLE) - set(whole))
    if missing or not isinstance(nodes, list | tuple) or len(nodes) > MOST_NODES:
        lacks = missing[0] if missing else f"a list of up to {MOST_NODES:,} nodes"
        raise UserError(f"a graph's spec lacks {lacks}")
    found = checked("graph", WHOLE, whole)
    shapes: tuple[Shape, ...] = found["shapes"]
    if sum(map(_numbers, shapes)) > LARGEST_MAPS:
        raise UserError(f"{found['title']}: maps of more than {LARGEST_MAPS:,} numbers in all")
    read = [_node(i, node) for i, node in enumerate(nodes)]
    highest = max([found["output"], *(n for node in read for n in (*node.sources, node.target))])
    if highest >= len(shapes):
        raise UserError(f"{found['title']}: map {highest}, and there are {len(shapes)}")
    _check_paths(read)
    for node in read:
        _check_ends(node, shapes)
    try:
        return Graph(found["title"], shapes, tuple(read), found["output"])
    except ShapeError as error:
        raise UserError(f"a graph whose maps don't fit: {error}") from error


def _numbers(shape: Shape) -> int:
    """How many numbers are in a map. Raises UserError where it is too large, or no map at all."""
    if len(shape) not in (1, 3):
        raise UserError(f"a map is (height, width, channels) or (channels,), not {shape}")
    if prod(shape) > LARGEST_MAP:
        raise UserError(f"a map of {prod(shape):,} numbers: at most {LARGEST_MAP:,} are held")
    return prod(shape)


def _node(i: int, told: Any) -> Node:
    """A node from a file."""
    name = told.get("kind") if isinstance(told, Mapping) else None
    if not isinstance(name, str) or name not in KINDS:
        raise UserError(f"node {i} is of no kind that there is: {', '.join(KINDS)}")
    owner, kind = f"node {i} ({name})", KINDS[name]
    own = {field: value for field, value in told.items() if field != "kind"}
    found = checked(owner, ENDS | kind.fields, own)
    sides = {n: found.pop(n) for n in ("kernel", "stride", "pad", "ceil") if n in found}
    if "function" in found:
        found["kind"] = found.pop("function")
    if kind.layer is not None:
        found["layer"] = kind.layer
    try:
        if kind.make in (Conv, Pool):
            found["window"] = Window(**sides)
        return kind.make(**found)
    except TypeError as error:  # a field without a default
        lacks = re.findall(r"'(\w+)'", str(error))
        raise UserError(f"{owner} lacks {', '.join(lacks)}") from None


def _check_paths(nodes: list[Node]) -> None:
    """Every node with arrays has a path of its own, and none lies below another's."""
    taken: set[str] = set()
    owners = [node.path for node in nodes if isinstance(node, Conv | Norm)]
    for path in sorted(owners):  # "a" comes before "a/b"
        parts = path.split("/")
        if any("/".join(parts[: n + 1]) in taken for n in range(len(parts))):
            raise UserError(f"the arrays of {path} would lie among those of another node")
        taken.add(path)


def _check_ends(node: Node, shapes: tuple[Shape, ...]) -> None:
    """A map is (C,) behind a mean or a Flatten and whatever works on such a map, else (H, W, C)."""
    source, target = shapes[node.source], shapes[node.target]
    flat = len(source) == 1
    becomes_flat = flat or isinstance(node, Mean) or (
        isinstance(node, Other) and isinstance(node.layer, Flatten)
    )  # fmt: skip
    if becomes_flat != (len(target) == 1):
        raise UserError(f"{node.path} ({node.what}) makes no map of {target} out of {source}")
    windowed = isinstance(node, Pool | Mean) or (
        isinstance(node, Conv) and not (node.window.is_pointwise and node.groups == 1)
    )
    if flat and windowed:
        raise UserError(f"{node.path} ({node.what}) needs a map of pixels, and reads {source}")
    if isinstance(node, Pool):
        sides = zip(node.window.pad, node.window.kernel, strict=True)
        if any(pad >= kernel for pad, kernel in sides):
            raise UserError(f"{node.path} ({node.what}) has windows of nothing but padding")
