"""Charts of counts: parameters as bars, activation volumes by layer, one network beside another."""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import matplotlib
import numpy as np
from matplotlib.axes import Axes

from tinysqueeze.network.models import Model
from tinysqueeze.show.pictures import style
from tinysqueeze.show.pictures.style import Picture, styled
from tinysqueeze.study.count import Table, count
from tinysqueeze.study.formulas import by

SERIES = (style.BLUE, style.ORANGE, style.GREEN, style.PURPLE, style.RED)


def short(value: float) -> str:
    """1248424 -> "1.25 M"; three digits that count."""
    for size, letter in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"


@styled
def bars(values: Mapping[str, float], unit: str, title: str, colour: str = style.BLUE) -> Picture:
    """Horizontal bars from zero, each with its number and how many times the smallest it is."""
    names, sizes = list(values), list(values.values())
    least = min(size for size in sizes if size > 0)
    texts = [f"{readable(size)} {unit}".rstrip() for size in sizes]
    alt = f"{title}: " + "; ".join(f"{n} {t}" for n, t in zip(names, texts, strict=True))
    picture = Picture(7.2, 0.42 * len(values) + 0.6, alt)
    axes = picture.add_subplot()
    places = np.arange(len(values))[::-1]
    axes.barh(
        places,
        sizes,
        color=[colour if s == least else shade_of(colour) for s in sizes],
        height=0.62,
    )
    for place, size, text in zip(places, sizes, texts, strict=True):
        times = f"   {size / least:,.3g} × the smallest" if size > least else ""
        axes.text(size, place, f" {text}{times}", va="center", fontsize=8)
    axes.set_yticks(places, names)
    axes.set_xticks([])
    axes.spines[["bottom", "left"]].set_visible(False)
    axes.tick_params(left=False)
    axes.set(xlim=(0, max(sizes) * 1.45), title=title)
    return picture


def readable(size: float) -> str:
    """Four digits, and all of a whole number: 1.248, 110,720."""
    return f"{size:,.0f}" if size >= 1000 else f"{size:.4g}"


def shade_of(colour: str) -> tuple[float, float, float]:
    """A paler shade, for what is only there to compare with."""
    red, green, blue = (0.45 + 0.55 * part for part in matplotlib.colors.to_rgb(colour))
    return red, green, blue


def parameter_bars(models: Sequence[Model]) -> Picture:
    """Megabytes of float32 parameters, one bar a model: SqueezeNet against AlexNet and the rest."""
    sizes = {model.name: count(model).parameters * 4 / 1e6 for model in models}
    return bars(sizes, "MB", "Parameters, as float32")


def _kind(path: str, kernel: tuple[int, int] | None) -> str:
    if path.endswith("squeeze"):
        return style.SQUEEZE
    if path.endswith("expand1x1"):
        return style.EXPAND1
    if path.endswith("expand3x3"):
        return style.EXPAND3
    return style.CONV if kernel else style.POOL


@styled
def layer_bars(table: Table, columns: Sequence[str] = ("parameters", "multiply_adds")) -> Picture:
    """One bar a layer for each column of a count, so that one sees where the cost sits."""
    rows = [row for row in table.rows if row.parameters]
    top = {column: max(rows, key=lambda row: getattr(row, column)) for column in columns}
    picture = Picture(
        9,
        1.75 * len(columns) + 0.6,
        f"{table.model}, layer by layer. "
        + "; ".join(f"most {_words(c)}: {top[c].path}, {getattr(top[c], c):,}" for c in columns),
    )
    sheets = picture.subplots(len(columns), 1, sharex=True, squeeze=False)[:, 0]
    for axes, column in zip(sheets, columns, strict=True):
        values = [getattr(row, column) for row in rows]
        axes.bar(range(len(rows)), values, color=[_kind(row.path, row.kernel) for row in rows])
        axes.set_title(f"{_words(column)}: {short(sum(values))} in all")
        axes.yaxis.set_major_formatter(lambda value, _: short(value))
        axes.grid(axis="y")
    names = [row.path.replace("/", " ") for row in rows]
    sheets[-1].set_xticks(
        range(len(rows)), names, rotation=60, ha="right", rotation_mode="anchor", fontsize=6.5
    )
    sheets[-1].set_xlim(-0.6, len(rows) - 0.4)
    return picture


def _words(column: str) -> str:
    return column.replace("multiply_adds", "multiply-adds").replace("_", " ")


