"""Pictures of your own: a folder with one sub-folder of image files for each class."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from tinysqueeze.data.dataset import Dataset
from tinysqueeze.errors import DataError, FormatError

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm"}
HELD_OUT = 0.2  # the test part of a folder that is not split
SPLIT_SEED = 0


def read_classes(folder: Path, split: str, size: int | None = None) -> Dataset:
    """The split "train" or "test" of `folder`.

    With sub-folders `train` and `test`, each of them holds one folder a class; otherwise the folder
    itself does, and a fifth of every class is held out for the test, always the same images. The
    images must be of one size, unless `size` asks for size x size pixels: then each is scaled and
    its middle cut out. Raises DataError where the folder holds something else, FormatError where an
    image is damaged.
    """
    if not (folder / "train").is_dir():
        kept, held_out = _read(folder, _classes(folder), size).split(HELD_OUT, SPLIT_SEED)
        return held_out if split == "test" else kept
    classes = _classes(folder / "train")
    part = folder / split
    if not part.is_dir():
        raise DataError(f"{folder} has a sub-folder train, but no {split} beside it")
    unknown = sorted(set(_classes(part)) - set(classes))
    if unknown:
        raise DataError(f"{part / unknown[0]}: the training set has no class of that name")
    return _read(part, classes, size)


def _classes(folder: Path) -> tuple[str, ...]:
    """The names of the sub-folders with images, in alphabetical order."""
    names = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and _images(entry))
    if len(names) < 2:
        raise DataError(
            f"{folder}: expected CIFAR-10's batches, the archive cifar-10-python.tar.gz, or at least "
            f"two sub-folders of images, one for each class; found {len(names)} such"
        )
    return tuple(names)


def _images(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*") if path.suffix.lower() in SUFFIXES)


def _read(folder: Path, classes: tuple[str, ...], size: int | None) -> Dataset:
    paths, labels = [], []
    for label, name in enumerate(classes):
        found = _images(folder / name)
        paths += found
        labels += [label] * len(found)
    images = [_open(path, size) for path in paths]
    for path, image in zip(paths, images, strict=True):
        if image.shape != images[0].shape:
            raise DataError(
                f"images of different sizes: {_pixels(images[0])} in {paths[0]}, "
                f"{_pixels(image)} in {path}; choose a size to scale all of them to"
            )
    return Dataset(np.stack(images), np.array(labels, np.int64), classes, folder.name)


def _open(path: Path, size: int | None) -> np.ndarray:
    """(H, W, 3) uint8, turned upright as a camera's note in the file asks."""
    try:
        with Image.open(path) as file:
            image = ImageOps.exif_transpose(file).convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise FormatError(f"{path}: not an image that can be read ({error})") from error
    if size is not None:
        image = ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC)
    return np.asarray(image)


def _pixels(image: np.ndarray) -> str:
    return f"{image.shape[1]}x{image.shape[0]} pixels"
