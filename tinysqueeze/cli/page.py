"""`tinysqueeze page`: trained weights as one HTML file that works offline: on photographs, or a step."""

import argparse
import sys
from pathlib import Path

from tinysqueeze.cli.options import option
from tinysqueeze.cli.weights import NAMES, add_about, find_weights
from tinysqueeze.errors import UserError
from tinysqueeze.files import check_writable, write_atomically
from tinysqueeze.show.page import photo_page, save, small_file, small_network, step_of
from tinysqueeze.show.page.of_weights import SMALL
from tinysqueeze.study.stepper import Steps
from tinysqueeze.weights import WeightSet

LEAST_PHOTOGRAPH = 64  # pixels a side: networks for smaller images are shown step by step
KINDS = ("photo", "step")


def configure(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    parser.description = (
        "Write an HTML file that needs no Python, no network, no server. Of weights for photographs "
        f"({LEAST_PHOTOGRAPH} pixels a side and more): drop your own photograph and see its best classes, "
        "where the network sees them, every layer's maps, all computed in the page. Of weights for smaller "
        "images: the explorer of one training step, forward, loss, backward and update of some images, "
        "every number to be clicked."
    )
    parser.add_argument(
        "weights", metavar="WEIGHTS", nargs="?", default=SMALL, help=f"{NAMES}, or {SMALL}: our own"
    )
    option(parser, "-o --out FILE", "to write", Path, Path("page.html"))
    parser.add_argument(
        "--kind", choices=KINDS, help="which of the two pages (otherwise by the size of its images)"
    )
    option(
        parser,
        "--images FILE",
        "pictures of the step, or to begin with (otherwise drawings of ours)",
        nargs="+",
    )
    option(
        parser,
        "--labels NAME",
        "of a step: the right class of each, by name or number (otherwise the file's name, if a class has "
        "it, else what the network says)",
        nargs="+",
    )
    option(
        parser,
        "--photos FILE|FOLDER",
        "on photographs: unlabelled ones to calibrate with where the weights must be rounded for the page "
        "to stay small",
        nargs="+",
    )
    add_about(parser)


def run(args: argparse.Namespace) -> int:
    """Write the page and say how large it is."""
    check_writable(args.out)
    source = args.weights
    own = source == SMALL
    weights = small_network() if own else find_weights(source, args.classes, args.preprocess)
    kind = args.kind or _kind_of(weights, args)
    if (args.labels and kind == "photo") or (args.photos and kind == "step"):
        raise UserError("--labels go with the page of a step, --photos with that of photographs")
    if kind == "step":
        steps, look = step_of(weights, args.images or (), args.labels or (), make=Steps)
        save(steps, args.out, look)
    else:
        weights, file = small_file(weights if own else source, weights, args.photos, _say)
        write_atomically(args.out, photo_page(weights, file, args.images or ()).encode())
    print(f"{args.out}: {args.out.stat().st_size:,} bytes; open it in any browser")
    return 0


def _kind_of(weights: WeightSet, args: argparse.Namespace) -> str:
    """A step where labels are given or images are small, else photographs."""
    small = min(weights.model.input_shape[:2]) < LEAST_PHOTOGRAPH
    return "step" if small or args.labels else "photo"


def _say(line: str) -> None:
    print(line, file=sys.stderr)
