"""Winograd's convolution: a 3x3 convolution with 2.25 or 4 times fewer multiplications.

Four neighbouring outputs of a 3-tap filter need 4 * 3 = 12 multiplications. Winograd's trick: think
of the taps as a polynomial w(t) and of the inputs as another. A convolution multiplies polynomials,
and polynomials can be multiplied *point by point*: evaluate both at 6 points, multiply the 6 pairs
of numbers, and interpolate. Evaluating and interpolating are only additions and small constants when
the points are 0, 1, -1, 2, -2 and infinity; so 6 multiplications do what took 12. In two dimensions
a tile of 4x4 outputs takes 36 instead of 144: that is F(4x4, 3x3). F(2x2, 3x3) uses the points 0, 1,
-1 and infinity: 16 instead of 36, with rounding errors as small as the direct sum's. The six points
serve filters of 4x4 as well, three outputs at a time: F(3x3, 4x4) takes 36 where it took 144.
(Winograd 1980; Lavin and Gray 2015, "Fast algorithms for convolutional neural networks",
https://arxiv.org/abs/1509.09308.)

Three small matrices do the evaluating and interpolating, from left and right, on every channel:

    V = Bᵀ x B      the image, tile by tile (each tile overlaps its neighbour by two pixels)
    U = G w Gᵀ      the weights
    M = V · U       at each of the 36 (16) positions: an ordinary matrix product over channels
    y = Aᵀ M A      back to pixels

**Backward is the exact adjoint.** Each line is linear, and the adjoint of `Aᵀ M A` as a function of
M is `dM = A dy Aᵀ`: the same matrix, transposed. So the gradients go through the same three steps in
reverse, dU = Vᵀ · dM, dV = dM · Uᵀ, then dx += B dV Bᵀ (tiles overlap, hence the +=) and
dw = Gᵀ dU G. Nothing is approximated; dM serves both gradients.

V and M lie in memory by position, then tile, then channel, so that each position is one product for
the micro-kernel. They hold a few dozen tiles at a time, which stay in the cache.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import float32, types

from tinysqueeze.kernels.kernel import kernel
from tinysqueeze.kernels.products import PANEL, copy_vector, zero_vector
from tinysqueeze.kernels.target import TARGET
from tinysqueeze.kernels.vectors import Emitter, Value, floats, floats_t, procedure

int_t = types.int64
LANES = TARGET.lanes

Matrix = tuple[tuple[float, ...], ...]

# F(4x4, 3x3): the points 0, 1, -1, 2, -2, infinity.
BT4: Matrix = (
    (4, 0, -5, 0, 1, 0),
    (0, -4, -4, 1, 1, 0),
    (0, 4, -4, -1, 1, 0),
    (0, -2, -1, 2, 1, 0),
    (0, 2, -1, -2, 1, 0),
    (0, 4, 0, -5, 0, 1),
)
G4: Matrix = (
    (1 / 4, 0, 0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0, 0, 1),
)
AT4: Matrix = (
    (1, 1, 1, 1, 1, 0),
    (0, 1, -1, 2, -2, 0),
    (0, 1, 1, 4, 4, 0),
    (0, 1, -1, 8, -8, 1),
)
# F(3x3, 4x4): the same points, so the same Bᵀ.
G3: Matrix = (
    (1 / 4, 0, 0, 0),
    (-1 / 6, -1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6, 1 / 6),
    (1 / 24, 1 / 12, 1 / 6, 1 / 3),
    (1 / 24, -1 / 12, 1 / 6, -1 / 3),
    (0, 0, 0, 1),
)
AT3: Matrix = ((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 1))
# F(2x2, 3x3): the points 0, 1, -1, infinity.
BT2: Matrix = ((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1))
G2: Matrix = ((1, 0, 0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0, 0, 1))
AT2: Matrix = ((1, 1, 1, 0), (0, 1, -1, -1))

MATRICES = {
    m: tuple(np.array(k) for k in ks)
    for m, ks in {2: (BT2, G2, AT2), 3: (BT4, G3, AT3), 4: (BT4, G4, AT4)}.items()
}
"""For each output tile size m: (Bᵀ, G, Aᵀ) as arrays, for tests and lessons; 3 is for 4x4 filters."""


def _transposed(matrix: Matrix) -> Matrix:
    return tuple(zip(*matrix, strict=True))


def _transform(matrices: dict[int, Matrix], finish: str = "store") -> Callable:
    """The intrinsic Y = matrix X matrixᵀ for every channel, with the matrix of this `key`.

    Arguments: key, source, its row and column stride, target, its row and column stride, channels
    (whole vectors, at least one), bias, floor. `finish` is "store", "add" to what is there, or "bias":
    add the bias, raise to the floor, store. "far" stores into memory that is not near yet, as "bias" does.
    """

    @procedure(
        int_t, floats_t, int_t, int_t, floats_t, int_t, int_t, int_t, floats_t, types.float32
    )  # fmt: skip
    def transform(e: Emitter, key: Value, *arguments: Value) -> None:
        for known, matrix in matrices.items():
            with e.builder.if_then(e.builder.icmp_signed("==", key, e.int(known))):
                _emit(e, matrix, finish, *arguments)

    return transform


def _emit(
    e: Emitter, matrix: Matrix, finish: str, source: Value, row_in: Value, col_in: Value,
    target: Value, row_out: Value, col_out: Value, channels: Value, bias: Value, floor: Value,
) -> None:  # fmt: skip
    """One round of the loop does `LANES` channels: columns first, rows next, all in registers."""
    b = e.builder
    size_out, size_in = len(matrix), len(matrix[0])
    rows_in = [b.mul(row_in, e.int(i)) for i in range(size_in)]
    cols_in = [b.mul(col_in, e.int(j)) for j in range(size_in)]
    rows_out = [b.mul(row_out, e.int(i)) for i in range(size_out)]
    cols_out = [b.mul(col_out, e.int(j)) for j in range(size_out)]
    lowest = e.splat(floor)

    def some_channels(channel: Value) -> None:
        columns = []
        for j in range(size_in):
            column = e.at(source, b.add(channel, cols_in[j]))
            values = [e.load(column, row) for row in rows_in]
            columns.append(e.combine_all(matrix, values))
        start = e.load(bias, channel) if finish == "bias" else None
        for i in range(size_out):
            row = e.at(target, b.add(channel, rows_out[i]))
            values = [columns[j][i] for j in range(size_in)]
            for result, place in zip(e.combine_all(matrix, values), cols_out, strict=True):
                if finish in ("bias", "far"):
                    e.prefetch(row, b.add(place, e.int(LANES)), write=True)
                if finish == "bias":
                    result = e.at_least(b.fadd(result, start), lowest)
                elif finish == "add":
                    result = b.fadd(result, e.load(row, place))
                e.store(result, row, place)

    e.each_vector(channels, some_channels)


# The way in asks for the points alone, so many a side; the others for the tile's size m.
_input = _transform({4: BT2, 6: BT4})
_weight = _transform({2: G2, 3: G3, 4: G4}, "far")
_output = _transform({2: AT2, 3: AT3, 4: AT4}, "bias")
_input_adjoint = _transform({4: _transposed(BT2), 6: _transposed(BT4)}, "add")
_weight_adjoint = _transform({2: _transposed(G2), 4: _transposed(G4)})
_output_adjoint = _transform({2: _transposed(AT2), 4: _transposed(AT4)})

# The kernels. Units are images, or single rows of tiles (`high` is 1 then), or panels of channels.
# `_unit` moves an array's beginning for each unit before the chunk (0 for scratch memory, which
# begins anew with each chunk); `_next` is the distance from one unit to the next inside the chunk.


@kernel("m side x x_unit x_thread x_next x_row channels v v_thread v_position high wide")
def winograd_input(job: Any, first: int, count: int, thread: int) -> None:
    """V = Bᵀ x B for tiles of `side` pixels, m apart. x is padded so that every tile lies inside."""
    m, side = job.m, job.side
    nothing = floats(job.x)
    x = job.x + 4 * (first * job.x_unit + thread * job.x_thread)
    v = job.v + 4 * thread * job.v_thread
    for n in range(count):
        for i in range(job.high):
            for j in range(job.wide):
                tile = floats(x + 4 * (n * job.x_next + m * (i * job.x_row + j * job.channels)))
                out = floats(v + 4 * ((n * job.high + i) * job.wide + j) * job.channels)
                _input(
                    side, tile, job.x_row, job.channels, out, side * job.v_position,
                    job.v_position, job.channels, nothing, float32(0),
                )  # fmt: skip


@kernel("m side x x_unit x_thread x_next x_row channels v v_thread v_position high wide")
def winograd_input_adjoint(job: Any, first: int, count: int, thread: int) -> None:
    """dx += B dV Bᵀ: each tile is added where it came from."""
    m, side = job.m, job.side
    nothing = floats(job.x)
    x = job.x + 4 * (first * job.x_unit + thread * job.x_thread)
    v = job.v + 4 * thread * job.v_thread
    for n in range(count):
        for i in range(job.high):
            for j in range(job.wide):
                tile = floats(x + 4 * (n * job.x_next + m * (i * job.x_row + j * job.channels)))
                out = floats(v + 4 * ((n * job.high + i) * job.wide + j) * job.channels)
                _input_adjoint(
                    side, out, side * job.v_position, job.v_position, tile, job.x_row,
                    job.channels, job.channels, nothing, float32(0),
                )  # fmt: skip


@kernel("""
    m side u u_thread u_position u_next channels bias floor:f
    y y_unit y_thread y_next y_row y_pixel height width
    high wide by_row? by_panel? spare spare_thread
