"""Activations and gradients as images: channels side by side, vectors as bars, weights as small tiles."""

from typing import Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Normalize
from matplotlib.ticker import MaxNLocator

from tinysqueeze.show.pictures.style import BLUE, DIVERGING, ORANGE, QUIET, RED, Picture, styled
from tinysqueeze.study.formulas import by


def as_picture(image: np.ndarray) -> np.ndarray:
    """A colour image stretched to 0 .. 1 for showing, whatever its scale was: (H, W, 3)."""
    low, high = float(image.min()), float(image.max())
    return (image - low) / (high - low or 1.0)


def mosaic(maps: np.ndarray, most: int = 24, columns: int = 6) -> np.ndarray:
    """The first `most` channels of (H, W, C) as one image, `columns` abreast, NaN between them."""
    height, width, channels = maps.shape
    shown = min(channels, most)
    columns = min(columns, shown)
    rows = -(-shown // columns)
    sheet = np.full((rows * (height + 1) - 1, columns * (width + 1) - 1), np.nan)
    for c in range(shown):
        top, left = c // columns * (height + 1), c % columns * (width + 1)
        sheet[top : top + height, left : left + width] = maps[:, :, c]
    return sheet


@styled
def feature_maps(
    arrays: dict[str, np.ndarray],
    title: str = "",
    mark: tuple[int, int, int] | None = None,
    marked: str = "",
    most: int = 24,
) -> Picture:
    """Arrays of one example beside each other: maps (H, W, C) as mosaics, vectors (C,) as bars.

    An array called "image" or "image ..." is shown as the picture it is, in colour if it has three
    channels, in grey if it has one. `mark` = (row, column, channel) puts a
    box around a pixel of the array named `marked`. Signed arrays share white at zero.
    """
    words = "; ".join(f"{name} {by(*array.shape)}" for name, array in arrays.items())
    picture = Picture(2.9 * len(arrays), 3.1, f"{title}. {words}".strip(". "))
    sheets = picture.subplots(1, len(arrays), squeeze=False)[0]
    for axes, (name, array) in zip(sheets, arrays.items(), strict=True):
        _show(axes, name, array, most)
        if mark is not None and name == marked and array.ndim == 3 and mark[2] < most:
            _box(axes, array.shape, mark)
    picture.suptitle(title, x=0.01, ha="left", fontsize=10)
    return picture


def _show(axes: Axes, name: str, array: np.ndarray, most: int) -> None:
    if array.ndim == 1:
        colours = np.where(array < 0, ORANGE, BLUE)
        axes.bar(range(len(array)), array, color=colours, width=0.9)
        axes.axhline(0, color=QUIET, linewidth=0.6)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))  # there is no channel 0.5
        axes.set_title(f"{name}  {by(*array.shape)}", fontsize=8.5)
        return
    shown = f"{min(most, array.shape[2])} of " if array.shape[2] > most else ""
    axes.set_title(f"{name}  {by(*array.shape[:2])}×{shown}{array.shape[2]}", fontsize=8.5)
    axes.axis("off")
    if name.split(" ")[0] == "image" and array.shape[2] in (1, 3):
        axes.imshow(as_picture(array), cmap="gray")  # which only one channel takes
        return
    sheet = mosaic(array, most)
    aspect: Literal["equal", "auto"] = (
        "equal" if max(sheet.shape) < 3 * min(sheet.shape) else "auto"
    )
    if array.min() < 0:
        reach = float(np.abs(array).max())
        axes.imshow(sheet, cmap=DIVERGING, norm=Normalize(-reach, reach), aspect=aspect)
    else:
        axes.imshow(sheet, norm=Normalize(0, float(array.max()) or 1.0), aspect=aspect)


def _box(axes: Axes, shape: tuple[int, ...], mark: tuple[int, int, int], columns: int = 6) -> None:
    row, column, channel = mark
    top = channel // columns * (shape[0] + 1) + row
    left = channel % columns * (shape[1] + 1) + column
    axes.plot(
        left,
        top,
        marker="s",
        markersize=7,
        markerfacecolor="none",
        markeredgecolor=RED,
        markeredgewidth=1.6,
    )
