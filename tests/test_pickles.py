"""What a pickle may build is closed: no attribute set, no foreign memory, no more than the file holds."""

import io
import os
import struct
import subprocess
import sys
import time
import tracemalloc
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
from torch_files import Stored, archive, legacy, pickled, tensor

from tinysqueeze.data import pickles
from tinysqueeze.data.unpickle import read_pickle
from tinysqueeze.errors import FormatError
from tinysqueeze.weights.formats.torch_file import read_torch

NUMBERS = [np.arange(1, 25)]
LAYOUTS = [archive, legacy]
REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n"
STORAGE = pickled(Stored(0, 24))[2:-1]  # without the protocol and the end
TENSOR = pickled(tensor(0, (2, 3, 4)))[2:-1]
FUZZED = int(os.environ.get("TINYSQUEEZE_FUZZ", "300"))  # pickles that the fuzzer tries


def text(name: str) -> bytes:
    return b"X" + struct.pack("<I", len(name)) + name.encode()


def program(*instructions: bytes) -> bytes:
    """A pickle of a dict: {"w": whatever the instructions leave}."""
    return b"\x80\x02}" + text("w") + b"".join(instructions) + b"s."


def refused(data: bytes) -> str:
    """Why the file is refused; quickly, and without memory to speak of."""
    tracemalloc.start()
    start = time.monotonic()
    with pytest.raises(FormatError) as error:
        read_torch(data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 40e6 + 20 * len(data)
    assert time.monotonic() - start < 10
    return str(error.value)


# --- attributes, methods and calls ---------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("count", [100, 1_000_000])
def test_a_storage_cannot_be_given_other_numbers(layout, count):
    """A view of stride 0 as a storage's numbers would reach count - 1 numbers beyond the real ones."""
    last = pickled(tensor(0, (count,), offset=count - 1, strides=(0,)))[2:-1]
    stored = pickled(Stored(0, count))[2:-1]
    state = b"}" + text("numbers") + last + b"s"
    evil = stored + state + b"b"
    size = b"J" + struct.pack("<i", count)
    made = program(REBUILD, b"(", evil, b"K\x00", size, b"\x85", b"K\x01\x85", b"tR")
    assert "gives a state to a Storage" in refused(layout(made, [np.ones(count)]))
    by_slots = made.replace(state, b"N" + state + b"\x86")
    assert "gives a state to a Storage" in refused(layout(by_slots, [np.ones(count)]))


@pytest.mark.parametrize(
    ("target", "deed"),
    [
        (TENSOR, b"}b"),
        (TENSOR, b"(K\x01K\x00\x85NN\x89tb"),  # ndarray.__setstate__
        (REBUILD, b"N}" + text("__defaults__") + b"(K\x01ts\x86b"),  # a function's defaults
        (b"ccollections\nOrderedDict\n", b"}" + text("x") + b"K\x01sb"),  # of the class
        (text("abc"), b"}b"),
        (b"]", b"}b"),
        (TENSOR, b"K\x00K\x07s"),
        (STORAGE, text("numbers") + b"Ns"),
        (STORAGE, b"(" + text("numbers") + b"Nu"),
        (TENSOR, b"Na"),
        (b"ccollections\nOrderedDict\n)R", b"Na"),
        (STORAGE, b"(Ne"),
        (b"}", b"(N\x90"),
        (TENSOR, b")R"),
        (text("abc"), b")R"),
        (b"ctorch\nFloatStorage\n", b")R"),
        (b"ctorch._utils\n_rebuild_parameter\n", TENSOR + b"R"),  # arguments that are no tuple
        (b"ctorch._utils\n_rebuild_parameter\n", b"(" + b"N" * 17 + b"tR"),
        (b"ctorch._utils\n_rebuild_parameter\n", b"}}NtR"),
        (b"ctorch._utils\n_rebuild_parameter\n", b"(}NNtR"),  # not a tensor
        (b"ccollections\nOrderedDict\n", b")\x81"),  # NEWOBJ
        (REBUILD, b"(" + TENSOR + b"K\x00)))tR"),  # a tensor in the place of its storage
        (STORAGE, b"Q"),
        (TENSOR, b"Q"),
        (b"K\x01", b"2"),
        (b"K\x01", b"0"),
    ],
)
def test_what_the_table_makes_is_opaque(target, deed):
    for layout in LAYOUTS:
        refused(layout(program(target, deed), NUMBERS))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_attributes_of_a_state_dict_change_nothing(layout):
    """PyTorch writes `_metadata`; others would take the place of methods."""
    state = b"".join(text(name) + REBUILD + b"s" for name in ("_metadata", "get", "items", "keys"))
    made = b"\x80\x02ccollections\nOrderedDict\n)R" + text("w") + TENSOR + b"s}" + state + b"b."
    found = read_torch(layout(made, NUMBERS))
    assert vars(found) == {}
    assert next(iter(found.items()))[1].sum() == 300


def test_values_that_are_endless_to_print_compare_or_look_up_are_refused():
    laughs = b"K\x01" + b"q\x01h\x01\x86" * 60  # a tuple of twice the tuple before
    for made in (
        program(b"}", laughs, b"Ns"),  # a key
        program(b"\x8f(", laughs, b"\x90"),  # in a set
        program(b"ccollections\nOrderedDict\n](]", laughs, b"aeN\x85R"),
        program(b"(", text("storage"), laughs, laughs, laughs, b"K\x01tQ"),
        program(b"(", laughs, b"K\x01K\x01K\x01K\x01tQ"),
        program(b"(", TENSOR, b"K\x01K\x01K\x01K\x01tQ"),
        program(REBUILD, b"(", STORAGE, b"K\x00", laughs, laughs, b"tR"),
    ):
        refused(archive(made, NUMBERS))
    keys = archive(program(b"}\x8a\x09", (1 << 61).to_bytes(9, "little"), b"Ns"), NUMBERS)
    assert "among its keys" in refused(keys)
    assert read_torch(archive(program(laughs), NUMBERS))["w"]  # harmless, where nobody walks it


def test_long_programs_and_copies_do_not_grow(monkeypatch):
    """A list of pairs is used up by the OrderedDict that it makes; it can't be copied a hundred times."""
    pairs = b"](" + b"".join(b"](" + text(str(i)) + b"Ne" for i in range(3)) + b"e"
    twice = b"](ccollections\nOrderedDict\nq\x01" + pairs + b"\x85q\x02Rh\x01h\x02Re"
    first, second = read_torch(archive(program(twice), NUMBERS))["w"]
    assert dict(first) == {"0": None, "1": None, "2": None}
    assert not second
    monkeypatch.setattr(pickles, "MOST_INSTRUCTIONS", 1000)
    assert "more than 1,000 instructions" in refused(archive(program(b"]" * 1000), NUMBERS))


def test_a_memo_with_gaps_costs_nothing():
    """In Python's own unpickler, the entry of number 2^31 would need 16 GB."""
    tracemalloc.start()
    made = b"\x80\x02}" + text("w") + b"]r\xff\xff\xff\x7fs."
    assert read_torch(archive(made)) == {"w": []}
    assert read_pickle(made, "batch") == {"w": []}
    assert tracemalloc.get_traced_memory()[1] < 1e6
    tracemalloc.stop()


# --- tensors and bytes ---------------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    "changes",
    [
        {"offset": True},
        {"offset": 1 << 62},
        {"offset": -(1 << 63)},
        {"offset": 0.0},
        {"shape": (True, 3, 4), "count": 24},
        {"shape": [2, 3, 4]},
        {"shape": (2, 3, 1 << 70), "count": 24, "strides": (0, 0, 0)},
        {"shape": (1 << 40, 1 << 40), "count": 24, "strides": (0, 0)},
        {"shape": (1,) * 40, "count": 24, "strides": (1,) * 40},
        {"strides": (12, 4, True)},
        {"strides": (12, 4, 1 << 61)},
        {"strides": (1 << 60, 1 << 60, 1 << 60)},
        {"strides": (12, 4, -1), "offset": 3},
        {"strides": "abc"},
        {"count": 1 << 62},
        {"count": True},
        {"count": -24},
        {"kind": "Storage"},
    ],
    ids=str,
)
def test_sizes_that_are_none_are_refused(layout, changes):
    good = {"number": 0, "shape": (2, 3, 4), "count": 24, "strides": (12, 4, 1)}
    call = tensor(**good)
    assert read_torch(layout({"w": call}, NUMBERS))["w"].sum() == 300
    wanted = good | changes
    stored = Stored(0, wanted["count"], wanted.get("kind", "FloatStorage"))
    sizes = (wanted.get("offset", 0), wanted["shape"], wanted["strides"])
    call.args = (stored, *sizes, False, OrderedDict())
    refused(layout({"w": call}, NUMBERS))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_overlapping_and_empty_tensors_are_read_within_the_bytes(layout):
    found = read_torch(
        layout(
            {
                "expanded": tensor(0, (5, 3), 24, 21, (0, 1)),
                "overlapping": tensor(0, (3, 2), 24, 0, (1, 1)),
                "transposed": tensor(0, (4, 6), 24, 0, (1, 4)),
                "number": tensor(0, (), 24, 23),
                "empty": tensor(0, (0, 3), 24, 24, (3, 1)),
            },
            NUMBERS,
        )
    )
    assert found["expanded"].tolist() == [[22, 23, 24]] * 5
    assert found["overlapping"].tolist() == [[1, 2], [2, 3], [3, 4]]
    assert np.array_equal(found["transposed"], np.arange(1, 25).reshape(6, 4).T)
    assert found["number"] == 24
    assert found["empty"].shape == (0, 3)


