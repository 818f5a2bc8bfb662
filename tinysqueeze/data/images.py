"""Pictures from disk, for training and for use alike: found in folders, opened as plain RGB.

Whatever Pillow opens becomes RGB, or one clear error; what a folder holds beside pictures is counted.
"""

import io
import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from tinysqueeze.errors import DataError
from tinysqueeze.files import content

SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".avif",
     ".ppm", ".pgm", ".pbm", ".pnm")
)  # fmt: skip
SYSTEM = frozenset(("thumbs.db", "desktop.ini", "__macosx"))  # what systems leave, by lower case
MAX_PIXELS = (
    1 << 26
)  # in any mode less than 1 GB; above it a small file fills the memory (a "bomb")
LARGEST_FILE = 1 << 28  # bytes
NAMED = 3  # of what was left out

Place = str | os.PathLike[str]


# --- one picture ---------------------------------------------------------------------------------


def open_image(path: Place) -> Image.Image:
    """The image in the file as RGB, upright.

    Grey, palette, CMYK and any other mode is converted; transparent pixels show white behind them;
    16-bit samples keep their upper byte; float samples are taken as 0..1 if none is above 1, else
    as 0..255; of an animation the first frame is taken; the rotation in a camera's EXIF is applied.
    Raises DataError naming the file where it is missing, truncated, too large or not an image.
    """
    try:
        about = os.stat(path)
        if stat.S_ISFIFO(about.st_mode):  # to open one may wait for ever
            raise DataError("a pipe, not a file")
        if about.st_size > LARGEST_FILE:
            raise DataError(f"{about.st_size:,} bytes are more than we open")
        # From memory: of a file Pillow reads as much as it promises to hold, not as it holds.
        with Image.open(io.BytesIO(content(path))) as image:
            if image.width * image.height > MAX_PIXELS:
                raise DataError(f"{image.width}×{image.height} pixels are more than we open")
            image.load()
            return upright(image)
    except Exception as error:  # Pillow's decoders raise nearly anything on a damaged file
        raise DataError(f"{path}: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    if isinstance(error, IsADirectoryError):
        return "this is a folder"
    if isinstance(error, Image.UnidentifiedImageError):
        return "not an image that Pillow can open"
    if isinstance(error, DataError):
        return str(error)
    return f"cannot be read ({str(error) or type(error).__name__})"


def upright(image: Image.Image) -> Image.Image:
    """An opened image as `open_image` gives it: RGB, rotated as its EXIF says."""
    return _rgb(ImageOps.exif_transpose(image))


def _rgb(image: Image.Image) -> Image.Image:
    """Any mode of Pillow's -> RGB."""
    if image.mode.startswith("I"):
        return Image.fromarray(_bytes(np.asarray(image) // 256)).convert("RGB")
    if image.mode == "F":
        samples = np.nan_to_num(np.asarray(image))
        return Image.fromarray(_bytes(samples * (255 if samples.max() <= 1 else 1))).convert("RGB")
    if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA", "RGBa", "La"):
        image = image.convert("LA" if image.mode == "La" else "RGBA").convert("RGBA")
        shown = Image.new("RGB", image.size, "white")
        shown.paste(image, mask=image.getchannel("A"))
        return shown
    return image.convert("RGB")


def _bytes(samples: np.ndarray) -> np.ndarray:
    return np.clip(samples, 0, 255).astype(np.uint8)


# --- many pictures -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Found:
    """What is under some places: the pictures in order, and what was left out, by why."""

    pictures: list[Path] = field(default_factory=list)
    hidden: list[Path] = field(default_factory=list)  # .ipynb_checkpoints, ._0.png, Thumbs.db
    other: list[Path] = field(default_factory=list)  # by their suffix no pictures
    unreadable: list[Path] = field(default_factory=list)  # folders that may not be looked into

    @property
    def left_out(self) -> tuple[str, ...]:
        """A line for each kind of what was left out: how many, and which for instance."""
        return (
            *told("hidden, left out", self.hidden),
            *told("no pictures by their suffix, left out", self.other),
            *told("folders that cannot be read, left out", self.unreadable),
        )


def told(why: str, paths: Sequence[Path]) -> tuple[str, ...]:
    """("2 hidden, left out: a/.x, ._0.png",), or () for none."""
    if not paths:
        return ()
    named = ", ".join(map(str, paths[:NAMED]))
    return (f"{len(paths):,} {why}: {named}{', ...' if len(paths) > NAMED else ''}",)


def find_images(places: Iterable[Place]) -> Iterator[Path]:
    """The pictures of `look`, in order."""
    yield from look(places).pictures


def look(places: Iterable[Place]) -> Found:
    """Each file as given; each folder's pictures in name order, then its sub-folders' in theirs.

    A file named outright is always taken. Inside a folder suffixes tell what is a picture, in upper or
    lower case; hidden names are left out, and so is a link to a folder that it lies in.
    """
    found = Found()
    for place in map(Path, places):
        if place.is_dir():
            _look_into(place, found)
        else:
            found.pictures.append(place)
    return found


def _look_into(place: Path, found: Found) -> None:
    waiting = [(place, frozenset((os.path.realpath(place),)))]
    while waiting:
        folder, above = waiting.pop()
        try:
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError:
            found.unreadable.append(folder)
            continue
        inner = []
        for entry in entries:
            path = folder / entry.name
            if is_hidden(entry.name):
                found.hidden.append(path)
            elif entry.is_dir():
                real = os.path.realpath(path)
                inner += [] if real in above else [(path, above | {real})]
            elif path.suffix.lower() in SUFFIXES and entry.is_file():
                found.pictures.append(path)
            else:
                found.other.append(path)
        waiting += inner[::-1]


def is_hidden(name: str) -> bool:
    """Whether a name is hidden, or one that a system leaves in folders: never a picture or a class."""
    return name.startswith(".") or name.lower() in SYSTEM
