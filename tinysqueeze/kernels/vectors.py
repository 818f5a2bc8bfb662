"""A small vocabulary for writing vector code inside Numba functions.

Numba turns Python into LLVM's intermediate code, and LLVM turns that into machine code. LLVM finds
vector instructions by itself only where it can prove that no two arrays overlap, which it seldom can
here. So the few innermost loops of this package say what they mean: an `@intrinsic` is a function
whose LLVM code is written out by us. It *looks* like ordinary calls: `emit.load(pointer, offset)`
emits the instruction that loads a vector. The Python code runs once, while compiling; what it emits
runs for ever after.

`Emitter` wraps LLVM's builder with the dozen operations that the kernels need. Values are LLVM
values: numbers that exist only when the machine code runs. Pointers count in floats.
"""

import builtins
import ctypes
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from llvmlite import ir
from numba.core import cgutils, config, types
from numba.extending import intrinsic

from tinysqueeze.kernels.target import TARGET

LANES = TARGET.lanes
INT = ir.IntType(64)
INT32 = ir.IntType(32)
BYTE = ir.IntType(8)
FLOAT = ir.FloatType()
VECTOR = ir.VectorType(FLOAT, LANES)
INTS = ir.VectorType(INT32, LANES)
BYTES = ir.VectorType(BYTE, LANES)
BITS = ir.IntType(LANES)

floats_t = types.CPointer(types.float32)
ints_t = types.CPointer(types.int32)
bytes_t = types.CPointer(types.uint8)

Value: TypeAlias = Any  # ir.Value, which llvmlite does not annotate


