"""How every command lets weights be named: `--weights FILE|NAME --classes FILE`."""

import argparse
import sys

from tinysqueeze.weights import SOURCES, WeightSet, open_weights

NAMES = f"a run folder, a file, or one of {', '.join(SOURCES)}"


def find_weights(source: str, classes: str | None = None) -> WeightSet:
    """The weights with the names of their classes; says on stderr what was recognised."""
    weights = open_weights(source, classes)
    print(weights, file=sys.stderr)
    return weights


def add_weights(parser: argparse.ArgumentParser) -> None:
    """The options that choose weights and name their classes."""
    parser.add_argument(
        "--weights",
        metavar="FILE|NAME",
        default="squeezenet1_0_compressed",
        help=NAMES,
    )
    add_classes(parser)


def add_classes(parser: argparse.ArgumentParser) -> None:
    """The option that names the classes."""
    parser.add_argument(
        "--classes",
        metavar="FILE",
        help="the names of the classes, a line each ('n01440764 tench' or 'tench')",
    )
