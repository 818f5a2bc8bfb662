"""How much memory inference truly takes: the resident growth of a fresh process, ours and others'.

Each side of the benchmark prepares the network and runs it a few times in a process of its own. What
counts is growth after all imports, after a much thinner network was run (so that code which libraries
load or compile at first use is not counted, ours included) and after the parameters were read: copies
of the weights, buffers, workspaces, everything.
"""

import gc
import json
import os
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from tinysqueeze.bench.machine import in_fresh_process
from tinysqueeze.bench.peers import SIDES, Side
from tinysqueeze.bench.tasks import write_for
from tinysqueeze.bench.worker import load_module, read_task
from tinysqueeze.bench.workloads import Workload
from tinysqueeze.errors import UserError
from tinysqueeze.network.models import Model

RUNS = 3  # inferences: some libraries take more memory at the second one
STATUS = Path("/proc/self/status")


@dataclass(frozen=True)
class Growth:
    """Bytes: when the network is ready to run, and at the most while it runs."""

    prepared: int
    peak: int


def measure(model: Model, sides: tuple[str, ...], batch: int = 1) -> dict[str, Growth]:
    """Growth of each side, by name; sides whose library is not installed are left out.

    Raises UserError where the system doesn't say how much memory a process has (it takes /proc).
    """
    if not STATUS.exists():
        raise UserError("resident memory is read from /proc, which this system doesn't have")
    full = Workload("full", "memory", model.spec, batch)
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        places = {Path(folder) / name: w for name, w in (("thin", full.quick()), ("full", full))}
        able = tuple(SIDES[name] for name in sides if SIDES[name].is_installed)
        for place, workload in places.items():
            write_for(able, workload, place)
        for side in able:
            found[side.name] = _in_fresh_process(side, *places)
    return found


def _in_fresh_process(side: Side, thin: Path, full: Path) -> Growth:
    request = json.dumps([side.module, side.variant, str(thin), str(full)])
    return Growth(**in_fresh_process(["-m", __name__, request], f"memory of {side.title}"))


def _grow(module: str, variant: str, thin: str, full: str) -> Growth:
    """What the fresh process does."""
    peer = load_module(Path(__file__).parent / "peers" / f"{module}.py")
    threads = len(os.sched_getaffinity(0))
    step, _ = peer.prepare(read_task(Path(thin), threads, variant))
    for _ in range(RUNS):
        step()
    del step
    gc.collect()
    task = read_task(Path(full), threads, variant)
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    start = _resident("VmRSS")
    step, _ = peer.prepare(task)
    prepared = _resident("VmRSS")
    for _ in range(RUNS):
        step()
    return Growth(prepared - start, _resident("VmHWM") - start)


def _resident(field: str) -> int:
    """Bytes: "VmRSS" now, "VmHWM" at the most."""
    lines = STATUS.read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(field))


if __name__ == "__main__":
    print(json.dumps(asdict(_grow(*json.loads(sys.argv[1])))))