def brain_floats(numbers) -> np.ndarray:
    """bfloat16's bits of numbers that it holds exactly."""
    return (np.asarray(numbers, np.float32).view(np.uint32) >> 16).astype(np.uint16)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_bfloat16_is_widened_once_and_right(layout):
    shared = {f"layer{i}": tensor(0, (2, 3), kind="BFloat16Storage") for i in range(12)}
    found = read_torch(layout(shared, [brain_floats([0, 1, -2, 3, 0.5, 1024])]))
    for array in found.values():
        assert array.dtype == np.float32
        assert array.tolist() == [[0, 1, -2], [3, 0.5, 1024]]
        assert np.shares_memory(array, found["layer0"])


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", ["BFloat16Storage", "FloatStorage"])
def test_tensors_far_beyond_the_file_are_refused(layout, kind):
    """Two million bytes would become gigabytes, if each tensor were a copy."""
    bits = brain_floats(np.ones(1_000_000))
    numbers = [bits if kind == "BFloat16Storage" else np.ones(500_000)]
    many = [tensor(0, (len(numbers[0]),), kind=kind) for _ in range(1500)]
    assert "64 times as large as the file" in refused(layout(many, numbers))
    assert len(read_torch(layout(many[:20], numbers))) == 20


def test_storages_cannot_be_larger_than_the_file():
    """The legacy layout names its storages before they come; those of an archive might overlap."""
    many = [tensor(i, (10_000,)) for i in range(1000)]
    assert "larger than the file" in refused(legacy(many, [np.ones(10_000)] * 3))
    whole = archive({"w": tensor(0, (50_000,))}, [np.ones(50_000)])
    with zipfile.ZipFile(io.BytesIO(whole)) as made:
        entries, start = made.infolist(), made.start_dir
    first = next(entry for entry in entries if entry.filename.endswith("data/0"))
    central = whole[start : whole.rindex(b"PK\x05\x06")]
    row = central[central.index(b"net/data/0") - 46 :][: 46 + len(first.filename)]
    count = 500
    end = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, count + 4, count + 4,
                      len(central) + count * len(row), start, 0)  # fmt: skip
    overlapping = whole[:start] + central + row * count + end
    assert "entries are said to be larger" in refused(overlapping)
    assert "entries" in refused(b"PK\x03\x04" + b"PK\x01\x02" * 200_000)


