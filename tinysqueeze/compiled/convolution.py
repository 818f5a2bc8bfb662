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
from tinysqueeze.compiled.weights import Gradients, Weights
from tinysqueeze.kernels import TARGET
from tinysqueeze.kernels.kernel import Job
from tinysqueeze.kernels.pointwise import copy_map
from tinysqueeze.kernels.products import clear, product, weight_gradient
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
    tall, broad = (-(-side // m) * m + 2 for side in (result.height, result.width))
    return Halo(
        top, left, max(top, tall - top - source.height), max(left, broad - left - source.width)
    )


def product_job(views: dict[str, View], **values: Any) -> Job:
    """A job of `product`: one matrix, written and not added, by units; unless `values` say otherwise."""
    plain = dict.fromkeys(("x_batch", "y_batch", "w_batch", "add", "rows_beyond", "by_panel"), 0)
    return job(product, views, **plain | {"batch": 1, "rows_in_all": EVERY_ROW} | values)


@dataclass
class Convolution:
    """One arm with its weights, ready to hand out jobs for chunks of `count` images.

    `positions` says where each channel of the source lies in a pixel.
    """

    space: Space
    arm: Arm
    weights: Weights
    result: Map
    positions: np.ndarray
    count: int

    @property
    def m(self) -> int:
        """Winograd's tile size, or 0."""
        return self.weights.m

    @property
    def tiles(self) -> tuple[int, int]:
        """Rows and columns of Winograd tiles."""
        return -(-self.result.height // self.m), -(-self.result.width // self.m)

    def _zeros(self) -> np.ndarray:
        size = max(self.weights.filters, self.weights.source.padded)
        return self.space.array("zeros", size)

    def _tiles_of(self, name: str, channels: int) -> tuple[np.ndarray, int, int]:
        """Scratch for the tiles of a chunk: the array, floats a thread, floats a position.

        The odd vector at the end of each position keeps the positions from lying a power of two
        apart, where they would fight for the same places of the cache.
        """
        high, wide = self.tiles
        position = self.count * high * wide * channels + TARGET.lanes
        array, thread = self.space.scratch(name, (self.m + 2) ** 2 * position)
        return array, thread, position

    # --- forward ------------------------------------------------------------------------------

    def forward(self, x: View, y: View, bias: np.ndarray, low: float) -> list[Job]:
        """y = max(low, x * weight + bias), y being all channels of this arm."""
        if self.m:
            return self._winograd(x, y, bias, low)
        window = self.arm.window
        start = x.moved(-window.pad[0], -window.pad[1])
        rows = pixel_table(
            self.count, x.next, self.result.height, self.result.width,
            x.row * window.stride[0], x.pixel * window.stride[1],
        )  # fmt: skip
        made = product_job(
            {"x": start, "y": y}, x_rows=rows,
            x_steps=patch_table(window.kernel, x.row, x.pixel, self.positions),
            w=self.weights.forward, depth=self.weights.rows, vectors=self.arm.vectors, bias=bias,
            floor=low, y_rows=pixels_of(y, self.count), rows_per_unit=self.result.pixels,
        )  # fmt: skip
        return [made]

    def _input_tiles(self, x: View) -> Job:
        """V from x."""
        return self._tile_job(winograd_input, x)

    def _tile_job(self, kernel, x: View) -> Job:
        high, wide = self.tiles
        start = x.moved(-self.arm.window.pad[0], -self.arm.window.pad[1])
        v, v_thread, v_position = self._tiles_of("V", x.pixel)
        return job(
            kernel, {"x": start}, m=self.m, channels=x.pixel, v=v, v_thread=v_thread,
            v_position=v_position, high=high, wide=wide,
        )  # fmt: skip

    def _spare(self) -> dict:
        spare, spare_thread = self.space.scratch("spare tile", 16 * self.weights.filters)
        return {"spare": spare, "spare_thread": spare_thread}

    def _winograd(self, x: View, y: View, bias: np.ndarray, low: float) -> list[Job]:
        high, wide = self.tiles
        filters, channels = self.weights.filters, x.pixel
        v, v_thread, v_position = self._tiles_of("V", channels)
        u, u_thread, u_position = self._tiles_of("M", filters)
        products = product_job(
            {}, x=v, x_unit=0, x_thread=v_thread, x_batch=v_position,
            x_rows=ramp(self.count * high * wide, channels),
            x_steps=self.positions.astype(np.int32),
            w=self.weights.forward, w_batch=self.weights.source.channels * filters,
            depth=self.weights.source.channels, vectors=self.arm.vectors,
            bias=self._zeros(), floor=-np.inf,
            y=u, y_unit=0, y_thread=u_thread, y_batch=u_position,
            y_rows=ramp(self.count * high * wide, filters), batch=(self.m + 2) ** 2,
            rows_per_unit=high * wide,
        )  # fmt: skip
        output = job(
            winograd_output, {"y": y}, m=self.m, u=u, u_thread=u_thread, u_position=u_position,
            u_next=filters, channels=filters, bias=bias, floor=low,
            height=self.result.height, width=self.result.width, high=high, wide=wide,
            by_row=0, by_panel=0, **self._spare(),
        )  # fmt: skip
        return [self._input_tiles(x), products, output]

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
        always adds, and to the halo too. `number` tells the arms of a stage apart.
        """
        sums = gradients.reserve(len(self.weights.gradient_rows(x.pixel)) * self.weights.filters)
        if self.m:
            return self._winograd_backward(x, d, dx, sums, number)
        window = self.arm.window
        start = x.moved(-window.pad[0], -window.pad[1])
        made = job(
            weight_gradient, {"x": start, "d": d}, x_batch=0, d_batch=0, y_batch=0, batch=1,
            x_rows=patch_table(window.kernel, x.row, x.pixel, np.arange(x.pixel)),
            x_steps=pixel_table(
                self.count, x.next, self.result.height, self.result.width,
                x.row * window.stride[0], x.pixel * window.stride[1],
            ),
            rows=window.area * x.pixel, neighbours=x.pixel % TARGET.strip_rows == 0,
            d_step=d.pixel, vectors=self.arm.vectors, zeros=self._zeros(),
            y=sums[0], y_thread=sums[1], pixels=self.result.pixels,
            y_rows=ramp(window.area * x.pixel, self.weights.filters),
        )  # fmt: skip
        jobs = [made]
        if dx is not None:
            jobs += self._direct_dx(d, dx, add)
        return Backward([], jobs, [], sums)

    def _direct_dx(self, d: View, dx: View, add: bool) -> list[Job]:
        """dx by sliding the flipped window over dy; for 1x1 simply d @ weightᵀ."""
        (high, wide), (top, left) = self.arm.window.kernel, self.arm.window.pad
        halo, jobs = self.gradient_halo(), []
        if halo != NONE:
            size = Map(self.result.height, self.result.width, (self.weights.filters,))
            padded = self.space.chunk(f"padded gradient {size} {halo}", self.count, size, halo)
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
            x_rows=pixel_table(self.count, d.next, source.height, source.width, d.row, d.pixel),
            x_steps=patch_table((high, wide), d.row, d.pixel, filters), w=self.weights.backward,
            vectors=source.padded // TARGET.lanes, bias=self._zeros(), floor=-np.inf,
            y_rows=pixels_of(dx, self.count), add=add, rows_per_unit=source.pixels,
        )  # fmt: skip
        jobs.append(made)
        return jobs

    def _winograd_backward(
        self, x: View, d: View, dx: View | None, sums: tuple[np.ndarray, int], number: int
    ) -> "Backward":
        high, wide = self.tiles
        tiles, positions = self.count * high * wide, (self.m + 2) ** 2
        filters, channels, source = self.weights.filters, x.pixel, self.weights.source
        v, v_thread, v_position = self._tiles_of("V", channels)
        u, u_thread, u_position = self._tiles_of("M", filters)
        du, du_thread = self.space.scratch(f"dU {number}", positions * channels * filters)
        adjoint = job(
            winograd_output_adjoint, {"y": d}, m=self.m, u=u, u_thread=u_thread,
            u_position=u_position, channels=filters, height=self.result.height,
            width=self.result.width, high=high, wide=wide, **self._spare(),
        )  # fmt: skip
        weight = weight_gradient.job(
            x=v, x_unit=0, x_thread=v_thread, x_batch=v_position,
            x_rows=ramp(channels, 1), x_steps=ramp(tiles, channels),
            rows=channels, neighbours=1, d=u, d_unit=0, d_thread=u_thread, d_batch=u_position,
            d_step=filters, vectors=self.arm.vectors, zeros=self._zeros(),
            y=du, y_thread=du_thread, y_batch=channels * filters,
            y_rows=ramp(channels, filters), batch=positions, pixels=high * wide,
        )  # fmt: skip
        size = positions * channels * filters
        before = [
            clear.job(x=du, x_unit=0, x_thread=du_thread, x_next=0, vectors=size // TARGET.lanes)
        ]
        after = [self.weights.transformed_gradient((du, du_thread), sums)]
        jobs = [self._input_tiles(x), adjoint, weight]
        if dx is not None:
            made = product_job(
                {}, x=u, x_unit=0, x_thread=u_thread, x_batch=u_position,
                x_rows=ramp(tiles, filters), x_steps=ramp(self.arm.filters, 1),
                w=self.weights.backward, w_batch=self.arm.filters * source.padded,
                depth=self.arm.filters, vectors=source.padded // TARGET.lanes, bias=self._zeros(),
                floor=-np.inf, y=v, y_unit=0, y_thread=v_thread, y_batch=v_position,
                y_rows=ramp(tiles, channels), batch=positions, rows_per_unit=high * wide,
            )  # fmt: skip
            jobs.append(made)
            jobs.append(self._tile_job(winograd_input_adjoint, dx))
        return Backward(before, jobs, after, sums)


@dataclass
class Backward:
    """Jobs before the chunks, for each chunk and after them; and where the threads' sums are."""

    before: list[Job]
    jobs: list[Job]
    after: list[Job]
    sums: tuple[np.ndarray, int]