@styled
def map_sides(models: Mapping[str, Model]) -> Picture:
    """How wide the maps are on the way through each network: pixels a side of every convolution's output.

    The horizontal axis is the share of the network's convolutions passed, so that nets of different
    depths lie side by side; sides are relative to the input image.
    """
    picture = Picture(7.4, 3.0, "")
    axes = picture.add_subplot()
    texts = []
    for (name, model), colour in zip(models.items(), SERIES, strict=False):
        rows = [row for row in count(model).rows if row.kernel]
        sides = [row.out_shape[0] for row in rows]
        depth = np.arange(len(rows) + 1) / len(rows)
        axes.stairs(sides, depth, baseline=None, color=colour, linewidth=2, label=name)
        half = sides[len(sides) // 2]
        texts.append(f"{name} is at {half} of {model.input_shape[0]} pixels half way")
    picture.alt = "Side of the activation maps by depth. " + "; ".join(texts)
    axes.set_yscale("log", base=2)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.legend()
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.set(xlabel="convolutions passed", title="Pixels a side of each convolution's output")
    axes.grid(axis="y")
    return picture


@styled
def series(
    xs: Sequence[float], lines: Mapping[str, Sequence[float]], title: str, xlabel: str, ylabel: str
) -> Picture:
    """A few lines over one axis, each named at its end."""
    ends = "; ".join(f"{name} from {ys[0]:.4g} to {ys[-1]:.4g}" for name, ys in lines.items())
    picture = Picture(6.6, 2.9, f"{title}, over {xlabel} from {xs[0]:g} to {xs[-1]:g}: {ends}")
    axes = picture.add_subplot()
    for ys, colour in zip(lines.values(), SERIES, strict=False):
        axes.plot(xs, ys, color=colour, marker="o" if len(xs) < 80 else "", markersize=3.5)
    heights = [axes.transData.transform((xs[-1], ys[-1]))[1] for ys in lines.values()]
    lifted = _apart(np.array(heights) * 72 / picture.dpi, 10)
    for (name, ys), colour, lift in zip(lines.items(), SERIES, lifted, strict=False):
        axes.annotate(
            name,
            (xs[-1], ys[-1]),
            (6, lift),
            textcoords="offset points",
            color=colour,
            va="center",
            fontsize=8,
        )
    axes.set(title=title, xlabel=xlabel, ylabel=ylabel)
    axes.grid(axis="y")
    return picture


def _apart(heights: np.ndarray, least: float) -> np.ndarray:
    """How far to lift each of several names at these heights (points), so that none lies on another."""
    places = heights.copy()
    for lower, upper in pairwise(np.argsort(heights, kind="stable")):
        places[upper] = max(places[upper], places[lower] + least)
    return places - heights


@styled
def heat_maps(maps: Mapping[str, np.ndarray], title: str, signed: bool = True) -> Picture:
    """Small arrays side by side on one colour scale; two axes each, other axes are laid in rows.

    Where no array has more than 8×8 numbers, they stand in their places.
    """
    flat = {name: np.atleast_2d(array.reshape(-1, array.shape[-1])) for name, array in maps.items()}
    most = max(float(np.abs(array).max()) for array in flat.values()) or 1.0
    texts = [f"{n} from {a.min():.3g} to {a.max():.3g}" for n, a in flat.items()]
    widths = [max(a.shape[1], 2) for a in flat.values()]
    written = all(max(array.shape) <= 8 for array in flat.values())
    aspect = "equal" if all(array.ndim == 2 for array in maps.values()) else "auto"
    picture = Picture(8.4, 2.8, f"{title}: " + "; ".join(texts))
    sheets = picture.subplots(1, len(flat), squeeze=False, width_ratios=widths)[0]
    for axes, (name, array) in zip(sheets, flat.items(), strict=True):
        low = -most if signed else 0.0
        image = axes.imshow(
            array, cmap=style.DIVERGING if signed else "cividis", vmin=low, vmax=most, aspect=aspect
        )
        if written:
            _write_numbers(axes, array, signed, most)
        axes.set_title(f"{name}  {by(*maps[name].shape)}", fontsize=8.5)
        _no_ticks(axes)
    picture.colorbar(image, ax=list(sheets), fraction=0.04, pad=0.01)
    picture.suptitle(title, x=0.01, ha="left", fontsize=10)
    return picture


def _write_numbers(axes: Axes, array: np.ndarray, signed: bool, most: float) -> None:
    """Each number in its place, dark on light or light on dark."""
    for (row, column), value in np.ndenumerate(array):
        dark = abs(value) > 0.6 * most if signed else value < 0.5 * most
        axes.text(
            column, row, f"{value:.3g}", ha="center", va="center", fontsize=8,
            color="white" if dark else "black",
        )  # fmt: skip


def _no_ticks(axes: Axes) -> None:
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


@styled
def split_bars(values: Mapping[str, Mapping[str, float]], unit: str, title: str) -> Picture:
    """Grouped columns: for each measure (outer key), the options (inner keys) relative to the largest."""
    options = list(next(iter(values.values())))
    parts = [
        f"{measure}: " + ", ".join(f"{name} {short(v)}" for name, v in found.items())
        for measure, found in values.items()
    ]
    picture = Picture(8.2, 2.7, f"{title}. " + "; ".join(parts))
    axes = picture.add_subplot()
    width = 0.8 / len(options)
    for i, (option, colour) in enumerate(
        zip(options, (style.EXPAND1, style.SQUEEZE, style.EXPAND3), strict=False)
    ):
        for j, found in enumerate(values.values()):
            height = found[option] / (max(found.values()) or 1)
            x = j + (i - (len(options) - 1) / 2) * width
            axes.bar(x, height, width * 0.92, color=colour, label=option if j == 0 else None)
            axes.text(
                x, height + 0.02, short(found[option]), ha="center", fontsize=7, color=style.INK
            )
    axes.set_xticks(range(len(values)), list(values))
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.set_ylim(0, 1.12)
    axes.legend(ncols=len(options), loc="upper left", bbox_to_anchor=(0, -0.1), handlelength=1)
    axes.set_title(f"{title} {unit}".strip())
    return picture
