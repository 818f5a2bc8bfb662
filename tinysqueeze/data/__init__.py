"""Datasets by name or path, augmentation, and batches ready for a network."""

from pathlib import Path
from typing import Annotated

from tinysqueeze.data import builtin
from tinysqueeze.data.augment import AS_IT_IS, Augment, Normalise
from tinysqueeze.data.dataset import Dataset
from tinysqueeze.data.loader import batches, hardest
from tinysqueeze.data.remote import cache_folder
from tinysqueeze.errors import DataError
from tinysqueeze.ranges import Range, checked

__all__ = [
    "AS_IT_IS", "Augment", "Dataset", "Normalise", "batches", "cache_folder", "hardest", "load",
]  # fmt: skip

SPLITS = ("train", "test")
SIZE = {"size": Annotated[int, Range(1, 4096)] | None}


def load(
    source: str | Path = "builtin",
    split: str = "train",
    *,
    size: int | None = None,
    cache: Path | None = None,
    progress: bool = True,
    whole: bool = False,
) -> Dataset:
    """The split "train" or "test" of a dataset, in memory.

    `source` is one of
    - "builtin": ten shapes, rendered on the spot (10,000 and 2,000 images of 32x32 pixels);
    - "cifar10": CIFAR-10, from the folder `cache` (default `cache_folder()`), downloaded into it
      once, with a progress bar unless `progress` is False;
    - the path of CIFAR-10: the folder `cifar-10-batches-py`, its parent, or the archive
      `cifar-10-python.tar.gz`;
    - the path of a folder with one sub-folder of images for each class, or with two such folders
      `train` and `test`. Of one that is not so split a fifth is the test, or all of it where the
      `whole` is asked for.

    `size` scales the images to size x size pixels. What there is to know, as files that were left out or
    an archive that is not the official one, stands in `notes`.

    Raises DataError where there is nothing of the kind, FormatError where a file is damaged, UserError for
    a size beyond 4,096.
    """
    size = checked("load", SIZE, {"size": size})["size"]
    if split not in SPLITS:
        raise DataError(f"no split {split!r}; there are {' and '.join(SPLITS)}")
    found = _load(source, split, size, cache, progress, whole)
    return found if size is None else found.resized(size)


def _load(
    source: str | Path,
    split: str,
    size: int | None,
    cache: Path | None,
    progress: bool,
    whole: bool,
) -> Dataset:
    if source == "builtin":
        return builtin.dataset(split)
    # Only here: Pillow, tar files and the network, which would make every start slower.
    from tinysqueeze.data import cifar10, folders
    from tinysqueeze.data.download import fetch

    if source == "cifar10":
        return cifar10.read_archive(fetch(cifar10.ARCHIVE, cache, progress), split, True)
    path = Path(source)
    if path.is_file():
        return cifar10.read_archive(path, split)
    if not path.is_dir():
        raise DataError(
            f"no such data: {source}. Expected builtin, cifar10, a folder with CIFAR-10's batches "
            f"or with one sub-folder of images for each class, or {cifar10.ARCHIVE.name}"
        )
    batches_folder = cifar10.find_folder(path)
    if batches_folder is not None:
        return cifar10.read_folder(batches_folder, split)
    return folders.read_classes(path, split, size, whole)
