"""The vocabulary of integer vectors: four products a lane, and sums brought exactly to another scale.

Maps are bytes, weights signed bytes. A lane of 32 bits holds four neighbouring channels of a pixel, or
a filter's weights for them, and `dot` adds all four products to a sum. A processor with VNNI has one
instruction for that, which does four times the products of a float32 multiply-add. AVX2's own instruction
for bytes (vpmaddubsw) is of no use: it adds two products in 16 bits, and 2 * 255 * 127 does not fit. So
without VNNI both sides are widened to 16 bits first, and that is no faster than float32.
"""

from llvmlite import ir
from numba.core import cgutils

from tinysqueeze.kernels.target import TARGET
from tinysqueeze.kernels.vectors import BYTE, BYTES, INT, INT32, INTS, LANES, Emitter, Value

SHORTS = ir.VectorType(ir.IntType(16), 2 * LANES)
LONGS = ir.VectorType(INT, LANES // 2)

_VNNI = {16: "512", 8: "256", 4: "128"}
_PAIRS = {16: "avx512.pmaddw.d.512", 8: "avx2.pmadd.wd", 4: "sse2.pmadd.wd"}


def all_lanes(kind: ir.VectorType, value: int) -> Value:
    """A vector with the same known integer in each lane."""
    return ir.Constant(kind, [value] * kind.count)


def dot(e: Emitter, total: Value, x: Value, w: Value, how: str = TARGET.dot) -> Value:
    """total + x0 * w0 + x1 * w1 + x2 * w2 + x3 * w3 lane by lane: unsigned bytes by signed ones.

    `how` is "vnni", "pairs" or "plain"; sums wrap around in 32 bits.
    """
    b = e.builder
    if how == "vnni":
        return _call(e, f"avx512.vpdpbusd.{_VNNI[LANES]}", INTS, total, x, w)
    if how == "pairs":  # numbers 0 and 2 of the four as 16 bits, then 1 and 3
        mask, eight = all_lanes(INTS, 0x00FF00FF), all_lanes(SHORTS, 8)
        wide, kernel = (b.bitcast(a, SHORTS) for a in (x, w))
        even = b.bitcast(b.and_(x, mask), SHORTS), b.ashr(b.shl(kernel, eight), eight)
        odd = b.lshr(wide, eight), b.ashr(kernel, eight)
        for pair in (even, odd):
            total = dot_shorts(e, total, *pair, how)
        return total
    for shift in (0, 8, 16, 24):
        number = b.and_(b.lshr(x, all_lanes(INTS, shift)), all_lanes(INTS, 255))
        weight = b.ashr(b.shl(w, all_lanes(INTS, 24 - shift)), all_lanes(INTS, 24))
        total = b.add(total, b.mul(number, weight))
    return total


def dot_shorts(e: Emitter, total: Value, x: Value, w: Value, how: str = TARGET.dot) -> Value:
    """total + x0 * w0 + x1 * w1 lane by lane, of signed numbers of 16 bits; `how` as in `dot`."""
    b = e.builder
    if how == "vnni":
        pairs = (b.bitcast(a, INTS) for a in (x, w))
        return _call(e, f"avx512.vpdpwssd.{_VNNI[LANES]}", INTS, total, *pairs)
    if how == "pairs":
        pairs = (b.bitcast(a, SHORTS) for a in (x, w))
        return b.add(total, _call(e, _PAIRS[LANES], INTS, *pairs))
    half = all_lanes(INTS, 16)
    for shift in (all_lanes(INTS, 0), half):
        number, weight = (b.ashr(b.shl(b.lshr(a, shift), half), half) for a in (x, w))
        total = b.add(total, b.mul(number, weight))
    return total


def _call(e: Emitter, name: str, kind: ir.Type, *values: Value) -> Value:
    """One of LLVM's functions for x86."""
    signature = ir.FunctionType(kind, [value.type for value in values])
    function = cgutils.get_or_insert_function(e.builder.module, signature, f"llvm.x86.{name}")
    return e.builder.call(function, values)


# --- from one scale to another -------------------------------------------------------------------


def halves(e: Emitter, x: Value) -> tuple[Value, Value]:
    """The even and the odd lanes of int32 as int64."""
    b = e.builder
    both, word = b.bitcast(x, LONGS), all_lanes(LONGS, 32)
    return b.ashr(b.shl(both, word), word), b.ashr(both, word)


def joined(e: Emitter, even: Value, odd: Value) -> Value:
    """int32 lanes: the lower words of `even`, and the *upper* words of `odd`."""
    b = e.builder
    lanes = [i if i % 2 == 0 else LANES + i for i in range(LANES)]
    return b.shuffle_vector(b.bitcast(even, INTS), b.bitcast(odd, INTS), ir.Constant(INTS, lanes))


def narrowed(e: Emitter, x: Value, lowest: Value) -> Value:
    """int32 lanes as bytes, cut at `lowest` (0 or more) and 255."""
    b = e.builder
    x = b.select(b.icmp_signed(">", x, lowest), x, lowest)
    top = all_lanes(INTS, 255)
    return b.trunc(b.select(b.icmp_unsigned("<", x, top), x, top), BYTES)


def packed(e: Emitter, xs: list[Value], lowest: Value) -> Value:
    """Four vectors of 16 int32 as 64 bytes, cut at `lowest` (bytes) and 255, in AVX-512's own order.

    Its packing works in quarters of a register: byte 16 l + 4 v + k is lane 4 l + k of vector v.
    """
    b = e.builder
    shorts, chars = ir.VectorType(ir.IntType(16), 32), ir.VectorType(BYTE, 64)
    pairs = [_call(e, "avx512.packssdw.512", shorts, *xs[i : i + 2]) for i in (0, 2)]
    found = _call(e, "avx512.packuswb.512", chars, *pairs)
    return b.select(b.icmp_unsigned(">", found, lowest), found, lowest)


def clamped(e: Emitter, x: Value, low: Value, high: Value) -> Value:
    """x between low and high, signed, lane by lane."""
    b = e.builder
    x = b.select(b.icmp_signed("<", x, low), low, x)
    return b.select(b.icmp_signed(">", x, high), high, x)


def load_int(e: Emitter, pointer: Value) -> Value:
    """Four neighbouring bytes as one int32 (any alignment)."""
    loaded = e.builder.load(e.builder.bitcast(pointer, INT32.as_pointer()))
    loaded.align = 1
    return loaded
