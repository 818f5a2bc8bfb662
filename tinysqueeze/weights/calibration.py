"""A few pictures of the kind a network will see, without labels: what rounding is judged by."""

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from tinysqueeze import data
from tinysqueeze.devices.int8 import Int8Network, pixel_grid, quantise
from tinysqueeze.errors import DataError, ShapeError
from tinysqueeze.weights.pictures import Picture, pictures_in, prepared
from tinysqueeze.weights.trained import WeightSet

KNOWN = ("builtin", "cifar10")  # datasets that need no path

Pictures = Picture | Iterable[Picture]
CALIBRATION_IMAGES = 20  # more change little and take longer


def quantised(weights: WeightSet, pictures: Pictures) -> Int8Network:
    """The network in 8-bit integers, calibrated on some pictures; it takes the photographs' own bytes.

    pictures   as `calibration_images` takes them

    Raises what `calibration_images` does, and UserError for a network that integers don't do.
    """
    images = calibration_images(weights, pictures, CALIBRATION_IMAGES)
    return quantise(weights.model, weights.params, images, pixel_grid(weights.preprocess))


def calibration_images(
    weights: WeightSet, pictures: Pictures, most: int, progress: bool = False
) -> NDArray[np.float32]:
    """(N, H, W, C) float32, prepared for the network: at most `most` of the pictures, evenly chosen.

    pictures   files, folders, images or arrays (`pictures.pictures_in`), or a dataset (`dataset_of`), whose
               first training images are taken

    Raises DataError where there is none or one can't be read, ShapeError where they don't fit.
    """
    if (source := dataset_of(pictures)) is not None:
        return _of_dataset(weights, source, most)
    found = list(pictures_in(pictures))
    if not found:
        raise DataError(f"no images in {_said(pictures)}")
    hidden = None if progress else True
    bar = tqdm(evenly(found, most), "reading pictures", unit="", disable=hidden)
    return np.stack([prepared(weights, picture) for picture in bar])


def evenly(found: list[Picture], most: int) -> list[Picture]:
    """At most so many of them, from the first to the last."""
    places = np.linspace(0, len(found) - 1, min(most, len(found))).round().astype(int)
    return [found[place] for place in places]


def dataset_of(pictures: Pictures) -> str | Path | None:
    """What to give to `data.load` where not pictures are meant but a dataset, else None.

    A name that needs no path, or CIFAR-10's folder of batches (or the one it lies in) or archive.
    """
    source = pictures
    if isinstance(pictures, list | tuple) and len(pictures) == 1:
        source = pictures[0]
    if not isinstance(source, str | os.PathLike):
        return None
    path = Path(source)
    if not path.exists():
        return str(source) if str(source) in KNOWN else None
    from tinysqueeze.data import cifar10  # only here: tar files and the network

    known = path.name == cifar10.ARCHIVE.name or (path.is_dir() and cifar10.find_folder(path))
    return path if known else None


def _of_dataset(weights: WeightSet, name: str | Path, most: int) -> NDArray[np.float32]:
    images = weights.preprocess.scaled(data.load(name, "train").images[:most])
    if images.shape[1:] != weights.model.input_shape:
        raise ShapeError(
            f"calibration images are {images.shape[1:]}, {weights.model.name} takes "
            f"{weights.model.input_shape}"
        )
    return images


def _said(pictures: Pictures) -> str:
    return ", ".join(map(str, pictures)) if isinstance(pictures, list | tuple) else str(pictures)
