"""Winograd's convolution for bytes, to the bit: F(4x4, 3x3) in 16 bits, its sums modulo 2^32.

See `winograd` for the algorithm. In float32 it rounds; in integers it need not: Bᵀ and 24 G are whole
numbers, and V and U fit in 16 bits. With G multiplied by 24 from both sides, what comes out is

    24 * 24 * sum = 9 * 64 * sum    modulo 2^32, whatever overflowed on the way,

and 9 has an inverse modulo 2^32. That leaves 64 * sum, exactly if the sum has no more than 26 bits; the
64 go when it is brought to its scale, by a shift that is 6 longer. And a tile that hangs over its map may
read any bytes there: they cancel out of all other results to the last bit.

Half as many products of 16 bits fit in a vector as of 8 bits, but there are 4 times fewer.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types

from tinysqueeze.kernels.byte_tile import ROWS, SCALE_BYTES, by_width, largest, quick, sums
from tinysqueeze.kernels.integers import all_lanes, dot_shorts, narrowed
from tinysqueeze.kernels.kernel import kernel
from tinysqueeze.kernels.vectors import (
    BYTES,
    INT,
    INT32,
    INTS,
    LANES,
    Emitter,
    Value,
    bytes_at,
    bytes_t,
    ints,
    ints_t,
    procedure,
)
from tinysqueeze.kernels.winograd import MATRICES

int_t = types.int64
OUT, SIDE = 4, 6
"""Pixels along a tile, and along what it sees."""
POSITIONS = SIDE * SIDE
G = np.rint(MATRICES[4][1] * np.array([24, 24, 24, 24, 24, 6])[:, None]).astype(np.int64)
"""Whole numbers; the last row times 24 would not fit, so `_interpolated` multiplies its point by 4."""
UNIT, SIXES = 24 * 24, 6
"""What comes out for a sum of 1; and the bits of 64, by which a sum is shifted up."""
NINTH = pow(9, -1, 1 << 32)
MOST = 1 << 25
"""A sum must be smaller."""
CENTRE = SIDE + 1
"""The position of the points 1 and 1, which every pixel holds once: a bias is added there."""
BLOCK = 12
"""Tiles whose products lie in memory at a time, POSITIONS for each, so that they stay in a near cache."""
WIDEST = len(ROWS)
SPARE = BLOCK * POSITIONS * WIDEST * LANES
"""Sums that a block takes with a panel of filters."""


def _evaluated(b: ir.IRBuilder, x: list[Value]) -> list[Value]:
    """Bᵀ x of six vectors."""
    four, two = (all_lanes(x[0].type, k) for k in (4, 2))
    far, near = b.sub(x[4], b.mul(x[2], four)), b.sub(x[3], b.mul(x[1], four))
    even, odd = b.sub(x[4], x[2]), b.sub(x[3], x[1])
    return [
        b.add(b.mul(b.sub(x[0], x[2]), four), even),
        b.add(far, near), b.sub(far, near),
        b.add(even, b.mul(odd, two)), b.sub(even, b.mul(odd, two)),
        b.sub(b.sub(x[5], x[3]), b.mul(odd, four)),
    ]  # fmt: skip


def _interpolated(b: ir.IRBuilder, m: list[Value]) -> list[Value]:
    """Aᵀ m of six vectors, the last times 4."""
    two, four, eight = (all_lanes(m[0].type, k) for k in (2, 4, 8))
    ones, twos = b.add(m[1], m[2]), b.add(m[3], m[4])
    one, other = b.sub(m[1], m[2]), b.sub(m[3], m[4])
    last = b.add(b.mul(other, eight), b.mul(m[5], four))
    return [
        b.add(m[0], b.add(ones, twos)), b.add(one, b.mul(other, two)),
        b.add(ones, b.mul(twos, four)), b.add(one, last),
    ]  # fmt: skip


@procedure(bytes_t, int_t, int_t, int_t, bytes_t, int_t)
def _input(
    e: Emitter, x: Value, x_row: Value, x_pixel: Value, channels: Value, y: Value, position: Value
) -> None:
    """V = Bᵀ x B of 6x6 pixels, 16 bits each; positions lie so many bytes apart."""
    b = e.builder
    shorts = ir.VectorType(ir.IntType(16), LANES)

    def some_channels(c: Value) -> None:
        rows = []
        for i in range(SIDE):
            row = e.at(x, b.add(b.mul(e.int(i), x_row), c))
            pixels = [e.load(row, b.mul(e.int(j), x_pixel), BYTES) for j in range(SIDE)]
            rows.append(_evaluated(b, [b.zext(pixel, shorts) for pixel in pixels]))
        target = e.at(y, b.mul(c, e.int(2)))
        for j in range(SIDE):
            for i, v in enumerate(_evaluated(b, [row[j] for row in rows])):
                e.store(v, target, b.mul(e.int(i * SIDE + j), position))

    e.each_vector(channels, some_channels)


@kernel("""
    x x_thread x_next x_row x_pixel channels tiles_high tiles_wide v v_thread v_position v_tile by_row
