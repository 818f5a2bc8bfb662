"""The compiled plan: a model lowered to fused kernels over preallocated buffers.

    plan = compile(model, batch=64)                     # precision="f4" | "f2" | "direct"
    plan.load(params)
    loss, correct = plan.loss_and_grads(images, labels, smoothing=0.1, seed=7)
    optimiser.update(plan.vector, plan.grad_vector, ...)
    logits = plan.predict(images)                       # any number of images; a fresh array

`plan.vector` and `plan.grad_vector` are flat float32 vectors, `plan.params` and `plan.grads` the
same as trees of views, `plan.views(vector)` the same views into any other vector. `plan.steps` says
how each part of the model is run.

How it comes about, file by file: `network` turns the model into a list of fused steps, `space`
says where numbers lie, `weights` packs parameters and unpacks gradients, `convolution` makes the jobs
of one convolution, `sequence` strings jobs together; `layout` is what `inference` and `forward` share,
`training` adds the backward pass, `single` is inference of one image by all threads, and `plan` is
the front door. `steps` runs the layers that no kernel can do.
"""

from tinysqueeze.compiled.plan import Plan, PlanStep, compile

__all__ = ["Plan", "PlanStep", "compile"]
