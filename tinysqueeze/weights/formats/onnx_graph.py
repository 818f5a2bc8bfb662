"""Anyone's ONNX file as a graph and its parameters: the maps, the arrays, and the order of nodes.

What each operator becomes is in `onnx_operators`. Nothing of the file is run, and no other file is
opened: arrays come from initialisers and constants alone, and are no larger than the file, but for
constants that repeat one number (ConstantOfShape), which are bounded here.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

import numpy as np

from tinysqueeze.errors import FormatError, ShapeError
from tinysqueeze.graph.form import Conv, Graph, Node, Other
from tinysqueeze.graph.passes import without_copies
from tinysqueeze.graph.spec import LARGEST_MAP, MOST_NODES
from tinysqueeze.graph.whole import arrays_of
from tinysqueeze.network.layers import Flatten, Shape, Softmax
from tinysqueeze.weights.preprocess import LARGEST_SIDE

SIZE = 224  # pixels a side, where the file leaves it open
LARGEST_FILLED = 1 << 26  # numbers in all constants that repeat one number
Sides = tuple[int, int]  # height, width
NUMBERS = ("float16", "float32", "float64")


@dataclass
class Op:
    """One node of the file. Attributes are taken out as they are understood; what is left is refused."""

    kind: str
    name: str
    inputs: list[str]
    outputs: list[str]
    attributes: dict[str, Any]

    def take(self, name: str, default: Any) -> Any:
        """An attribute, or its default."""
        return self.attributes.pop(name, default)

    def expect(self, name: str, default: Any, *values: Any) -> None:
        """Refuse an attribute that has another value than these (or the default)."""
        found = self.take(name, default)
        if found not in (default, *values):
            raise self.refused(f"{name} = {found!r}, and only {default!r} is understood")

    def refused(self, what: str, remedy: str = "") -> FormatError:
        """An error that names the node."""
        return FormatError(
            f"ONNX node {self.name!r} ({self.kind}): {what}" + (remedy and f"; {remedy}")
        )


@dataclass
class Reader:
    """The graph so far. `maps` and `constants` hold what the file's names stand for."""

    opset: int
    uses: Counter[str]  # how often each name is read
    shapes: list[Shape] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)
    flat: dict[str, np.ndarray] = field(default_factory=dict)
    maps: dict[str, int] = field(default_factory=dict)
    constants: dict[str, np.ndarray] = field(default_factory=dict)
    last: set[str] = field(default_factory=set)  # names of maps with channels last in the file
    flattened: dict[int, Shape] = field(default_factory=dict)  # maps that run over channels first
    padded: dict[str, tuple[int, Sides]] = field(default_factory=dict)  # a map and zeros around it
    gates: dict[str, str] = field(default_factory=dict)  # what a HardSigmoid gave -> what it read
    kinds: Counter[str] = field(default_factory=Counter)
    filled: int = 0

    # --- what a node reads ----------------------------------------------------------------------

    def source(self, op: Op, index: int = 0, plain: bool = True) -> int:
        """The map that is an input. With `plain` channels are where this node expects them."""
        name = op.inputs[index] if index < len(op.inputs) else ""
        if name in self.padded:
            raise op.refused("only convolutions and averages are understood on a padded map")
        if name in self.gates:
            raise op.refused("a HardSigmoid is only understood in a hard-swish", "use HardSwish")
        if name not in self.maps:
            raise op.refused(
                f"its input {name!r} is no map that this network computes of its image",
                "export the network alone, in evaluation mode, its input the images",
            )
        number = self.maps[name]
        if plain and (name in self.last or number in self.flattened):
            raise op.refused("it works on a map that was transposed or flattened before")
        return number

    def constant(self, op: Op, index: int) -> np.ndarray:
        """The array that is an input."""
        name = op.inputs[index] if index < len(op.inputs) else ""
        if name not in self.constants:
            raise op.refused(
                f"its input {name!r} is no constant",
                "weights must be inside the file, as initialisers or constants",
            )
        return self.constants[name]

    def numbers(self, op: Op, index: int) -> np.ndarray:
        """The same, of floating-point numbers."""
        array = self.constant(op, index)
        if str(array.dtype) not in NUMBERS:
            raise op.refused(f"weights of type {array.dtype}", "export it in float32")
        return array

    def has(self, op: Op, index: int) -> bool:
        """Is there such an input? (Optional ones may be left out, or be called "".)"""
        return index < len(op.inputs) and bool(op.inputs[index])

    def size(self, number: int) -> tuple[int, int, int]:
        """(H, W, C) of a map; a (C,) map is one pixel."""
        shape = self.shapes[number]
        return (1, 1, shape[0]) if len(shape) == 1 else (shape[0], shape[1], shape[2])

    def with_padding(self, op: Op) -> tuple[int, Sides]:
        """The map that is the first input, and how many zeros a Pad put around it: rows, columns."""
        if op.inputs and op.inputs[0] in self.padded:
            return self.padded[op.inputs[0]]
        return self.source(op), (0, 0)

    # --- what it makes --------------------------------------------------------------------------

    def new(self, op: Op, shape: Shape) -> int:
        """The number of a new map."""
        if prod(shape) > LARGEST_MAP:
            raise op.refused(f"a map of {prod(shape):,} numbers", "give the network smaller images")
        self.shapes.append(shape)
        return len(self.shapes) - 1

    def path(self, op: Op) -> str:
        """A path of our own for a node: "conv3"."""
        kind = op.kind.lower()
        self.kinds[kind] += 1
        return f"{kind}{self.kinds[kind]}"

    def add(
        self, op: Op, source: int, shape: Shape, make: Callable[..., Node], *how: Any, **arrays: Any
    ) -> int:
        """Append the node `make(path, source, target, *how)`; returns the map that it writes."""
        path, target = self.path(op), self.new(op, shape)
        self.nodes.append(make(path, source, target, *how))
        self.flat |= {f"{path}/{name}": array for name, array in arrays.items()}
        self.maps[op.outputs[0]] = target
        return target

    def rename(self, op: Op, index: int = 0) -> int:
        """The output is the input."""
        name = op.inputs[index] if index < len(op.inputs) else ""
        if name in self.constants:
            self.constants[op.outputs[0]] = self.constants[name]
            return 0
        self.maps[op.outputs[0]] = number = self.source(op, index, plain=False)
        if name in self.last:
            self.last.add(op.outputs[0])
        return number

    def writer(self, op: Op, index: int) -> Conv | None:
        """The plain convolution whose result only this node reads, through one of its inputs."""
        if self.uses[op.inputs[index]] > 1:
            return None
        number = self.maps.get(op.inputs[index])
        found = [node for node in self.nodes if node.target == number]
        return found[0] if len(found) == 1 and isinstance(found[0], Conv) else None


