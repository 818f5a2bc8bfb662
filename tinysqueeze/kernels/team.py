"""Programs, and the team of threads that runs them.

A program is a list of *stages*, a stage a list of *jobs*. Inside a stage the work is cut into units
(usually images), each thread takes a share of them, and walks through its share in *chunks*: all
jobs of the stage run over one chunk before the next chunk begins. A chunk is chosen so small that
what one job writes is still in the cache when the next one reads it; so squeeze, expand, ReLU and
pooling are separate, simple kernels, and still memory sees only the pooled result. That is all that
"fusion" means here. Between stages the threads wait for each other.

The loop that walks through a program is itself a kernel, so a whole training step is one call out of
Python, and waiting for each other costs well under a microsecond. Threads always take the same units
and partial sums are always added in the same order, so that the same number of threads gives the
same bits each time. Each team has threads of its own: two of them can work at the same time.
"""

import ctypes
import os
import queue
import sys
import threading
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from functools import cache
from types import SimpleNamespace
from typing import Any, Protocol

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import config
from numba.core.compiler_lock import global_compiler_lock

from tinysqueeze.kernels.kernel import Job, Kernel, kernel
from tinysqueeze.kernels.vectors import INT, Emitter, Value, longs, procedure
from tinysqueeze.processors import allowed_processors, default_threads

int_t = types.int64

YIELD, DOZE = 4000, 8000
"""How often a waiting thread looks before it lets others run, and before it sleeps. While all goes
well nobody waits so long; on a busy machine the thread that is waited for needs the processor."""
LISTEN, POLITE = 6_400, 64
"""How often a thread without work looks for an order, some thirty microseconds, before it sleeps:
to wake it takes a fiftieth of a small network's time. Now and then it lets others run."""
ASLEEP, AWAKE, ORDERED = range(3)
"""What a thread of a team is: in Python, and must be woken; listening; at work."""


class Split(IntEnum):
    """How the threads of a team share a stage."""

    SHARED = 0
    """The units of the stage are cut into one range for each thread, and that into chunks."""
    OWN = 1
    """Every thread runs every job over all its units, on scratch memory of its own."""
    EACH = 2
    """Each job has units of its own, and its own split; the jobs do not depend on each other."""


IMAGES = -1
"""As the units of a stage: the number of images that the program is run for."""


@dataclass
class Stage:
    """Jobs that run chunk by chunk, and whether all threads wait for each other afterwards."""

    split: Split = Split.SHARED
    units: int = IMAGES
    chunk: int = 1
    wait: bool = True
    jobs: list[tuple[Job, int]] = field(default_factory=list)

    def add(self, *jobs: Job, units: int = 1) -> None:
        """Appends jobs; `units` matter if the split is not SHARED."""
        self.jobs += [(job, units) for job in jobs]


class Program:
    """Stages laid out as tables of integers, ready to be walked through. Immutable once made."""

    def __init__(self, stages: Sequence[Stage]) -> None:
        self.stages = [stage for stage in stages if stage.jobs]
        jobs = [(job, units) for stage in self.stages for job, units in stage.jobs]
        rows = [
            (0 if config.DISABLE_JIT else job.kernel.address, job.record.ctypes.data, units)
            for job, units in jobs
        ]
        self.job_table = np.array(rows, np.int64).reshape(-1, 3)
        lines, first = [], 0
        for stage in self.stages:
            last = first + len(stage.jobs)
            lines.append((first, last, stage.split, stage.units, stage.chunk, stage.wait))
            first = last
        self.stage_table = np.array(lines, np.int64).reshape(-1, 6)

    @property
    def kernels(self) -> set[Kernel]:
        """The kernels that the program calls."""
        return {job.kernel for stage in self.stages for job, _ in stage.jobs}

    def interpret(self, images: int) -> None:
        """Runs in plain Python, on one thread. Only kernels of plain loops can (NUMBA_DISABLE_JIT)."""
        for stage in self.stages:
            units = images if stage.units == IMAGES else stage.units
            chunk = stage.chunk if stage.split == Split.SHARED else max(units, 1)
            for first in range(0, units if stage.split == Split.SHARED else 1, chunk):
                for job, own in stage.jobs:
                    count = min(chunk, units - first) if stage.split == Split.SHARED else own
                    names = job.record.dtype.names or ()
                    fields = {name: job.record[name].item() for name in names}
                    job.kernel.function(SimpleNamespace(**fields), first, count, 0)


# --- the walk --------------------------------------------------------------------------------


@procedure(int_t, int_t, int_t, int_t, int_t)
def call(
    e: Emitter, address: Value, record: Value, first: Value, count: Value, thread: Value
) -> None:
    """Calls the kernel at a memory address."""
    kind = ir.FunctionType(ir.VoidType(), [INT] * 4)
    e.builder.call(e.builder.inttoptr(address, kind.as_pointer()), [record, first, count, thread])


