"""CIFAR-10's files: both dialects read without a warning, everything else refused, nothing run."""

import contextlib
import dataclasses
import gzip
import hashlib
import io
import os
import pickle
import pickletools
import runpy
import shutil
import struct
import tarfile
import time

import numpy as np
import pytest

from tinysqueeze.data import cifar10, load
from tinysqueeze.data.unpickle import read_pickle
from tinysqueeze.errors import DataError, FormatError

NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def py2(text: bytes) -> bytes:
    """A Python 2 string in a pickle."""
    return (
        b"U" + bytes([len(text)]) + text
        if len(text) < 256
        else b"T" + struct.pack("<i", len(text)) + text
    )


def py2_array(
    rows: np.ndarray, module: bytes = b"numpy.core.multiarray", dtype: bytes = b"u1"
) -> bytes:
    """A 2-D uint8 array as Python 2's NumPy pickled it."""
    shape = b"".join(b"M" + struct.pack("<H", n) for n in rows.shape)
    return (
        b"c" + module + b"\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01" + shape
        + b"\x86cnumpy\ndtype\n" + py2(dtype) + b"K\x00K\x01\x87R"
        + b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89" + py2(rows.tobytes()) + b"tb"
    )  # fmt: skip


def py2_batch(rows: np.ndarray, labels: np.ndarray, **kwargs: bytes) -> bytes:
    listed = b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    return (
        b"\x80\x02}(" + py2(b"batch_label") + py2(b"batch 1 of 5") + py2(b"labels") + listed
        + py2(b"data") + py2_array(rows, **kwargs) + b"u."
    )  # fmt: skip


def py2_meta(names: tuple[str, ...] = NAMES) -> bytes:
    listed = b"](" + b"".join(py2(name.encode()) for name in names) + b"e"
    return b"\x80\x02}(" + py2(b"label_names") + listed + b"u."


def write_batches(folder, count: int = 6):
    """CIFAR-10's layout with `count` images a batch; returns all rows and labels by file."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    content = {}
    for name in (*cifar10.BATCHES["train"], *cifar10.BATCHES["test"]):
        rows = rng.integers(0, 256, (count, 3072), np.uint8)
        labels = rng.integers(0, 10, count)
        (folder / name).write_bytes(py2_batch(rows, labels))
        content[name] = rows, labels
    (folder / "batches.meta").write_bytes(py2_meta())
    return content


@pytest.fixture
def official(tmp_path):
    write_batches(tmp_path / cifar10.FOLDER)
    return tmp_path / cifar10.FOLDER


@pytest.fixture
def archive(official):
    path = official.parent / "cifar-10-python.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        tar.add(official, cifar10.FOLDER)
    return path


# --- what is read ----------------------------------------------------------------------------


def test_folder_its_parent_and_the_archive_say_the_same(tmp_path):
    content = write_batches(tmp_path / "data" / cifar10.FOLDER)
    folder = tmp_path / "data" / cifar10.FOLDER
    with tarfile.open(tmp_path / "any-name.tgz", "w:gz") as tar:
        tar.add(folder, cifar10.FOLDER)
    for source in (folder, folder.parent, str(tmp_path / "any-name.tgz")):
        for split, names in cifar10.BATCHES.items():
            part = load(source, split)
            rows = np.concatenate([content[name][0] for name in names])
            assert np.array_equal(part.images.transpose(0, 3, 1, 2).reshape(-1, 3072), rows)
            assert np.array_equal(part.labels, np.concatenate([content[n][1] for n in names]))
            assert part.classes == NAMES
            assert part.images.flags.c_contiguous


@pytest.mark.parametrize("module", [b"numpy.core.multiarray", b"numpy._core.multiarray"])
def test_both_names_of_numpys_module(module):
    rows = np.arange(600, dtype=np.uint8).reshape(2, 300)
    batch = read_pickle(py2_batch(rows, np.array([3, 4]), module=module), "batch")
    assert np.array_equal(batch[b"data"].array, rows)
    assert batch[b"labels"] == [3, 4]


@pytest.mark.parametrize("protocol", [3, 4])
def test_a_batch_pickled_anew_by_python_3(official, protocol):
    rows, labels = np.arange(2 * 3072, dtype=np.uint8).reshape(2, 3072), [3, 4]
    batch = {"data": rows, "labels": labels}
    (official / "test_batch").write_bytes(pickle.dumps(batch, protocol=protocol))
    part = load(official, "test")
    assert np.array_equal(part.images[1, 0, :, 0], rows[1, :32])
    assert part.labels.tolist() == labels


@pytest.mark.slow
def test_the_real_thing(shared_data, tmp_path):
    """Real CIFAR-10 in the official dialect: means and deviations are the well-known ones."""
    from tinysqueeze.data import Normalise

    pytest.importorskip("PIL")
    make = runpy.run_path(str(shared_data / "make_cifar10.py"))
    make["main"](tmp_path)
    train, test = load(tmp_path), load(tmp_path, "test")
    assert (len(train), len(test)) == (50_000, 5_000)
    normalise = Normalise.of(train)
    np.testing.assert_allclose(normalise.mean, (0.4914, 0.4822, 0.4465), atol=5e-4)
    np.testing.assert_allclose(normalise.std, (0.2470, 0.2435, 0.2616), atol=3e-3)
    with np.load(shared_data / "cifar10_jpeg.npz") as packed:
        assert np.array_equal(train.labels, packed["train_labels"])


# --- what is refused -------------------------------------------------------------------------


class Runs:
    """Pickles as a call: what a hostile file does."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_a_pickle_that_runs_code_is_refused_and_nothing_runs(official, tmp_path, protocol):
    mark = tmp_path / "mark"
    evil = {"data": Runs(os.mkdir, str(mark)), "labels": []}
    (official / "test_batch").write_bytes(pickle.dumps(evil, protocol=protocol))
    with pytest.raises(FormatError, match=r"test_batch: refused .* nothing in it was run"):
        load(official, "test")
    assert not mark.exists()


