"""Readers and writers of weights: each format in and out to the bit, against PyTorch's own."""

import json
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import weight_files as files

from tinysqueeze.errors import DataError, FormatError, UserError
from tinysqueeze.network.models import squeezenet1_0, squeezenet1_1
from tinysqueeze.weights import (
    CAFFE,
    SOURCES,
    TORCHVISION,
    load_weights,
    write_safetensors,
    write_torchvision,
)
from tinysqueeze.weights.compression.compress import compress
from tinysqueeze.weights.exporting import export
from tinysqueeze.weights.formats.deep_compression import read_deep_compression
from tinysqueeze.weights.formats.names import to_theirs, torchvision_names


def test_deep_compression_layers_decode_as_the_format_says():
    shapes = {"a": (4, 3, 3, 3), "b": (5, 4, 1, 1)}
    layers = read_deep_compression(files.deep_compression(shapes), shapes)
    for layer in layers:
        expected = np.zeros(int(np.prod(layer.shape)), np.float32)
        at = -1
        for gap, code in zip(layer.gaps.tolist(), layer.codes.tolist(), strict=True):
            at += gap + 1
            expected[at] = layer.codebook[code]
        assert np.array_equal(layer.weight(), expected.reshape(layer.shape))
        assert layer.bias.shape == layer.shape[:1]


def test_the_authors_file_is_recognised(shared_data):
    weights = load_weights(shared_data / "compressed_SqueezeNet.net")
    assert "SqueezeNet v1.0, 1,248,424 parameters, 1000 classes" in weights.description
    assert "422,083 of 1,248,424 parameters stored" in weights.description
    assert weights.preprocess == CAFFE
    assert weights.model.spec["conv10_pad"] == 1
    assert [SOURCES["squeezenet1_0_compressed"].what in note for note in weights.notes] == [True]
    # fillers are stored entries of value zero, so fewer weights than entries differ from zero
    stored = sum(np.count_nonzero(a) for p, a in weights.flat.items() if p.endswith("weight"))
    assert stored == 422_083 - 6_162


@pytest.mark.parametrize("v1", [False, True])
@pytest.mark.parametrize("packed", [False, True])
def test_caffemodel(tmp_path, v1, packed):
    made = files.small(1 - v1)
    data = files.caffemodel(made, v1, packed)
    read = load_weights(files.write(tmp_path / "net.caffemodel", data))
    assert all(np.array_equal(read.flat[path], made.flat[path]) for path in made.flat)
    assert f"SqueezeNet v1.{1 - v1}" in read.description
    assert read.model.spec["conv10_pad"] == int(v1)
    assert read.preprocess == CAFFE
    assert "no checksum" in read.notes[0]


def test_caffemodel_with_a_renamed_head(tmp_path):
    data = files.caffemodel(files.small()).replace(
        files.field(1, b"conv10"), files.field(1, b"conv1X")
    )
    with pytest.raises(FormatError, match="conv10's is missing"):
        load_weights(files.write(tmp_path / "net.caffemodel", data))


@pytest.mark.parametrize("version", [0, 1])
def test_safetensors_both_ways(tmp_path, version):
    made = files.small(version)
    for write in (write_safetensors, write_torchvision):
        write(made, tmp_path / "net.safetensors")
        read = load_weights(tmp_path / "net.safetensors")
        assert files.same(read, made)
        assert read.preprocess == made.preprocess
        assert read.classes == made.classes
        assert read.notes == ()


def test_safetensors_of_others(tmp_path):
    """Without our metadata: torchvision's names alone must do, also in half precision."""
    from safetensors.numpy import save

    made = files.small()
    names = torchvision_names(made.model)
    for dtype in ("float32", "float16"):
        arrays = {names[p]: to_theirs(a).astype(dtype) for p, a in made.flat.items()}
        read = load_weights(files.write(tmp_path / "x.safetensors", save(arrays)))
        assert read.preprocess == TORCHVISION
        assert read.model.spec == {"name": "squeezenet1_1", "classes": 3, "input_size": 224}
        for path, array in made.flat.items():
            assert np.array_equal(read.flat[path], array.astype(dtype).astype("f4"))
    assert "float16" in read.notes[0]


def test_torchvision_has_no_place_for_variants(tmp_path):
    for changes in (
        {"norm": True}, {"bypass": "complex"}, {"bypass": "simple"}, {"linear_squeeze": True},
        {"activation": "hard-swish"}, {"final_relu": False}, {"pools": (1, 3, 6)},
        {"stem_filters": 32},
    ):  # fmt: skip
        with pytest.raises(UserError, match="no place for"):
            write_torchvision(files.small(**changes), tmp_path / "x.safetensors")
    assert not list(tmp_path.iterdir())


