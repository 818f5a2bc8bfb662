"""ONNX, out and back: any of our networks as a graph that other runtimes execute."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tinysqueeze.errors import FormatError, UserError, missing_extra
from tinysqueeze.files import write_atomically
from tinysqueeze.graph.form import Activate, Add, Conv, Copy, Graph, Mean, Node, Norm, Other, Pool
from tinysqueeze.graph.lowering import lower
from tinysqueeze.graph.passes import with_copies, without_dropout
from tinysqueeze.graph.whole import model_of
from tinysqueeze.network.layers import Flatten, Softmax
from tinysqueeze.network.models import Model
from tinysqueeze.network.window import Window
from tinysqueeze.weights.formats.names import to_ours, to_theirs
from tinysqueeze.weights.formats.onnx_graph import read_graph, to_array, with_biases
from tinysqueeze.weights.formats.onnx_operators import OPERATORS
from tinysqueeze.weights.preprocess import TORCHVISION, Preprocess
from tinysqueeze.weights.recognised import squeezenet_of
from tinysqueeze.weights.trained import (
    UNCHECKED,
    WeightSet,
    describe,
    fitting,
    from_metadata,
    rounding_notes,
    to_metadata,
)

OPSET = 17  # with IR version 8 (ONNX 1.12, 2022): runtimes refuse files newer than themselves
IR_VERSION = 8


def _onnx(purpose: str) -> Any:
    try:
        import onnx
    except ImportError as error:
        raise missing_extra("onnx", purpose) from error
    return onnx


def write_onnx(weights: WeightSet, path: str | Path) -> None:
    """Write the network as ONNX: input "images" (batch, 3, H, W), output "logits" (batch, classes).

    ONNX puts channels first, so the arrays lie (out, in, height, width) there. The images must be
    prepared as `weights.preprocess` says; it, the network's spec and the class names go along as
    metadata. Dropout, which does nothing outside training, is left out. Raises UserError where the
    library is missing or a layer has no counterpart.
    """
    write_atomically(path, to_onnx(weights).SerializeToString())


def to_onnx(weights: WeightSet) -> Any:
    """The same as an onnx.ModelProto."""
    onnx = _onnx("exporting to ONNX")
    height, width, channels = weights.model.input_shape
    written = _Writer(onnx, with_copies(without_dropout(lower(weights.model)), ()), weights.flat)
    for node in written.graph.nodes:
        written.node(node)
    value = onnx.helper.make_tensor_value_info
    number = onnx.TensorProto.FLOAT
    proto = onnx.helper.make_model(
        onnx.helper.make_graph(
            written.nodes,
            weights.model.name,
            [value("images", number, ["batch", channels, height, width])],
            [value("logits", number, ["batch", weights.model.classes])],
            written.arrays,
        ),
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="tinysqueeze",
    )
    if weights.model.spec:  # one put together from layers is read back as anyone's
        onnx.helper.set_model_props(proto, to_metadata(weights))
    onnx.checker.check_model(proto, full_check=True)
    return proto


def read_onnx(data: bytes) -> WeightSet:
    """A file of `write_onnx`'s, back to the bit; or anyone's, as `read_foreign` does. Raises FormatError."""
    onnx = _onnx("reading ONNX")
    try:
        proto = onnx.load_model_from_string(data)
        metadata = {entry.key: entry.value for entry in proto.metadata_props}
        stored = {array.name: array for array in proto.graph.initializer}
    except Exception as error:  # the library raises whatever its parser does
        raise FormatError(f"truncated, corrupt, or not ONNX ({type(error).__name__})") from error
    if any(isinstance(text, bytes) for text in (*stored, *metadata, *metadata.values())):
        raise FormatError("a name or a text in it is not UTF-8: the file is damaged")
    if "sha256" not in metadata:
        if "spec" in metadata:
            raise FormatError("a file of ours without its SHA-256: it is damaged")
        return read_foreign(onnx, proto)
    if any(array.data_type != onnx.TensorProto.FLOAT for array in stored.values()):
        raise FormatError("an array of other numbers than float32: the file is damaged")
    arrays = {path: to_ours(to_array(onnx, array)) for path, array in stored.items()}
    return from_metadata(arrays, metadata)


def read_foreign(onnx: Any, proto: Any) -> WeightSet:
    """What anyone's ONNX file holds: a SqueezeNet where it is one, else a graph that runs the same.

    How images are prepared does not stand in such a file: torchvision's way is assumed, and said. Raises
    FormatError that names what is not understood.
    """
    with np.errstate(all="ignore"):  # what comes of damaged numbers is refused by `fitting`
        graph, flat, notes = read_graph(onnx, proto, OPERATORS)
        notes += rounding_notes(flat)
        found = squeezenet_of(*with_biases(graph, flat))
    model, arrays = found or (_graph_model(graph), flat)
    if found is None:
        notes.append(
            "no SqueezeNet: read as a graph, which predicts, is evaluated, measured, compressed and "
            "exported to ONNX or C, but does not train"
        )
    height, width, channels = model.input_shape
    preprocess = Preprocess(
        round(max(height, width) * 256 / 224), (height, width),
        mean=TORCHVISION.mean, std=TORCHVISION.std,
    )  # fmt: skip
    if channels != 3:
        notes.append(f"it takes images of {channels} channels: photographs have three")
    maker = (
        " ".join(filter(None, (proto.producer_name, proto.producer_version))) or "an unknown tool"
    )
    source = f"an ONNX file of {maker}"
    params = fitting(model, arrays)
    return WeightSet(model, params, preprocess, describe(model, source), (*notes, UNCHECKED))


def _graph_model(graph: Graph) -> Model:
    """A graph as a model, within the bounds that our own files set. Raises FormatError."""
    try:
        return model_of(graph)
    except UserError as error:
        raise FormatError(str(error)) from error


class _Writer:
    """ONNX under construction. A map is called after the layer that makes it, arrays by their paths."""

    def __init__(self, onnx: Any, graph: Graph, flat: dict[str, np.ndarray]):
        self.onnx, self.graph, self.flat = onnx, graph, flat
        self.nodes: list[Any] = []
        self.arrays: list[Any] = []
        self.names = {0: "images"}  # by map

    def node(self, node: Node) -> None:
        """Write a node of the graph; of the copies into one map, the last one joins them all."""
        x, shape = self.names[node.source], self.graph.shapes[node.source]
        match node:
            case Conv() if len(shape) == 1:
                self.add("Gemm", node, x, *self.given(node))
            case Conv():
                window = {"group": node.groups, **_window(node.window)}
                self.add("Conv", node, x, *self.given(node), **window)
            case Norm():
                self.add("BatchNormalization", node, x, *self.given(node), epsilon=node.eps)
            case Activate():
                self.add({"relu": "Relu", "hard-swish": "HardSwish"}[node.kind], node, x)
            case Pool(average=False):
                self.add("MaxPool", node, x, **_window(node.window) | {"pads": self.reach(node)})
            case Pool():
                self.average(node, x)
            case Mean():
                mean = self.between("GlobalAveragePool", f"{node.path}/mean", x)
                self.add("Flatten", node, mean)
            case Add():
                self.add("Add", node, x, self.names[node.second])
            case Copy():
                parts = self.graph.writers(node.target)
                if node is parts[-1]:
                    parts = tuple(sorted(parts, key=lambda part: part.offset))
                    joined = replace(
                        node, path=f"{node.path.rpartition('/')[0]}/concat".lstrip("/")
                    )
                    self.add("Concat", joined, *(self.names[part.source] for part in parts), axis=1)
            case Other(layer=Flatten()):  # our features run over height, width, channels
                if len(shape) == 3:
                    x = self.between(
                        "Transpose", f"{node.path}/channels_last", x, perm=[0, 2, 3, 1]
                    )
                self.add("Flatten", node, x)
            case Other(layer=Softmax()):
                self.add("Softmax", node, x, axis=1)
            case _:
                raise UserError(f"{node.path}: {node.what} has no counterpart in ONNX here")

    def reach(self, pool: Pool) -> tuple[int, ...]:
        """How far a pool's windows reach beyond the image: top, left, bottom, right.

        Written out instead of `ceil_mode`, of which ONNX's checker and its runtimes think differently
        where a last window would begin outside the image.
        """
        window, (height, width, _) = pool.window, self.graph.size(pool.source)
        out = window.out_size(height, width)
        sides = zip(out, window.stride, window.kernel, window.pad, (height, width), strict=True)
        ends = ((n - 1) * step + size - pad - side for n, step, size, pad, side in sides)
        return (*window.pad, *(max(end, 0) for end in ends))

    def average(self, pool: Pool, x: str) -> None:
        """Write an average: what its windows see beyond the image counts if it is padding.

        What hangs over the padding, by `ceil`, never does. ONNX has one rule for both, so where a window
        has both the padding becomes pixels of their own, by a Pad.
        """
        top, left, bottom, right = self.reach(pool)
        high, wide = pool.window.pad
        over = (max(bottom - high, 0), max(right - wide, 0))
        window = _window(pool.window)
        if not pool.counts_padding or (high, wide) == (0, 0):
            window |= {"pads": (top, left, bottom, right)}
        elif over == (0, 0):
            window |= {"count_include_pad": 1}
        else:
            pads = np.array([0, 0, high, wide, 0, 0, high, wide])
            value = self.onnx.numpy_helper.from_array(pads)
            sizes = self.between("Constant", f"{pool.path}/pads", value=value)
            x = self.between("Pad", f"{pool.path}/padded", x, sizes)
            window |= {"pads": (0, 0, *over)}
        self.add("AveragePool", pool, x, **window)

    def add(self, kind: str, node: Node, *inputs: str, **attributes: Any) -> None:
        """Add the ONNX node that makes a whole map, which is called after it; the last one "logits"."""
        path = node.path or f"node{len(self.nodes)}"
        taken = {other.name for other in self.nodes}
        name = path if path not in taken else f"{path}/{len(self.nodes)}"
        target = "logits" if node.target == self.graph.output else name
        self.names[node.target] = target
        self.nodes.append(self.onnx.helper.make_node(kind, inputs, [target], name, **attributes))

    def between(self, kind: str, name: str, *inputs: str, **attributes: Any) -> str:
        """Add an ONNX node that our graph has no map for; returns its output, which has its name."""
        self.nodes.append(self.onnx.helper.make_node(kind, inputs, [name], name, **attributes))
        return name

    def given(self, node: Node) -> list[str]:
        """Add the arrays of a layer; returns their names, in ONNX's order, which is ours."""
        names = [
            f"{node.path}/{name}"
            for name in ("weight", "bias", "mean", "var")
            if f"{node.path}/{name}" in self.flat
        ]
        self.arrays += [
            self.onnx.numpy_helper.from_array(to_theirs(self.flat[name]), name) for name in names
        ]
        return names


def _window(window: Window) -> dict[str, Any]:
    """kernel, stride and padding as ONNX's attributes; pads are top, left, bottom, right."""
    return {
        "kernel_shape": window.kernel,
        "strides": window.stride,
        "pads": (*window.pad, *window.pad),
    }