@pytest.mark.parametrize(
    "program",
    [
        b"cos\nsystem\n(U\x04ls -tR.",  # GLOBAL and REDUCE
        b"(U\x04ls -ios\nsystem\n.",  # INST
        b"(cos\nsystem\nU\x04ls -o.",  # OBJ
        b"\x80\x02\x82\x01.",  # EXT1, the registry of extensions
        b"\x80\x02Pname\n.",  # PERSID
        b"\x80\x02cnumpy\nload\n.",
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct.__globals__\n.",
        b"\x80\x02cbuiltins\neval\n(U\x011tR.",
    ],
)
def test_every_way_to_call_something_is_refused(program):
    with pytest.raises(FormatError, match="refused"):
        read_pickle(program, "evil")


def test_other_arrays_than_bytes_are_refused():
    rows = np.zeros((2, 8), np.uint8)
    with pytest.raises(FormatError, match="not uint8"):
        read_pickle(py2_batch(rows, np.array([0]), dtype=b"O8"), "objects")


@pytest.mark.parametrize(
    "program",
    [
        b"\x80\x02T" + struct.pack("<i", 2**31 - 1) + b"short.",  # a string of 2 GB, it says
        b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b"short.",  # bytes of 1 TB
    ],
)
def test_sizes_that_lie_do_not_fill_the_memory(program):
    with pytest.raises(FormatError):
        read_pickle(program, "liar")


def test_every_truncation_and_many_flips_of_bits_fail_cleanly():
    whole = py2_batch(np.zeros((2, 20), np.uint8), np.array([1, 2]))
    assert {op.name for op, _, _ in pickletools.genops(whole)} >= {"GLOBAL", "REDUCE", "BUILD"}
    for length in range(len(whole)):
        with pytest.raises(FormatError, match="batch: "):
            read_pickle(whole[:length], "batch")
    rng = np.random.default_rng(0)
    for _ in range(2000):
        damaged = bytearray(whole)
        damaged[rng.integers(len(whole))] ^= 1 << rng.integers(8)
        with contextlib.suppress(FormatError):  # any other error fails the test
            read_pickle(bytes(damaged), "batch")


def replace(official, rows, labels):
    (official / "test_batch").write_bytes(py2_batch(rows, labels))


