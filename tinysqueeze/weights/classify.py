"""Photographs through a network, in a stream: decoding runs ahead while the plan computes."""

import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tinysqueeze.compiled import compile as compile_plan
from tinysqueeze.errors import DataError, UserError
from tinysqueeze.network.ops.reference import softmax
from tinysqueeze.processors import usable_processors
from tinysqueeze.training.engine import Predicts
from tinysqueeze.weights.calibration import Pictures, quantised
from tinysqueeze.weights.opening import Weights, open_weights
from tinysqueeze.weights.pictures import Picture, pictures_in, prepared
from tinysqueeze.weights.trained import WeightSet

BATCH = 16  # enough to keep two cores busy; 10 MB of pixels at 227×227
AHEAD = 2  # batches being decoded while one is computed


@dataclass(frozen=True)
class Guess:
    """One class that the network considers: its probability (0 to 1) and its logit."""

    index: int
    name: str
    probability: float
    score: float


@dataclass(frozen=True, eq=False)
class Prediction:
    """What the network says about one photograph: its logits, (classes,); its file, if it has one."""

    path: Path | None
    logits: NDArray[np.float32]
    weights: WeightSet = field(repr=False)

    def best(self, count: int) -> list[Guess]:
        """The `count` likeliest classes, the best first."""
        probabilities = softmax(self.logits.astype(np.float64))
        order = np.argsort(-self.logits, kind="stable")[:count]
        return [
            Guess(
                int(i), self.weights.class_name(i), float(probabilities[i]), float(self.logits[i])
            )
            for i in order
        ]


@dataclass(frozen=True)
class Skipped:
    """A file that could not be read, and why."""

    path: Path
    reason: str


def plan_for(
    weights: WeightSet,
    batch: int = BATCH,
    threads: int | None = None,
    int8: Pictures | None = None,
) -> Predicts:
    """The compiled network for batches of up to `batch` images.

    Winograd F(2x2) is used, which is as exact as the direct convolution: rankings stay the same. Or, with
    `int8`, 8-bit integers, calibrated on these pictures or dataset (`calibration.quantised`).
    """
    if int8 is not None:
        return compile_plan(quantised(weights, int8), batch, precision="int8", threads=threads)
    return compile_plan(
        weights.model,
        batch,
        training=False,
        precision="2x2",
        threads=threads,
        params=weights.params,
    )


def classify(
    weights: WeightSet,
    pictures: Iterable[Picture],
    batch: int = BATCH,
    plan: Predicts | None = None,
) -> Iterator[Prediction | Skipped]:
    """One result for each picture, in order. Holds a few batches at a time, however many come.

    pictures   files, Pillow's images, or arrays as `prepared` takes them
    plan       what computes (otherwise `plan_for(weights, batch)`)

    A file that cannot be read is Skipped, an array that does not fit raises ShapeError.
    """
    plan = plan or plan_for(weights, batch)
    rest = iter(pictures)
    with _pool() as pool:
        waiting: deque[list[Waiting]] = deque()
        while True:
            group = [
                (_file(picture), pool.submit(prepared, weights, picture))
                for picture in islice(rest, batch)
            ]
            if group:
                waiting.append(group)
            if not waiting:
                return
            if not group or len(waiting) > AHEAD:
                yield from _results(weights, plan, waiting.popleft())


def classify_all(
    weights: Weights,
    pictures: Picture | Iterable[Picture],
    *,
    batch: int = BATCH,
    threads: int | None = None,
    int8: Pictures | None = None,
) -> list[Prediction | Skipped]:
    """What is in these pictures, as `tinysqueeze predict` says: `ts.classify(weights, "photos/")[0].best(5)`.

    weights    whatever `open_weights` takes: a file, a run folder, a finished training, (model, params)
    pictures   a file, a folder with its sub-folders, one of Pillow's images, an array, or several of
               these. Arrays (H, W, 3) or (N, H, W, 3) of uint8 are photographs in RGB of any size, which
               are prepared as the network wants them; arrays of float32 must be ready: of the model's
               input shape, in the channel order and units of `weights.preprocess`
    batch      pictures at once
    threads    of the processor (otherwise all)
    int8       in 8-bit integers, about twice as fast, calibrated on these pictures or dataset: dozens of the
               kind to be classified, without labels

    One result for each picture, in order: a Prediction with `logits` (classes,) float32 and
    `best(count)`, or Skipped with the reason where a file can't be read. Raises DataError where none can
    be read, ShapeError for an array that is neither, and what `open_weights` does. For more pictures than
    results fit in memory: `weights.classify`, which streams.
    """
    if batch < 1:
        raise UserError(f"batch is 1 or more pictures at once, not {batch}")
    known = open_weights(weights)
    plan = plan_for(known, batch, threads, int8)
    found = list(classify(known, pictures_in(pictures), batch, plan))
    if not any(isinstance(one, Prediction) for one in found):
        reasons = "".join(
            f"; {one.path}: {one.reason}" for one in found[:1] if isinstance(one, Skipped)
        )
        raise DataError(f"none of the {len(found)} files could be read as a picture{reasons}")
    return found


def _file(picture: Picture) -> Path | None:
    return Path(picture) if isinstance(picture, str | os.PathLike) else None


Waiting = tuple[Path | None, Future[NDArray[np.float32]]]


@contextmanager
def _pool() -> Iterator[ThreadPoolExecutor]:
    """As many decoding threads as processors; what was not begun is dropped when the caller stops."""
    pool = ThreadPoolExecutor(usable_processors())
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _results(
    weights: WeightSet, plan: Predicts, group: list[Waiting]
) -> Iterator[Prediction | Skipped]:
    """Run the images of a group that could be read; report all of it in order."""
    arrived = [(path, _arrived(future)) for path, future in group]
    read = [pixels for _, pixels in arrived if not isinstance(pixels, DataError)]
    logits = iter(plan.predict(np.stack(read)) if read else ())
    for path, pixels in arrived:
        if isinstance(pixels, DataError):
            assert path is not None  # only a file fails to be read
            yield Skipped(path, str(pixels).removeprefix(f"{path}: "))
        else:
            yield Prediction(path, next(logits), weights)


def _arrived(future: Future[NDArray[np.float32]]) -> NDArray[np.float32] | DataError:
    """The pixels, or why they could not be read; any other error is raised."""
    try:
        return future.result()
    except DataError as error:
        return error
