"""Where the time goes, by kind of work: a plan whose every job is followed by a look at the clock.

Jobs that only read the clock are put between the others. Each adds the ticks since its thread's last look
to what the job before it is counted as; one at the beginning of a stage takes what its thread has waited.
So all of a thread's time is counted somewhere, and a share of the ticks is a share of the time.
"""

import json
import platform
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import config
from numba.core.cgutils import get_or_insert_function
from numba.extending import intrinsic

from tinysqueeze.bench.machine import in_fresh_process
from tinysqueeze.bench.workloads import Workload
from tinysqueeze.compiled import Plan
from tinysqueeze.compiled import compile as compile_plan
from tinysqueeze.compiled.int8 import Int8Plan
from tinysqueeze.compiled.sequence import Runnable
from tinysqueeze.errors import UserError
from tinysqueeze.kernels.kernel import Job, Kernel
from tinysqueeze.kernels.team import Program, Split, Stage
from tinysqueeze.kernels.vectors import INT, longs
from tinysqueeze.network.params import initialise
from tinysqueeze.training.optimisers import SGD

KINDS = {
    "transforms": "winograd_input winograd_output winograd_input_adjoint winograd_output_adjoint "
    "strassen_left strassen_back byte_winograd_input",
    "products": "product weight_gradient byte_product byte_sum byte_winograd",
    "packing of weights": "pack unpack clear winograd_weights strassen_right winograd_weights_adjoint",
    "pools": "max_pool max_pool_backward pixel_mean byte_max_pool byte_mean_pool byte_total",
    "norms": "norm_moments norm_finish norm_apply norm_gradient_sums norm_gradient_finish norm_backward",
    "activations, sums, copies": "mask mask_by_signs remember_signs hard_swish hard_swish_backward "
    "add_map copy_map phases carry dropout byte_add byte_at_least byte_table byte_rearrange",
    "loss": "softmax_cross_entropy",
    "encoding": "byte_encode",
    "waiting": "",
    "layer by layer": "",
    "optimiser": "",
    "Python": "",
}
"""Kinds of work, and the kernels that do them. The last ones are no kernel's."""
KIND_OF = {name: kind for kind, names in KINDS.items() for name in names.split()}
SLOTS = list(KINDS)
ROW = 16  # numbers that each thread counts in: its last look, a slot each, whole cache lines
CALIBRATION_IMAGES = 16


@intrinsic
def _ticks(typing_context: Any) -> Any:
    """A clock that all threads share and that takes nanoseconds to read."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        kind = ir.FunctionType(INT, [])
        if platform.machine().lower() in ("arm64", "aarch64"):
            return builder.asm(kind, "mrs $0, cntvct_el0", "=r", [], True)
        return builder.call(
            get_or_insert_function(builder.module, kind, "llvm.readcyclecounter"), []
        )

    return types.int64(), generate


def _look(job: Any, first: int, count: int, thread: int) -> None:
    """What has passed since the thread's last look is counted in `slot`."""
    counted = longs(job.counted + 8 * ROW * thread)
    now = _ticks()
    counted[1 + job.slot] += now - counted[0]
    counted[0] = now


look = Kernel(_look, "counted slot")


@dataclass(frozen=True)
class Kind:
    """What a kind of work takes of a step: milliseconds, and the share of all."""

    stage: str
    ms: float
    share: float