def test_wrong_contents_are_named(official):
    replace(official, np.zeros((2, 3072), np.uint8), np.array([1]))
    with pytest.raises(FormatError, match="test_batch: 2 images but 1 labels"):
        load(official, "test")
    replace(official, np.zeros((2, 3072), np.uint8), np.array([1, 10]))
    with pytest.raises(FormatError, match="test_batch: label 10, but there are only 10 classes"):
        load(official, "test")
    replace(official, np.zeros((2, 100), np.uint8), np.array([1, 2]))
    with pytest.raises(FormatError, match="expected an array of n x 3072 bytes"):
        load(official, "test")
    (official / "test_batch").write_bytes(pickle.dumps({"labels": [1]}, protocol=2))
    with pytest.raises(FormatError, match="there is no 'data' in it"):
        load(official, "test")
    (official / "test_batch").write_bytes(pickle.dumps([1, 2], protocol=2))
    with pytest.raises(FormatError, match="not CIFAR-10's format"):
        load(official, "test")


def test_names_of_classes_are_texts(official):
    laughs = b"K\x01" + b"q\x01h\x01\x86" * 60  # endless to print
    (official / "batches.meta").write_bytes(
        b"\x80\x02}" + py2(b"label_names") + b"]" + laughs + b"as."
    )
    with pytest.raises(FormatError, match=r"batches\.meta: expected a list of names"):
        load(official, "test")
    latin = b"}" + py2(b"label_names") + b"](" + py2("caf\xe9".encode("latin-1")) * 10 + b"es."
    (official / "batches.meta").write_bytes(b"\x80\x02" + latin)
    assert load(official, "test").classes[0] == "caf\ufffd"


def test_a_truncated_batch_and_a_missing_one_are_named(official):
    path = official / "data_batch_3"
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(FormatError, match=r"data_batch_3: truncated or not a pickle"):
        load(official)
    path.unlink()
    with pytest.raises(DataError, match=r"has no data_batch_3; expected batches\.meta"):
        load(official)


def test_a_batch_too_large_to_be_one_is_not_even_read(official, monkeypatch):
    monkeypatch.setattr(cifar10, "LARGEST_FILE", 1000)
    with pytest.raises(FormatError, match="too large to be a batch"):
        load(official)


# --- the archive -----------------------------------------------------------------------------


def test_truncated_and_foreign_archives_are_refused(archive, tmp_path):
    whole = archive.read_bytes()
    archive.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FormatError, match=r"cifar-10-python\.tar\.gz: truncated"):
        load(archive)
    other = tmp_path / "other.tar.gz"
    with tarfile.open(other, "w:gz") as tar:
        tar.add(__file__, "notes.txt")
    with pytest.raises(FormatError, match="not CIFAR-10's archive, it has no cifar-10-batches-py"):
        load(other)
    for content in (b"", b"just text", gzip.compress(b"not a tar" * 500)):
        other.write_bytes(content)
        with pytest.raises(FormatError):
            load(other)


