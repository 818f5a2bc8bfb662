"""The .tsq file: every way to store an array, damage of every kind, interrupted and full disks."""

import json
import os
import struct
import subprocess
import sys
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tinysqueeze import files
from tinysqueeze.cli import main
from tinysqueeze.errors import FormatError, UserError
from tinysqueeze.network.models import squeezenet1_0, squeezenet_cifar
from tinysqueeze.network.others import vgg16
from tinysqueeze.network.params import flatten, initialise
from tinysqueeze.show.pictures.compression import byte_map
from tinysqueeze.weights import (
    Preprocess,
    WeightSet,
    load_weights,
    open_weights,
    write_safetensors,
)
from tinysqueeze.weights.calibration import calibration_images
from tinysqueeze.weights.compression import calibrate, fileformat, pipeline, sizing
from tinysqueeze.weights.compression.deep_compression import (
    deep_compression_bytes,
    deep_compression_tensors,
)
from tinysqueeze.weights.compression.fileformat import Compressed, from_bytes, to_bytes
from tinysqueeze.weights.compression.inspect import inspect
from tinysqueeze.weights.compression.judging import halves, judge
from tinysqueeze.weights.compression.tensors import Dense, Shared, Stepped, exactly

TINY = {"base_e": 8, "incr_e": 8, "stem_filters": 8, "fires": 3, "pools": (1,)}


@pytest.fixture(scope="module")
def weights() -> WeightSet:
    """A network of 2,000 parameters, batch norm included, that stands for any."""
    model = squeezenet_cifar(norm=True, **TINY)
    size = model.input_shape[:2]
    preprocess = Preprocess(resize=size[0], crop=size)
    params = initialise(model, seed=1)
    return WeightSet(model, params, preprocess, "tiny", classes=tuple("abcdefghij"))


@pytest.fixture(scope="module")
def small(weights: WeightSet) -> Compressed:
    """With every kind of section in it."""
    rng = np.random.default_rng(3)
    tensors = dict(pipeline.shared(weights, bits=3, prune=0.5).tensors)
    paths = [path for path, tensor in tensors.items() if isinstance(tensor, Shared)]
    steps = np.rint(rng.laplace(0, 2, tensors[paths[0]].codes.shape)).astype(np.int32)
    tensors[paths[0]] = Stepped(steps, 0.125)
    codes = rng.integers(0, 8, tensors[paths[1]].codes.shape).astype(np.int32)
    tensors[paths[1]] = Shared(codes, rng.standard_normal(9).astype(np.float32))
    return pipeline.pack(weights, tensors)


@pytest.mark.parametrize("coding", fileformat.CODINGS)
def test_a_file_gives_back_what_was_stored(small: Compressed, coding: str) -> None:
    again = from_bytes(to_bytes(small, coding))
    assert again.model == small.model
    assert again.extra == json.loads(json.dumps(small.extra))
    for path, tensor in small.tensors.items():
        assert type(again.tensors[path]) is type(tensor)
        assert np.array_equal(again.tensors[path].values(), tensor.values())
        if isinstance(tensor, Shared):
            assert np.array_equal(again.tensors[path].codes, tensor.codes)


def test_lossless_is_lossless(weights: WeightSet) -> None:
    flat = {p: np.round(a, 1) if a.ndim == 4 else a for p, a in weights.flat.items()}
    coarse = replace(weights, params=pipeline.fitting(weights.model, flat))
    compressed = pipeline.lossless(coarse)
    again = pipeline.unpack(from_bytes(to_bytes(compressed)))
    assert all(np.array_equal(again.flat[path], flat[path]) for path in flat)
    assert again.preprocess == weights.preprocess
    assert again.classes == weights.classes
    assert any(isinstance(tensor, Shared) for tensor in compressed.tensors.values())


def test_exactly_keeps_signs_order_and_odd_values() -> None:
    array = np.array([[-0.5, 0.0, 1e-30], [3.0, -2.0, 3.0]], np.float32)
    tensor = exactly(array)
    assert isinstance(tensor, Shared)
    assert np.array_equal(tensor.values(), array)
    assert tensor.levels().tolist() == [[-1, 0, 1], [2, -2, 2]]
    assert isinstance(exactly(np.arange(600, dtype=np.float32).reshape(2, 300)), Dense)


def test_a_codebook_in_any_order_with_doubles_is_kept() -> None:
    codes = np.array([[1, 2, 3], [4, 0, 2]], np.int32)
    tensor = Shared(codes, np.array([0.5, -1.0, 0.5, 0.25], np.float32))
    levels = tensor.level_of_code()
    assert levels.tolist() == [0, 2, -1, 3, 1]
    assert len(set(levels.tolist())) == 5


