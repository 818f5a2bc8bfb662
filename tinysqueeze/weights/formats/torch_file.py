"""PyTorch's .pth and .pt files read without PyTorch, and without running anything that is in them.

A state dict is a pickle beside raw arrays, either inside a zip archive (since PyTorch 1.6) or, in
the legacy layout, one after the other. A pickle is a program; ours may only build dicts, lists,
numbers, strings and tensors. Everything else in it is refused by name before the first step is
taken.
"""

import io
import pickle
import pickletools
import struct
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable
from math import prod
from typing import Any, BinaryIO

import numpy as np

from tinysqueeze.errors import FormatError

# The type that PyTorch names in the pickle -> how its numbers lie in the file (little-endian).
STORAGES = {
    "FloatStorage": "<f4",
    "DoubleStorage": "<f8",
    "HalfStorage": "<f2",
    "BFloat16Storage": "<u2",  # the upper half of a float32; widened in `_tensor`
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "<i1",
    "ByteStorage": "<u1",
    "BoolStorage": "<?",
}
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PROTOCOL = 1001

# What a pickle of plain data needs. Not among them, for instance: INST and OBJ, which call a class.
OPCODE_NAMES = """
    PROTO FRAME STOP MARK POP POP_MARK DUP NONE NEWTRUE NEWFALSE INT LONG BININT BININT1 BININT2
    LONG1 LONG4 FLOAT BINFLOAT UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 STRING BINSTRING
    SHORT_BINSTRING BINBYTES SHORT_BINBYTES EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_LIST LIST
    APPEND APPENDS EMPTY_DICT DICT SETITEM SETITEMS EMPTY_SET ADDITEMS GET BINGET LONG_BINGET PUT
    BINPUT LONG_BINPUT MEMOIZE GLOBAL STACK_GLOBAL REDUCE BUILD BINPERSID"""
OPCODES = frozenset(OPCODE_NAMES.split())


class Storage:
    """The raw numbers that tensors are views of; `kind` is a key of STORAGES."""

    def __init__(self, kind: str, numbers: np.ndarray):
        self.kind = kind
        self.numbers = numbers


