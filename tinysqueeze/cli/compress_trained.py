"""`tinysqueeze compress RUN --retrain N`: prune, retrain, share, fine-tune, store; what each costs."""

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from tinysqueeze import data
from tinysqueeze.cli.compiling import compile_kernels
from tinysqueeze.cli.weights import from_checkpoint, is_checkpoint
from tinysqueeze.data import Dataset
from tinysqueeze.errors import UserError
from tinysqueeze.network.layers import Params
from tinysqueeze.network.params import flatten, unflatten
from tinysqueeze.training import checkpoint
from tinysqueeze.training.checkpoint import Saved
from tinysqueeze.training.interruptible import interruptible
from tinysqueeze.training.state import Training, begin
from tinysqueeze.weights.compression import fileformat, pipeline, prune, trained
from tinysqueeze.weights.compression.fileformat import Compressed
from tinysqueeze.weights.compression.retrain import retrain
from tinysqueeze.weights.compression.tensors import Tensor

PRUNED = 0.7  # of all weights, where --prune is not given
HELD_OUT = 0.02  # of the training images, for the choices; the retraining lacks them, so few
SAVE_EVERY = 60.0  # seconds: what a kill may cost at most

Masks = dict[str, NDArray[np.bool_]]


class Stopped(Exception):
    """Ctrl-C or a kill during the retraining, which is saved; `by` is the signal's number."""

    def __init__(self, by: int) -> None:
        super().__init__(by)
        self.by = by


@dataclass(frozen=True, eq=False)
class Table:
    """A line a stage: what is left of the weights, the file's size, and how well it does."""

    training: Training
    validation: Dataset
    test: Dataset
    plain: int  # bytes in 32-bit numbers

    def head(self) -> None:
        """The names of the columns, and what the validation images are."""
        print(
            f"validation: {len(self.validation):,} training images that the retraining does not see "
            f"(the network as trained did); test: {len(self.test):,} images, which choose nothing"
        )
        print(f"{'':<22}{'not zero':>9}{'bytes':>12}{'smaller':>9}{'validation':>12}{'test':>9}")

    def line(self, name: str, params: Params, size: int | None = None) -> float:
        """Evaluate and print; returns the test accuracy."""
        total = len(self.validation) + len(self.test)
        with tqdm(total=total, unit="image", desc=f"evaluating: {name}", leave=False) as bar:
            seen, new = (
                trained.accuracy(self.training, params, images, bar.update)
                for images in (self.validation, self.test)
            )
        left = prune.density(flatten(params))
        small = f"{size:>12,}{self.plain / size:>8.1f}x" if size else " " * 21
        print(f"{name:<22}{left:>9.1%}{small}{seen:>12.2%}{new:>9.2%}", flush=True)
        return new


def compress(args: argparse.Namespace) -> Compressed:
    """The whole pipeline. Raises UserError, and Stopped after Ctrl-C."""
    if not is_checkpoint(args.weights):
        raise UserError(
            f"--retrain needs a run folder of `tinysqueeze train`, which {args.weights} is not"
        )
    if args.retrain < 1 or args.finetune < 0:
        raise UserError("--retrain takes 1 epoch at least, --finetune 0")
    if args.bits is not None and not 1 <= args.bits <= pipeline.MOST_BITS:
        raise UserError(f"--bits must be 1 to {pipeline.MOST_BITS}, not {args.bits}")
    saved, weights = checkpoint.read(args.weights), from_checkpoint(args.weights)
    source, size = args.data or saved.meta["extra"]["data"], saved.model.input_shape[0]
    images, test = (data.load(source, split, size=size) for split in ("train", "test"))
    dataset, validation = images.split(HELD_OUT)
    compile_kernels()
    training, keep = _begin(args, saved, dataset)
    table = Table(training, validation, test, 4 * sum(a.size for a in weights.flat.values()))
    table.head()
    now = training.engine.vector.copy()
    before = table.line("as trained", saved.params, table.plain)
    training.engine.vector[:] = now
    _retrain(args, training, dataset, keep)
    left = {path: array.copy() for path, array in flatten(training.best_params).items()}
    table.line("pruned, retrained", unflatten(left))
    bits = args.bits or _chosen_bits(training, left, validation)
    tensors: dict[str, Tensor] = trained.shared_tensors(left, bits)

    def stored() -> Compressed:
        return pipeline.pack(weights, trained.for_storing(weights.model, tensors))

    def stage(name: str) -> float:
        coded = fileformat.to_bytes(stored(), args.coding)
        return table.line(name, fileformat.from_bytes(coded).params(), len(coded))

    after = stage(f"shared, {bits} bits")
    if args.finetune:
        tensors = _finetune(args, training, tensors, dataset, validation)
        after = stage("fine-tuned")
    print(
        f"test accuracy {before:.2%} before, {after:.2%} after: {100 * (after - before):+.2f} points"
    )
    return stored()