@procedure(int_t, returns=int_t)
def arrive(e: Emitter, counter: Value) -> Value:
    """Adds one to the number at an address, as one indivisible act; returns the new number."""
    place = e.builder.inttoptr(counter, INT.as_pointer())
    return e.builder.add(e.builder.atomic_rmw("add", place, e.int(1), "seq_cst"), e.int(1))


@procedure(int_t, returns=int_t)
def look(e: Emitter, counter: Value) -> Value:
    """The number at an address, as other threads have left it just now."""
    return e.builder.load_atomic(e.builder.inttoptr(counter, INT.as_pointer()), "seq_cst", 8)


@procedure(int_t, int_t, int_t, returns=int_t)
def exchange(e: Emitter, place: Value, old: Value, new: Value) -> Value:
    """Puts `new` in place of the number at an address if it is `old`, as one indivisible act; was it?"""
    at = e.builder.inttoptr(place, INT.as_pointer())
    done = e.builder.cmpxchg(at, old, new, "seq_cst", "seq_cst")
    return e.builder.zext(e.builder.extract_value(done, 1), INT)


@procedure()
def give_way(e: Emitter) -> None:
    """Lets another thread have the processor, if one waits for it."""
    name = "SwitchToThread" if sys.platform == "win32" else "sched_yield"
    kind = ir.FunctionType(ir.IntType(32), [])
    e.builder.call(_external(e.builder.module, kind, name), [])


@procedure()
def doze(e: Emitter) -> None:
    """Sleeps for a moment: 50 microseconds, or on Windows one millisecond."""
    name, time = ("Sleep", 1) if sys.platform == "win32" else ("usleep", 50)
    kind = ir.FunctionType(ir.IntType(32), [ir.IntType(32)])
    function = _external(e.builder.module, kind, name)
    e.builder.call(function, [ir.Constant(ir.IntType(32), time)])


def _external(module: ir.Module, kind: ir.FunctionType, name: str) -> ir.Function:
    return module.globals[name] if name in module.globals else ir.Function(module, kind, name)


@kernel("stages stage_count jobs counter threads")
def walk(job: Any, images: int, unused: int, thread: int) -> None:
    """Runs a program for so many images, as one of `job.threads` threads that all call this."""
    stages, jobs = longs(job.stages), longs(job.jobs)
    threads = job.threads
    for s in range(job.stage_count):
        begin, end, split = stages[6 * s], stages[6 * s + 1], stages[6 * s + 2]
        units, chunk, wait = stages[6 * s + 3], stages[6 * s + 4], stages[6 * s + 5]
        if split == 0:
            if units < 0:
                units = images
            share = (units + threads - 1) // threads
            stop = min(units, (thread + 1) * share)
            for first in range(thread * share, stop, chunk):
                for j in range(begin, end):
                    call(jobs[3 * j], jobs[3 * j + 1], first, min(chunk, stop - first), thread)
        else:
            for j in range(begin, end):
                share = (
                    jobs[3 * j + 2] if split == 1 else (jobs[3 * j + 2] + threads - 1) // threads
                )
                first = 0 if split == 1 else thread * share
                count = min(share, jobs[3 * j + 2] - first)
                if count > 0:
                    call(jobs[3 * j], jobs[3 * j + 1], first, count, thread)
        if wait or s == job.stage_count - 1:
            arrived = arrive(job.counter)
            everyone = (arrived + threads - 1) // threads * threads
            spins = 0
            while look(job.counter) < everyone:
                spins += 1
                if spins > DOZE:
                    doze()
                elif spins > YIELD:
                    give_way()


@kernel("slot taken")
def offer(job: Any, unused: int, also_unused: int, thread: int) -> None:
    """Gives the order in a slot to its thread if that listens, or is about to; tells by `taken`."""
    spins, taken = 0, 0
    while not taken and look(job.slot) != ASLEEP and spins < YIELD:
        taken = exchange(job.slot, AWAKE, ORDERED)
        spins += 1
    longs(job.taken)[0] = taken


@kernel("slot walk")
def serve(job: Any, unused: int, also_unused: int, thread: int) -> None:
    """Carries out the order in a slot, (state, record, images), and all that come soon after."""
    slot = longs(job.slot)
    exchange(job.slot, ASLEEP, ORDERED)
    ordered = True
    while ordered:
        call(job.walk, slot[1], slot[2], 0, thread)
        exchange(job.slot, ORDERED, AWAKE)
        spins = 0
        while look(job.slot) == AWAKE and spins < LISTEN:
            spins += 1
            if spins % POLITE == 0:
                give_way()
        ordered = exchange(job.slot, AWAKE, ASLEEP) == 0


# --- the team --------------------------------------------------------------------------------