def test_the_archive_is_read_to_its_check_sum(official, archive):
    """Every cut is refused, wherever the wanted files end; no flipped bit gives other images."""
    (official / "zzz").write_bytes(np.random.default_rng(0).bytes(20_000))  # behind the last batch
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(official, cifar10.FOLDER)
    whole = archive.read_bytes()
    expected = load(archive, "test")
    for size in (len(whole) - 1, len(whole) - 8, len(whole) - 15_000, len(whole) // 2, 20, 1):
        archive.write_bytes(whole[:size])
        with pytest.raises(FormatError, match="truncated"):
            load(archive, "test")
    rng = np.random.default_rng(0)
    for bit in [*range(8), *rng.integers(0, 8 * len(whole), 100), 8 * len(whole) - 40]:
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        archive.write_bytes(bytes(flipped))
        with contextlib.suppress(FormatError):  # the time or the name in gzip's header
            assert np.array_equal(load(archive, "test").images, expected.images)


def test_what_is_not_the_official_one_is_told(official, archive, monkeypatch):
    sums = {name: hashlib.md5((official / name).read_bytes()).hexdigest() for name in cifar10.MD5}
    (note,) = load(official).notes
    assert "not the official CIFAR-10 (by MD5: batches.meta, data_batch_1, " in note
    (note,) = load(archive, "test").notes
    assert note.startswith(f"{archive}: not the official CIFAR-10 (by MD5: ")
    monkeypatch.setattr(cifar10, "MD5", sums)
    assert load(official).notes == load(official, "test").notes == ()
    assert "not the official archive (its SHA-256 is another)" in load(archive).notes[0]
    data = archive.read_bytes()
    known = dataclasses.replace(
        cifar10.ARCHIVE, size=len(data), sha256=hashlib.sha256(data).hexdigest()
    )
    monkeypatch.setattr(cifar10, "ARCHIVE", known)
    assert load(archive).notes == ()


def test_one_batch_of_five_that_is_not_the_official_one_is_damage(official, monkeypatch):
    sums = {name: hashlib.md5((official / name).read_bytes()).hexdigest() for name in cifar10.MD5}
    monkeypatch.setattr(cifar10, "MD5", sums)
    data = bytearray((official / "data_batch_2").read_bytes())
    data[len(data) // 2] ^= 1  # a pixel: the pickle is whole
    (official / "data_batch_2").write_bytes(data)
    with pytest.raises(FormatError, match="data_batch_2 is not the official"):
        load(official)
    assert load(official, "test").notes == ()


def member(tar, name, content=b"", **fields):
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    tar.addfile(info, io.BytesIO(content))


def test_links_devices_and_strange_names_are_never_followed(official, tmp_path):
    """A link in the place of a batch is not a batch; nothing is written anywhere."""
    secret = tmp_path / "secret"
    secret.write_bytes((official / "test_batch").read_bytes())
    path = tmp_path / "evil.tar.gz"
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE):
        with tarfile.open(path, "w:gz") as tar:
            member(tar, f"{cifar10.FOLDER}/batches.meta", py2_meta())
            member(tar, f"../{cifar10.FOLDER}/test_batch", secret.read_bytes())
            member(tar, str(tmp_path / "written"), b"absolute")
            member(tar, f"{cifar10.FOLDER}/test_batch", type=kind, linkname=str(secret))
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(FormatError, match="it has no cifar-10-batches-py/test_batch"):
            load(path, "test")
        assert sorted(tmp_path.rglob("*")) == before


def test_an_archive_that_unpacks_without_end_is_stopped(tmp_path, monkeypatch):
    monkeypatch.setattr(cifar10, "LARGEST_ARCHIVE", 2**20)
    path = tmp_path / "bomb.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        member(tar, "readme.html", bytes(2**21))
        member(tar, f"{cifar10.FOLDER}/batches.meta", py2_meta())
    with pytest.raises(FormatError, match="unpacks to more than 1,048,576 bytes"):
        load(path)


def packed(*heads: bytes) -> bytes:
    return gzip.compress(b"".join(heads) + bytes(1024), 1)


def test_a_member_of_any_size_takes_no_time(tmp_path):
    """Python's tarfile skips what a header promises, though nothing is left to skip."""
    for size in (8**11 - 1, 2**80):
        info = tarfile.TarInfo("readme.html")
        info.size = size
        (tmp_path / "x.tar.gz").write_bytes(packed(info.tobuf(tarfile.GNU_FORMAT)))
        start = time.monotonic()
        with pytest.raises(
            FormatError, match=r"x\.tar\.gz: .*unpacks to more than 268,435,456 bytes"
        ):
            load(tmp_path / "x.tar.gz")
        assert time.monotonic() - start < 5
    head = tarfile.TarInfo("a")
    head.type = tarfile.XHDTYPE
    (tmp_path / "x.tar.gz").write_bytes(packed(head.tobuf() * 3000))  # headers of headers
    with pytest.raises(FormatError, match=r"x\.tar\.gz: "):
        load(tmp_path / "x.tar.gz")


def test_the_cache_serves_cifar10_without_a_network(archive, tmp_path, monkeypatch):
    """The offline way that the error message names: put the archive into the cache."""
    sha256 = hashlib.sha256(archive.read_bytes()).hexdigest()
    small = dataclasses.replace(
        cifar10.ARCHIVE, sha256=sha256, mirrors=("http://127.0.0.1:9/none",)
    )
    monkeypatch.setattr(cifar10, "ARCHIVE", small)
    cache = tmp_path / "cache"
    monkeypatch.setenv("TINYSQUEEZE_CACHE", str(cache))
    with pytest.raises(DataError, match=r"Without a network: put cifar-10-python\.tar\.gz"):
        load("cifar10", progress=False)
    shutil.copy(archive, cache / archive.name)
    assert len(load("cifar10", "test", progress=False)) == 6
