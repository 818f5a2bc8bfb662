"""Batch norm in training: statistics image by image, then one multiply-add for each number.

    mean, var  over all pixels of the batch, for each channel
    y  = x * scale + shift,     scale = weight / sqrt(var + eps),   shift = bias - mean * scale
    dx = a * dy + b * x + c     with a, b, c for each channel (Ioffe & Szegedy 2015, section 3)

The statistics of one image are taken while it is still in the cache, in two passes (mean first, then
squared distances from it), and joined in float64: exact enough for any batch, and the same for any
number of threads. ReLU or hard-swish is folded in: how far it was open is seen from x * scale + shift.
A simple bypass is added on the way; where a pool follows instead, the pool's kernels do the last two lines
(see `pooling.py`). At inference none of this runs: scale and shift go into the convolution before.

What all of this costs is reading and writing maps that do not fit into the cache: x is written once,
and read three times.
"""

from collections.abc import Callable
from math import sqrt
from typing import Any

from numba import float32, types

from tinysqueeze.kernels.kernel import kernel
from tinysqueeze.kernels.target import TARGET
from tinysqueeze.kernels.vectors import Emitter, Value, floats, floats_t, procedure

int_t = types.int64
LANES = TARGET.lanes


def _for_each(
    e: Emitter, pixels: Value, channels: Value, body: Callable[[Value, Value], None]
) -> None:
    """`body(k, c)` for each pixel k and, inside, each vector of channels c.

    In this order memory is read from beginning to end, which the processor foresees; sums over
    pixels are kept in the innermost cache.
    """

    def pixel(k: Value, _: list[Value]) -> list[Value]:
        e.each_vector(channels, lambda c: body(k, c))
        return []

    e.loop(e.int(0), pixels, pixel)


@procedure(floats_t, int_t, int_t, floats_t, floats_t, types.float32)
def _moments(
    e: Emitter, x: Value, pixels: Value, channels: Value, mean: Value, spread: Value, share: Value
) -> None:
    """mean, and the sum of squared distances from it, of each channel; share = 1 / pixels.

    Both begin as zeros.
    """
    b = e.builder

    def add(k: Value, c: Value) -> None:
        value = e.load(e.at(x, b.mul(k, channels)), c)
        e.store(e.fma(value, e.splat(share), e.load(mean, c)), mean, c)

    def add_square(k: Value, c: Value) -> None:
        away = b.fsub(e.load(e.at(x, b.mul(k, channels)), c), e.load(mean, c))
        e.store(e.fma(away, away, e.load(spread, c)), spread, c)

    _for_each(e, pixels, channels, add)
    _for_each(e, pixels, channels, add_square)


@kernel("x x_next pixels channels moments")
def norm_moments(job: Any, first: int, count: int, thread: int) -> None:
    """moments[n] = (mean, sum of squared distances) of image n, for each channel."""
    for n in range(first, first + count):
        mean = job.moments + 4 * 2 * n * job.channels
        for c in range(2 * job.channels):
            floats(mean)[c] = float32(0)
        _moments(
            floats(job.x + 4 * n * job.x_next), job.pixels, job.channels,
            floats(mean), floats(mean + 4 * job.channels), float32(1.0 / job.pixels),
        )  # fmt: skip


@kernel("""
    moments images pixels channels weight bias mean var mean_out inverse scale shift
    eps:f momentum:f places
""")
def norm_finish(job: Any, first: int, count: int, thread: int) -> None:
    """Joins the images' moments; sets scale and shift, moves the running mean and variance.

    Units are channels. `mean_out` and `inverse` (1 / sqrt(var + eps)) are kept for the backward
    pass. All per padded channel, but for weight, bias, mean, var, which have no padding.
    """
    moments, size = floats(job.moments), job.images * job.pixels
    momentum = job.momentum
    for c in range(first, first + count):
        place = job.places + c
        total = 0.0
        for n in range(job.images):
            total += moments[2 * n * job.channels + place]
        middle = total / job.images
        spread = 0.0
        for n in range(job.images):
            away = moments[2 * n * job.channels + place] - middle
            spread += moments[(2 * n + 1) * job.channels + place] + job.pixels * away * away
        var = spread / size
        inverse = 1.0 / sqrt(var + job.eps)
        scale = floats(job.weight)[c] * inverse
        floats(job.mean_out)[place] = float32(middle)
        floats(job.inverse)[place] = float32(inverse)
        floats(job.scale)[place] = float32(scale)
        floats(job.shift)[place] = float32(floats(job.bias)[c] - middle * scale)
        mean, running = floats(job.mean), floats(job.var)
        mean[c] += float32(momentum * (middle - mean[c]))
        running[c] += float32(momentum * (spread / max(size - 1, 1) - running[c]))


