"""ONNX, out and back: any of our networks as a graph that other runtimes execute."""

from pathlib import Path
from typing import Any

import numpy as np

from tinysqueeze.errors import FormatError, UserError, missing_extra
from tinysqueeze.files import write_atomically
from tinysqueeze.network.compose import Block, Chain, Concat, Residual, join, sub
from tinysqueeze.network.layers import (
    AvgPool2D,
    BatchNorm,
    Conv2D,
    Dropout,
    Flatten,
    GlobalAvgPool2D,
    HardSwish,
    Layer,
    Linear,
    MaxPool2D,
    Params,
    ReLU,
    Softmax,
)
from tinysqueeze.network.window import Window
from tinysqueeze.weights.formats.names import to_ours, to_theirs
from tinysqueeze.weights.trained import WeightSet, from_metadata, to_metadata

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
    graph = _Graph(onnx)
    last = graph.lower(weights.model, "", weights.params, "images")
    graph.nodes[-1].output[0] = "logits" if graph.nodes[-1].output[0] == last else last
    value = onnx.helper.make_tensor_value_info
    number = onnx.TensorProto.FLOAT
    proto = onnx.helper.make_model(
        onnx.helper.make_graph(
            graph.nodes,
            weights.model.name,
            [value("images", number, ["batch", channels, height, width])],
            [value("logits", number, ["batch", weights.model.classes])],
            graph.arrays,
        ),
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="tinysqueeze",
    )
    onnx.helper.set_model_props(proto, to_metadata(weights))
    onnx.checker.check_model(proto, full_check=True)
    return proto


def read_onnx(data: bytes) -> WeightSet:
    """A file of `write_onnx`'s, back to the bit. Raises FormatError for any other."""
    onnx = _onnx("reading ONNX")
    try:
        proto = onnx.load_model_from_string(data)
        arrays = {a.name: onnx.numpy_helper.to_array(a) for a in proto.graph.initializer}
    except Exception as error:  # the library raises whatever its parser does
        raise FormatError(f"truncated, corrupt, or not ONNX ({type(error).__name__})") from error
    metadata = {entry.key: entry.value for entry in proto.metadata_props}
    if "sha256" not in metadata:
        raise FormatError("not an ONNX file that tinysqueeze wrote; we read no other")
    return from_metadata({path: to_ours(array) for path, array in arrays.items()}, metadata)


class _Graph:
    """A graph under construction. Values are named after the layer that makes them."""

    def __init__(self, onnx: Any):
        self.onnx = onnx
        self.nodes: list[Any] = []
        self.arrays: list[Any] = []

    def lower(self, layer: Layer, path: str, params: Params, x: str) -> str:
        """Add the nodes of a layer to the graph; returns the name of its output."""
        match layer:
            case Chain():
                for name, step in layer.steps:
                    x = self.lower(step, join(path, name), sub(params, name), x)
                return x
            case Concat():
                arms = [
                    self.lower(arm, join(path, name), sub(params, name), x)
                    for name, arm in layer.arms
                ]
                return self.node("Concat", join(path, "concat"), *arms, axis=1)
            case Residual():
                return self._residual(layer, path, params, x)
            case Block():
                return self.lower(layer.body, path, params, x)
        return self._leaf(layer, path, params, x)

    def _residual(self, layer: Residual, path: str, params: Params, x: str) -> str:
        around = x
        if layer.shortcut is not None:
            around = self.lower(layer.shortcut, join(path, "bypass"), params["bypass"], x)
        through = self.lower(layer.body, path, params, x)
        return self.node("Add", join(path, "sum"), through, around)

    def _leaf(self, layer: Layer, path: str, params: Params, x: str) -> str:
        given = {name: self.array(join(path, name), array) for name, array in params.items()}
        match layer:
            case Conv2D():
                window = {"group": layer.groups, **_window(layer.window)}
                return self.node("Conv", path, x, *given.values(), **window)
            case ReLU():
                return self.node("Relu", path, x)
            case HardSwish():
                return self.node("HardSwish", path, x)
            case MaxPool2D():
                ceil = int(layer.ceil)
                return self.node("MaxPool", path, x, ceil_mode=ceil, **_window(layer.window))
            case AvgPool2D(ceil=False):
                window = {"count_include_pad": 1, **_window(layer.window)}
                return self.node("AveragePool", path, x, **window)
            case GlobalAvgPool2D():
                return self.node("Flatten", path, self.node("GlobalAveragePool", f"{path}/mean", x))
            case BatchNorm():
                order = [given[name] for name in ("weight", "bias", "mean", "var")]
                return self.node("BatchNormalization", path, x, *order, epsilon=layer.eps)
            case Linear():
                return self.node("Gemm", path, x, *given.values())
            case Flatten():  # our features run over height, width, channels
                last = self.node("Transpose", f"{path}/channels_last", x, perm=[0, 2, 3, 1])
                return self.node("Flatten", path, last)
            case Softmax():
                return self.node("Softmax", path, x, axis=1)
            case Dropout():
                return x
        raise UserError(f"{path}: {layer} has no counterpart in ONNX here")

    def node(self, kind: str, name: str, *inputs: str, **attributes: Any) -> str:
        """Add one node; returns the name of its output, which is its own."""
        self.nodes.append(self.onnx.helper.make_node(kind, inputs, [name], name, **attributes))
        return name

    def array(self, name: str, array: np.ndarray) -> str:
        """Add one array of parameters; returns its name."""
        self.arrays.append(self.onnx.numpy_helper.from_array(to_theirs(array), name))
        return name


def _window(window: Window) -> dict[str, Any]:
    """kernel, stride and padding as ONNX's attributes; pads are top, left, bottom, right."""
    return {
        "kernel_shape": window.kernel,
        "strides": window.stride,
        "pads": (*window.pad, *window.pad),
    }