def test_unknown_networks_and_files(tmp_path):
    with pytest.raises(DataError, match="squeezenet1_0_compressed"):
        load_weights(tmp_path / "missing.net")
    with pytest.raises(FormatError, match=r"weights end in \.net"):
        load_weights(files.write(tmp_path / "x.txt", b"hello"))
    with pytest.raises(DataError):
        load_weights(tmp_path)


# --- files that PyTorch writes ------------------------------------------------------------------


def torchvision_squeezenet(torch, version: int, classes: int):
    """torchvision's class, rebuilt: the same modules in the same places."""
    nn = torch.nn

    class Fire(nn.Module):
        def __init__(self, channels, squeeze, expand):
            super().__init__()
            self.squeeze = nn.Conv2d(channels, squeeze, 1)
            self.expand1x1 = nn.Conv2d(squeeze, expand, 1)
            self.expand3x3 = nn.Conv2d(squeeze, expand, 3, padding=1)

        def forward(self, x):
            x = self.squeeze(x).relu()
            return torch.cat([self.expand1x1(x).relu(), self.expand3x3(x).relu()], 1)

    def pool():
        return nn.MaxPool2d(3, 2, ceil_mode=True)

    sizes = [16, 16, 32, 32, 48, 48, 64, 64]
    stem = nn.Conv2d(3, 64, 3, 2) if version else nn.Conv2d(3, 96, 7, 2)
    features, channels = [stem, nn.ReLU(), pool()], stem.out_channels
    for number, squeeze in enumerate(sizes, 2):
        features.append(Fire(channels, squeeze, 4 * squeeze))
        channels = 8 * squeeze
        if number in ((3, 5) if version else (4, 8)):
            features.append(pool())
    head = nn.Conv2d(512, classes, 1)

    class SqueezeNet(nn.Module):
        def __init__(self):
            super().__init__()
            self.features = nn.Sequential(*features)
            self.classifier = nn.Sequential(
                nn.Dropout(0.5), head, nn.ReLU(), nn.AdaptiveAvgPool2d((1, 1))
            )

        def forward(self, x):
            return self.classifier(self.features(x)).flatten(1)

    return SqueezeNet().eval()


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch")


def outputs_agree(torch, theirs, ours, size=64):
    x = np.random.default_rng(0).normal(size=(2, size, size, 3)).astype("f4")
    with torch.no_grad():
        expected = theirs(torch.from_numpy(x.transpose(0, 3, 1, 2).copy())).numpy()
    y = ours.model.forward(ours.params, x)[0]
    assert np.abs(expected).max() > 0.01
    np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


@pytest.mark.oracle
@pytest.mark.parametrize("version", [0, 1])
@pytest.mark.parametrize("archive", [True, False], ids=["zip", "legacy"])
def test_pth_of_torch_gives_torchs_outputs(torch, tmp_path, version, archive):
    torch.manual_seed(version)
    net = torchvision_squeezenet(torch, version, classes=10)
    path = tmp_path / "net.pth"
    torch.save(net.state_dict(), path, _use_new_zipfile_serialization=archive)
    read = load_weights(path)
    assert f"SqueezeNet v1.{version}" in read.description
    assert read.model.classes == 10
    assert bool(read.notes) != archive  # only the legacy layout lacks checksums
    outputs_agree(torch, net, read.with_model(input_size=64))


@pytest.mark.oracle
@pytest.mark.parametrize("archive", [True, False], ids=["zip", "legacy"])
def test_checkpoints_around_a_state_dict(torch, tmp_path, archive):
    net = torchvision_squeezenet(torch, 1, classes=2)
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    net(torch.zeros(1, 3, 64, 64)).sum().backward()
    optimiser.step()
    wrapped = OrderedDict((f"module.{k}", v) for k, v in net.state_dict().items())
    saved = {
        "epoch": 3, "best": 0.5, "name": "x", "done": True, "none": None, "history": [1.0, (2, 3)],
        "state_dict": wrapped, "optimizer": optimiser.state_dict(),
        "parameter": net.features[0].weight, "steps": torch.tensor(2**40),
    }  # fmt: skip
    torch.save(saved, tmp_path / "ckpt.pt", _use_new_zipfile_serialization=archive)
    read = load_weights(tmp_path / "ckpt.pt")
    expected = net.features[0].weight.detach().numpy().transpose(2, 3, 1, 0)
    assert np.array_equal(read.flat["conv1/weight"], expected)


