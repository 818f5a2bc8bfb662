"""Where and with what it was measured."""

import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from tinysqueeze.errors import UserError
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


def in_fresh_process(
    command: list[str], who: str, environment: Mapping[str, str] = os.environ
) -> dict[str, Any]:
    """What a Python process of its own prints as JSON on its last line; it finds this package.

    Raises UserError, which says what it complained of last.
    """
    paths = (str(Path(__file__).parents[2]), environment.get("PYTHONPATH"))
    own = {**environment, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    done = subprocess.run(
        [sys.executable, *command], env=own, capture_output=True, text=True, check=False
    )
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise UserError(f"{who}: {said[-1]}")
    return json.loads(done.stdout.splitlines()[-1])


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
