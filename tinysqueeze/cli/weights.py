"""How every command lets weights be named: `--weights FILE|NAME --classes FILE --preprocess HOW`."""

import argparse
import sys

from tinysqueeze.cli.options import option
from tinysqueeze.weights import SOURCES, WeightSet, open_weights
from tinysqueeze.weights.preprocess import PRESETS

NAMES = f"a run folder, a file, or one of {', '.join(SOURCES)}"


def find_weights(
    source: str, classes: str | None = None, preprocess: str | None = None
) -> WeightSet:
    """The weights with the names of their classes; says on stderr what was recognised."""
    weights = open_weights(source, classes, preprocess=preprocess)
    print(weights, file=sys.stderr)
    return weights


def add_weights(parser: argparse.ArgumentParser) -> None:
    """The options that choose weights and name their classes."""
    option(parser, "--weights FILE|NAME", NAMES, default="squeezenet1_0_compressed")
    add_about(parser)


def add_about(parser: argparse.ArgumentParser) -> None:
    """The options that say what a file may not: the classes' names, how images are prepared."""
    option(
        parser,
        "--classes FILE",
        "the names of the classes, a line each ('n01440764 tench' or 'tench')",
    )
    option(
        parser,
        "--preprocess HOW",
        f"how images are prepared: {', '.join(PRESETS)}, or a JSON file (otherwise as the weights "
        "say, or as their kind of file usually wants it)",
    )
