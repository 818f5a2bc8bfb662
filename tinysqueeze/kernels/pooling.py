"""Max pooling, forward with one byte for each place that won, and backward by looking that up.

Forward walks through the window, for a vector of channels at a time, and remembers both the largest
value and its number in the window, 0 to 254: one byte instead of PyTorch's eight. Backward asks from
the other side: *which windows lie over this pixel, and did it win there?* So every gradient is
written once, overlapping windows (3x3 with stride 2) need no special care, and neither do pixels
that no window covers.
"""

from numba import types

from tinysqueeze.kernels.kernel import kernel
from tinysqueeze.kernels.target import TARGET
from tinysqueeze.kernels.vectors import (
    BYTE,
    BYTES,
    Emitter,
    Value,
    bytes_at,
    bytes_t,
    floats,
    floats_t,
    procedure,
)

int_t = types.int64
LANES = TARGET.lanes


@procedure(floats_t, int_t, int_t, int_t, int_t, int_t, int_t, int_t, floats_t, bytes_t, int_t)
def _largest(
    e: Emitter, x, x_row, x_pixel, high, wide, number, kernel_wide, channels, y, won, remember
) -> None:
    """The largest of high x wide pixels, and its number in the window.

    Pixels are numbered by row * kernel_wide + column in the whole window, also where the edge of
    the image cuts it; `number` is that of the first pixel here.
    """
    b = e.builder

    def byte(number: Value) -> Value:
        return e.splat(b.trunc(number, BYTE))

    def some_channels(c: Value, _: list[Value]) -> list[Value]:
        corner = e.at(x, c)

        def window_row(i: Value, best: list[Value]) -> list[Value]:
            row = e.at(corner, b.mul(i, x_row))

            def window_column(j: Value, best: list[Value]) -> list[Value]:
                value = e.load(row, b.mul(j, x_pixel))
                place = b.add(number, b.add(b.mul(i, kernel_wide), j))
                # "unless not greater", so that a value that is not a number wins and is seen
                better = b.fcmp_unordered(">", value, best[0])
                return [b.select(better, value, best[0]), b.select(better, byte(place), best[1])]

            return e.loop(e.int(0), wide, window_column, best)

        largest, winner = e.loop(e.int(0), high, window_row, [e.load(corner), byte(number)])
        e.store(largest, y, c)
        with b.if_then(b.icmp_signed("!=", remember, e.int(0))):
            e.store(winner, won, c)
        return []

    e.loop(e.int(0), channels, some_channels, step=LANES)


@kernel("""
    x x_unit x_thread x_next x_row x_pixel height width
    y y_unit y_thread y_next y_row y_pixel won won_unit out_height out_width
    kernel_high kernel_wide stride_high stride_wide pad_high pad_wide channels by_row remember
""")
def max_pool(job, first, count, thread):
    """y = the largest value of each window; won = which one it was. Windows are cut at the edges.

    Units are images; or, `by_row`, rows of the output (x then begins at the first window's row).
    """
    x = job.x + 4 * (first * job.x_unit + thread * job.x_thread)
    y = job.y + 4 * (first * job.y_unit + thread * job.y_thread)
    images, rows, begin = (1, count, first) if job.by_row else (count, job.out_height, 0)
    for n in range(images):
        for i in range(rows):
            top = (begin + i) * job.stride_high - job.pad_high
            above = max(0, -top)
            high = min(job.kernel_high, job.height - top) - above
            for j in range(job.out_width):
                left = j * job.stride_wide - job.pad_wide
                before = max(0, -left)
                wide = min(job.kernel_wide, job.width - left) - before
                corner = (i * job.stride_high - job.pad_high + above) * job.x_row
                corner += (left + before) * job.x_pixel
                pixel = n * job.y_next + i * job.y_row + j * job.y_pixel
                index = (first + n) * job.won_unit + (i * job.out_width + j) * job.channels
                _largest(
                    floats(x + 4 * (n * job.x_next + corner)), job.x_row, job.x_pixel, high, wide,
                    above * job.kernel_wide + before, job.kernel_wide, job.channels, floats(y + 4 * pixel),
                    bytes_at(job.won + (index if job.remember else 0)), job.remember,
                )  # fmt: skip


@procedure(
    floats_t, bytes_t, int_t, int_t, int_t, int_t, int_t, int_t, int_t, int_t, int_t, floats_t
)
def _gather(
    e: Emitter, d, won, d_row, won_row, pixel, high, wide, number, down, right, channels, dx
) -> None:
    """dx = the sum of d over high x wide windows, where the window's winner is this pixel.

    `number` is this pixel's number in the first of these windows; in the next window down the pixel
    lies `down` lower by number, in the next to the right `right` lower.
    """
    b = e.builder

    def some_channels(c: Value, _: list[Value]) -> list[Value]:
        def window_row(i: Value, total: list[Value]) -> list[Value]:
            d_at = e.at(d, b.add(c, b.mul(i, d_row)))
            won_at = e.at(won, b.add(c, b.mul(i, won_row)))
            first = b.sub(number, b.mul(i, down))

            def window_column(j: Value, total: list[Value]) -> list[Value]:
                step = b.mul(j, pixel)
                mine = e.splat(b.trunc(b.sub(first, b.mul(j, right)), BYTE))
                hit = b.icmp_unsigned("==", e.load(won_at, step, BYTES), mine)
                return [b.fadd(total[0], b.select(hit, e.load(d_at, step), e.every(0)))]

            return e.loop(e.int(0), wide, window_column, total)

        e.store(e.loop(e.int(0), high, window_row, [e.every(0)])[0], dx, c)
        return []

    e.loop(e.int(0), channels, some_channels, step=LANES)


@procedure(floats_t, int_t)
def _zeros(e: Emitter, x, channels) -> None:
    def clear(c: Value, _: list[Value]) -> list[Value]:
        e.store(e.every(0), x, c)
        return []

    e.loop(e.int(0), channels, clear, step=LANES)


@kernel("""
    d d_unit d_thread d_next d_row won won_unit out_height out_width
    dx dx_unit dx_thread dx_next dx_row dx_pixel height width
    kernel_high kernel_wide stride_high stride_wide pad_high pad_wide channels
""")
def max_pool_backward(job, first, count, thread):
    """dx = d where a pixel won its window, summed over the windows that cover it. Units: images."""
    d = job.d + 4 * (first * job.d_unit + thread * job.d_thread)
    dx = job.dx + 4 * (first * job.dx_unit + thread * job.dx_thread)
    c = job.channels
    for n in range(count):
        won = job.won + (first + n) * job.won_unit
        for i in range(job.height):
            a = i + job.pad_high
            top = max(0, (a - job.kernel_high + job.stride_high) // job.stride_high)
            high = min(a // job.stride_high, job.out_height - 1) - top + 1
            for j in range(job.width):
                b = j + job.pad_wide
                left = max(0, (b - job.kernel_wide + job.stride_wide) // job.stride_wide)
                wide = min(b // job.stride_wide, job.out_width - 1) - left + 1
                out = floats(dx + 4 * (n * job.dx_next + i * job.dx_row + j * job.dx_pixel))
                if high <= 0 or wide <= 0:
                    _zeros(out, c)
                    continue
                row, col = a - top * job.stride_high, b - left * job.stride_wide
                _gather(
                    floats(d + 4 * (n * job.d_next + top * job.d_row + left * c)),
                    bytes_at(won + (top * job.out_width + left) * c),
                    job.d_row, job.out_width * c, c, high, wide,
                    row * job.kernel_wide + col, job.stride_high * job.kernel_wide,
                    job.stride_wide, c, out,
                )  # fmt: skip
