"""The compiled plan: a model lowered to fused kernels over preallocated buffers.

    plan = compile(model, batch=64)                     # precision="f4" | "f2" | "direct"
    plan.load(params)
    loss, correct = plan.loss_and_grads(images, labels, smoothing=0.1, seed=7)
    optimiser.update(plan.vector, plan.grad_vector, ...)
    logits = plan.predict(images)                       # any number of images; a fresh array

`plan.vector` and `plan.grad_vector` are flat float32 vectors, `plan.params` and `plan.grads` the
same as trees of views, `plan.views(vector)` the same views into any other vector. `plan.steps` says
how each part of the model is run.
"""

from tinysqueeze.layers import Params
from tinysqueeze.models import Model
from tinysqueeze.stepwise import StepByStep


class Plan(StepByStep):
    """A model ready to run. As yet every step of it is run by its layer."""


def compile(
    model: Model,
    batch: int = 64,
    *,
    training: bool = True,
    precision: str = "f4",
    threads: int | None = None,
    input_size: int | None = None,
    params: Params | None = None,
) -> Plan:
    """A plan for batches of up to `batch` images (more are cut into batches)."""
    return Plan(model.at(input_size), params)