class Emitter:
    """Emits vector instructions through an LLVM builder."""

    def __init__(self, builder: ir.IRBuilder) -> None:
        self.builder = builder

    # numbers -------------------------------------------------------------------------------
    def int(self, value: int) -> Value:
        """A 64-bit integer known while compiling."""
        return ir.Constant(INT, value)

    def every(self, value: float) -> Value:
        """A vector with the same known number in each lane."""
        return ir.Constant(VECTOR, [float(value)] * LANES)

    def splat(self, scalar: Value, count: builtins.int = LANES) -> Value:
        """A vector with the scalar in each of `count` lanes (one "broadcast" instruction)."""
        undefined = ir.Constant(ir.VectorType(scalar.type, count), ir.Undefined)
        first = self.builder.insert_element(undefined, scalar, ir.Constant(INT32, 0))
        lanes = ir.Constant(ir.VectorType(INT32, count), [0] * count)
        return self.builder.shuffle_vector(first, undefined, lanes)

    # memory --------------------------------------------------------------------------------
    def at(self, pointer: Value, offset: Value) -> Value:
        """The pointer moved on by `offset` elements."""
        return self.builder.gep(pointer, [offset])

    def load(self, pointer: Value, offset: Value | None = None, kind: ir.Type = VECTOR) -> Value:
        """`LANES` neighbouring numbers as a vector (any alignment)."""
        place = pointer if offset is None else self.at(pointer, offset)
        loaded = self.builder.load(self.builder.bitcast(place, kind.as_pointer()))
        loaded.align = 1
        return loaded

    def store(self, vector: Value, pointer: Value, offset: Value | None = None) -> None:
        """The vector to `LANES` neighbouring numbers (any alignment)."""
        place = pointer if offset is None else self.at(pointer, offset)
        kind = vector.type.as_pointer()
        self.builder.store(vector, self.builder.bitcast(place, kind)).align = 1

    def prefetch(self, pointer: Value, offset: Value | None = None, write: bool = False) -> None:
        """Asks for the cache line at a place that will be read, or written, soon. It never faults."""
        pointer = pointer if offset is None else self.at(pointer, offset)
        b = self.builder
        byte_pointer = BYTE.as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [byte_pointer, INT32, INT32, INT32])
        function = cgutils.get_or_insert_function(b.module, kind, "llvm.prefetch.p0i8")
        access, keep, data = (ir.Constant(INT32, value) for value in (builtins.int(write), 3, 1))
        b.call(function, [b.bitcast(pointer, byte_pointer), access, keep, data])

    # arithmetic ----------------------------------------------------------------------------
    def fma(self, a: Value, b: Value, c: Value) -> Value:
        """a * b + c in one instruction, rounded once."""
        kind = ir.FunctionType(VECTOR, [VECTOR] * 3)
        name = f"llvm.fma.v{LANES}f32"
        return self.builder.call(
            cgutils.get_or_insert_function(self.builder.module, kind, name), [a, b, c]
        )

    def greater(self, a: Value, b: Value) -> Value:
        """Lane by lane: is a > b? (False where either is not a number.)"""
        return self.builder.fcmp_ordered(">", a, b)

    def at_least(self, x: Value, floor: Value) -> Value:
        """max(x, floor) lane by lane, but not-a-number stays not-a-number."""
        return self.builder.select(self.greater(floor, x), floor, x)

    def activate(self, v: Value, shut: Value, full: Value) -> Value:
        """0 up to `shut`, v from `full` on, and between them hard-swish's curve v * (v / 6 + 1/2).

        From 0 to 0 that is a ReLU, from -3 to 3 a hard-swish; with both minus infinity it is v.
        """
        b = self.builder
        curve = b.fmul(v, self.fma(v, self.every(1 / 6), self.every(0.5)))
        return self._by_piece(v, shut, full, v, curve)

    def activate_backward(self, d: Value, v: Value, shut: Value, full: Value) -> Value:
        """d times the slope of `activate` at v: 0, 1, or between them v / 3 + 1/2."""
        slope = self.fma(v, self.every(1 / 3), self.every(0.5))
        return self._by_piece(v, shut, full, d, self.builder.fmul(d, slope))

    def _by_piece(self, v: Value, shut: Value, full: Value, above: Value, between: Value) -> Value:
        b = self.builder
        upper = b.select(b.fcmp_ordered(">=", v, full), above, between)
        return b.select(b.fcmp_ordered("<=", v, shut), self.every(0), upper)

    def combine(self, weights: Sequence[float], vectors: Sequence[Value]) -> Value:
        """The sum of weight * vector for weights known while compiling; 0, 1 and -1 come cheaper."""
        terms = [(w, v) for w, v in zip(weights, vectors, strict=True) if w != 0]
        terms.sort(key=lambda term: abs(term[0]) != 1)
        total: Value | None = None
        for weight, vector in terms:
            if total is None:
                total = vector if weight == 1 else self.builder.fmul(vector, self.every(weight))
            elif weight == 1:
                total = self.builder.fadd(total, vector)
            elif weight == -1:
                total = self.builder.fsub(total, vector)
            else:
                total = self.fma(vector, self.every(weight), total)
        return self.every(0) if total is None else total

    def combine_all(
        self, matrix: Sequence[Sequence[float]], vectors: Sequence[Value]
    ) -> list[Value]:
        """`combine` by each row of a matrix; neighbouring columns, or rows, that differ in signs only
        are done together: as sum and difference of what both share."""
        b, rows, taken = self.builder, [list(row) for row in matrix], list(vectors)
        for j in range(len(taken) - 1):
            left, right = ([row[k] for row in rows] for k in (j, j + 1))
            if _differ_in_signs(left, right):
                taken[j : j + 2] = b.fadd(*taken[j : j + 2]), b.fsub(*taken[j : j + 2])
                for row in rows:
                    row[j : j + 2] = (row[j], 0) if row[j] == row[j + 1] else (0, row[j])
        results: list[Value] = []
        while len(results) < len(rows):
            here, below = rows[len(results)], rows[min(len(results) + 1, len(rows) - 1)]
            if not _differ_in_signs(here, below):
                results.append(self.combine(here, taken))
                continue
            same = [w if w == v else 0 for w, v in zip(here, below, strict=True)]
            other = [0 if w == v else w for w, v in zip(here, below, strict=True)]
            even, odd = self.combine(same, taken), self.combine(other, taken)
            results += [b.fadd(even, odd), b.fsub(even, odd)]
        return results

    # loops ---------------------------------------------------------------------------------
    def loop(
        self,
        start: Value,
        stop: Value,
        body: Callable[[Value, list[Value]], Sequence[Value]],
        carried: Sequence[Value] = (),
        step: builtins.int = 1,
    ) -> list[Value]:
        """`for k in range(start, stop, step)`, which must run at least once.

        `body(k, values)` gets the carried values of this round and returns those of the next; the
        last ones are the result. Carried values live in registers: that is the point of all this.
        """
        b = self.builder
        before = b.block
        inside, after = b.append_basic_block("loop"), b.append_basic_block("done")
        b.branch(inside)
        b.position_at_end(inside)
        k = b.phi(start.type)
        k.add_incoming(start, before)
        values = []
        for value in carried:
            phi = b.phi(value.type)
            phi.add_incoming(value, before)
            values.append(phi)
        results = list(body(k, list(values)))
        following = b.add(k, ir.Constant(start.type, step))
        k.add_incoming(following, b.block)
        for phi, result in zip(values, results, strict=True):
            phi.add_incoming(result, b.block)
        b.cbranch(b.icmp_signed("<", following, stop), inside, after)
        b.position_at_end(after)
        return results

    def each_vector(self, channels: Value, body: Callable[[Value], None]) -> None:
        """`body(c)` for the first channel c of each vector of so many channels, at least one."""

        def one(c: Value, _: list[Value]) -> list[Value]:
            body(c)
            return []

        self.loop(self.int(0), channels, one, step=LANES)


