"""PyTorch's .pth and .pt files read without PyTorch, and without running anything that is in them.

A state dict is a pickle beside raw arrays, either inside a zip archive (since PyTorch 1.6) or, in
the legacy layout, one after the other. A pickle is a program; ours may only build dicts, lists,
numbers, strings and tensors (`data.pickles`). A tensor is a view of an array of the file, and both
are held against the bytes that are there: no tensor reaches beyond its array, all arrays together
are no larger than the file, and all tensors together no larger than MOST_SHARED files.
"""

import io
import struct
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any, BinaryIO

import numpy as np

from tinysqueeze.data.pickles import Refused, put, read_pickle
from tinysqueeze.errors import FormatError

# The type that PyTorch names in the pickle -> how its numbers lie in the file (little-endian).
STORAGES = {
    "FloatStorage": "<f4",
    "DoubleStorage": "<f8",
    "HalfStorage": "<f2",
    "BFloat16Storage": "<u2",  # the upper half of a float32
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "<i1",
    "ByteStorage": "<u1",
    "BoolStorage": "<?",
}
WIDENED = {"BFloat16Storage": "<f4"}  # what NumPy has no type for: how it is read
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PROTOCOL = 1001

MOST_SHARED = 64  # layers may share weights, and a tensor may repeat a number
MOST_ENTRIES = 100_000  # of a zip archive; a tensor has one
MOST_DIMENSIONS = 32  # NumPy's
CENTRAL = b"PK\x01\x02"  # how a zip archive lists each entry at its end


def read_torch(data: bytes) -> Any:
    """What `torch.save` saved, with tensors as arrays that can't be written to. Raises FormatError.

    bfloat16 is widened to float32, which changes no value; all else keeps its dtype.
    """
    try:
        if data[:4] == b"PK\x03\x04":
            return _read_zip(data)
        return _read_legacy(data)
    except Refused as error:
        advice = (
            "only tensors are read: save the state_dict alone, torch.save(model.state_dict(), path)"
        )
        raise FormatError(f"{error}; {advice}") from error
    except FormatError:
        raise
    except (zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        raise FormatError(f"the archive is truncated or corrupt ({error})") from error
    except Exception as error:  # a damaged archive can fail in any way at all
        reason = f"{type(error).__name__}: {error}"
        raise FormatError(f"truncated, corrupt, or not a file of PyTorch's ({reason})") from error


def _read_zip(data: bytes) -> Any:
    """The layout since PyTorch 1.6: NAME/data.pkl and NAME/data/0, 1, ...; each with its CRC-32."""
    if data.count(CENTRAL) > MOST_ENTRIES:
        raise FormatError(f"an archive of more than {MOST_ENTRIES:,} entries")
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = {_inside(entry.filename): entry for entry in archive.infolist()}
        if "data.pkl" not in entries:
            raise FormatError("a zip archive without data.pkl is not a file of PyTorch's")
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries.values()):
            raise FormatError("compressed entries, which PyTorch never writes")
        if sum(entry.file_size for entry in archive.infolist()) > len(data):
            raise FormatError("its entries are said to be larger than the file: corrupt")
        if "byteorder" in entries and archive.read(entries["byteorder"]) != b"little":
            raise FormatError("saved on a big-endian machine, which we do not read")

        def numbers(kind: str, key: str, count: int) -> np.ndarray:
            if f"data/{key}" not in entries:
                raise FormatError(f"the archive has no numbers for storage {key}")
            return _numbers(kind, archive.read(entries[f"data/{key}"]))  # checks the CRC

        contents = _Contents(len(data), numbers)
        return contents.unpickled(io.BytesIO(archive.read(entries["data.pkl"])))


def _inside(name: str) -> str:
    """The archive's own folder, whatever its name, is not part of an entry's name."""
    return name.split("/", 1)[-1]


def _read_legacy(data: bytes) -> Any:
    """The layout before: pickles (magic, version, machine, the object, keys), then the numbers."""
    stream = io.BytesIO(data)
    plain = _Contents(0, lambda kind, key, count: np.empty(0))  # has no storages
    if plain.unpickled(stream) != LEGACY_MAGIC:
        raise FormatError("neither a zip archive nor PyTorch's legacy layout")
    version, machine = plain.unpickled(stream), plain.unpickled(stream)
    if version != LEGACY_PROTOCOL or machine["little_endian"] is not True:
        raise FormatError("an unknown version of PyTorch's legacy layout, or big-endian")
    contents = _Contents(
        len(data), lambda kind, key, count: np.zeros(count, WIDENED.get(kind, STORAGES[kind]))
    )
    saved = contents.unpickled(stream)
    keys = plain.unpickled(stream)
    if type(keys) is not list or any(type(key) is not str for key in keys):
        raise FormatError("the list of storages is none")
    if sorted(keys) != sorted(contents.storages):
        raise FormatError("the list of storages does not match the tensors")
    for key in keys:
        _fill(contents.storages[key], stream)
    if stream.read(1):
        raise FormatError("bytes are left after the last array")
    return saved


def _fill(storage: "Storage", stream: BinaryIO) -> None:
    """Read one array of the legacy layout: a count (8 bytes), then the numbers."""
    (count,) = struct.unpack("<q", stream.read(8))
    size = storage.numbers.size * np.dtype(STORAGES[storage.kind]).itemsize
    raw = stream.read(size)
    if count != storage.numbers.size or len(raw) != size:
        raise FormatError("the file ends inside an array: it is truncated")
    storage.numbers[...] = _numbers(storage.kind, raw)


