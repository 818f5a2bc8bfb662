"""`tinysqueeze evaluate`: the accuracy of a trained network on a dataset."""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from tinysqueeze import data
from tinysqueeze.cli import photographs, values
from tinysqueeze.cli.compiling import compile_kernels
from tinysqueeze.cli.output import draw
from tinysqueeze.cli.weights import NAMES, add_classes, find_weights
from tinysqueeze.data import Dataset, cifar10
from tinysqueeze.errors import ShapeError, UserError
from tinysqueeze.files import check_folder
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
from tinysqueeze.weights import training_start


def configure(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    parser.add_argument("weights", metavar="WEIGHTS", help=NAMES)
    parser.add_argument(
        "--data",
        help="builtin, cifar10, a folder or archive (otherwise as trained); for others' weights a "
        "folder of photographs, in a folder a class or named by wnid",
    )
    parser.add_argument(
        "--batch-size", type=values.images, default=256, metavar="N", help="images at once"
    )
    parser.add_argument(
        "--threads", type=values.threads, metavar="N", help="processor threads (otherwise all)"
    )
    parser.add_argument(
        "--flip", action="store_true", help="average with the mirrored images (as trained)"
    )
    parser.add_argument(
        "--shift", action="store_true", help="average with images moved by up to a pixel"
    )
    parser.add_argument(
        "--stepwise", action="store_true", help="layer by layer instead of compiled (slow)"
    )
    parser.add_argument(
        "--plot",
        type=Path,
        metavar="DIR",
        help="write confusion matrix, accuracy by class, calibration and worst mistakes as PNG",
    )
    parser.add_argument(
        "--answers",
        type=Path,
        metavar="FILE",
        help="keep logits, labels and the worst mistakes' images in a small .npz",
    )
    parser.add_argument(
        "--json", action="store_true", help="print JSON, with accuracy by class, instead of a line"
    )
    add_classes(parser)


def run(args: argparse.Namespace) -> int:
    """Print loss, top-1 and top-5."""
    if args.plot:
        check_folder(args.plot)
    if args.answers:
        check_folder(args.answers.parent)
    if checkpoint.is_checkpoint(args.weights):
        saved = checkpoint.read(args.weights)
        model, params, normalise = saved.model, saved.params, saved.normalise
        source = args.data or saved.meta["extra"]["data"]
        scoring = saved.recipe.scoring
        flip, shift = args.flip or scoring.flip, args.shift or scoring.shift
    elif args.data and _is_dataset(args.data):
        weights = find_weights(args.weights, args.classes)
        model, source = weights.model, args.data
        params, normalise = training_start(weights)
        flip, shift = args.flip, args.shift
    else:
        if args.plot or args.answers:
            raise UserError(
                "--plot and --answers are for small images: a run of `train`, CIFAR-10, or builtin"
            )
        return photographs.evaluate(args)
    dataset = data.load(source, "test", size=model.input_shape[0])
    if len(dataset.classes) != model.classes:
        raise ShapeError(
            f"{args.weights} tells {model.classes} classes apart, "
            f"{dataset.name} has {len(dataset.classes)}"
        )
    if dataset.images.shape[1:] != model.input_shape:
        remedy = "evaluate it on a folder of photographs, which are cropped to fit"
        if model.input_shape[2] != 3:
            remedy = "give it arrays of its own in Python (ts.classify)"
        raise ShapeError(
            f"{model.name} takes images of {model.input_shape}, {dataset.name} has "
            f"{dataset.images.shape[1:]}: {remedy}"
        )
    if not args.stepwise:
        compile_kernels()
    make = stepwise_engine if args.stepwise else compiled_engine
    engine = make(EngineSpec(model, args.batch_size, params, args.threads, training=False))
    score = evaluate(engine, dataset, normalise, args.batch_size, flip, shift)
    probabilities = softmax(score.logits.astype(float))
    error = calibration(probabilities, score.labels).error
    found = {
        "model": model.name,
        "data": dataset.name,
        "images": len(dataset),
        "loss": score.loss,
        "top1": score.accuracy,
        "top5": score.top(5),
        "flip": flip,
        "shift": shift,
        "calibration_error": error,
        "class_accuracy": _by_class(dataset, score),
    }
    line = (
        f"{model.name} on {dataset.name}: top-1 {score.accuracy:.2%}, top-5 {score.top(5):.2%}, "
        f"loss {score.loss:.4f}, calibration error {error:.2%} ({len(dataset):,} images)"
    )
    if args.plot:
        line += f"; pictures in {args.plot}"
    print(json.dumps(found) if args.json else line)
    if args.answers:
        save_answers(args.answers, score.logits, score.labels, dataset.images, dataset.classes)
    return _draw(args.plot, dataset, score, probabilities) if args.plot else 0


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