""")
def winograd_output(job: Any, first: int, count: int, thread: int) -> None:
    """y = max(floor, Aᵀ M A + bias), M being u. Tiles that hang over the edge go through `spare`."""
    m, side = job.m, job.side
    images, channels, high = count, job.channels, job.high
    bias = floats(job.bias)
    if job.by_panel:
        images = 1
        channels = min(count * PANEL, job.channels - first * PANEL)
        bias = floats(job.bias + 4 * first * PANEL)
    u = job.u + 4 * thread * job.u_thread
    y = job.y + 4 * (first * job.y_unit + thread * job.y_thread)
    spare = floats(job.spare + 4 * thread * job.spare_thread)
    for n in range(images):
        for i in range(high):
            top = m * (first + n if job.by_row else i)
            for j in range(job.wide):
                tile = floats(u + 4 * ((n * high + i) * job.wide + j) * job.u_next)
                place = y + 4 * (n * job.y_next + m * (i * job.y_row + j * job.y_pixel))
                out, row, pixel = floats(place), job.y_row, job.y_pixel
                tall, broad = min(m, job.height - top), min(m, job.width - m * j)
                inside = tall == m and broad == m
                if not inside:
                    out, row, pixel = spare, m * channels, channels
                _output(
                    m, tile, side * job.u_position, job.u_position, out, row, pixel, channels,
                    bias, job.floor,
                )  # fmt: skip
                if not inside:
                    for a in range(tall):
                        for b in range(broad):
                            source = job.spare + 4 * (
                                thread * job.spare_thread + (a * m + b) * channels
                            )
                            target = place + 4 * (a * job.y_row + b * job.y_pixel)
                            for c in range(0, channels, LANES):
                                copy_vector(floats(source + 4 * c), floats(target + 4 * c))


@kernel("""
    m side u u_thread u_position channels
    y y_unit y_thread y_next y_row y_pixel height width high wide spare spare_thread
