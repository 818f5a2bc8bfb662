"""Max pooling, forward with one byte for each place that won, and backward by looking that up.

Forward walks through the window, for a vector of channels at a time, and remembers both the largest
value and its number in the window, 0 to 254: one byte instead of PyTorch's eight. Backward asks from
the other side: *which windows lie over this pixel, and did it win there?* So every gradient is
written once, overlapping windows (3x3 with stride 2) need no special care, and neither do pixels
that no window covers.

Where batch norm and an activation lie just before the pool (see `norm.py`), both are done on the way: the map
between them and the pool would be the largest of all, and is never written. A job asks for it by
`normed`; what the norm needs of the whole batch is then known.
"""

import functools
from collections.abc import Callable
from typing import Any

from numba import float32, types

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


AHEAD = 512
"""Floats: so far ahead x is asked for where it comes from memory, a few windows further on."""


def _largest(remembers: bool, normed: bool = False) -> Callable:
    """The intrinsic for the largest of high x wide pixels; if it `remembers`, its number in the window.

    Pixels are numbered by row * kernel_wide + column in the whole window, also where the edge of
    the image cuts it; `number` is that of the first pixel here. With `normed` it is the largest of
    the activation of x * scale + shift, and `chosen` gets the x that it was made from. Without numbers,
    which inference has no use for, a pixel has only to wait for a maximum: that one was not a number
    is kept apart; and 3 x 3 pixels, which most windows have, are compared without a loop.
    """

    @procedure(floats_t, int_t, int_t, int_t, int_t, int_t, int_t, int_t, floats_t, bytes_t,
               floats_t, floats_t, types.float32, types.float32, floats_t)  # fmt: skip
    def largest(
        e: Emitter, x: Value, x_row: Value, x_pixel: Value, high: Value, wide: Value,
        number: Value, kernel_wide: Value, channels: Value, y: Value, argmax: Value,
        scale: Value, shift: Value, shut: Value, full: Value, chosen: Value,
    ) -> None:  # fmt: skip
        b = e.builder
        shut, full = e.splat(shut), e.splat(full)

        def byte(number: Value) -> Value:
            return e.splat(b.trunc(number, BYTE))

        def some_channels(c: Value) -> None:
            corner = e.at(x, c)
            factor, constant = (e.load(scale, c), e.load(shift, c)) if normed else (None, None)

            def looked_at(place: Value, number: Value) -> list[Value]:
                """What is compared, its number, and what it was made from if that matters.

                Or what is compared, and where that is not a number.
                """
                value = e.load(place)
                if not remembers:
                    return [value, b.fcmp_unordered("!=", value, value)]
                if not normed:
                    return [value, byte(number)]
                e.prefetch(e.at(place, e.int(AHEAD)))
                result = e.activate(e.fma(value, factor, constant), shut, full)
                return [result, byte(number), value]

            def window_row(i: Value, best: list[Value]) -> list[Value]:
                row = e.at(corner, b.mul(i, x_row))

                def window_column(j: Value, best: list[Value]) -> list[Value]:
                    place = b.add(number, b.add(b.mul(i, kernel_wide), j))
                    new = looked_at(e.at(row, b.mul(j, x_pixel)), place)
                    if not remembers:
                        return [e.at_least(new[0], best[0]), b.or_(new[1], best[1])]
                    # what is not a number wins ("unless not greater") and stays, so that it is seen
                    better = b.fcmp_unordered(">", new[0], best[0])
                    better = b.and_(better, b.fcmp_ordered("==", best[0], best[0]))
                    return [b.select(better, *pair) for pair in zip(new, best, strict=True)]

                return e.loop(e.int(0), wide, window_column, best)

            best = e.loop(e.int(0), high, window_row, looked_at(corner, number))
            if remembers:
                e.store(best[1], argmax, c)
            else:
                best[0] = b.select(best[1], e.every(float("nan")), best[0])
            e.store(best[0], y, c)
            if normed:
                e.store(best[2], chosen, c)

        if remembers:
            e.each_vector(channels, some_channels)
            return
        three = e.int(3)
        usual = b.and_(b.icmp_signed("==", high, three), b.icmp_signed("==", wide, three))
        with b.if_else(usual) as (all_nine, others):
            with all_nine:
                _largest_of_nine(e, x, x_row, x_pixel, channels, y)
            with others:
                e.each_vector(channels, some_channels)

    return largest


