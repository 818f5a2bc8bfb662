"""Damaged and hostile files: always one FormatError, never a crash, never silently wrong weights."""

import io
import os
import zipfile
from collections import OrderedDict
from functools import partial

import numpy as np
import pytest
import weight_files as files
from torch_files import Global, archive, legacy, tensor

from tinysqueeze.errors import FormatError
from tinysqueeze.network.models import squeezenet_cifar
from tinysqueeze.weights import load_weights, write_onnx, write_safetensors, write_torchvision
from tinysqueeze.weights.formats.caffe_file import read_caffemodel
from tinysqueeze.weights.formats.deep_compression import read_deep_compression
from tinysqueeze.weights.formats.safetensors_file import read_safetensors
from tinysqueeze.weights.formats.torch_file import read_torch

SHAPES = {"a": (4, 3, 3, 3), "b": (5, 4, 1, 1)}


NUMBERS = [np.arange(24), np.arange(5)]
STATE = OrderedDict(weight=tensor(0, (2, 3, 4)), bias=tensor(1, (5,)))
LAYOUTS = {"zip": archive(STATE, NUMBERS), "legacy": legacy(STATE, NUMBERS)}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_hand_written_state_dicts_are_read(layout):
    read = read_torch(LAYOUTS[layout])
    assert np.array_equal(read["weight"], np.arange(24.0).reshape(2, 3, 4))
    assert np.array_equal(read["bias"], np.arange(5.0))
    with pytest.raises(ValueError, match="read-only"):
        read["bias"][0] = 1


# --- pickles that try to do something -----------------------------------------------------------

HOSTILE = {
    "os.system": Global("os", "system", "touch ran"),
    "builtins.eval": Global("builtins", "eval", "open('ran', 'w')"),
    "builtins.getattr": Global("builtins", "getattr", Global("os", "system"), "__call__"),
    "subprocess.Popen": Global("subprocess", "Popen", ["touch", "ran"]),
    "numpy.load": Global("numpy", "load", "x"),
    "torch.load": Global("torch", "load", "x"),
    "torch.nn.modules.conv.Conv2d": Global("torch.nn.modules.conv", "Conv2d", 3, 4, 1),
    "collections.OrderedDict.fromkeys": Global("collections", "OrderedDict.fromkeys", [1]),
    "pickle.loads": Global("pickle", "loads", b"x"),
    "torch.FloatStorage called": Global("torch", "FloatStorage", 10**12),
}


@pytest.mark.parametrize("layout", [archive, legacy])
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_pickles_are_refused_and_nothing_runs(tmp_path, monkeypatch, layout, name):
    monkeypatch.chdir(tmp_path)
    for value in (HOSTILE[name], {"state_dict": {"features.0.weight": HOSTILE[name]}}):
        path = files.write(tmp_path / "net.pth", layout(value))
        with pytest.raises(FormatError) as refused:
            load_weights(path)
        assert "\n" not in str(refused.value)
    assert os.listdir() == ["net.pth"]


@pytest.mark.parametrize(
    "raw",
    [
        b"(S'touch ran'\nios\nsystem\n.",  # INST
        b"(cos\nsystem\nS'touch ran'\no.",  # OBJ
        b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x09touch ran\x85R.",  # STACK_GLOBAL
        b"\x80\x02c__builtin__\neval\nU\x01x\x85R.",
        b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7f.",  # a frame of 8 EB
        b"\x80\x02\x8b\xff\xff\xff\x7f.",  # LONG4 of 2 GB
        b"\x80\x02\x82\x01.",  # EXT1
        b"\x80\x02P1\n.",  # PERSID
        b"",
        b".",
        b"\x80\x02.",
    ],
)
def test_hostile_opcodes_are_refused(tmp_path, monkeypatch, raw):
    monkeypatch.chdir(tmp_path)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as made:
        made.writestr("net/data.pkl", raw)
    for data in (out.getvalue(), raw, LAYOUTS["legacy"][:13] + raw):
        with pytest.raises(FormatError):
            read_torch(data)
    assert not os.listdir()


