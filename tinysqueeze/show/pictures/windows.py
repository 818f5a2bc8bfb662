"""Windows on the move: the sliding 3×3, the 1×1 through the channels, patches becoming rows."""

from itertools import product
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from tinysqueeze.errors import ShapeError
from tinysqueeze.network.ops import reference
from tinysqueeze.network.window import Window
from tinysqueeze.show.pictures.style import (
    BLUE,
    FAINT,
    GREEN,
    INK,
    ORANGE,
    QUIET,
    Movie,
    Picture,
    bare,
    styled,
    text_on,
)
from tinysqueeze.show.pictures.volumes import note, shade
from tinysqueeze.study.formulas import by


def number(value: float) -> str:
    """A number short enough for a cell: 3, -0.5, 12."""
    text = f"{value:.2g}" if abs(value) < 10 else f"{value:.0f}"
    return text.replace("-", "−")


def grid(
    axes: Axes,
    x: float,
    y: float,
    values: np.ndarray,
    colours: np.ndarray | str = "white",
    fontsize: float = 8,
    layer: float = 1,
) -> None:
    """A table of numbers with its top left corner at (x, y), one unit a cell; NaN is an empty cell.

    colours: one for all cells, or an array (rows, columns) of them. A higher `layer` lies on top.
    """
    paint = np.broadcast_to(np.asarray(colours, dtype=object), values.shape)
    for (row, column), value in np.ndenumerate(values):
        colour = str(paint[row, column])
        style: Any = {"facecolor": colour, "edgecolor": "white", "linewidth": 1.2, "zorder": layer}
        axes.add_patch(Rectangle((x + column, y - row - 1), 1, 1, **style))
        if not np.isnan(value):
            look: Any = {"fontsize": fontsize, "color": text_on(colour), "zorder": layer + 0.1}
            note(axes, x + column + 0.5, y - row - 0.5, number(value), **look)


def frame(axes: Axes, x: float, y: float, rows: int, columns: int, colour: str = ORANGE) -> None:
    """A thick outline around some cells of a grid."""
    axes.add_patch(Rectangle((x, y - rows), columns, rows, fill=False, edgecolor=colour, lw=2.4))


def _sum(left: np.ndarray, right: np.ndarray, total: float) -> str:
    terms = [f"{number(a)}·{_factor(b)}" for a, b in zip(left.ravel(), right.ravel(), strict=True)]
    return " + ".join(terms) + f" = {number(total)}"


def _factor(value: float) -> str:
    return f"({number(value)})" if value < 0 else number(value)


@styled
def sliding_window(x: np.ndarray, weight: np.ndarray, stride: int = 1, pad: int = 0) -> Movie:
    """A kernel slides over an image, and every place gives one number, worked out below it.

    x (H, W) and weight (KH, KW): one channel, one filter, no bias. Each frame is one output pixel.
    """
    window = Window.of(weight.shape, stride, pad)
    places = list(product(*map(range, window.out_size(*x.shape))))
    padded = np.pad(x.astype(float), pad)
    zero = np.zeros(1, float)
    y = reference.conv2d(x[None, :, :, None].astype(float), weight[:, :, None, None], zero, window)
    y = y[0, :, :, 0]
    (kh, kw), (h, w) = weight.shape, padded.shape

    def draw(picture: Picture, i: int) -> None:
        axes = bare(picture.add_subplot())
        row, column = places[i]
        top, left = row * stride, column * stride
        colours = np.full(padded.shape, FAINT, dtype=object)
        colours[pad : h - pad, pad : w - pad] = "#cfe3f1"
        colours[top : top + kh, left : left + kw] = "#f7d58b"
        grid(axes, 0, 0, padded, colours)
        frame(axes, left, -top, kh, kw)
        grid(axes, w + 1, -(h - kh) / 2, weight, "#f7d58b")
        done = np.full(y.shape, np.nan)
        done.ravel()[: i + 1] = y.ravel()[: i + 1]
        shown = np.where(np.isnan(done), FAINT, "#bfe5d9").astype(object)
        shown[row, column] = GREEN
        x_out, y_out = w + kw + 2, -(h - y.shape[0]) / 2
        grid(axes, x_out, y_out, done, shown)
        note(axes, w / 2, 0.5, f"image {by(*x.shape)}" + (f", padded by {pad}" if pad else ""))
        note(axes, w + 1 + kw / 2, y_at := -(h - kh) / 2 + 0.5, f"kernel {by(kh, kw)}")
        note(axes, x_out + y.shape[1] / 2, max(y_out + 0.5, y_at), f"output {by(*y.shape)}")
        patch = padded[top : top + kh, left : left + kw]
        note(axes, (x_out + y.shape[1]) / 2, -h - 0.7, _sum(patch, weight, y[row, column]))
        axes.set(xlim=(-0.2, x_out + y.shape[1] + 0.2), ylim=(-h - 1.2, 1))

    alt = (
        f"A {by(kh, kw)} kernel slides over a {by(*x.shape)} image with stride {stride} and padding "
        f"{pad}; each place gives one number of the {by(*y.shape)} output"
    )
    width = (w + kw + y.shape[1] + 3) * 0.38
    return Movie(draw, len(places), (max(width, 5.4), (h + 2.2) * 0.38), alt)


