"""Weights as a user names them: a run folder, a checkpoint, a file of others, a published name."""

import argparse
import sys
from pathlib import Path

from tinysqueeze.training import checkpoint
from tinysqueeze.weights import SOURCES, Preprocess, WeightSet, load_weights, named
from tinysqueeze.weights.compression import fileformat, pipeline
from tinysqueeze.weights.trained import describe

NAMES = f"a run folder, a file, or one of {', '.join(SOURCES)}"
MARK = checkpoint.FORMAT.encode()  # it stands in the header of our checkpoints


def is_checkpoint(source: str | Path) -> bool:
    """A run folder, or a safetensors file that `tinysqueeze train` wrote."""
    path = Path(source)
    if path.is_dir():
        return True
    if path.suffix != ".safetensors" or not path.is_file():
        return False
    with open(path, "rb") as file:
        size = int.from_bytes(file.read(8), "little")
        return MARK in file.read(min(size, 2**24))


def from_checkpoint(source: str | Path) -> WeightSet:
    """A network that we trained, with the preparation of its images. Raises CheckpointError."""
    saved = checkpoint.read(source)
    height, width, _ = saved.model.input_shape
    mean, std = saved.normalise.mean, saved.normalise.std
    preprocess = Preprocess(
        resize=min(height, width),
        crop=(height, width),
        mean=(mean[0], mean[1], mean[2]),
        std=(std[0], std[1], std[2]),
    )
    description = describe(saved.model, f"trained here, {source}")
    return WeightSet(saved.model, saved.params, preprocess, description, classes=saved.classes)


def find_weights(source: str, classes: str | None = None, say: bool = True) -> WeightSet:
    """The weights with the names of their classes; says on stderr what was recognised."""
    if is_checkpoint(source):
        weights = named(from_checkpoint(source), classes)
    elif Path(source).suffix == fileformat.SUFFIX:
        weights = named(pipeline.unpack(fileformat.read(source), source), classes, beside=source)
    else:
        weights = named(load_weights(source), classes, beside=source)
    if say:
        for line in (weights.description, *weights.notes, f"images: {weights.preprocess}"):
            print(line, file=sys.stderr)
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
