"""ONNX in: files that other tools made give their makers' numbers, through both engines."""

import io
import warnings
from dataclasses import replace
from pathlib import Path

import networks
import numpy as np
import pytest

from tinysqueeze.compiled import compile as compile_plan
from tinysqueeze.devices.c import export_float32
from tinysqueeze.devices.memory import plan
from tinysqueeze.errors import FormatError
from tinysqueeze.graph import GraphModel, lower
from tinysqueeze.network.models import build, squeezenet1_1, squeezenet_cifar
from tinysqueeze.weights import Preprocess, WeightSet, load_weights
from tinysqueeze.weights.formats.onnx_file import read_onnx, to_onnx

onnx = pytest.importorskip("onnx")
pytestmark = pytest.mark.oracle
CLASSES = 7
CLOSE = 1e-5  # of the largest logit


def close(found: np.ndarray, expected: np.ndarray) -> None:
    scale = np.abs(expected).max()
    assert scale > 1e-4
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= CLOSE * scale


def agree(weights: WeightSet, images: np.ndarray, expected: np.ndarray) -> None:
    """images (N, C, H, W), as everybody else has them."""
    x = np.ascontiguousarray(images.transpose(0, 2, 3, 1))
    close(weights.model.forward(weights.params, x)[0], expected)
    for batch in (1, len(x)):  # by all threads together, and by one an image
        compiled = compile_plan(
            weights.model, batch, training=False, precision="direct", params=weights.params
        )
        close(compiled.predict(x), expected)


def run(proto, images: np.ndarray) -> np.ndarray:
    ort = pytest.importorskip("onnxruntime")
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: images})[0].reshape(len(images), -1)


def pictures(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


# --- PyTorch -------------------------------------------------------------------------------------


def fire(nn, channels: int, squeeze: int, expand: int, norm: bool, activation):
    torch = pytest.importorskip("torch")

    def conv(*how, **more):
        layers = [nn.Conv2d(*how, **more)]
        return nn.Sequential(*layers, *([nn.BatchNorm2d(how[1])] if norm else []), activation())

    class Fire(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.squeeze = conv(channels, squeeze, 1)
            self.one = conv(squeeze, expand, 1)
            self.three = conv(squeeze, expand, 3, padding=1)

        def forward(self, x):
            x = self.squeeze(x)
            return torch.cat([self.one(x), self.three(x)], 1)

    return Fire()


def torchvisions(version: str, norm: bool = False, activation: str = "ReLU", tail=(), final=True):
    """torchvision's SqueezeNet, layer by layer, with a few classes."""
    torch = pytest.importorskip("torch")
    nn = torch.nn
    torch.manual_seed(0)
    act = getattr(nn, activation)
    first, kernel, pools = {"1_0": (96, 7, (3, 7)), "1_1": (64, 3, (2, 4))}[version]
    layers = [nn.Conv2d(3, first, kernel, stride=2)]
    layers += [nn.BatchNorm2d(first)] if norm else []
    layers += [act(), nn.MaxPool2d(3, 2, ceil_mode=True)]
    channels = first
    for i, (squeeze, expand) in enumerate(
        [(16, 64), (16, 64), (32, 128), (32, 128), (48, 192), (48, 192), (64, 256), (64, 256)]
    ):
        layers.append(fire(nn, channels, squeeze, expand, norm, act))
        channels = 2 * expand
        if i + 1 in pools:
            layers.append(nn.MaxPool2d(3, 2, ceil_mode=True))
    layers += [nn.Dropout(0.5), nn.Conv2d(channels, CLASSES, 1)]
    layers += [nn.ReLU()] if final else []
    net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d((1, 1)), nn.Flatten(), *(t() for t in tail))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 2)
    return net.eval()


def exported(
    net, images: np.ndarray, opset: int | None = None, dynamo: bool = False, **more
) -> bytes:
    torch = pytest.importorskip("torch")
    if dynamo:
        pytest.importorskip("onnxscript")
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's, about its own exporters
        torch.onnx.export(
            net, (torch.from_numpy(images),), file, opset_version=opset, dynamo=dynamo,
            **({"external_data": False, "verbose": False} if dynamo else {}), **more,
        )  # fmt: skip
    return file.getvalue()


def logits(net, images: np.ndarray) -> np.ndarray:
    torch = pytest.importorskip("torch")
    with torch.no_grad():
        return net(torch.from_numpy(images)).numpy()