# --- damage -------------------------------------------------------------------------------------


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
    """One of: bits flipped, cut off, bytes put in, bytes taken out, a block overwritten or swapped."""
    kind, size = rng.integers(6), len(data)
    at = int(rng.integers(size))
    count = int(rng.integers(1, 9))
    if kind == 0:
        changed = bytearray(data)
        for place in rng.integers(size, size=count):
            changed[place] ^= 1 << rng.integers(8)
        return bytes(changed)
    if kind == 1:
        return data[:at]
    if kind == 2:
        return data[:at] + rng.bytes(count) + data[at:]
    if kind == 3:
        return data[:at] + data[at + count :]
    if kind == 4:
        return data[:at] + bytes(count) + data[at + count :]
    other = int(rng.integers(size))
    first, second = sorted((at, other))
    return data[second:] + data[first:second] + data[:first]


@pytest.mark.parametrize("coding", fileformat.CODINGS)
def test_thousands_of_damaged_files_give_one_error(small: Compressed, coding: str) -> None:
    data = to_bytes(small, coding)
    rng = np.random.default_rng(7)
    refused = 0
    for _ in range(3000):
        broken = damaged(data, rng)
        if broken == data:
            continue
        with pytest.raises(FormatError):
            from_bytes(broken)
        refused += 1
    assert refused > 2900


def resealed(data: bytes, number: int, content: bytes, kind: bytes | None = None) -> bytes:
    """The file with a section's content replaced and every checksum made right again."""
    parts = fileformat.sections(data)
    parts[number] = (kind or parts[number][0], content)
    body = b"".join(fileformat._section(kind, content) for kind, content in parts)
    head = fileformat.HEADER.pack(
        fileformat.MAGIC, fileformat.VERSION, len(parts), 20 + len(body) + 32
    )
    whole = head + struct.pack("<I", zlib.crc32(head)) + body
    return whole + fileformat.hashlib.sha256(whole).digest()


@pytest.mark.parametrize("coding", fileformat.CODINGS)
def test_nonsense_under_right_checksums_never_crashes(small: Compressed, coding: str) -> None:
    """Such files are forged, not damaged: they may decode to other weights, or give the one error."""
    data = to_bytes(small, coding)
    assert resealed(data, 1, fileformat.sections(data)[1][1]) == data
    rng = np.random.default_rng(8)
    count = len(fileformat.sections(data))
    refused = 0
    for _ in range(250):
        number = int(rng.integers(count))
        content = fileformat.sections(data)[number][1]
        kind = rng.choice([b"D", b"H", b"C", b"c", b"S", b"?"]) if rng.random() < 0.1 else None
        try:
            found = from_bytes(resealed(data, number, damaged(content, rng), kind))
            for path, array in found.params().items():
                assert array.shape == small.tensors[path].values().shape
        except FormatError:
            refused += 1
    assert refused > 50


def test_forged_sizes_allocate_nothing(small: Compressed) -> None:
    for huge in (squeezenet1_0(classes=100_000), squeezenet1_0(base_e=8000), vgg16()):
        spec = fileformat.json.dumps({"spec": huge.spec}).encode()
        with pytest.raises(FormatError, match="more than this format holds"):
            from_bytes(resealed(to_bytes(small), 0, zlib.compress(spec)))
    with pytest.raises(FormatError, match="end where they should"):
        from_bytes(resealed(to_bytes(small), 0, zlib.compress(bytes(1 << 25))))  # a deflate bomb
    for spec in (b"[]", b"{}", b'{"spec": 3}', b'{"spec": {"name": "x"}}', b"\xff", b"nonsense"):
        with pytest.raises(FormatError):
            from_bytes(resealed(to_bytes(small), 0, zlib.compress(spec)))


def test_another_version_and_another_file_are_named(small: Compressed) -> None:
    data = bytearray(to_bytes(small))
    data[8] = 9
    data[16:20] = struct.pack("<I", zlib.crc32(bytes(data[:16])))
    with pytest.raises(FormatError, match="version 9"):
        from_bytes(bytes(data))
    with pytest.raises(FormatError, match=r"not a \.tsq"):
        from_bytes(b"PK\x03\x04" + bytes(100))
    with pytest.raises(FormatError):
        from_bytes(b"")


# --- the disk -----------------------------------------------------------------------------------


