"""The most multiply-adds this machine can do: nothing but fused multiply-adds, all in registers."""

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numba import njit, types
from numba.core import config

from tinysqueeze.kernels.target import TARGET
from tinysqueeze.kernels.vectors import Emitter, Value, floats, floats_t, procedure

CHAINS = 12  # enough to fill the pipeline of two units four ticks deep; fits AVX2's 16 registers
ROUNDS = 10_000_000  # long enough for the system to give each thread a processor of its own


@procedure(floats_t, types.int64)
def _chains(e: Emitter, y: Value, rounds: Value) -> None:
    """total = total * a + b in every chain; the chains do not wait for each other."""
    factor, term = e.load(y), e.every(1e-3)

    def multiply_add(_: Value, totals: list[Value]) -> list[Value]:
        return [e.fma(total, factor, term) for total in totals]

    totals = e.loop(e.int(0), rounds, multiply_add, [e.every(0.1 * k) for k in range(CHAINS)])
    for total in totals:  # used, so that LLVM cannot leave the work out
        e.store(e.builder.fadd(e.load(y), total), y)


@njit(nogil=True)
def _burn(address: int, rounds: int) -> None:
    _chains(floats(address), rounds)


def fma_peak(threads: int, repeats: int = 4) -> float | None:
    """Float32 GFLOP/s of so many threads, the best of a few tries; None without a compiler."""
    if config.DISABLE_JIT:
        return None
    scratch = np.full((threads, 64), 0.5, np.float32)
    _burn(scratch.ctypes.data, 1)
    best = np.inf
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(repeats):
            started = time.perf_counter()
            list(pool.map(lambda row: _burn(row.ctypes.data, ROUNDS), scratch))
            best = min(best, time.perf_counter() - started)
    return threads * ROUNDS * CHAINS * TARGET.lanes * 2 / best / 1e9
