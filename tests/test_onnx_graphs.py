"""Foreign ONNX networks drawn at random: in, compressed, opened, predicted, exported to ONNX and to C."""

import shutil
import warnings

import numpy as np
import pytest
import test_c_export as c_tests
from test_onnx_in import exported, logits, pictures, stripped
from test_onnx_in import run as run_elsewhere

from tinysqueeze.compiled import compile as compile_plan
from tinysqueeze.devices.c import export_float32
from tinysqueeze.errors import FormatError, ShapeError, UserError
from tinysqueeze.graph import Conv, Graph, GraphModel, Other, Pool, lower, model_of
from tinysqueeze.network.layers import Flatten
from tinysqueeze.network.window import Window
from tinysqueeze.weights import Preprocess, WeightSet, load_weights, open_weights
from tinysqueeze.weights.compression.compress import compress
from tinysqueeze.weights.formats.onnx_file import read_onnx, to_onnx

onnx = pytest.importorskip("onnx")
pytestmark = pytest.mark.oracle


# --- pools ---------------------------------------------------------------------------------------------


def pooled(rng) -> WeightSet | None:
    """One pool of any window on a small image, its pixels the logits; None where no window fits."""
    kernel = tuple(map(int, rng.integers(1, 6, 2)))
    stride = tuple(map(int, rng.integers(1, 5, 2)))
    pad = tuple(int(rng.integers(0, side)) for side in kernel)
    size = tuple(map(int, rng.integers(1, 14, 2)))
    window = Window(kernel, stride, pad, ceil=bool(rng.integers(2)))
    try:
        out = window.out_size(*size)
    except ShapeError:
        return None
    kind = {"average": bool(rng.integers(4)), "counts_padding": bool(rng.integers(2))}
    count = out[0] * out[1] * 2
    nodes = (Pool("pool", 0, 1, window, **kind), Other("flat", 1, 2, Flatten()))
    model = model_of(Graph("pools", ((*size, 2), (*out, 2), (count,)), nodes, 2))
    return WeightSet(model, {}, Preprocess(5, size), "a test")


@pytest.mark.parametrize("part", range(4))
def test_every_pool_is_written_exactly_and_read_back(part):
    """Also averages that hang over their padding: by a Pad, which counts, then pads, which don't."""
    rng = np.random.default_rng(part)
    padded = 0
    for _ in range(40):
        made = pooled(rng)
        if made is None:
            continue
        x = rng.standard_normal((2, *made.model.input_shape)).astype(np.float32)
        wanted, told = made.model.forward({}, x)[0], str(made.model.steps[0][1].graph.nodes[0])
        proto = stripped(made)
        found = run_elsewhere(proto, np.ascontiguousarray(x.transpose(0, 3, 1, 2)))
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5, err_msg=told)
        again = read_onnx(proto.SerializeToString())
        close = {"rtol": 1e-5, "atol": 1e-6, "err_msg": told}
        np.testing.assert_allclose(again.model.forward({}, x)[0], wanted, **close)
        padded += any(node.op_type == "Pad" for node in proto.graph.node)
    assert padded