def _apply(adds: bool) -> Callable:
    """The intrinsic y = activation of x * scale + shift for a row of pixels, `adds`: plus `around`."""

    @procedure(
        floats_t, floats_t, floats_t, int_t, int_t, floats_t, floats_t, types.float32, types.float32
    )  # fmt: skip
    def apply(
        e: Emitter, x: Value, around: Value, y: Value, pixels: Value, channels: Value,
        scale: Value, shift: Value, shut: Value, full: Value,
    ) -> None:  # fmt: skip
        shut, full = e.splat(shut), e.splat(full)

        def one(k: Value, c: Value) -> None:
            place = e.builder.add(e.builder.mul(k, channels), c)
            value = e.fma(e.load(x, place), e.load(scale, c), e.load(shift, c))
            value = e.activate(value, shut, full)
            if adds:
                value = e.builder.fadd(value, e.load(around, place))
            e.store(value, y, place)

        _for_each(e, pixels, channels, one)

    return apply


_apply_alone, _apply_and_add = _apply(False), _apply(True)


@kernel("""
    x x_next around? around_unit? around_next? around_row? adds
    y y_unit y_thread y_next y_row height width channels scale shift shut:f full:f
""")
def norm_apply(job: Any, first: int, count: int, thread: int) -> None:
    """y = activation of x * scale + shift, plus, if it `adds`, a bypass: the map `around`.

    x has no padding, y and `around` may have.
    """
    y = job.y + 4 * (first * job.y_unit + thread * job.y_thread)
    around = job.around + 4 * first * job.around_unit
    scale, shift, shut = floats(job.scale), floats(job.shift), float32(job.shut)
    full = float32(job.full)
    for n in range(count):
        x = job.x + 4 * (first + n) * job.x_next
        for i in range(job.height):
            row = floats(x + 4 * i * job.width * job.channels)
            out = floats(y + 4 * (n * job.y_next + i * job.y_row))
            if job.adds:
                other = floats(around + 4 * (n * job.around_next + i * job.around_row))
                _apply_and_add(row, other, out, job.width, job.channels, scale, shift, shut, full)
            else:
                _apply_alone(row, row, out, job.width, job.channels, scale, shift, shut, full)


@procedure(floats_t, int_t, floats_t, int_t, int_t, floats_t, floats_t, floats_t, floats_t,
           types.float32, types.float32, floats_t)  # fmt: skip
def _gradient_sums(
    e: Emitter, d: Value, d_pixel: Value, x: Value, pixels: Value, channels: Value,
    scale: Value, shift: Value, mean: Value, inverse: Value, shut: Value, full: Value,
    sums: Value,
) -> None:  # fmt: skip
    """sums += (sum of dy, sum of dy * normalised x) over a row, dy being d behind the activation."""
    b = e.builder
    shut, full = e.splat(shut), e.splat(full)
    second = e.at(sums, channels)

    def one(k: Value, c: Value) -> None:
        value = e.load(x, b.add(b.mul(k, channels), c))
        v = e.fma(value, e.load(scale, c), e.load(shift, c))
        dy = e.activate_backward(e.load(d, b.add(b.mul(k, d_pixel), c)), v, shut, full)
        normal = b.fmul(b.fsub(value, e.load(mean, c)), e.load(inverse, c))
        e.store(b.fadd(e.load(sums, c), dy), sums, c)
        e.store(e.fma(dy, normal, e.load(second, c)), second, c)

    _for_each(e, pixels, channels, one)


