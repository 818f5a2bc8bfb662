"""`tinysqueeze evaluate`: the accuracy of a trained network on a dataset."""

import argparse
import json
import os
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tinysqueeze import data
from tinysqueeze.cli import photographs, values
from tinysqueeze.cli.compiling import compile_kernels
from tinysqueeze.cli.options import option
from tinysqueeze.cli.output import draw
from tinysqueeze.cli.weights import NAMES, add_about, find_weights
from tinysqueeze.compiled import compile as compile_plan
from tinysqueeze.data import Dataset, Normalise, batches, cifar10
from tinysqueeze.errors import DataError, ShapeError, UserError
from tinysqueeze.files import check_folder, check_writable
from tinysqueeze.network.layers import Params
from tinysqueeze.network.models import Model
from tinysqueeze.network.ops.reference import softmax
from tinysqueeze.paper.results import save_answers
from tinysqueeze.show.pictures.confusion import (
    class_accuracy,
    reliability_diagram,
    worst_mistake_sheet,
)
from tinysqueeze.show.pictures.training import confusion_matrix
from tinysqueeze.training import checkpoint
from tinysqueeze.training.engine import EngineSpec, compiled_engine, stepwise_engine
from tinysqueeze.training.evaluate import Evaluation, evaluate
from tinysqueeze.training.scores import calibration, confusion_counts, per_class_accuracy
from tinysqueeze.weights import read_class_names, read_map, training_start
from tinysqueeze.weights.labelled import Classes, matched

CALIBRATION_IMAGES = 64  # small ones


