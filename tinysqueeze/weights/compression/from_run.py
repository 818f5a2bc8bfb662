"""A run folder made small: pruned, retrained, shared, fine-tuned, stored; what each stage costs."""

import os
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
from tinysqueeze.training.state import Training, begin
from tinysqueeze.weights.compression import fileformat, pipeline, prune, trained
from tinysqueeze.weights.compression.fileformat import Compressed
from tinysqueeze.weights.compression.kept import Stopped, kept_at
from tinysqueeze.weights.compression.retrain import retrain
from tinysqueeze.weights.compression.tensors import Tensor
from tinysqueeze.weights.opening import open_weights

PRUNED = 0.7  # of all weights, where it is not said
RETRAINING = "retraining"
HELD_OUT = 0.02  # of the training images, for the choices; the retraining lacks them, so few

Masks = dict[str, NDArray[np.bool_]]


@dataclass(frozen=True, eq=False)
class Request:
    """What is asked for: `compress.compress` says what each field means."""

    run: str | os.PathLike[str]
    out: Path
    epochs: int
    prune: float = PRUNED
    bits: int | None = None
    finetune: int = 2
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

    def line(self, name: str, params: Params, size: int | None = None) -> float:
        """Evaluate and tell; returns the test accuracy."""
        total = len(self.validation) + len(self.test)
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
        left = prune.density(flatten(params))
        small = f"{size:>12,}{self.plain / size:>8.1f}x" if size else " " * 21
        self.asked.say(f"{name:<22}{left:>9.1%}{small}{seen:>12.2%}{new:>9.2%}")
        return new


def compress_run(asked: Request) -> Compressed:
    """The whole pipeline. Raises UserError, and Stopped after Ctrl-C."""
    saved, weights = checkpoint.read(Path(asked.run)), open_weights(asked.run)
    source, size = asked.data or saved.meta["extra"]["data"], saved.model.input_shape[0]
    images, test = (data.load(source, split, size=size) for split in ("train", "test"))
    dataset, validation = images.split(HELD_OUT)
    training, keep = _begin(asked, saved, dataset)
    plain = 4 * sum(array.size for array in weights.flat.values())
    table = Table(training, validation, test, plain, asked)
    table.head()
    now = training.engine.vector.copy()
    before = table.line("as trained", saved.params, table.plain)
    training.engine.vector[:] = now
    _retrain(asked, training, dataset, keep)
    left = {path: array.copy() for path, array in flatten(training.best_params).items()}
    table.line("pruned, retrained", unflatten(left))
    bits = asked.bits or _chosen_bits(asked, training, left, validation)
    tensors: dict[str, Tensor] = {**pipeline.shared_tensors(left, bits)}

    def stored() -> Compressed:
        return pipeline.pack(weights, trained.for_storing(weights.model, tensors))

    def stage(name: str) -> float:
        coded = fileformat.to_bytes(stored(), asked.coding)
        return table.line(name, fileformat.from_bytes(coded).params(), len(coded))

    after = stage(f"shared, {bits} bits")
    if asked.finetune:
        tensors = _finetune(asked, training, tensors, dataset, validation)
        after = stage("fine-tuned")
    asked.say(
        f"test accuracy {before:.2%} before, {after:.2%} after: {100 * (after - before):+.2f} points"
    )
    return stored()


def _begin(asked: Request, saved: Saved, dataset: Dataset) -> tuple[Training, Masks]:
    """The pruned network before its first step, or where an earlier call was stopped."""
    params, keep = trained.pruned(saved.params, asked.prune)
    recipe = trained.retraining_recipe(saved.recipe, asked.epochs)
    path = kept_at(asked.out, RETRAINING)
    if not path.exists():
        return begin(saved.model, dataset, recipe, params, saved.normalise, asked.threads), keep
    earlier = checkpoint.read(path)
    same = earlier.meta["extra"] == _origin(asked, saved)
    if not same or earlier.recipe != recipe:
        raise UserError(
            f"{path} is a retraining of another network or with other options; delete it, or write "
            "to another file"
        )
    training = checkpoint.resume(earlier, asked.threads)
    asked.say(f"going on with {path} at epoch {training.epoch + 1}, batch {training.batch + 1}")
    return training, keep


def _origin(asked: Request, saved: Saved) -> dict[str, object]:
    """What a retraining began from."""
    return {"pruned": asked.prune, "from": saved.meta["sha256"], "data": str(asked.data)}


def _retrain(asked: Request, training: Training, dataset: Dataset, keep: Masks) -> None:
    """Train what is left, saved every minute; the engine ends with the last step's parameters."""
    saved = checkpoint.read(Path(asked.run))
    steps = len(dataset) // training.recipe.batch_size
    save = partial(
        checkpoint.save, kept_at(asked.out, RETRAINING), training, **_origin(asked, saved)
    )
    with (
        interruptible() as interrupt,
        tqdm(
            total=steps * training.recipe.epochs,
            initial=training.epoch * steps + training.batch,
            unit="batch",
            desc="retraining",
            disable=not asked.progress,
        ) as bar,
    ):

        def show(report: Report) -> None:
            bar.set_postfix_str(f"loss {report.loss:.3f}, accuracy {report.accuracy:.1%}", False)
            bar.update()

        told = drive(retrain(training, dataset, keep), show, save, lambda: interrupt.by)
    if told:
        raise Stopped(told, kept_at(asked.out, RETRAINING))


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
