"""Random pickles out of a grammar, for the readers of .pth files and of CIFAR-10's batches.

Run in a process of its own, `python pickle_fuzz.py SEED COUNT`: it limits its memory, and a crash ends
it. Most are nearly right, so that they get far: names, stored numbers, tensors, and then whatever an
instruction might do to them. Each must give a FormatError, or arrays made of the file's numbers alone.
"""

import random
import struct
import sys
import time

import numpy as np
from torch_files import archive, legacy

from tinysqueeze.data.unpickle import PickledArray, read_pickle
from tinysqueeze.errors import FormatError
from tinysqueeze.weights.formats.torch_file import read_torch

MEMORY = 512 << 20  # bytes that all the files together may take beside what is there already
SECONDS = 10  # for one file
NUMBERS = [np.arange(1, 25), np.full(6, 0x3F80, np.uint16)]  # 1 to 24; six ones in bfloat16
NAMES = [
    ("collections", "OrderedDict"), ("torch._utils", "_rebuild_tensor_v2"),
    ("torch._utils", "_rebuild_parameter"), ("torch", "FloatStorage"), ("torch", "BFloat16Storage"),
    ("torch", "DoubleStorage"), ("numpy.core.multiarray", "_reconstruct"), ("numpy", "ndarray"),
    ("numpy", "dtype"), ("os", "system"), ("builtins", "getattr"),
]  # fmt: skip
ATTRIBUTES = ["numbers", "kind", "array", "shape", "strides", "dtype", "get", "items", "__class__",
              "__dict__", "__defaults__", "__code__", "__setstate__", "_metadata", "labels",
              "storage", "0", "1", "data", "x"]  # fmt: skip
ODD = [0, 1, 2, 3, 4, 5, 6, 23, 24, 25, 255, -1, -2, 1 << 16, 1 << 31, 1 << 40, 1 << 62, 1 << 63,
       1 << 64, -(1 << 63), 1 << 200]  # fmt: skip
STATEFUL = [
    b"b",
    b"s",
    b"a",
    b"R",
    b"\x81",
    b"e",
    b"u",
    b"\x90",
    b"t",
    b"Q",
    b"2",
    b"0",
    b"1",
    b"o",
]


