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

from tinysqueeze.compiled.plan import Plan, PlanStep, compile

__all__ = ["Plan", "PlanStep", "compile"]