def test_a_full_disk_leaves_the_old_file(
    small: Compressed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "net.tsq"
    fileformat.write(path, small)
    before = path.read_bytes()

    def full(handle: int) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(UserError, match=r"net\.tsq"):
        fileformat.write(path, small, "huffman")
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["net.tsq"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_device_that_is_full_or_a_folder_that_is_missing(
    small: Compressed, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="cannot be written"):
        fileformat.write(tmp_path / "missing" / "net.tsq", small)
    with pytest.raises(UserError, match="cannot be read"):
        fileformat.read(tmp_path / "missing.tsq")


FULL = """
import resource, sys
from tinysqueeze.cli import main
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))  # every file ends at 1,000 bytes
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize("command", ["compress", "decompress", "export"])
def test_a_write_that_fails_half_way_costs_nothing(
    command: str, tmp_path: Path, weights: WeightSet
) -> None:
    """The system itself refuses to write on, as on a full disk; no mock."""
    pytest.importorskip("resource", reason="limits are Unix's")
    source = tmp_path / "net.safetensors"
    write_safetensors(weights, source)
    packed = tmp_path / "net.tsq"
    fileformat.write(packed, pipeline.lossless(weights))
    target = {
        "compress": packed,
        "decompress": tmp_path / "back.safetensors",
        "export": tmp_path / "copy.safetensors",
    }[command]
    if command != "compress":
        target.write_bytes(b"what was there")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    arguments = {
        "compress": [str(source), "-o", str(target)],
        "decompress": [str(packed), "-o", str(target)],
        "export": [str(source), str(target)],
    }[command]
    done = subprocess.run(
        [sys.executable, "-c", FULL, command, *arguments], capture_output=True, text=True
    )
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"tinysqueeze: {target}: cannot be written"), done.stderr
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


# --- where the bytes go -------------------------------------------------------------------------


@pytest.mark.parametrize("coding", fileformat.CODINGS)
def test_every_byte_is_accounted_for(small: Compressed, coding: str, tmp_path: Path) -> None:
    data = to_bytes(small, coding)
    lines = inspect(data)
    assert sum(line.bytes for line in lines) == len(data)
    assert sum(line.parameters for line in lines) == sum(
        t.values().size for t in small.tensors.values()
    )
    assert any("positions" in line.parts for line in lines) == (coding == "huffman")
    picture = byte_map(lines, "tiny")
    assert f"{len(data):,}" in picture.alt
    picture.save(str(tmp_path / "map.png"))


def test_sending_times() -> None:
    rows = pipeline.sending_times({"ours": 350_000})
    assert [row["bytes"] for row in rows] == [240_000_000, 4_800_000, 675_763, 470_000, 350_000]
    assert rows[0]["seconds at 1 Mbit/s"] == 1920
    assert rows[-1]["seconds at 100 Mbit/s"] == pytest.approx(0.028)


# --- the pipeline -------------------------------------------------------------------------------


def test_bits_and_pruning(weights: WeightSet) -> None:
    found = pipeline.shared(weights, bits=2, prune=0.75)
    for path, tensor in found.tensors.items():
        if isinstance(tensor, Shared):
            values = tensor.values()
            assert len(np.unique(values)) <= 4
            assert (values == 0).mean() >= 0.74, path
    for bits, prune in ((0, 0.0), (13, 0.0), (4, 1.0), (4, -0.1)):
        with pytest.raises(UserError):
            pipeline.shared(weights, bits, prune)


def test_sizes_are_kept(weights: WeightSet) -> None:
    full = len(to_bytes(pipeline.lossless(weights)))
    found = sizing.to_size(weights, full // 2)
    assert 0.9 * full // 2 < len(to_bytes(found)) <= full // 2
    with pytest.raises(UserError, match="does not fit"):
        sizing.to_size(weights, 500)


@pytest.mark.parametrize("bypass", [None, "simple", "complex"])
def test_calibration_beats_rounding_blindly(bypass: str | None, rng: np.random.Generator) -> None:
    """At the same size the answers on images never seen change less; batch norm and bypasses too."""
    wider = TINY | {"base_e": 32, "incr_e": 32, "stem_filters": 24}
    model = squeezenet_cifar(norm=bypass == "simple", bypass=bypass, **wider)
    size = model.input_shape[:2]
    blind = WeightSet(model, initialise(model, 2), Preprocess(resize=size[0], crop=size), "tiny")
    images = rng.random((24, 1, 1, 3)) + 0.5 * rng.random((24, *size, 3))
    images = images.astype(np.float32)
    known, new = images[:12], images[12:]
    before = model.forward(blind.params, new)[0]
    matrices = sum(array.size for array in blind.flat.values() if array.ndim > 1)
    target = len(to_bytes(pipeline.lossless(blind))) - 0.85 * 4 * matrices
    errors = []
    for photos in (None, known):
        found = sizing.to_size(blind, int(target), photos)
        after = model.forward(pipeline.unpack(found).params, new)[0]
        errors.append(float(((after - before) ** 2).mean()))
    assert errors[1] < 0.7 * errors[0]


# --- the command line ---------------------------------------------------------------------------


def test_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], weights: WeightSet
) -> None:
    source, small, back = (
        str(tmp_path / n) for n in ("net.safetensors", "net.tsq", "b.safetensors")
    )
    write_safetensors(weights, Path(source))
    assert main(["compress", source, "-o", small, "--bits", "4", "--prune", "0.5"]) == 0
    assert "times smaller" in capsys.readouterr().out
    assert main(["decompress", small, "-o", back]) == 0
    assert main(["inspect", small, "--out", str(tmp_path / "map.svg")]) == 0
    assert "fire2/squeeze/weight" in capsys.readouterr().out
    want = pipeline.shared(weights, 4, 0.5).params()
    found = load_weights(back).flat
    assert all(np.array_equal(found[path], want[path]) for path in want)
    assert flatten(load_weights(back).params).keys() == want.keys()


@pytest.mark.parametrize(
    "options",
    [
        ["--prune", "0.5"],
        ["--bits", "4", "--target-kb", "3"],
        ["--photos", "x"],
        ["--bits", "99"],
        ["--target-kb", "0.1"],
        ["--target-kb", "3", "--photos", "nowhere.jpg"],
    ],
)
def test_wrong_options_end_in_one_line(
    options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], weights: WeightSet
) -> None:
    source = str(tmp_path / "net.safetensors")
    write_safetensors(weights, Path(source))
    assert main(["compress", source, "-o", str(tmp_path / "net.tsq"), *options]) == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith("tinysqueeze: ")
    assert not (tmp_path / "net.tsq").exists()


# --- the authors' file --------------------------------------------------------------------------


def test_the_authors_file_is_written_bit_for_bit_and_recoded(shared_data: Path) -> None:
    """Their own codebooks and codes give their bytes; our recoding is 15 % smaller and loses none."""
    theirs = (shared_data / "compressed_SqueezeNet.net").read_bytes()
    model = squeezenet1_0(input_size=227, conv10_pad=1)
    tensors = deep_compression_tensors(theirs, model)
    assert deep_compression_bytes(tensors) == theirs
    for coding in fileformat.CODINGS:
        data = to_bytes(Compressed(model, tensors, {}), coding)
        assert len(data) < 0.85 * len(theirs)
        assert deep_compression_bytes(from_bytes(data).tensors) == theirs


def test_what_the_authors_format_cannot_hold(weights: WeightSet) -> None:
    with pytest.raises(UserError, match="authors' format"):
        deep_compression_bytes(pipeline.shared(weights, 4).tensors)  # batch norm
    plain = squeezenet_cifar(**TINY)
    tensors = {path: Dense(array) for path, array in flatten(initialise(plain)).items()}
    with pytest.raises(UserError, match="255 values"):
        deep_compression_bytes(tensors)


def test_a_file_does_not_depend_on_the_last_bits_of_a_sum(monkeypatch) -> None:
    """Other batches add up in another order, as another processor does; the bytes stay."""
    model = squeezenet_cifar(base_e=32, incr_e=16, fires=3, pools=(1, 2), stem_filters=16)
    size = model.input_shape[:2]
    given = WeightSet(model, initialise(model, 1), Preprocess(resize=size[0], crop=size), "small")
    photos = np.random.default_rng(0).standard_normal((24, *model.input_shape)).astype(np.float32)
    files = []
    for batch in (10, 7):
        monkeypatch.setattr(calibrate, "BATCH", batch)
        files.append(to_bytes(sizing.to_size(given, 3_500, photos)))
    assert files[0] == files[1]


@pytest.mark.slow
def test_the_authors_network_by_photographs_left_out(shared_data: Path, tmp_path: Path) -> None:
    """In 310 kB, calibrated on every second photograph without labels, judged by the others alone.

    A photograph of the hundred is a point of top-1 and top-5, which their file gets right on 71 and 92.
    """
    weights = open_weights(shared_data / "compressed_SqueezeNet.net")
    chosen, others = halves(weights, shared_data / "imagenet200")
    images = calibration_images(weights, chosen, 100)
    data = to_bytes(sizing.to_size(weights.with_classes(()), 310_000, images))
    assert 0.98 * 310_000 < len(data) <= 310_000
    found = judge(weights, pipeline.unpack(from_bytes(data)), others, images)
    print(f"{len(data):,} bytes", *found.lines(), sep="\n")
    assert found.images == found.labelled == 100
    assert (found.first[0], found.five[0]) == (71, 92)
    assert found.same >= 88
    assert found.nats < 0.045
    assert found.first[1] >= 69
    assert found.five[1] >= 89
