"""The compiled plan: a model lowered to fused kernels over preallocated buffers.

    plan = compile(model, batch=64)                     # precision="4x4" | "2x2" | "direct"
    plan.load(params)
    loss, correct = plan.loss_and_grads(images, labels, smoothing=0.1, seed=7)
    optimiser.update(plan.vector, plan.grad_vector, ...)
    logits = plan.predict(images)                       # any number of images; a fresh array
    fast = compile(model, 1, precision="int8", params=params, calibration=images)   # inference only

`plan.vector` and `plan.grad_vector` are flat float32 vectors, `plan.params` and `plan.grads` the
same as trees of views, `plan.views(vector)` the same views into any other vector. `plan.steps` says
how each part of the model is run.

How it comes about, file by file. `steps` says what a plan does, and `grouping` finds it in the graph;
`space` hands out memory, and what is built there is first measured. `layout` places the steps in a
space: `convolution` makes the jobs of one convolution, `weights` packs what it needs, and `nodes` runs
what no kernel can do. `forward` and `backward` are a training step, `inference` is a batch, `single`
(with `bands` and `cuts`) one image by all threads: functions from a layout to a `sequence` of jobs.
`programs` strings them together, and `plan` is the front door. `int8` is the same for integers.
"""

from tinysqueeze.compiled.plan import Plan, PlanStep, compile

__all__ = ["Plan", "PlanStep", "compile"]
