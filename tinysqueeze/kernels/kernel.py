"""A kernel: a function that Numba compiles once, that reads a job, and that any thread may call.

Every kernel of this package has the same four arguments:

    @kernel("x x_unit y y_unit channels")
    def relu(job, first, count, thread): ...

`job` is a record of integers (and a few floats) that says what to do: where the arrays are in
memory, and how large. A kernel works on the units `first` to `first + count`, usually images, and
`thread` tells it which scratch memory is its own. Because all kernels look alike from outside, a
list of jobs is a program, and one loop can run it (see `team.py`).

Arrays reach a kernel as memory addresses, so it can check nothing: whoever makes the job is
responsible for the shapes. The plan is; people should call the plan.

Kernels are compiled when first needed and kept on disk. Numba's cache notices when a kernel's own
file changes, but not when a file that it uses does; so here the stamp that decides whether a cached
kernel is fresh is a digest of the whole package.
"""

import hashlib
from collections.abc import Callable, Iterable
from importlib import import_module
from pathlib import Path
from typing import Any

import numba
import numpy as np
from numba.core import config
from numba.core.caching import FunctionCache, IndexDataCacheFile
from numba.core.ccallback import CFunc
from numba.core.registry import cpu_target
from numba.core.runtime import rtsys

from tinysqueeze.kernels.target import TARGET

KERNELS: dict[str, "Kernel"] = {}
"""Every kernel of the package by name, in the order of definition."""


def source_digest() -> str:
    """A digest of every source file of this package, and of the processor it is compiled for."""
    digest = hashlib.sha256(repr(TARGET).encode())
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


SOURCE_DIGEST = source_digest()
"""Taken when the package is imported: files that change later are not the ones that run."""


class PackageCache(FunctionCache):
    """Numba's disk cache of a function, stale as soon as any file of this package changes.

    The digest is part of the files' names, so that processes of different versions never meet.
    """

    def __init__(self, function: Callable) -> None:
        super().__init__(function)
        self._cache_file = IndexDataCacheFile(
            cache_path=self.cache_path,
            filename_base=f"{self._impl.filename_base}-{SOURCE_DIGEST[:8]}",
            source_stamp=SOURCE_DIGEST,
        )

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """As Numba's, but machine code that is there already needs none of Numba's type library.

        Setting that up would take three times as long as all else before the first training step,
        and import SciPy. Only the functions that machine code may call must be known.
        """
        rtsys.initialize(target_context)
        with self._guard_against_spurious_io_errors():
            return self._load_overload(sig, target_context)

    def holds(self, signature: Any) -> bool:
        """Is there a fresh compiled version for this signature and processor?"""
        key = self._index_key(signature, cpu_target.target_context.codegen())
        return key in self._cache_file._load_index()


class Job:
    """A kernel with its arguments: one line of a program. It keeps the arrays it names alive."""

    def __init__(self, kernel: "Kernel", values: dict[str, Any]) -> None:
        values = dict.fromkeys(kernel.optional, 0) | values
        if missing := set(kernel.record.names or ()) ^ set(values):
            raise TypeError(f"{kernel.name}: arguments missing or unknown: {sorted(missing)}")
        self.kernel = kernel
        self.record = np.zeros(1, kernel.record)
        self.arrays: dict[str, np.ndarray] = {}
        self.set(**values)

    def set(self, **values: Any) -> None:
        """Changes some arguments. Arrays must be contiguous; they are passed by address."""
        for name, value in values.items():
            if isinstance(value, np.ndarray):
                self.arrays[name] = value
                value = value.ctypes.data
            self.record[name] = value


class Kernel:
    """A function compiled to the common signature (job, first, count, thread)."""

    def __init__(self, function: Callable, fields: str) -> None:
        self.name = function.__name__.strip("_")
        self.__doc__ = function.__doc__
        self.function = function
        self.record = np.dtype([_field(text) for text in fields.split()])
        self.optional = [_field(text)[0] for text in fields.split() if text.endswith("?")]
        self._compiled: Any = None  # Numba's CFunc

    def job(self, **values: Any) -> Job:
        """The kernel with these arguments: arrays, integers and floats by name."""
        return Job(self, values)

    @property
    def signature(self) -> Any:
        """void(record, int64, int64, int64); a record is passed by address."""
        return numba.void(numba.from_dtype(self.record), *[numba.int64] * 3)

    def is_cached(self) -> bool:
        """Is the machine code there already, in memory or on disk?"""
        if self._compiled is not None:
            return True
        return PackageCache(self.function).holds(self.signature)

    @property
    def address(self) -> int:
        """The address of the machine code; compiles it, or loads it from disk, the first time."""
        if self._compiled is None:
            signature = self.signature
            compiled = CFunc(
                self.function,
                (signature.args, signature.return_type),
                locals={},
                options={"error_model": "numpy", "fastmath": {"contract", "nsz"}},
            )
            compiled._cache = PackageCache(self.function)
            compiled.compile()
            self._compiled = compiled
        return self._compiled.address


def _field(text: str) -> tuple[str, str]:
    """ "x" -> an integer or address; "floor:f" -> a float; "x?" -> 0 where a job does not say."""
    name, _, kind = text.removesuffix("?").partition(":")
    return name, "f4" if kind == "f" else "i8"


def kernel(fields: str) -> Callable[[Callable], Kernel]:
    """Makes a kernel of a function of (job, first, count, thread); `fields` names the job's."""

    def decorate(function: Callable) -> Kernel:
        made = Kernel(function, " ".join(fields.split()))
        KERNELS[made.name] = made
        return made

    return decorate


def _all_kernels() -> list[Kernel]:
    """The kernels of every file of this package."""
    for path in sorted(Path(__file__).parent.glob("*.py")):
        if path.stem != "__init__":
            import_module(f"{__package__}.{path.stem}")
    return list(KERNELS.values())


def is_cached(kernels: Iterable[Kernel] | None = None) -> bool:
    """Are these kernels (by default all) compiled already, in memory or on disk, or never to be?"""
    return bool(config.DISABLE_JIT) or all(
        k.is_cached() for k in (_all_kernels() if kernels is None else kernels)
    )


def warm_up(
    kernels: Iterable[Kernel] | None = None, report: Callable[[int, int, str], None] | None = None
) -> None:
    """Compiles these kernels (by default all), or loads them from disk.

    `report(done, total, name)` is called before each kernel and once at the end, for a progress bar.
    """
    wanted = _all_kernels() if kernels is None else list(kernels)
    for done, one in enumerate(wanted):
        if report:
            report(done, len(wanted), one.name)
        assert one.address
    if report:
        report(len(wanted), len(wanted), "")