@pytest.mark.parametrize("opset", [9, 10, 11, 13, 18])
@pytest.mark.parametrize("ceil", [False, True])
def test_averages_of_pytorch_at_every_opset(opset, ceil):
    """Its exporter pads by a Pad of its own at the older ones."""
    nn = pytest.importorskip("torch").nn
    if ceil and opset == 9:
        pytest.skip("its exporter has no ceil_mode there")
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.AvgPool2d((3, 4), 2, (1, 2), ceil_mode=ceil), nn.ReLU(),
        nn.AvgPool2d(2, 2, 1, ceil, count_include_pad=False), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
    ).eval()  # fmt: skip
    images = pictures(2, 3, 17, 22)
    read = read_onnx(exported(net, images, opset))
    found = read.model.forward(read.params, images.transpose(0, 2, 3, 1).copy())[0]
    np.testing.assert_allclose(found, logits(net, images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("change", "words"), [
    ({"pads": [0, 0, 1, 1, 0, 0, 2, 1]}, "only alike ones at opposite sides"),
    ({"pads": [0, 1, 1, 1, 0, 1, 1, 1]}, "only alike ones"),
    ({"pads": [0, 0, -1, 1, 0, 0, -1, 1]}, "only alike ones"),
    ({"fill": 1.0}, "only zeros around height and width are"),
    ({"mode": "reflect"}, "mode = b'reflect'"),
    ({"kind": "MaxPool"}, "only convolutions and averages are understood on a padded map"),
])  # fmt: skip
def test_a_pad_that_is_no_windows_is_named(change, words):
    make, given = onnx.helper.make_node, {"pads": [0, 0, 1, 1, 0, 0, 1, 1]} | change
    arrays = {"p": np.array(given["pads"]), "v": np.array(given.get("fill", 0.0), np.float32)}
    nodes = [
        make("Pad", ["x", "p", "v"], ["y"], mode=given.get("mode", "constant")),
        make(given.get("kind", "AveragePool"), ["y"], ["z"], kernel_shape=[3, 3], strides=[2, 2]),
        make("GlobalAveragePool", ["z"], ["out"]),
    ]
    with pytest.raises(FormatError, match=words):
        read_onnx(file_of(nodes, arrays, (1, 2, 9, 9), 13))


def test_a_hard_sigmoid_alone_is_named():
    make = onnx.helper.make_node
    nodes = [
        make("HardSigmoid", ["x"], ["gate"], alpha=1 / 6, beta=0.5),
        make("Concat", ["x", "gate"], ["y"], axis=1),
        make("GlobalAveragePool", ["y"], ["out"]),
    ]
    with pytest.raises(FormatError, match="a HardSigmoid is only understood in a hard-swish"):
        read_onnx(file_of(nodes, {}, (1, 2, 9, 9), 13))


def test_pools_of_one_pixel():
    """GlobalAveragePool leaves one pixel, which older exporters pool once more."""
    make = onnx.helper.make_node
    x = pictures(2, 2, 9, 9)
    for kind, how in (
        ("GlobalAveragePool", {}), ("MaxPool", {"kernel_shape": [1, 1]}),
        ("MaxPool", {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}),
        ("AveragePool", {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}),
    ):  # fmt: skip
        nodes = [make("GlobalAveragePool", ["x"], ["y"]), make(kind, ["y"], ["out"], **how)]
        data = file_of(nodes, {}, (2, 2, 9, 9), 13)
        read = read_onnx(data)
        found = read.model.forward(read.params, x.transpose(0, 2, 3, 1))[0]
        wanted = run_elsewhere(onnx.load_model_from_string(data), x)
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
    for how in ({"kernel_shape": [3, 3], "count_include_pad": 1}, {"kernel_shape": [2, 2]}):
        node = make("AveragePool", ["y"], ["out"], pads=[1, 1, 1, 1], **how)
        nodes = [make("GlobalAveragePool", ["x"], ["y"]), node]
        with pytest.raises(FormatError, match=r"\(AveragePool\): (an average of one|a pool that)"):
            read_onnx(file_of(nodes, {}, (2, 2, 9, 9), 13))


# --- whole networks, made by hand ------------------------------------------------------------------------


def file_of(nodes, arrays, shape, opset: int) -> bytes:
    """An ONNX file that reads "x" (batch, C, H, W) and gives "out"."""
    value, number = onnx.helper.make_tensor_value_info, onnx.TensorProto.FLOAT
    held = [onnx.numpy_helper.from_array(array, name) for name, array in arrays.items()]
    graph = onnx.helper.make_graph(
        nodes, "hand made", [value("x", number, shape)], [value("out", number, None)], held
    )
    imports = [onnx.helper.make_opsetid("", opset)]
    made = onnx.helper.make_model(graph, opset_imports=imports, ir_version=4 if opset < 15 else 8)
    return made.SerializeToString()


class Drawing:
    """A network under construction; `shapes` are (C, H, W) by name."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng([seed, 5])
        self.opset = int(self.rng.integers(9, 19))
        size = tuple(map(int, self.rng.integers(9, 22, 2)))
        self.shapes = {"x": (int(self.rng.integers(1, 5)), *size)}
        self.nodes, self.arrays = [], {}
        self.last = "x"
        self.add_conv()
        for _ in range(int(self.rng.integers(3, 9))):
            kinds = [self.add_conv, self.add_norm, self.add_function, self.add_pool, self.add_sum,
                     self.add_concat, self.add_dropout]  # fmt: skip
            kinds[int(self.rng.integers(len(kinds)))]()
        self.end(int(self.rng.integers(2, 9)))

    def array(self, *shape: int, scale: float = 0.5) -> str:
        name = f"a{len(self.arrays)}"
        self.arrays[name] = (scale * self.rng.standard_normal(shape)).astype(np.float32)
        return name

    def add(self, kind: str, inputs, shape, **how) -> None:
        name = f"m{len(self.nodes)}"
        self.nodes.append(onnx.helper.make_node(kind, inputs, [name], **how))
        self.shapes[name] = shape
        self.last = name

    def window(self, size, pool: bool = False):
        """Attributes of a window that fits, and what it makes of the size."""
        kernel = [int(self.rng.integers(1, min(4, side) + 1)) for side in size]
        stride = [int(s) for s in self.rng.integers(1, 3, 2)]
        pad = [int(self.rng.integers(0, max(k // 2 + 1, 1))) for k in kernel]
        out = [
            (n + 2 * p - k) // s + 1 for n, k, s, p in zip(size, kernel, stride, pad, strict=True)
        ]
        return {"kernel_shape": kernel, "strides": stride, "pads": [*pad, *pad]}, out

    def add_conv(self) -> None:
        channels, *size = self.shapes[self.last]
        how, out = self.window(size)
        groups = channels if self.rng.random() < 0.2 else 1
        filters = (
            groups * int(self.rng.integers(1, 5)) if groups > 1 else int(self.rng.integers(2, 12))
        )
        depth = channels // groups
        scale = 1.5 / np.sqrt(depth * np.prod(how["kernel_shape"]))
        weight = self.array(filters, depth, *how["kernel_shape"], scale=scale)
        bias = [self.array(filters)] * bool(self.rng.integers(2))
        self.add("Conv", [self.last, weight, *bias], (filters, *out), group=groups, **how)

    def add_norm(self) -> None:
        shape = self.shapes[self.last]
        names = [self.array(shape[0]) for _ in range(4)]
        self.arrays[names[3]] = np.abs(self.arrays[names[3]]) + np.float32(0.3)
        self.add("BatchNormalization", [self.last, *names], shape, epsilon=1e-3)

    def add_function(self) -> None:
        shape = self.shapes[self.last]
        kind = int(self.rng.integers(3))
        if kind == 0:
            self.add("Relu", [self.last], shape)
        elif kind == 1 and self.opset < 11:
            self.add("Clip", [self.last], shape, min=0.0)
        elif kind == 1:
            self.arrays["zero"] = np.zeros((), np.float32)
            self.add("Clip", [self.last, "zero"], shape)
        elif self.opset >= 14:
            self.add("HardSwish", [self.last], shape)
        else:
            source = self.last
            self.add("HardSigmoid", [source], shape, alpha=1 / 6, beta=0.5)
            gate = self.last
            self.add("Mul", [source, gate], shape)
            del self.shapes[gate]  # which nothing else is understood to read

    def add_pool(self) -> None:
        channels, *size = self.shapes[self.last]
        how, out = self.window(size)
        kind = ["MaxPool", "AveragePool"][int(self.rng.integers(2))]
        if kind == "AveragePool":
            how["count_include_pad"] = int(self.rng.integers(2))
        self.add(kind, [self.last], (channels, *out), **how)

    def alike(self, sides: slice) -> str:
        """A map whose shape is the last one's, there."""
        shape = self.shapes[self.last][sides]
        fitting = [name for name, other in self.shapes.items() if other[sides] == shape]
        return fitting[int(self.rng.integers(len(fitting)))]

    def add_sum(self) -> None:
        other = self.alike(slice(None))
        self.add("Add", [other, self.last], self.shapes[self.last])

    def add_concat(self) -> None:
        arms = [self.alike(slice(1, None)), self.last]
        channels = sum(self.shapes[arm][0] for arm in arms)
        self.add("Concat", arms, (channels, *self.shapes[self.last][1:]), axis=1)

    def add_dropout(self) -> None:
        how = {"ratio": 0.3} if self.opset < 12 else {}
        self.add("Dropout", [self.last], self.shapes[self.last], **how)

    def end(self, classes: int) -> None:
        """A mean or a Flatten, a Gemm, perhaps a softmax."""
        channels, height, width = self.shapes[self.last]
        if self.rng.integers(2):
            self.add("GlobalAveragePool", [self.last], (channels, 1, 1))
            height = width = 1
        self.add("Flatten", [self.last], (channels * height * width,))
        size = channels * height * width
        weight, bias = self.array(classes, size, scale=1 / np.sqrt(size)), self.array(classes)
        self.add("Gemm", [self.last, weight, bias], (classes,), transB=1)
        self.logits = self.last
        if self.rng.integers(2):
            self.add("Softmax", [self.last], (classes,), axis=1)

    def bytes(self, output: str | None = None) -> bytes:
        """The file; or up to its logits."""
        nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in self.nodes]
        name = output or self.last
        nodes = nodes[: [node.output[0] for node in nodes].index(name) + 1]
        nodes[-1].output[0] = "out"
        return file_of(nodes, self.arrays, ("n", *self.shapes["x"]), self.opset)


