"""What distributed training has to send: all-reduce measured between ranks here, and projected.

The paper's first advantage of a small network is less communication across servers. One machine can
measure two things, the time of a training step and of an all-reduce between a few ranks; the rest is
on paper, by the cost model of the ring (Patarasuk & Yuan 2009; Thakur et al. 2005):

    seconds = 2 (P - 1) latency + 2 (P - 1) / P * bytes / bandwidth

for P workers. Assumed: every worker as fast as this machine and busy with its own `batch` images
(so the whole batch grows with P); one full-duplex link each, all of it ours; float32 gradients; adding
costs nothing. Without overlap a step takes compute + communication, with perfect overlap the longer
of the two; real systems lie between.
"""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tinysqueeze.compiled import compile as compile_plan
from tinysqueeze.errors import UserError, missing_extra
from tinysqueeze.network.models import MODELS, build
from tinysqueeze.study.count import count

NETWORKS = ("squeezenet1_0", "alexnet", "vgg16")
MEASURED = (2, 8)  # images a step
WORKERS = tuple(2**i for i in range(1, 11))  # 2 to 1,024


@dataclass(frozen=True)
class Link:
    """A network between workers; the latency is that of one message, an assumption."""

    gigabits: float
    latency: float  # seconds

    @property
    def bandwidth(self) -> float:
        """Bytes a second, each way."""
        return self.gigabits * 1e9 / 8


LINKS = (Link(1, 50e-6), Link(10, 20e-6), Link(100, 5e-6))


def ring_seconds(size: float, workers: int, link: Link) -> float:
    """Seconds of a ring all-reduce of `size` bytes."""
    if workers < 1:
        raise UserError(f"there is at least 1 worker, not {workers}")
    steps = 2 * (workers - 1)
    return steps * link.latency + steps / workers * size / link.bandwidth


def efficiency(
    compute: float, size: float, workers: int, link: Link, overlap: bool = False
) -> float:
    """The share of a worker's time that goes into computing; 1 is perfect scaling."""
    communication = ring_seconds(size, workers, link)
    step = max(compute, communication) if overlap else compute + communication
    return compute / step


def gradient_bytes(network: str) -> int:
    """Bytes of a network's float32 gradients."""
    return 4 * count(build(network)).parameters


def compute_seconds(network: str, batch: int, rounds: int = 2) -> float:
    """Seconds of forward and backward of a batch at full size on this machine.

    A step costs something for the weights, whatever the batch, and something for each image: batches
    of 2 and 8 tell both, larger ones are extrapolated (VGG-16's would need gigabytes).
    """
    if batch <= MEASURED[1]:
        return _step_seconds(network, batch, rounds)
    few, more = (_step_seconds(network, images, rounds) for images in MEASURED)
    return more + (batch - MEASURED[1]) * max(more - few, 0.0) / (MEASURED[1] - MEASURED[0])


def _step_seconds(network: str, images: int, rounds: int) -> float:
    """The best of a few rounds, after one that compiles and touches all memory."""
    plan = compile_plan(build(network), batch=images)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((images, *plan.model.input_shape), dtype=np.float32)
    labels = np.arange(images)
    taken = []
    for _ in range(rounds + 1):
        started = time.perf_counter()
        plan.loss_and_grads(x, labels)
        taken.append(time.perf_counter() - started)
    return min(taken[1:])


def measure_all_reduce(sizes: Mapping[str, int], ranks: int = 2) -> dict[str, float]:
    """Seconds of an all-reduce of each size between ranks on this machine: medians.

    Starts mpiexec. Raises MissingExtra where there is none or no mpi4py, UserError where it fails.
    """
    beside = Path(sys.executable).with_name("mpiexec")
    mpiexec = str(beside) if beside.exists() else shutil.which("mpiexec")
    if mpiexec is None:
        raise missing_extra("mpi", "measuring an all-reduce")
    threads = dict.fromkeys(("NUMBA_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    command = [mpiexec, "-n", str(ranks), sys.executable, "-m", __name__, json.dumps(sizes)]
    package = str(Path(__file__).parents[2])
    path = os.pathsep.join(p for p in (package, os.environ.get("PYTHONPATH")) if p)
    done = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | threads | {"PYTHONPATH": path}
    )
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()
        raise UserError(f"mpiexec failed: {said[-1] if said else 'without a word'}")
    return json.loads(done.stdout)


def _timed_all_reduces(sizes: Mapping[str, int]) -> dict[str, float]:
    """What each rank that mpiexec starts does; the slowest rank's medians."""
    from tinysqueeze.training.mpi import MPICommunicator

    found = {}
    with MPICommunicator() as together:
        for name, size in sizes.items():
            vector = np.ones(size // 4, np.float32)
            rounds = max(5, min(200, int(2e8 / max(size, 1))))
            taken = []
            for _ in range(rounds + 2):
                together.largest(0)  # begin together
                started = time.perf_counter()
                together.mean(vector)
                taken.append(time.perf_counter() - started)
            found[name] = together.largest(round(1e9 * float(np.median(taken[2:])))) / 1e9
        if together.rank:
            return {}
    return found


@dataclass(frozen=True)
class Demand:
    """What one network asks for at each step."""

    network: str
    size: int  # bytes of gradients
    compute: float  # seconds of a step's forward and backward of `batch` images
    all_reduce: float  # seconds between the ranks measured here


def demands(
    networks: Sequence[str] = NETWORKS, batch: int = 32, ranks: int = 2, faster: float = 1.0
) -> list[Demand]:
    """Measure all networks here. Raises UserError for a name unknown.

    `faster` divides the computing times: what if workers were so many times as fast as this machine?
    """
    if ranks < 2 or batch < 1 or not faster > 0:
        raise UserError(
            f"it takes 2 ranks at least to measure an all-reduce, 1 image a step, and workers that "
            f"compute: not {ranks} ranks, {batch} images, {faster:g} times as fast"
        )
    unknown = sorted(set(networks) - set(MODELS))
    if unknown:
        raise UserError(f"no model named {unknown[0]!r}; there are {', '.join(MODELS)}")
    sizes = {network: gradient_bytes(network) for network in networks}
    reduced = measure_all_reduce(sizes, ranks)
    return [Demand(n, sizes[n], compute_seconds(n, batch) / faster, reduced[n]) for n in networks]


if __name__ == "__main__":
    result = _timed_all_reduces(json.loads(sys.argv[1]))
    if result:
        print(json.dumps(result))
