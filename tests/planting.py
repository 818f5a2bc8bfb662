"""Plants each of the faults in `faults.py`, and runs the tests on it: one of them must fail.

    python tests/planting.py                  # all, one after the other; a table of who caught what
    python tests/planting.py --only 3 17      # some, by number
    python tests/planting.py --tests DIR      # with other tests, of an older commit for instance

Each fault is planted in a copy of the project, where the README's test command then runs: with the test
files first that have to do with the fault, and up to the first failure. A run that does not end within
`LIMIT` counts as not caught, for no test has said anything; one that dies (it wrote where it must
not) counts as caught. A first run plants nothing, and must pass.
"""

import argparse
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from faults import COMPILED, CORE, FAULTS, FILES, INTEGERS, PLAIN, Fault

ROOT = Path(__file__).parents[1]
LIMIT = 1200
"""Seconds that a run may take."""
COPIED = (".ci", "tinysqueeze", "tests", "notebooks", "pyproject.toml", "README.md")


@dataclass
class Outcome:
    """What the tests said to a fault."""

    number: int
    fault: Fault
    caught: str
    """By which test; empty: by none."""
    seconds: float

    def __str__(self) -> str:
        where = FILES[self.fault.file].removeprefix("tinysqueeze/")
        caught = self.caught or "NOT CAUGHT"
        return f"{self.number:3} | {where}: {self.fault.why} | {caught} | {self.seconds:.0f} s"


def planted(text: str, fault: Fault) -> str:
    """A file's text with the fault in it. Raises ValueError where the line is not there, or twice."""
    if (found := text.count(fault.old)) != 1:
        raise ValueError(f"{FILES[fault.file]} has {fault.old!r} {found} times, not once")
    return text.replace(fault.old, fault.new)


def copy(tests: Path | None, target: Path) -> Path:
    """The project, with its own tests or others."""
    for name in COPIED:
        source = tests if name == "tests" and tests else ROOT / name
        ignored = shutil.ignore_patterns("__pycache__")
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=ignored)
        else:
            shutil.copy2(source, target / name)
    return target


def in_order(place: Path, first: Iterable[str], core: bool) -> list[str]:
    """The test files that run, in order; `core`: those of CORE alone.

    All but the one that says whether the faults can be planted: it fails where one is.
    """
    names = [*first, *(name for name in CORE if name not in first)]
    chosen = [f"tests/test_{name}.py" for name in names]
    chosen = [name for name in chosen if (place / name).exists()]
    rest = sorted(path.relative_to(place).as_posix() for path in place.glob("tests/test_*.py"))
    rest = [name for name in rest if name not in (*chosen, "tests/test_faults.py")]
    return chosen if core else chosen + rest


def run_tests(place: Path, first: Iterable[str], core: bool) -> tuple[str, float]:
    """The README's test command in a copy of the project: which test fails, if any, and the seconds.

    As in the README's environment, where PyTorch is not installed. Compiled kernels stay in the copy.
    """
    environment = os.environ | {"PYTHONPATH": str(place), "PYTHONFAULTHANDLER": "1"}
    environment.pop("NUMBA_CACHE_DIR", None)
    marks = "not slow and not browser and not faults and not oracle"
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-m", marks, "-p", "no:cacheprovider",
               *in_order(place, first, core)]  # fmt: skip
    begin = time.perf_counter()
    process = subprocess.Popen(
        command, cwd=place, env=environment, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        output, _ = process.communicate(timeout=LIMIT)
    except subprocess.TimeoutExpired:
        return "", LIMIT
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    seconds = time.perf_counter() - begin
    if process.returncode == 0:
        return "", seconds
    if failed := re.search(r"^(?:FAILED|ERROR) tests/(.*?)(?: - .*)?$", output, re.MULTILINE):
        return failed[1], seconds
    inside = re.search(r'File ".*?/tests/(test_\w+\.py)", line \d+ in (test_\w+)', output)
    died = f"{inside[1]}::{inside[2]}" if inside else output[-2000:]
    return f"died with {process.returncode} in {died}", seconds


def outcomes(
    numbers: Iterable[int], tests: Path | None = None, core: bool = False
) -> Iterator[Outcome]:
    """Plants the faults of these numbers (from 1), one at a time. Raises if the tests fail without any."""
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        clean = copy(tests, Path(folder) / "clean")
        failed, seconds = run_tests(clean, CORE, core)
        if failed or seconds >= LIMIT:
            raise RuntimeError(f"without a fault: {failed or 'no end'} after {seconds:.0f} s")
        for number in numbers:
            fault = FAULTS[number - 1]
            place = Path(folder) / "faulty"
            shutil.copytree(clean, place)  # with what is compiled already
            file = place / FILES[fault.file]
            file.write_text(planted(file.read_text(encoding="utf-8"), fault), encoding="utf-8")
            yield Outcome(number, fault, *run_tests(place, first_of(fault), core))
            shutil.rmtree(place)


def first_of(fault: Fault) -> tuple[str, ...]:
    """The test files that have to do with it most of all."""
    if fault.file.startswith(("byte", "int")):
        return INTEGERS
    own = FILES[fault.file].split("/")[1] in ("kernels", "compiled", "graph")
    return COMPILED if own else PLAIN


def sample(count: int | None, seed: int = 0) -> list[int]:
    """All numbers, or `count` of them at random."""
    every = range(1, len(FAULTS) + 1)
    return sorted(random.Random(seed).sample(every, min(count or len(every), len(every))))


def main() -> None:
    """Plants faults, prints a line for each and how many were caught."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", type=int, nargs="+", metavar="N")
    parser.add_argument("--tests", type=Path, help="another folder of tests")
    parser.add_argument("--core", action="store_true", help="only test files of CORE")
    arguments = parser.parse_args()
    found = []
    for outcome in outcomes(arguments.only or sample(None), arguments.tests, arguments.core):
        print(outcome, flush=True)
        found.append(outcome)
    print(f"{sum(bool(one.caught) for one in found)} of {len(found)} caught")
    sys.exit(not all(one.caught for one in found))


if __name__ == "__main__":
    main()