@styled
def through_channels(x: np.ndarray, weight: np.ndarray) -> Movie:
    """A 1×1 filter looks at one pixel at a time, through all channels: a dot product along them.

    x (H, W, C) and weight (C,): one filter, no bias. Each frame is one pixel.
    """
    h, w, channels = x.shape
    y = x.astype(float) @ weight
    places = list(product(range(h), range(w)))
    sheets = matplotlib.colormaps["Blues"](np.linspace(0.15, 0.45, channels))
    step = 0.62

    def draw(picture: Picture, i: int) -> None:
        axes = bare(picture.add_subplot())
        row, column = places[i]
        for c in reversed(range(channels)):
            colour = matplotlib.colors.to_hex(sheets[c])
            plane = np.full((h, w), np.nan) if c else x[:, :, 0].astype(float)
            grid(axes, c * step, c * step, plane, colour, layer=1 - 0.1 * c)
            # The pixel shines through all sheets: a tunnel, nearest cell on top.
            place = (c * step + column, c * step - row)
            depth = matplotlib.colors.to_hex(shade(ORANGE, 0.12 * c))
            grid(axes, *place, x[row : row + 1, column : column + 1, c], depth, layer=3 - 0.1 * c)
        right = w + channels * step + 0.8
        middle = -(h - channels) / 2 + channels * step / 2
        pixel, filters = x[row, column][:, None].astype(float), weight[:, None].astype(float)
        grid(axes, right, middle, pixel, ORANGE)
        note(axes, right + 1.5, middle - channels / 2, "·", fontsize=16)
        grid(axes, right + 2, middle, filters, "#f7d58b")
        note(axes, right + 3.5, middle - channels / 2, "=", fontsize=12)
        done = np.full(y.shape, np.nan)
        done.ravel()[: i + 1] = y.ravel()[: i + 1]
        shown = np.where(np.isnan(done), FAINT, "#bfe5d9").astype(object)
        shown[row, column] = GREEN
        x_out = right + 4.2
        grid(axes, x_out, (channels * step) / 2, done, shown)
        note(axes, w / 2, -h - 0.4, f"input {by(h, w, channels)}")
        note(axes, right + 0.5, middle + 0.4, "pixel")
        note(axes, right + 2.5, middle + 0.4, "filter")
        note(axes, x_out + w / 2, -h - 0.4 + channels * step / 2, f"output {by(h, w, 1)}")
        text = _sum(x[row, column], weight, y[row, column])
        note(axes, (x_out + w) / 2, -h - 1.2, text)
        axes.set(xlim=(-0.2, x_out + w + 0.2), ylim=(-h - 1.6, channels * step + 0.2))

    alt = (
        f"A 1×1 filter of {channels} weights looks at one pixel of a {by(h, w, channels)} input at a "
        "time, through all its channels; no neighbour is seen"
    )
    width, height = w + channels * step + 5.4 + w, h + channels * step + 1.8
    return Movie(draw, len(places), (width * 0.42, height * 0.42), alt)


