"""Augmentation, and the one pass that turns chosen uint8 images into a float32 batch.

What happens to each image is drawn first, for a whole batch at once (`Augment.draw`); `prepare` then
gathers, shifts, flips, cuts out and normalises while it reads every byte once.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numba
import numpy as np
import numpy.typing as npt

from tinysqueeze.data.dataset import Dataset

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Normalise:
    """x -> (x / 255 - mean) / std, for each of the three channels."""

    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)

    @classmethod
    def of(cls, dataset: Dataset) -> "Normalise":
        """The mean and standard deviation of each channel over all pixels of `dataset`.

        Counted as whole numbers, so that the result does not depend on the order of the images.
        """
        total, squares = np.zeros((2, 3))
        for part in np.array_split(dataset.images, len(dataset) // 256 + 1):
            total += part.sum(0, dtype=np.uint32).sum((0, 1))
            squares += np.square(part, dtype=np.uint16).sum(0, dtype=np.uint32).sum((0, 1))
        pixels = dataset.images[..., 0].size
        mean = total / pixels / 255
        std = np.sqrt(np.maximum(squares / pixels / 255**2 - mean**2, 0))
        std[std == 0] = 1  # a channel of one value becomes 0 everywhere
        return cls(tuple(mean.tolist()), tuple(std.tolist()))


class Changes(NamedTuple):
    """What happens to each image of a batch."""

    shift: Ints  # (N, 2): the crop's place against the image, down and right, in pixels
    flip: Bools  # (N,): mirrored left to right
    hole: Ints  # (N, 2): the top left pixel of the square that is cut out

    def part(self, images: slice) -> "Changes":
        """The changes of some of the images."""
        return Changes(self.shift[images], self.flip[images], self.hole[images])


@dataclass(frozen=True)
class Augment:
    """Random changes to training images that leave their class alone.

    pad     pixels by which a crop may leave the image on each side
    edge    what is out there: "reflect" mirrors the image, "zero" is the mean colour
    flip    "random", or "alternate": one half of the images is flipped in even epochs, the other in
            odd ones, so that two epochs show both sides of every image (K. Jordan, 94% on CIFAR-10
            in 3.29 Seconds on a Single GPU, 2024, section 3.6), or None
    cutout  side of a square set to the mean colour; its centre is anywhere in the image (DeVries
            and Taylor, Improved Regularization of CNNs with Cutout, 2017); 0 is none
    """

    pad: int = 4
    edge: Literal["reflect", "zero"] = "reflect"
    flip: Literal["random", "alternate"] | None = "random"
    cutout: int = 0

    def draw(
        self, rng: np.random.Generator, count: int, size: tuple[int, int], turns: Bools
    ) -> Changes:
        """The changes of `count` images of `size` (height, width).

        `turns` (N,) says which of them are flipped this epoch if flips alternate.
        """
        shift = rng.integers(-self.pad, self.pad, (count, 2), endpoint=True)
        flip = rng.random(count) < 0.5
        centre = rng.integers(0, size, (count, 2))
        if self.flip != "random":
            flip = turns if self.flip == "alternate" else np.zeros(count, bool)
        return Changes(shift, flip, centre - self.cutout // 2)


AS_IT_IS = Augment(pad=0, flip=None, cutout=0)


def prepare(
    images: npt.NDArray[np.uint8],
    chosen: Ints,
    changes: Changes,
    augment: Augment,
    normalise: Normalise,
    out: npt.NDArray[np.float32],
) -> None:
    """Write images[chosen], changed and normalised, into `out` (len(chosen), H, W, 3) float32.

    Normalised values are about 0, so the mean colour that fills edges and holes is exactly 0.
    """
    std = np.array(normalise.std)
    scale = (1 / (255 * std)).astype(np.float32)
    offset = (-np.array(normalise.mean) / std).astype(np.float32)
    reflect = augment.edge == "reflect"
    _prepare(images, chosen, *changes, augment.cutout, reflect, scale, offset, out)


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _prepare(images, chosen, shift, flip, hole, cutout, reflect, scale, offset, out):
    _, height, width, channels = images.shape
    for n in range(len(chosen)):
        i = chosen[n]
        for y in range(height):
            row = y + shift[n, 0]
            if reflect:
                row = _reflect(row, height)
            in_hole_rows = hole[n, 0] <= y < hole[n, 0] + cutout
            for x in range(width):
                column = (width - 1 - x if flip[n] else x) + shift[n, 1]
                if reflect:
                    column = _reflect(column, width)
                outside = not (0 <= row < height and 0 <= column < width)
                if outside or (in_hole_rows and hole[n, 1] <= x < hole[n, 1] + cutout):
                    for c in range(channels):
                        out[n, y, x, c] = 0
                else:
                    for c in range(channels):
                        out[n, y, x, c] = images[i, row, column, c] * scale[c] + offset[c]


@numba.njit(cache=True, nogil=True)
def _reflect(place, size):
    """-1 -> 1, size -> size - 2: the mirror image, without repeating the edge."""
    if place < 0:
        return -place
    return 2 * (size - 1) - place if place >= size else place
