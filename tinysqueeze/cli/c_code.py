"""`tinysqueeze export --c`: plain C99, in float32 or calibrated int8, and the boards that it fits."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tinysqueeze import data
from tinysqueeze.cli.weights import find_weights
from tinysqueeze.devices.c import Exported, export_float32, export_int8
from tinysqueeze.devices.c.boards import table
from tinysqueeze.devices.int8 import pixel_grid, quantise
from tinysqueeze.errors import DataError, ShapeError
from tinysqueeze.weights import WeightSet, find_images, open_image

CALIBRATION_IMAGES = 20  # more change little and take longer


def write_c(
    source: str, directory: Path, calibration: Sequence[str] | None, classes: str | None = None
) -> int:
    """Write the program and say what it needs."""
    weights = find_weights(source, classes)
    exported = _export(weights, directory, calibration)
    print(f"{directory}: {', '.join(file.name for file in exported.files)}")
    print(f"flash {exported.flash:,} bytes of constants, RAM {exported.ram:,} bytes\n")
    print(table(exported.flash, exported.ram))
    return 0


def _export(weights: WeightSet, directory: Path, calibration: Sequence[str] | None) -> Exported:
    order = weights.preprocess.channels
    if calibration is None:
        note = f"float32, prepared thus: {weights.preprocess}."
        return export_float32(weights.model, weights.params, directory, note)
    images = _calibration_images(weights, calibration)
    network = quantise(weights.model, weights.params, images, pixel_grid(weights.preprocess))
    return export_int8(
        network, directory, f"the photograph's own bytes, channels in {order} order."
    )


def _calibration_images(weights: WeightSet, places: Sequence[str]) -> np.ndarray:
    """Images as the network takes them. Raises DataError, or ShapeError for another size."""
    if len(places) == 1 and not Path(places[0]).exists():
        pixels = data.load(places[0], "train").images[:CALIBRATION_IMAGES]
        images = weights.preprocess.scaled(pixels)
    else:
        files = list(find_images(places))
        if not files:
            raise DataError(f"no pictures in {', '.join(places)}")
        every = max(1, len(files) // CALIBRATION_IMAGES)
        chosen = files[::every][:CALIBRATION_IMAGES]
        images = np.stack([weights.preprocess(open_image(file)) for file in chosen])
    if images.shape[1:] != weights.model.input_shape:
        raise ShapeError(
            f"calibration images are {images.shape[1:]}, {weights.model.name} takes "
            f"{weights.model.input_shape}"
        )
    return images
