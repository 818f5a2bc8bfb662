"""The micro-kernel for bytes: a tile of int32 sums in registers, and their way back to bytes.

It is `tile` over again with `dot` for the multiply-add: step k takes four neighbouring bytes of each
row and a vector of weights for four channels. What is new is the end. A sum of filter f becomes

    q = clamp(zero + floor((sum * multiplier[f] + half[f]) / 2^shift[f]), lowest, 255)

exactly. Products take 64 bits, so those of even and of odd lanes are made apart; but what is added has
no ones in its lower 32 bits if shift > 32 (half is 2^(shift - 1), and zero * 2^shift goes with it), and
so only the products' upper halves matter, which fit in one vector again. That is `quick`, for shifts up
to SHIFT_MOST, as every layer has whose output is coarser than a unit of its sums. Otherwise `exact` does
it step by step.
"""

from collections.abc import Callable

from llvmlite import ir
from numba import types

from tinysqueeze.kernels.integers import (
    LONGS,
    all_lanes,
    clamped,
    dot,
    halves,
    joined,
    load_int,
    narrowed,
    packed,
)
from tinysqueeze.kernels.target import TARGET
from tinysqueeze.kernels.vectors import (
    BYTE,
    INT,
    INT32,
    INTS,
    LANES,
    Emitter,
    Value,
    bytes_t,
    ints_t,
    procedure,
)

