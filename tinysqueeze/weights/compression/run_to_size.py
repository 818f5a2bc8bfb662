"""A run folder made small, to a size: calibrated with training images, then trained through the rounding."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tinysqueeze.data import Dataset, batches
from tinysqueeze.network.params import flatten, unflatten
from tinysqueeze.training import checkpoint
from tinysqueeze.training.checkpoint import Saved
from tinysqueeze.training.optimisers import Adam
from tinysqueeze.training.recipe import HardImages, Recipe
from tinysqueeze.training.schedule import Schedule
from tinysqueeze.weights.compression import fileformat, pipeline, trained
from tinysqueeze.weights.compression.fileformat import Compressed
from tinysqueeze.weights.compression.from_run import Origin, Request, Table, begun, to_the_end
from tinysqueeze.weights.compression.searching import searched
from tinysqueeze.weights.compression.straight_through import (
    Flat,
    Grids,
    fit_into,
    train_through,
)
from tinysqueeze.weights.opening import open_weights

CALIBRATED, CALIBRATED_LARGE = (
    256,
    100,
)  # images; of more than LARGE pixels a side fewer, for memory
LARGE = 64
RATE = 0.01  # of the way from one level to the next, at most, a step


def compress_run_to_size(asked: Request, target: int) -> Compressed:
    """The network in at most `target` bytes. Raises UserError, and Stopped after Ctrl-C."""
    saved, weights = checkpoint.read(Path(asked.run)), open_weights(asked.run)
    dataset, validation, test = asked.images(saved)
    images = _calibrating(saved, dataset)
    asked.say(f"calibrated with {len(images):,} training images")
    start = searched(weights, target, images, asked.out, asked.coding, asked.progress, asked.say)
    grids = Grids.of(start, weights.flat)
    recipe = rounding_recipe(saved.recipe, asked.epochs)
    origin: Origin = {
        "target": target, "coding": asked.coding, "from": saved.meta["sha256"], "data": str(asked.data),
    }  # fmt: skip
    teacher = checkpoint.as_teacher(saved, saved.model, saved.classes, asked.threads)
    training = begun(asked, saved, dataset, unflatten(grids.start), recipe, origin, teacher)
    plain = 4 * sum(array.size for array in weights.flat.values())
    table = Table(training, validation, test, plain, asked)
    table.head()
    _, before = table.line("as trained", saved.params, plain)
    least, without = table.stored("calibrated", start)

    def packed(latent: Flat) -> Compressed:
        return pipeline.pack(weights, trained.for_storing(weights.model, grids.tensors(latent)))

    def size_of(latent: Flat) -> int:
        return len(fileformat.to_bytes(packed(latent), asked.coding))

    fit = partial(fit_into, target, grids=grids, size_of=size_of)
    to_the_end(asked, training, train_through(training, dataset, grids, fit), dataset, origin)
    found = packed(flatten(training.best_params))
    judged, after = table.stored("retrained", found)
    if judged < least:
        asked.say("worse on the validation images than without training, which is what is written")
        found, after = start, without
    asked.say(
        f"test accuracy {before:.2%} before, {without:.2%} in that size without training, {after:.2%} after: "
        f"{100 * (after - before):+.2f} points"
    )
    return found


def rounding_recipe(recipe: Recipe, epochs: int) -> Recipe:
    """How to train through the rounding: images as the network was trained with, labels by itself as it was.

    Adam, for its steps are as long in every layer, whatever the gradients, and counted in steps of the grid.
    """
    return replace(
        recipe, epochs=epochs, schedule=Schedule(RATE, "cosine", warmup=0.05), optimiser=Adam(),
        weight_decay=0.0, norm_bias_rate=1.0, smoothing=0.0, taught=1.0, hard_images=HardImages(),
        average=0.0, frozen=(),
    )  # fmt: skip


def _calibrating(saved: Saved, dataset: Dataset) -> NDArray[np.float32]:
    """(N, H, W, C): some of the images to train with, as they are."""
    most = CALIBRATED if max(saved.model.input_shape[:2]) <= LARGE else CALIBRATED_LARGE
    feed = batches(dataset, most, seed=saved.recipe.seed, normalise=saved.normalise)
    return next(iter(feed))[0]
