"""The ONNX export: every variant of every network gives the same numbers in ONNX Runtime."""

import json

import compositions
import numpy as np
import pytest
import weight_files as files

from tinysqueeze.errors import FormatError, MissingExtra, UserError
from tinysqueeze.network.compose import Chain, leaves
from tinysqueeze.network.layers import AvgPool2D, Flatten, Layer, Linear, Softmax
from tinysqueeze.network.models import Model, squeezenet1_0, squeezenet1_1, squeezenet_cifar
from tinysqueeze.network.others import alexnet, vgg16
from tinysqueeze.network.params import map_params
from tinysqueeze.weights import Preprocess, WeightSet, load_weights, write_onnx
from tinysqueeze.weights.formats.onnx_file import IR_VERSION, OPSET, read_onnx, to_onnx

pytestmark = pytest.mark.oracle

VARIANTS = {
    "v1.0": squeezenet1_0(classes=5, input_size=67),
    "v1.1": squeezenet1_1(classes=5, input_size=64),
    "cifar": squeezenet_cifar(),
    "simple": squeezenet_cifar(bypass="simple"),
    "complex": squeezenet_cifar(bypass="complex"),
    "norm": squeezenet_cifar(norm=True),
    "norm and complex": squeezenet_cifar(norm=True, bypass="complex", dropout=0.5),
    "linear squeeze": squeezenet_cifar(norm=True, bypass="simple", linear_squeeze=True),
    "hard-swish": squeezenet_cifar(norm=True, activation="hard-swish"),
    "no final ReLU": squeezenet1_1(classes=5, input_size=64, final_relu=False),
    "padded conv10": squeezenet1_0(classes=5, input_size=67, conv10_pad=1),
    "only 1x1": squeezenet_cifar(pct3x3=0.0),
    "only 3x3, odd widths": squeezenet_cifar(pct3x3=1.0, base_e=30, incr_e=14, squeeze_ratio=0.3),
    "padded stem": squeezenet1_0(classes=5, input_size=63, stem_pad=3),
}


def session(proto):
    ort = pytest.importorskip("onnxruntime")
    return ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])


def run(proto, images: np.ndarray) -> np.ndarray:
    feed = {"images": np.ascontiguousarray(images.transpose(0, 3, 1, 2))}
    return session(proto).run(["logits"], feed)[0]


def agree(weights: WeightSet, batches=(1, 3)) -> None:
    proto = to_onnx(weights)
    rng = np.random.default_rng(0)
    for batch in batches:
        x = rng.normal(size=(batch, *weights.model.input_shape)).astype("f4")
        expected, _ = weights.model.forward(weights.params, x)
        scale = np.abs(expected).max()
        assert scale > 1e-3
        np.testing.assert_allclose(run(proto, x), expected, rtol=1e-4, atol=1e-5 * scale)


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_in_onnx_runtime(name):
    pytest.importorskip("onnx")
    agree(files.weight_set(VARIANTS[name]))


@pytest.mark.parametrize("name", compositions.MODELS)
def test_every_composition_in_onnx_runtime(name):
    pytest.importorskip("onnx")
    model = compositions.with_logits(name)
    if len(model.input_shape) != 3:
        pytest.skip("its input is no image")
    params = compositions.params_of(model, np.random.default_rng(0))
    single = map_params(lambda a: a.astype("f4"), params)
    height, width, _ = model.input_shape
    made = WeightSet(model, single, Preprocess(width, (height, width)), "a test")
    agree(made, batches=(2,))


def test_groups_flatten_and_linear_in_onnx_runtime():
    """AlexNet's layers, at a size that a test can afford."""
    pytest.importorskip("onnx")
    kept = ("conv1", "pool1", "conv2", "pool2", "conv3", "conv4")
    body = [step for step in alexnet(classes=5).steps if step[0].startswith(kept)]
    head = [("mean", AvgPool2D(2, 1, pad=1)), ("flatten", Flatten()), ("fc", Linear(5))]
    steps = (*body, *head, ("softmax", Softmax()))
    agree(files.weight_set(Model("part of alexnet", steps, (67, 67, 3), {"name": "part"})))


