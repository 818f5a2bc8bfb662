"""Photographs from disk: whatever Pillow opens becomes plain RGB, or one clear error."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from tinysqueeze.errors import DataError

SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jpe", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
)
MAX_PIXELS = 89_478_485  # Pillow's own limit: above it a small file can fill the memory (a "bomb")


def open_image(path: str | os.PathLike[str]) -> Image.Image:
    """The image in the file as RGB, upright.

    Grey, palette, CMYK and any other mode is converted; transparent pixels show white behind them;
    16-bit samples keep their upper byte; float samples are taken as 0..1 if none is above 1, else
    as 0..255; of an animation the first frame is taken; the rotation in a camera's EXIF is applied.
    Raises DataError naming the file where it is missing, truncated, too large or not an image.
    """
    try:
        with Image.open(path) as image:
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
        return Image.fromarray(_bytes(np.asarray(image) / 256)).convert("RGB")
    if image.mode == "F":
        samples = np.nan_to_num(np.asarray(image))
        return Image.fromarray(_bytes(samples * (255 if samples.max() <= 1 else 1))).convert("RGB")
    if "transparency" in image.info or image.mode in ("RGBA", "LA", "PA", "RGBa", "La"):
        image = image.convert("LA" if image.mode == "La" else "RGBA").convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")


def _bytes(samples: np.ndarray) -> np.ndarray:
    return np.clip(samples, 0, 255).astype(np.uint8)


def find_images(places: Iterable[str | os.PathLike[str]]) -> Iterator[Path]:
    """Each file as given; each folder's images in name order, with its sub-folders'.

    A file named outright is always taken, whatever its suffix; inside a folder only image suffixes.
    """
    for place in map(Path, places):
        if not place.is_dir():
            yield place
            continue
        for folder, folders, names in os.walk(place):
            folders.sort()
            yield from (
                Path(folder, name)
                for name in sorted(names)
                if os.path.splitext(name)[1].lower() in SUFFIXES
            )
