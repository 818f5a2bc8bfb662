"""What is done to maps of bytes besides convolving them: encoding images, pools, sums, tables, copies.

A map is `x + thread * x_thread`; its images lie `x_next` bytes apart, rows `x_row`, pixels `x_pixel`.
Units are the images of a chunk; or, `by_row`, rows of the one image's result.
"""

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils

from tinysqueeze.kernels.integers import LONGS, all_lanes, clamped, halves, joined
from tinysqueeze.kernels.kernel import kernel
from tinysqueeze.kernels.vectors import (
    BYTE,
    BYTES,
    FLOAT,
    INT,
    INT32,
    INTS,
    LANES,
    Emitter,
    Value,
    bytes_at,
    bytes_t,
    floats,
    floats_t,
    ints,
    ints_t,
    procedure,
)

int_t = types.int64
REGISTER = 4 * LANES
"""Bytes in a whole register."""


# --- the image -----------------------------------------------------------------------------------


def _encoding(lanes: int) -> Callable:
    """The intrinsic y = clip(rint(x / scale) + zero, 0, 255) for so many neighbours, in float64."""

    @procedure(floats_t, bytes_t, bytes_t, bytes_t)
    def encode(e: Emitter, x: Value, scale: Value, zero: Value, y: Value) -> None:
        b = e.builder
        double = ir.VectorType(ir.DoubleType(), lanes)
        wide = b.fpext(e.load(x, kind=ir.VectorType(FLOAT, lanes)), double)
        quotient = b.fdiv(wide, e.load(scale, kind=double))
        kind = ir.FunctionType(double, [double])
        rint = cgutils.get_or_insert_function(b.module, kind, f"llvm.rint.v{lanes}f64")
        code = b.fadd(b.call(rint, [quotient]), e.load(zero, kind=double))
        low, high = (ir.Constant(double, [edge] * lanes) for edge in (0.0, 255.0))
        code = b.select(b.fcmp_ordered(">", code, low), code, low)  # not a number becomes 0
        code = b.select(b.fcmp_ordered("<", code, high), code, high)
        e.store(b.fptoui(code, ir.VectorType(BYTE, lanes)), y)

    return encode


_encode, _encode_one = _encoding(LANES), _encoding(1)


@kernel("x x_unit are_bytes size scale zero y y_thread y_next y_row height by_row")
def byte_encode(job: Any, first: int, count: int, thread: int) -> None:
    """Images of float32, or of bytes, as bytes into a map with padding around it.

    A row has `size` numbers; `scale` and `zero` say for each of them, as float64, what bytes stand for.
    """
    itemsize = 1 if job.are_bytes else 4
    images, begin, end = count, 0, job.height
    if job.by_row:
        images, begin, end = 1, first, first + count
    for n in range(images):
        image = job.x + itemsize * (0 if job.by_row else first + n) * job.x_unit
        for i in range(begin, end):
            x = image + itemsize * i * job.size
            y = job.y + thread * job.y_thread + n * job.y_next + i * job.y_row
            if job.are_bytes:
                source, target = bytes_at(x), bytes_at(y)
                for c in range(job.size):
                    target[c] = source[c]
            elif job.size < LANES:
                for c in range(job.size):
                    _encode_one(floats(x + 4 * c), bytes_at(job.scale + 8 * c),
                                bytes_at(job.zero + 8 * c), bytes_at(y + c))  # fmt: skip
            else:
                for begins in range(0, job.size, LANES):
                    c = min(begins, job.size - LANES)  # the last begins a little earlier
                    _encode(floats(x + 4 * c), bytes_at(job.scale + 8 * c),
                            bytes_at(job.zero + 8 * c), bytes_at(y + c))  # fmt: skip


# --- pools ---------------------------------------------------------------------------------------


