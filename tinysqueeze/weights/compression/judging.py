"""How far a compressed network still says what the original said, on pictures that it was not made with."""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tinysqueeze import data
from tinysqueeze.errors import DataError
from tinysqueeze.weights.calibration import Pictures, dataset_of, evenly
from tinysqueeze.weights.classify import BATCH, plan_for
from tinysqueeze.weights.compression.calibrate import divergence
from tinysqueeze.weights.labelled import Classes, matched
from tinysqueeze.weights.pictures import Picture, pictures_in, prepared
from tinysqueeze.weights.trained import WeightSet

MOST = 1000  # pictures to judge by, evenly chosen

Labelled = tuple[Picture, int | None]  # the number of its class, where that is known


@dataclass(frozen=True)
class Agreement:
    """Two networks on the same pictures: how often their best class is the same, and whose is right.

    `nats` is the mean Kullback-Leibler divergence of the compressed network's probabilities from the
    original's. Of the `labelled` pictures, `first` counts those whose label is the best class, `five`
    those where it is among the best five, each (before, after).
    """

    images: int
    same: int
    nats: float
    labelled: int = 0
    first: tuple[int, int] = (0, 0)
    five: tuple[int, int] = (0, 0)

    def lines(self) -> Iterator[str]:
        """In words."""
        yield (
            f"the same best class as before on {self.same:,} of {self.images:,} "
            f"({self.same / self.images:.1%}); {self.nats:.3f} nats between the answers"
        )
        if self.labelled:
            (one, now_one), (five, now_five) = (
                [count / self.labelled for count in pair] for pair in (self.first, self.five)
            )
            yield (
                f"top-1 {one:.2%} before, {now_one:.2%} after; top-5 {five:.2%} before, "
                f"{now_five:.2%} after ({self.labelled:,} pictures with labels)"
            )


def halves(weights: WeightSet, pictures: Pictures) -> tuple[Pictures, list[Labelled]]:
    """What to calibrate with, and what to judge by, with labels where they are known.

    Every second picture is for judging, at most MOST. A dataset stands for its training images to
    calibrate with and its test images to judge by. Labels are known as in `labelled.evaluate_folder`: by
    the name of the folder that a file lies in, or the wnid that its own name starts with.
    """
    if (source := dataset_of(pictures)) is not None:
        return source, _tested(weights, source)
    found = list(pictures_in(pictures))
    chosen = evenly(found[1::2], MOST)
    classes = Classes.of(weights)
    return found[::2], [(picture, _label(picture, classes)) for picture in chosen]


def judge(
    before: WeightSet,
    after: WeightSet,
    pictures: Sequence[Labelled],
    calibrated: NDArray[np.float32],
    done: Callable[[int], object] = lambda count: None,
) -> Agreement:
    """Both networks on the pictures, but for those that are among the `calibrated` or can't be read.

    `done` hears of every batch. Raises DataError where none is left.
    """
    plans = [plan_for(weights, BATCH) for weights in (before, after)]
    known = {_digest(image) for image in calibrated}
    rest = iter(pictures)
    images = same = labelled = 0
    nats, first, five = 0.0, np.zeros(2, int), np.zeros(2, int)
    while batch := list(islice(rest, BATCH)):
        new = [one for one in _readable(before, batch) if _digest(one[0]) not in known]
        done(len(batch))
        if not new:
            continue
        pixels = np.stack([image for image, _ in new])
        was, now = (plan.predict(pixels).astype(float) for plan in plans)
        images += len(new)
        same += int((was.argmax(1) == now.argmax(1)).sum())
        nats += len(new) * divergence(was, now)
        with_label = [i for i, (_, label) in enumerate(new) if label is not None]
        labels = np.array([new[i][1] for i in with_label], int)
        labelled += len(labels)
        for side, logits in enumerate((was, now)):
            order = np.argsort(-logits[with_label], axis=1, kind="stable")
            first[side] += (order[:, 0] == labels).sum()
            five[side] += (order[:, :5] == labels[:, None]).any(1).sum()
    if not images:
        raise DataError("no picture is left to judge by that is not one it was calibrated with")
    (one, now_one), (best, now_best) = first.tolist(), five.tolist()
    return Agreement(images, same, nats / images, labelled, (one, now_one), (best, now_best))


def _label(picture: Picture, classes: Classes) -> int | None:
    if not isinstance(picture, str | os.PathLike):
        return None
    path = Path(picture)
    return classes.number(path.absolute().parent.name, path.name)


def _tested(weights: WeightSet, name: str | Path) -> list[Labelled]:
    """The first test images of a dataset, as the network takes them."""
    test = data.load(name, "test").subset(slice(0, MOST))
    images = weights.preprocess.scaled(test.images)
    try:
        labels: Iterable[int | None] = matched(test, Classes.of(weights)).labels.tolist()
    except DataError:  # of other classes than the network's
        labels = [None] * len(test)
    return list(zip(images, labels, strict=True))


def _readable(
    weights: WeightSet, batch: list[Labelled]
) -> Iterator[tuple[NDArray[np.float32], int | None]]:
    for picture, label in batch:
        try:
            yield prepared(weights, picture), label
        except DataError:
            continue


def _digest(image: NDArray[np.float32]) -> bytes:
    return hashlib.sha256(image.tobytes()).digest()
