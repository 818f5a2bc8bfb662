"""From a photograph to the array a network was trained on: resize, crop, channel order, scale."""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tinysqueeze.errors import DataError, FormatError
from tinysqueeze.files import content, parse_json

LARGEST_SIDE = 16_384  # pixels


@dataclass(frozen=True)
class Preprocess:
    """How one weight set wants its images, as a value that can be printed, compared and saved.

    `resize` is either (height, width), which warps the image to that size, or one number, the
    length that the shorter side gets. The centre `crop` (height, width) is taken out of that. Then
    each pixel becomes (pixel / divide_by - mean) / std, channel by channel in the order `channels`.
    """

    resize: int | tuple[int, int]
    crop: tuple[int, int]
    channels: str = "RGB"
    divide_by: float = 255.0
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def __post_init__(self) -> None:
        if self.channels not in ("RGB", "BGR"):
            raise FormatError(f"the channel order must be RGB or BGR, not {self.channels!r}")
        if len(self.mean) != 3 or len(self.std) != 3 or not all(self.std) or not self.divide_by:
            raise FormatError("preprocessing needs three means, three standard deviations, no zero")
        if not np.isfinite([self.divide_by, *self.mean, *self.std]).all():
            raise FormatError("preprocessing with what is not a finite number")
        sides = (self.resize,) if isinstance(self.resize, int) else self.resize
        wrong = [side for side in (*sides, *self.crop) if not 1 <= side <= LARGEST_SIDE]
        if wrong:
            raise FormatError(f"images of 1 to {LARGEST_SIDE:,} pixels a side, not {wrong[0]}")

    def __call__(self, image: Image.Image) -> NDArray[np.float32]:
        """An RGB image of any size -> float32 (height, width, 3), as the network takes it."""
        return self.scaled(np.asarray(self.framed(image)))

    def framed(self, image: Image.Image) -> Image.Image:
        """What the network sees of the photograph: resized and cropped, still RGB bytes."""
        height, width = self.crop
        resized = image.resize(self._resized_size(image), Image.Resampling.BILINEAR)
        left = round((resized.width - width) / 2)
        top = round((resized.height - height) / 2)
        return resized.crop((left, top, left + width, top + height))

    def scaled(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """RGB bytes (..., 3) -> float32 (..., 3) in the network's channel order and units."""
        ordered = pixels if self.channels == "RGB" else pixels[..., ::-1]
        x = ordered.astype(np.float32, order="C")
        if self.divide_by != 1:
            x /= np.float32(self.divide_by)
        x -= np.array(self.mean, np.float32)
        if self.std != (1.0, 1.0, 1.0):
            x /= np.array(self.std, np.float32)
        return x

    def _resized_size(self, image: Image.Image) -> tuple[int, int]:
        """(width, height), Pillow's order."""
        if not isinstance(self.resize, int):
            return self.resize[1], self.resize[0]
        shorter = min(image.size)  # torchvision rounds the longer side down
        width, height = (int(self.resize * side / shorter) for side in image.size)
        return width, height

    def with_size(self, crop: int) -> "Preprocess":
        """The same at another input size, with the same margin around the crop."""
        if isinstance(self.resize, int):
            resize: int | tuple[int, int] = round(self.resize * crop / min(self.crop))
        else:
            height, width = self.resize
            resize = (round(height * crop / self.crop[0]), round(width * crop / self.crop[1]))
        return Preprocess(resize, (crop, crop), self.channels, self.divide_by, self.mean, self.std)

    def __str__(self) -> str:
        if isinstance(self.resize, int):
            resize = f"shorter side to {self.resize} pixels"
        else:
            resize = f"resize to {_by(self.resize)}, aspect ratio not kept"
        steps = [resize, f"centre crop {_by(self.crop)}", f"channels {self.channels}"]
        if self.divide_by != 1:
            steps.append(f"divide by {self.divide_by:g}")
        if any(self.mean):
            steps.append(f"subtract {_listed(self.mean)}")
        if self.std != (1.0, 1.0, 1.0):
            steps.append(f"divide by {_listed(self.std)}")
        return "; ".join(steps)

    def to_json(self) -> dict[str, Any]:
        """A dict for the metadata of a file; `from_json` reads it back."""
        return asdict(self)

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> "Preprocess":
        """The reverse of `to_json`. Raises FormatError where fields are missing or odd."""
        try:
            resize = fields["resize"]
            return cls(
                resize=resize if isinstance(resize, int) else (int(resize[0]), int(resize[1])),
                crop=(int(fields["crop"][0]), int(fields["crop"][1])),
                channels=str(fields["channels"]),
                divide_by=float(fields["divide_by"]),
                mean=_three(fields["mean"]),
                std=_three(fields["std"]),
            )
        except (KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
            raise FormatError(f"the preprocessing in the file cannot be read: {error}") from error


def _by(size: tuple[int, int]) -> str:
    return f"{size[0]}×{size[1]}"


def _listed(values: tuple[float, float, float]) -> str:
    return "(" + ", ".join(f"{value:g}" for value in values) + ")"


def _three(values: Any) -> tuple[float, float, float]:
    first, second, third = (float(value) for value in values)
    return first, second, third


# The SqueezeNet authors' (Caffe): warped to 256×256, the centre 227×227, BGR, 0 to 255 minus
# ImageNet's mean. Source: train_val.prototxt of the authors' repository.
CAFFE = Preprocess(
    resize=(256, 256), crop=(227, 227), channels="BGR", divide_by=1.0, mean=(104.0, 117.0, 123.0)
)

# torchvision's presets for both of its SqueezeNets (references/classification/presets.py).
TORCHVISION = Preprocess(
    resize=256, crop=(224, 224), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)
)

PRESETS = {"caffe": CAFFE, "torchvision": TORCHVISION}
OPTIONAL = {"channels": "RGB", "divide_by": 255.0, "mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}


def read_preprocess(path: str | os.PathLike[str]) -> Preprocess:
    """From a file of JSON: {"resize": 256, "crop": [224, 224], "mean": [...], "std": [...], ...}.

    Left out, `resize` is the crop, `channels` are RGB, `divide_by` is 255, means are 0 and deviations 1.
    Raises FormatError, or DataError if there is no such file.
    """
    try:
        fields = parse_json(content(path))
    except OSError as error:
        known = ", ".join(PRESETS)
        raise DataError(f"{path}: neither one of {known} nor a file ({error.strerror})") from error
    except ValueError as error:
        raise FormatError(f"{path}: not JSON ({error})") from error
    if not isinstance(fields, dict) or "crop" not in fields:
        raise FormatError(f'{path}: expected JSON with "crop": [height, width]')
    unknown = sorted(set(fields) - {"resize", "crop", *OPTIONAL})
    if unknown:
        known = ", ".join(["resize", "crop", *OPTIONAL])
        raise FormatError(f"{path}: no such field: {', '.join(unknown)}; there are {known}")
    try:
        return Preprocess.from_json({"resize": fields["crop"], **OPTIONAL, **fields})
    except FormatError as error:
        raise FormatError(f"{path}: {error}") from error
