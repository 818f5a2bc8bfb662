"""The micro-kernel: a small matrix product that never leaves the registers. Everything fast is this.

A convolution is a matrix product: each output pixel is a row (its patch of the image) times the
weights. Multiplying is easily done; the trouble is memory. A processor core can start two vector
multiply-adds per clock tick, yet if each had to fetch its three operands and put back the result, it
would wait for memory nearly all the time. The cure is a *register tile*: hold a small block of the
result, say 8 pixels by 2 vectors of 16 channels, in 16 registers from beginning to end, and for each
step along the depth fetch 2 vectors of weights and 8 pixel values. These 10 loads feed 16
multiply-adds, and results are touched only twice: once to begin and once to end.

    for k in range(depth):                     # input channels, or pixels: whatever is summed over
        b0, b1 = two vectors of weights        # 2 loads
        for r in range(8):                     # unrolled: each y[r] is a pair of registers
            a = x[r, k] in every lane          # 1 load, "broadcast"
            y[r] += a * b0, a * b1             # 2 multiply-adds

**Rows come from tables.** Textbooks first copy each patch into a row of a large matrix (im2col).
Here nothing is copied: row r starts `x_rows[r]` floats into the image, and the k-th number of any
row is `x_steps[k]` floats further on. With channels last, the patch of a 3x3 window is three runs of
3*C neighbouring floats, one from each image row, and the patches of two neighbouring pixels overlap:
that is why NHWC lets a 3x3 convolution be three overlapping-row products. Two short tables of
integers say all of that, for any kernel, stride or padding, and the same code serves

- a convolution:      rows are output pixels, steps run over (kernel row, kernel column, channel);
- the weight gradient: rows are the weights, steps run over pixels, and dy takes the place of the
  weights: dweight[row] = sum over pixels of x[row + pixel] * dy[pixel];
- the products inside Winograd's algorithm, one for each of its 16 or 36 positions.
"""

from collections.abc import Callable

from numba import types

from tinysqueeze.kernels.target import TARGET
from tinysqueeze.kernels.vectors import INT, Emitter, Value, floats_t, ints_t, procedure

int_t = types.int64
ROWS, VECTORS, STRIP = TARGET.tile_rows, TARGET.tile_vectors, TARGET.strip_rows
AHEAD = 2 * ROWS
"""Floats asked for at each step: two tiles further, or one where another arm's channels lie between."""


def _micro_kernel(rows: int, vectors: int, stream: bool) -> Callable:
    """The micro-kernel for a tile of `rows` by `vectors` registers, as a Numba intrinsic.

    Its arguments:
        x, x_rows, x_steps: the image and its tables; number k of row r is at
            `x[x_rows[r] + x_steps[k]]`.
        last: the last row that exists. Rows of the tile beyond it repeat it: they compute and store
            the same numbers again, which is harmless, and spares a second kernel for the remainder.
        w, w_step: the weights; step k uses the vectors at `w[k * w_step]`.
        depth: the number of steps, at least 1.
        y, y_rows: the result; row r is written at `y[y_rows[r]]`.
        bias: `vectors` vectors to begin with.
        add: if not 0, what is in y already is added as well.
        floor: results below it become it: 0 for ReLU, minus infinity for none.
        far: if not 0, the cache lines of the result are asked for beforehand. Where it lies near
            already, in a thread's own scratch, asking costs more than it gives.
        upcoming: the `AHEAD * depth` floats from here will be needed next. With `stream` they are asked
            for in the meantime, since a core that waits for memory does nothing else.
    """

    @procedure(
        floats_t, ints_t, ints_t, int_t,
        floats_t, int_t, int_t,
        floats_t, ints_t,
        floats_t, int_t, types.float32, int_t, floats_t,
    )  # fmt: skip
    def tile(
        e: Emitter, x: Value, x_rows: Value, x_steps: Value, last: Value, w: Value,
        w_step: Value, depth: Value, y: Value, y_rows: Value, bias: Value, add: Value,
        floor: Value, far: Value, upcoming: Value,
    ) -> None:  # fmt: skip
        b = e.builder
        columns = [e.int(v * TARGET.lanes) for v in range(vectors)]

        def index(table: Value, place: Value) -> Value:
            """An entry of an integer table, as a 64-bit offset."""
            return b.sext(b.load(e.at(table, place)), INT)

        x_row, y_row = [], []
        for r in range(rows):
            place = b.select(b.icmp_signed("<", e.int(r), last), e.int(r), last)
            x_row.append(e.at(x, index(x_rows, place)))
            y_row.append(e.at(y, index(y_rows, place)))

        with b.if_then(b.icmp_signed("!=", far, e.int(0))):
            _ask_for(e, y_row, columns)
        start = [[e.load(bias, c) for c in columns] for _ in range(rows)]
        start = _add_existing(e, add, start, y_row, columns)

        def step(k: Value, flat: list[Value]) -> list[Value]:
            if stream:
                e.prefetch(e.at(upcoming, b.mul(k, e.int(AHEAD))))
            place = e.at(w, b.mul(k, w_step))
            weights = [e.load(place, c) for c in columns]
            offset = index(x_steps, k)
            total = []
            for r in range(rows):
                value = e.splat(b.load(e.at(x_row[r], offset)))
                for v in range(vectors):
                    total.append(e.fma(value, weights[v], flat[r * vectors + v]))
            return total

        total = e.loop(e.int(0), depth, step, [v for row in start for v in row])
        lowest = e.splat(floor)
        for r in range(rows):
            for v in range(vectors):
                e.store(e.at_least(total[r * vectors + v], lowest), y_row[r], columns[v])

    return tile


