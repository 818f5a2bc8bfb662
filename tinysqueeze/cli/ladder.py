"""`tinysqueeze ladder`: from a published training to the recipe `fast`, a change a rung."""

import argparse
from functools import partial
from pathlib import Path

from tqdm.auto import tqdm

from tinysqueeze import data
from tinysqueeze.cli import values
from tinysqueeze.cli.options import option
from tinysqueeze.files import check_writable
from tinysqueeze.paper.experiments import read_rows
from tinysqueeze.paper.ladder import COLUMNS, EPOCHS, Rung, climb, markdown, rungs
from tinysqueeze.training.loop import Report


def configure(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    add = partial(option, parser)
    add(
        "--data DATA",
        "builtin, cifar10, or a folder or archive, of 32x32 images",
        default="cifar10",
    )
    add("--epochs N", "times through the images, of each training", values.whole(3), EPOCHS)
    add("--seeds N", "trainings of each rung", values.whole(), 1)
    add("--held-out N", "training images to judge by", values.whole(), 5000)
    add("--threads N", "processor threads (otherwise all)", values.threads)
    add(
        "-o --out FILE",
        "the CSV file; what it holds is not trained again",
        Path,
        Path("runs/ladder.csv"),
    )


def run(args: argparse.Namespace) -> int:
    """Train what the table lacks, then print it."""
    check_writable(args.out, makes_folder=True)
    dataset, held_out = data.load(args.data, "train").split(args.held_out)
    done = len(read_rows(args.out, COLUMNS))
    total = args.seeds * len(rungs(args.epochs, len(dataset.classes))) * args.epochs * len(dataset)
    with tqdm(total=total, unit="image", unit_scale=True, disable=None) as bar:
        bar.update(done * args.epochs * len(dataset))

        def report(rung: Rung, seed: int, step: Report) -> None:
            bar.set_description(f"{rung.change:.30}, seed {seed}", refresh=False)
            bar.set_postfix_str(f"epoch {step.epoch + 1}, loss {step.loss:.3f}", refresh=False)
            bar.update(rung.recipe.batch_size)

        for row in climb(
            dataset, held_out, args.out, args.epochs, args.seeds, args.threads, report
        ):
            bar.write(
                f"{row['change']}, seed {row['seed']}: {row['accuracy']:.2%} in {row['seconds']:.0f} s"
            )
    print(markdown(read_rows(args.out, COLUMNS)))
    return 0
