"""PyTorch's files written by hand, for tests: with its names in the pickle, and without PyTorch."""

import io
import pickle
import struct
import zipfile
from collections import OrderedDict

import numpy as np


class Global:
    """Pickles as a call of `module.name(*args)`, whatever that is."""

    def __init__(self, module: str, name: str, *args):
        self.module, self.name, self.args = module, name, args


class TorchPickler(pickle._Pickler):
    """Writes names of modules that need not be installed here, as torch.save would."""

    def save_call(self, call: Global) -> None:
        self.write(f"c{call.module}\n{call.name}\n".encode())
        if call.args:
            self.save(tuple(call.args))
            self.write(pickle.REDUCE)

    def persistent_id(self, obj):
        return obj.key if isinstance(obj, Stored) else None

    dispatch = pickle._Pickler.dispatch | {Global: save_call}


class Stored:
    """A reference to a storage."""

    def __init__(self, number: int, count: int, kind: str = "FloatStorage"):
        self.key = ("storage", Global("torch", kind), str(number), "cpu", count)


def tensor(number: int, shape, count=None, offset=0, strides=None, kind="FloatStorage") -> Global:
    """A tensor as the pickle of torch.save holds it."""
    count = int(np.prod(shape)) if count is None else count
    strides = strides or tuple(int(np.prod(shape[i + 1 :])) for i in range(len(shape)))
    stored = Stored(number, count, kind)
    return Global(
        "torch._utils", "_rebuild_tensor_v2",
        stored, offset, tuple(shape), strides, False, OrderedDict(),
    )  # fmt: skip


def pickled(value) -> bytes:
    """The pickle of a value; bytes are one already."""
    if isinstance(value, bytes):
        return value
    out = io.BytesIO()
    TorchPickler(out, protocol=2).dump(value)
    return out.getvalue()


def stored(numbers) -> np.ndarray:
    """A storage's numbers as they lie in a file: uint16 (bfloat16's bits) as it is, else float32."""
    numbers = np.asarray(numbers)
    return numbers if numbers.dtype == np.uint16 else numbers.astype("<f4")


def archive(value, storages=(), **options) -> bytes:
    """The zip layout of torch.save."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", **options) as made:
        parts = {"data.pkl": pickled(value), "byteorder": b"little"}
        parts |= {f"data/{i}": stored(numbers).tobytes() for i, numbers in enumerate(storages)}
        for name, content in (parts | {"version": b"3\n"}).items():  # without the time of the day
            made.writestr(zipfile.ZipInfo(f"net/{name}"), content, made.compression)
    return out.getvalue()


def legacy(value, storages=()) -> bytes:
    """The layout before the zip archive."""
    machine = {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}
    head = [0x1950A86A20F9469CFC6C, 1001, machine, value, [str(i) for i in range(len(storages))]]
    body = [struct.pack("<q", len(numbers)) + stored(numbers).tobytes() for numbers in storages]
    return b"".join(map(pickled, head)) + b"".join(body)