def _each(e: Emitter, count: Value, width: int, body: Callable[[Value], None]) -> None:
    """`body(c)` for blocks of `width` bytes that cover `count`, which are no fewer; the last may overlap."""
    b = e.builder
    last = b.sub(count, e.int(width))

    def block(c: Value, _: list[Value]) -> list[Value]:
        body(b.select(b.icmp_signed("<", c, last), c, last))
        return []

    e.loop(e.int(0), count, block, step=width)


def _largest(width: int) -> Callable:
    """The intrinsic for the largest bytes of high x wide pixels, `width` channels at a time."""
    kind = ir.VectorType(BYTE, width)

    @procedure(bytes_t, int_t, int_t, int_t, int_t, int_t, bytes_t)
    def largest(
        e: Emitter, x: Value, x_row: Value, x_pixel: Value, high: Value, wide: Value,
        channels: Value, y: Value,
    ) -> None:  # fmt: skip
        b = e.builder

        def some_channels(c: Value) -> None:
            corner = e.at(x, c)

            def window_row(i: Value, best: list[Value]) -> list[Value]:
                row = e.at(corner, b.mul(i, x_row))

                def window_column(j: Value, best: list[Value]) -> list[Value]:
                    value = e.load(row, b.mul(j, x_pixel), kind)
                    return [b.select(b.icmp_unsigned(">", value, best[0]), value, best[0])]

                return e.loop(e.int(0), wide, window_column, best)

            e.store(e.loop(e.int(0), high, window_row, [all_lanes(kind, 0)])[0], y, c)

        _each(e, channels, width, some_channels)

    return largest


_largest_wide, _largest_narrow = _largest(REGISTER), _largest(LANES)

_POOL = """
    x x_thread x_next x_row x_pixel height width y y_thread y_next y_row y_pixel out_height out_width
    kernel_high kernel_wide stride_high stride_wide pad_high pad_wide channels by_row
"""


@kernel(_POOL)
def byte_max_pool(job: Any, first: int, count: int, thread: int) -> None:
    """y = the largest byte of each window, which is cut at the edges; 0 if nothing is left of it."""
    images, begin, end = count, 0, job.out_height
    if job.by_row:
        images, begin, end = 1, first, first + count
    for n in range(images):
        x = job.x + thread * job.x_thread + n * job.x_next
        y = job.y + thread * job.y_thread + n * job.y_next
        for i in range(begin, end):
            top = i * job.stride_high - job.pad_high
            above = max(0, -top)
            high = min(job.kernel_high, job.height - top) - above
            for j in range(job.out_width):
                left = j * job.stride_wide - job.pad_wide
                before = max(0, -left)
                wide = min(job.kernel_wide, job.width - left) - before
                corner = x + (top + above) * job.x_row + (left + before) * job.x_pixel
                out = bytes_at(y + i * job.y_row + j * job.y_pixel)
                if high <= 0 or wide <= 0:
                    for c in range(job.channels):
                        out[c] = 0
                elif job.channels >= REGISTER:
                    _largest_wide(
                        bytes_at(corner), job.x_row, job.x_pixel, high, wide, job.channels, out
                    )
                else:
                    _largest_narrow(
                        bytes_at(corner), job.x_row, job.x_pixel, high, wide, job.channels, out
                    )


@kernel(_POOL + " zero counts_padding")
def byte_mean_pool(job: Any, first: int, count: int, thread: int) -> None:
    """y = the mean of each window to the nearest byte, halves up. What lies beyond the padding does not
    count, and padding, which is `zero`, only with `counts_padding`."""
    images, begin, end = count, 0, job.out_height
    if job.by_row:
        images, begin, end = 1, first, first + count
    for n in range(images):
        x = job.x + thread * job.x_thread + n * job.x_next
        y = job.y + thread * job.y_thread + n * job.y_next
        for i in range(begin, end):
            top = i * job.stride_high - job.pad_high
            bottom = min(top + job.kernel_high, job.height + job.pad_high)
            for j in range(job.out_width):
                left = j * job.stride_wide - job.pad_wide
                right = min(left + job.kernel_wide, job.width + job.pad_wide)
                rows = range(max(top, 0), min(bottom, job.height))
                columns = range(max(left, 0), min(right, job.width))
                area = padding = len(rows) * len(columns)
                if job.counts_padding:
                    area = (bottom - top) * (right - left)
                padding = area - padding
                out = bytes_at(y + i * job.y_row + j * job.y_pixel)
                for c in range(job.channels):
                    total = padding * job.zero
                    for row in rows:
                        pixels = bytes_at(x + row * job.x_row + c)
                        for column in columns:
                            total += pixels[column * job.x_pixel]
                    out[c] = (2 * total + area) // (2 * area)


