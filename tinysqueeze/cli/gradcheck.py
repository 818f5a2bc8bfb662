"""`tinysqueeze gradcheck`: every gradient of a model against finite differences, in float64."""

import argparse
import json
from dataclasses import asdict

import numpy as np
from tqdm.auto import tqdm

from tinysqueeze.cli.models import add_model, chosen_model
from tinysqueeze.network.layers import Run
from tinysqueeze.network.ops import fast, reference
from tinysqueeze.network.params import initialise
from tinysqueeze.study.gradcheck import TOLERANCE, check_model


def configure(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    add_model(parser, "squeezenet_cifar")
    parser.add_argument(
        "--places", type=int, default=4, metavar="N", help="numbers tried in each array"
    )
    parser.add_argument("--batch-size", type=int, default=2, metavar="N", help="random images")
    parser.add_argument(
        "--ops", choices=("fast", "reference"), default="fast", help="which operations"
    )
    parser.add_argument("--training", action="store_true", help="batch norm by batch statistics")
    parser.add_argument(
        "--seed", type=int, default=0, metavar="N", help="for weights, images, places"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of lines")


def run(args: argparse.Namespace) -> int:
    """Print a line for each array; the exit status is 1 if a gradient is wrong."""
    model = chosen_model(args)
    if args.training:
        model = chosen_model(args, dropout=0.0)  # masks drawn anew are no function to differentiate
    rng = np.random.default_rng(args.seed)
    images = rng.standard_normal((args.batch_size, *model.input_shape))
    labels = rng.integers(0, model.classes, args.batch_size)
    ops = {"fast": fast, "reference": reference}[args.ops]
    mode = Run(ops, rng if args.training else None)
    params = initialise(model, args.seed)
    checks = []
    with tqdm(desc="checking", unit=" arrays", disable=None, leave=False) as bar:
        for check in check_model(
            model, params, images, labels, mode, seed=args.seed, most=args.places
        ):
            checks.append(check)
            bar.update()
    wrong = [check for check in checks if not check.ok]
    if args.json:
        print(
            json.dumps(
                {"model": model.name, "wrong": len(wrong), "checks": [asdict(c) for c in checks]}
            )
        )
    else:
        print("\n".join(map(str, checks)))
        verdict = f"{len(wrong)} WRONG" if wrong else "all right"
        print(
            f"{model.name}: {len(checks)} arrays, relative error below {TOLERANCE:g} wanted: {verdict}"
        )
    return 1 if wrong else 0