""")
def winograd_output_adjoint(job: Any, first: int, count: int, thread: int) -> None:
    """dM = A dy Aᵀ into u. What hangs over the edge counts as zero, by way of `spare`."""
    m, side = job.m, job.side
    nothing = floats(job.u)
    u = job.u + 4 * thread * job.u_thread
    y = job.y + 4 * (first * job.y_unit + thread * job.y_thread)
    for n in range(count):
        for i in range(job.high):
            for j in range(job.wide):
                out = floats(u + 4 * ((n * job.high + i) * job.wide + j) * job.channels)
                place = y + 4 * (n * job.y_next + m * (i * job.y_row + j * job.y_pixel))
                tile, row, pixel = floats(place), job.y_row, job.y_pixel
                tall, broad = min(m, job.height - m * i), min(m, job.width - m * j)
                if tall < m or broad < m:
                    spare = job.spare + 4 * thread * job.spare_thread
                    tile, row, pixel = floats(spare), m * job.channels, job.channels
                    for a in range(m):
                        for b in range(m):
                            source = place + 4 * (a * job.y_row + b * job.y_pixel)
                            target = spare + 4 * (a * m + b) * job.channels
                            for c in range(0, job.channels, LANES):
                                if a < tall and b < broad:
                                    copy_vector(floats(source + 4 * c), floats(target + 4 * c))
                                else:
                                    zero_vector(floats(target + 4 * c))
                _output_adjoint(
                    m, tile, row, pixel, out, side * job.u_position, job.u_position,
                    job.channels, nothing, float32(0),
                )  # fmt: skip


@kernel("m side taps w u size piece")
def winograd_weights(job: Any, first: int, count: int, thread: int) -> None:
    """U = G w Gᵀ for packed weights w, (taps, taps, size) -> (size / piece, side, side, piece).

    Units are vectors. The last piece may be smaller.
    """
    begin, end = first * LANES, (first + count) * LANES
    while begin < end:
        before = begin // job.piece * job.piece
        piece = min(job.piece, job.size - before)
        stop = min(end, before + piece)
        w = floats(job.w + 4 * begin)
        u = floats(job.u + 4 * (before * job.side * job.side + begin - before))
        _weight(
            job.m, w, job.taps * job.size, job.size, u, job.side * piece, piece,
            stop - begin, w, float32(0),
        )  # fmt: skip
        begin = stop


@kernel("m side u u_thread w w_thread size")
def winograd_weights_adjoint(job: Any, first: int, count: int, thread: int) -> None:
    """dw = Gᵀ dU G for this thread's sum dU, (side, side, size) -> (3, 3, size)."""
    u = floats(job.u + 4 * thread * job.u_thread)
    w = floats(job.w + 4 * thread * job.w_thread)
    _weight_adjoint(
        job.m, u, job.side * job.size, job.size, w, 3 * job.size, job.size, job.size, u, float32(0),
    )  # fmt: skip