# --- real files and random ones ------------------------------------------------------------------


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")
@pytest.mark.parametrize("protocol", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("archived", [True, False], ids=["zip", "legacy"])
def test_what_pytorch_really_writes_is_read(archived, protocol):
    torch = pytest.importorskip("torch")
    layer = torch.nn.Linear(3, 2)
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), *[layer] * 12)
    optimiser = torch.optim.Adam(net.parameters())
    layer(torch.ones(1, 3)).sum().backward()
    optimiser.step()
    odd = torch.arange(24.0).reshape(2, 3, 4)
    given = {
        "state_dict": net.state_dict(),
        "optimiser": optimiser.state_dict(),
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "views": [odd.transpose(0, 2), odd[1, 1:], odd[0, 0].expand(3, 4), odd[:0], odd[1, 2, 3]],
        "kinds": [odd.to(kind) for kind in (torch.bfloat16, torch.half, torch.double, torch.int64)],
        "rest": [1, 2.5, "text", None, True, (1, 2), 2**70],
    }
    assert net.state_dict()._metadata
    file = io.BytesIO()
    torch.save(given, file, _use_new_zipfile_serialization=archived, pickle_protocol=protocol)
    found = read_torch(file.getvalue())
    assert list(found["state_dict"]) == list(net.state_dict())
    assert found["rest"] == given["rest"]
    assert np.shares_memory(found["state_dict"]["2.weight"], found["state_dict"]["13.weight"])

    def compare(theirs, ours):
        if isinstance(theirs, torch.Tensor):
            wanted = theirs.detach()
            wanted = wanted.float() if wanted.dtype == torch.bfloat16 else wanted
            assert np.array_equal(ours, wanted.numpy())
            assert ours.dtype == wanted.numpy().dtype
        elif isinstance(theirs, dict):
            assert list(theirs) == list(ours)
            for name in theirs:
                compare(theirs[name], ours[name])
        elif isinstance(theirs, list):
            for one, other in zip(theirs, ours, strict=True):
                compare(one, other)

    compare(given, found)