@procedure(bytes_t, int_t, int_t, int_t, int_t, int_t, ints_t)
def _total(
    e: Emitter, x: Value, x_row: Value, x_pixel: Value, high: Value, wide: Value, less: Value,
    y: Value,
) -> None:  # fmt: skip
    """y = the sum of some channels over high x wide pixels, `less` a number."""
    b = e.builder

    def row(i: Value, sums: list[Value]) -> list[Value]:
        start = b.mul(i, x_row)

        def column(j: Value, sums: list[Value]) -> list[Value]:
            value = e.load(x, b.add(start, b.mul(j, x_pixel)), BYTES)
            return [b.add(sums[0], b.zext(value, INTS))]

        return e.loop(e.int(0), wide, column, sums)

    total = e.loop(e.int(0), high, row, [all_lanes(INTS, 0)])[0]
    e.store(b.sub(total, e.splat(b.trunc(less, INT32))), y)


@kernel("x x_thread x_next x_row x_pixel height width channels less y y_unit by_panel")
def byte_total(job: Any, first: int, count: int, thread: int) -> None:
    """y = the sum over all pixels, `less` a number, int32: a mean at a network's end.

    Units are images; or `by_panel` vectors of channels of one image.
    """
    images, begin, end = count, 0, job.channels
    if job.by_panel:
        images, begin, end = 1, first * LANES, (first + count) * LANES
    for n in range(images):
        x = job.x + thread * job.x_thread + n * job.x_next
        image = 0 if job.by_panel else first + n
        for c in range(begin, end, LANES):
            y = ints(job.y + 4 * (image * job.y_unit + c))
            _total(bytes_at(x + c), job.x_row, job.x_pixel, job.height, job.width, job.less, y)


# --- byte by byte --------------------------------------------------------------------------------

_PIXELS = """
    x x_thread x_next x_row x_pixel y y_thread y_next y_row y_pixel height width channels by_row
"""


