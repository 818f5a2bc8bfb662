"""Read CIFAR-10's pickles without letting them run anything.

A pickle is a small program: it may import any function and call it. Here it is read twice. First as
a list of instructions, without carrying them out: only those that build plain data are admitted, and
each must be whole. Then it is carried out by an unpickler whose only three names are stand-ins of
this file for what NumPy wrote; nothing is imported.

The stand-ins also read Python 2's dialect, which NumPy 2 itself reads only with warnings.
"""

import io
import pickle
import pickletools
from typing import Any

import numpy as np
import numpy.typing as npt

from tinysqueeze.errors import FormatError

INSTRUCTIONS = """
    PROTO FRAME STOP MARK MEMOIZE BINPUT LONG_BINPUT BINGET LONG_BINGET
    NONE NEWTRUE NEWFALSE BININT BININT1 BININT2
    BINSTRING SHORT_BINSTRING BINBYTES SHORT_BINBYTES BINUNICODE SHORT_BINUNICODE
    EMPTY_DICT SETITEM SETITEMS EMPTY_LIST APPEND APPENDS
    EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 GLOBAL STACK_GLOBAL REDUCE BUILD
""".split()  # noqa: SIM905, a table reads better than 37 quoted strings
WHY = "tinysqueeze only reads plain data from pickles, so nothing in it was run"


class PickledArray:
    """Stands in for numpy.ndarray: takes the shape and the bytes that NumPy wrote."""

    array: npt.NDArray[np.uint8] = np.empty(0, np.uint8)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, data = state
        if not isinstance(dtype, _Dtype) or fortran or type(data) is not bytes:
            raise FormatError(f"an array that is not plain uint8; {WHY}")
        self.array = np.frombuffer(data, np.uint8).reshape(shape)


class _Dtype:
    """Stands in for numpy.dtype, of which only uint8 is admitted."""

    def __init__(self, code: str | bytes, align: int, copy: int) -> None:
        if code not in ("u1", b"u1"):
            raise FormatError(f"an array of type {code!r}, not uint8; {WHY}")

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        """Byte order, alignment and the like, which mean nothing for single bytes."""


def _reconstruct(kind: Any, shape: Any, code: Any) -> PickledArray:
    return PickledArray()


STAND_INS = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,  # NumPy 1, and Python 2
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,  # NumPy 2
    ("numpy", "ndarray"): PickledArray,
    ("numpy", "dtype"): _Dtype,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in STAND_INS:
            raise FormatError(f"refused a pickle that asks for {module}.{name}; {WHY}")
        return STAND_INS[module, name]


def read_pickle(data: bytes, name: str) -> Any:
    """The dicts, lists, numbers, strings and uint8 arrays that the pickle `data` holds.

    `name` is the file's, for messages. Python 2's strings come as bytes, arrays as PickledArray.
    Raises FormatError where the data is cut short, or asks for more than CIFAR-10's files do.
    """
    try:
        for count, (instruction, argument, _) in enumerate(pickletools.genops(data)):
            if instruction.name not in INSTRUCTIONS:
                raise FormatError(f"refused the pickle instruction {instruction.name}; {WHY}")
            if "BINPUT" in instruction.name and (argument or 0) > count:
                raise FormatError("damaged pickle: its memo is out of order")  # would fill memory
        return _Unpickler(io.BytesIO(data), encoding="bytes").load()
    except FormatError as error:
        raise FormatError(f"{name}: {error}") from None
    except Exception as error:  # a damaged pickle can fail in any way at all
        raise FormatError(f"{name}: truncated or not a pickle ({error})") from error