@pytest.mark.parametrize(
    ("version", "opset", "dynamo"),
    [
        ("1_0", 9, False), ("1_1", 11, False), ("1_1", 13, False), ("1_0", 17, False),
        ("1_1", 18, False), ("1_0", 18, True), ("1_1", None, True),
    ],
)  # fmt: skip
def test_pytorchs_exporters(version, opset, dynamo):
    net, images = torchvisions(version), pictures(2, 3, 48, 48)
    read = read_onnx(exported(net, images, opset, dynamo))
    assert read.model.spec == {
        "name": f"squeezenet{version}", "classes": CLASSES, "input_size": 48,
    }  # fmt: skip
    agree(read, images, logits(net, images))


@pytest.mark.parametrize("dynamo", [False, True])
@pytest.mark.parametrize("folding", [False, True])
def test_norms_folded_by_the_exporter_or_here(dynamo, folding):
    """PyTorch's norms stand before the Concat, where ours has none: they are folded."""
    if dynamo and not folding:
        pytest.skip("it always folds")
    torch = pytest.importorskip("torch")
    net, images = torchvisions("1_1", norm=True), pictures(2, 3, 40, 40)
    more = {} if dynamo else {"do_constant_folding": folding}
    if not folding:
        more["training"] = torch.onnx.TrainingMode.PRESERVE
    data = exported(net, images, 17 if not dynamo else None, dynamo, **more)
    kinds = {node.op_type for node in onnx.load_model_from_string(data).graph.node}
    assert ("BatchNormalization" in kinds) != folding
    read = read_onnx(data)
    assert read.model.spec["name"] == "squeezenet1_1"
    assert not read.model.spec.get("norm")
    agree(read, images, logits(net, images))


@pytest.mark.parametrize("opset", [9, 11, 14])
def test_hard_swish_and_no_final_relu(opset):
    net = torchvisions("1_1", activation="Hardswish", final=False)
    images = pictures(2, 3, 40, 40)
    read = read_onnx(exported(net, images, opset))
    assert (read.model.spec["activation"], read.model.spec["final_relu"]) == ("hard-swish", False)
    agree(read, images, logits(net, images))


@pytest.mark.parametrize("dynamo", [False, True])
def test_a_softmax_at_the_end_is_left_out_and_said(dynamo):
    torch = pytest.importorskip("torch")
    net, images = torchvisions("1_1"), pictures(1, 3, 40, 40)
    whole = torch.nn.Sequential(net, torch.nn.Softmax(1)).eval()
    read = read_onnx(exported(whole, images, None, dynamo))
    assert any("softmax is left out" in note for note in read.notes)
    assert read.model.spec["name"] == "squeezenet1_1"
    agree(read, images, logits(net, images))


@pytest.mark.parametrize("dynamo", [False, True])
@pytest.mark.parametrize("name", ["padded averages", "flatten and linear", "strided"])
def test_other_networks_of_pytorch_are_graphs(dynamo, name, tmp_path):
    nn = pytest.importorskip("torch").nn
    nn_of = {
        "padded averages": lambda: nn.Sequential(
            nn.Conv2d(3, 8, 3, bias=False), nn.AvgPool2d(3, 2, 1, count_include_pad=False), nn.ReLU(),
            nn.AvgPool2d(3, 2, 1), nn.Conv2d(8, 6, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
            nn.Linear(6, CLASSES),
        ),
        "flatten and linear": lambda: nn.Sequential(
            nn.Conv2d(3, 8, 5, stride=2), nn.ReLU(), nn.MaxPool2d(3, 2, 1), nn.Flatten(),
            nn.Linear(8 * 5 * 5, 12), nn.ReLU(), nn.Dropout(), nn.Linear(12, CLASSES, bias=False),
        ),
        "strided": lambda: nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=2, padding=(1, 0)),
            nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, CLASSES, 1), nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        ),
    }  # fmt: skip
    pytest.importorskip("torch").manual_seed(1)
    net, images = nn_of[name]().eval(), pictures(2, 3, 22, 22)
    read = read_onnx(exported(net, images, None if dynamo else 17, dynamo))
    assert isinstance(read.model, GraphModel)
    assert any("no SqueezeNet" in note for note in read.notes)
    agree(read, images, logits(net, images))
    assert plan(read.model).peak_bytes > 0
    assert export_float32(read.model, read.params, tmp_path / "c").flash > 0