def configure(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    parser.add_argument("weights", metavar="WEIGHTS", help=NAMES)
    add = partial(option, parser)
    add(
        "--data DATA",
        "builtin, cifar10, a folder or archive (otherwise as trained); for others' weights a "
        "folder of photographs, in a folder a class or named by wnid. Classes are matched by name; a "
        "folder that is not what it was trained on is scored whole",
    )
    add(
        "--map FILE",
        'which folder is which class, where names differ: JSON, {"Rouge": "red", "other": null}',
    )
    add("--batch-size N", "images at once", values.images, 256)
    add("--threads N", "processor threads (otherwise all)", values.threads)
    add("--flip", "average with the mirrored images (as trained)")
    add("--shift", "average with images moved by up to a pixel")
    add("--stepwise", "layer by layer instead of compiled (slow)")
    add(
        "--int8 IMAGES",
        "in 8-bit integers as well, to compare: calibrated on this folder of photographs, or for small "
        "images on the training images",
        nargs="?",
        const="",
    )
    add(
        "--plot DIR",
        "write confusion matrix, accuracy by class, calibration and worst mistakes as PNG",
        Path,
    )
    add(
        "--answers FILE",
        "keep logits, labels and the worst mistakes' images in a small .npz",
        Path,
    )
    add("--json", "print JSON, with accuracy by class, instead of a line")
    add_about(parser)


def run(args: argparse.Namespace) -> int:
    """Print loss, top-1 and top-5."""
    if args.plot:
        check_folder(args.plot)
    if args.answers:
        check_writable(args.answers, makes_folder=True)
    ours = checkpoint.is_checkpoint(args.weights) and not args.preprocess
    if not ours and not (args.data and _is_dataset(args.data)):
        if args.plot or args.answers:
            raise UserError(
                "--plot and --answers are for small images: a run of `train`, CIFAR-10, or builtin"
            )
        return photographs.evaluate(args)
    one = _trained_here(args) if ours else _others(args)
    model, dataset = one.model, _dataset(args, one)
    for note in (*one.notes, *dataset.notes):
        print(note, file=sys.stderr)
    if not args.stepwise:
        compile_kernels()
    make = stepwise_engine if args.stepwise else compiled_engine
    engine = make(EngineSpec(model, args.batch_size, one.params, args.threads, training=False))
    views = (args.batch_size, one.flip, one.shift)
    score = evaluate(engine, dataset, one.normalise, *views)
    probabilities = softmax(score.logits.astype(float))
    error = calibration(probabilities, score.labels).error
    found = {
        "model": model.name,
        "data": dataset.name,
        "images": len(dataset),
        "loss": score.loss,
        "top1": score.accuracy,
        "top5": score.top(5),
        "flip": one.flip,
        "shift": one.shift,
        "calibration_error": error,
        "class_accuracy": _by_class(dataset, score),
    }
    line = (
        f"{model.name} on {dataset.name}: top-1 {score.accuracy:.2%}, top-5 {score.top(5):.2%}, "
        f"loss {score.loss:.4f}, calibration error {error:.2%} ({len(dataset):,} images)"
    )
    if args.int8 is not None:
        source = args.int8 or args.data or str(one.trained_on)
        train = data.load(source, "train", size=model.input_shape[0])
        plan = compile_plan(
            model, args.batch_size, precision="int8", threads=args.threads, params=one.params,
            calibration=next(batches(train, CALIBRATION_IMAGES, normalise=one.normalise))[0],
        )  # fmt: skip
        integers = evaluate(plan, dataset, one.normalise, *views)
        found["int8"] = {"loss": integers.loss, "top1": integers.accuracy, "top5": integers.top(5)}
        line += (
            f"\nin 8-bit integers: top-1 {integers.accuracy:.2%}, top-5 {integers.top(5):.2%}, "
            f"loss {integers.loss:.4f}"
        )
    if args.plot:
        line += f"; pictures in {args.plot}"
    print(json.dumps(found) if args.json else line)
    if args.answers:
        save_answers(args.answers, score.logits, score.labels, dataset.images, dataset.classes)
    return _draw(args.plot, dataset, score, probabilities) if args.plot else 0


@dataclass(frozen=True)
class _Evaluated:
    """What is evaluated: the network, how it wants its images, its classes, how it was tested."""

    model: Model
    params: Params
    normalise: Normalise
    classes: Classes
    trained_on: str | None = None
    flip: bool = False
    shift: bool = False
    notes: tuple[str, ...] = ()


def _trained_here(args: argparse.Namespace) -> _Evaluated:
    """The network of a run folder or a checkpoint."""
    saved = checkpoint.read(args.weights)
    number = saved.model.classes
    names = read_class_names(args.classes, number)[0] if args.classes else saved.classes
    return _Evaluated(
        saved.model, saved.params, saved.normalise, Classes(len(names), names),
        saved.meta["extra"].get("data"), args.flip or saved.recipe.scoring.flip,
        args.shift or saved.recipe.scoring.shift, saved.notes,
    )  # fmt: skip


def _others(args: argparse.Namespace) -> _Evaluated:
    """A network from elsewhere."""
    weights = find_weights(args.weights, args.classes, args.preprocess)
    params, normalise = training_start(weights)
    classes = Classes.of(weights)
    return _Evaluated(weights.model, params, normalise, classes, flip=args.flip, shift=args.shift)


def _dataset(args: argparse.Namespace, one: _Evaluated) -> Dataset:
    """The images, their classes matched with the network's by name; a folder of others is taken whole."""
    source = args.data or one.trained_on
    if source is None:
        raise UserError(f"{args.weights} does not say what it was trained on: give --data")
    seen = one.trained_on is not None and os.path.realpath(source) == os.path.realpath(
        one.trained_on
    )
    dataset = data.load(source, "test", size=one.model.input_shape[0], whole=not seen)
    if dataset.images.shape[1:] != one.model.input_shape:
        remedy = "evaluate it on a folder of photographs, which are cropped to fit"
        if one.model.input_shape[2] != 3:
            remedy = "give it arrays of its own in Python (ts.classify)"
        raise ShapeError(
            f"{one.model.name} takes images of {one.model.input_shape}, {dataset.name} has "
            f"{dataset.images.shape[1:]}: {remedy}"
        )
    named = read_map(args.map) if args.map else None
    try:
        return matched(dataset, one.classes, named)
    except DataError as error:
        raise DataError(f"{args.weights} on {dataset.name}: {error}") from None


def _by_class(dataset: Dataset, score: Evaluation) -> dict[str, Any]:
    """Accuracy by class name; None for a class without images."""
    counts = confusion_counts(score.labels, score.logits.argmax(axis=1), len(dataset.classes))
    shares = zip(dataset.classes, per_class_accuracy(counts).tolist(), strict=True)
    return {name: None if np.isnan(share) else share for name, share in shares}


def _draw(folder: Path, dataset: Dataset, score: Evaluation, probabilities: np.ndarray) -> int:
    """The four pictures of a network's mistakes; returns the exit status."""
    predicted, labels, classes = probabilities.argmax(axis=1), score.labels, dataset.classes
    pictures = {
        "confusion_matrix": lambda: confusion_matrix(labels, predicted, classes),
        "class_accuracy": lambda: class_accuracy(labels, predicted, classes),
        "calibration": lambda: reliability_diagram(probabilities, labels),
        "worst_mistakes": lambda: worst_mistake_sheet(
            dataset.images, labels, probabilities, classes
        ),
    }
    folder.mkdir(parents=True, exist_ok=True)
    return draw({folder / f"{name}.png": picture for name, picture in pictures.items()})


def _is_dataset(source: str) -> bool:
    """Whether these are images of a known set, small ones, rather than a folder of photographs."""
    return (
        source == "builtin" or source == "cifar10" or cifar10.find_folder(Path(source)) is not None
    )