@procedure(bytes_t, bytes_t, int_t, int_t, int_t, int_t, int_t, int_t, int_t, int_t, bytes_t)
def _add(
    e: Emitter, x: Value, z: Value, channels: Value, x_zero: Value, z_zero: Value,
    first: Value, second: Value, shift: Value, zero: Value, lowest: Value, y: Value,
) -> None:  # fmt: skip
    """y = clamp(zero + ((x - x_zero) * first + (z - z_zero) * second + half >> shift), lowest, 255)."""
    b = e.builder

    def longs(number: Value) -> Value:
        return e.splat(number, LANES // 2)

    def factor(number: Value) -> Value:
        return longs(b.sext(b.trunc(number, INT32), INT))

    half = b.shl(e.int(1), b.sub(shift, e.int(1)))
    terms = [(x, x_zero, factor(first)), (z, z_zero, factor(second))]
    edges = longs(lowest), longs(e.int(255))

    def some_channels(c: Value) -> None:
        sums = [longs(half), longs(half)]
        for source, origin, times in terms:
            number = b.zext(e.load(source, c, BYTES), INTS)
            number = b.sub(number, e.splat(b.trunc(origin, INT32)))
            parts = halves(e, number)
            sums = [b.add(s, b.mul(part, times)) for s, part in zip(sums, parts, strict=True)]
        sums = [clamped(e, b.add(b.ashr(s, longs(shift)), longs(zero)), *edges) for s in sums]
        total = joined(e, sums[0], b.shl(sums[1], all_lanes(LONGS, 32)))
        e.store(b.trunc(total, BYTES), y, c)

    _each(e, channels, LANES, some_channels)


@kernel(_PIXELS + " z z_thread z_next z_row z_pixel x_zero z_zero first second shift zero lowest")
def byte_add(job: Any, first: int, count: int, thread: int) -> None:
    """y = the sum of x and z, each on a grid of its own (see `Int8Add`)."""
    images, begin, end = count, 0, job.height
    if job.by_row:
        images, begin, end = 1, first, first + count
    for n in range(images):
        for i in range(begin, end):
            x = job.x + thread * job.x_thread + n * job.x_next + i * job.x_row
            z = job.z + thread * job.z_thread + n * job.z_next + i * job.z_row
            y = job.y + thread * job.y_thread + n * job.y_next + i * job.y_row
            for j in range(job.width):
                _add(bytes_at(x + j * job.x_pixel), bytes_at(z + j * job.z_pixel), job.channels,
                     job.x_zero, job.z_zero, job.first, job.second, job.shift, job.zero, job.lowest,
                     bytes_at(y + j * job.y_pixel))  # fmt: skip


@procedure(bytes_t, int_t, int_t, bytes_t)
def _at_least(e: Emitter, x: Value, channels: Value, lowest: Value, y: Value) -> None:
    """y = max(x, lowest)."""
    b = e.builder
    least = e.splat(b.trunc(lowest, BYTE))

    def some_channels(c: Value) -> None:
        value = e.load(x, c, BYTES)
        e.store(b.select(b.icmp_unsigned(">", value, least), value, least), y, c)

    _each(e, channels, LANES, some_channels)


@kernel(_PIXELS + " lowest")
def byte_at_least(job: Any, first: int, count: int, thread: int) -> None:
    """y = max(x, lowest): a ReLU, or from 0 a copy."""
    images, begin, end = count, 0, job.height
    if job.by_row:
        images, begin, end = 1, first, first + count
    for n in range(images):
        for i in range(begin, end):
            x = job.x + thread * job.x_thread + n * job.x_next + i * job.x_row
            y = job.y + thread * job.y_thread + n * job.y_next + i * job.y_row
            for j in range(job.width):
                _at_least(
                    bytes_at(x + j * job.x_pixel), job.channels, job.lowest,
                    bytes_at(y + j * job.y_pixel),
                )  # fmt: skip


@kernel(_PIXELS + " table")
def byte_table(job: Any, first: int, count: int, thread: int) -> None:
    """y = table[x], 256 bytes: a hard-swish."""
    table = bytes_at(job.table)
    images, begin, end = count, 0, job.height
    if job.by_row:
        images, begin, end = 1, first, first + count
    for n in range(images):
        for i in range(begin, end):
            for j in range(job.width):
                x = bytes_at(
                    job.x + thread * job.x_thread + n * job.x_next + i * job.x_row + j * job.x_pixel
                )
                y = bytes_at(
                    job.y + thread * job.y_thread + n * job.y_next + i * job.y_row + j * job.y_pixel
                )
                for c in range(job.channels):
                    y[c] = table[x[c]]


@kernel(_PIXELS + " x_places y_places")
def byte_rearrange(job: Any, first: int, count: int, thread: int) -> None:
    """y[y_places[c]] = x[x_places[c]]: from a layout of channels to another."""
    sources, targets = ints(job.x_places), ints(job.y_places)
    images, begin, end = count, 0, job.height
    if job.by_row:
        images, begin, end = 1, first, first + count
    for n in range(images):
        for i in range(begin, end):
            for j in range(job.width):
                x = bytes_at(
                    job.x + thread * job.x_thread + n * job.x_next + i * job.x_row + j * job.x_pixel
                )
                y = bytes_at(
                    job.y + thread * job.y_thread + n * job.y_next + i * job.y_row + j * job.y_pixel
                )
                for c in range(job.channels):
                    y[targets[c]] = x[sources[c]]
