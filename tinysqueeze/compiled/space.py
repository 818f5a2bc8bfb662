"""Where numbers lie: buffers, scratch memory, views of maps in them, and tables of offsets.

A plan is built twice. The first time its space only notes how much of everything is asked for;
then the memory is allocated, and the second time the jobs get real addresses.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, TypeVar

import numpy as np

from tinysqueeze.compiled.steps import Map
from tinysqueeze.kernels.kernel import Job, Kernel

Built = TypeVar("Built")
LINE = 16
"""Floats in a cache line of 64 bytes: every buffer begins at one."""


def aligned(size: int, dtype: Any = np.float32) -> np.ndarray:
    """Zeros that begin at a cache line; a vector that crosses two takes twice as long to load."""
    dtype = np.dtype(dtype)
    raw = np.zeros(size * dtype.itemsize + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + size * dtype.itemsize].view(dtype)


@dataclass(frozen=True)
class Halo:
    """Zeros around a map: the padding of the convolutions that read it."""

    top: int = 0
    left: int = 0
    bottom: int = 0
    right: int = 0

    def around(self, other: "Halo") -> "Halo":
        """Large enough for both."""
        sides = ("top", "left", "bottom", "right")
        return Halo(*(max(getattr(self, side), getattr(other, side)) for side in sides))


NONE = Halo()
IMAGES = np.empty(0, np.float32)
"""In place of the caller's images, which jobs are given before each run (`Sequence.programs`)."""


@dataclass(frozen=True)
class View:
    """A map in memory: `array[start:]`, with strides in floats.

    `unit` moves the beginning for each image before the chunk, `thread` for each thread (one of
    them is 0: a buffer for the batch, or scratch memory of a thread); `next`, `row` and `pixel` are
    the strides inside the chunk.
    """

    array: np.ndarray
    start: int
    unit: int
    thread: int
    next: int
    row: int
    pixel: int
    height: int
    width: int
    channels: int
    halo: Halo = NONE

    @classmethod
    def of(cls, size: Map, halo: Halo = NONE, pixel: int = 0) -> "View":
        """A map for each image of a batch, of `pixel` floats a pixel (otherwise with padding).

        It lies nowhere yet: the array is IMAGES.
        """
        pixel = pixel or size.padded
        row = (halo.left + size.width + halo.right) * pixel
        image = (halo.top + size.height + halo.bottom) * row
        start = halo.top * row + halo.left * pixel
        return cls(IMAGES, start, image, 0, image, row, pixel, size.height, size.width, pixel, halo)

    def part(self, offset: int, channels: int) -> "View":
        """Some of the channels."""
        return replace(self, start=self.start + offset, channels=channels)

    def moved(self, rows: int, columns: int) -> "View":
        """Beginning so many pixels further down and right."""
        return replace(self, start=self.start + rows * self.row + columns * self.pixel)

    def whole(self) -> "View":
        """Each image with its halo as a single pixel."""
        start = self.moved(-self.halo.top, -self.halo.left)
        return replace(start, height=1, width=1, channels=self.next, halo=NONE)

    def as_rows(self) -> "View":
        """The same with each row as one pixel, where rows have no gaps between their pixels."""
        if self.pixel != self.channels:
            return self
        return replace(self, width=1, channels=self.width * self.channels)

    def fields(self, name: str, kernel: Kernel) -> dict[str, Any]:
        """What `kernel` wants to know of this view under `name`."""
        values = {name: self.array[self.start :]}
        for field in ("unit", "thread", "next", "row", "pixel"):
            values[f"{name}_{field}"] = getattr(self, field)
        return {key: value for key, value in values.items() if key in (kernel.record.names or ())}


def job(kernel: Kernel, views: dict[str, View], **values: Any) -> Job:
    """A job of a kernel from the views it works on and its other arguments."""
    for name, view in views.items():
        values |= view.fields(name, kernel)
    return kernel.job(**values)


class Space:
    """Hands out memory: buffers by name for the batch, scratch by name for each thread.

    As made it only measures: what it hands out is empty. `allocated()` gives one that really does.
    """

    def __init__(self, threads: int, sizes: dict[str, int] | None = None) -> None:
        self.threads = threads
        self.sizes: dict[str, int] = {} if sizes is None else sizes
        self.measuring = sizes is None
        self.arrays: dict[str, np.ndarray] = {}

    def allocated(self) -> "Space":
        """A space with memory for all that was asked of this one."""
        return Space(self.threads, self.sizes)

    def array(self, name: str, size: int, dtype: Any = np.float32) -> np.ndarray:
        """A zeroed buffer of its own; asked for twice, the larger size counts."""
        size = -(-size // LINE) * LINE + LINE
        if self.measuring:
            self.sizes[name] = max(self.sizes.get(name, 0), size)
            return np.empty(0, dtype)
        if name not in self.arrays:
            self.arrays[name] = aligned(self.sizes[name], dtype)
        return self.arrays[name]

    def scratch(self, name: str, size: int) -> tuple[np.ndarray, int]:
        """Memory for each thread, and the floats from one thread's to the next's."""
        name = f"scratch {name}"
        stride = -(-size // LINE) * LINE + LINE
        if self.measuring:
            self.sizes[name] = max(self.sizes.get(name, 0), self.threads * stride)
            return np.empty(0, np.float32), 0
        return self.array(name, 0), self.sizes[name] // self.threads

    @property
    def bytes(self) -> int:
        """All that it has allocated."""
        return sum(array.nbytes for array in self.arrays.values())

    def buffer(self, name: str, batch: int, size: Map, halo: Halo = NONE) -> View:
        """A map for each image of the batch."""
        view = View.of(size, halo)
        return replace(view, array=self.array(name, batch * view.next))

    def chunk(self, name: str, count: int, size: Map, halo: Halo = NONE, pixel: int = 0) -> View:
        """A map for each image of a chunk, in a thread's scratch memory."""
        view = View.of(size, halo, pixel)
        array, thread = self.scratch(name, count * view.next)
        return replace(view, array=array, unit=0, thread=thread)


def in_space(threads: int, build: Callable[[Space], Built]) -> Built:
    """What `build` makes of a space: first measured, then for good."""
    measured = Space(threads)
    build(measured)
    return build(measured.allocated())


# --- tables of offsets for the micro-kernel ---------------------------------------------------


@cache
def pixel_table(
    count: int, image: int, height: int, width: int, row: int, pixel: int
) -> np.ndarray:
    """Where each pixel of `count` images begins: `n * image + i * row + j * pixel`, int32."""
    n = np.arange(count)[:, None, None] * image
    i = np.arange(height)[None, :, None] * row
    j = np.arange(width)[None, None, :] * pixel
    return (n + i + j).astype(np.int32).ravel()


def pixels_of(view: View, count: int) -> np.ndarray:
    """The table of a view's pixels."""
    return pixel_table(count, view.next, view.height, view.width, view.row, view.pixel)


def patch_table(window: tuple[int, int], row: int, pixel: int, positions: np.ndarray) -> np.ndarray:
    """Where the numbers of a patch lie, seen from its first: (kernel row, column, channel), int32."""
    i = np.arange(window[0])[:, None, None] * row
    j = np.arange(window[1])[None, :, None] * pixel
    return (i + j + positions[None, None, :]).astype(np.int32).ravel()


@cache
def ramp(count: int, step: int) -> np.ndarray:
    """0, step, 2 * step, ...: `count` of them, int32."""
    return (np.arange(count) * step).astype(np.int32)