# --- ONNX's own, ONNX Runtime's, and ours without its metadata ---------------------------------------


def test_light_squeezenet():
    folder = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
    path = folder / "light_squeezenet.onnx"
    read = load_weights(path)
    assert read.model == squeezenet1_1()
    proto = onnx.load(path)
    last = proto.graph.node[-1]
    assert last.op_type == "Softmax"
    proto.graph.output[0].name = last.input[0]
    del proto.graph.node[-1]
    images = pictures(1, 3, 224, 224) + 1
    expected = run(proto, images)
    agree(read, images, expected)


@pytest.mark.parametrize("level", ["ORT_ENABLE_BASIC", "ORT_ENABLE_EXTENDED"])
@pytest.mark.parametrize("bypass", [None, "complex"])
def test_optimised_by_onnx_runtime(tmp_path, level, bypass):
    ort = pytest.importorskip("onnxruntime")
    model = squeezenet_cifar(classes=CLASSES, norm=True, bypass=bypass, base_e=16, incr_e=8)
    made = weight_set(model)
    images = pictures(2, 3, 32, 32)
    expected = model.forward(made.params, images.transpose(0, 2, 3, 1))[0]
    optimised(ort, made, level, tmp_path / "fast.onnx")
    read = load_weights(tmp_path / "fast.onnx")
    kinds = {node.op_type for node in onnx.load(tmp_path / "fast.onnx").graph.node}
    if level == "ORT_ENABLE_EXTENDED":
        assert "FusedConv" in kinds
    assert read.model.spec["name"] == "squeezenet_cifar"
    assert read.model.spec.get("bypass") == bypass
    agree(read, images, expected)


def test_the_layout_of_a_machine_is_refused(tmp_path):
    ort = pytest.importorskip("onnxruntime")
    optimised(ort, weight_set(squeezenet_cifar(classes=16)), "ORT_ENABLE_ALL", tmp_path / "x.onnx")
    domains = {node.domain for node in onnx.load(tmp_path / "x.onnx").graph.node}
    if "com.microsoft.nchwc" not in domains:
        pytest.skip("ONNX Runtime has no NCHWc on this processor")
    with pytest.raises(FormatError, match=r"NCHWc.*ORT_ENABLE_EXTENDED"):
        load_weights(tmp_path / "x.onnx")


def optimised(ort, weights: WeightSet, level: str, path) -> None:
    proto = to_onnx(weights)
    del proto.metadata_props[:]
    options = ort.SessionOptions()
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, level)
    options.optimized_model_filepath = str(path)
    options.log_severity_level = 3
    ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])


def weight_set(model, params=None) -> WeightSet:
    height, width, _ = model.input_shape
    params = params or networks.lively(model, np.random.default_rng(3))
    return WeightSet(model, params, Preprocess(width, (height, width)), "a test")


def stripped(weights: WeightSet):
    proto = to_onnx(weights)
    del proto.metadata_props[:]
    return proto


@pytest.mark.parametrize("seed", range(24))
def test_random_networks_come_back(seed):
    """A square SqueezeNet as itself, whatever its metaparameters; the rest as graphs."""
    drawn = networks.draw(seed)
    model = build(drawn.model.spec) if seed % 3 != 2 else drawn.model
    read = read_onnx(stripped(weight_set(model, drawn.params)).SerializeToString())
    assert isinstance(read.model, GraphModel) == (seed % 3 == 2)
    x = pictures(2, *model.input_shape)
    expected = model.forward(drawn.params, x)[0]
    if np.abs(expected).max() == 0:
        pytest.skip("a network that fell silent")
    agree(read, x.transpose(0, 3, 1, 2), expected)
    if seed % 3 != 2:
        assert read.model.classes == model.classes
        ours = [replace(n, rate=0.5) if hasattr(n, "rate") else n for n in lower(model).nodes]
        if not drawn.model.spec["dropout"] and not read.model.spec.get("dropout", 0.5):
            assert lower(read.model).nodes == tuple(ours)


# --- variations of one file, and what is refused -------------------------------------------------------


def small():
    proto = stripped(
        weight_set(squeezenet_cifar(classes=4, fires=2, base_e=8, incr_e=4, pools=[1, 2]))
    )
    return proto, {node.name: node for node in proto.graph.node}


