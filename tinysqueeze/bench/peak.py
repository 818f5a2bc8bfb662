"""The most multiply-adds this machine can do: nothing but multiply-adds, all in registers.

No product of matrices can be faster, so this is what a share of the floor is a share of. All threads count
short bursts at once, and each one's best counts: the processor may be somebody else's now and then, or slow
for a while, but hardly during every burst. `reached` does the same with the product that convolutions use:
where that seems faster than the peak, the peak was measured too low.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from ctypes import CFUNCTYPE, c_int64, c_void_p
from functools import partial
from threading import Barrier

import numpy as np
from numba import njit, types
from numba.core import config

from tinysqueeze.kernels.byte_products import SCALE, WIDEST, byte_product
from tinysqueeze.kernels.integers import dot
from tinysqueeze.kernels.kernel import Job
from tinysqueeze.kernels.products import product
from tinysqueeze.kernels.target import TARGET
from tinysqueeze.kernels.vectors import (
    INTS,
    Emitter,
    Value,
    floats,
    floats_t,
    ints,
    ints_t,
    procedure,
)

PRECISIONS = {"float32": 2, "int8": 8}
"""Operations a lane of one instruction: a multiply-add, or four of bytes."""
CHAINS = 12  # enough to fill the pipeline of two units four ticks deep; fits AVX2's 16 registers
ROUNDS = 200_000  # about a millisecond: less than a turn that the system gives a process
BURSTS = 50
DEPTH, ROWS, PASSES = 128, 48, 400  # of the product: all it reads and writes fits the first cache
OVER_PEAK = 1.03
"""So much faster than the peak a product may seem: a clock is not quite the same from burst to burst."""


@procedure(floats_t, types.int64)
def _chains(e: Emitter, y: Value, rounds: Value) -> None:
    """total = total * a + b in every chain; the chains do not wait for each other."""
    factor, term = e.load(y), e.every(1e-3)

    def multiply_add(_: Value, totals: list[Value]) -> list[Value]:
        return [e.fma(total, factor, term) for total in totals]

    totals = e.loop(e.int(0), rounds, multiply_add, [e.every(0.1 * k) for k in range(CHAINS)])
    for total in totals:  # used, so that LLVM cannot leave the work out
        e.store(e.builder.fadd(e.load(y), total), y)


@procedure(ints_t, types.int64)
def _byte_chains(e: Emitter, y: Value, rounds: Value) -> None:
    """The same in integers: each chain's own bytes are multiplied, so that no product is a constant."""
    weights = e.load(y, kind=INTS)

    def add_products(_: Value, totals: list[Value]) -> list[Value]:
        return [dot(e, total, total, weights) for total in totals]

    totals = e.loop(e.int(0), rounds, add_products, [weights] * CHAINS)
    for total in totals:
        e.store(e.builder.add(e.load(y, kind=INTS), total), y)


@njit(nogil=True)
def _burn(address: int, rounds: int) -> None:
    _chains(floats(address), rounds)


@njit(nogil=True)
def _burn_bytes(address: int, rounds: int) -> None:
    _byte_chains(ints(address), rounds)


def peak(precision: str, threads: int) -> float:
    """Billions of operations a second of so many threads, a multiply-add counting two.

    `precision` is one of PRECISIONS. It needs the compiler.
    """
    burn = {"float32": _burn, "int8": _burn_bytes}[precision]
    scratch = np.full((threads, 64), 0.5, np.float32)
    runs = [partial(burn, row.ctypes.data, ROUNDS) for row in scratch]
    return _best(runs, ROUNDS * CHAINS * TARGET.lanes * PRECISIONS[precision])


def reached(precision: str, threads: int) -> float:
    """The same of the product that convolutions use, everything in the first cache."""
    jobs = [_product() if precision == "float32" else _byte_product() for _ in range(threads)]
    vectors = int(jobs[0].record["vectors"].item())
    operations = ROWS * PASSES * DEPTH * vectors * TARGET.lanes * PRECISIONS[precision]
    return _best([partial(_run, job) for job in jobs], operations)


class Peaks:
    """The best that has been seen, {precision: {threads: {"registers", "product"}}}, looking once a round."""

    def __init__(self, precisions: Iterable[str]) -> None:
        self.found: dict[str, dict[str, dict[str, float]]] = {
            precision: {} for precision in PRECISIONS if precision in precisions
        }
        self.rounds: set[tuple[int, int]] = set()

    def look(self, threads: int, number: int) -> None:
        """Measure for so many threads, unless that has been done in round `number`."""
        if (threads, number) in self.rounds or config.DISABLE_JIT:
            return
        self.rounds.add((threads, number))
        for precision, by_threads in self.found.items():
            best = by_threads.setdefault(str(threads), {"registers": 0.0, "product": 0.0})
            for name, measure in (("registers", peak), ("product", reached)):
                best[name] = max(best[name], measure(precision, threads))


def _best(runs: Sequence[Callable[[], None]], operations: int) -> float:
    """Billions of operations a second: every thread's best burst of one `run`, all at once."""
    together = Barrier(len(runs))

    def fastest(run: Callable[[], None]) -> float:
        run()  # compiles
        together.wait()
        best = np.inf
        for _ in range(BURSTS):
            started = time.perf_counter()
            run()
            best = min(best, time.perf_counter() - started)
        return float(best)

    with ThreadPoolExecutor(len(runs)) as pool:
        return sum(operations / seconds for seconds in pool.map(fastest, runs)) / 1e9


def _run(job: Job) -> None:
    """Calls the machine code as a thread of a team does; it lets go of Python's lock."""
    kind = CFUNCTYPE(None, c_void_p, *[c_int64] * 3)
    kind(job.kernel.address)(job.record.ctypes.data, 0, 1, 0)


def _product() -> Job:
    """ROWS rows of DEPTH numbers by a panel of weights, PASSES times."""
    x, w = np.ones((ROWS, DEPTH), np.float32), np.ones((DEPTH, TARGET.panel), np.float32)
    return product.job(
        x=x, x_thread=0, x_rows=_ramp(ROWS, DEPTH), x_steps=_ramp(DEPTH, 1), w=w, depth=DEPTH,
        vectors=TARGET.tile_vectors, bias=np.zeros(TARGET.panel, np.float32), floor=0,
        y=np.empty((ROWS, TARGET.panel), np.float32), y_thread=0, y_rows=_ramp(ROWS, TARGET.panel),
        batch=PASSES, rows_per_unit=ROWS, rows_in_all=ROWS,
    )  # fmt: skip


def _byte_product() -> Job:
    """The same of bytes: the tables name the rows again and again."""
    x, w = np.ones((ROWS, 4 * DEPTH), np.uint8), np.ones((DEPTH, WIDEST, TARGET.lanes, 4), np.int8)
    width = WIDEST * TARGET.lanes
    return byte_product.job(
        x=x, x_thread=0, x_rows=np.tile(_ramp(ROWS, 4 * DEPTH), PASSES), x_steps=_ramp(DEPTH, 4),
        w=w, depth=DEPTH, vectors=WIDEST, bias=np.zeros(width, np.int32),
        scales=np.zeros(WIDEST * SCALE, np.uint8), quick=1, zero=0, lowest=0,
        y=np.empty((ROWS, width), np.uint8), y_thread=0, y_rows=np.tile(_ramp(ROWS, width), PASSES),
        rows_per_unit=ROWS * PASSES, rows_in_all=ROWS * PASSES, by_panel=0, by_row=0, pooled=0,
    )  # fmt: skip


def _ramp(count: int, step: int) -> np.ndarray:
    return np.arange(count, dtype=np.int32) * np.int32(step)