@dataclass
class Clock:
    """What has been counted: (threads, ROW) ticks."""

    counted: np.ndarray

    def timed(self, runnable: Runnable) -> Runnable:
        """The same programs with looks between their jobs."""
        parts = []
        for i, part in enumerate(runnable.parts):
            first = "layer by layer" if i else "Python"
            parts.append(self.program(part, first) if isinstance(part, Program) else part)
        return Runnable(parts, runnable.settings)

    def program(self, program: Program, before: str = "Python") -> Program:
        """The same program with looks between its jobs; what came `before` it is counted as that."""
        kinds = [before, *["waiting"] * (len(program.stages) - 1)]
        stages = (self._stage(s, kind) for s, kind in zip(program.stages, kinds, strict=True))
        return Program(list(stages))

    def _stage(self, stage: Stage, before: str) -> Stage:
        made = Stage(stage.split, stage.units, stage.chunk, stage.wait)
        once = (
            len(self.counted) if stage.split == Split.EACH else 1
        )  # so that each thread looks once
        made.add(self._at(before), units=once)
        for job, units in stage.jobs:
            made.add(job, units=units)
            made.add(self._at(KIND_OF[job.kernel.name]), units=once)
        return made

    def _at(self, kind: str) -> Job:
        return look.job(counted=self.counted, slot=SLOTS.index(kind))

    def kinds(self, ms: float, optimiser: float) -> Iterator[Kind]:
        """What has been counted, of steps of so many ms, of which the `optimiser` took some."""
        ticks = self.counted[:, 1 : 1 + len(SLOTS)].sum(axis=0)
        found = dict(zip(SLOTS, ticks / ticks.sum() * ms, strict=True))
        found["optimiser"] += optimiser
        found["Python"] = max(0.0, found["Python"] - optimiser)
        for kind, own in found.items():
            if own > 0:
                yield Kind(kind, own, own / ms)


def by_stage(workload: Workload, precision: str, threads: int, seconds: float) -> list[Kind]:
    """Where the time of a workload goes, ours, measured in a process of its own.

    Raises UserError where nothing is compiled.
    """
    if config.DISABLE_JIT:
        raise UserError("--stages tells the time of compiled kernels; unset NUMBA_DISABLE_JIT")
    request = {"workload": asdict(workload), "precision": precision, "threads": threads}
    command = ["-m", __name__, json.dumps(request | {"seconds": seconds})]
    found = in_fresh_process(command, f"stages of {workload.name}")
    return [Kind(**kind) for kind in found["kinds"]]


def _measured(workload: dict[str, Any], precision: str, threads: int, seconds: float) -> list[Kind]:
    """What the fresh process does."""
    task = Workload(**workload)
    rng = np.random.default_rng(0)
    images = rng.standard_normal((task.batch, *task.model.input_shape), np.float32)
    labels = rng.integers(0, task.model.classes, task.batch)
    clock = Clock(np.zeros((threads, ROW), np.int64))
    plan = _plan(task, precision, threads, images)
    optimiser = SGD(0.9, nesterov=False)
    if isinstance(plan, Plan) and task.training:
        slots, decay = optimiser.start(plan.vector), np.zeros_like(plan.vector)

    def step() -> float:
        """Seconds of the optimiser."""
        if not (isinstance(plan, Plan) and task.training):
            plan.predict(images)
            return 0.0
        plan.loss_and_grads(images, labels)
        before = time.perf_counter()
        optimiser.update(plan.vector, plan.grad_vector, slots, decay, 0.01, step=1)
        return time.perf_counter() - before

    step()
    _watch(plan, clock)
    step()
    clock.counted[:, 1:] = 0
    begun, steps, updating = time.perf_counter(), 0, 0.0
    while steps < 5 or time.perf_counter() - begun < seconds:
        updating += step()
        steps += 1
    each = 1e3 / steps
    return list(clock.kinds((time.perf_counter() - begun) * each, updating * each))


def _plan(workload: Workload, precision: str, threads: int, images: np.ndarray) -> Plan | Int8Plan:
    model = workload.model
    common: dict[str, Any] = {"threads": threads, "params": initialise(model)}
    if precision == "int8":
        few = images[:CALIBRATION_IMAGES]
        return compile_plan(model, workload.batch, precision="int8", calibration=few, **common)
    return compile_plan(model, workload.batch, training=workload.training, **common)


def _watch(plan: Plan | Int8Plan, clock: Clock) -> None:
    """From now on all that the plan does is counted."""
    if isinstance(plan, Int8Plan):
        assert plan._program
        plan._program.program = clock.program(plan._program.program)
    elif plan._training:
        plan._training.steps = clock.timed(plan._training.steps)
    else:
        assert plan._inference
        plan._inference.steps = clock.timed(plan._inference.steps)


if __name__ == "__main__":
    print(json.dumps({"kinds": [asdict(kind) for kind in _measured(**json.loads(sys.argv[1]))]}))