@pytest.mark.oracle
def test_views_and_other_precisions(torch, tmp_path):
    """Tensors that are slices or transposes of one storage; bfloat16 and half widen exactly."""
    net = torchvision_squeezenet(torch, 1, classes=2)
    for dtype in (torch.bfloat16, torch.float16, torch.float64):
        state = {k: v.detach().to(dtype) for k, v in net.state_dict().items()}
        torch.save(state, tmp_path / "net.pth")
        read = load_weights(tmp_path / "net.pth")
        expected = state["features.3.squeeze.weight"].float().numpy().transpose(2, 3, 1, 0)
        assert np.array_equal(read.flat["fire2/squeeze/weight"], expected)
    state = net.state_dict()
    whole = torch.randn(4, 512, 3, 1)  # (1, 512, 2, 1) inside, then its sides exchanged
    state["classifier.1.weight"] = whole.transpose(0, 2)[1:3, :, 1:2]
    torch.save(state, tmp_path / "net.pth")
    read = load_weights(tmp_path / "net.pth")
    expected = state["classifier.1.weight"].numpy().transpose(2, 3, 1, 0)
    assert np.array_equal(read.flat["conv10/weight"], expected)


@pytest.mark.oracle
def test_torch_loads_our_export_strictly(torch, tmp_path):
    from safetensors.torch import load_file

    for version in (0, 1):
        made = files.small(version, classes=7)
        write_torchvision(made, tmp_path / "net.safetensors")
        net = torchvision_squeezenet(torch, version, classes=7)
        net.load_state_dict(load_file(tmp_path / "net.safetensors"), strict=True)
        outputs_agree(torch, net, made)


def test_torchvision_names_are_torchvisions():
    for make, fire, last in ((squeezenet1_0, 7, 12), (squeezenet1_1, 6, 12)):
        names = torchvision_names(make(classes=2))
        assert names["conv1/weight"] == "features.0.weight"
        assert names["fire2/squeeze/bias"] == "features.3.squeeze.bias"
        assert (
            names["fire5/expand1x1/weight"]
            == f"features.{fire + (make is squeezenet1_1)}.expand1x1.weight"
        )
        assert names["fire9/expand3x3/weight"] == f"features.{last}.expand3x3.weight"
        assert names["conv10/bias"] == "classifier.1.bias"


@pytest.mark.oracle
def test_the_hash_in_torchvisions_file_names(torch, tmp_path):
    import hashlib

    net = torchvision_squeezenet(torch, 1, classes=2)
    torch.save(net.state_dict(), tmp_path / "net.pth")
    data = (tmp_path / "net.pth").read_bytes()
    right = hashlib.sha256(data).hexdigest()[:8]
    load_weights(files.write(tmp_path / f"squeezenet1_1-{right}.pth", data))
    for suffix in ("pth", "pt"):
        with pytest.raises(
            FormatError, match=r"as its name, torchvision's, promises; .* rename it"
        ):
            load_weights(files.write(tmp_path / f"squeezenet1_1-b8a52dc0.{suffix}", data))
    load_weights(files.write(tmp_path / "net-20261127.pth", data))


@pytest.mark.parametrize("name", ["net-20261127", "net-b8a52dc0", "squeezenet1_1-20261127"])
@pytest.mark.parametrize("to", ["safetensors", "onnx", "tsq"])
def test_a_date_in_a_name_is_no_checksum(tmp_path, name, to):
    made, path = files.small(classes=2), tmp_path / f"{name}.{to}"
    if to == "onnx":
        pytest.importorskip("onnx")
    if to == "tsq":
        compress(made, path)
    else:
        export(made, path)
    assert files.same(load_weights(path), made)


@pytest.mark.parametrize("to", ["safetensors", "torchvision", "onnx", "c", "tsq"])
def test_the_same_weights_give_the_same_bytes(tmp_path, to):
    """safetensors' library writes metadata in an order that changes each time."""
    if to == "onnx":
        pytest.importorskip("onnx")
    made = files.small(classes=2)
    seen = set()
    for i in range(8):
        path = tmp_path / (f"{i}.tsq" if to == "tsq" else str(i))
        if to == "tsq":
            compress(made, path)
        written = (path,) if to == "tsq" else export(made, path, to)
        seen.add(b"".join(file.read_bytes() for file in written))
    assert len(seen) == 1


def test_a_zip_that_is_no_state_dict(tmp_path):
    path = tmp_path / "x.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme", json.dumps({}))
    with pytest.raises(FormatError, match=r"without data\.pkl"):
        load_weights(path)