class Grammar:
    """Writes pickles; every method gives the instructions that leave one value on the stack."""

    def __init__(self, seed: int, torch: bool) -> None:
        self.random = random.Random(seed)
        self.torch = torch
        self.memo = 0

    def pickle(self) -> bytes:
        """A dict of named values, among them all that is stored."""
        values = [self.value(4) for _ in range(self.random.randint(1, 4))]
        values += [self.storage(number) for number in range(len(NUMBERS))] * self.torch
        return b"\x80\x02}(" + b"".join(self.text() + value for value in values) + b"u."

    def value(self, depth: int) -> bytes:
        """Anything, often followed by something done to it, or remembered."""
        kinds = [self.tensor if self.torch else self.array, self.plain]
        inner = [self.listed, self.dictionary, self.call, self.again, self.nested]
        inner += [self.ordered] * self.torch
        made = self.random.choice(2 * kinds + inner * (depth > 0))(depth - 1)
        if self.random.random() < 0.2:
            self.memo += 1
            made += b"q" + bytes([self.memo % 256])
        while depth > 0 and self.random.random() < 0.05:
            made += self.deed(depth - 1)
        return made

    def deed(self, depth: int) -> bytes:
        """Something done to the value on top of the stack, which leaves it there, more or less."""
        state = self.random.choice([self.state, self.value])(depth)
        return self.random.choice([
            state + b"b",  # BUILD
            self.text() + self.value(depth) + b"s",  # SETITEM
            self.value(depth) + b"a",  # APPEND
            b"(" + self.value(depth) + b"e",  # APPENDS
            b"(" + self.value(depth) + b"\x90",  # ADDITEMS
            b"(" + self.value(depth) + b"tR",  # REDUCE
            b"(" + self.value(depth) + b"t\x81",  # NEWOBJ
            b"Q",  # BINPERSID
            self.random.choice(STATEFUL),
        ])  # fmt: skip

    def state(self, depth: int) -> bytes:
        """What BUILD might set: a dict of attributes, or (None, attributes) for slots."""
        attributes = b"}" + self.text() + self.value(depth) + b"s"
        return self.random.choice([attributes, b"N" + attributes + b"\x86"])

    def plain(self, depth: int = 0) -> bytes:
        """A number, a text, nothing."""
        return self.random.choice([self.integer(), self.text(), b"N", b"\x88", b"G" + bytes(8)])

    def integer(self, usual: int | None = None) -> bytes:
        """An integer, often the usual one."""
        number = usual if usual is not None and self.random.random() < 0.98 else None
        number = self.random.choice(ODD) if number is None else number
        raw = number.to_bytes(number.bit_length() // 8 + 1, "little", signed=True)
        return b"\x8a" + bytes([len(raw)]) + raw  # LONG1

    def text(self, usual: str = "") -> bytes:
        """The usual text, or one that somebody might look for."""
        odd = not usual or self.random.random() < 0.01
        raw = (self.random.choice(ATTRIBUTES) if odd else usual).encode()
        return b"X" + struct.pack("<I", len(raw)) + raw

    def sizes(self, usual: list[int]) -> bytes:
        """A tuple of integers, often the usual ones."""
        if self.random.random() < 0.02:
            usual = usual[: self.random.randint(0, 2)] * self.random.randint(0, 40)
        return b"(" + b"".join(map(self.integer, usual)) + b"t"

    def name(self, wanted: int) -> bytes:
        """A name, nearly always the wanted one."""
        place = wanted if self.random.random() < 0.99 else self.random.randrange(len(NAMES))
        return "c{}\n{}\n".format(*NAMES[place]).encode()

    def storage(self, number: int) -> bytes:
        """A persistent id of the file's numbers."""
        kind, count = (3, 24) if number == 0 else (4, 6)
        raw = b"(" + self.text("storage") + self.name(kind) + self.text(str(number))
        made = raw + self.text() + self.integer(count) + b"tQ"
        return made + (self.deed(1) if self.random.random() < 0.03 else b"")

    def tensor(self, depth: int) -> bytes:
        """A tensor over one of the storages, mostly inside it."""
        number = self.random.randrange(2)
        shape, strides = self.random.choice(
            [([2, 3], [3, 1]), ([6], [1]), ([3, 2], [1, 3]), ([5], [0])]
        )
        parts = [self.storage(number), self.integer(0), self.sizes(shape), self.sizes(strides)]
        if self.random.random() < 0.05:
            self.random.shuffle(parts)
        return self.name(1) + b"(" + b"".join(parts) + b"\x89)tR"

    def array(self, depth: int) -> bytes:
        """An array of NumPy's, as CIFAR-10's files have it."""
        made = self.name(6) + self.name(7) + self.sizes([0]) + b"U\x01b\x87R"
        dtype = self.name(8) + b"U\x02u1K\x00K\x01\x87R"
        numbers = (
            b"U\x06\x01\x02\x03\x04\x05\x06" if self.random.random() < 0.9 else self.value(depth)
        )
        return made + b"(K\x01" + self.sizes([2, 3]) + dtype + b"\x89" + numbers + b"tb"

    def listed(self, depth: int) -> bytes:
        """A list, a tuple, a set."""
        inner = b"(" + b"".join(self.value(depth) for _ in range(self.random.randint(0, 3)))
        return self.random.choice([b"]" + inner + b"e", inner + b"t", b"\x8f" + inner + b"\x90"])

    def dictionary(self, depth: int) -> bytes:
        """A dict, its keys mostly texts."""
        key = self.text() if self.random.random() < 0.8 else self.value(depth)
        return b"}" + key + self.value(depth) + b"s"

    def ordered(self, depth: int) -> bytes:
        """An OrderedDict with attributes, as state dicts are."""
        pairs = self.random.choice([b")", b"](](" + self.text() + self.value(depth) + b"ee\x85"])
        return self.name(0) + pairs + b"R" + self.state(depth) + b"b"

    def call(self, depth: int) -> bytes:
        """A call of any name."""
        return (
            self.name(self.random.randrange(6) if self.torch else 6)
            + b"("
            + self.value(depth)
            + b"tR"
        )

    def again(self, depth: int) -> bytes:
        """Something remembered."""
        return b"h" + bytes([self.random.randint(1, self.memo) % 256]) if self.memo else b"N"

    def nested(self, depth: int) -> bytes:
        """Tuples of the same tuples twice: short to write, endless to print, compare or look up."""
        return b"K\x01" + b"q\xfeh\xfe\x86" * self.random.choice([1, 3, 60])


def arrays_in(value) -> list[np.ndarray]:
    """Every array that can be reached, without walking in circles."""
    found, seen, todo = [], set(), [value]
    while todo:
        here = todo.pop()
        if id(here) in seen:
            continue
        seen.add(id(here))
        if isinstance(here, PickledArray):
            here = here.array
        if isinstance(here, np.ndarray):
            found.append(here)
        elif isinstance(here, dict):
            todo += [*here.keys(), *here.values()]
        elif isinstance(here, list | tuple | set):
            todo += here
    return found


def inside(array: np.ndarray) -> bool:
    """Whether all of an array's memory belongs to what it is a view of."""
    owner = array
    while isinstance(owner.base, np.ndarray):
        owner = owner.base
    low, high = bounds(array)
    first, last = bounds(owner)
    return array.size == 0 or (first <= low and high <= last)


def bounds(array: np.ndarray) -> tuple[int, int]:
    """The addresses of an array's first byte and behind its last; its strides are not negative."""
    start = array.__array_interface__["data"][0]
    reach = sum((n - 1) * step for n, step in zip(array.shape, array.strides, strict=True))
    return start, start + reach + array.itemsize


def limit_memory() -> None:
    """No more than MEMORY above what this process has reserved, where the system can do that."""
    try:
        import resource

        with open("/proc/self/statm") as file:
            now = int(file.read().split()[0]) * resource.getpagesize()
    except (ImportError, OSError):
        return
    resource.setrlimit(resource.RLIMIT_AS, (now + MEMORY, now + MEMORY))


def main(seed: int, count: int) -> None:
    """Try files of every kind; prints how many were refused, read, and the arrays they held."""
    readers = (
        (True, lambda pickle: read_torch(archive(pickle, NUMBERS))),
        (True, lambda pickle: read_torch(legacy(pickle, NUMBERS))),
        (False, lambda pickle: read_pickle(pickle, "batch")),
    )
    limit_memory()
    refused = read = arrays = 0
    for number in range(seed, seed + count):
        start = time.monotonic()
        for torch, reader in readers:
            try:
                found = arrays_in(reader(Grammar(number, torch).pickle()))
            except FormatError:
                refused += 1
                continue
            read += 1
            arrays += len(found)
            for array in found:
                assert not array.flags.writeable, f"{number}: may be written to"
                assert inside(array), f"{number}: reaches beyond the file"
                assert array.size <= 256, f"{number}: more than the file explains"
                assert np.isin(array, np.arange(1, 25)).all(), f"{number}: foreign numbers"
        assert time.monotonic() - start < SECONDS, f"{number}: takes too long"
    print(refused, read, arrays)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
