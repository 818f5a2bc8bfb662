"""As many epochs as fit into some minutes on the machine at hand.

The speed is measured in the first steps of a training that is then thrown away: what is kept is a number
of epochs, so that the run itself is one like any other, and resumes to the same bits.
"""

import time
from dataclasses import dataclass

from tinysqueeze.data import Dataset
from tinysqueeze.errors import UserError
from tinysqueeze.training.communicator import ALONE, Communicator
from tinysqueeze.training.evaluate import evaluate
from tinysqueeze.training.loop import run
from tinysqueeze.training.recipe import MOST, Recipe
from tinysqueeze.training.state import Training

RESERVE = 0.1  # of the time, for what is slower later
FIRST = 3  # steps that are not counted: memory is touched for the first time
STEPS, SECONDS = 40, 8.0  # whichever comes first is enough to measure
TESTED = 256  # images


@dataclass(frozen=True)
class Speed:
    """How long things take here: a step, and the evaluation of all test images, in seconds."""

    step: float
    test: float = 0.0

    def seconds(self, recipe: Recipe, images: int) -> float:
        """What a training on so many images takes."""
        every = recipe.scoring.every
        tests = recipe.epochs // every + (recipe.epochs % every > 0)
        return recipe.steps(images) * self.step + tests * self.test


def measured(
    training: Training,
    dataset: Dataset,
    test: Dataset | None,
    communicator: Communicator = ALONE,
) -> Speed:
    """Take the training's first steps, and evaluate a few images; the training is used up.

    Of ranks that train together the slowest counts.
    """
    test_seconds = 0.0
    if test is not None:
        some, scoring = test.subset(slice(0, TESTED)), training.recipe.scoring
        for _ in range(2):  # the second time counts
            begun = time.perf_counter()
            evaluate(training.engine, some, training.normalise, TESTED, scoring.flip, scoring.shift)
            test_seconds = time.perf_counter() - begun
        test_seconds *= len(test) / len(some) / communicator.ranks
    times: list[float] = []
    begun = last = time.perf_counter()
    for _ in run(training, dataset, communicator=communicator):
        now = time.perf_counter()
        times.append(now - last)
        last = now
        enough = len(times) >= FIRST + STEPS or (len(times) > FIRST and now - begun > SECONDS)
        if communicator.largest(int(enough)):
            break
    counted = times[FIRST:] or times
    step = sum(counted) / len(counted)
    slowest = (
        communicator.largest(round(1e6 * step)),
        communicator.largest(round(1e6 * test_seconds)),
    )
    return Speed(max(slowest[0], 1) / 1e6, slowest[1] / 1e6)


def epochs_within(recipe: Recipe, images: int, speed: Speed, seconds: float) -> int:
    """The most epochs of a recipe that take at most `seconds` but for a reserve.

    Raises UserError where not even one does.
    """

    def fits(epochs: int) -> bool:
        return speed.seconds(recipe.changed(epochs=epochs), images) <= (1 - RESERVE) * seconds

    if not fits(1):
        needed = speed.seconds(recipe.changed(epochs=1), images) / (1 - RESERVE)
        raise UserError(
            f"not one epoch fits into the minutes: one takes about {needed / 60:.1f} here with its test "
            f"and a reserve; give more, or fewer images"
        )
    low, high = 1, 2
    while high < MOST and fits(high):
        low, high = high, min(2 * high, MOST)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
