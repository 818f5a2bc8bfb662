"""A run folder made small: pruned, retrained, shared, fine-tuned, stored; what each stage costs."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from tinysqueeze import data
from tinysqueeze.data import Dataset
from tinysqueeze.errors import UserError
from tinysqueeze.network.layers import Params
from tinysqueeze.network.params import flatten, unflatten
from tinysqueeze.training import checkpoint
from tinysqueeze.training.checkpoint import Saved
from tinysqueeze.training.interruptible import interruptible
from tinysqueeze.training.loop import Report, drive
from tinysqueeze.training.recipe import Recipe
from tinysqueeze.training.state import Training, begin
from tinysqueeze.training.teacher import Teacher
from tinysqueeze.weights.compression import fileformat, pipeline, prune, trained
from tinysqueeze.weights.compression.fileformat import Compressed
from tinysqueeze.weights.compression.kept import Stopped, kept_at
from tinysqueeze.weights.compression.retrain import retrain
from tinysqueeze.weights.compression.tensors import Tensor
from tinysqueeze.weights.opening import open_weights

PRUNED = 0.7  # of all weights, where it is not said
FINETUNED = 2  # epochs, where it is not said
RETRAINING = "retraining"
HELD_OUT = 0.02  # of the training images, for the choices; the retraining lacks them, so few

Masks = dict[str, NDArray[np.bool_]]
Origin = dict[str, object]
"""What a retraining began from, as JSON: another one must not go on with it."""


@dataclass(frozen=True, eq=False)
class Request:
    """What is asked for: `compress.compress` says what each field means."""

    run: str | os.PathLike[str]
    out: Path
    epochs: int
    prune: float = PRUNED
    bits: int | None = None
    finetune: int = FINETUNED
    data: str | None = None
    coding: str = "ans"
    threads: int | None = None
    progress: bool = True
    say: pipeline.Progress = lambda line: None

    def __post_init__(self) -> None:
        if not checkpoint.is_checkpoint(self.run):
            raise UserError(
                f"retraining needs a run folder of `tinysqueeze train`, which {self.run} is not"
            )
        if self.epochs < 1 or self.finetune < 0:
            raise UserError("retraining takes 1 epoch at least, fine-tuning 0")
        if self.bits is not None and not 1 <= self.bits <= pipeline.MOST_BITS:
            raise UserError(f"bits must be 1 to {pipeline.MOST_BITS}, not {self.bits}")

    def images(self, saved: Saved) -> tuple[Dataset, Dataset, Dataset]:
        """Those to train with, those held out of the training images, and the test images."""
        source, size = self.data or saved.meta["extra"]["data"], saved.model.input_shape[0]
        images, test = (data.load(source, split, size=size) for split in ("train", "test"))
        return *images.split(HELD_OUT), test


@dataclass(frozen=True, eq=False)
class Table:
    """A line a stage: what is left of the weights, the file's size, and how well it does."""

    training: Training
    validation: Dataset
    test: Dataset
    plain: int  # bytes in 32-bit numbers
    asked: Request

    def head(self) -> None:
        """The names of the columns, and what the validation images are."""
        self.asked.say(
            f"validation: {len(self.validation):,} training images that the retraining does not see "
            f"(the network as trained did); test: {len(self.test):,} images, which choose nothing"
        )
        self.asked.say(
            f"{'':<22}{'not zero':>9}{'bytes':>12}{'smaller':>9}{'validation':>12}{'test':>9}"
        )

    def line(self, name: str, params: Params, size: int | None = None) -> tuple[float, float]:
        """Evaluate and tell; returns the validation and the test accuracy. The engine is as before."""
        total = len(self.validation) + len(self.test)
        vector = self.training.engine.vector
        now = vector.copy()
        with tqdm(
            total=total,
            unit="image",
            desc=f"evaluating: {name}",
            leave=False,
            disable=not self.asked.progress,
        ) as bar:
            seen, new = (
                trained.accuracy(self.training, params, images, bar.update)
                for images in (self.validation, self.test)
            )
        vector[:] = now
        left = prune.density(flatten(params))
        small = f"{size:>12,}{self.plain / size:>8.1f}x" if size else " " * 21
        self.asked.say(f"{name:<22}{left:>9.1%}{small}{seen:>12.2%}{new:>9.2%}")
        return seen, new

    def stored(self, name: str, found: Compressed) -> tuple[float, float]:
        """`line` of what a file will hold, read from its bytes."""
        coded = fileformat.to_bytes(found, self.asked.coding)
        return self.line(name, unflatten(fileformat.from_bytes(coded).params()), len(coded))


