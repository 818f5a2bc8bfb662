"""Data-parallel training over MPI: each rank takes its share of a batch, gradients are averaged.

`mpiexec -n R tinysqueeze train ...` runs R copies of the program. All begin from the same parameters,
see different images, average their gradients in one collective over the flat gradient vector, and so
take the same step. The batch is the recipe's, whatever R is: R ranks of batch b follow one rank of
batch R*b within rounding, and learning rate and warm-up need no change. Only batch norm sees the
difference: each rank normalises by its own share of the batch, as is usual, and the running
statistics are averaged.

The gradients go out when the whole backward pass is done. Sending the last layers' while the first
ones are still computed would hide at most the time of the collective, which is a few per cent of a
step for a network this small (`tinysqueeze communication` measures it), so that is left out.
"""

import os
import subprocess
import sys
import time
import traceback
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import numpy as np

from tinysqueeze.errors import UserError, missing_extra
from tinysqueeze.processors import usable_processors
from tinysqueeze.training.communicator import ALONE, Communicator

LAUNCHERS = ("PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MPI_LOCALNRANKS")
NEIGHBOURS = ("MPI_LOCALNRANKS", "OMPI_COMM_WORLD_LOCAL_SIZE", "SLURM_NTASKS_PER_NODE")
# A killed process can say nothing and MPI then kills the others, so a process of its own waits for rank
# 0's end; it speaks if that came without a word.
WATCHER = """import sys
if not sys.stdin.read():
    print("tinysqueeze: the job has ended early, since a rank failed or was killed; the last "
          "checkpoint, if there is one, is whole: go on with --resume, with as many ranks as you like",
          file=sys.stderr, flush=True)
"""
CHECK_EVERY = 100  # 16-bit means between two that are compared with the exact one


@dataclass
class Traffic:
    """What one kind of collective has cost this rank so far."""

    calls: int = 0
    sent: int = 0  # bytes that this rank must send at the least (the ring's count)
    seconds: float = 0.0


@dataclass
class Log:
    """Bytes and seconds of every kind of collective, and the error of 16-bit gradients."""

    traffic: dict[str, Traffic] = field(default_factory=dict)
    errors: list[float] = field(default_factory=list)  # relative, in the Euclidean norm

    def add(self, kind: str, sent: int, seconds: float) -> None:
        """Count one collective."""
        entry = self.traffic.setdefault(kind, Traffic())
        entry.calls, entry.sent = entry.calls + 1, entry.sent + sent
        entry.seconds += seconds

    def lines(self) -> list[str]:
        """A line for each kind."""
        lines = [
            f"{kind}: {entry.calls:,} collectives, {entry.sent / 1e6:,.2f} MB sent by each rank, "
            f"{entry.seconds:.2f} s ({1e3 * entry.seconds / entry.calls:.3f} ms each)"
            for kind, entry in self.traffic.items()
        ]
        if self.errors:
            lines.append(
                f"16-bit gradients: relative error {max(self.errors):.1e} at most "
                f"in {len(self.errors)} steps compared"
            )
        return lines