@styled
def patch_to_row(x: np.ndarray, window: Window, row: int | None = None) -> Picture | Movie:
    """im2col, seen: the patch under the window becomes one row of the matrix, in the same colours.

    x (H, W, C) with small whole numbers. `row` picks one patch and gives a picture; without it, all
    of them in turn as a movie.
    """
    h, w, channels = x.shape
    oh, ow = window.out_size(h, w)
    patches = reference.im2col(x[None].astype(float), window)
    (kh, kw), (sh, sw), (ph, pw) = window.kernel, window.stride, window.pad
    padded = np.pad(x.astype(float), ((ph, ph), (pw, pw), (0, 0)))
    high, wide = padded.shape[:2]
    if row is not None and not 0 <= row < oh * ow:
        raise ShapeError(f"patch_to_row: row must be from 0 to {oh * ow - 1}, got {row}")
    tones = [BLUE, GREEN, ORANGE, "#cc79a7"]
    # One hue a channel; within it, the place in the kernel goes from dark to light.
    hues = [
        [matplotlib.colors.to_hex(shade(tones[c % 4], 0.1 + 0.6 * k / max(kh * kw - 1, 1)))
         for c in range(channels)]
        for k in range(kh * kw)
    ]  # fmt: skip
    deep = max(channels * (high + 1), oh * ow + 1)
    size = ((wide + 1 + kh * kw * channels) * 0.3 + 0.6, deep * 0.3 + 0.5)

    def draw(picture: Picture, i: int) -> None:
        axes = bare(picture.add_subplot())
        top, left = i // ow * sh, i % ow * sw
        for c in range(channels):
            colours = np.full((high, wide), FAINT, dtype=object)
            for k, (a, b) in enumerate(product(range(kh), range(kw))):
                if top + a < high and left + b < wide:
                    colours[top + a, left + b] = hues[k][c]
            y = -c * (high + 1)
            grid(axes, 0, y, padded[:, :, c], colours, 7)
            frame(axes, left, y - top, kh, kw, INK)
            note(axes, wide / 2, y + 0.45, f"channel {c}", fontsize=7.5, color=QUIET)
        colours = np.full(patches.shape, FAINT, dtype=object)
        colours[i] = [hues[k][c] for k in range(kh * kw) for c in range(channels)]
        grid(axes, wide + 1, 0, patches, colours, 7)
        frame(axes, wide + 1, -i, 1, patches.shape[1], INK)
        label = f"patches: {by(*patches.shape)}   row {i} = the window at ({i // ow}, {i % ow})"
        note(axes, wide + 1, 0.45, label, fontsize=7.5, color=QUIET, ha="left")
        axes.set(
            xlim=(-0.2, wide + 1.2 + patches.shape[1]),
            ylim=(-max(channels * (high + 1) - 1, oh * ow) - 0.2, 0.9),
        )

    alt = (
        f"im2col of a {by(h, w, channels)} image with a {by(kh, kw)} window: each of the {oh * ow} "
        f"places of the window becomes a row of {kh * kw * channels} numbers"
    )
    movie = Movie(draw, oh * ow, size, alt)
    return movie if row is None else movie.frame(row)


@styled
def places_along(size: int, window: Window) -> Picture:
    """One side of an image, seen from the edge: a row of pixels, and each place of the window below it.

    `window` is square. Padding is faint; pixels that no window sees are hatched. Raises ShapeError where
    not even one window fits.
    """
    kernel, stride, pad = window.kernel[0], window.stride[0], window.pad[0]
    starts = [place * stride - pad for place in range(window.out_size(size, size)[0])]
    unseen = set(range(size)).difference(*(range(start, start + kernel) for start in starts))
    picture = Picture(
        max(0.3 * (size + 2 * pad), 3.2),
        0.26 * len(starts) + 0.5,
        f"{size} pixels in a row, {pad} of padding at each end; a window of {kernel} with stride "
        f"{stride} has {len(starts)} places; pixels that it never sees: {len(unseen)}",
    )
    axes = bare(picture.add_subplot())
    for i in range(-pad, size + pad):
        inside = 0 <= i < size
        colour = "#cfe3f1" if inside and i not in unseen else FAINT
        style: Any = {"edgecolor": "white", "hatch": "////" if i in unseen else None}
        axes.add_patch(Rectangle((i, 0), 1, 1, facecolor=colour, **style))
        note(axes, i + 0.5, 0.5, str(i) if inside else "0", color=INK if inside else QUIET)
    for place, start in enumerate(starts):
        y = -0.8 * (place + 1)
        axes.add_patch(Rectangle((start, y), kernel, 0.6, facecolor=ORANGE, edgecolor="none"))
        note(axes, start + kernel / 2, y + 0.3, str(place), fontsize=7)
    axes.set(xlim=(-pad - 0.1, size + pad + 0.1), ylim=(-0.8 * len(starts) - 0.1, 1.1))
    return picture


@styled
def overlap_counts(height: int, width: int, windows: dict[str, Window]) -> Picture:
    """How many windows see each pixel: what col2im adds up there. One map for each named window."""
    counts = {name: overlaps(height, width, window) for name, window in windows.items()}
    largest = max(int(c.max()) for c in counts.values())
    picture = Picture(
        2.3 * len(counts),
        2.4,
        "How many windows see each pixel. "
        + "; ".join(f"{name}: from {c.min():.0f} to {c.max():.0f}" for name, c in counts.items()),
    )
    tones = matplotlib.colormaps["Blues"]
    sheets = picture.subplots(1, len(counts), squeeze=False)[0]
    for axes, (name, seen) in zip(sheets, counts.items(), strict=True):
        bare(axes)
        colours = np.vectorize(lambda v: matplotlib.colors.to_hex(tones(0.9 * v / largest)))(seen)
        grid(axes, 0, 0, seen, colours)
        axes.set(title=name, xlim=(0, width), ylim=(-height, 0))
    return picture


def overlaps(height: int, width: int, window: Window) -> np.ndarray:
    """The number of windows that see each pixel: (H, W)."""
    oh, ow = window.out_size(height, width)
    ones = np.ones((oh * ow, window.area))
    return reference.col2im(ones, (1, height, width, 1), window)[0, :, :, 0]
