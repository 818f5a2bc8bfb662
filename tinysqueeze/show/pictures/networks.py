"""Diagrams of networks with their real shapes: one Fire module, and any whole chain of layers."""

import math
from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from tinysqueeze.graph import Add, lower
from tinysqueeze.network.compose import walk
from tinysqueeze.network.layers import Conv2D, Layer, Linear, Shape
from tinysqueeze.network.models import Fire, Model
from tinysqueeze.network.others import GroupedConv2D
from tinysqueeze.show.pictures import style
from tinysqueeze.show.pictures.style import Picture, bare, styled
from tinysqueeze.show.pictures.volumes import SLANT, Volume, arrow, draw_volume, note
from tinysqueeze.study.count import count, count_layer
from tinysqueeze.study.formulas import by

Weighted = Conv2D | GroupedConv2D | Linear  # the layers drawn as those that learn

# ------------------------------------------------------------------------------------ a Fire module


def _parameters(layer: Layer, in_shape: Shape) -> int:
    return count_layer(layer, in_shape).parameters


@styled
def fire_diagram(fire: Fire, in_shape: Shape = (55, 55, 96)) -> Picture:
    """A Fire module of any configuration: what goes in, the squeeze, both expands, what comes out.

    in_shape (H, W, C) is one example's. Widths are drawn in proportion to the channels.
    """
    height, width, channels = in_shape
    expand = fire.expand1x1 + fire.expand3x3
    narrow = (height, width, fire.squeeze)
    squeeze = Conv2D(fire.squeeze, 1)
    arms = [
        ("expand1x1", Conv2D(fire.expand1x1, 1), style.EXPAND1, "looks at one pixel"),
        ("expand3x3", Conv2D(fire.expand3x3, 3, pad=1), style.EXPAND3, "looks at 3×3 pixels"),
    ]
    total = _parameters(fire, in_shape)
    picture = Picture(
        8.6,
        3.0,
        f"A Fire module. Input {by(*in_shape)}; {fire.squeeze} squeeze filters of 1×1 make "
        f"{by(*narrow)}; {fire.expand1x1} filters of 1×1 and {fire.expand3x3} of 3×3 expand it side "
        f"by side; joined, the output is {by(height, width, expand)}. {total:,} parameters.",
    )
    axes = bare(picture.add_subplot())
    scale = 3.0 / max(channels, expand)
    side = 2.2
    level = side * SLANT[1] / 2  # the height of all arrows
    source = draw_volume(axes, Volume(0, 0, channels * scale, side), [(1, style.SKY)])
    middle_x = source.right[0] + 2.3
    middle = draw_volume(
        axes, Volume(middle_x, 0, fire.squeeze * scale, side), [(1, style.SQUEEZE)]
    )
    out_x = middle.right[0] + 3.1
    shares = [(float(conv.filters), colour) for _, conv, colour, _ in arms if conv.filters]
    out = draw_volume(axes, Volume(out_x, 0, expand * scale, side), shares)

    for volume, name, shape in (
        (source, "input", in_shape),
        (middle, "squeezed", narrow),
        (out, "output", (height, width, expand)),
    ):
        note(axes, volume.foot[0], volume.foot[1] - 0.3, by(*shape), weight="bold")
        note(axes, volume.foot[0], volume.foot[1] - 0.62, name, color=style.QUIET)

    arrow(axes, source.right, middle.left)
    between = (source.right[0] + middle.left[0]) / 2
    note(axes, between, level + 0.62, "squeeze", color=style.SQUEEZE, weight="bold", fontsize=9)
    note(axes, between, level + 0.3, f"{fire.squeeze} filters {by(1, 1, channels)}", fontsize=7.5)
    note(
        axes, between, level - 0.28, f"{_parameters(squeeze, in_shape):,} parameters", fontsize=7.5
    )

    starts = {"expand1x1": level + 0.85, "expand3x3": level - 0.85}
    x = (middle.right[0] + out.left[0]) / 2
    for name, conv, colour, meaning in arms:
        if not conv.filters:
            continue
        y = starts[name]
        arrow(axes, middle.right, (x - 0.95, y), colour)
        arrow(axes, (x + 0.95, y), (out.left[0], level + (y - level) * 0.4), colour)
        kernel = by(*conv.window.kernel, fire.squeeze)
        note(axes, x, y + 0.34, name, color=colour, weight="bold", fontsize=9)
        note(axes, x, y + 0.04, f"{conv.filters} filters {kernel}", fontsize=7.5)
        note(axes, x, y - 0.24, f"{_parameters(conv, narrow):,} parameters", fontsize=7.5)
        note(axes, x, y - 0.5, meaning, fontsize=7.5, color=style.QUIET)
    axes.set(xlim=(-0.2, out.right[0] + 0.2), ylim=(-1.95, 1.8))
    picture.suptitle(
        f"Fire module: {total:,} parameters; a plain 3×3 layer of the same width has "
        f"{9 * channels * expand + expand:,}",
        x=0.01,
        ha="left",
        fontsize=10,
    )
    return picture


# ---------------------------------------------------------------------------------- whole networks


class _Volume(NamedTuple):
    """A step worth a volume, and how it is painted."""

    name: str
    shape: Shape  # (H, W, C) or (C,) of what it gives
    colours: list[tuple[float, str]]
    arc: str | None  # the colour of the bypass around it