""")
def byte_winograd_input(job: Any, first: int, count: int, thread: int) -> None:
    """The tiles of the images of a chunk, or `by_row` rows of the tiles of one image, as V."""
    images, begin, end = count, 0, job.tiles_high
    if job.by_row:
        images, begin, end = 1, first, first + count
    for n in range(images):
        for i in range(begin, end):
            row = job.x + thread * job.x_thread + n * job.x_next + OUT * i * job.x_row
            tile = (n * job.tiles_high + i) * job.tiles_wide
            for j in range(job.tiles_wide):
                _input(bytes_at(row + OUT * j * job.x_pixel), job.x_row, job.x_pixel, job.channels,
                       bytes_at(job.v + thread * job.v_thread + (tile + j) * job.v_tile),
                       job.v_position)  # fmt: skip


@procedure(int_t, bytes_t, int_t, ints_t, int_t, bytes_t, int_t, ints_t, ints_t)
def _products(
    e: Emitter, wide: Value, v: Value, v_tile: Value, steps: Value, last: Value, u: Value,
    depth: Value, bias: Value, m: Value,
) -> None:  # fmt: skip
    """A position of M: `ROWS[wide - 1]` tiles by `wide` vectors of filters; behind tile `last` it again."""
    b = e.builder

    def emit(rows: int, vectors: int) -> None:
        tiles = [b.select(b.icmp_signed("<", e.int(r), last), e.int(r), last) for r in range(rows)]
        row = [e.at(v, b.mul(tile, v_tile)) for tile in tiles]
        total = sums(e, rows, vectors, row, steps, u, depth, bias, dot_shorts)
        for r, tile in enumerate(tiles):
            target = e.at(m, b.mul(tile, e.int(POSITIONS * vectors * LANES)))
            for one in range(vectors):
                e.store(total[r * vectors + one], target, e.int(one * LANES))

    by_width(e, wide, emit)


def _output(pooled: bool) -> Callable:
    """The intrinsic for the bytes of a tile, Aᵀ M A rescaled; or the largest of each 2x2 of them."""

    @procedure(ints_t, int_t, bytes_t, int_t, bytes_t, ints_t)
    def output(
        e: Emitter, m: Value, position: Value, scales: Value, lowest: Value, y: Value, places: Value
    ) -> None:
        """Of one vector of filters. Pixel p is written at `y[places[p]]`, the last one first."""
        b = e.builder
        columns = []
        for j in range(SIDE):
            at = [b.mul(e.int(i * SIDE + j), position) for i in range(SIDE)]
            columns.append(_interpolated(b, [e.load(m, place, INTS) for place in at]))
        rows = [_interpolated(b, [column[i] for column in columns]) for i in range(OUT)]
        rows = [[b.mul(pixel, all_lanes(INTS, NINTH)) for pixel in row] for row in rows]
        if pooled:
            rows = [
                [largest(e, [*upper[j : j + 2], *lower[j : j + 2]]) for j in range(0, OUT, 2)]
                for upper, lower in zip(rows[::2], rows[1::2], strict=True)
            ]
        least = e.splat(b.trunc(lowest, INT32))
        pixels = [narrowed(e, quick(e, pixel, scales, 0), least) for row in rows for pixel in row]
        for p, pixel in reversed(list(enumerate(pixels))):
            e.store(pixel, y, b.sext(b.load(e.at(places, e.int(p))), INT))

    return output


_whole_output, _pooled_output = _output(False), _output(True)


@kernel("""
    v v_thread v_position v_tile steps u depth vectors bias scales lowest m m_thread
    y y_thread places tiles by_tile pooled
""")
def byte_winograd(job: Any, first: int, count: int, thread: int) -> None:
    """y = the bytes of the convolution of V with U, panel by panel of filters, block by block of tiles.

    Units are images of a chunk, of so many tiles each; or, of one image, tiles if `by_tile`. A tile's
    `places` in y are 16, or 4 if `pooled`; one that its map does not have is that of another pixel
    before it, which is written later.
    """
    begin, end = 0, count * job.tiles
    if job.by_tile:
        begin, end = first, first + count
    m, pixels = job.m + thread * job.m_thread, (4 if job.pooled else OUT * OUT)
    for start in range(0, job.vectors, WIDEST):
        wide = min(WIDEST, job.vectors - start)
        step = 4 * LANES * wide
        scales, ys = job.scales + SCALE_BYTES * start, job.y + thread * job.y_thread + LANES * start
        for block in range(begin, end, BLOCK):
            stop = min(block + BLOCK, end)
            for p in range(POSITIONS):
                u = bytes_at(
                    job.u + POSITIONS * 4 * LANES * start * job.depth + p * step * job.depth
                )
                bias = ints(job.bias + 4 * LANES * (p * job.vectors + start))
                for tile in range(block, stop, ROWS[wide - 1]):
                    v = job.v + thread * job.v_thread + p * job.v_position + tile * job.v_tile
                    target = m + ((tile - block) * POSITIONS + p) * step
                    _products(wide, bytes_at(v), job.v_tile, ints(job.steps), stop - tile - 1, u,
                              job.depth, bias, ints(target))  # fmt: skip
            for tile in range(block, stop):
                places = ints(job.places + 4 * pixels * tile)
                for one in range(wide):
                    sums = ints(m + (tile - block) * POSITIONS * step + 4 * LANES * one)
                    scale, out = bytes_at(scales + SCALE_BYTES * one), bytes_at(ys + LANES * one)
                    if job.pooled:
                        _pooled_output(sums, LANES * wide, scale, job.lowest, out, places)
                    else:
                        _whole_output(sums, LANES * wide, scale, job.lowest, out, places)