def read_torch(data: bytes) -> Any:
    """What `torch.save` saved, with tensors as arrays. Raises FormatError.

    bfloat16 is widened to float32, which changes no value; all else keeps its dtype.
    """
    try:
        if data[:4] == b"PK\x03\x04":
            return _read_zip(data)
        return _read_legacy(data)
    except FormatError:
        raise
    except (zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        raise FormatError(f"the archive is truncated or corrupt ({error})") from error
    except Exception as error:  # a damaged pickle makes the unpickler raise nearly anything
        reason = f"{type(error).__name__}: {error}"
        raise FormatError(f"truncated, corrupt, or not a file of PyTorch's ({reason})") from error


def _read_zip(data: bytes) -> Any:
    """The layout since PyTorch 1.6: NAME/data.pkl and NAME/data/0, 1, ...; each with its CRC-32."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = {_inside(entry.filename): entry for entry in archive.infolist()}
        if "data.pkl" not in entries:
            raise FormatError("a zip archive without data.pkl is not a file of PyTorch's")
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries.values()):
            raise FormatError("compressed entries, which PyTorch never writes")
        if "byteorder" in entries and archive.read(entries["byteorder"]) != b"little":
            raise FormatError("saved on a big-endian machine, which we do not read")
        storages: dict[str, Storage] = {}

        def storage(kind: str, key: str, count: int) -> Storage:
            if key not in storages:
                raw = archive.read(entries[f"data/{key}"])  # checks the CRC
                storages[key] = Storage(kind, np.frombuffer(raw, STORAGES[kind]))
            found = storages[key]
            if found.kind != kind or found.numbers.size != count:
                raise FormatError(f"storage {key} does not hold the {count} numbers it should")
            return found

        return _unpickle(io.BytesIO(archive.read(entries["data.pkl"])), storage)


def _inside(name: str) -> str:
    """The archive's own folder, whatever its name, is not part of an entry's name."""
    return name.split("/", 1)[-1]


def _read_legacy(data: bytes) -> Any:
    """The layout before: pickles (magic, version, machine, the object, keys), then the numbers."""
    stream = io.BytesIO(data)
    storages: dict[str, Storage] = {}

    def storage(kind: str, key: str, count: int) -> Storage:
        if key not in storages:
            if not 0 <= count * np.dtype(STORAGES[kind]).itemsize <= len(data):
                raise FormatError(f"storage {key} is said to be larger than the file")
            storages[key] = Storage(kind, np.zeros(count, STORAGES[kind]))  # filled below
        found = storages[key]
        if found.kind != kind or found.numbers.size != count:
            raise FormatError(f"storage {key} is named twice, with different sizes")
        return found

    if _unpickle(stream) != LEGACY_MAGIC:
        raise FormatError("neither a zip archive nor PyTorch's legacy layout")
    if _unpickle(stream) != LEGACY_PROTOCOL or not _unpickle(stream)["little_endian"]:
        raise FormatError("an unknown version of PyTorch's legacy layout, or big-endian")
    saved = _unpickle(stream, storage)
    keys = _unpickle(stream)
    if sorted(keys) != sorted(storages):
        raise FormatError("the list of storages does not match the tensors")
    for key in keys:
        _fill(storages[key].numbers, stream)
    if stream.read(1):
        raise FormatError("bytes are left after the last array")
    return saved


def _fill(numbers: np.ndarray, stream: BinaryIO) -> None:
    """Read one array of the legacy layout: a count (8 bytes), then the numbers."""
    (count,) = struct.unpack("<q", stream.read(8))
    raw = stream.read(numbers.nbytes)
    if count != numbers.size or len(raw) != numbers.nbytes:
        raise FormatError("the file ends inside an array: it is truncated")
    numbers[...] = np.frombuffer(raw, numbers.dtype)


def _tensor(
    storage: Storage, offset: int, shape: tuple[int, ...], strides: tuple[int, ...], *_: Any
) -> np.ndarray:
    """Stands in for torch._utils._rebuild_tensor_v2: a view of the storage, within its bounds."""
    last = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
    size = storage.numbers.size
    inside = prod(shape) == 0 or (offset >= 0 and last < size and prod(shape) <= size)
    if not inside or min((*shape, *strides), default=0) < 0:
        raise FormatError(f"a tensor of shape {tuple(shape)} reaches beyond its storage")
    item = storage.numbers.itemsize
    view = np.lib.stride_tricks.as_strided(
        storage.numbers[offset:], shape, [item * step for step in strides], writeable=False
    )
    if storage.kind == "BFloat16Storage":
        return (view.astype(np.uint32) << 16).view(np.float32)
    return view


def _parameter(data: np.ndarray, *_: Any) -> np.ndarray:
    """Stands in for torch._utils._rebuild_parameter."""
    return data


ADMITTED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
} | {("torch", kind): kind for kind in STORAGES}  # a mere name: it cannot be called


class _Unpickler(pickle.Unpickler):
    """Builds plain data and arrays; any other name in the pickle is refused."""

    def __init__(self, stream: BinaryIO, storage: Callable[[str, str, int], Storage] | None):
        super().__init__(stream, encoding="utf-8")
        self.storage = storage

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in for a name of PyTorch's, never the thing itself."""
        try:
            return ADMITTED[module, name]
        except KeyError:
            raise FormatError(
                f"it asks for {module}.{name}, which could run code; only tensors are admitted "
                "(save the state_dict alone: torch.save(model.state_dict(), path))"
            ) from None

    def persistent_load(self, key: Any) -> Storage:
        """("storage", kind, key, device, count[, ...]) -> the storage."""
        if self.storage is None or key[0] != "storage" or (len(key) > 5 and key[5] is not None):
            raise FormatError("it refers to something other than a storage")
        return self.storage(key[1], str(key[2]), int(key[4]))


def _unpickle(stream: io.BytesIO, storage: Callable[[str, str, int], Storage] | None = None) -> Any:
    """Load one pickle, after its opcodes were read through without running any."""
    start = stream.tell()
    limit = len(stream.getbuffer()) - start
    for opcode, argument, _ in pickletools.genops(stream):
        if opcode.name not in OPCODES:
            raise FormatError(f"the pickle holds {opcode.name}, which plain data does not need")
        if isinstance(argument, int) and "PUT" in opcode.name and argument > limit:
            raise FormatError("the pickle numbers its objects beyond its own length")
    end = stream.tell()
    stream.seek(start)
    one = io.BytesIO(stream.read(end - start))
    return _Unpickler(one, storage).load()
