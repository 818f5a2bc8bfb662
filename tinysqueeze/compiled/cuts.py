"""The jobs of one convolution on one image, cut by rows or by panels of output channels."""

from dataclasses import replace

import numpy as np

from tinysqueeze.compiled.convolution import EVERY_ROW, Convolution, product_job
from tinysqueeze.compiled.space import View, job, patch_table, pixel_table, ramp
from tinysqueeze.kernels import TARGET
from tinysqueeze.kernels.kernel import Job
from tinysqueeze.kernels.winograd import winograd_input, winograd_output


def rows_product(
    conv: Convolution, x: View, y: View, bias: np.ndarray, low: float, height: int,
    by_panel: bool = False, rows: int = 1, beyond: int = 0, skip: int = 0,
) -> Job:  # fmt: skip
    """y = x * weight for up to `height` rows of the result at a time; a unit is `rows` of them.

    It does `beyond` rows more than its units have, and all of that `skip` rows further down.
    """
    window, size = conv.arm.window, conv.result
    start = x.moved(-window.pad[0], -window.pad[1])
    down, right = x.row * window.stride[0], x.pixel * window.stride[1]
    made = product_job(
        {"x": replace(start, unit=0 if by_panel else rows * down), "y": y},
        x_rows=pixel_table(1, 0, height, size.width, down, right) + np.int32(skip * down),
        x_steps=patch_table(window.kernel, x.row, x.pixel, conv.positions),
        w=conv.weights.forward, depth=conv.weights.rows, vectors=conv.arm.vectors, bias=bias,
        floor=low, by_panel=by_panel,
        y_rows=pixel_table(1, 0, height, size.width, y.row, y.pixel) + np.int32(skip * y.row),
        rows_per_unit=size.pixels if by_panel else rows * size.width,
        rows_beyond=beyond * size.width,
        rows_in_all=EVERY_ROW if by_panel else size.pixels - skip * size.width,
    )  # fmt: skip
    if not y.thread:
        made.set(y_unit=0 if by_panel else rows * y.row)
    elif by_panel:  # scratch for one panel: this takes back the panel's column
        made.set(y_unit=-TARGET.panel)
    return made


def winograd_jobs(
    conv: Convolution, x: View, y: View, bias: np.ndarray, low: float, high: int, by_panel: bool,
    apart: int = 1,
) -> tuple[Job, Job, Job]:  # fmt: skip
    """Tiles, products, output, for `high` rows of tiles; units lie `apart` rows of tiles apart.

    If y is scratch, it gets whole tiles at its beginning; else they are cut at the map's edge.
    """
    m, (_, wide), weights = conv.m, conv.tiles, conv.weights
    positions, channels = (m + 2) ** 2, x.pixel
    width = TARGET.panel if by_panel else weights.filters
    v_position = high * wide * channels + TARGET.lanes
    u_position = high * wide * width + TARGET.lanes
    v, v_thread = conv.space.scratch("V", positions * v_position)
    u, u_thread = conv.space.scratch("M", positions * u_position)
    spare, spare_thread = conv.space.scratch("spare tile", 16 * weights.filters)
    start = x.moved(-conv.arm.window.pad[0], -conv.arm.window.pad[1])
    down = m * x.row
    tiles = job(
        winograd_input, {"x": replace(start, unit=apart * down, next=down)}, m=m, channels=channels,
        v=v, v_thread=v_thread, v_position=v_position, high=1, wide=wide,
    )  # fmt: skip
    products = product_job(
        {}, x=v, x_unit=0, x_thread=v_thread, x_batch=v_position, x_rows=ramp(high * wide, channels),
        x_steps=conv.positions.astype(np.int32), w=weights.forward,
        w_batch=weights.source.channels * weights.filters, depth=weights.source.channels,
        vectors=conv.arm.vectors, bias=conv.space.array("zeros", weights.filters),
        floor=-np.inf, y=u, y_unit=-TARGET.panel if by_panel else 0, y_thread=u_thread,
        y_batch=u_position, y_rows=ramp(high * wide, width), batch=positions,
        rows_per_unit=high * wide if by_panel else wide, by_panel=by_panel,
    )  # fmt: skip
    unit = 0 if y.thread else TARGET.panel if by_panel else m * y.row
    output = job(
        winograd_output, {"y": replace(y, unit=unit, next=m * y.row)}, m=m, u=u,
        u_thread=u_thread, u_position=u_position, u_next=width, channels=weights.filters,
        bias=bias, floor=low, height=conv.result.height, width=conv.result.width,
        high=high if by_panel else 1, wide=wide, by_row=not (by_panel or y.thread),
        by_panel=by_panel, spare=spare, spare_thread=spare_thread,
    )  # fmt: skip
    return tiles, products, output
