"""Strassen's product: a large matrix product with an eighth fewer multiplications.

Cut both matrices into quarters, and the product of two 2x2 matrices of blocks takes eight products of
blocks. Strassen found seven that are enough: of sums of blocks, whose results, added and subtracted,
are the quarters of the result. Sums take time in proportion to a matrix's size, products to size times
depth: so it pays where all three sides are long, as in the last convolution of SqueezeNet, 169 pixels x
512 channels x 1,000 classes. (Strassen 1969, "Gaussian elimination is not optimal".)

It has the form of Winograd's convolution, with seven positions instead of 36:

    V = LEFT x      sums of quarters of the pixels' matrix: half the pixels, half the channels
    U = RIGHT w     of the weights: half the channels, half the output channels
    M = V · U       at each of the seven positions an ordinary matrix product
    y = BACK M      the quarters of the result

The left and the right quarters of the output channels are every other panel, so that two neighbouring
panels are made together. If the pixels are odd in number, the one in the middle is in both halves.
"""

from collections.abc import Callable
from typing import Any

from numba import float32, types

from tinysqueeze.kernels.kernel import kernel
from tinysqueeze.kernels.target import TARGET
from tinysqueeze.kernels.vectors import Emitter, Value, floats, floats_t, ints, procedure
from tinysqueeze.kernels.winograd import Matrix

int_t = types.int64
PANEL = TARGET.panel

# Of the quarters top left, top right, bottom left, bottom right.
LEFT: Matrix = (
    (1, 0, 0, 1), (0, 0, 1, 1), (1, 0, 0, 0), (0, 0, 0, 1), (1, 1, 0, 0), (-1, 0, 1, 0), (0, 1, 0, -1)
)  # fmt: skip
RIGHT: Matrix = (
    (1, 0, 0, 1), (1, 0, 0, 0), (0, 1, 0, -1), (-1, 0, 1, 0), (0, 0, 0, 1), (1, 1, 0, 0), (0, 0, 1, 1)
)  # fmt: skip
BACK: Matrix = (
    (1, 0, 0, 1, -1, 0, 1), (0, 0, 1, 0, 1, 0, 0), (0, 1, 0, 1, 0, 0, 0), (1, -1, 1, 0, 0, 1, 0)
)  # fmt: skip
POSITIONS = len(LEFT)


def _places(e: Emitter, count: int, down: Value, right: Value) -> list[Value]:
    """Where four quarters lie, or so many positions: `down` from one to the next."""
    b = e.builder
    if count == 4:
        return [e.int(0), right, down, b.add(down, right)]
    return [b.mul(down, e.int(i)) for i in range(count)]


def _combination(matrix: Matrix, finish: bool = False) -> Callable:
    """The intrinsic: sums of blocks by the rows of a matrix, for so many floats (whole vectors) each.

    With `finish` the bias is added to the quarters, and results below the floor become it.
    """

    @procedure(
        floats_t, int_t, int_t, floats_t, int_t, int_t, int_t, floats_t, types.float32
    )  # fmt: skip
    def combination(
        e: Emitter, source: Value, down_in: Value, right_in: Value, target: Value, down_out: Value,
        right_out: Value, size: Value, bias: Value, floor: Value,
    ) -> None:  # fmt: skip
        b = e.builder
        sources = _places(e, len(matrix[0]), down_in, right_in)
        targets = _places(e, len(matrix), down_out, right_out)
        lowest = e.splat(floor)

        def some(c: Value) -> None:
            blocks = [e.load(source, b.add(c, place)) for place in sources]
            for i, (row, place) in enumerate(zip(matrix, targets, strict=True)):
                result = e.combine(row, blocks)
                if finish:
                    start = e.load(bias, b.add(c, targets[i % 2]))
                    result = e.at_least(b.fadd(result, start), lowest)
                e.store(result, target, b.add(c, place))

        e.each_vector(size, some)

    return combination


_left, _right, _back = _combination(LEFT), _combination(RIGHT), _combination(BACK, finish=True)


@kernel("x x_rows rows half channels v v_thread v_position")
def strassen_left(job: Any, first: int, count: int, thread: int) -> None:
    """V = LEFT x, (positions, half, channels) from x, (rows, 2 * channels). Units are rows of V.

    x_rows says where each row begins.
    """
    rows, nothing = ints(job.x_rows), floats(job.x)
    for r in range(first, first + count):
        down = rows[job.rows - job.half + r] - rows[r]
        v = job.v + 4 * (thread * job.v_thread + r * job.channels)
        _left(floats(job.x + 4 * rows[r]), down, job.channels, floats(v), job.v_position, 0,
              job.channels, nothing, float32(0))  # fmt: skip


@kernel("w u depth")
def strassen_right(job: Any, first: int, count: int, thread: int) -> None:
    """U = RIGHT w, for packed weights of 2 * `depth` rows. Units are pairs of panels."""
    size = job.depth * PANEL
    for pair in range(first, first + count):
        w, u = floats(job.w + 16 * pair * size), floats(job.u + 4 * POSITIONS * pair * size)
        _right(w, size, 2 * size, u, size, 0, size, w, float32(0))


@kernel("m m_thread m_position y y_thread y_pixel rows half bias floor:f")
def strassen_back(job: Any, first: int, count: int, thread: int) -> None:
    """y = max(floor, BACK M + bias) into scratch, (rows, pair of panels). A unit is a pair of panels."""
    down = (job.rows - job.half) * job.y_pixel
    bias = floats(job.bias + 8 * first * PANEL)
    for r in range(job.half):
        m = floats(job.m + 4 * (thread * job.m_thread + r * PANEL))
        y = floats(job.y + 4 * (thread * job.y_thread + r * job.y_pixel))
        _back(m, job.m_position, 0, y, down, PANEL, PANEL, bias, job.floor)