int_t = types.int64
ROWS = TARGET.byte_rows
"""Rows of the tile that is 1, 2, ... vectors wide."""
WINDOW = 4
POOLED_ROWS = tuple(max(WINDOW, rows // WINDOW * WINDOW) for rows in ROWS)
"""The same where each WINDOW rows are a pooling window, of which only the largest sum goes on."""
SHIFT_LEAST, SHIFT_MOST = 33, 53
"""Between these the upper half of (2 zero + 1) * 2^(shift - 1), 29 bits, fits beside a product's, 30 bits."""
SCALE_BYTES = 24 * LANES
"""A vector of filters in the table of scales. For `exact`: multipliers, halves and shifts, int64 (LANES / 2,)
each, of the even lanes; and the same of the odd. For `quick`: multipliers of the even and of the odd
lanes, int64; then what is added and the shifts, both less 32 bits, int32 (LANES,)."""


def is_interleaved(vectors: int) -> bool:
    """Does a panel so wide want its filters in the order of `packed`? It then stores whole cache lines."""
    return vectors == 4 and (LANES, TARGET.dot) == (16, "vnni")


def rescaled(e: Emitter, total: Value, scales: Value, vector: int) -> list[Value]:
    """floor((sum * multiplier + half) / 2^shift) of the even and of the odd lanes, int64."""
    b, found = e.builder, []
    for i, part in enumerate(halves(e, total)):
        place = vector * SCALE_BYTES + i * 12 * LANES
        half, shift = (e.load(scales, e.int(place + step * LANES), LONGS) for step in (4, 8))
        found.append(b.ashr(b.add(b.mul(part, _multiplier(e, scales, place)), half), shift))
    return found


def quick(e: Emitter, total: Value, scales: Value, vector: int) -> Value:
    """zero + the rescaled sums, int32."""
    b, place = e.builder, vector * SCALE_BYTES
    products = [
        b.bitcast(b.mul(part, _multiplier(e, scales, place + i * 4 * LANES)), INTS)
        for i, part in enumerate(halves(e, total))
    ]
    uppers = [i + 1 if i % 2 == 0 else LANES + i for i in range(LANES)]
    upper = b.shuffle_vector(*products, ir.Constant(INTS, uppers))
    more, shift = (e.load(scales, e.int(place + step * LANES), INTS) for step in (8, 12))
    return b.ashr(b.add(upper, more), shift)


def _multiplier(e: Emitter, scales: Value, place: int) -> Value:
    """Of half a vector, int64; says that it has 32 bits."""
    b, word = e.builder, all_lanes(LONGS, 32)
    return b.ashr(b.shl(e.load(scales, e.int(place), LONGS), word), word)


def exact(
    e: Emitter, total: Value, scales: Value, vector: int, zero: Value, low: Value, high: Value
) -> Value:
    """clamp(zero + the rescaled sums, low, high) for any shift; the last three are int64 vectors."""
    b = e.builder
    even, odd = (
        clamped(e, b.add(part, zero), low, high) for part in rescaled(e, total, scales, vector)
    )
    return joined(e, even, b.shl(odd, all_lanes(LONGS, 32)))


def sums(
    e: Emitter, rows: int, vectors: int, x_row: list[Value], x_steps: Value, w: Value,
    depth: Value, bias: Value, multiply: Callable[..., Value] = dot,
) -> list[Value]:  # fmt: skip
    """The loop over the depth: totals [row * vectors + vector]."""
    b = e.builder
    start = [e.load(bias, e.int(v * LANES), INTS) for v in range(vectors)] * rows

    def step(k: Value, flat: list[Value]) -> list[Value]:
        place = e.at(w, b.mul(k, e.int(4 * LANES * vectors)))
        weights = [e.load(place, e.int(4 * LANES * v), INTS) for v in range(vectors)]
        offset = b.sext(b.load(e.at(x_steps, k)), INT)
        total = []
        for r in range(rows):
            four = e.splat(load_int(e, e.at(x_row[r], offset)))
            total += [multiply(e, flat[r * vectors + v], four, weights[v]) for v in range(vectors)]
        return total

    return e.loop(e.int(0), depth, step, start)


def _index(e: Emitter, table: Value, row: int, last: Value, window: int = 1) -> Value:
    """Entry `row` of an integer table as a 64-bit offset, or the same row of the `last` window there is."""
    b, mine = e.builder, e.int(row // window)
    place = b.select(b.icmp_signed("<", mine, last), mine, last)
    place = b.add(b.mul(place, e.int(window)), e.int(row % window))
    return b.sext(b.load(e.at(table, place)), INT)


def by_width(
    e: Emitter, wide: Value, emit: Callable[[int, int], None], rows_of: tuple[int, ...] = ROWS
) -> None:
    """What `emit(rows, vectors)` emits for the tile that is `wide` vectors wide, decided as it runs."""
    for vectors, rows in enumerate(rows_of, start=1):
        with e.builder.if_then(e.builder.icmp_signed("==", wide, e.int(vectors))):
            emit(rows, vectors)


def _byte_tile(window: int) -> Callable:
    """The intrinsic for rows of bytes, of which the largest of each `window` goes on.

    To rescale is never to reverse an order: so a max-pool may come first, and there is less to rescale.
    """

    @procedure(int_t, int_t, bytes_t, ints_t, ints_t, int_t, bytes_t, int_t, ints_t, bytes_t, int_t,
               int_t, bytes_t, ints_t)  # fmt: skip
    def tile(
        e: Emitter, wide: Value, is_quick: Value, x: Value, x_rows: Value, x_steps: Value,
        last: Value, w: Value, depth: Value, bias: Value, scales: Value, zero: Value,
        lowest: Value, y: Value, y_rows: Value,
    ) -> None:  # fmt: skip
        """Rows of bytes, `ROWS[wide - 1]` of them by `wide` vectors; or of `POOLED_ROWS`.

        x, x_rows, x_steps, last   as in `tile`, in bytes
        w, depth                   weights (depth, wide, LANES, 4)
        bias, scales               of these filters; `is_quick` says how the scales were made
        zero, lowest               of the result
        y, y_rows                  the result; window r is written at `y[y_rows[r]]`
        """
        b = e.builder
        is_quick = b.icmp_signed("!=", is_quick, e.int(0))

        def emit(rows: int, vectors: int) -> None:
            end = b.sdiv(last, e.int(window))
            x_row = [e.at(x, _index(e, x_rows, r, end, window)) for r in range(rows)]
            total = sums(e, rows, vectors, x_row, x_steps, w, depth, bias)
            windows = [total[r * vectors : (r + window) * vectors] for r in range(0, rows, window)]
            total = [largest(e, one[v::vectors]) for one in windows for v in range(vectors)]
            y_row = [e.at(y, _index(e, y_rows, r, end)) for r in range(rows // window)]
            least = b.trunc(lowest, INT32)
            edges = [e.splat(n, LANES // 2) for n in (zero, lowest, e.int(255))]
            with b.if_else(is_quick) as (if_quick, otherwise):
                with if_quick:
                    _store(e, total, y_row, scales, least, quick)
                with otherwise:
                    _store(e, total, y_row, scales, least, lambda *given: exact(*given, *edges))

        by_width(e, wide, emit, ROWS if window == 1 else POOLED_ROWS)

    return tile


def largest(e: Emitter, sums: list[Value]) -> Value:
    """Of one or more vectors of int32, lane by lane."""
    best, *others = sums
    for one in others:
        best = e.builder.select(e.builder.icmp_signed(">", one, best), one, best)
    return best


def _store(
    e: Emitter, total: list[Value], y_row: list[Value], scales: Value, least: Value,
    rescale: Callable[[Emitter, Value, Value, int], Value],
) -> None:  # fmt: skip
    """The rows of sums as bytes."""
    vectors = len(total) // len(y_row)
    found: list[list[Value]] = [[] for _ in y_row]
    for v in range(vectors):
        for r, mine in enumerate(found):
            mine.append(rescale(e, total[r * vectors + v], scales, v))
    for mine, row in zip(found, y_row, strict=True):
        if is_interleaved(vectors):
            low = e.builder.trunc(least, BYTE)
            e.store(packed(e, mine, e.splat(low, count=64)), row)
            continue
        for v, one in enumerate(mine):
            e.store(narrowed(e, one, e.splat(least)), row, e.int(v * LANES))


byte_tile, pooled_tile = _byte_tile(1), _byte_tile(WINDOW)


@procedure(int_t, bytes_t, ints_t, ints_t, int_t, bytes_t, int_t, ints_t, bytes_t, int_t, ints_t)
def sum_tile(
    e: Emitter, wide: Value, x: Value, x_rows: Value, x_steps: Value, last: Value, w: Value,
    depth: Value, bias: Value, scales: Value, lowest: Value, y: Value,
) -> None:  # fmt: skip
    """The end of a network: adds the rescaled sums of all rows, int32, to `wide` vectors at y."""
    b = e.builder

    def emit(rows: int, vectors: int) -> None:
        x_row = [e.at(x, _index(e, x_rows, r, last)) for r in range(rows)]
        total = sums(e, rows, vectors, x_row, x_steps, w, depth, bias)
        edges = [e.splat(n, LANES // 2) for n in (e.int(0), lowest, e.int((1 << 31) - 1))]
        for v in range(vectors):
            logits = e.load(y, e.int(v * LANES), INTS)
            for r in range(rows):
                one = exact(e, total[r * vectors + v], scales, v, *edges)
                there = e.splat(b.sext(b.icmp_signed("<=", e.int(r), last), INT32))
                logits = b.add(logits, b.and_(one, there))  # a row beyond the last repeats it
            e.store(logits, y, e.int(v * LANES))

    by_width(e, wide, emit)
