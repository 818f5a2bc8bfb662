"""`tinysqueeze page`: a training step of any weights as one HTML file that works offline."""

import argparse
from pathlib import Path

from tinysqueeze.cli.options import option
from tinysqueeze.cli.weights import NAMES, add_about, find_weights
from tinysqueeze.files import check_writable
from tinysqueeze.show.page import save, small_network, step_of
from tinysqueeze.show.page.of_weights import SMALL
from tinysqueeze.study.stepper import Steps


def configure(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    parser.description = (
        "Write the explorer of one training step as an HTML file: forward, loss, backward and update of "
        "some images, every number to be clicked. It needs no Python, no network, no server."
    )
    parser.add_argument(
        "weights", metavar="WEIGHTS", nargs="?", default=SMALL, help=f"{NAMES}, or {SMALL}: our own"
    )
    option(parser, "-o --out FILE", "to write", Path, Path("page.html"))
    option(parser, "--images FILE", "pictures (otherwise two drawings of ours)", nargs="+")
    option(
        parser,
        "--labels NAME",
        "the right class of each, by name or number (otherwise the file's name, if a class has it, "
        "else what the network says)",
        nargs="+",
    )
    add_about(parser)


def run(args: argparse.Namespace) -> int:
    """Write the page and say how large it is."""
    check_writable(args.out)
    source = args.weights
    weights = (
        small_network() if source == SMALL else find_weights(source, args.classes, args.preprocess)
    )
    steps, look = step_of(weights, args.images or (), args.labels or (), make=Steps)
    save(steps, args.out, look)
    print(f"{args.out}: {args.out.stat().st_size:,} bytes; open it in any browser")
    return 0