def _largest_of_nine(
    e: Emitter, x: Value, x_row: Value, x_pixel: Value, channels: Value, y: Value
) -> None:
    """y = the largest of 3 x 3 pixels. One comparison tells whether either of two is not a number."""
    b = e.builder
    rows, columns = ([b.mul(stride, e.int(k)) for k in range(3)] for stride in (x_row, x_pixel))
    places = [b.add(row, column) for row in rows for column in columns]

    def some_channels(c: Value) -> None:
        corner = e.at(x, c)
        values = [e.load(corner, place) for place in places]
        pairs = zip(values[::2], [*values[1::2], values[-1]], strict=True)
        odd = functools.reduce(b.or_, [b.fcmp_unordered("uno", *pair) for pair in pairs])
        while len(values) > 1:
            values = [*map(e.at_least, values[::2], values[1::2]), *values[len(values) & ~1 :]]
        e.store(b.select(odd, e.every(float("nan")), values[0]), y, c)

    e.each_vector(channels, some_channels)


_largest_plain, _largest_remembered = _largest(False), _largest(True)
_largest_normed = _largest(True, normed=True)


@kernel("""
    x x_unit x_thread x_next x_row x_pixel height width
    y y_unit y_thread y_next y_row y_pixel argmax? argmax_unit? out_height out_width
    kernel_high kernel_wide stride_high stride_wide pad_high pad_wide channels by_row? remember?
    normed? scale? shift? shut:f? full:f? chosen?
""")
def max_pool(job: Any, first: int, count: int, thread: int) -> None:
    """y = the largest value of each window; argmax = which one it was. Windows are cut at the edges.

    Units are images; or `by_row` rows of the output each (x then begins at the first window's row).
    Winners are written if `remember`. With `normed`, which remembers them too, y is the largest of
    the activation of x * scale + shift; `chosen` = the x of it, laid out as `argmax`.
    """
    x = job.x + 4 * (first * job.x_unit + thread * job.x_thread)
    y = job.y + 4 * (first * job.y_unit + thread * job.y_thread)
    images, rows, begin = count, job.out_height, 0
    if job.by_row:
        images, begin = 1, first * job.by_row
        rows = min(count * job.by_row, job.out_height - begin)
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
                index = (first + n) * job.argmax_unit + (i * job.out_width + j) * job.channels
                begin_at = floats(x + 4 * (n * job.x_next + corner))
                number = above * job.kernel_wide + before
                argmax = bytes_at(job.argmax + (index if job.remember else 0))
                if job.normed:
                    _largest_normed(
                        begin_at, job.x_row, job.x_pixel, high, wide, number, job.kernel_wide,
                        job.channels, floats(y + 4 * pixel), argmax, floats(job.scale),
                        floats(job.shift), float32(job.shut), float32(job.full),
                        floats(job.chosen + 4 * index),
                    )  # fmt: skip
                elif job.remember:
                    _largest_remembered(
                        begin_at, job.x_row, job.x_pixel, high, wide, number, job.kernel_wide,
                        job.channels, floats(y + 4 * pixel), argmax, begin_at, begin_at,
                        float32(0), float32(0), begin_at,
                    )  # fmt: skip
                else:
                    _largest_plain(
                        begin_at, job.x_row, job.x_pixel, high, wide, number, job.kernel_wide,
                        job.channels, floats(y + 4 * pixel), argmax, begin_at, begin_at,
                        float32(0), float32(0), begin_at,
                    )  # fmt: skip