def _drawn(model: Model) -> list[_Volume]:
    """The steps that change the shape or learn."""
    nodes = lower(model).nodes
    around = {node.path.split("/")[0] for node in nodes if isinstance(node, Add)}
    by_layers = {node.path.split("/")[0] for node in nodes if "/bypass" in node.path}
    steps, shape = [], model.input_shape
    for name, layer in model.steps:
        parts = [part for _, part, *_ in walk(layer, shape)]
        after, learns = layer.out_shape(shape), any(isinstance(p, Weighted) for p in parts)
        if after != shape or learns:
            arc = (style.RED if name in by_layers else style.QUIET) if name in around else None
            steps.append(_Volume(name, after, _colours(parts, learns), arc))
        shape = after
    return steps


def _colours(parts: list[Layer], learns: bool) -> list[tuple[float, str]]:
    """How a step's volume is painted: a Fire's expand layers by their shares."""
    for part in parts:
        if isinstance(part, Fire):
            shares = [
                (float(part.expand1x1), style.EXPAND1),
                (float(part.expand3x3), style.EXPAND3),
            ]
            return [share for share in shares if share[0]]
    return [(1.0, style.CONV if learns else style.POOL)]


def _size(shape: Shape, largest: float) -> tuple[float, float]:
    """(width, side) on paper. Roots, so that 13 pixels and 1,000 channels stay readable."""
    if len(shape) == 1:
        return min(0.025 * math.sqrt(shape[0]), 1.3), 0.3
    return 0.025 * math.sqrt(shape[2]), 2.6 * math.sqrt(shape[0] / largest)


@styled
def network_diagram(model: Model) -> Picture:
    """A whole network, each step's output as a volume with its real shape, bypasses as arcs.

    Heights go with the square root of the pixels a side, widths with that of the channels. Works for
    any `Model`: SqueezeNet in every variant, AlexNet, VGG.
    """
    picture = Picture(11, 3.6, _in_words(model, model.name))
    axes = bare(picture.add_subplot())
    right = _draw_network(axes, model, _drawn(model))
    axes.set(xlim=(-0.35, right + 0.45), ylim=(-2.6, 2.3))
    picture.set_size_inches(11, 11 * 4.9 / (right + 0.8) + 0.25)
    _legend(axes, [model])
    picture.suptitle(_headline(model, model.name), x=0.01, ha="left", fontsize=10)
    return picture


@styled
def networks_beside(models: Sequence[Model], names: Sequence[str] = ()) -> Picture:
    """The activation volumes of several networks, one below the other on one scale; maps only.

    `names` say what each is where the model's own name does not.
    """
    names = names or [model.name for model in models]
    picture = Picture(11, 3.4 * len(models), " Beside it: ".join(map(_in_words, models, names)))
    sheets, ends = picture.subplots(len(models), 1, squeeze=False)[:, 0], []
    for axes, model, name in zip(sheets, models, names, strict=True):
        bare(axes).set_title(_headline(model, name))
        ends.append(
            _draw_network(axes, model, [step for step in _drawn(model) if len(step.shape) == 3])
        )
        axes.set_ylim(-2.6, 2.2)
    for axes in sheets:
        axes.set_xlim(-0.35, max(ends) + 0.45)
    picture.set_size_inches(11, len(models) * (11 * 4.8 / (max(ends) + 0.8) + 0.2))
    _legend(sheets[0], models)
    return picture


def _in_words(model: Model, name: str) -> str:
    drawn = _drawn(model)
    steps = ", ".join(f"{step.name} {by(*step.shape)}" for step in drawn)
    around = ", ".join(step.name for step in drawn if step.arc)
    bypass = f" A bypass goes around {around}." if around else ""
    parameters = count(model).parameters
    return f"{name} from image to class scores: {steps}.{bypass} {parameters:,} parameters."


def _headline(model: Model, name: str) -> str:
    table = count(model)
    return (
        f"{name}: {table.parameters:,} parameters, {table.parameters * 4 / 1e6:.1f} MB, "
        f"{table.multiply_adds / 1e6:,.0f} million multiply-adds an image"
    )


def _draw_network(axes: Axes, model: Model, steps: list[_Volume]) -> float:
    """Paint the image and each step's volume from left to right; where the last one ends."""
    largest = model.input_shape[0]
    last = Volume(0, 0, *_size(model.input_shape, largest))
    draw_volume(axes, last, [(1, style.SKY)], side_shade=0.15)
    _label(axes, last, "image", model.input_shape)
    for step in steps:
        x = max(last.right[0] + 0.14, last.foot[0] + 0.62)
        volume = draw_volume(axes, Volume(x, 0, *_size(step.shape, largest)), step.colours)
        _label(axes, volume, step.name, step.shape)
        if step.arc:
            arrow(axes, last.top, volume.top, step.arc, bend=0.55, width=1.0)
        last = volume
    return last.right[0]


def _label(axes: Axes, volume: Volume, name: str, shape: Shape) -> None:
    x = volume.foot[0]
    note(
        axes,
        x,
        -1.95,
        name,
        fontsize=9.5,
        rotation=40,
        rotation_mode="anchor",
        ha="right",
        va="top",
    )
    text = f"{shape[0]}²\n×{shape[2]}" if len(shape) == 3 else f"{shape[0]}"
    note(axes, x, volume.foot[1] - 0.06, text, fontsize=8.5, color=style.QUIET, va="top")


def _legend(axes: Axes, models: Sequence[Model]) -> None:
    kinds = [("convolution", style.CONV), ("pool", style.POOL)]
    used = {colour for model in models for step in _drawn(model) for _, colour in step.colours}
    if used & {style.EXPAND1, style.EXPAND3}:
        kinds += [("Fire: 1×1 expand", style.EXPAND1), ("Fire: 3×3 expand", style.EXPAND3)]
    marks = [Rectangle((0, 0), 1, 1, facecolor=colour) for _, colour in kinds]
    names = [name for name, _ in kinds]
    axes.legend(marks, names, loc="upper right", ncols=len(kinds), handlelength=1, fontsize=9)