class Renewed(Protocol):
    """What holds locks or threads, which a forked process must not inherit."""

    def renew(self) -> None: ...


_RENEWED: weakref.WeakSet[Renewed] = weakref.WeakSet()


def renewed_after_fork(one: Renewed) -> None:
    """Has `one` renewed in every forked process.

    `os.fork` copies locks as they are, but of all threads only the one that called it: a lock that
    another one held would stay locked for ever.
    """
    _RENEWED.add(one)


def _renew_all() -> None:
    global_compiler_lock.release()
    for one in list(_RENEWED):
        one.renew()


if hasattr(os, "register_at_fork"):  # not on Windows, which cannot fork
    os.register_at_fork(  # nobody forks in the middle of a compilation: what it holds is Numba's own
        before=global_compiler_lock.acquire,
        after_in_parent=global_compiler_lock.release,
        after_in_child=_renew_all,
    )


class Team:
    """Threads that run programs together. The calling thread is one of them."""

    def __init__(self, threads: int | None = None) -> None:
        wanted = default_threads() if threads is None else max(1, threads)
        self.threads = 1 if config.DISABLE_JIT else wanted
        self._stop: weakref.finalize = weakref.finalize(self, _dismiss, [])
        self.renew()
        renewed_after_fork(self)

    def renew(self) -> None:
        """No threads yet, and nobody at work: so it begins, and so a forked process finds it."""
        self._lock = threading.Lock()
        self._begin()

    def _begin(self) -> None:
        self._is_at_work = False
        self._others: list[Other] = []
        self._orders: weakref.WeakKeyDictionary[Program, Job] = weakref.WeakKeyDictionary()

    def run(self, program: Program, images: int = 1) -> None:
        """Runs the program for this many images, and returns when all threads have finished."""
        if not len(program.stage_table):
            return
        if config.DISABLE_JIT:
            program.interpret(images)
            return
        with self._lock:
            if self._is_at_work:  # Ctrl-C came between the orders and the walk: they wait in vain
                self._begin()
            self._is_at_work = True
            self._start_threads()
            order = self._order(program)
            for other in self._others:
                other.order(order, images)
            native(walk)(order.record.ctypes.data, images, 0, 0)
            self._is_at_work = False

    def _order(self, program: Program) -> Job:
        """What every thread is told to do. When all are done, the counter is a multiple of the threads."""
        if program not in self._orders:
            self._orders[program] = walk.job(
                stages=program.stage_table, stage_count=len(program.stage_table),
                jobs=program.job_table, counter=np.zeros(1, np.int64), threads=self.threads,
            )  # fmt: skip
        return self._orders[program]

    def _start_threads(self) -> None:
        """Starts the threads, the first time."""
        if self._others or self.threads == 1:
            return
        self._others = [Other() for _ in range(1, self.threads)]
        for number, other in enumerate(self._others, start=1):
            threading.Thread(target=other.work, args=(number,), daemon=True).start()
        self._stop.detach()
        self._stop = weakref.finalize(self, _dismiss, self._others)


class Other:
    """A thread of a team beside the calling one: a slot that its orders are put in, and calls to wake it."""

    def __init__(self) -> None:
        self.calls: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self.slot = np.array([ASLEEP, 0, 0], np.int64)
        self.taken = np.zeros(1, np.int64)
        self.offer = offer.job(slot=self.slot, taken=self.taken)
        self.orders: tuple[Job | None, Job | None] = (None, None)

    def order(self, order: Job, images: int) -> None:
        """Has it walk through a program, awake or asleep.

        It may not quite have left the walk before this one, but has left the one before that: so two are
        kept in memory.
        """
        self.orders = (self.orders[1], order)
        self.slot[1:] = order.record.ctypes.data, images
        native(offer)(self.offer.record.ctypes.data, 0, 0, 0)
        if not self.taken[0]:
            self.calls.put(True)

    def work(self, number: int) -> None:
        """Its life: whenever it is called, carry out orders until none has come for a while.

        It keeps to one processor: left to itself, a thread that is woken often starts on the waker's,
        and both then take turns until the system moves one of them.
        """
        if hasattr(os, "sched_setaffinity"):  # Linux
            allowed = allowed_processors()
            os.sched_setaffinity(0, {allowed[number % len(allowed)]})
        service = serve.job(slot=self.slot, walk=walk.address)
        while self.calls.get():
            native(serve)(service.record.ctypes.data, 0, 0, number)


@cache
def native(kernel: Kernel) -> Callable[..., None]:
    """A kernel's machine code as a function that Python can call; it lets go of Python's lock."""
    kind = ctypes.CFUNCTYPE(None, ctypes.c_void_p, *[ctypes.c_int64] * 3)
    return kind(kernel.address)


def _dismiss(others: list[Other]) -> None:
    for other in others:
        other.calls.put(False)
