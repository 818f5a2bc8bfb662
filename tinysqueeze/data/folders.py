"""Pictures of your own: a folder with one sub-folder of image files for each class."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from tinysqueeze.data.dataset import Dataset
from tinysqueeze.data.images import is_hidden, look, open_image, told
from tinysqueeze.errors import DataError, FormatError

TRAIN, TESTS = "train", ("test", "val", "validation")
HELD_OUT = 0.2  # the test part of a folder that is not split
SPLIT_SEED = 0


def read_classes(folder: Path, split: str, size: int | None = None, whole: bool = False) -> Dataset:
    """The split "train" or "test" of `folder`.

    With sub-folders `train` and `test` (or `val`), each of them holds one folder a class; otherwise the
    folder itself does, and a fifth of every class is held out for the test, always the same images,
    unless the `whole` is asked for. A class's pictures may lie in sub-folders of its own. They must be
    of one size, unless `size` asks for size x size pixels: then each is scaled and its middle cut out.
    What was left out stands in the dataset's notes. Raises DataError where the folder holds something
    else, FormatError where an image is damaged.
    """
    if not is_split(folder):
        found = labelled(folder)
        every = _read(found, found.names(1 if whole else 2), size)
        if whole:
            return every
        kept, held_out = every.split(HELD_OUT, SPLIT_SEED)
        return held_out if split == "test" else kept
    known = labelled(folder / TRAIN)
    classes = known.names(2)
    if split == TRAIN:
        return _read(known, classes, size)
    found = labelled(tested_part(folder))
    unknown = sorted(set(found.names(1)) - set(classes))
    if unknown:
        place = found.folder / unknown[0]
        raise DataError(f"{place}: the training set has no class of that name")
    return _read(found, classes, size)


def is_split(folder: Path) -> bool:
    """Whether `train` in it holds classes (it may be a class of that name itself)."""
    train = folder / TRAIN
    pictures = look([train]).pictures if train.is_dir() else []
    return bool(pictures) and all(path.parent != train for path in pictures)


def tested_part(folder: Path) -> Path:
    """What is to be tested: the part beside `train`, or else the folder itself. Raises DataError."""
    if not is_split(folder):
        return folder
    for name in TESTS:
        if (folder / name).is_dir():
            return folder / name
    raise DataError(f"{folder} has a sub-folder {TRAIN}, but no {TESTS[0]} beside it")


@dataclass(frozen=True)
class Labelled:
    """What a folder with a sub-folder a class holds: pictures by class, those beside, what to tell."""

    folder: Path
    classes: dict[str, list[Path]]  # in alphabetical order
    loose: list[Path]
    notes: tuple[str, ...]

    def names(self, least: int) -> tuple[str, ...]:
        """The classes' names; raises DataError where there are fewer than `least`."""
        if len(self.classes) < least:
            why = "".join(f"; {note}" for note in self.notes)
            raise DataError(
                f"{self.folder}: expected CIFAR-10's batches, the archive cifar-10-python.tar.gz, or "
                "sub-folders of images, one for each class, two to train on; found "
                f"{len(self.classes)} such{why}"
            )
        return tuple(self.classes)


def labelled(folder: Path) -> Labelled:
    """Every picture under a folder by the name of the first sub-folder that it lies in."""
    found = look([folder])
    classes: dict[str, list[Path]] = {}
    loose = []
    for path in found.pictures:
        first, *rest = path.relative_to(folder).parts
        if rest:
            classes.setdefault(first, []).append(path)
        else:
            loose.append(path)
    empty = [
        entry
        for entry in sorted(folder.iterdir())
        if entry.is_dir() and not is_hidden(entry.name) and entry.name not in classes
    ]
    notes = (*told("without a picture, no class", empty), *found.left_out)
    return Labelled(folder, dict(sorted(classes.items())), loose, notes)


def _read(found: Labelled, classes: tuple[str, ...], size: int | None) -> Dataset:
    """All pictures, numbered by `classes`."""
    images: list[np.ndarray] = []
    labels: list[int] = []
    first: Path | None = None
    for name, paths in found.classes.items():
        for path in paths:
            image, first = _open(path, size), first or path
            if images and image.shape != images[0].shape:
                raise DataError(
                    f"images of different sizes: {_pixels(images[0])} in {first}, {_pixels(image)} in "
                    f"{path}; --input-size N (size=N in Python) scales all of them to N x N pixels"
                )
            images.append(image)
            labels.append(classes.index(name))
    notes = (*told("beside the classes' folders, left out", found.loose), *found.notes)
    where = found.folder.name
    return Dataset(np.stack(images), np.array(labels, np.int64), classes, where, notes)


def _open(path: Path, size: int | None) -> np.ndarray:
    """(H, W, 3) uint8."""
    try:
        image = open_image(path)
    except DataError as error:
        raise FormatError(f"{error}; mend it, or take it away") from error
    if size is not None:
        image = ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC)
    return np.asarray(image)


def _pixels(image: np.ndarray) -> str:
    return f"{image.shape[1]}x{image.shape[0]} pixels"
