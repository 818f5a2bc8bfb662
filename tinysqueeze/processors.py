"""What this process may use of the processors: how many, by affinity and container, and their caches."""

import math
import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
CONTROL_GROUPS = Path("/sys/fs/cgroup")
OWN_GROUPS = Path("/proc/self/cgroup")


def default_threads() -> int:
    """NUMBA_NUM_THREADS where it is set, otherwise the processors that may really be used."""
    said = os.environ.get("NUMBA_NUM_THREADS", "")
    return int(said) if said.isdecimal() and int(said) else usable_processors()


def usable_processors() -> int:
    """Processors for a team of threads: at least 1.

    A container may show all processors of its host and be given the time of two (`docker run --cpus
    2`); threads beyond that only wait for each other. Part of a processor counts as a whole one: when
    its time is used up, all threads rest together, and none waits for another.
    """
    granted = quota()
    here = len(allowed_processors())
    return here if granted is None else max(1, min(here, math.ceil(granted)))


def allowed_processors() -> list[int]:
    """The numbers of the processors that this process may run on (`taskset`, Slurm)."""
    if hasattr(os, "sched_getaffinity"):  # Linux
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def second_cache(root: Path = CACHES) -> int:
    """Bytes of a processor's second-level cache, as Linux tells; 1 MiB where nobody does."""
    for one in sorted(root.glob("index*")):
        level, kind, size = ("".join(_lines(one / name)) for name in ("level", "type", "size"))
        if level == "2" and kind != "Instruction" and size.removesuffix("K").isdecimal():
            return 1024 * int(size.removesuffix("K"))
    return 1 << 20


def workers(threads: int) -> ThreadPoolExecutor:
    """A pool of so many threads, begun when first needed; a forked process, which has none, gets its own."""
    return _workers(threads, os.getpid())


@cache
def _workers(threads: int, process: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads)


def quota(root: Path = CONTROL_GROUPS, own: Path = OWN_GROUPS) -> float | None:
    """The processors' worth of time that Linux control groups grant, None where there is no limit.

    Each group from the process's own up to the root may set one; the smallest counts. Version 2 has
    cpu.max ("150000 100000", or "max"); version 1, below root/cpu, cpu.cfs_quota_us (-1 for none).
    """
    found = []
    for line in _lines(own):
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        top = root / controllers if (root / controllers).is_dir() else root / "cpu"
        top = top if controllers else root
        inner = Path(path.lstrip("/"))
        # Inside a container the path may be the host's, and its own group is then the root itself.
        for group in {top / inner, *(top / outer for outer in inner.parents), top}:
            found += _granted(group)
    return min(found, default=None)


def _granted(group: Path) -> list[float]:
    """What one group grants, in a list: empty where it sets no limit."""
    numbers = [word for line in _lines(group / "cpu.max") for word in line.split()]
    if not numbers:
        files = (group / "cpu.cfs_quota_us", group / "cpu.cfs_period_us")
        numbers = [word for file in files for word in _lines(file)]
    try:
        time, period = map(int, numbers)
    except ValueError:  # "max", or no such files
        return []
    return [time / period] if time > 0 and period > 0 else []


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text().splitlines()
    except (OSError, UnicodeDecodeError):
        return []
