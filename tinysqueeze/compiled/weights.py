"""The weights of one convolution as the kernels want them, and its gradient on the way back.

The parameters that people see lie in one flat vector, without padding. Kernels read packed copies:
in panels, padded to whole vectors, for Winograd transformed, for the backward pass transposed. They
are made anew before each training step, which costs about one part in a hundred of it.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from tinysqueeze.compiled.space import Space
from tinysqueeze.compiled.steps import Arm, Map
from tinysqueeze.kernels import TARGET, strassen
from tinysqueeze.kernels.kernel import Job
from tinysqueeze.kernels.products import pack, unpack
from tinysqueeze.kernels.team import Stage
from tinysqueeze.kernels.winograd import winograd_weights, winograd_weights_adjoint
from tinysqueeze.network.window import Window

Sums = tuple[np.ndarray, int]
"""The threads' own sums: the array, and the floats from one thread's to the next's."""

PRECISIONS = {"direct": 0, "2x2": 2, "4x4": 4}
"""Output pixels along one side of a Winograd tile; 0: no Winograd."""


def winograd_size(arm: Arm, source: int, result: Map, precision: str) -> int:
    """The tile size m for a convolution, 0 where it is done directly.

    Winograd is for 3x3 with stride 1. The image has too few channels to fill a vector, and the
    smallest maps would leave most of a 4x4 tile empty. An image in phases has 4x4 taps as well.
    """
    window = arm.window
    if window.kernel == (4, 4) and arm.phases > 1:
        return 3
    if window.kernel != (3, 3) or window.stride != (1, 1) or source == 0:
        return 0
    return min(PRECISIONS[precision], 2 if max(result.height, result.width) <= 2 else 4)


