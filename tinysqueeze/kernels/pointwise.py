"""Pixel by pixel: copying into padding, hard-swish, ReLU backward with the bias gradient, bypasses, dropout.

All of these only read and write memory, so what counts is to touch each number once, in whole
vectors. The loops over vectors are written out because LLVM can't know that the arrays are apart.
"""

from typing import Any

from llvmlite import ir
from numba import float32, types

from tinysqueeze.kernels.kernel import kernel
from tinysqueeze.kernels.target import TARGET
from tinysqueeze.kernels.vectors import (
    INT32,
    INTS,
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


@procedure(floats_t, floats_t, int_t)
def _copy(e: Emitter, source: Value, target: Value, vectors: Value) -> None:
    """Copies whole vectors, at least one."""

    def one(k: Value, _: list[Value]) -> list[Value]:
        offset = e.builder.mul(k, e.int(LANES))
        e.store(e.load(source, offset), target, offset)
        return []

    e.loop(e.int(0), vectors, one)


@kernel("""
    x x_unit x_thread x_next x_row x_pixel y y_unit y_thread y_next y_row y_pixel
    height width channels
""")
def copy_map(job: Any, first: int, count: int, thread: int) -> None:
    """y[n, i, j, :channels] = x[n, i, j, :channels], each with strides of its own.

    Rows that lie without gaps in both are best given as one pixel of width * channels channels.
    """
    x = job.x + 4 * (first * job.x_unit + thread * job.x_thread)
    y = job.y + 4 * (first * job.y_unit + thread * job.y_thread)
    whole = job.channels // LANES
    for n in range(count):
        for i in range(job.height):
            for j in range(job.width):
                a = x + 4 * (n * job.x_next + i * job.x_row + j * job.x_pixel)
                b = y + 4 * (n * job.y_next + i * job.y_row + j * job.y_pixel)
                if whole:
                    _copy(floats(a), floats(b), whole)
                source, target = floats(a), floats(b)
                for c in range(whole * LANES, job.channels):
                    target[c] = source[c]


@kernel("""
    x x_unit x_thread x_next x_row y y_unit y_thread y_next y_row y_pixel
    high wide channels height width stride pad_high pad_wide by_row
""")
def phases(job: Any, first: int, count: int, thread: int) -> None:
    """y[n, i, j, (a, b, c)] = x[n, stride * i + a - pad_high, stride * j + b - pad_wide, c], or zero outside.

    x is high x wide, y height x width. Units are images, or `by_row` rows of the only one's y.
    """
    x = job.x + 4 * thread * job.x_thread
    y = job.y + 4 * (first * job.y_unit + thread * job.y_thread)
    images, begin, rows = count, 0, job.height
    if job.by_row:
        images, begin, rows = 1, first, count
    else:
        x += 4 * first * job.x_unit
    run, stop = job.stride * job.channels, job.wide * job.channels
    for n in range(images):
        for i in range(rows):
            for a in range(job.stride):
                row = job.stride * (begin + i) + a - job.pad_high
                end = stop if 0 <= row < job.high else 0
                source = floats(x + 4 * (n * job.x_next + row * job.x_row))
                for j in range(job.width):
                    place = n * job.y_next + i * job.y_row + j * job.y_pixel + a * run
                    target = floats(y + 4 * place)
                    before = j * run - job.pad_wide * job.channels
                    if before >= 0 and before + run <= end:
                        for c in range(run):
                            target[c] = source[before + c]
                    else:
                        for c in range(run):
                            inside = before + c >= 0 and before + c < end
                            target[c] = source[before + c] if inside else float32(0)


@kernel("x x_thread y y_thread vectors")
def carry(job: Any, first: int, count: int, thread: int) -> None:
    """y = x, a few vectors of a thread's scratch: what its next chunk needs of this one, copied once."""
    x, y = job.x + 4 * thread * job.x_thread, job.y + 4 * thread * job.y_thread
    _copy(floats(x), floats(y), job.vectors)


@procedure(floats_t, floats_t, int_t)
def _join(e: Emitter, row: Value, total: Value, channels: Value) -> None:
    """total += row, and the row begins anew: a batch's pixels one after the other would lose digits."""

    def one(c: Value) -> None:
        e.store(e.builder.fadd(e.load(total, c), e.load(row, c)), total, c)
        e.store(e.every(0), row, c)

    e.each_vector(channels, one)


@procedure(floats_t, int_t, floats_t, int_t, floats_t, int_t, int_t, int_t, floats_t, types.float32)
def _mask_row(
    e: Emitter, d: Value, d_pixel: Value, y: Value, y_pixel: Value, z: Value, z_pixel: Value,
    pixels: Value, channels: Value, total: Value, floor: Value,
) -> None:  # fmt: skip
    """For a row of pixels: z = d unless y <= floor, and total += z."""
    b = e.builder
    lowest = e.splat(floor)

    def pixel(k: Value, _: list[Value]) -> list[Value]:
        ds, ys, zs = (
            e.at(start, b.mul(k, stride))
            for start, stride in ((d, d_pixel), (y, y_pixel), (z, z_pixel))
        )

        def some_channels(c: Value) -> None:
            off = b.fcmp_ordered("<=", e.load(ys, c), lowest)
            kept = b.select(off, e.every(0), e.load(ds, c))
            e.store(kept, zs, c)
            e.store(b.fadd(e.load(total, c), kept), total, c)

        e.each_vector(channels, some_channels)
        return []

    e.loop(e.int(0), pixels, pixel)


@kernel("""
    d d_unit d_thread d_next d_row d_pixel y y_unit y_thread y_next y_row y_pixel
    z z_unit z_thread z_next z_row total total_thread height width channels floor:f
""")
def mask(job: Any, first: int, count: int, thread: int) -> None:
    """ReLU backward: z = d where y > floor, else 0; `total` += the sum over pixels, for the bias.

    With a floor of minus infinity every d passes: then it only sums. z has no padding. Behind the sums
    there is room for those of a row, zeros between jobs.
    """
    d = job.d + 4 * (first * job.d_unit + thread * job.d_thread)
    y = job.y + 4 * (first * job.y_unit + thread * job.y_thread)
    z = job.z + 4 * (first * job.z_unit + thread * job.z_thread)
    sums = job.total + 4 * thread * job.total_thread
    total, row = floats(sums), floats(sums + 4 * job.channels)
    for n in range(count):
        for i in range(job.height):
            _mask_row(
                floats(d + 4 * (n * job.d_next + i * job.d_row)), job.d_pixel,
                floats(y + 4 * (n * job.y_next + i * job.y_row)), job.y_pixel,
                floats(z + 4 * (n * job.z_next + i * job.z_row)), job.channels,
                job.width, job.channels, row, float32(job.floor),
            )  # fmt: skip
            _join(row, total, job.channels)


# --- hard-swish ------------------------------------------------------------------------------


@procedure(floats_t, floats_t, int_t)
def _hard_swish(e: Emitter, x: Value, y: Value, channels: Value) -> None:
    """y = x * (x / 6 + 1/2, kept from 0 to 1)."""
    shut, full = e.every(-3), e.every(3)

    def one(c: Value) -> None:
        e.store(e.activate(e.load(x, c), shut, full), y, c)

    e.each_vector(channels, one)


@kernel("""
    x x_unit x_thread x_next x_row y y_unit y_thread y_next y_row height width channels
""")
def hard_swish(job: Any, first: int, count: int, thread: int) -> None:
    """Hard-swish of what a convolution has just written: in place at inference, where norms are folded."""
    x = job.x + 4 * (first * job.x_unit + thread * job.x_thread)
    y = job.y + 4 * (first * job.y_unit + thread * job.y_thread)
    for n in range(count):
        for i in range(job.height):
            _hard_swish(
                floats(x + 4 * (n * job.x_next + i * job.x_row)),
                floats(y + 4 * (n * job.y_next + i * job.y_row)), job.width * job.channels,
            )  # fmt: skip


@procedure(floats_t, int_t, floats_t, floats_t, int_t, int_t, floats_t)
def _hard_swish_backward(
    e: Emitter, d: Value, d_pixel: Value, x: Value, z: Value, pixels: Value, channels: Value,
    total: Value,
) -> None:  # fmt: skip
    """For a row of pixels: z = d times the slope at x, and total += z."""
    b = e.builder
    shut, full = e.every(-3), e.every(3)

    def pixel(k: Value, _: list[Value]) -> list[Value]:
        ds, place = e.at(d, b.mul(k, d_pixel)), b.mul(k, channels)
        xs, zs = e.at(x, place), e.at(z, place)

        def one(c: Value) -> None:
            dx = e.activate_backward(e.load(ds, c), e.load(xs, c), shut, full)
            e.store(dx, zs, c)
            e.store(b.fadd(e.load(total, c), dx), total, c)

        e.each_vector(channels, one)
        return []

    e.loop(e.int(0), pixels, pixel)


@kernel("""
    d d_unit d_thread d_next d_row d_pixel x x_unit x_thread x_next x_row
    z z_unit z_thread z_next z_row total total_thread height width channels
""")
def hard_swish_backward(job: Any, first: int, count: int, thread: int) -> None:
    """z = d times the slope at x, what a convolution gave; `total` += the sum over pixels, for its bias.

    d may have padding, x and z have none.
    """
    d = job.d + 4 * (first * job.d_unit + thread * job.d_thread)
    x = job.x + 4 * (first * job.x_unit + thread * job.x_thread)
    z = job.z + 4 * (first * job.z_unit + thread * job.z_thread)
    sums = job.total + 4 * thread * job.total_thread
    total, row = floats(sums), floats(sums + 4 * job.channels)
    for n in range(count):
        for i in range(job.height):
            _hard_swish_backward(
                floats(d + 4 * (n * job.d_next + i * job.d_row)), job.d_pixel,
                floats(x + 4 * (n * job.x_next + i * job.x_row)),
                floats(z + 4 * (n * job.z_next + i * job.z_row)), job.width, job.channels, row,
            )  # fmt: skip
            _join(row, total, job.channels)


# --- bypass ----------------------------------------------------------------------------------


@procedure(floats_t, bytes_t, int_t)
def _signs(e: Emitter, y: Value, signs: Value, channels: Value) -> None:
    """One byte for each number: 1 where it is positive."""
    b = e.builder

    def one(c: Value) -> None:
        positive = e.greater(e.load(y, c), e.every(0))
        e.store(b.zext(positive, ir.VectorType(ir.IntType(8), LANES)), signs, c)

    e.each_vector(channels, one)


@procedure(floats_t, floats_t, int_t)
def _add(e: Emitter, x: Value, y: Value, channels: Value) -> None:
    """y += x."""

    def one(c: Value) -> None:
        e.store(e.builder.fadd(e.load(y, c), e.load(x, c)), y, c)

    e.each_vector(channels, one)


@procedure(floats_t, bytes_t, floats_t, int_t, floats_t)
def _keep(e: Emitter, d: Value, signs: Value, z: Value, channels: Value, total: Value) -> None:
    """z = d where the sign byte is 1, else 0; total += z."""
    b = e.builder

    def one(c: Value) -> None:
        kind = ir.VectorType(ir.IntType(8), LANES)
        on = b.icmp_unsigned("!=", e.load(signs, c, kind), ir.Constant(kind, [0] * LANES))
        kept = b.select(on, e.load(d, c), e.every(0))
        e.store(kept, z, c)
        e.store(b.fadd(e.load(total, c), kept), total, c)

    e.each_vector(channels, one)


@kernel("y y_unit y_thread y_next y_row signs signs_unit height width channels")
def remember_signs(job: Any, first: int, count: int, thread: int) -> None:
    """Notes where y is positive, before a bypass is added to it and that can't be seen any more."""
    y = job.y + 4 * (first * job.y_unit + thread * job.y_thread)
    for n in range(count):
        for i in range(job.height):
            signs = job.signs + (first + n) * job.signs_unit + i * job.width * job.channels
            _signs(floats(y + 4 * (n * job.y_next + i * job.y_row)), bytes_at(signs),
                   job.width * job.channels)  # fmt: skip


@kernel("""
    x x_unit x_thread x_next x_row x_pixel y y_unit y_thread y_next y_row y_pixel
    height width channels
""")
def add_map(job: Any, first: int, count: int, thread: int) -> None:
    """y += x: a bypass forward, and where gradients of two ways join."""
    x = job.x + 4 * (first * job.x_unit + thread * job.x_thread)
    y = job.y + 4 * (first * job.y_unit + thread * job.y_thread)
    for n in range(count):
        for i in range(job.height):
            for j in range(job.width):
                _add(
                    floats(x + 4 * (n * job.x_next + i * job.x_row + j * job.x_pixel)),
                    floats(y + 4 * (n * job.y_next + i * job.y_row + j * job.y_pixel)),
                    job.channels,
                )


@kernel("""
    d d_unit d_thread d_next d_row d_pixel signs signs_unit z z_unit z_thread z_next
    total total_thread height width channels
""")
def mask_by_signs(job: Any, first: int, count: int, thread: int) -> None:
    """ReLU backward below a bypass: z = d where the note says positive; `total` += the sum.

    d may have padding, z has none.
    """
    d = job.d + 4 * (first * job.d_unit + thread * job.d_thread)
    z = job.z + 4 * (first * job.z_unit + thread * job.z_thread)
    sums = job.total + 4 * thread * job.total_thread
    total, row = floats(sums), floats(sums + 4 * job.channels)
    for n in range(count):
        signs = job.signs + (first + n) * job.signs_unit
        for i in range(job.height):
            for j in range(job.width):
                place = (i * job.width + j) * job.channels
                _keep(
                    floats(d + 4 * (n * job.d_next + i * job.d_row + j * job.d_pixel)),
                    bytes_at(signs + place), floats(z + 4 * (n * job.z_next + place)),
                    job.channels, row,
                )  # fmt: skip
            _join(row, total, job.channels)


# --- dropout ---------------------------------------------------------------------------------


@procedure(floats_t, int_t, int_t, int_t, int_t, types.float32)
def _drop(
    e: Emitter, x: Value, vectors: Value, start: Value, seed: Value, threshold: Value, scale: Value
) -> None:
    """Multiplies by `scale` the numbers whose 32 random bits are at least `threshold`, else by 0.

    The bits of number k are a hash of (seed, start + k): multiplications and shifts that spread
    each input bit over all output bits (Wellons 2018, "Prospecting for hash functions").
    """
    b = e.builder

    def ints(value: int) -> Value:
        return ir.Constant(INTS, [value & 0xFFFFFFFF] * LANES)

    def mix(h: Value) -> Value:
        h = b.mul(b.xor(h, b.lshr(h, ints(16))), ints(0x7FEB352D))
        h = b.mul(b.xor(h, b.lshr(h, ints(15))), ints(0x846CA68B))
        return b.xor(h, b.lshr(h, ints(16)))

    low = e.splat(b.trunc(seed, INT32))
    high = e.splat(b.trunc(b.lshr(seed, e.int(32)), INT32))
    limit = e.splat(b.trunc(threshold, INT32))
    lane_numbers = ir.Constant(INTS, list(range(LANES)))

    def one(k: Value, _: list[Value]) -> list[Value]:
        offset = b.mul(k, e.int(LANES))
        number = b.add(e.splat(b.trunc(b.add(start, offset), INT32)), lane_numbers)
        bits = mix(b.xor(mix(b.xor(number, low)), high))
        kept = b.fmul(e.load(x, offset), e.splat(scale))
        dropped = b.icmp_unsigned("<", bits, limit)
        e.store(b.select(dropped, e.every(0), kept), x, offset)
        return []

    e.loop(e.int(0), vectors, one)


@kernel("x size seed threshold scale:f")
def dropout(job: Any, first: int, count: int, thread: int) -> None:
    """Zeroes numbers at random, in place, and scales up the rest. The same again for the gradient.

    Which ones depends on the seed and the number's place alone: not on threads, and not on what was
    drawn before, so that a training can be resumed exactly. `size` floats an image, without padding
    around it.
    """
    x = floats(job.x + 4 * first * job.size)
    _drop(x, count * job.size // LANES, first * job.size, job.seed, job.threshold, job.scale)
