"""What a checkpoint says beside its arrays: each number has a type and a range, checked before use."""

from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np

from tinysqueeze.data import Normalise
from tinysqueeze.errors import UserError
from tinysqueeze.network.models import Model, build
from tinysqueeze.ranges import Range, checked
from tinysqueeze.training.recipe import MOST, Recipe

Count = Annotated[int, Range(0, 1e12)]
Sum = Annotated[float, Range(0, 1e18)]
COUNTERS: dict[str, Any] = {
    "epoch": Annotated[int, Range(0, MOST)], "batch": Count, "step": Count, "loss_sum": Sum,
    "correct": Sum, "seen": Sum, "seconds": Sum,
}  # fmt: skip
"""What a training counts; the sums are of the epoch under way."""
ROW = ("epoch", "train_loss", "train_accuracy", "lr", "seconds", "images_per_second")
"""What a row of the history holds at least."""
PER_IMAGE = {"losses": np.float32, "order": np.int64}
"""Arrays of a number an image, where the recipe prefers hard images."""


def network_of(meta: Mapping[str, Any]) -> Model:
    """The network that its spec builds. Raises UserError."""
    try:
        return build(meta["spec"])
    except (UserError, TypeError) as error:
        raise UserError(f"the network it is for cannot be built: {error}") from None


def normalise_of(meta: Mapping[str, Any]) -> Normalise:
    """Raises UserError, KeyError or TypeError, as the following do."""
    found = meta["normalise"]
    return Normalise(tuple(found["mean"]), tuple(found["std"]))


def classes_of(meta: Mapping[str, Any], count: int) -> tuple[str, ...]:
    """The names of the classes, as many as the network has."""
    found = meta["classes"]
    if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
        raise UserError("the names of its classes are no texts")
    if len(found) != count:
        raise UserError(f"it names {len(found)} classes, its network has {count}")
    return tuple(found)


def counters_of(meta: Mapping[str, Any], recipe: Recipe) -> dict[str, Any]:
    """How far the training is."""
    found = checked("counters", COUNTERS, {name: meta["counters"][name] for name in COUNTERS})
    if found["epoch"] > recipe.epochs:
        raise UserError(f"counters: epoch is {found['epoch']}, the recipe has {recipe.epochs}")
    return found


def history_of(meta: Mapping[str, Any]) -> list[dict[str, float]]:
    """A row an epoch."""
    found = meta["history"]
    if not isinstance(found, list) or not all(map(_is_row, found)):
        raise UserError("its history is not a row of numbers an epoch")
    return found


def _is_row(row: Any) -> bool:
    return (
        isinstance(row, dict)
        and row.keys() >= set(ROW)
        and all(type(number) in (int, float) for number in row.values())
    )


def check_arrays(arrays: Mapping[str, np.ndarray]) -> None:
    """Parameters and what optimisers remember are finite float32. Raises UserError."""
    for name, array in arrays.items():
        role, _, path = name.partition("/")
        wanted = PER_IMAGE.get(path) if role == "images" else np.float32
        if array.dtype != wanted:
            raise UserError(f"{name}: {array.dtype} instead of {wanted and np.dtype(wanted)}")
        if role != "images" and not np.isfinite(array).all():
            raise UserError(f"{name}: what is not a finite number")
        if path == "order" and array.size and (array.ndim != 1 or array.min() < 0):
            raise UserError(f"{name}: no numbers of images")
