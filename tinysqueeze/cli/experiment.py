"""`tinysqueeze experiment`: re-run one of the paper's experiments at CIFAR size."""

import argparse
from dataclasses import replace
from pathlib import Path

from tqdm.auto import tqdm

from tinysqueeze import data
from tinysqueeze.experiments import EXPERIMENTS, Point, find, grid, perform, read_rows
from tinysqueeze.pictures.experiments import experiment_curve
from tinysqueeze.recipes import DEFAULTS
from tinysqueeze.train import Report


def configure(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    parser.add_argument("name", metavar="NAME", help=f"one of {', '.join(EXPERIMENTS)}")
    parser.add_argument(
        "--data", default="cifar10", help="builtin, cifar10, or a folder or archive"
    )
    parser.add_argument("--epochs", type=int, default=6, metavar="N", help="of each training")
    parser.add_argument(
        "--seeds", type=int, default=1, metavar="N", help="trainings of each network"
    )
    parser.add_argument("--images", type=int, metavar="N", help="train on so many images only")
    parser.add_argument(
        "--validation", type=int, metavar="N", help="measure on so many held-out training images"
    )
    parser.add_argument("--model", default="squeezenet_cifar", metavar="M", help="what is varied")
    parser.add_argument(
        "--threads", type=int, metavar="N", help="processor threads (otherwise all)"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("runs/experiments"), metavar="DIR", help="for CSV and PNG"
    )


def run(args: argparse.Namespace) -> int:
    """Train what is missing of the grid, then draw the curve."""
    experiment = find(args.name)
    dataset, test = data.load(args.data, "train"), data.load(args.data, "test")
    if args.validation:
        dataset, test = dataset.split(args.validation)
    if args.images:
        dataset = dataset.split(args.images)[1]
    recipe = replace(DEFAULTS.get(args.data, DEFAULTS["other"]), epochs=args.epochs)
    table = args.out / f"{experiment.name}.csv"
    left = len(grid(experiment, args.seeds)) - len(read_rows(table))
    steps = recipe.epochs * (len(dataset) // recipe.batch_size)
    print(
        f"{experiment.question} ({experiment.source}); {left} trainings to go; results in {table}"
    )
    with tqdm(total=left * steps, unit="batch", disable=None) as bar:

        def report(point: Point, seed: int, step: Report) -> None:
            bar.set_description(f"{point.label}, seed {seed}", refresh=False)
            bar.set_postfix_str(f"epoch {step.epoch + 1}, loss {step.loss:.3f}", refresh=False)
            bar.update()

        for row in perform(
            experiment, dataset, test, recipe, table, args.seeds, args.model, args.threads, report
        ):
            bar.write(
                f"{row['point']:>12}, seed {row['seed']}: {row['accuracy']:.2%} with "
                f"{row['parameters']:,} parameters, {row['seconds']:.0f} s"
            )
    named = {p.x: p.label for p in experiment.points if p.label != f"{p.x:g}"}
    picture = experiment_curve(
        read_rows(table), experiment.axis, experiment.question, experiment.paper, named
    )
    picture.save(str(table.with_suffix(".png")))
    print(f"drawn: {table.with_suffix('.png')}")
    return 0