def near(found: np.ndarray, wanted: np.ndarray, share: float) -> None:
    scale = np.abs(wanted).max()
    assert found.shape == wanted.shape
    assert np.abs(found - wanted).max() <= share * max(scale, 1e-3)


@pytest.mark.parametrize(
    "seed", [*range(24), *(pytest.param(s, marks=pytest.mark.slow) for s in range(24, 300))]
)
def test_in_compressed_opened_out(seed, tmp_path):
    drawing = Drawing(seed)
    read = read_onnx(drawing.bytes())
    assert isinstance(read.model, GraphModel)
    images = pictures(3, *drawing.shapes["x"])
    x = np.ascontiguousarray(images.transpose(0, 2, 3, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wanted = run_elsewhere(onnx.load_model_from_string(drawing.bytes(drawing.logits)), images)
    near(read.model.forward(read.params, x)[0], wanted, 1e-4)
    plan = compile_plan(read.model, 3, training=False, precision="direct", params=read.params)
    near(plan.predict(x), wanted, 1e-4)
    compress(read, tmp_path / "same.tsq")
    same = open_weights(tmp_path / "same.tsq")
    assert same.model == read.model
    assert all(np.array_equal(same.flat[path], array) for path, array in read.flat.items())
    size = compress(read, tmp_path / "small.tsq", bits=12)
    small = load_weights(tmp_path / "small.tsq")
    assert size == (tmp_path / "small.tsq").stat().st_size
    coarse = small.model.forward(small.params, x)[0]
    near(coarse, wanted, 0.02)
    near(run_elsewhere(to_onnx(small), images), coarse, 1e-4)
    assert load_weights(written(small, tmp_path)).model == small.model
    gcc = shutil.which("gcc") or shutil.which("cc")
    if not all(isinstance(node, Conv) for node in lower(small.model).readers(0)):
        with pytest.raises(UserError, match="int8 and C need a convolution as the first layer"):
            export_float32(small.model, small.params, tmp_path / "c")
    elif gcc:
        export_float32(small.model, small.params, tmp_path / "c")
        program = c_tests.compile_c(gcc, tmp_path / "c", small.model.name)
        near(c_tests.logits_of(program, x, "<f4"), coarse, 1e-4)


def written(weights: WeightSet, folder):
    path = folder / "again.onnx"
    path.write_bytes(to_onnx(weights).SerializeToString())
    return path
