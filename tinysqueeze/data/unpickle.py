"""Read CIFAR-10's pickles, without NumPy and without letting them run anything.

They hold dicts, lists and one array of bytes; stand-ins of this file take what NumPy wrote about the
array, in any version's dialect and in Python 2's, which NumPy 2 itself reads only with warnings.
"""

import io
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from tinysqueeze.data.pickles import Refused
from tinysqueeze.data.pickles import read_pickle as read
from tinysqueeze.errors import FormatError

WHY = "tinysqueeze only reads plain data from pickles, so nothing in it was run"


class PickledArray:
    """Stands in for a numpy.ndarray of bytes."""

    array: npt.NDArray[np.uint8] = np.empty(0, np.uint8)


class _Dtype:
    """Stands in for numpy.dtype, of which only uint8 is admitted."""

    def __init__(self, code: Any, align: Any, copy: Any) -> None:
        if type(code) not in (str, bytes) or code not in ("u1", b"u1"):
            raise Refused("it holds an array of another type, not uint8")


def _reconstruct(kind: Any, shape: Any, code: Any) -> PickledArray:
    return PickledArray()


NAMES = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,  # NumPy 1, and Python 2
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,  # NumPy 2
    ("numpy", "ndarray"): "ndarray",  # a mere name, which cannot be called
    ("numpy", "dtype"): _Dtype,
}


def _build(target: Any, state: Any) -> None:
    """Give an array its shape and bytes; a dtype's state means nothing for single bytes."""
    if type(target) is _Dtype:
        return
    if type(target) is not PickledArray or type(state) is not tuple or len(state) != 5:
        raise Refused(f"it gives a state to a {type(target).__name__}")
    _, shape, dtype, fortran, data = state
    if type(dtype) is not _Dtype or fortran is not False or type(data) is not bytes:
        raise Refused("it holds an array that is not plain uint8")
    if type(shape) is not tuple or len(shape) > 4 or any(type(n) is not int for n in shape):
        raise Refused("it holds an array whose shape is none")
    if min(shape, default=0) < 0 or prod(shape) != len(data):
        raise FormatError(f"an array of shape {shape} has {len(data):,} bytes")
    target.array = np.frombuffer(data, np.uint8).reshape(shape)


def read_pickle(data: bytes, name: str) -> Any:
    """The dicts, lists, numbers, strings and uint8 arrays that the pickle `data` holds.

    `name` is the file's, for messages. Python 2's strings come as bytes, arrays as PickledArray.
    Raises FormatError where the data is cut short, or asks for more than CIFAR-10's files do.
    """
    try:
        return read(io.BytesIO(data), NAMES, bytes, _build)
    except Refused as error:
        raise FormatError(f"{name}: refused the pickle: {error}; {WHY}") from None
    except FormatError as error:
        raise FormatError(f"{name}: {error}") from error