def _numbers(kind: str, raw: bytes) -> np.ndarray:
    """The numbers of a storage from its bytes; bfloat16 as float32."""
    numbers = np.frombuffer(raw, STORAGES[kind])
    return (numbers.astype("<u4") << 16).view(WIDENED[kind]) if kind in WIDENED else numbers


@dataclass(frozen=True, slots=True)
class Storage:
    """The raw numbers that tensors are views of; `kind` is a key of STORAGES."""

    kind: str
    numbers: np.ndarray


class _Contents:
    """What the pickle of a file of `size` bytes may build: tensors over the file's own numbers.

    `numbers(kind, key, count)` makes the array of a storage, once.
    """

    def __init__(self, size: int, numbers: Callable[[str, str, int], np.ndarray]):
        self.size, self.numbers = size, numbers
        self.left, self.left_of_tensors = size, MOST_SHARED * size
        self.storages: dict[str, Storage] = {}
        self.names: dict[tuple[str, str], Any] = {
            ("collections", "OrderedDict"): _ordered_dict,
            ("torch._utils", "_rebuild_tensor_v2"): self.tensor,
            ("torch._utils", "_rebuild_parameter"): _parameter,
        } | {("torch", kind): kind for kind in STORAGES}  # a mere name: it cannot be called

    def unpickled(self, stream: BinaryIO) -> Any:
        """What the pickle at this place holds."""
        return read_pickle(stream, self.names, bytes.decode, _build, self.storage)

    def storage(self, key: Any) -> Storage:
        """("storage", kind, key, device, count[, None]) -> the storage."""
        known = type(key) is tuple and len(key) in (5, 6) and {type(k) for k in key[:3]} == {str}
        if not known or key[0] != "storage" or (len(key) == 6 and key[5] is not None):
            raise Refused("it refers to something other than a storage")
        _, kind, name, _, count = key[:5]
        if kind not in STORAGES or type(count) is not int or count < 0:
            raise FormatError("a storage whose kind or size is none")
        if name not in self.storages:
            self.left -= count * np.dtype(STORAGES[kind]).itemsize
            if self.left < 0:
                raise FormatError(f"storage {name} is said to be larger than the file")
            self.storages[name] = Storage(kind, self.numbers(kind, name, count))
        found = self.storages[name]
        if found.kind != kind or found.numbers.size != count:
            raise FormatError(f"storage {name} does not hold the {count} numbers it should")
        return found

    def tensor(self, storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> np.ndarray:
        """Stands in for torch._utils._rebuild_tensor_v2: a view of the storage, within its bounds."""
        if type(storage) is not Storage or type(shape) is not tuple or type(strides) is not tuple:
            raise FormatError("a tensor without a storage, a shape or strides")
        if len(shape) != len(strides) or len(shape) > MOST_DIMENSIONS:
            raise FormatError(f"a tensor of {len(shape)} dimensions with {len(strides)} strides")
        if any(type(n) is not int or not 0 <= n < 1 << 62 for n in (offset, *shape, *strides)):
            raise FormatError("a tensor whose offset, shape or strides are no sizes")
        numbers, item = storage.numbers, storage.numbers.itemsize
        last = offset + sum((n - 1) * step for n, step in zip(shape, strides, strict=True))
        if 0 in shape:  # no number at all, wherever it says that it lies
            offset, strides = 0, (0,) * len(shape)
        elif last >= numbers.size:
            raise FormatError(f"a tensor of shape {shape} reaches beyond its storage")
        self.left_of_tensors -= prod(shape) * item
        if self.left_of_tensors < 0:
            raise FormatError(
                f"its tensors would be more than {MOST_SHARED} times as large as the file's "
                f"{self.size:,} bytes: far more than shared weights explain"
            )
        # NumPy checks once more that the view stays inside its buffer, `numbers`.
        steps = tuple(step * item for step in strides)
        view = np.ndarray(shape, numbers.dtype, numbers, offset * item, steps)
        view.flags.writeable = False
        return view


def _parameter(data: Any, *_: Any) -> np.ndarray:
    """Stands in for torch._utils._rebuild_parameter."""
    if type(data) is not np.ndarray:
        raise FormatError("a parameter that is no tensor")
    return data


def _ordered_dict(pairs: Any = None) -> OrderedDict:
    """Stands in for collections.OrderedDict. Python 2 hands over a list of pairs: it is used up.

    Else a file could have it copied again and again.
    """
    made: OrderedDict = OrderedDict()
    if pairs is not None and type(pairs) is not list:
        raise Refused("it makes an OrderedDict of something other than pairs")
    for pair in pairs or ():
        if type(pair) not in (list, tuple) or len(pair) != 2:
            raise Refused("it makes an OrderedDict of something other than pairs")
        put(made, *pair)
    if pairs:
        pairs.clear()
    return made


def _build(target: Any, state: Any) -> None:
    """An OrderedDict's attributes (`_metadata`, versions of modules) are left out; no other has any."""
    if type(target) is not OrderedDict:
        raise Refused(f"it gives a state to a {type(target).__name__}")