def attribute(node, **changes) -> None:
    for name, value in changes.items():
        for old in [a for a in node.attribute if a.name == name]:
            node.attribute.remove(old)
        if value is not None:
            node.attribute.append(onnx.helper.make_attribute(name, value))


@pytest.mark.parametrize("changes", [
    {"pads": [0, 0, 1, 1]}, {"pads": None, "ceil_mode": 1}, {"pads": None, "auto_pad": "SAME_UPPER"},
])  # fmt: skip
def test_three_ways_to_write_a_pool_that_hangs_over(changes):
    model = squeezenet1_1(classes=3, input_size=38, fires=2, pools=[1, 2])
    made = weight_set(model)
    proto = stripped(made)
    for node in proto.graph.node:
        if node.op_type == "MaxPool":
            size = {"pool1": 18, "pool2": 9}[node.name]
            mine = changes if size % 2 == 0 else {"pads": [0, 0, 0, 0]}
            attribute(node, **mine)
    read = read_onnx(proto.SerializeToString())
    assert lower(read.model).nodes == lower(model).nodes
    images = pictures(2, 3, 38, 38)
    agree(read, images, model.forward(made.params, images.transpose(0, 2, 3, 1))[0])


@pytest.mark.parametrize(("node", "changes", "words"), [
    ("conv1", {"dilations": [2, 2]}, r"'conv1' \(Conv\): dilations"),
    ("conv1", {"pads": [0, 0, 1, 1]}, r"'conv1' \(Conv\): pads .* differ at opposite sides; pad"),
    ("conv1", {"group": 2}, r"'conv1' \(Conv\): a weight for"),
    ("conv1", {"spin": 3}, r"'conv1' \(Conv\): its attribute spin = 3 is not understood"),
    ("pool1", {"storage_order": 1}, r"'pool1' \(MaxPool\): storage_order = 1"),
    ("pool1", {"strides": [0, 0]}, r"'pool1' \(MaxPool\): pads"),
])  # fmt: skip
def test_attributes_that_are_not_understood_are_named(node, changes, words):
    proto, nodes = small()
    attribute(nodes[node], **changes)
    with pytest.raises(FormatError, match=words):
        read_onnx(proto.SerializeToString())


@pytest.mark.parametrize(("kind", "words"), [
    ("Sigmoid", r"'conv1_relu' \(Sigmoid\): no such operator is understood here; those are: Add"),
    ("Loop", r"'conv1_relu' \(Loop\): no such operator"),
    ("Mul", r"'conv1_relu' \(Mul\): a product is only understood in a hard-swish"),
    ("Add", r"'conv1_relu' \(Add\): a constant"),
])  # fmt: skip
def test_operators_that_are_not_understood_are_named(kind, words):
    proto, nodes = small()
    nodes["conv1_relu"].op_type = kind
    if kind in ("Mul", "Add"):
        nodes["conv1_relu"].input.append("conv1/bias")
    with pytest.raises(FormatError, match=words):
        read_onnx(proto.SerializeToString())


def test_weights_elsewhere_or_without_bounds_are_refused():
    proto, _ = small()
    array = next(a for a in proto.graph.initializer if a.name == "conv1/weight")
    array.ClearField("raw_data")
    array.data_location = onnx.TensorProto.EXTERNAL
    array.external_data.add(key="location", value="secret")
    with pytest.raises(FormatError, match="lies in another file"):
        read_onnx(proto.SerializeToString())
    proto.graph.initializer.remove(array)
    with pytest.raises(
        FormatError, match=r"'conv1' \(Conv\): its input 'conv1/weight' is no constant"
    ):
        read_onnx(proto.SerializeToString())
    make = onnx.helper.make_node
    sizes = onnx.numpy_helper.from_array(np.array([1 << 20, 1 << 20, 3, 3]), "sizes")
    proto.graph.initializer.append(sizes)
    proto.graph.node.insert(0, make("ConstantOfShape", ["sizes"], ["conv1/weight"], "much"))
    with pytest.raises(FormatError, match=r"'much' \(ConstantOfShape\): .*at most"):
        read_onnx(proto.SerializeToString())


def test_bytes_changed_at_random_are_read_or_refused():
    data = bytearray(small()[0].SerializeToString())
    rng = np.random.default_rng(0)
    for _ in range(200):
        changed = data.copy()
        for place in rng.integers(0, len(data), 3):
            changed[place] = rng.integers(256)
        try:
            read_onnx(bytes(changed))
        except FormatError:
            continue
