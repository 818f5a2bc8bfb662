"""Ranks that train together hold the same: compared before the first step, and before each epoch.

Ranks only ever exchange sums. Where one has other images, it takes another number of steps, and all wait
for ever; where it has other parameters, each trains a network of its own, and nobody says so. So each
rank says digests of what must be equal, and where they differ all of them refuse.
"""

import hashlib
import json
from collections.abc import Iterable

import numpy as np

from tinysqueeze.data import Dataset, Normalise
from tinysqueeze.errors import TrainingError
from tinysqueeze.kernels import TARGET
from tinysqueeze.training.communicator import Communicator
from tinysqueeze.training.state import Training


def begin_alike(
    training: Training, dataset: Dataset, test: Dataset | None, communicator: Communicator
) -> None:
    """Before the first step: takes the images' normalisation of rank 0, and compares everything else.

    Raises TrainingError, on every rank, naming what differs, and on which ranks.
    """
    if communicator.ranks == 1:
        return
    # A mean over all pixels may be rounded otherwise on another machine.
    mean, std = communicator.everybody((training.normalise.mean, training.normalise.std))[0]
    training.normalise = Normalise(mean, std)
    refuse_differences(communicator, _facts(training, dataset, test))


def refuse_drift(training: Training, communicator: Communicator) -> None:
    """Before an epoch: the numbers that training changes are still the same.

    Raises TrainingError, on every rank.
    """
    if communicator.ranks > 1:
        place = f"before epoch {training.epoch + 1}"
        refuse_differences(communicator, {f"the parameters {place}": _numbers(training)})


def refuse_differences(communicator: Communicator, facts: dict[str, str]) -> None:
    """Raises TrainingError where a rank's facts are not those of rank 0."""
    first, *others = communicator.everybody(facts)
    different = [
        f"{name} (rank 0: {first.get(name)}, rank {rank}: {mine.get(name)})"
        for name in facts
        for rank, mine in enumerate(others, start=1)
        if mine.get(name) != first.get(name)
    ]
    if different:
        shown = "; ".join(different[:3])
        raise TrainingError(
            f"the ranks do not train the same: {shown}; start all with the same command, files and version"
        )


def _facts(training: Training, dataset: Dataset, test: Dataset | None) -> dict[str, str]:
    """What must be equal, each as a short text: what is small as it is, the rest as a digest."""
    model, recipe = training.engine.model, training.recipe
    return {
        "the number of training images": f"{len(dataset):,}",
        "the number of test images": f"{len(test):,}" if test else "none",
        "the classes": _digest([json.dumps(dataset.classes).encode()]),
        "the training images": _digest([dataset.images, dataset.labels]),
        "the test images": _digest([test.images, test.labels] if test else []),
        "the model": f"{model.name} {_digest([repr(model).encode()])}",
        "the recipe": _digest([json.dumps(recipe.to_dict(), sort_keys=True).encode()]),
        "how far it has come": f"epoch {training.epoch + 1}, batch {training.batch + 1}",
        "the parameters": _numbers(training),
        "numbers in a vector of the processor (see NUMBA_CPU_NAME)": str(TARGET.lanes),
    }


def _numbers(training: Training) -> str:
    """A digest of all that the steps have changed."""
    more = (training.average, training.losses, training.order)
    kept = [array for array in (*training.slots.values(), *more) if array is not None]
    return _digest([training.engine.vector, *kept])


def _digest(parts: Iterable[np.ndarray | bytes]) -> str:
    """Eight hexadecimal digits."""
    found = hashlib.blake2b(digest_size=4)
    for part in parts:
        if isinstance(part, np.ndarray):
            found.update(f"{part.dtype}{part.shape}".encode())
            found.update(np.ascontiguousarray(part).data)
        else:
            found.update(part)
    return found.hexdigest()