def _differ_in_signs(a: Sequence[float], b: Sequence[float]) -> bool:
    """Are they the same numbers, some of them with the other sign?"""
    return list(a) != list(b) and [abs(w) for w in a] == [abs(w) for w in b]


def procedure(*arguments: types.Type, returns: types.Type = types.void) -> Callable:
    """Makes an intrinsic of a function `emit(e, *values)` that returns nothing, or one value.

    The decorated function is called once while compiling, with an Emitter and one LLVM value for
    each argument of the given Numba types.
    """

    def decorate(emit: Callable) -> Callable:
        def typed(typing_context: Any, *_: Any) -> tuple[Any, Callable]:
            def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
                made = emit(Emitter(builder), *values)
                return context.get_dummy_value() if made is None else made

            return returns(*arguments), generate

        return intrinsic(_with_arguments(typed, len(arguments), emit.__name__))

    return decorate


def _with_arguments(typed: Callable, count: int, name: str) -> Callable:
    """`typed` as a function of exactly `count` arguments, as Numba's intrinsics must be."""
    names = ", ".join(f"a{i}" for i in range(count))
    scope = {"typed": typed}
    exec(f"def {name}(typing_context, {names}):\n    return typed(typing_context, {names})", scope)
    return scope[name]


def _pointer(kind: Any, element: ir.Type, plain: type, name: str) -> Callable:
    if config.DISABLE_JIT:
        return lambda address: ctypes.cast(int(address), ctypes.POINTER(plain))

    def emit(e: Emitter, address: Value) -> Value:
        return e.builder.inttoptr(address, element.as_pointer())

    emit.__name__ = name
    return procedure(types.int64, returns=kind)(emit)


floats = _pointer(floats_t, FLOAT, ctypes.c_float, "floats")
"""floats(address): the float32 numbers at a memory address, to be indexed as a flat array."""
ints = _pointer(ints_t, INT32, ctypes.c_int32, "ints")
"""ints(address): the same for int32."""
longs = _pointer(types.CPointer(types.int64), INT, ctypes.c_int64, "longs")
"""longs(address): the same for int64."""
bytes_at = _pointer(bytes_t, BYTE, ctypes.c_uint8, "bytes_at")
"""bytes_at(address): the same for uint8."""
