"""`tinysqueeze experiment`: re-run one of the paper's experiments at CIFAR size."""

import argparse
from functools import partial
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from tinysqueeze import data
from tinysqueeze.cli import values
from tinysqueeze.cli.models import add_changes, changes
from tinysqueeze.cli.options import option
from tinysqueeze.cli.output import draw
from tinysqueeze.data import Dataset
from tinysqueeze.files import check_folder
from tinysqueeze.paper.experiments import (
    EXPERIMENTS,
    SHORT,
    Experiment,
    Point,
    affordable_epochs,
    agreement,
    find,
    grid,
    perform,
    read_rows,
    work,
)
from tinysqueeze.paper.experiments.runs import RATE
from tinysqueeze.show.pictures.experiments import experiment_curve
from tinysqueeze.study.count import count
from tinysqueeze.training.loop import Report


def configure(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    parser.add_argument("name", metavar="NAME", help=f"one of {', '.join(EXPERIMENTS)}")
    add, above_zero = partial(option, parser), values.number(above=True)
    add("--data DATA", "builtin, cifar10, or a folder or archive", default="cifar10")
    add("--minutes M", "for the grid; decides the epochs", above_zero, 60)
    add("--epochs N", "of each training (otherwise what the time allows)", values.whole())
    add("--seeds N", "trainings of each network", values.whole(), 2)
    add("--lr F", "peak rate (otherwise %(default)s)", above_zero, SHORT.schedule.lr)
    add("--images N", "train on so many images only", values.whole())
    add(
        "--validation N",
        "measure on so many held-out training images (otherwise a tenth)",
        values.whole(),
    )
    add("--on-test", "measure on the test images: where nothing is chosen")
    add("--threads N", "processor threads (otherwise all)", values.threads)
    add("--out DIR", "for CSV and PNG", Path, Path("runs/experiments"))
    add_changes(parser)


def run(args: argparse.Namespace) -> int:
    """Train what is missing of the grid, then draw the curve and compare it with the paper's."""
    experiment, own = find(args.name), changes(args)
    check_folder(args.out)
    table = args.out / f"{experiment.name}.csv"
    dataset, measured, split = _images(args)
    epochs = _epochs(args, experiment, table, len(dataset), own)
    recipe = SHORT.changed(lr=args.lr, epochs=epochs)
    before = {(row["point"], row["seed"]) for row in read_rows(table)}
    todo = [job for job in grid(experiment, args.seeds) if (job[0].label, job[1]) not in before]
    steps = recipe.epochs * (len(dataset) // recipe.batch_size)
    sizes = {"classes": len(dataset.classes), "input_size": dataset.images.shape[1]}
    costs = {
        p.label: steps
        * recipe.batch_size
        * count(experiment.network(p, **sizes | own)).multiply_adds
        for p in experiment.points
    }
    total = sum(costs[point.label] for point, _ in todo)
    print(
        f"{experiment.question} ({experiment.source})\n{len(todo)} trainings to go, of {recipe.epochs} "
        f"epochs on {len(dataset):,} images, measured on {len(measured):,} {split} images; about "
        f"{total / RATE / 60:.1f} minutes at {RATE / 1e9:.0f} G multiply-adds a second; "
        f"results in {table}"
    )
    done = 0
    with tqdm(total=total, unit=" multiply-adds", unit_scale=True, disable=None) as bar:

        def report(point: Point, seed: int, step: Report) -> None:
            bar.set_description(f"{point.label}, seed {seed}", refresh=False)
            bar.set_postfix_str(f"epoch {step.epoch + 1}, loss {step.loss:.3f}", refresh=False)
            share = (step.epoch * step.batches + step.batch) / steps
            bar.update(done + share * costs[point.label] - bar.n)

        for row in perform(
            experiment, dataset, measured, recipe, table, args.seeds, split, args.threads, report,
            **own,
        ):  # fmt: skip
            done += costs[row["point"]]
            rate = costs[row["point"]] / row["seconds"] / 1e9
            bar.write(
                f"{row['point']:>12}, seed {row['seed']}: {row['accuracy']:.2%} with "
                f"{row['parameters']:,} parameters, {row['seconds']:.0f} s "
                f"({rate:.0f} G multiply-adds a second)"
            )
    rows = read_rows(table)
    print(agreement(experiment, rows))
    return draw({table.with_suffix(".png"): lambda: experiment_curve(experiment, rows)})


def _images(args: argparse.Namespace) -> tuple[Dataset, Dataset, str]:
    """What to train on, what to measure on, and the name of that split."""
    dataset = data.load(args.data, "train", size=args.input_size)
    if args.on_test:
        measured, split = data.load(args.data, "test", size=args.input_size), "test"
    else:
        (dataset, measured), split = dataset.split(args.validation or 0.1), "validation"
    return dataset.split(args.images)[1] if args.images else dataset, measured, split


def _epochs(
    args: argparse.Namespace, experiment: Experiment, table: Path, images: int, own: dict[str, Any]
) -> int:
    """Those asked for; or of the table that goes on; or as many as the time allows."""
    rows = read_rows(table)
    if args.epochs or rows:
        return args.epochs or rows[0]["epochs"]
    return affordable_epochs(work(experiment, images, args.seeds, **own), args.minutes)
