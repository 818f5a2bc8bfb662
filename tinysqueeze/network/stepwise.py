"""The plain way to run a model for training: layer by layer, every number in one flat vector.

`compiled.Plan` offers the same and is many times faster; this one is short enough to read, and runs
anything that has a forward and a backward. A test holds the two to each other. And this is training:
`batches(epoch)` gives images (N, H, W, C) float32 and labels (N,) in a new order each epoch, and the
velocity is momentum's (Polyak 1964).

    step = StepByStep(squeezenet_cifar(norm=True))
    velocity = np.zeros_like(step.vector)
    for epoch in range(10):
        for images, labels in batches(epoch):
            loss, right = step.loss_and_grads(images, labels)
            velocity = 0.9 * velocity + step.grad_vector
            step.vector -= 0.05 * velocity
"""

from collections.abc import Mapping
from types import ModuleType

import numpy as np

from tinysqueeze.labels import check_images, check_labels
from tinysqueeze.network.layers import Mode, Params
from tinysqueeze.network.loss import count_right, softmax_cross_entropy
from tinysqueeze.network.models import Model
from tinysqueeze.network.ops import fast
from tinysqueeze.network.ops.reference import cross_entropies
from tinysqueeze.network.params import assign, check_fit, initialise, shapes, views


class StepByStep:
    """A model with its parameters and gradients, each one flat float32 vector with named views.

    `params` and `grads` are trees of views into `vector` and `grad_vector`, batch norm's buffers
    included (their gradients stay zero). `views(other)` names the parts of any vector of that
    length, for instance an optimiser's velocity. `losses` are those of the last step's images, (N,).
    """

    threads: int | None = None  # Numba's and NumPy's own

    def __init__(self, model: Model, params: Params | None = None, ops: ModuleType = fast) -> None:
        """params: a tree that fits the model (copied), or None for fresh ones. Raises ShapeError."""
        params = initialise(model) if params is None else params
        self.model, self.ops = model, ops
        self.vector = np.zeros(sum(int(np.prod(s)) for s in shapes(model).values()), np.float32)
        self.grad_vector = np.zeros_like(self.vector)
        self.params, self.grads = self.views(self.vector), self.views(self.grad_vector)
        self.losses = np.zeros(0, np.float32)
        self.load(params)

    def views(self, vector: np.ndarray) -> Params:
        """The same tree as `params`, as views into `vector`."""
        return views(vector, shapes(self.model))

    def load(self, params: Mapping[str, object]) -> None:
        """Copy parameters in. Raises ShapeError, naming the path, where they don't fit."""
        check_fit(self.model, params)
        assign(self.params, params)

    def loss_and_grads(
        self, images: np.ndarray, labels: np.ndarray, smoothing: float = 0.0, seed: int = 0
    ) -> tuple[float, int]:
        """One training step up to the gradients: mean loss, and how many of the batch were right.

        Fills `grads` and moves batch norm's running statistics. images (N, H, W, C) float32, labels
        as in `loss.softmax_cross_entropy`; `seed` draws the dropout masks. Raises ShapeError.
        """
        images = check_images(images, self.model.name)
        labels = check_labels(labels, len(images), self.model.classes, self.model.name)
        mode = Mode(self.ops, np.random.default_rng(seed))
        logits, cache = self.model.forward(self.params, images, mode)
        loss, dlogits = softmax_cross_entropy(logits, labels, smoothing, mode)
        self.losses, _ = cross_entropies(logits, labels, smoothing)
        _, grads = self.model.backward(self.params, cache, dlogits, mode)
        assign(self.grads, grads)
        assign(self.params, self.model.moved_buffers(self.params, cache))
        return loss, count_right(logits, labels)

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Logits (N, classes) of images (N, H, W, C), in evaluation mode."""
        images = check_images(images, self.model.name)
        return self.model.forward(self.params, images, Mode(self.ops))[0]