def by_panels(m: int, result: Map) -> bool:
    """Has one image so few Winograd tiles that its weights are read panel by panel?"""
    tiles = -(-result.height // m) * -(-result.width // m) if m else 0
    return TARGET.tile_rows < tiles <= 2 * TARGET.tile_rows


LONG, MANY = 512, 64
"""Channels on both sides, and pixels, from which on Strassen's product takes less time: with 256 it takes
as long as another."""


def strassen_pays(window: Window, source: Map, filters: int) -> bool:
    """Is a convolution of one image a product large enough for Strassen's?"""
    return (
        window.is_pointwise and source.pixels >= MANY and min(source.channels, filters) >= LONG
        and source.channels == source.padded and source.channels % (2 * TARGET.lanes) == 0
    )  # fmt: skip


@dataclass
class Gradients:
    """The threads' own sums of all gradients, in one piece of memory that is cleared as one."""

    space: Space
    size: int = 0

    def reserve(self, size: int) -> Sums:
        """Room for `size` sums."""
        start = self.size
        self.size += -(-size // TARGET.lanes) * TARGET.lanes
        array, stride = self.space.scratch("gradients", self.size)
        return array[start:], stride


class Weights:
    """One convolution's weight and bias: packed for use, and their gradients unpacked.

    forward   (X, panels, K, panel): K runs over (kernel row, kernel column, channel), X is 1; for
              Winograd K are the channels and X the 16 or 36 positions; `by_panels` (panels, X, K, panel);
              with `halves` (pairs of panels, 7, K / 2, panel), for Strassen's product
    backward  the same transposed, for each of the `groups`: K runs over filters, the panels over input
              channels
    """

    def __init__(
        self,
        space: Space,
        arm: Arm,
        source: Map,
        m: int,
        params: dict[str, Any],
        needs_dx: bool = False,
        by_panels: bool = False,
        halves: bool = False,
        group: int = 0,
    ) -> None:
        self.arm, self.source, self.m, self.space = arm, source, m, space
        self.weight: np.ndarray = params["weight"]
        self.bias: np.ndarray | None = params.get("bias")
        self.needs_dx, self.by_panels, self.halves = needs_dx, by_panels, halves
        self.kernel_area = arm.window.area
        self.side = m + arm.window.kernel[0] - 1 if m else 1
        self.positions = self.side**2
        self.filters = TARGET.padded(arm.filters)
        self.group = group if group and m else arm.filters
        columns = source.channels * self.filters
        if halves:  # seven quarters, of whole pairs of panels
            self.positions = strassen.POSITIONS
            columns = self.positions * source.channels // 2 * self.pairs * TARGET.panel
        self.forward = self._room("forward", columns)
        self.backward = self._room("backward", arm.filters * source.padded) if needs_dx else None

    @property
    def is_grouped(self) -> bool:
        """Are there several `groups`?"""
        return self.group < self.arm.filters

    @property
    def groups(self) -> list[tuple[int, int]]:
        """The first filter, and how many they are, of each group that the way back does by itself."""
        filters, width = self.arm.filters, self.group
        return [(first, min(width, filters - first)) for first in range(0, filters, width)]

    @property
    def pairs(self) -> int:
        """Pairs of panels of output channels."""
        return -(-self.filters // (2 * TARGET.panel))

    @property
    def rows(self) -> int:
        """Rows of the weight as a matrix: (kernel row, kernel column, channel)."""
        return self.kernel_area * self.source.channels

    @property
    def floats(self) -> int:
        """How many a packed copy takes."""
        return self._matrices * self.source.channels * self.filters

    @property
    def _matrices(self) -> int:
        return self.positions if self.m else self.kernel_area

    def _room(self, name: str, size: int) -> np.ndarray:
        return self.space.array(f"{self.arm.path} {name}", self._matrices * size)

    def pack(self, packing: Stage, transforming: Stage, bias: np.ndarray) -> None:
        """Adds the jobs that make the packed copies; the second stage needs the first's results."""
        channels, filters = self.source.channels, self.arm.filters
        columns = _padded_columns(np.arange(filters), np.arange(filters), self.filters)
        if self.bias is not None:
            self._pack(packing, self.bias, np.zeros((1, 1)), columns, bias)
        rows = self._tap_rows()
        if self.halves:
            self._halved(packing, transforming, rows)
            return
        self._packed(packing, transforming, "forward", rows, columns, self.forward)
        if self.backward is not None:
            columns = _padded_columns(
                self.source.positions, np.arange(channels) * filters, self.source.padded
            )
            taps = np.arange(self.kernel_area)[:: 1 if self.m else -1] * channels * filters
            for first, width in self.groups:
                rows = taps[:, None] + np.arange(first, first + width)
                to = self.backward[self._matrices * first * self.source.padded :]
                self._packed(packing, transforming, f"backward {first}", rows, columns, to)

    def _tap_rows(self) -> np.ndarray:
        """Where each row (tap, channel) begins in the weight; in phases some lie outside of it: -1."""
        (high, wide), phases = self.arm.window.kernel, self.arm.phases
        height, width, channels, filters = self.weight.shape
        i, j, a, b, c = np.indices((high, wide, phases, phases, channels))
        row, column = phases * i + a, phases * j + b
        places = ((row * width + column) * channels + c) * filters
        return np.where((row < height) & (column < width), places, -1).reshape(high * wide, -1)

    def _packed(
        self, packing: Stage, transforming: Stage, name: str, rows: np.ndarray,
        columns: np.ndarray, target: np.ndarray,
    ) -> None:  # fmt: skip
        """Packs rows (taps, K); for Winograd tap by tap, and then they are transformed together."""
        if not self.m:
            self._pack(packing, self.weight, rows.reshape(1, -1), columns, target)
            return
        size = rows.shape[1] * len(columns)
        taps = self.space.array(f"{self.arm.path} {name} taps", len(rows) * size)
        self._pack(packing, self.weight, rows, columns, taps)
        transform = winograd_weights.job(
            m=self.m, side=self.side, taps=self.arm.window.kernel[0], w=taps, u=target, size=size,
            piece=rows.shape[1] * TARGET.panel if self.by_panels else size,
        )  # fmt: skip
        transforming.add(transform, units=size // TARGET.lanes)

    def _halved(self, packing: Stage, transforming: Stage, rows: np.ndarray) -> None:
        """Packs rows (1, K) in whole pairs of panels, and adds their quarters up."""
        numbers, width = np.arange(self.arm.filters), 2 * self.pairs * TARGET.panel
        packed = self.space.array(f"{self.arm.path} forward whole", rows.size * width)
        self._pack(packing, self.weight, rows, _padded_columns(numbers, numbers, width), packed)
        made = strassen.strassen_right.job(w=packed, u=self.forward, depth=rows.size // 2)
        transforming.add(made, units=self.pairs)

    def _pack(
        self, stage: Stage, source: np.ndarray, rows: np.ndarray, columns: np.ndarray,
        target: np.ndarray,
    ) -> None:  # fmt: skip
        """rows (matrices, K): one packed matrix behind the other."""
        solid = np.array_equal(columns, np.arange(len(columns)))
        made = pack.job(
            source=source, rows=rows.astype(np.int32).ravel(), columns=columns, solid=solid,
            vectors=len(columns) // TARGET.lanes, target=target, row_count=rows.shape[1],
        )  # fmt: skip
        stage.add(made, units=rows.size)

    def gradient_rows(self, pixel: int) -> np.ndarray:
        """Where each row of the gradient goes in the weight, int32; -1 for a channel of padding.

        Its rows are (kernel row, kernel column, float of a pixel).
        """
        channels, filters = self.source.channels, self.arm.filters
        places = np.arange(channels) if pixel == channels else self.source.positions
        rows = np.full((self.kernel_area, pixel), -1, np.int32)
        rows[:, places] = np.arange(self.kernel_area * channels).reshape(-1, channels) * filters
        return rows.ravel()

    def gradient(self, sums: list[Sums], pixel: int, weight: np.ndarray, stage: Stage) -> None:
        """Adds the job that joins the threads' sums (rows, padded filters) into the gradient."""
        rows = self.gradient_rows(pixel)
        for own, (first, width) in zip(sums, self.groups, strict=True):
            self._unpack(stage, own, np.where(rows < 0, rows, rows + first), weight, width)

    def bias_gradient(self, sums: Sums, bias: np.ndarray, stage: Stage) -> None:
        """The same for the bias."""
        self._unpack(stage, sums, np.zeros(1, np.int32), bias, self.arm.filters)

    def _unpack(
        self, stage: Stage, sums: Sums, rows: np.ndarray, target: np.ndarray, columns: int
    ) -> None:
        made = unpack.job(
            source=sums[0], source_thread=sums[1], source_row=TARGET.padded(columns),
            threads=self.space.threads, rows=rows, row_count=len(rows),
            columns=columns, target=target,
        )  # fmt: skip
        stage.add(made, units=len(rows))

    def transformed_gradient(self, du: Sums, sums: Sums, filters: int) -> Job:
        """The job dw = Gᵀ dU G on a thread's own sums."""
        return winograd_weights_adjoint.job(
            m=self.m, side=self.side, u=du[0], u_thread=du[1], w=sums[0], w_thread=sums[1],
            size=self.source.padded * filters,
        )  # fmt: skip


def _padded_columns(places: np.ndarray, values: np.ndarray, padded: int) -> np.ndarray:
    """A table of `padded` entries with `values` at `places` and -1 elsewhere, int32."""
    columns = np.full(padded, -1, np.int32)
    columns[places] = values
    return columns
