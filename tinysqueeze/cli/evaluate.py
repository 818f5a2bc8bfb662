"""`tinysqueeze evaluate`: the accuracy of a trained network on a dataset."""

import argparse
import json
from pathlib import Path

from tinysqueeze import checkpoint, data
from tinysqueeze.cli import photographs
from tinysqueeze.cli.compiling import compile_kernels
from tinysqueeze.cli.weights import NAMES, add_classes, find_weights, is_checkpoint
from tinysqueeze.data import cifar10
from tinysqueeze.engines import compiled_engine, stepwise_engine
from tinysqueeze.errors import ShapeError
from tinysqueeze.pretrained import training_start
from tinysqueeze.train import evaluate


def configure(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    parser.add_argument("weights", metavar="WEIGHTS", help=NAMES)
    parser.add_argument(
        "--data",
        help="builtin, cifar10, a folder or archive (otherwise as trained); for others' weights a "
        "folder of photographs, in a folder a class or named by wnid",
    )
    parser.add_argument("--batch-size", type=int, default=256, metavar="N", help="images at once")
    parser.add_argument(
        "--threads", type=int, metavar="N", help="processor threads (otherwise all)"
    )
    parser.add_argument(
        "--flip", action="store_true", help="average with the mirrored images (as trained)"
    )
    parser.add_argument(
        "--stepwise", action="store_true", help="layer by layer instead of compiled (slow)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a line")
    add_classes(parser)


def run(args: argparse.Namespace) -> int:
    """Print loss, top-1 and top-5."""
    if is_checkpoint(args.weights):
        saved = checkpoint.read(args.weights)
        model, params, normalise = saved.model, saved.params, saved.normalise
        source = args.data or saved.meta["extra"]["data"]
        flip = args.flip or saved.meta["recipe"].get("flip_test", False)
    elif args.data and _is_dataset(args.data):
        weights = find_weights(args.weights, args.classes)
        model, source = weights.model, args.data
        params, normalise = training_start(weights)
        flip = args.flip
    else:
        return photographs.evaluate(args)
    dataset = data.load(source, "test", size=model.input_shape[0])
    if len(dataset.classes) != model.classes:
        raise ShapeError(
            f"{args.weights} tells {model.classes} classes apart, "
            f"{dataset.name} has {len(dataset.classes)}"
        )
    if not args.stepwise:
        compile_kernels()
    make = stepwise_engine if args.stepwise else compiled_engine
    engine = make(model, args.batch_size, params, args.threads, "f4")
    score = evaluate(engine, dataset, normalise, args.batch_size, flip)
    found = {
        "model": model.name,
        "data": dataset.name,
        "images": len(dataset),
        "loss": score.loss,
        "top1": score.accuracy,
        "top5": score.top(5),
        "flip": flip,
    }
    line = (
        f"{model.name} on {dataset.name}: top-1 {score.accuracy:.2%}, top-5 {score.top(5):.2%}, "
        f"loss {score.loss:.4f} ({len(dataset):,} images)"
    )
    print(json.dumps(found) if args.json else line)
    return 0


def _is_dataset(source: str) -> bool:
    """Whether these are images of a known set, small ones, rather than a folder of photographs."""
    return (
        source == "builtin" or source == "cifar10" or cifar10.find_folder(Path(source)) is not None
    )