Operators = Mapping[tuple[str, str], Callable[[Reader, Op], None]]


def read_graph(
    onnx: Any, proto: Any, operators: Operators
) -> tuple[Graph, dict[str, np.ndarray], list[str]]:
    """The graph of a file's inference, its parameters by path, and what the user should know.

    A softmax at the end is left out: our networks give logits. Raises FormatError that names the node.
    """
    notes: list[str] = []
    inputs = [
        i for i in proto.graph.input if i.name not in {a.name for a in proto.graph.initializer}
    ]
    if len(inputs) != 1 or len(proto.graph.output) != 1:
        raise FormatError(
            f"{len(inputs)} inputs and {len(proto.graph.output)} outputs; a network that classifies "
            "has one of each: export it alone"
        )
    if proto.graph.sparse_initializer:
        raise FormatError("sparse arrays are not read: export the weights as plain initialisers")
    opset = max([o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")], default=1)
    result = proto.graph.output[0].name
    uses = Counter(name for node in proto.graph.node for name in node.input)
    uses[result] += 1
    reader = Reader(opset, uses)
    for array in proto.graph.initializer:
        reader.constants[array.name] = to_array(onnx, array)
    _image(reader, proto, inputs[0], notes)
    for i, node in enumerate(proto.graph.node):
        _read(onnx, reader, node, i, operators)
    if result not in reader.maps:
        raise FormatError(f"its output {result!r} is nothing that it computes of its image")
    graph = _ended(reader, proto, result, notes)
    kept = [f"{n.path}/{name}" for n in graph.nodes for name in arrays_of(graph, n)]
    return graph, {path: reader.flat[path] for path in kept}, notes


def to_array(onnx: Any, tensor: Any) -> np.ndarray:
    """An array that lies in the file. Raises FormatError where it lies elsewhere or is damaged."""
    if tensor.data_location or tensor.external_data:
        raise FormatError(
            f"the array {tensor.name!r} lies in another file, which we never read: save it in one"
        )
    try:
        array: np.ndarray = onnx.numpy_helper.to_array(tensor)
    except Exception as error:  # the library raises whatever comes up
        raise FormatError(
            f"the array {tensor.name!r} is damaged ({type(error).__name__})"
        ) from error
    return array


def _image(reader: Reader, proto: Any, image: Any, notes: list[str]) -> None:
    """Map 0, from what the file says about its input."""
    if image.type.tensor_type.elem_type != 1:
        raise FormatError(f"its input {image.name!r} is not float32: export it in float32")
    dims = [d.dim_value for d in image.type.tensor_type.shape.dim]
    if len(dims) != 4:
        raise FormatError(
            f"its input {image.name!r} is {dims}, not (batch, channels, height, width)"
        )
    first = next((node for node in proto.graph.node if image.name in node.input), None)
    perm = [list(a.ints) for a in first.attribute if a.name == "perm"] if first else []
    if perm == [[0, 3, 1, 2]]:
        (height, width, channels) = dims[1:]
        reader.last.add(image.name)
    else:
        channels, height, width = dims[1:]
    if channels < 1:
        raise FormatError(f"its input {image.name!r} leaves the channels open: export it with them")
    if not (height and width):
        notes.append(f"the file leaves the image's size open: {SIZE}×{SIZE} assumed")
    height, width = height or SIZE, width or SIZE
    if not 1 <= min(height, width) <= max(height, width) <= LARGEST_SIDE:
        raise FormatError(
            f"images of {height}×{width} pixels: 1 to {LARGEST_SIDE} a side are taken"
        )
    shape = (height, width, channels)
    if prod(shape) > LARGEST_MAP:
        raise FormatError(f"images of {prod(shape):,} numbers are too large")
    reader.shapes.append(shape)
    reader.maps[image.name] = 0


def _read(onnx: Any, reader: Reader, node: Any, i: int, operators: Operators) -> None:
    """One node of the file."""
    name = node.name or f"number {i}"
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    domain = "" if node.domain == "ai.onnx" else node.domain
    kind = f"{domain}.{node.op_type}" if domain else node.op_type
    op = Op(node.op_type, name, list(node.input), list(node.output), attributes)
    if domain == "com.microsoft.nchwc":
        raise FormatError(
            f"ONNX node {name!r} ({kind}): the NCHWc layout belongs to the machine that optimised the "
            "file; save it with ORT_ENABLE_EXTENDED or less"
        )
    read = operators.get((domain, node.op_type))
    if read is None or not op.outputs:
        raise FormatError(
            f"ONNX node {name!r} ({kind}): no such operator is understood here; those are: "
            + ", ".join(sorted(operator for _, operator in operators))
        )
    for key, value in attributes.items():
        if isinstance(value, onnx.TensorProto):
            attributes[key] = to_array(onnx, value)
    try:
        read(reader, op)
    except ShapeError as error:
        raise op.refused(str(error)) from error
    except (
        TypeError,
        ValueError,
        IndexError,
        AttributeError,
    ) as error:  # an attribute of another type
        raise op.refused(f"it is malformed ({type(error).__name__}: {error})") from error
    if len(reader.nodes) > MOST_NODES:
        raise FormatError(f"a network of more than {MOST_NODES:,} nodes")
    if op.attributes:
        key, value = next(iter(op.attributes.items()))
        raise op.refused(f"its attribute {key} = {value!r} is not understood", "export it without")


def _ended(reader: Reader, proto: Any, result: str, notes: list[str]) -> Graph:
    """The graph up to its logits."""
    output = reader.maps[result]
    writers = [node for node in reader.nodes if node.target == output]
    if writers and isinstance(writers[0], Other) and isinstance(writers[0].layer, Softmax):
        notes.append("its softmax is left out: logits come out, and predictions show probabilities")
        output = writers[0].source
    shape = reader.shapes[output]
    if len(shape) == 3 and shape[:2] == (1, 1):
        reader.shapes.append((shape[2],))
        target = len(reader.shapes) - 1
        reader.nodes.append(Other("flatten_logits", output, target, Flatten()))
        output = target
    elif len(shape) != 1 or prod(reader.flattened.get(output, (1, 1))[:2]) != 1:
        raise FormatError(f"it gives a map of {shape}, not one number a class")
    graph = Graph.of(_name(str(proto.graph.name)), reader.shapes, reader.nodes, output)
    return without_copies(graph)


def _name(text: str) -> str:
    """A graph's name as one that C and files take."""
    kept = "".join(c if c.isalnum() and c.isascii() else "_" for c in text)[:50].strip("_")
    return f"net_{kept}" if kept[:1].isdigit() else kept or "network"


def with_biases(
    graph: Graph, flat: Mapping[str, np.ndarray]
) -> tuple[Graph, dict[str, np.ndarray]]:
    """The same with zeros for the biases that convolutions don't have: a SqueezeNet's all have one."""
    added = {
        f"{node.path}/bias": np.zeros(node.filters, flat[f"{node.path}/weight"].dtype)
        for node in graph.nodes if isinstance(node, Conv) and not node.bias
    }  # fmt: skip
    nodes = (replace(node, bias=True) if isinstance(node, Conv) else node for node in graph.nodes)
    return replace(graph, nodes=tuple(nodes)), {**flat, **added}
