"""What fewer bits cost: networks that have learnt something, and labelled images to try every side on."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinysqueeze import data
from tinysqueeze.bench.workloads import Workload
from tinysqueeze.data import batches
from tinysqueeze.data.builtin import CLASSES, SIZE
from tinysqueeze.errors import UserError
from tinysqueeze.graph import GraphModel
from tinysqueeze.network.layers import Params
from tinysqueeze.network.models import Model
from tinysqueeze.training.loop import run
from tinysqueeze.training.train import start
from tinysqueeze.weights import labels_under, open_weights
from tinysqueeze.weights.calibration import calibration_images
from tinysqueeze.weights.pictures import prepared

CALIBRATION_IMAGES = {"builtin": 64, "photographs": 20}
IMAGES, QUICK_IMAGES = 1000, 64  # of the built-in ones
LARGEST_BATCH = {"builtin": 250, "photographs": 20}


@dataclass(frozen=True, eq=False)
class Labelled:
    """A trained network, labelled images (N, H, W, C) float32, and images that rounding is judged by.

    `batch` images are done at once. `source` says what it all is.
    """

    spec: dict[str, Any]
    params: Params
    images: NDArray[np.float32]
    labels: NDArray[np.int64]
    calibration: NDArray[np.float32]
    batch: int
    source: str


def labelled_for(
    workloads: Iterable[Workload], weights: str | None, photographs: str | None, quick: bool
) -> dict[Workload, Labelled]:
    """What each workload that is no training can be tried on.

    That is for networks of CIFAR's size a short training on the built-in images; for the kind of network
    that the `weights` are of, whatever its image size, these and photographs. Workloads with one network
    share. Raises UserError where no workload is of that kind.
    """
    found: dict[Workload, Labelled] = {}
    of_size: dict[Any, Labelled] = {}
    given = of_photographs(weights, photographs) if weights and photographs else None
    for workload in workloads:
        model = workload.model
        if workload.training:
            continue
        if given and workload.spec["name"] == given.spec.get("name"):
            found[workload] = given
        elif model.input_shape == (SIZE, SIZE, 3) and model.classes == len(CLASSES):
            if model.steps not in of_size:
                of_size[model.steps] = briefly_trained(model, quick)
            found[workload] = of_size[model.steps]
    if given and given not in found.values():
        raise UserError(f"{weights}: no workload runs its network, {given.spec.get('name')}")
    return found


def briefly_trained(model: Model, quick: bool) -> Labelled:
    """A network after an epoch on the built-in images; on a few of them if it has to be quick."""
    training, test = data.load("builtin", "train"), data.load("builtin", "test")
    if quick:
        training = training.subset(slice(QUICK_IMAGES))
    trained = start(model, training, epochs=1)
    for _ in run(trained.training, training):
        pass
    normalise = trained.training.normalise
    few: dict[str, Any] = {"normalise": normalise, "shuffle": False}
    images, _ = next(batches(test, QUICK_IMAGES if quick else IMAGES, **few))
    calibration, _ = next(batches(training, CALIBRATION_IMAGES["builtin"], **few))
    source = f"after an epoch on the built-in images, {len(images):,} others"
    return Labelled(
        model.spec,
        trained.params,
        images,
        test.labels[: len(images)],
        calibration,
        LARGEST_BATCH["builtin"],
        source,
    )


def of_photographs(weights: str, folder: str) -> Labelled:
    """A network from elsewhere, and it with labelled photographs.

    Raises UserError for a graph, and what `labels_under` and `open_weights` do.
    """
    found = open_weights(weights)
    if isinstance(found.model, GraphModel):
        raise UserError(f"{weights}: the sides of the benchmark don't run graphs")
    labels = labels_under(folder, found)
    few = CALIBRATION_IMAGES["photographs"]
    height, width, _ = found.model.input_shape
    return Labelled(
        found.model.spec,
        found.params,
        np.stack([prepared(found, path) for path in labels]),
        np.array(list(labels.values()), np.int64),
        calibration_images(found, folder, few),
        LARGEST_BATCH["photographs"],
        f"{weights}, {len(labels):,} photographs of {height}×{width}, rounded by {few} of them",
    )


def scored(workload: Workload, labelled: Labelled) -> Workload:
    """The workload as it is run for its accuracy."""
    name = f"{workload.name}-accuracy"
    return replace(workload, name=name, spec=labelled.spec, batch=labelled.batch)
