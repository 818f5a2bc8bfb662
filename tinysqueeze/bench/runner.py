"""The measuring: a process for each (side, round), the sides taking turns, and everything kept.

Only ratios of neighbours are safe, since a processor's clock wanders: so one round runs all sides of
a workload one after the other, and the next round runs them backwards.
"""

import json
import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tinysqueeze.bench.accuracy import Labelled, labelled_for, scored
from tinysqueeze.bench.floor import flops
from tinysqueeze.bench.machine import in_fresh_process, machine, versions
from tinysqueeze.bench.peak import Peaks
from tinysqueeze.bench.peers import SIDES, Side
from tinysqueeze.bench.stages import by_stage
from tinysqueeze.bench.tasks import write_for
from tinysqueeze.bench.workloads import USUAL, WORKLOADS, Workload
from tinysqueeze.compiled import compile as compile_plan
from tinysqueeze.errors import UserError

WORKER = Path(__file__).with_name("worker.py")
THREAD_VARIABLES = (
    "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS",
    "NUMBA_NUM_THREADS",
)  # fmt: skip
CRIPPLING = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")  # set somewhere, these halve NumPy's matmul
# Of the largest logit. Inference differs by 1e-6; but in training a pixel whose ReLU or pool is a tie
# but for rounding goes either way, and so does PyTorch's own against its float64.
TOLERANCE = 1e-2
TOLERANCE_IN_FEW_BITS = (
    0.3  # 8 bits, on a network that has learnt nothing and images that are noise
)
SCALES = {"train": {"batch": (4, 16, 64, 128)}, "v10": {"input_size": (96, 160, 224, 320)}}
Report = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Settings:
    """What to measure. `threads` counts for all sides, `own_threads` for ours besides.

    `weights` and `photographs` are for the accuracy of sides in fewer bits (see `accuracy.labelled_for`).
    """

    workloads: tuple[Workload, ...]
    sides: tuple[Side, ...]
    rounds: int = 5
    seconds: float = 1.0
    threads: tuple[int, ...] = (1,)
    own_threads: tuple[int, ...] = ()
    startup: bool = False
    scaling: bool = False
    stages: bool = False
    weights: str | None = None
    photographs: str | None = None
    quick: bool = False


@dataclass(frozen=True)
class Job:
    """One process."""

    workload: Workload
    side: Side
    threads: int
    round: int
    part: str = "rounds"  # or "check", "accuracy", "cold", "warm", "scaling"

    def __str__(self) -> str:
        return f"{self.workload.name}: {self.side.name}"


def measure(settings: Settings, report: Report | None = None) -> dict[str, Any]:
    """Everything, as plain data ready for JSON; `report(done, total, text)` before each process.

    Raises UserError where a side fails, or where its logits are not those of our layers.
    """
    few = tuple(side for side in settings.sides if side.in_few_bits)
    labelled = (
        labelled_for(settings.workloads, settings.weights, settings.photographs, settings.quick)
        if few or settings.weights
        else {}
    )
    checks, jobs = list(_checks(settings)), list(_jobs(settings))
    tries = [
        Job(scored(workload, one), side, max(settings.threads), 0, "accuracy")
        for workload, one in labelled.items()
        for side in (SIDES["ours"], *few)
    ]
    runs: list[dict[str, Any]] = []
    sides = (SIDES["ours"], *settings.sides)
    peaks = Peaks({side.precision for side in sides})
    with tempfile.TemporaryDirectory(prefix="tinysqueeze-bench-") as folder:
        place = Path(folder)
        for workload in {job.workload for job in jobs}:
            write_for(settings.sides, workload, place / workload.name)
        for workload, one in labelled.items():
            own = scored(workload, one)
            write_for(few, own, place / own.name, one)
        for done, job in enumerate(order := [*checks, *tries, *jobs]):
            if report:
                report(done, len(order), f"{job.part} {job}")
            if job.part == "rounds":
                peaks.look(job.threads, job.round)
            runs.append((_tried if job in tries else _run)(job, settings.seconds, place))
            if job is checks[-1]:
                _compare_logits(runs)
        if report:
            report(len(order), len(order), "")
    return {
        "machine": machine(),
        "versions": versions({name for side in settings.sides for name in side.libraries}),
        "rounds": settings.rounds,
        "seconds": settings.seconds,
        "threads": list(settings.threads),
        "peaks": peaks.found,
        "workloads": {job.workload.name: _about(job.workload) for job in jobs},
        "sides": {side.name: side.title for side in sides},
        "precisions": {side.name: side.precision for side in sides},
        "stages": _stages(settings) if settings.stages else [],
        "runs": [run for run in runs if run["part"] not in ("check", "accuracy")],
        "checks": [run for run in runs if run["part"] == "check"],
        "accuracy": [
            _scored(run, workload.name, one)
            for workload, one in labelled.items()
            for run in runs
            if run["workload"] == scored(workload, one).name
        ],
    }


def _stages(settings: Settings) -> list[dict[str, Any]]:
    """Where the time of every workload goes, ours in float32, and where it is only run in int8."""
    return [
        {"workload": workload.name, "precision": precision, "threads": threads, **asdict(kind)}
        for workload in settings.workloads
        for precision in ("float32", "int8")[: 1 if workload.training else 2]
        for threads in (max(settings.threads),)
        for kind in by_stage(workload, precision, threads, settings.seconds)
    ]


