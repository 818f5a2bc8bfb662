"""The jobs of one convolution over a chunk of images: forward, and backward in three parts."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from tinysqueeze.compiled.space import (
    NONE,
    Halo,
    Space,
    View,
    job,
    patch_table,
    pixel_table,
    pixels_of,
    ramp,
)
from tinysqueeze.compiled.steps import Arm, Map
from tinysqueeze.compiled.weights import Gradients, Sums, Weights
from tinysqueeze.kernels import TARGET
from tinysqueeze.kernels.kernel import Job, Kernel
from tinysqueeze.kernels.pointwise import copy_map
from tinysqueeze.kernels.products import clear, product, weight_gradient
from tinysqueeze.kernels.strassen import strassen_back, strassen_left
from tinysqueeze.kernels.winograd import (
    winograd_input,
    winograd_input_adjoint,
    winograd_output,
    winograd_output_adjoint,
)

EVERY_ROW = 1 << 40
"""As `rows_in_all`: no limit but the units."""


def halo_of(arm: Arm, m: int, source: Map, result: Map) -> Halo:
    """The zeros that a convolution wants around its source: its padding, and full last tiles."""
    top, left = arm.window.pad
    if not m:
        return Halo(top, left, top, left)
    over = arm.window.kernel[0] - 1
    tall, broad = (-(-side // m) * m + over for side in (result.height, result.width))
    return Halo(
        top, left, max(top, tall - top - source.height), max(left, broad - left - source.width)
    )


def product_job(views: dict[str, View], **values: Any) -> Job:
    """A job of `product`: of one matrix, and as many rows as there are units; unless `values` differ."""
    return job(product, views, **{"batch": 1, "rows_in_all": EVERY_ROW} | values)


Scratch = tuple[np.ndarray, int, int]
"""Tiles of each thread: the array, floats a thread, floats a position."""


def fields(names: str, tiles: Scratch) -> dict[str, Any]:
    """Tiles as a kernel calls them."""
    return dict(zip(names.split(), tiles, strict=True))


@dataclass
class Convolution:
    """One arm with its weights, ready to hand out jobs for chunks of `count` images; `back` on the way back.

    positions   where each channel of the source lies in a pixel
    bias        of this arm's channels, padded
    low         results below become it
    """

    space: Space
    arm: Arm
    weights: Weights
    result: Map
    positions: np.ndarray
    count: int
    back: int
    bias: np.ndarray
    low: float

    @property
    def m(self) -> int:
        """Winograd's tile size, or 0."""
        return self.weights.m

    @property
    def tiles(self) -> tuple[int, int]:
        """Rows and columns of Winograd tiles."""
        return -(-self.result.height // self.m), -(-self.result.width // self.m)

    @property
    def _tile(self) -> dict[str, int]:
        """A tile's pixels a side: on the way out, and on the way in."""
        return {"m": self.m, "side": self.weights.side}

    def part(self, view: View) -> View:
        """This arm's channels of the step's result."""
        return view.part(self.arm.offset, self.weights.filters)

    def seen(self, x: View) -> View:
        """x from where the first window begins, in the padding."""
        top, left = self.arm.window.pad
        return x.moved(-top, -left)

    def _zeros(self) -> np.ndarray:
        size = max(self.weights.filters, self.weights.source.padded)
        return self.space.array("zeros", size)

    def _scratch(self, name: str, tiles: int, channels: int) -> Scratch:
        """Scratch for so many tiles.

        The odd vector at the end of each position keeps the positions from lying a power of two
        apart, where they would fight for the same places of the cache.
        """
        position = tiles * channels + TARGET.lanes
        array, thread = self.space.scratch(name, self.weights.positions * position)
        return array, thread, position

    def _spare(self) -> dict[str, Any]:
        spare, spare_thread = self.space.scratch("spare tile", 16 * self.weights.filters)
        return {"spare": spare, "spare_thread": spare_thread}

    # --- forward ------------------------------------------------------------------------------

    def forward(self, x: View, y: View) -> list[Job]:
        """y = max(low, x * weight + bias), y being all channels of this arm."""
        high, wide = self.tiles if self.m else (0, 0)
        if self.m:
            return self.winograd(x, y, self.count * high * wide, high, high)
        return [self.direct(x, y, self.count, self.result.height, self.result.pixels)]

    def direct(
        self, x: View, y: View, count: int, height: int, rows_per_unit: int, skip: int = 0,
        **cut: Any,
    ) -> Job:  # fmt: skip
        """By one product, for `height` rows of `count` results, `skip` rows further down."""
        window, width = self.arm.window, self.result.width
        down, right = x.row * window.stride[0], x.pixel * window.stride[1]
        x_rows = pixel_table(count, x.next, height, width, down, right)
        y_rows = pixel_table(count, y.next, height, width, y.row, y.pixel)
        return product_job(
            {"x": self.seen(x), "y": y}, x_rows=x_rows + np.int32(skip * down),
            x_steps=patch_table(window.kernel, x.row, x.pixel, self.positions),
            w=self.weights.forward, depth=self.weights.rows, vectors=self.arm.vectors,
            bias=self.bias, floor=self.low, y_rows=y_rows + np.int32(skip * y.row),
            rows_per_unit=rows_per_unit, **cut,
        )  # fmt: skip

    @property
    def half(self) -> int:
        """Half of the pixels: the one in the middle is in both halves."""
        return -(-self.result.pixels // 2)

    def strassen(self, x: View, y: View) -> list[Job]:
        """Sums of quarters of x (units are half the pixels); products, and y in scratch, a pair of panels."""
        half, depth = self.half, self.weights.source.channels // 2
        v, m = self._scratch("V", half, depth), self._scratch("M", half, TARGET.panel)
        rows = {"rows": self.result.pixels, "half": half}
        left = strassen_left.job(
            x=x.array[x.start :], channels=depth, x_rows=pixels_of(x, 1), **rows,
            **fields("v v_thread v_position", v),
        )  # fmt: skip
        products = product_job(
            {}, **fields("x x_thread x_batch", v), x_rows=ramp(half, depth), x_steps=ramp(depth, 1),
            w=self.weights.forward, in_panels=True, depth=depth, bias=self._zeros(), floor=-np.inf,
            vectors=self.weights.pairs * TARGET.panel // TARGET.lanes,
            **fields("y y_thread y_batch", m), y_unit=-TARGET.panel, y_rows=ramp(half, TARGET.panel),
            batch=self.weights.positions, rows_per_unit=half, by_panel=True,
        )  # fmt: skip
        back = strassen_back.job(
            **fields("m m_thread m_position", m), y=y.array[y.start :], y_thread=y.thread,
            y_pixel=y.pixel, bias=self.bias, floor=self.low, **rows,
        )  # fmt: skip
        return [left, products, back]

    def winograd(
        self, x: View, y: View, tiles: int, high_in: int, high: int, by_panel: bool = False,
        by_row: bool = False,
    ) -> list[Job]:  # fmt: skip
        """Into tiles, products, and out of them; there is scratch for so many `tiles`.

        A unit has `high_in` rows of them on the way in, `high` on the way out.
        """
        filters, channels, wide = self.weights.filters, x.pixel, self.tiles[1]
        width = TARGET.panel if by_panel else filters
        v, u = self._scratch("V", tiles, channels), self._scratch("M", tiles, width)
        common: dict[str, Any] = fields("x x_thread x_batch", v) | fields("y y_thread y_batch", u)
        common |= {
            "x_rows": ramp(tiles, channels), "x_steps": self.positions.astype(np.int32),
            "w": self.weights.forward, "depth": self.weights.source.channels,
            "vectors": self.arm.vectors, "bias": self._zeros(), "floor": -np.inf,
            "y_unit": -TARGET.panel if by_panel else 0, "y_rows": ramp(tiles, width),
            "batch": self.weights.positions,
        }  # fmt: skip
        products = product_job(
            {}, w_batch=self.weights.source.channels * filters, rows_per_unit=high * wide,
            in_panels=self.weights.by_panels, by_panel=by_panel, **common,
        )  # fmt: skip
        output = job(
            winograd_output, {"y": y}, **self._tile, **fields("u u_thread u_position", u),
            u_next=width, channels=filters, bias=self.bias, floor=self.low, height=self.result.height,
            width=self.result.width, high=high, wide=wide, by_row=by_row, by_panel=by_panel,
            **self._spare(),
        )  # fmt: skip
        return [self._tile_job(winograd_input, x, v, high_in), products, output]

    def _tile_job(self, kernel: Kernel, x: View, v: Scratch, high: int) -> Job:
        """V from x, or back again."""
        return job(
            kernel, {"x": self.seen(x)}, **self._tile, channels=x.pixel,
            **fields("v v_thread v_position", v), high=high, wide=self.tiles[1],
        )  # fmt: skip

    # --- backward -----------------------------------------------------------------------------

    def gradient_halo(self) -> Halo:
        """Zeros around dy for the direct gradient to x, which slides the flipped window over it."""
        (high, wide), (top, left) = self.arm.window.kernel, self.arm.window.pad
        return Halo(*(max(0, size - 1 - pad) for size, pad in ((high, top), (wide, left)) * 2))

    def backward(
        self, x: View, d: View, dx: View | None, add: bool, gradients: Gradients, number: int
    ) -> "Backward":
        """From d, this arm's channels of the dense gradient of its result.

        dx gets (or, with `add`, gets added) the gradient to x; None if nobody wants it. Winograd
        always adds, and to the halo too. `number` tells the convolutions of a stage apart.
        """
        if self.m:
            return self._winograd_backward(x, d, dx, gradients, number)
        sums = gradients.reserve(len(self.weights.gradient_rows(x.pixel)) * self.weights.filters)
        window = self.arm.window
        made = job(
            weight_gradient, {"x": self.seen(x), "d": d}, batch=1,
            x_rows=patch_table(window.kernel, x.row, x.pixel, np.arange(x.pixel)),
            x_steps=pixel_table(
                self.back, x.next, self.result.height, self.result.width,
                x.row * window.stride[0], x.pixel * window.stride[1],
            ),
            rows=window.area * x.pixel, neighbours=x.pixel % TARGET.lanes == 0,
            d_step=d.pixel, vectors=self.arm.vectors, zeros=self._zeros(),
            y=sums[0], y_thread=sums[1], pixels=self.result.pixels,
            y_rows=ramp(window.area * x.pixel, self.weights.filters),
        )  # fmt: skip
        back = [] if dx is None else self._direct_dx(d, dx, add, x)
        return Backward([], back, [], [sums], [made])

    def _direct_dx(self, d: View, dx: View, add: bool, x: View) -> list[Job]:
        """dx by sliding the flipped window over dy; for 1x1 simply d @ weightᵀ.

        Meanwhile x is asked for, a large map in memory that mask and weight gradient will read.
        """
        (high, wide), (top, left) = self.arm.window.kernel, self.arm.window.pad
        halo, jobs = self.gradient_halo(), []
        if halo != NONE:
            size = Map(self.result.height, self.result.width, (self.weights.filters,))
            padded = self.space.chunk(f"padded gradient {size} {halo}", self.back, size, halo)
            copy = job(
                copy_map, {"x": d, "y": padded}, height=d.height, width=d.width,
                channels=self.weights.filters,
            )  # fmt: skip
            jobs.append(copy)
            d = padded
        start = d.moved(top - high + 1, left - wide + 1)
        source = self.weights.source
        filters = np.arange(self.arm.filters)
        made = product_job(
            {"x": start, "y": dx}, depth=high * wide * len(filters),
            x_rows=pixel_table(self.back, d.next, source.height, source.width, d.row, d.pixel),
            x_steps=patch_table((high, wide), d.row, d.pixel, filters), w=self.weights.backward,
            vectors=source.padded // TARGET.lanes, bias=self._zeros(), floor=-np.inf,
            y_rows=pixels_of(dx, self.back), add=add, rows_per_unit=source.pixels,
            soon=x.array[x.start :] if x.unit and x.halo == NONE else 0, soon_unit=x.unit,
        )  # fmt: skip
        jobs.append(made)
        return jobs

    def _winograd_backward(
        self, x: View, d: View, dx: View | None, gradients: Gradients, number: int
    ) -> "Backward":
        """By groups of filters, whose weights and sums stay in the cache while they are worked on."""
        high, wide = self.tiles
        tiles, positions = self.back * high * wide, self.weights.positions
        channels, source = x.pixel, self.weights.source
        v = self._scratch("V", tiles, channels)
        dv = self._scratch("dV", tiles, channels) if self.weights.is_grouped else v
        before, after, sums = [], [], []
        jobs = [self._tile_job(winograd_input, x, v, high)]
        for first, width in self.weights.groups:
            filters = TARGET.padded(width)
            u = self._scratch("M", tiles, filters)
            size = positions * channels * filters
            du, du_thread = self.space.scratch(f"dU {number} {first}", size)
            adjoint = job(
                winograd_output_adjoint, {"y": d.part(first, filters)}, **self._tile,
                **fields("u u_thread u_position", u), channels=filters, height=self.result.height,
                width=self.result.width, high=high, wide=wide, **self._spare(),
            )  # fmt: skip
            weight = weight_gradient.job(
                **fields("x x_thread x_batch", v), x_rows=ramp(channels, 1),
                x_steps=ramp(tiles, channels), rows=channels, neighbours=1,
                **fields("d d_thread d_batch", u), d_step=filters, vectors=filters // TARGET.lanes,
                zeros=self._zeros(), y=du, y_thread=du_thread, y_batch=channels * filters,
                y_rows=ramp(channels, filters), batch=positions, pixels=high * wide,
            )  # fmt: skip
            sums.append(gradients.reserve(self.arm.window.area * channels * filters))
            before.append(clear.job(x=du, x_thread=du_thread, vectors=size // TARGET.lanes))
            after.append(self.weights.transformed_gradient((du, du_thread), sums[-1], filters))
            jobs += [adjoint, weight]
            if dx is not None:
                assert self.weights.backward is not None
                made = product_job(
                    {}, **fields("x x_thread x_batch", u), x_rows=ramp(tiles, filters),
                    x_steps=ramp(width, 1), w=self.weights.backward[positions * first * source.padded :],
                    w_batch=width * source.padded, depth=width, vectors=source.padded // TARGET.lanes,
                    bias=self._zeros(), floor=-np.inf, **fields("y y_thread y_batch", dv),
                    y_rows=ramp(tiles, channels), batch=positions, rows_per_unit=high * wide, add=first > 0,
                )  # fmt: skip
                jobs.append(made)
        if dx is not None:
            jobs.append(self._tile_job(winograd_input_adjoint, dx, dv, high))
        return Backward(before, jobs, after, sums, [])


@dataclass
class Backward:
    """Jobs before the chunks, for each chunk and after them; and where the threads' sums are.

    `last` come when all arms are done for a chunk: what they read was by then asked for, or read already.
    """

    before: list[Job]
    jobs: list[Job]
    after: list[Job]
    sums: list[Sums]
    last: list[Job]
