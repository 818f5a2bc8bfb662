"""What a dataset is here: images, labels and the names of the classes, as one value."""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from tinysqueeze.errors import DataError, ShapeError
from tinysqueeze.labels import check_classes


@dataclass(frozen=True, eq=False)
class Dataset:
    """Labelled images in memory.

    images   (N, H, W, 3) uint8, red green blue
    labels   (N,) int64 (from integers of any kind), each an index into `classes`
    classes  the name of each class
    name     what to call the dataset in reports
    notes    what to know about it: what was left out, that it is not the official one

    Raises DataError where these do not fit together.
    """

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    classes: tuple[str, ...]
    name: str
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        images = self.images
        known = isinstance(images, np.ndarray)
        if not known or images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3:
            got = f"{images.dtype} of shape {images.shape}" if known else type(images).__name__
            raise DataError(
                f"{self.name}: images must be uint8 of shape (N, height, width, 3), got {got}"
            )
        try:
            labels = check_classes(self.labels, len(images), len(self.classes), self.name)
        except ShapeError as error:
            raise DataError(str(error)) from None
        object.__setattr__(self, "labels", labels)

    def __len__(self) -> int:
        return len(self.images)

    def subset(self, indices: npt.ArrayLike | slice) -> "Dataset":
        """The chosen examples in the given order: a slice, a mask or an array of indices."""
        chosen = indices if isinstance(indices, slice) else np.asarray(indices)
        return replace(self, images=self.images[chosen], labels=self.labels[chosen])

    def resized(self, size: int) -> "Dataset":
        """The same with images of size x size pixels (bilinear); itself if they are that already."""
        if self.images.shape[1:3] == (size, size):
            return self
        from PIL import Image

        images = np.empty((len(self), size, size, 3), np.uint8)
        for target, image in zip(images, self.images, strict=True):
            picture = Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR)
            target[:] = np.asarray(picture)
        return replace(self, images=images)

    def split(self, held_out: int | float, seed: int = 0) -> tuple["Dataset", "Dataset"]:
        """(the rest, the part held out): every class gives its share, chosen by `seed`.

        `held_out` is a number of images, or a fraction between 0 and 1. It is how a validation part
        is taken from the training set, so that the test set chooses nothing.
        """
        size = round(held_out * len(self)) if isinstance(held_out, float) else held_out
        if not 0 < size < len(self):
            raise DataError(f"{self.name}: cannot hold out {held_out} of {len(self)} images")
        order = np.random.default_rng(seed).permutation(len(self))
        # Rank every image within its class, then take the lowest ranks relative to the class's size.
        by_class = order[np.argsort(self.labels[order], kind="stable")]
        counts = np.bincount(self.labels, minlength=len(self.classes))
        share = np.concatenate([(np.arange(n) + 0.5) / n for n in counts if n])
        held = by_class[np.argsort(share, kind="stable")[:size]]
        kept = np.ones(len(self), bool)
        kept[held] = False
        return self.subset(kept), self.subset(np.sort(held))
