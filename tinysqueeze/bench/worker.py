"""One process of the benchmark: load a side, prepare a workload, check, score or time it, print JSON.

Run as a plain script with one argument, a request in JSON. Only the standard library is imported
before the clock starts, so that import time and memory are the side's own.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from typing import Any

BLOCK = 0.1  # seconds of steps between two looks at the processors' caches
BYTES = bytes(24 << 10)  # half of a first cache
READS, BURSTS = 50, 5  # some 70 microseconds in all
CHECK_STEPS = 2  # enough for momentum to count; after more, roundings have grown too large
LEAST_CALLS = 5


def main(request: dict[str, Any]) -> dict[str, Any]:
    """Carry out the request; returns what is to be printed."""
    threads = request["threads"]
    use_processors(threads)
    started = time.perf_counter()
    side = load_module(Path(__file__).parent / "peers" / f"{request['module']}.py")
    imported = time.perf_counter()
    base = peak_bytes()
    task = read_task(Path(request["folder"]), threads, request["variant"])
    if request["part"] == "accuracy":
        return {"found": classes_found(side, task)}
    begun = time.perf_counter()
    step, logits = side.prepare(task)
    prepared = time.perf_counter()
    step()
    found = {
        "import_s": imported - started,
        "prepare_s": prepared - begun,
        "first_s": time.perf_counter() - prepared,
        "base_bytes": base,
    }
    if request["part"] == "check":
        for _ in range(CHECK_STEPS - 1 if task.training else 0):
            step()
        import numpy as np

        return found | {"logits": np.asarray(logits()).tolist()}
    return found | timed(step, request["seconds"]) | {"peak_bytes": peak_bytes()}


def classes_found(side: Any, task: SimpleNamespace) -> list[int]:
    """The class that the side finds in each of the task's images, a batch at a time."""
    found: list[int] = []
    for start in range(0, len(task.images), task.batch):
        images = task.images[start : start + task.batch]
        _, logits = side.prepare(SimpleNamespace(**vars(task) | {"images": images}))
        found += logits().argmax(1).tolist()
    return found


def timed(step: Callable[[], object], seconds: float) -> dict[str, Any]:
    """Milliseconds a call: the median, the fastest, and how many there were; after a warm-up.

    "blocks" are of a tenth of a second each: the median of its calls, and how slow the caches were
    just before or just after it (see `cache_seconds`).
    """
    warm_until = time.perf_counter() + 0.3 * seconds
    while time.perf_counter() < warm_until:
        step()
    times: list[float] = []
    blocks: list[dict[str, float]] = []
    stop = time.perf_counter() + seconds
    before = cache_seconds()
    while len(times) < LEAST_CALLS or time.perf_counter() < stop:
        block = _block(step)
        after = cache_seconds()
        blocks.append({"ms": median(block), "cache_s": max(before, after)})
        times, before = times + block, after
    return {"ms": median(times), "fastest_ms": min(times), "calls": len(times), "blocks": blocks}


def _block(step: Callable[[], object]) -> list[float]:
    """Milliseconds of each call."""
    times: list[float] = []
    stop = time.perf_counter() + BLOCK
    while not times or time.perf_counter() < stop:
        begun = time.perf_counter()
        step()
        times.append(1e3 * (time.perf_counter() - begun))
    return times


def cache_seconds() -> float:
    """How long it takes to read 24 kB from the first cache, on the slowest of this process's processors.

    Another machine's work on the same core makes that up to twice as long, and so all that lives in caches,
    while multiply-adds in registers stay as fast. Of several bursts the shortest counts: a turn given to
    somebody else does not matter here.
    """
    if not hasattr(os, "sched_setaffinity"):
        return _reading()
    usable = os.sched_getaffinity(0)
    slowest = 0.0
    for processor in usable:
        os.sched_setaffinity(0, {processor})  # of this thread alone
        slowest = max(slowest, _reading())
    os.sched_setaffinity(0, usable)
    return slowest


def _reading() -> float:
    found = []
    for _ in range(BURSTS):
        begun = time.perf_counter()
        for _ in range(READS):
            BYTES.find(b"\1")  # looks at every byte, as many at once as a register holds
        found.append((time.perf_counter() - begun) / READS)
    return min(found)


def use_processors(threads: int) -> None:
    """Keep this process on as many processors as it may have threads, where the system can."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])


def peak_bytes() -> int | None:
    """The most memory this process has had so far (resident), or None where nobody says.

    Linux's getrusage is of no use: a process starts with its parent's peak. /proc counts afresh.
    """
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        pass
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def read_task(folder: Path, threads: int, variant: str) -> SimpleNamespace:
    """The files of `workloads.write`, with arrays."""
    import numpy as np

    fields = json.loads((folder / "task.json").read_text())
    with np.load(folder / "params.npz") as arrays:
        params = dict(arrays)
    names = ("images", "labels", "calibration")
    arrays_by_name = {name: np.load(folder / f"{name}.npy") for name in names}
    return SimpleNamespace(
        **fields, **arrays_by_name, params=params, folder=folder, threads=threads, variant=variant
    )


def load_module(path: Path) -> Any:
    """A module by its file, without the package around it."""
    spec = spec_from_file_location(path.stem, path)
    assert spec
    assert spec.loader
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
