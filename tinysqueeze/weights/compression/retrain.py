"""Training a network that is already pruned or shared, so that it recovers what that cost.

Deep Compression, Figure 1: after pruning, the weights that are left are trained on; after sharing,
the values of the codebooks. Both go on with the trainer and the engine that trained the network.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tinysqueeze.data import Dataset
from tinysqueeze.network.params import flatten, unflatten
from tinysqueeze.training.engine import Engine
from tinysqueeze.training.loop import Report, run
from tinysqueeze.training.state import Training
from tinysqueeze.weights.compression.kmeans import codebook_gradient
from tinysqueeze.weights.compression.prune import apply_masks
from tinysqueeze.weights.compression.tensors import Dense, Shared, Tensor

Batch = tuple[np.ndarray, np.ndarray]


def retrain(
    training: Training, dataset: Dataset, keep: Mapping[str, NDArray[np.bool_]]
) -> Iterator[Report]:
    """Train what pruning left: `keep` are masks by path (`prune.masks`), False where pruned.

    A report a step, as from `train.run`. Momentum may move a pruned weight; it is set back to zero
    after every step, in the running average too.
    """
    vectors = [training.engine.vector]
    if training.average is not None:
        vectors.append(training.average)
    views = [flatten(training.engine.views(vector)) for vector in vectors]
    for flat in views:
        apply_masks(flat, keep)
    for report in run(training, dataset):
        for flat in views:
            apply_masks(flat, keep)
        yield report


def finetune_codebooks(
    engine: Engine,
    tensors: Mapping[str, Tensor],
    batches: Iterable[Batch],
    lr: float,
    momentum: float = 0.9,
) -> Iterator[tuple[float, dict[str, Tensor]]]:
    """Train the shared values, and all that is not shared, by SGD; codes stay as they are.

    The gradient of a shared value is the sum of the gradients of its weights (section 3.3). Yields
    the loss before each step and the tensors after it.
    """
    values = {
        path: (t.codebook if isinstance(t, Shared) else t.values()).astype(np.float32)
        for path, t in tensors.items()
    }
    velocity = {path: np.zeros_like(array) for path, array in values.items()}
    now = dict(tensors)
    for images, labels in batches:
        engine.load(unflatten({path: tensor.values() for path, tensor in now.items()}))
        loss, _ = engine.loss_and_grads(images, labels)
        moved = flatten(engine.params)  # batch norm's statistics, which the step moves itself
        for path, gradient in flatten(engine.views(engine.grad_vector)).items():
            tensor = now[path]
            if isinstance(tensor, Shared):
                shared = codebook_gradient(gradient, tensor.codes, len(tensor.codebook) + 1)[1:]
                gradient = shared.astype(np.float32)
            elif path.endswith(("/mean", "/var")):
                values[path] = moved[path].copy()
                now[path] = Dense(values[path])
                continue
            velocity[path] = momentum * velocity[path] + gradient
            values[path] = values[path] - np.float32(lr) * velocity[path]
            now[path] = (
                replace(tensor, codebook=values[path])
                if isinstance(tensor, Shared)
                else Dense(values[path])
            )
        yield loss, dict(now)
