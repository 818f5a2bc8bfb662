"""`tinysqueeze gradcheck`: every gradient of a model against finite differences, in float64."""

import argparse
import json
from dataclasses import asdict
from functools import partial
from math import isfinite
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from tinysqueeze.cli import values
from tinysqueeze.cli.models import add_model, chosen_model
from tinysqueeze.cli.options import option
from tinysqueeze.network.layers import Mode
from tinysqueeze.network.ops import fast, reference
from tinysqueeze.network.params import initialise
from tinysqueeze.study.gradcheck import TOLERANCE, Summary, check_model, summarise


def configure(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    add_model(parser, "squeezenet_cifar")
    add = partial(option, parser)
    add("--places N", "numbers compared in each array", values.whole(), 4)
    add("--batch-size N", "random images", values.images, 2)
    parser.add_argument(
        "--ops", choices=("fast", "reference"), default="fast", help="which operations"
    )
    add("--training", "batch norm and dropout as in a training step")
    add("--seed N", "for weights, images, places", values.whole(0), 0)
    add("--json", "print JSON instead of lines")


def run(args: argparse.Namespace) -> int:
    """Print a line for each array and one for all; the exit status is 1 unless all are right."""
    model = chosen_model(args)
    rng = np.random.default_rng(args.seed)
    images = rng.standard_normal((args.batch_size, *model.input_shape))
    labels = rng.integers(0, model.classes, args.batch_size)
    ops = {"fast": fast, "reference": reference}[args.ops]
    mode = Mode(ops, rng if args.training else None)
    params = initialise(model, args.seed)
    found = check_model(model, params, images, labels, mode, seed=args.seed, most=args.places)
    with tqdm(found, "checking", unit=" arrays", disable=None, leave=False) as bar:
        summary = summarise(bar)
    if args.json:
        print(json.dumps(_plain(model.name, summary), allow_nan=False))
    else:
        print("\n".join(map(str, summary.checks)))
        print(f"{model.name}, relative error below {TOLERANCE:g} wanted: {summary}")
    return 0 if summary.ok else 1


def _plain(name: str, summary: Summary) -> dict[str, Any]:
    """The summary for JSON, which has no NaN and no infinity: there they are null."""

    def plain(value: object) -> object:
        return None if isinstance(value, float) and not isfinite(value) else value

    checks = [
        {key: plain(value) for key, value in asdict(check).items()} | {"verdict": check.verdict}
        for check in summary.checks
    ]
    return {
        "model": name,
        "verdict": summary.verdict,
        "summary": str(summary),
        "arrays": len(checks),
        "places": summary.places,
        "wrong": len(summary.wrong),
        "unchecked": len(summary.unchecked),
        "checks": checks,
    }
