"""What may be asked for as a picture (a file, one of Pillow's images, an array), made ready for a network."""

import os
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tinysqueeze.data.images import find_images, open_image, upright
from tinysqueeze.errors import ShapeError
from tinysqueeze.network.models import Model
from tinysqueeze.weights.trained import WeightSet

Picture = str | os.PathLike[str] | Image.Image | np.ndarray


def pictures_in(source: Picture | Iterable[Picture]) -> Iterator[Picture]:
    """Every picture of a file, a folder with its sub-folders, an image, an array (H, W, C) or
    (N, H, W, C), or of several of these; raises ShapeError for an array of another shape, and for
    what is none of these."""
    match source:
        case np.ndarray() if source.ndim == 4:
            yield from source
        case np.ndarray() if source.ndim != 3:
            raise ShapeError(f"pictures are (H, W, C) or (N, H, W, C), not {source.shape}")
        case np.ndarray() | Image.Image():
            yield source
        case str() | os.PathLike():
            yield from find_images([source])
        case Iterable():
            for one in source:
                yield from pictures_in(one)
        case _:
            kind = type(source).__name__
            raise ShapeError(f"pictures are files, folders, images and arrays, not {kind}")


def prepared(weights: WeightSet, picture: Picture) -> NDArray[np.float32]:
    """(H, W, C) float32 as the network takes it, from a file, one of Pillow's images or an array.

    An array of uint8 (any height, any width, 3) is a photograph in RGB, resized, cropped and scaled as
    `weights.preprocess` says; one of float32 must be ready and of the model's `input_shape`. Raises
    DataError where a file cannot be read, ShapeError for any other array, and for a photograph where the
    network's images have no three channels.
    """
    model = weights.model
    if isinstance(picture, np.ndarray) and picture.dtype != np.uint8:
        return _ready(model, picture)
    if model.input_shape[2] != 3:
        raise ShapeError(
            f"{model.name} takes images of {model.input_shape}, and photographs have three channels: give "
            "it arrays of float32, ready for it (ts.classify in Python)"
        )
    if isinstance(picture, np.ndarray):
        if picture.ndim != 3 or picture.shape[2] != 3 or not picture.size:
            return _ready(model, picture)
        return weights.preprocess(Image.fromarray(np.ascontiguousarray(picture)))
    image = upright(picture) if isinstance(picture, Image.Image) else open_image(picture)
    return weights.preprocess(image)


def _ready(model: Model, array: np.ndarray) -> NDArray[np.float32]:
    shape = model.input_shape
    if array.dtype == np.float32 and array.shape == shape:
        return array
    raise ShapeError(
        f"a picture is uint8 (height, width, 3), which is prepared here, or float32 {shape}, ready for "
        f"{model.name}; not {array.dtype} {array.shape}"
    )
