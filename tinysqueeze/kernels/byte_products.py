"""Convolutions of bytes: products of table rows and packed weights, as `products` does them for floats.

Filters are cut into panels as wide as the widest tile, and what is left. The weights of a panel lie in
one strip, (depth, its vectors, LANES, 4), strip after strip.
"""

from typing import Any

from tinysqueeze.kernels.byte_tile import (
    POOLED_ROWS,
    ROWS,
    SCALE_BYTES,
    WINDOW,
    byte_tile,
    pooled_tile,
    sum_tile,
)
from tinysqueeze.kernels.kernel import kernel
from tinysqueeze.kernels.target import TARGET
from tinysqueeze.kernels.vectors import bytes_at, ints

LANES = TARGET.lanes
WIDEST = len(ROWS)
SCALE = SCALE_BYTES


def panel_starts(vectors: int) -> list[int]:
    """The vector that each panel begins with, and the end of the last."""
    return [*range(0, vectors, WIDEST), vectors]


@kernel("""
    x x_thread x_rows x_steps w depth vectors bias scales quick zero lowest
    y y_thread y_rows rows_per_unit rows_in_all by_panel by_row pooled
""")
def byte_product(job: Any, first: int, count: int, thread: int) -> None:
    """y[row] = the bytes of bias + sum over k of x[row, k] * w[k], for rows and steps from tables.

    Units are images of a chunk, of `rows_per_unit` rows; or, of one image, so many rows if `by_row`,
    or a panel of filters each if `by_panel`. If `pooled`, each WINDOW rows give one, their largest.
    """
    x, y = job.x + thread * job.x_thread, job.y + thread * job.y_thread
    panels = (job.vectors + WIDEST - 1) // WIDEST
    begin, end = 0, panels
    row_begin, row_end = 0, min(count * job.rows_per_unit, job.rows_in_all)
    if job.by_panel:
        begin, end, row_end = first, first + count, job.rows_in_all
    if job.by_row:
        row_begin = first * job.rows_per_unit
        row_end = min(row_begin + count * job.rows_per_unit, job.rows_in_all)
    for panel in range(begin, end):
        start = panel * WIDEST
        wide = min(WIDEST, job.vectors - start)
        w = bytes_at(job.w + 4 * LANES * start * job.depth)
        bias, scales = ints(job.bias + 4 * LANES * start), bytes_at(job.scales + SCALE * start)
        ys = bytes_at(y + LANES * start)
        if job.pooled:
            for row in range(row_begin, row_end, POOLED_ROWS[wide - 1]):
                pooled_tile(wide, job.quick, bytes_at(x), ints(job.x_rows + 4 * row),
                            ints(job.x_steps), row_end - row - 1, w, job.depth, bias, scales,
                            job.zero, job.lowest, ys, ints(job.y_rows + 4 * (row // WINDOW)))  # fmt: skip
            continue
        for row in range(row_begin, row_end, ROWS[wide - 1]):
            byte_tile(wide, job.quick, bytes_at(x), ints(job.x_rows + 4 * row), ints(job.x_steps),
                      row_end - row - 1, w, job.depth, bias, scales, job.zero, job.lowest, ys,
                      ints(job.y_rows + 4 * row))  # fmt: skip


@kernel("""
    x x_thread x_next x_rows x_steps w depth vectors bias scales lowest
    y y_unit rows by_panel
""")
def byte_sum(job: Any, first: int, count: int, thread: int) -> None:
    """y = the sum over all rows of the rescaled sums, int32: convolution and mean at a network's end.

    Units are images, the chunk's x beginning at the first; or `by_panel` panels of filters of one image.
    """
    panels = (job.vectors + WIDEST - 1) // WIDEST
    begin, end, images = 0, panels, count
    if job.by_panel:
        begin, end, images = first, first + count, 1
    for panel in range(begin, end):
        start = panel * WIDEST
        wide = min(WIDEST, job.vectors - start)
        w = bytes_at(job.w + 4 * LANES * start * job.depth)
        bias, scales = ints(job.bias + 4 * LANES * start), bytes_at(job.scales + SCALE * start)
        for n in range(images):
            x = bytes_at(job.x + thread * job.x_thread + n * job.x_next)
            image = 0 if job.by_panel else first + n
            y = ints(job.y + 4 * (image * job.y_unit + LANES * start))
            for lane in range(LANES * wide):
                y[lane] = 0
            for row in range(0, job.rows, ROWS[wide - 1]):
                sum_tile(wide, x, ints(job.x_rows + 4 * row), ints(job.x_steps), job.rows - row - 1, w,
                         job.depth, bias, scales, job.lowest, y)  # fmt: skip