def _gather(normed: bool) -> Callable:
    """The intrinsic dx = the sum of d over high x wide windows, where the winner is this pixel.

    `number` is this pixel's number in the first of these windows; in the next window down the pixel
    lies `down` lower by number, in the next to the right `right` lower. With `normed` this sum dy
    goes on through the activation and batch norm: dx = a * dy + bb * x + cc.
    """

    @procedure(floats_t, bytes_t, int_t, int_t, int_t, int_t, int_t, int_t, int_t, int_t, int_t,
               floats_t, floats_t, floats_t, floats_t, types.float32, types.float32,
               floats_t, floats_t, floats_t)  # fmt: skip
    def gather(
        e: Emitter, d: Value, argmax: Value, d_row: Value, argmax_row: Value, pixel: Value,
        high: Value, wide: Value, number: Value, down: Value, right: Value, channels: Value,
        dx: Value, x: Value, scale: Value, shift: Value, shut: Value, full: Value, a: Value,
        bb: Value, cc: Value,
    ) -> None:  # fmt: skip
        b = e.builder
        shut, full = e.splat(shut), e.splat(full)

        def windows(c: Value, rows: int, columns: int) -> Value:
            """Their sum, without a loop."""
            total: Value | None = None
            for i in range(rows):
                d_at = e.at(d, b.add(c, b.mul(d_row, e.int(i))))
                argmax_at = e.at(argmax, b.add(c, b.mul(argmax_row, e.int(i))))
                first = b.sub(number, b.mul(down, e.int(i)))
                for j in range(columns):
                    step = b.mul(pixel, e.int(j))
                    mine = e.splat(b.trunc(b.sub(first, b.mul(right, e.int(j))), BYTE))
                    hit = b.icmp_unsigned("==", e.load(argmax_at, step, BYTES), mine)
                    won = b.select(hit, e.load(d_at, step), e.every(0))
                    total = won if total is None else b.fadd(total, won)
            return total

        def all_windows(c: Value) -> Value:
            def window_row(i: Value, total: list[Value]) -> list[Value]:
                d_at = e.at(d, b.add(c, b.mul(i, d_row)))
                argmax_at = e.at(argmax, b.add(c, b.mul(i, argmax_row)))
                first = b.sub(number, b.mul(i, down))

                def window_column(j: Value, total: list[Value]) -> list[Value]:
                    step = b.mul(j, pixel)
                    mine = e.splat(b.trunc(b.sub(first, b.mul(j, right)), BYTE))
                    hit = b.icmp_unsigned("==", e.load(argmax_at, step, BYTES), mine)
                    return [b.fadd(total[0], b.select(hit, e.load(d_at, step), e.every(0)))]

                return e.loop(e.int(0), wide, window_column, total)

            return e.loop(e.int(0), high, window_row, [e.every(0)])[0]

        def finish(c: Value, dy: Value) -> None:
            if normed:
                value = e.load(x, c)
                y = e.fma(value, e.load(scale, c), e.load(shift, c))
                dy = e.activate_backward(dy, y, shut, full)
                dy = e.fma(e.load(a, c), dy, e.fma(e.load(bb, c), value, e.load(cc, c)))
            e.store(dy, dx, c)

        def pixel_of(rows: int, columns: int) -> None:
            same = [
                b.icmp_signed("==", high, e.int(rows)),
                b.icmp_signed("==", wide, e.int(columns)),
            ]
            with b.if_then(b.and_(*same)):
                e.each_vector(channels, lambda c: finish(c, windows(c, rows, columns)))

        few = b.and_(*(b.icmp_signed("<=", side, e.int(2)) for side in (high, wide)))
        with b.if_else(few) as (usual, others):
            with usual:
                for rows, columns in ((1, 1), (1, 2), (2, 1), (2, 2)):
                    pixel_of(rows, columns)
            with others:
                e.each_vector(channels, lambda c: finish(c, all_windows(c)))

    return gather


_gather_plain, _gather_normed = _gather(False), _gather(True)

NO_WINNER = 255
"""A number that no pixel has in its window: windows have at most 255."""


@kernel("""
    d d_unit d_thread d_next d_row argmax argmax_unit out_height out_width
    dx dx_unit dx_thread dx_next dx_row dx_pixel height width
    kernel_high kernel_wide stride_high stride_wide pad_high pad_wide channels
    normed? x? x_next? scale? shift? shut:f? full:f? a? b? c?
""")
def max_pool_backward(job: Any, first: int, count: int, thread: int) -> None:
    """dx = d where a pixel won its window, summed over the windows that cover it. Units: images.

    With `normed`, on through the activation and batch norm to their input x, which has no padding:
    dx = a * dy + b * x + c.
    """
    d = job.d + 4 * (first * job.d_unit + thread * job.d_thread)
    dx = job.dx + 4 * (first * job.dx_unit + thread * job.dx_thread)
    c = job.channels
    for n in range(count):
        argmax = job.argmax + (first + n) * job.argmax_unit
        for i in range(job.height):
            a = i + job.pad_high
            first_row = max(0, (a - job.kernel_high + job.stride_high) // job.stride_high)
            rows = min(a // job.stride_high, job.out_height - 1) - first_row + 1
            for j in range(job.width):
                b = j + job.pad_wide
                left = max(0, (b - job.kernel_wide + job.stride_wide) // job.stride_wide)
                wide = min(b // job.stride_wide, job.out_width - 1) - left + 1
                top, high = first_row, rows  # the row's own: the next pixel asks for them again
                number = (a - top * job.stride_high) * job.kernel_wide + b - left * job.stride_wide
                if high <= 0 or wide <= 0:  # no window covers this pixel, so it won none
                    top, left, high, wide, number = 0, 0, 1, 1, NO_WINNER
                out = floats(dx + 4 * (n * job.dx_next + i * job.dx_row + j * job.dx_pixel))
                above = floats(d + 4 * (n * job.d_next + top * job.d_row + left * c))
                winners = bytes_at(argmax + (top * job.out_width + left) * c)
                down, right = job.stride_high * job.kernel_wide, job.stride_wide
                if job.normed:
                    x = floats(job.x + 4 * ((first + n) * job.x_next + (i * job.width + j) * c))
                    _gather_normed(
                        above, winners, job.d_row, job.out_width * c, c, high, wide, number, down,
                        right, c, out, x, floats(job.scale), floats(job.shift),
                        float32(job.shut), float32(job.full), floats(job.a), floats(job.b),
                        floats(job.c),
                    )  # fmt: skip
                else:
                    _gather_plain(
                        above, winners, job.d_row, job.out_width * c, c, high, wide, number, down,
                        right, c, out, out, out, out, float32(0), float32(0), out, out, out,
                    )  # fmt: skip