def test_a_state_dict_of_python_2_is_read():
    """Its OrderedDict hands over a list of pairs, its texts are bytes."""
    pairs = b"](](U\x06weight" + TENSOR + b"e](U\x04more" + TENSOR + b"ee"
    made = b"\x80\x02ccollections\nOrderedDict\n" + pairs + b"\x85R."
    found = read_torch(archive(made, NUMBERS))
    assert list(found) == ["weight", "more"]
    assert found["more"].sum() == 300


def test_random_pickles_give_an_error_or_the_files_own_numbers():
    """More with TINYSQUEEZE_FUZZ=10000; in a process of its own, whose memory is limited."""
    script = Path(__file__).with_name("pickle_fuzz.py")
    for seed, count in enumerate([FUZZED - FUZZED // 2, FUZZED // 2]):
        command = [sys.executable, str(script), str(seed * 1_000_000), str(count)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60 + count)
        assert done.returncode == 0, done.stderr[-2000:]
        refused_, read, arrays = map(int, done.stdout.split())
        assert min(refused_, read, arrays) > count / 4  # it tries both


# --- CIFAR-10's ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "numbers"),
    [
        (b"M\x03\x00\x85", b"U\x04abcd"),
        (b"J\xff\xff\xff\xff\x85", b"U\x04abcd"),  # reshape would work out -1
        (b"\x88K\x04\x86", b"U\x04abcd"),
        (b"]K\x04a", b"U\x04abcd"),
        (b"\x8a\x09" + (1 << 64).to_bytes(9, "little") + b"K\x00\x86", b"U\x00"),
        (b"(" + b"K\x01" * 40 + b"K\x04t", b"U\x04abcd"),
        (b"K\x04\x85", b"]"),
        (b"K\x04\x85", b"N"),
    ],
)
def test_an_array_of_bytes_is_exactly_its_bytes(shape, numbers):
    def batch(shape: bytes, numbers: bytes) -> bytes:
        made = (
            b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        )
        return (
            made
            + b"(K\x01"
            + shape
            + b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R\x89"
            + numbers
            + b"tb."
        )

    found = read_pickle(batch(b"K\x02K\x02\x86", b"U\x04abcd"), "batch")
    assert found.array.tolist() == [[97, 98], [99, 100]]
    with pytest.raises(FormatError, match="batch: "):
        read_pickle(batch(shape, numbers), "batch")


@pytest.mark.parametrize(
    "deed", [b"}" + text("array") + b"Nsb", b"N}" + text("array") + b"Ns\x86b", b"K\x00Ns", b"Na"]
)
@pytest.mark.parametrize(
    "target",
    [
        b"cnumpy.core.multiarray\n_reconstruct\nNNN\x87R",
        b"cnumpy.core.multiarray\n_reconstruct\n",
        b"cnumpy\nndarray\n",
        b"cnumpy\ndtype\n",
        b"U\x03abc",
    ],
)
def test_the_stand_ins_for_numpy_are_closed(target, deed):
    with pytest.raises(FormatError, match=r"batch: refused .* nothing in it was run"):
        read_pickle(b"\x80\x02" + target + deed + b".", "batch")


def test_every_message_is_one_line_that_a_terminal_can_show():
    name = "os\nsystem\x1b[31m\ud800"
    raw = name.encode("utf-8", "surrogatepass")
    made = b"\x80\x04X" + struct.pack("<I", len(raw)) + raw + b"\x8c\x01x\x93."
    with pytest.raises(FormatError) as error:
        read_torch(archive(made))
    assert str(error.value).isprintable()
    assert r"os\nsystem\x1b[31m\ud800" in str(error.value)
    assert len(str(FormatError("x" * 10_000))) < 3000