def compress_run(asked: Request) -> Compressed:
    """The whole pipeline. Raises UserError, and Stopped after Ctrl-C."""
    saved, weights = checkpoint.read(Path(asked.run)), open_weights(asked.run)
    dataset, validation, test = asked.images(saved)
    params, keep = trained.pruned(saved.params, asked.prune)
    recipe = trained.retraining_recipe(saved.recipe, asked.epochs)
    origin: Origin = {"pruned": asked.prune, "from": saved.meta["sha256"], "data": str(asked.data)}
    training = begun(asked, saved, dataset, params, recipe, origin)
    plain = 4 * sum(array.size for array in weights.flat.values())
    table = Table(training, validation, test, plain, asked)
    table.head()
    _, before = table.line("as trained", saved.params, table.plain)
    to_the_end(asked, training, retrain(training, dataset, keep), dataset, origin)
    left = {path: array.copy() for path, array in flatten(training.best_params).items()}
    table.line("pruned, retrained", unflatten(left))
    bits = asked.bits or _chosen_bits(asked, training, left, validation)
    tensors: dict[str, Tensor] = {**pipeline.shared_tensors(left, bits)}

    def stored() -> Compressed:
        return pipeline.pack(weights, trained.for_storing(weights.model, tensors))

    _, after = table.stored(f"shared, {bits} bits", stored())
    if asked.finetune:
        tensors = _finetune(asked, training, tensors, dataset, validation)
        _, after = table.stored("fine-tuned", stored())
    asked.say(
        f"test accuracy {before:.2%} before, {after:.2%} after: {100 * (after - before):+.2f} points"
    )
    return stored()


def begun(
    asked: Request,
    saved: Saved,
    dataset: Dataset,
    params: Params,
    recipe: Recipe,
    origin: Origin,
    teacher: Teacher | None = None,
) -> Training:
    """A retraining of `params` before its first step, or where an earlier call was stopped."""
    path, threads = kept_at(asked.out, RETRAINING), asked.threads
    if not path.exists():
        return begin(
            saved.model, dataset, recipe, params, saved.normalise, threads, teacher=teacher
        )
    earlier = checkpoint.read(path)
    if earlier.meta["extra"] != origin or earlier.recipe != recipe:
        raise UserError(
            f"{path} is a retraining of another network or with other options; delete it, or write "
            "to another file"
        )
    training = checkpoint.resume(earlier, threads, teacher=teacher)
    asked.say(f"going on with {path} at epoch {training.epoch + 1}, batch {training.batch + 1}")
    return training


def to_the_end(
    asked: Request, training: Training, reports: Iterator[Report], dataset: Dataset, origin: Origin
) -> None:
    """Take all the steps, with a bar, saved every minute. Raises Stopped after Ctrl-C."""
    path = kept_at(asked.out, RETRAINING)
    with (
        interruptible() as interrupt,
        tqdm(
            total=training.recipe.steps(len(dataset)),
            initial=training.step,
            unit="batch",
            desc="retraining",
            disable=not asked.progress,
        ) as bar,
    ):

        def show(report: Report) -> None:
            bar.set_postfix_str(f"loss {report.loss:.3f}, accuracy {report.accuracy:.1%}", False)
            bar.update()

        save = partial(checkpoint.save, path, training, **origin)
        told = drive(reports, show, save, lambda: interrupt.by)
    if told:
        raise Stopped(told, path)


def _chosen_bits(
    asked: Request, training: Training, left: trained.Flat, validation: Dataset
) -> int:
    bits, found = trained.choose_bits(
        left, lambda params: trained.accuracy(training, params, validation)
    )
    tried = ", ".join(f"{n} bits {score:.2%}" for n, score in found.items())
    asked.say(f"shared without fine-tuning, on the validation images: {tried}")
    return bits


def _finetune(
    asked: Request,
    training: Training,
    tensors: dict[str, Tensor],
    dataset: Dataset,
    validation: Dataset,
) -> dict[str, Tensor]:
    """Train the codebooks; what was best on the validation images, which may be the beginning."""
    best = trained.accuracy(training, trained.values_of(tensors), validation)
    steps = asked.finetune * (len(dataset) // training.recipe.batch_size)
    hidden = not asked.progress
    with tqdm(total=steps, unit="batch", desc="fine-tuning", disable=hidden) as bar:
        for step in trained.finetuned(training, tensors, dataset, validation, asked.finetune):
            bar.set_postfix_str(f"loss {step.loss:.3f}", False)
            bar.update()
            if step.accuracy is not None and step.accuracy > best:
                best, tensors = step.accuracy, step.tensors
    return tensors