@kernel("""
    d d_unit d_thread d_next d_row d_pixel x x_next height width channels
    scale shift mean inverse shut:f full:f sums
""")
def norm_gradient_sums(job: Any, first: int, count: int, thread: int) -> None:
    """sums[n] = (sum of dy, sum of dy * normalised x) over image n, for each channel."""
    d = job.d + 4 * (first * job.d_unit + thread * job.d_thread)
    for n in range(count):
        sums = floats(job.sums + 4 * 2 * (first + n) * job.channels)
        for c in range(2 * job.channels):
            sums[c] = float32(0)
        x = job.x + 4 * (first + n) * job.x_next
        for i in range(job.height):
            _gradient_sums(
                floats(d + 4 * (n * job.d_next + i * job.d_row)), job.d_pixel,
                floats(x + 4 * i * job.width * job.channels), job.width, job.channels,
                floats(job.scale), floats(job.shift), floats(job.mean), floats(job.inverse),
                float32(job.shut), float32(job.full), sums,
            )  # fmt: skip


@kernel("""
    sums images pixels channels places dweight dbias mean inverse scale a b c
""")
def norm_gradient_finish(job: Any, first: int, count: int, thread: int) -> None:
    """dweight and dbias, and the a, b, c of dx = a * dy + b * x + c. Units are channels."""
    sums, size = floats(job.sums), job.images * job.pixels
    for c in range(first, first + count):
        place = job.places + c
        dbias = 0.0
        dweight = 0.0
        for n in range(job.images):
            dbias += sums[2 * n * job.channels + place]
            dweight += sums[(2 * n + 1) * job.channels + place]
        floats(job.dbias)[c] = float32(dbias)
        floats(job.dweight)[c] = float32(dweight)
        a = floats(job.scale)[place]
        b = -a * dweight / size * floats(job.inverse)[place]
        floats(job.a)[place] = a
        floats(job.b)[place] = float32(b)
        floats(job.c)[place] = float32(-a * dbias / size - b * floats(job.mean)[place])


@procedure(floats_t, int_t, floats_t, floats_t, int_t, int_t, floats_t, floats_t, floats_t,
           floats_t, floats_t, types.float32, types.float32)  # fmt: skip
def _backward(
    e: Emitter, d: Value, d_pixel: Value, x: Value, z: Value, pixels: Value, channels: Value,
    scale: Value, shift: Value, a: Value, b_: Value, c_: Value, shut: Value, full: Value,
) -> None:  # fmt: skip
    """z = a * dy + b * x + c for a row of pixels."""
    b = e.builder
    shut, full = e.splat(shut), e.splat(full)

    def one(k: Value, c: Value) -> None:
        place = b.add(b.mul(k, channels), c)
        value = e.load(x, place)
        v = e.fma(value, e.load(scale, c), e.load(shift, c))
        dy = e.activate_backward(e.load(d, b.add(b.mul(k, d_pixel), c)), v, shut, full)
        dx = e.fma(e.load(a, c), dy, e.fma(e.load(b_, c), value, e.load(c_, c)))
        e.store(dx, z, place)

    _for_each(e, pixels, channels, one)


@kernel("""
    d d_unit d_thread d_next d_row d_pixel x x_next z z_unit z_thread z_next
    height width channels scale shift a b c shut:f full:f
""")
def norm_backward(job: Any, first: int, count: int, thread: int) -> None:
    """z = a * dy + b * x + c, dy being d behind the activation."""
    d = job.d + 4 * (first * job.d_unit + thread * job.d_thread)
    z = job.z + 4 * (first * job.z_unit + thread * job.z_thread)
    for n in range(count):
        x = job.x + 4 * (first + n) * job.x_next
        for i in range(job.height):
            row = 4 * i * job.width * job.channels
            _backward(
                floats(d + 4 * (n * job.d_next + i * job.d_row)), job.d_pixel, floats(x + row),
                floats(z + 4 * n * job.z_next + row), job.width, job.channels,
                floats(job.scale), floats(job.shift), floats(job.a), floats(job.b), floats(job.c),
                float32(job.shut), float32(job.full),
            )  # fmt: skip