class MPICommunicator(Communicator):
    """All ranks of an MPI communicator (the whole world unless given).

    Use it as a context: an exception in one rank then ends the job, with a message that names the
    rank, instead of leaving the others to wait for ever. With `half`, gradients travel as float16.
    """

    def __init__(self, comm: Any = None, half: bool = False) -> None:
        """Raises MissingExtra without mpi4py."""
        try:
            from mpi4py import MPI
        except ImportError as error:
            raise missing_extra("mpi", "training on several ranks") from error
        self.comm = MPI.COMM_WORLD if comm is None else comm
        self.sum, self.max, self.in_place = MPI.SUM, MPI.MAX, MPI.IN_PLACE
        self.rank, self.ranks = self.comm.Get_rank(), self.comm.Get_size()
        self.half = half
        self.watcher: subprocess.Popen[bytes] | None = None
        self.log = Log()

    def __enter__(self) -> Self:
        if self.ranks > 1 and self.rank == 0:
            self.watcher = subprocess.Popen(
                [sys.executable, "-S", "-c", WATCHER], stdin=subprocess.PIPE, start_new_session=True
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the whole job where one rank fails; rank 0 speaks first if it has the same trouble."""
        if self.watcher:
            self.watcher.communicate(b"all is well, or has been said")
        if error is None or self.ranks == 1:
            return
        if self.rank:
            time.sleep(1.0)
        if not isinstance(error, UserError):
            traceback.print_exception(error)
        print(
            f"tinysqueeze: rank {self.rank} of {self.ranks}: {error or kind}; all ranks end here, and "
            "the last checkpoint, if there is one, is whole: --resume goes on from it",
            file=sys.stderr,
            flush=True,
        )
        time.sleep(0.5)  # a launcher may drop what it has not passed on by then
        self.comm.Abort(1)
        os._exit(1)  # some MPIs return, and Python would say it all again

    def mean(self, vector: np.ndarray) -> None:
        """Average over all ranks, in place: one all-reduce, or its two halves in 16 bits."""
        if self.half and vector.size >= self.ranks:
            done = self.log.traffic.get("gradients in 16 bits")
            exact = None
            if done is None or done.calls % CHECK_EVERY == 0:
                exact = vector.copy()
                self.comm.Allreduce(self.in_place, exact, self.sum)
                exact /= exact.dtype.type(self.ranks)
            self._half_mean(vector)
            if exact is not None:
                norm = float(np.linalg.norm(exact))
                self.log.errors.append(float(np.linalg.norm(vector - exact)) / (norm or 1.0))
            return
        self._reduce("gradients", vector, self.sum)
        vector /= vector.dtype.type(self.ranks)

    def total(self, numbers: np.ndarray) -> np.ndarray:
        """The sum of a few float64 numbers over all ranks."""
        summed = np.array(numbers, np.float64)
        self._reduce("loss and hits, and waiting for the slowest rank", summed, self.sum)
        return summed

    def largest(self, number: int) -> int:
        """The largest of one number over all ranks."""
        found = np.array([number], np.int64)
        self._reduce("stop?", found, self.max)
        return int(found[0])

    def everybody(self, value: Any) -> list[Any]:
        """What each rank says, in the order of the ranks; values are plain Python."""
        return list(self.comm.allgather(value))

    def lines(self) -> list[str]:
        """What communication has cost rank 0 so far."""
        return self.log.lines()

    def _half_mean(self, vector: np.ndarray) -> None:
        """Reduce-scatter and all-gather by hand, since MPI cannot add float16.

        Each rank collects its part from all, adds in float32, and hands its mean out. All are scaled
        by the largest gradient of any rank, so that float16's range is used and never overflows.
        """
        started = time.perf_counter()
        largest = np.array([np.abs(vector).max()], np.float64)
        self.comm.Allreduce(self.in_place, largest, self.max)
        scale = vector.dtype.type(largest[0] if largest[0] > 0 else 1.0)
        part = -(-vector.size // self.ranks)
        sent = np.zeros((self.ranks, part), np.float16)
        sent.reshape(-1)[: vector.size] = vector / scale
        received = np.empty_like(sent)
        self.comm.Alltoall(sent.view(np.uint16), received.view(np.uint16))
        mine = received.astype(np.float32).mean(axis=0).astype(np.float16)
        self.comm.Allgather(mine.view(np.uint16), sent.view(np.uint16))
        vector[...] = sent.reshape(-1)[: vector.size].astype(vector.dtype) * scale
        self._count("gradients in 16 bits", sent.nbytes, started)

    def _reduce(self, kind: str, array: np.ndarray, operation: Any) -> None:
        """In place, over all ranks."""
        started = time.perf_counter()
        self.comm.Allreduce(self.in_place, array, operation)
        self._count(kind, array.nbytes, started)

    def _count(self, kind: str, size: int, started: float) -> None:
        sent = ring_bytes(size, self.ranks)
        self.log.add(kind, sent, time.perf_counter() - started)


def ring_bytes(size: int, ranks: int) -> int:
    """Bytes that each rank must send to all-reduce `size` bytes: 2 (R - 1) / R of them.

    No all-reduce can do with less (Patarasuk & Yuan 2009), and the ring needs no more.
    """
    return round(2 * (ranks - 1) / ranks * size)


def launched_by_mpi() -> bool:
    """True in a process that mpiexec (or srun, by PMI) started as one of several."""
    return any(int(os.environ.get(name, "1") or 1) > 1 for name in LAUNCHERS)


def communicator(half: bool = False) -> Communicator:
    """Who trains together: all ranks of this job, or this process alone."""
    return MPICommunicator(half=half) if launched_by_mpi() else ALONE


def threads_a_rank(threads: int | None = None) -> int | None:
    """The threads that this rank may use: its share of the processors, unless `threads` says.

    None (all of them) for a process that is alone.
    """
    neighbours = next((int(os.environ[name]) for name in NEIGHBOURS if os.environ.get(name)), 1)
    if threads is not None or neighbours == 1:
        return threads
    return max(1, usable_processors() // neighbours)