def test_tensors_beyond_their_storage_are_refused():
    bad = [
        tensor(0, (2, 3, 4), offset=1),
        tensor(0, (2, 3, 4), strides=(13, 4, 1)),
        tensor(0, (2, 3, 4), offset=-1),
        tensor(0, (2, -3, -4)),
        tensor(0, (2, 3, 4), strides=(-12, 4, 1), offset=12),
        tensor(0, (10**6, 10**6), strides=(0, 0), count=24),  # 4 TB out of nothing
        tensor(0, (2, 3, 4), count=23),
        tensor(0, (2, 3), count=24, kind="DoubleStorage"),
        tensor(7, (1,)),
        tensor(0, (2, 3, 4), strides=(12, 4)),
    ]
    for value in bad:
        for data in (archive({"x": value}, NUMBERS), legacy({"x": value}, NUMBERS[:1])):
            with pytest.raises(FormatError):
                read_torch(data)


def test_a_zip_bomb_is_refused():
    bomb = archive(STATE, [np.zeros(10**6), np.zeros(5)], compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(FormatError, match="compressed"):
        read_torch(bomb)


def test_arrays_that_are_no_layers_are_refused(tmp_path):
    """State dicts whose names or shapes nobody would expect; each is told in one line."""
    numbers = [np.arange(24)]
    odd = {
        "a number for a name": {0: tensor(0, (24,))},
        "no dimension": {"features.0.weight": tensor(0, (), 24)},
        "no array": {"features.0.weight": [tensor(0, (24,))]},
        "no text": {"features.0.weight": tensor(0, (2, 3, 4)), 1: tensor(0, (2, 3, 4))},
    }
    for value in odd.values():
        path = files.write(tmp_path / "net.pth", archive(value, numbers))
        with pytest.raises(FormatError, match=r"net\.pth: "):
            load_weights(path)


def test_a_blob_of_a_million_dimensions_is_refused_at_once():
    dims = files.field(7, files.field(1, b"\x7f" * 1_000_000))
    layer = files.field(1, b"conv1") + files.field(7, dims + files.field(5, bytes(8)))
    with pytest.raises(FormatError, match="a blob of 1,000,000 dimensions"):
        read_caffemodel(files.field(100, layer))


# --- truncated and bit-flipped files ------------------------------------------------------------


def sparse(data: bytes) -> dict[str, np.ndarray]:
    return {layer.name: layer.weight() for layer in read_deep_compression(data, SHAPES)}


def blobs(data: bytes) -> dict[str, np.ndarray]:
    return {f"{a.name}{i}": b for a in read_caffemodel(data) for i, b in enumerate(a.blobs)}


def caffe_layers() -> bytes:
    rng = np.random.default_rng(0)
    out = b""
    for name in (b"conv1", b"conv10"):
        arrays = (rng.normal(size=(3, 3, 2, 4)), rng.normal(size=4))
        layer = b"".join(files.field(7, files.blob(a.astype("f4"), v1=False)) for a in arrays)
        out += files.field(100, files.field(1, name) + layer)
    return out


READERS = {
    "net": (sparse, partial(files.deep_compression, SHAPES)),
    "caffemodel": (blobs, caffe_layers),
    "zip": (read_torch, lambda: LAYOUTS["zip"]),
    "legacy": (read_torch, lambda: LAYOUTS["legacy"]),
}


@pytest.mark.parametrize("kind", READERS)
def test_every_truncation_is_an_error(kind):
    read, make = READERS[kind]
    data = make()
    whole = read(data)
    for size in range(len(data)):
        try:
            part = read(data[:size])
        except FormatError:
            continue
        # a protocol buffer cut between two layers is whole as far as it goes, but lacks a layer
        assert kind == "caffemodel"
        assert part.keys() < whole.keys()


@pytest.mark.parametrize("kind", READERS)
def test_bit_flips_never_crash(kind):
    """Every bit of a small file. What has checksums never gives other numbers than were saved."""
    read, make = READERS[kind]
    data = make()
    whole = read(data)
    caught = 0
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        try:
            found = read(bytes(flipped))
        except FormatError:
            caught += 1
            continue
        if kind == "zip" and isinstance(found, dict):
            assert sorted(found) == sorted(whole)
            assert all(np.array_equal(found[name], whole[name]) for name in whole)
    assert caught > (100 if kind != "zip" else 0.3 * 8 * len(data))


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> dict[str, bytes]:
    """One small network in each format that carries a SHA-256."""
    folder = tmp_path_factory.mktemp("saved")
    weights = files.small(1, classes=2)
    made = {}
    for name, write in (("ours", write_safetensors), ("theirs", write_torchvision)):
        write(weights, folder / name)
        made[name] = (folder / name).read_bytes()
    return made


@pytest.mark.parametrize("kind", ["ours", "theirs"])
def test_flips_in_our_safetensors_are_always_found(saved, kind):
    """All bits of the header's first bytes, then bits anywhere: no other weights come out, ever."""
    data = saved[kind]
    whole = read_safetensors(data)
    rng = np.random.default_rng(0)
    header = 8 + int.from_bytes(data[:8], "little")
    places = [*range(128), *rng.integers(64, 8 * header, 600), *rng.integers(0, 8 * len(data), 40)]
    missed = 0
    for bit in places:
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        try:
            found = read_safetensors(bytes(flipped))
        except FormatError:
            continue
        missed += 1
        assert all(np.array_equal(found.flat[path], a) for path, a in whole.flat.items())
    assert missed < len(places) / 10  # a changed key or two that nothing depends on
    for size in [*range(100), header, len(data) // 2, len(data) - 1]:
        with pytest.raises(FormatError):
            read_safetensors(data[:size])


def test_flips_in_our_onnx_are_always_found(tmp_path):
    pytest.importorskip("onnx")
    weights = files.small(1, classes=2)
    write_onnx(weights, tmp_path / "net.onnx")
    data = (tmp_path / "net.onnx").read_bytes()
    rng = np.random.default_rng(0)
    for bit in rng.integers(0, 8 * len(data), 60):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        try:
            found = load_weights(files.write(tmp_path / "x.onnx", bytes(flipped)))
        except FormatError:
            continue
        assert files.same(found, weights)
    for size in rng.integers(0, len(data), 20):
        with pytest.raises(FormatError):
            load_weights(files.write(tmp_path / "x.onnx", data[:size]))


def test_flips_in_the_authors_file_are_told(shared_data, tmp_path):
    """No checksum: what the structure does not catch is still not called the authors' file."""
    data = (shared_data / "compressed_SqueezeNet.net").read_bytes()
    rng = np.random.default_rng(0)
    caught = 0
    for bit in rng.integers(0, 8 * len(data), 40):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        try:
            found = load_weights(files.write(tmp_path / "x.net", bytes(flipped)))
        except FormatError:
            caught += 1
            continue
        assert any("no checksum" in note for note in found.notes)
        assert all(np.isfinite(array).all() for array in found.flat.values())
    for size in (0, 1, 103, 104, 5000, len(data) - 1):
        with pytest.raises(FormatError, match="truncated"):
            load_weights(files.write(tmp_path / "x.net", data[:size]))
    with pytest.raises(FormatError, match="1 bytes are left"):
        load_weights(files.write(tmp_path / "x.net", data + b"\0"))


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30])
def test_impossible_numbers_are_refused(tmp_path, value):
    made = files.small(1)
    made.flat["fire5/squeeze/weight"][0, 0, 3, 3] = value
    data = files.caffemodel(made)
    with pytest.raises(FormatError, match="fire5/squeeze/weight"):
        load_weights(files.write(tmp_path / "net.caffemodel", data))


def test_a_negative_variance_is_refused(tmp_path):
    made = files.weight_set(squeezenet_cifar(classes=2, input_size=16, norm=True, pools=(1,)))
    made.flat["conv1_norm/var"][0] = -0.1
    write_safetensors(made, tmp_path / "net.safetensors")
    with pytest.raises(FormatError, match="conv1_norm/var: a negative variance"):
        load_weights(tmp_path / "net.safetensors")


@pytest.mark.parametrize("suffix", ["net", "caffemodel", "pth", "pt", "safetensors", "onnx"])
def test_noise_is_refused(tmp_path, suffix):
    if suffix == "onnx":
        pytest.importorskip("onnx")
    rng = np.random.default_rng(0)
    for size in (0, 1, 8, 100, 10_000):
        for head in (b"", b"PK\x03\x04", b"\x80\x02"):
            data = head + rng.bytes(size)
            with pytest.raises(FormatError) as refused:
                load_weights(files.write(tmp_path / f"x.{suffix}", data))
            assert len(str(refused.value).splitlines()) == 1