@pytest.mark.slow
@pytest.mark.parametrize("make", [alexnet, vgg16])
def test_the_large_networks_in_onnx_runtime(make):
    pytest.importorskip("onnx")
    agree(files.weight_set(make(classes=5)), batches=(1,))


@pytest.mark.parametrize("name", VARIANTS)
def test_round_trip_to_the_bit(tmp_path, name):
    pytest.importorskip("onnx")
    made = files.weight_set(VARIANTS[name])
    write_onnx(made, tmp_path / "net.onnx")
    read = load_weights(tmp_path / "net.onnx")
    assert files.same(read, made)
    assert (read.preprocess, read.classes) == (made.preprocess, made.classes)


def test_what_the_file_says():
    pytest.importorskip("onnx")
    made = files.small(classes=4)
    proto = to_onnx(made)
    assert (proto.ir_version, proto.opset_import[0].version) == (IR_VERSION, OPSET) == (8, 17)
    (image,), (logits,) = proto.graph.input, proto.graph.output
    dims = [d.dim_param or d.dim_value for d in image.type.tensor_type.shape.dim]
    assert (image.name, dims) == ("images", ["batch", 3, 64, 64])
    assert logits.name == "logits"
    metadata = {entry.key: entry.value for entry in proto.metadata_props}
    assert json.loads(metadata["classes"]) == list(made.classes)
    assert "mean" in json.loads(metadata["preprocess"])
    assert not [node for node in proto.graph.node if node.op_type == "Dropout"]
    names = {node.name for node in proto.graph.node}
    paths = {path for path, *_ in leaves(made.model, made.model.input_shape)}
    assert paths - {"drop9"} <= names


def test_layers_without_a_counterpart_are_refused():
    pytest.importorskip("onnx")

    class Mine(Layer):
        """A layer of a user's own, which ONNX can't know."""

        def out_shape(self, in_shape):
            return in_shape

    steps = (("mine", Mine()), ("flatten", Flatten()))
    model = Model("x", Chain(steps).steps, (8, 8, 3), {"name": "x"})
    with pytest.raises(UserError, match=r"mine: .* has no counterpart in ONNX here"):
        to_onnx(files.weight_set(model))


def test_without_the_library_the_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "onnx", None)
    with pytest.raises(MissingExtra, match=r"tinysqueeze\[onnx\]"):
        write_onnx(files.small(), tmp_path / "x.onnx")


@pytest.mark.parametrize(
    "name", [b"fire2/squeeze/weight", b"sha256", b"preprocess", b"class number 0"]
)
def test_a_name_that_is_no_text_is_refused(tmp_path, name):
    """The library hands it over as bytes."""
    pytest.importorskip("onnx")
    write_onnx(files.small(1, classes=2), tmp_path / "net.onnx")
    data = (tmp_path / "net.onnx").read_bytes()
    assert name in data
    broken = files.write(tmp_path / "x.onnx", data.replace(name, name[:-1] + b"\xff"))
    with pytest.raises(FormatError, match="is not UTF-8"):
        load_weights(broken)


def test_arrays_of_another_kind_or_elsewhere_are_refused(tmp_path, monkeypatch):
    """An array may name a file that it lies in; none is opened."""
    onnx = pytest.importorskip("onnx")
    monkeypatch.chdir(tmp_path)
    proto = to_onnx(files.small(1, classes=2))
    (tmp_path / "secret").write_bytes(bytes(10**6))
    array = proto.graph.initializer[0]
    whole = array.raw_data
    array.raw_data = whole[:-1]
    with pytest.raises(FormatError, match="is damaged"):
        read_onnx(proto.SerializeToString())
    array.data_type = onnx.TensorProto.FLOAT16
    with pytest.raises(FormatError, match="other numbers than float32"):
        read_onnx(proto.SerializeToString())
    array.data_type = onnx.TensorProto.FLOAT
    array.ClearField("raw_data")
    array.data_location = onnx.TensorProto.EXTERNAL
    array.external_data.add(key="location", value="secret")
    with pytest.raises(FormatError, match="in another file"):
        read_onnx(proto.SerializeToString())
