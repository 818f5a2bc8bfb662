"""Where and with what it was measured."""

import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from tinysqueeze.kernels.target import TARGET
from tinysqueeze.processors import usable_processors
from tinysqueeze.version import __version__


def machine() -> dict[str, Any]:
    """Processor, cores, the width of its vectors in float32, memory in bytes, system."""
    return {
        "processor": _processor(),
        "processors": usable_processors(),
        "lanes": TARGET.lanes,
        "memory": _memory(),
        "system": f"{platform.system()} {platform.release()}",
        "architecture": platform.machine(),
    }


def versions(libraries: set[str]) -> dict[str, str]:
    """Python's, ours, and those of the libraries that are installed."""
    found = {"python": sys.version.split()[0], "tinysqueeze": __version__}
    for name in sorted({"numpy", "numba", "llvmlite"} | libraries):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(
            line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")
        )
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None
