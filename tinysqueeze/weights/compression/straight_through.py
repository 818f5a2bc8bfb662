"""Training through the rounding: the network computes with rounded weights, steps go to unrounded ones.

Rounding has no slope, so its gradient is taken straight through, as if it were not there (Bengio, Léonard and
Courville, Estimating or Propagating Gradients Through Stochastic Neurons, 2013, arXiv:1308.3432, section 4;
Courbariaux, Bengio and David, BinaryConnect, 2015, arXiv:1511.00363, Algorithm 1). A weight that is pushed
to one side again and again crosses into the next level in the end.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tinysqueeze.data import Dataset
from tinysqueeze.errors import UserError
from tinysqueeze.network.params import flatten
from tinysqueeze.training.loop import Report, run
from tinysqueeze.training.state import Training
from tinysqueeze.weights.compression.fileformat import Compressed
from tinysqueeze.weights.compression.pipeline import is_rounded
from tinysqueeze.weights.compression.rounding import LARGEST, bit_costs
from tinysqueeze.weights.compression.tensors import Dense, Stepped, Tensor

Array = NDArray[np.float32]
Flat = Mapping[str, Array]
Fit = Callable[[Flat], None]

FIT_EVERY = 50  # steps: how often the weights are made to fit into the file
OTHERS = 0.1  # the unit in which numbers that are not rounded move: at a rate of 0.01 by Adam's usual 0.001
MARGIN = 0.1  # of a step, below the threshold: where a weight goes that has to give up a level
HALVINGS = 10


@dataclass(frozen=True, eq=False)
class Grids:
    """A compressed network that is to be trained: where it begins, and on which grids its weights lie.

    start   all arrays by path: the rounded ones at their levels, batch norms as they were trained
    steps   by path: of the arrays that are multiples of a step
    """

    start: Flat
    steps: Mapping[str, float]

    @classmethod
    def of(cls, stored: Compressed, trained: Flat) -> "Grids":
        """Of what was stored of a network whose arrays were `trained`."""
        norms = {path.removesuffix("/mean") for path in trained if path.endswith("/mean")}
        own = {p: t for p, t in stored.tensors.items() if p.rpartition("/")[0] not in norms}
        start = dict(trained) | {path: tensor.values() for path, tensor in own.items()}
        return cls(start, {path: t.step for path, t in own.items() if isinstance(t, Stepped)})

    def tensors(self, latent: Flat) -> dict[str, Tensor]:
        """Every array in the form it is stored in, the rounded ones at the levels nearest to `latent`."""
        return {
            path: Stepped(levels(array, self.steps[path]), self.steps[path])
            if path in self.steps
            else Dense(array)
            for path, array in latent.items()
        }

    def units(self, path: str) -> float:
        """How far a step of the optimiser of length 1 moves an array's numbers."""
        if path.endswith(("/mean", "/var")):  # they follow the images, by no optimiser
            return 1.0
        return self.steps.get(path, OTHERS)


def levels(latent: Array, step: float) -> NDArray[np.int32]:
    """The nearest multiples of a step, at most LARGEST."""
    found: NDArray[np.int32] = np.clip(np.rint(latent / np.float32(step)), -LARGEST, LARGEST)
    return found.astype(np.int32)


def train_through(training: Training, dataset: Dataset, grids: Grids, fit: Fit) -> Iterator[Report]:
    """Train what is rounded to `grids`; a report a step, as from `training.run`.

    Whenever one is yielded, and at the end, the engine holds the unrounded weights, so that a checkpoint
    does. The recipe's rate counts in steps of an array's grid: 0.01 moves a weight by a hundredth of the way
    from one level to the next. `fit(latent)` is called every FIT_EVERY steps and after the last one, with the
    unrounded arrays by path, to change in place.
    """
    engine = training.engine
    latent, seen, unit = (engine.vector.copy() for _ in range(3))
    arrays, rounded = flatten(engine.views(latent)), flatten(engine.views(seen))
    for path, view in flatten(engine.views(unit)).items():
        view[...] = grids.units(path)

    def show() -> None:
        seen[:] = latent
        for path, step in grids.steps.items():
            rounded[path][...] = levels(arrays[path], step) * np.float32(step)
        engine.vector[:] = seen

    show()
    for report in run(training, dataset):
        latent += unit * (engine.vector - seen)
        if training.step % FIT_EVERY == 0 or training.finished:
            fit(arrays)
        engine.vector[:] = latent
        yield report
        show()
    engine.vector[:] = latent


def fit_into(target: int, latent: Flat, grids: Grids, size_of: Callable[[Flat], int]) -> None:
    """Let weights give up a level, in place, until the file's `size_of` is at most `target` bytes.

    First those that cost least for each bit saved: a weight just above the threshold between two levels
    comes as near to one as to the other, and small levels of a layer with many zeros take most bits. One
    price of a bit holds for the whole network, as in `rounding`. Raises UserError where nothing is left.
    """
    paths = [path for path in grids.steps if is_rounded(path, latent[path])]

    def lowered(price: float) -> dict[str, Array]:
        return {path: lower(latent[path], grids.steps[path], price) for path in paths}

    while size_of(latent) > target:
        if not any(levels(latent[path], grids.steps[path]).any() for path in paths):
            raise UserError(f"with every weight 0 the file is larger than {target:,} bytes")
        low, high = 0.0, 1e-3
        while high < 1e9 and size_of({**latent, **lowered(high)}) > target:
            low, high = high, 4 * high
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            fits = size_of({**latent, **lowered(middle)}) <= target
            low, high = (low, middle) if fits else (middle, high)
        for path, array in lowered(high).items():
            latent[path][...] = array


def lower(latent: Array, step: float, price: float) -> Array:
    """A level less wherever the squared error that it adds, in steps, costs less than `price` a bit saved."""
    size = np.abs(latent) / np.float32(step)
    level = np.abs(levels(latent, step))
    costs = bit_costs(levels(latent, step))[LARGEST:]
    saved = np.maximum(costs[level] - costs[np.maximum(level - 1, 0)], 1e-6)
    # (size - (level - 1))² - (size - level)²
    added = 2 * (size - level) + 1
    gives = (level > 0) & (added < price * saved)
    lowest = np.sign(latent) * np.float32(step) * (level - np.float32(0.5 + MARGIN))
    return np.where(gives, lowest, latent).astype(np.float32)
