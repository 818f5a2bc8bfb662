"""A training step as bytes for a browser: a JSON header, float32 arrays, packed by gzip.

The browser computes every x, y, dx, dy and gradient itself, from the parameters and the images (a
test holds its numbers to ours); so a page is small, and can take one more step. Only what it
can't compute is stored: the result of a layer that only Python knows, a dropout mask, and all of a
step that ran with other operations than ours.
"""

import gzip
import json
import math
import struct
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

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
)
from tinysqueeze.graph.lowering import lower
from tinysqueeze.network.layers import (
    AvgPool2D,
    BatchNorm,
    Conv2D,
    Dropout,
    Flatten,
    GlobalAvgPool2D,
    HardSwish,
    Linear,
    MaxPool2D,
    ReLU,
    Softmax,
)
from tinysqueeze.network.models import Model
from tinysqueeze.network.ops import fast, reference
from tinysqueeze.network.others import GroupedConv2D
from tinysqueeze.network.params import flatten
from tinysqueeze.study.count import count
from tinysqueeze.study.formulas import by
from tinysqueeze.study.stepper import Steps
from tinysqueeze.study.trace import Record

FORMAT = 1  # what state.js reads
KNOWN = (
    Conv2D, GroupedConv2D, Linear, BatchNorm, ReLU, HardSwish, MaxPool2D, AvgPool2D, GlobalAvgPool2D,
    Dropout, Flatten, Softmax,
)  # fmt: skip
"""The layers that arithmetic.js computes."""


@dataclass(frozen=True)
class Look:
    """What a page tells beside the numbers.

    `classes` names the logits; a pixel of an image is value * std + mean, from 0 to 1, in the order
    `channels` (without `mean` the range of the image is stretched); `about` is a sentence on the
    network; `rate` the learning rate of the update.
    """

    classes: tuple[str, ...] = ()
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    channels: str = "RGB"
    about: str = ""
    rate: float = 0.05


PLAIN_LOOK = Look()


def pack(steps: Steps, look: Look = PLAIN_LOOK) -> bytes:
    """The step as gzip: uint32 length of the header, header, arrays (all little-endian).

    Numbers are stored as float32, whatever the step computed in.
    """
    model = _as_model(steps)
    graph = lower(model)
    trained = flatten(steps.params)
    arrays = {"images": steps.images, **{f"params/{path}": a for path, a in trained.items()}}
    foreign = steps.mode.ops not in (fast, reference)
    nodes = []
    for node in graph.nodes:
        if not isinstance(node, Add | Copy):  # the rest of the nodes are layers
            record = steps.trace[node.path]
            if type(record.layer) not in KNOWN:  # a subclass may do anything
                ends = (node.path, node.source, node.target)
                node = Other(*ends, offset=node.offset, layer=record.layer)
            arrays |= _stored(node, record, foreign)
        nodes.append(_node(graph, node))
    header = {
        "format": FORMAT,
        "name": steps.name,
        "shapes": graph.shapes,
        "output": graph.output,
        "nodes": nodes,
        "labels": [int(label) for label in steps.labels],
        "training": steps.mode.training,
        "loss": steps.trace.loss,
        "counts": _counts(model),
        **asdict(look),
        "arrays": [[name, list(array.shape)] for name, array in arrays.items()],
    }
    text = json.dumps(header, ensure_ascii=True, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)  # so that the floats are aligned
    floats = b"".join(np.ascontiguousarray(a, "<f4").tobytes() for a in arrays.values())
    return gzip.compress(struct.pack("<I", len(text)) + text + floats, 9, mtime=0)


def _as_model(steps: Steps) -> Model:
    """The network, any layer, as a model of images of this size."""
    shape = steps.images.shape[1:]
    if isinstance(steps.model, Model) and steps.model.input_shape == shape:
        return steps.model
    return Model(steps.name, (("", steps.model),), shape, {})


def _counts(model: Model) -> dict[str, dict[str, int]]:
    """What each layer costs on one image, by path."""
    columns = ("parameters", "multiply_adds", "activation_bytes", "im2col_bytes")
    return {row.path: {c: getattr(row, c) for c in columns} for row in count(model).rows}


def _stored(node: Node, record: Record, foreign: bool) -> dict[str, np.ndarray]:
    """The arrays of a layer that the browser does not compute."""
    assert record.dy is not None
    assert record.dx is not None
    if isinstance(node, Drop):
        mask = record.cache["mask"]
        return {} if mask is None else {f"mask/{node.path}": mask}
    if type(record.layer) in KNOWN and not foreign:
        return {}
    grads = {f"grad/{node.path}/{name}": a for name, a in flatten(record.grads).items()}
    return {f"y/{node.path}": record.y, f"dx/{node.path}": record.dx, **grads}


def _node(graph: Graph, node: Node) -> dict[str, Any]:
    """A node as JSON: what it is, its maps, its settings."""
    common = {
        "path": node.path, "what": _what(graph, node), "sources": node.sources, "target": node.target,
        "offset": node.offset, "out": graph.result(node),
    }  # fmt: skip
    match node:
        case Copy():
            return common | {"kind": "copy"}
        case Conv():
            flat = len(graph.shapes[node.source]) == 1
            how = {"kind": "linear" if flat else "conv", "groups": node.groups, "bias": node.bias}
            return common | how | _window(node)
        case Pool():
            return common | {"kind": "average" if node.average else "max"} | _window(node)
        case Norm():
            return common | {"kind": "norm", "eps": node.eps}
        case Activate():
            return common | {"kind": node.kind}
        case Mean():
            return common | {"kind": "mean"}
        case Add():
            return common | {"kind": "sum"}
        case Drop():
            return common | {"kind": "dropout", "rate": node.rate}
        case Other() if type(node.layer) in (Flatten, Softmax):
            return common | {"kind": type(node.layer).__name__.lower()}
    return common | {"kind": "other"}


def _what(graph: Graph, node: Node) -> str:
    """What a node does, in the words of the layer that it was before it was lowered."""
    shape = graph.shapes[node.source]
    match node:
        case Conv() if len(shape) == 1:
            return f"fully connected layer, {_count(node.filters, 'output')}"
        case Other() if type(node.layer) is Flatten:
            return f"flatten: {by(*shape)} map to {_count(math.prod(shape), 'number')}"
        case Other() if type(node.layer) is Softmax:
            return f"softmax of {_count(shape[-1], 'number')}"
    return node.what


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'s' * (number != 1)}"


def _window(node: Conv | Pool) -> dict[str, Any]:
    window = node.window
    return {"kernel": window.kernel, "stride": window.stride, "pad": window.pad}