def kept_at(out: Path) -> Path:
    """Where an unfinished retraining is kept, beside the file it is for."""
    return out.with_suffix(".retraining.safetensors")


def _begin(args: argparse.Namespace, saved: Saved, dataset: Dataset) -> tuple[Training, Masks]:
    """The pruned network before its first step, or where an earlier call was stopped."""
    fraction = PRUNED if args.prune is None else args.prune
    params, keep = trained.pruned(saved.params, fraction)
    recipe = trained.retraining_recipe(saved.recipe, args.retrain)
    path = kept_at(args.out)
    if not path.exists():
        return begin(saved.model, dataset, recipe, params, saved.normalise, args.threads), keep
    earlier = checkpoint.read(path)
    same = earlier.meta["extra"] == _origin(args, saved)
    if not same or earlier.recipe != recipe:
        raise UserError(
            f"{path} is a retraining of another network or with other options; delete it, or write "
            "to another file"
        )
    training = checkpoint.resume(earlier, args.threads)
    print(f"going on with {path} at epoch {training.epoch + 1}, batch {training.batch + 1}")
    return training, keep


def _origin(args: argparse.Namespace, saved: Saved) -> dict[str, object]:
    """What a retraining began from."""
    fraction = PRUNED if args.prune is None else args.prune
    return {"pruned": fraction, "from": saved.meta["sha256"], "data": str(args.data)}


def _retrain(args: argparse.Namespace, training: Training, dataset: Dataset, keep: Masks) -> None:
    """Train what is left, saved every minute; the engine ends with the last step's parameters."""
    saved = checkpoint.read(args.weights)
    steps = len(dataset) // training.recipe.batch_size
    done = training.epoch * steps + training.batch
    saved_at = time.perf_counter()
    with (
        interruptible() as interrupt,
        tqdm(
            total=steps * training.recipe.epochs, initial=done, unit="batch", desc="retraining"
        ) as bar,
    ):
        for report in retrain(training, dataset, keep):
            bar.set_postfix_str(f"loss {report.loss:.3f}, accuracy {report.accuracy:.1%}", False)
            bar.update()
            if interrupt.by or training.finished or time.perf_counter() - saved_at > SAVE_EVERY:
                checkpoint.save(kept_at(args.out), training, **_origin(args, saved))
                saved_at = time.perf_counter()
            if interrupt.by:
                bar.write(f"stopped, saved in {kept_at(args.out)}; the same command goes on")
                raise Stopped(interrupt.by)


def _chosen_bits(training: Training, left: trained.Flat, validation: Dataset) -> int:
    bits, found = trained.choose_bits(
        left, lambda params: trained.accuracy(training, params, validation)
    )
    tried = ", ".join(f"{n} bits {score:.2%}" for n, score in found.items())
    print(f"shared without fine-tuning, on the validation images: {tried}")
    return bits


def _finetune(
    args: argparse.Namespace,
    training: Training,
    tensors: dict[str, Tensor],
    dataset: Dataset,
    validation: Dataset,
) -> dict[str, Tensor]:
    """Train the codebooks; what was best on the validation images, which may be the beginning."""
    best = trained.accuracy(training, trained.values_of(tensors), validation)
    steps = args.finetune * (len(dataset) // training.recipe.batch_size)
    with tqdm(total=steps, unit="batch", desc="fine-tuning") as bar:
        for step in trained.finetuned(training, tensors, dataset, validation, args.finetune):
            bar.set_postfix_str(f"loss {step.loss:.3f}", False)
            bar.update()
            if step.accuracy is not None and step.accuracy > best:
                best, tensors = step.accuracy, step.tensors
    return tensors
