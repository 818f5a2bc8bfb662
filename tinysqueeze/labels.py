"""What images and labels may be: one class an image, or a share of each. All that takes them asks here."""

import numpy as np
import numpy.typing as npt

from tinysqueeze.errors import ShapeError

RULE = "labels must be an array of integers or shares"
CLOSE = 1e-3  # how far from 1 an image's shares may sum: float16 is that coarse

Classes = npt.NDArray[np.int64]
Shares = npt.NDArray[np.float32] | npt.NDArray[np.float64]


def check_images(
    images: npt.ArrayLike, who: str, shape: tuple[int, ...] | None = None
) -> np.ndarray:
    """A batch for a network, as an array of a floating dtype: (N, *shape), where a plan has one shape.

    Raises ShapeError, naming `who` asked, what it got and the remedy; bytes are refused, for a network
    takes them as numbers from 0 to 255, which it was not trained on.
    """
    found = _array(images, who, "images must be an array of numbers")
    if found.dtype.kind != "f":
        raise ShapeError(
            f"{who}: images must be float32, not {found.dtype}; prepare them as for training: "
            "ts.data.Normalise scales bytes, ts.classify takes them as they are"
        )
    if not found.ndim:
        raise ShapeError(f"{who}: expected a batch of images, got one number")
    if shape and found.shape[1:] != shape:
        remedy = "compile the plan with input_size for another size"
        raise ShapeError(
            f"{who}: expected images (N, {', '.join(map(str, shape))}), got {found.shape}; "
            f"{'one image is image[None]' if found.ndim == len(shape) else remedy}"
        )
    return found


def check_labels(
    labels: npt.ArrayLike, images: int | None, classes: int | None = None, who: str = "loss"
) -> Classes | Shares:
    """The labels of a batch, as an array: (N,) int64, or (N, classes) float32 or float64 shares.

    labels are N = `images` integers in 0 .. classes-1 of any integer dtype, or a row for each image of
    real numbers that are at least 0 and sum to 1 (shares; float32 stays so). Where `images` or
    `classes` is None any number of them will do. Raises ShapeError, naming `who` asked, the first image
    that is wrong and the remedy; also for a batch of 0 `images`, whose mean loss is no number.
    """
    found = _array(labels, who)
    if images == 0:
        raise ShapeError(f"{who}: the batch is empty; a mean over no images is no number")
    if found.ndim == 1 and len(found) == (images or len(found)):
        return _classes(found, classes, who)
    if found.ndim == 2 and found.shape == (images or len(found), classes or found.shape[1]):
        return _shares(found, who)
    size = f"({images or 'N'}, {classes or 'classes'})"
    raise ShapeError(
        f"{who}: logits are {size}, so labels must be ({images or 'N'},) integers or {size} shares, "
        f"not {found.shape}"
    )


def check_smoothing(smoothing: float, who: str = "loss") -> float:
    """The share of a label that goes evenly to all classes, 0 to 1. Raises ShapeError, naming `who` asked."""
    if isinstance(smoothing, int | float | np.integer | np.floating) and 0 <= smoothing <= 1:
        return float(smoothing)
    raise ShapeError(f"{who}: smoothing is a share of the label, 0 to 1, not {smoothing!r}")


def check_classes(
    labels: npt.ArrayLike, images: int | None, classes: int, who: str = "labels"
) -> Classes:
    """(N,) int64: labels that are one class an image, N = `images` of them (any number, if None).

    Raises ShapeError as `check_labels` does; shares are refused, no images at all are not.
    """
    found = _array(labels, who)
    if found.ndim != 1 or (images is not None and len(found) != images):
        count = "N" if images is None else images
        raise ShapeError(
            f"{who}: {count} images have labels of shape ({count},), integers; not {found.shape}"
        )
    return _classes(found, classes, who)


def _array(given: npt.ArrayLike, who: str, rule: str = RULE) -> np.ndarray:
    try:
        return np.asarray(given)
    except (TypeError, ValueError, RuntimeError) as error:  # rows of several lengths, for instance
        raise ShapeError(f"{who}: {rule}: {error}") from None


def _classes(found: np.ndarray, classes: int | None, who: str) -> Classes:
    if not found.size:
        return np.zeros(0, np.int64)
    if found.dtype.kind not in "iu":
        if found.dtype.kind in "fb":
            remedy = "labels.astype(np.int64) if they are whole numbers"
        elif found.dtype.kind in "UST":
            remedy = "number the classes: [classes.index(name) for name in labels]"
        else:
            remedy = "give integers, for instance of dtype np.int64"
        raise ShapeError(
            f"{who}: labels must be integers, one class an image, not {found.dtype}; {remedy}"
        )
    most = np.iinfo(np.int64).max if classes is None else classes - 1
    wrong = np.flatnonzero((found < 0) | (found > most))
    if wrong.size:
        at = int(wrong[0])
        start = f"{who}: image {at} has label {found[at]}"
        if found[at] < 0:
            raise ShapeError(f"{start}, but classes are counted from 0; renumber them")
        raise ShapeError(
            f"{start}, but there are {most + 1} classes, 0 to {most}; it needs "
            f"classes={int(found.max()) + 1}"
        )
    return found.astype(np.int64, copy=False)


def _shares(found: np.ndarray, who: str) -> Shares:
    if found.dtype.kind not in "fiub":
        raise ShapeError(
            f"{who}: shares of classes must be real numbers, not {found.dtype}; give np.float32"
        )
    with np.errstate(over="ignore", invalid="ignore"):  # what overflows is refused below
        shares = found.astype(np.float64)
        sums = shares.sum(axis=1)
    wrong = np.flatnonzero((shares < 0).any(axis=1) | ~(np.abs(sums - 1) <= CLOSE))  # NaN is too
    if wrong.size:
        row = int(wrong[0])
        if not np.isfinite(shares[row]).all():
            what = "are not all finite"
        elif shares[row].min() < 0:
            what = f"go down to {shares[row].min():.3g}"
        else:
            what = f"sum to {sums[row]:.6g}"
        raise ShapeError(
            f"{who}: the shares of image {row} {what}; they must be at least 0 and sum to 1: "
            "shares / shares.sum(axis=1, keepdims=True)"
        )
    return found if found.dtype == np.float32 else shares
