"""A training step of trained weights on pictures: what `tinysqueeze page` shows."""

import os
from collections.abc import Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import TypeVar

import numpy as np

from tinysqueeze.data.images import open_image
from tinysqueeze.errors import UserError
from tinysqueeze.show.page.drawings import DRAWINGS, drawing
from tinysqueeze.show.page.state import Look
from tinysqueeze.study.stepper import Steps
from tinysqueeze.weights.opening import open_weights
from tinysqueeze.weights.trained import WeightSet

S = TypeVar("S", bound=Steps)
SMALL = "small"
SMALL_FILE = "small_cifar10.tsq"
RATE = 0.005  # a trained network needs small steps on so few images


# By an earlier recipe tiny, 14 epochs (10 of 25, then 4 of 5 from there at a falling rate), on a copy of
# CIFAR-10 that had been through JPEG.
ABOUT = (
    "A small SqueezeNet that learned from CIFAR-10's training photographs, 32×32 pixels each, to tell ten "
    "kinds of things apart, from airplanes to trucks. Of 5,000 photographs that it had not seen it names "
    "83.7 % right. Its weights are compressed to 89,740 bytes"
)


def small_network() -> WeightSet:
    """The trained network that comes with the package: 10 classes, 32x32 pixels; see ABOUT."""
    with resources.as_file(resources.files("tinysqueeze.show.page") / SMALL_FILE) as path:
        return replace(open_weights(path, download=False), description=ABOUT)


def step_of(
    weights: WeightSet,
    pictures: Sequence[str | os.PathLike[str]] = (),
    labels: Sequence[str] = (),
    *,
    make: type[S],
) -> tuple[S, Look]:
    """One training step on pictures (files; without any, two drawings of ours), and how it looks.

    `labels` are the right classes, by name or number; without them the class in a file's name, or
    else the one that the network thinks best. `make` is Steps or a kind of it. Raises DataError for a
    file that is no picture, UserError for labels that don't fit.
    """
    named = [(Path(path).stem, open_image(path)) for path in pictures]
    named = named or [(name, drawing(name)) for name in DRAWINGS]
    images = np.stack([weights.preprocess(picture) for _, picture in named])
    if labels and len(labels) != len(named):
        raise UserError(f"{len(labels)} labels for {len(named)} pictures: give one for each")
    chosen = [_class_of(weights, label) for label in labels]
    if not chosen:
        best = weights.model.forward(weights.params, images)[0].argmax(axis=1)
        chosen = [_in_name(weights, stem, int(k)) for (stem, _), k in zip(named, best, strict=True)]
    steps = make(weights.model, weights.params, images, np.array(chosen))
    return steps, look_of(weights)


def look_of(weights: WeightSet) -> Look:
    """How a page shows images that these weights take, and the names of their classes."""
    how = weights.preprocess
    share = how.divide_by / 255
    mean, std = (tuple(value * share for value in values) for values in (how.mean, how.std))
    about = ". ".join((weights.description, *weights.notes)) + "."
    return Look(weights.classes, mean, std, how.channels, about, RATE)


def _class_of(weights: WeightSet, label: str) -> int:
    if label in weights.classes:
        return weights.classes.index(label)
    if label.isdecimal() and int(label) < weights.model.classes:
        return int(label)
    known = ", ".join(weights.classes[:12]) or f"0 to {weights.model.classes - 1}"
    raise UserError(f"no class {label!r}; there are {known}")


def _in_name(weights: WeightSet, stem: str, otherwise: int) -> int:
    """The class that a file's name begins with or ends with, if there is just one."""
    words = stem.lower().replace("-", "_").split("_")
    found = [k for k, name in enumerate(weights.classes) if name.lower() in words]
    return found[0] if len(found) == 1 else otherwise