def _ask_for(e: Emitter, y_rows: list[Value], columns: list[Value]) -> None:
    """Has the cache lines of results brought near while they are made: at the end nothing waits."""
    for row in y_rows:
        for column in columns:
            e.prefetch(row, column, write=True)


def _add_existing(
    e: Emitter, add: Value, start: list[list[Value]], y_row: list[Value], columns: list[Value]
) -> list[list[Value]]:
    """`start`, plus what the result already holds if `add` is not zero (decided as it runs)."""
    b = e.builder
    before = b.block
    with b.if_then(b.icmp_signed("!=", add, e.int(0))):
        added = [
            [b.fadd(s, e.load(y, c)) for s, c in zip(row, columns, strict=True)]
            for row, y in zip(start, y_row, strict=True)
        ]
        inside = b.block
    result: list[list[Value]] = []
    for row, more in zip(start, added, strict=True):
        result.append([])
        for old, new in zip(row, more, strict=True):
            phi = b.phi(old.type)
            phi.add_incoming(old, before)
            phi.add_incoming(new, inside)
            result[-1].append(phi)
    return result


def _strip(rows: int, vectors: int) -> Callable:
    """The micro-kernel for weight gradients whose rows are neighbouring channels.

    Row r reads `x[x_steps[k] + r]` and is added to `y[r * y_row]`. One pointer serves all rows, which
    leaves the processor enough registers to keep everything else in.
    """

    @procedure(floats_t, ints_t, floats_t, int_t, int_t, floats_t, int_t)
    def strip(
        e: Emitter, x: Value, x_steps: Value, w: Value, w_step: Value, depth: Value, y: Value,
        y_row: Value,
    ) -> None:  # fmt: skip
        b = e.builder
        columns = [e.int(v * TARGET.lanes) for v in range(vectors)]
        y_rows = [e.at(y, b.mul(y_row, e.int(r))) for r in range(rows)]
        _ask_for(e, y_rows, columns)

        def step(k: Value, flat: list[Value]) -> list[Value]:
            place = e.at(w, b.mul(k, w_step))
            weights = [e.load(place, c) for c in columns]
            pixel = e.at(x, b.sext(b.load(e.at(x_steps, k)), INT))
            e.prefetch(pixel, e.int(TARGET.lanes))
            total = []
            for r in range(rows):
                value = e.splat(b.load(e.at(pixel, e.int(r))))
                for v in range(vectors):
                    total.append(e.fma(value, weights[v], flat[r * vectors + v]))
            return total

        total = e.loop(e.int(0), depth, step, [e.every(0)] * (rows * vectors))
        for r, row in enumerate(y_rows):
            for v in range(vectors):
                e.store(b.fadd(total[r * vectors + v], e.load(row, columns[v])), row, columns[v])

    return strip


wide_tile, narrow_tile = _micro_kernel(ROWS, VECTORS, True), _micro_kernel(ROWS, 1, True)
"""For convolutions: a full panel of output channels, and what is left, one vector."""

short_tile = _micro_kernel(ROWS - 1, VECTORS, True)
"""One row less, for when as many of these do: 49 rows are 7 tiles of 7, or 7 of 8 with one used once."""

SUM = ROWS - 1
wide_sum, narrow_sum = _micro_kernel(SUM, VECTORS, False), _micro_kernel(SUM, 1, False)
"""For weight gradients, whose next rows are no stream: 3x3 windows of colours have 27, 4 tiles of 7."""

wide_strip, narrow_strip = _strip(STRIP, VECTORS), _strip(TARGET.lanes, 1)
"""For weight gradients with neighbouring rows."""
