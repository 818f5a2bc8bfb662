"""Augmentation, and the one pass that turns chosen uint8 images into a float32 batch.

What happens to each image is drawn first, for a whole batch at once (`Augment.draw`); `prepare` then
gathers, shifts, flips, normalises, pastes and cuts out while it reads every byte once.
"""

from dataclasses import dataclass
from typing import Annotated, Literal, NamedTuple

import numba
import numpy as np
import numpy.typing as npt

from tinysqueeze.data.dataset import Dataset
from tinysqueeze.ranges import Range, Share, checked, hints_of, setting

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Pixels = Annotated[int, Range(0, 10_000)]


@dataclass(frozen=True)
class Normalise:
    """x -> (x / 255 - mean) / std, for each of the three channels. Raises UserError out of range."""

    mean: Annotated[tuple[Annotated[float, Range(-1e4, 1e4)], ...], Range(3, 3)] = (0.0, 0.0, 0.0)
    std: Annotated[tuple[Annotated[float, Range(1e-9, 1e4)], ...], Range(3, 3)] = (1.0, 1.0, 1.0)

    def __post_init__(self) -> None:
        checked("normalise", hints_of(Normalise), vars(self))

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
    """What happens to each image of a batch of N."""

    shift: Ints  # (N, 2): the crop's place against the image, down and right, in pixels
    flip: Bools  # (N,): mirrored left to right
    hole: Ints  # (N, 2): the top left pixel of the square that is cut out
    patch: Ints  # (N, 4): top, left, bottom, right of what shows the next image instead (CutMix)

    def shares(self, labels: Ints, classes: int, size: tuple[int, int]) -> npt.NDArray[np.float32]:
        """(N, classes): what share of each image of `size` (height, width) is of which class.

        labels (N,) are those of the images before they were mixed.
        """
        top, left, bottom, right = self.patch.T
        pasted = (bottom - top) * (right - left) / (size[0] * size[1])
        shares = np.zeros((len(labels), classes), np.float32)
        each = np.arange(len(labels))
        shares[each, labels] = 1 - pasted
        shares[each, np.roll(labels, -1)] += pasted
        return shares


@dataclass(frozen=True)
class Augment:
    """Random changes to training images; CutMix alone changes their labels too.

    Flips that alternate turn one half of the images in even epochs, the other in odd ones, so that two
    epochs show both sides of every image (K. Jordan, 94% on CIFAR-10 in 3.29 Seconds on a Single GPU,
    2024, section 3.6). Cutout's centre is anywhere in the image (DeVries and Taylor, Improved
    Regularization of CNNs with Cutout, 2017). In CutMix a rectangle shows the batch's next image: any
    area is as likely, its centre is anywhere, and what lies outside is cut off (Yun et al., CutMix,
    2019, with alpha 1).
    """

    pad: Pixels = setting(4, "pixels by which a crop may leave the image on each side")
    edge: Literal["reflect", "zero"] = setting(
        "reflect", "what is out there: the mirror image, or the mean colour"
    )
    flip: Literal["random", "alternate"] | None = setting(
        "random", "mirror images by chance, or each in every other epoch"
    )
    cutout: Pixels = setting(0, "side of a square set to the mean colour")
    cutmix: Share = setting(
        0.0, "share of images with a patch of another, their labels mixed alike"
    )

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
        return Changes(shift, flip, centre - self.cutout // 2, self._patches(rng, count, size))

    def _patches(self, rng: np.random.Generator, count: int, size: tuple[int, int]) -> Ints:
        if not self.cutmix:
            return np.zeros((count, 4), np.int64)
        mixed = rng.random(count) < self.cutmix
        half = np.sqrt(rng.random(count) * mixed)[:, None] / 2 * size
        centre = rng.integers(0, size, (count, 2))
        start, stop = np.rint(centre - half), np.rint(centre + half)
        return np.concatenate([start.clip(0, size), stop.clip(0, size)], axis=1).astype(np.int64)


AS_IT_IS = Augment(pad=0, flip=None, cutout=0)


def prepare(
    images: npt.NDArray[np.uint8],
    chosen: Ints,
    changes: Changes,
    augment: Augment,
    normalise: Normalise,
    out: npt.NDArray[np.float32],
    first: int = 0,
) -> None:
    """Write images[chosen], changed and normalised, into `out` (N, H, W, 3) float32.

    `chosen` and `changes` are a whole batch's; `out` takes N of its images from the `first` on.
    Normalised values are about 0, so the mean colour that fills edges and holes is exactly 0.
    """
    std = np.array(normalise.std)
    scale = (1 / (255 * std)).astype(np.float32)
    offset = (-np.array(normalise.mean) / std).astype(np.float32)
    reflect = augment.edge == "reflect"
    _prepare(images, chosen, *changes, first, augment.cutout, reflect, scale, offset, out)


@numba.njit(cache=True, nogil=True)
def _prepare(
    images: np.ndarray, chosen: Ints, shift: Ints, flip: Bools, hole: Ints, patch: Ints, first: int,
    cutout: int, reflect: bool, scale: np.ndarray, offset: np.ndarray, out: np.ndarray,
) -> None:  # fmt: skip
    height, width = images.shape[1:3]
    for place in range(len(out)):
        n = first + place
        other = (n + 1) % len(chosen)
        y, x = hole[n]
        view, whole = out[place], (0, 0, height, width)
        _paste(images[chosen[n]], shift[n], flip[n], whole, reflect, scale, offset, view)
        _paste(
            images[chosen[other]], shift[other], flip[other], patch[n], reflect, scale, offset, view
        )
        view[max(y, 0) : max(y + cutout, 0), max(x, 0) : max(x + cutout, 0)] = 0


@numba.njit(cache=True, nogil=True, error_model="numpy")
def _paste(
    image: np.ndarray, shift: Ints, flip: bool, rectangle: tuple[int, ...], reflect: bool,
    scale: np.ndarray, offset: np.ndarray, out: np.ndarray,
) -> None:  # fmt: skip
    """Write what lies in a rectangle (top, left, bottom, right) of the changed image."""
    height, width, channels = image.shape
    top, left, bottom, right = rectangle
    for y in range(top, bottom):
        row = y + shift[0]
        if reflect:
            row = _reflect(row, height)
        for x in range(left, right):
            column = (width - 1 - x if flip else x) + shift[1]
            if reflect:
                column = _reflect(column, width)
            inside = 0 <= row < height and 0 <= column < width
            for c in range(channels):
                out[y, x, c] = image[row, column, c] * scale[c] + offset[c] if inside else 0


@numba.njit(cache=True, nogil=True)
def _reflect(place: int, size: int) -> int:
    """-1 -> 1, size -> size - 2: the mirror image, without repeating the edge."""
    if place < 0:
        return -place
    return 2 * (size - 1) - place if place >= size else place