def _scored(run: dict[str, Any], workload: str, labelled: Labelled) -> dict[str, Any]:
    """How often a side found the label."""
    right = None if run["found"] is None else np.array(run["found"]) == labelled.labels
    return {
        "workload": workload,
        "side": run["side"],
        "images": len(labelled.labels),
        "top1": None if right is None else float(right.mean()),
        "source": labelled.source,
    }


def _about(workload: Workload) -> dict[str, Any]:
    model = workload.model
    return {
        "title": workload.title,
        "model": model.spec,
        "input_shape": list(model.input_shape),
        "batch": workload.batch,
        "training": workload.training,
        "flops": flops(workload),
        "by_layer": compile_plan(model, 1, training=workload.training, threads=1).by_layer,
    }


def _checks(settings: Settings) -> Iterator[Job]:
    """Every side once on every workload; the first of them says what is right."""
    every = dict.fromkeys((SIDES["ours-stepwise"], SIDES["ours"], *settings.sides))
    for workload in settings.workloads:
        for side in every:
            if side.trains or not workload.training:
                yield Job(workload, side, max(settings.threads), 0, "check")


def _jobs(settings: Settings) -> Iterator[Job]:
    """All processes that are timed, in their order."""
    ours, threads = SIDES["ours"], max(settings.threads)
    sides = (ours, *settings.sides)
    for i in range(settings.rounds):
        for workload in settings.workloads:
            able = [s for s in sides if s.trains or not workload.training]
            turns = [(s, t) for t in settings.threads for s in able]
            turns += [(ours, t) for t in settings.own_threads if t not in settings.threads]
            for side, count in turns if i % 2 == 0 else reversed(turns):
                yield Job(workload, side, count, i)
    if settings.startup:
        for workload in settings.workloads[:1]:
            yield Job(workload, ours, threads, 0, "cold")
            yield Job(workload, ours, threads, 0, "warm")
    if settings.scaling:
        for i in range(min(settings.rounds, 3)):
            for scaled in _scaled(settings.workloads):
                for side in sides:
                    if side.trains or not scaled.training:
                        yield Job(scaled, side, threads, i, "scaling")


def _scaled(workloads: tuple[Workload, ...]) -> Iterator[Workload]:
    for workload in workloads:
        for size, values in SCALES.get(workload.name, {}).items():
            yield from (workload.with_sizes(**{size: value}) for value in values)


def _tried(job: Job, seconds: float, place: Path) -> dict[str, Any]:
    """As `_run`, of a side's accuracy; "found" is None where the side can't run that network."""
    try:
        return _run(job, seconds, place)
    except UserError:
        about = {"part": job.part, "workload": job.workload.name, "side": job.side.name}
        return {**about, "found": None}


def _run(job: Job, seconds: float, place: Path) -> dict[str, Any]:
    """Run one process. Raises UserError with the last line that it complained."""
    request = {
        "module": job.side.module,
        "variant": job.side.variant,
        "threads": job.threads,
        "folder": str(place / job.workload.name),
        "part": job.part,
        "seconds": 0.0 if job.part in ("cold", "warm") else seconds,
    }
    environment = {k: v for k, v in os.environ.items() if k not in CRIPPLING}
    environment |= dict.fromkeys(THREAD_VARIABLES, str(job.threads))
    if job.part in ("cold", "warm"):
        environment["NUMBA_CACHE_DIR"] = str(place / "cache")
    # -P keeps the worker's own folder off the import path, where a name might hide a library.
    command = ["-P", str(WORKER), json.dumps(request)]
    who = f"bench: {job.side.name} failed at {job.workload.name}"
    found = in_fresh_process(command, who, environment)
    return {
        "part": job.part,
        "workload": job.workload.name,
        "side": job.side.name,
        "threads": job.threads,
        "round": job.round,
        **found,
    }


def _compare_logits(checks: list[dict[str, Any]]) -> None:
    """Put each check's difference from our layers, relative to the largest logit, in its place.

    Raises UserError where it is too large: what computes something else must not be compared.
    """
    logits = {(c["workload"], c["side"]): np.array(c.pop("logits")) for c in checks}
    for check in checks:
        name, side = check["workload"], check["side"]
        expected, got = logits[name, "ours-stepwise"], logits[name, side]
        check["difference"] = float(np.abs(got - expected).max() / np.abs(expected).max())
        allowed = TOLERANCE_IN_FEW_BITS if SIDES[side].in_few_bits else TOLERANCE
        if not check["difference"] <= allowed:
            raise UserError(
                f"bench: {side} computes something else at {name}: its logits are off by "
                f"{check['difference']:.1e} of the largest"
            )


def workloads_named(names: list[str] | None, quick: bool = False) -> tuple[Workload, ...]:
    """The workloads of these names, or the usual ones. Raises UserError for a name unknown."""
    for name in names or ():
        if name not in WORKLOADS:
            raise UserError(f"no workload named {name!r}; there are {', '.join(WORKLOADS)}")
    chosen = [WORKLOADS[name] for name in dict.fromkeys(names or USUAL)]
    return tuple(workload.quick() if quick else workload for workload in chosen)
