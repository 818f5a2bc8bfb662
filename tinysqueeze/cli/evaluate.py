"""`tinysqueeze evaluate`: the accuracy of a trained network on a dataset."""

import argparse
import json

from tinysqueeze import checkpoint, data
from tinysqueeze.cli import photographs
from tinysqueeze.cli.compiling import compile_kernels
from tinysqueeze.cli.weights import NAMES, add_classes, is_checkpoint
from tinysqueeze.errors import ShapeError
from tinysqueeze.train import Recipe, evaluate, make_engine


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
    parser.add_argument("--flip", action="store_true", help="average with the mirrored images")
    parser.add_argument(
        "--stepwise", action="store_true", help="layer by layer instead of compiled (slow)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a line")
    add_classes(parser)


def run(args: argparse.Namespace) -> int:
    """Print loss, top-1 and top-5."""
    if not is_checkpoint(args.weights):
        return photographs.evaluate(args)
    saved = checkpoint.read(args.weights)
    source = args.data or saved.meta["extra"]["data"]
    dataset = data.load(source, "test", size=saved.model.input_shape[0])
    if len(dataset.classes) != saved.model.classes:
        raise ShapeError(
            f"{args.weights} tells {saved.model.classes} classes apart, "
            f"{dataset.name} has {len(dataset.classes)}"
        )
    if not args.stepwise:
        compile_kernels()
    recipe = Recipe(batch_size=args.batch_size)
    engine = make_engine(saved.model, recipe, saved.params, args.threads, stepwise=args.stepwise)
    score = evaluate(engine, dataset, saved.normalise, args.batch_size, args.flip)
    found = {
        "model": saved.model.name,
        "data": dataset.name,
        "images": len(dataset),
        "loss": score.loss,
        "top1": score.accuracy,
        "top5": score.top(5),
        "flip": args.flip,
    }
    line = (
        f"{saved.model.name} on {dataset.name}: top-1 {score.accuracy:.2%}, top-5 {score.top(5):.2%}, "
        f"loss {score.loss:.4f} ({len(dataset):,} images)"
    )
    print(json.dumps(found) if args.json else line)
    return 0
