"""This package as a side of the comparison: the compiled plan, or layer by layer."""

from collections.abc import Callable
from typing import Any

from tinysqueeze.compiled import Plan
from tinysqueeze.compiled import compile as compile_plan
from tinysqueeze.network.models import build
from tinysqueeze.network.params import unflatten
from tinysqueeze.network.stepwise import StepByStep
from tinysqueeze.training.optimisers import SGD

StepAndLogits = tuple[Callable[[], Any], Callable[[], Any]]


def prepare(task: Any) -> StepAndLogits:
    """The variant is "stepwise", or the plan's precision; integers have images to be calibrated on."""
    model, params = build(task.spec), unflatten(task.params)
    engine: StepByStep | Plan
    if task.variant == "int8":
        integers = compile_plan(
            model,
            batch=len(task.images),
            precision="int8",
            threads=task.threads,
            params=params,
            calibration=task.calibration,
        )
        return (lambda: integers.predict(task.images),) * 2
    if task.variant == "stepwise":
        engine = StepByStep(model, params)
    else:
        engine = compile_plan(
            model,
            batch=len(task.images),
            training=task.training,
            precision=task.variant,
            threads=task.threads,
            params=params,
        )

    def infer() -> Any:
        return engine.predict(task.images)

    if not task.training:
        return infer, infer
    optimiser = SGD(task.momentum, nesterov=False)
    slots = optimiser.start(engine.vector)
    decay = slots["velocity"].copy()

    def train() -> None:
        engine.loss_and_grads(task.images, task.labels)
        optimiser.update(
            engine.vector, engine.grad_vector, slots, decay, task.learning_rate, step=1
        )

    return train, infer
