"""The paper's whole pipeline for a network that can still be trained (Deep Compression, Figure 1).

Prune, train on what is left; share its weights, train the shared values; then store. Whoever runs it
shows the progress: every function here is one stage. Choices are made on validation images, which are
held out from this training (not from the one before, so that they flatter the network as it was).
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tinysqueeze.data import Dataset, batches
from tinysqueeze.errors import UserError
from tinysqueeze.network.layers import Params
from tinysqueeze.network.models import Model
from tinysqueeze.network.params import flatten, unflatten
from tinysqueeze.training.evaluate import evaluate
from tinysqueeze.training.recipe import Recipe
from tinysqueeze.training.schedule import Schedule
from tinysqueeze.training.state import Training
from tinysqueeze.weights.compression.pipeline import merged_norms, shared_tensors
from tinysqueeze.weights.compression.prune import apply_masks, fractions_by_layer, masks
from tinysqueeze.weights.compression.retrain import finetune_codebooks
from tinysqueeze.weights.compression.tensors import Dense, Shared, Tensor

Flat = Mapping[str, NDArray[np.float32]]

BITS = range(3, 9)  # tried for the codebooks: 7 to 255 values a layer
MAY_COST = 0.01  # of accuracy, by sharing alone: fine-tuning brings most of it back
PART = 1024  # images between two signs of life
FINETUNE_LR = 2e-4  # a shared value's gradient is the sum over hundreds of weights


def pruned(params: Params, fraction: float) -> tuple[Params, dict[str, NDArray[np.bool_]]]:
    """The parameters with `fraction` of all weights set to zero, and the masks. Raises UserError."""
    if not 0 <= fraction < 1:
        raise UserError(f"prune must be at least 0 and less than 1, not {fraction:g}")
    flat = {path: array.copy() for path, array in flatten(params).items()}
    keep = masks(flat, fractions_by_layer(flat, fraction))
    apply_masks(flat, keep)
    return unflatten(flat), keep


def retraining_recipe(recipe: Recipe, epochs: int) -> Recipe:
    """How to train what pruning left: as the network was trained, a third as fast, then slower."""
    slower = Schedule(recipe.schedule.lr / 3, "cosine", warmup=0.05)
    return replace(recipe, epochs=epochs, schedule=slower, frozen=())


def accuracy(
    training: Training,
    params: Params,
    images: Dataset,
    done: Callable[[int], object] = lambda count: None,
) -> float:
    """Top-1 (0 to 1) with these parameters, which the engine keeps; `done` hears of every part."""
    training.engine.load(params)
    right = 0.0
    for start in range(0, len(images), PART):
        part = images.subset(slice(start, start + PART))
        right += len(part) * evaluate(training.engine, part, training.normalise).accuracy
        done(len(part))
    return right / len(images)


def values_of(tensors: Mapping[str, Tensor]) -> Params:
    """The parameters that they stand for."""
    return unflatten({path: tensor.values() for path, tensor in tensors.items()})


def choose_bits(flat: Flat, judge: Callable[[Params], float]) -> tuple[int, dict[int, float]]:
    """The fewest bits that cost at most MAY_COST of `judge`'s accuracy; and what was measured."""
    least = judge(unflatten(flat)) - MAY_COST
    found: dict[int, float] = {}
    for bits in BITS:
        found[bits] = judge(values_of(shared_tensors(flat, bits)))
        if found[bits] >= least:
            break
    return bits, found


@dataclass(frozen=True, eq=False)
class FineTuned:
    """After a batch of the codebooks' training: the loss, and after an epoch the accuracy."""

    batch: int
    batches: int
    loss: float
    tensors: dict[str, Tensor]
    accuracy: float | None = None


def finetuned(
    training: Training,
    tensors: Mapping[str, Tensor],
    dataset: Dataset,
    validation: Dataset,
    epochs: int,
    lr: float = FINETUNE_LR,
) -> Iterator[FineTuned]:
    """Train the shared values for some epochs, each slower than the one before by half."""
    recipe = training.recipe
    per_epoch = len(dataset) // recipe.batch_size
    for epoch in range(epochs):
        feed = batches(
            dataset,
            recipe.batch_size,
            epoch=epoch,
            seed=recipe.seed + 1,
            augment=recipe.augment,
            drop_last=True,
            normalise=training.normalise,
        )
        steps = finetune_codebooks(training.engine, tensors, feed, lr / 2**epoch)
        for number, (loss, now) in enumerate(steps, 1):
            tensors, judged = now, None
            if number == per_epoch:
                judged = accuracy(training, values_of(now), validation)
            yield FineTuned(epoch * per_epoch + number, epochs * per_epoch, loss, now, judged)


def for_storing(model: Model, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same network in fewer bytes: codebooks, biases and norms in 16 bits, statistics merged."""
    found: dict[str, Tensor] = {
        path: replace(tensor, half=True) if isinstance(tensor, Shared | Dense) else tensor
        for path, tensor in tensors.items()
    }
    return found | merged_norms(model, flatten(values_of(tensors)))
