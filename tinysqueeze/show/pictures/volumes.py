"""Activation volumes as solid boxes: the drawing that Fire and whole-network diagrams are made of."""

from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import FancyArrowPatch, Polygon, Rectangle

from tinysqueeze.show.pictures.style import INK, QUIET

SLANT = (0.34, 0.26)  # how far one unit of depth goes right and up


@dataclass(frozen=True)
class Volume:
    """A box on the paper: `x` its left edge, centred on `y`; width for channels, side for pixels."""

    x: float
    y: float
    width: float
    side: float

    @property
    def left(self) -> tuple[float, float]:
        """Where an arrow arrives, level with where one leaves."""
        return self.x, self.y + self.side * SLANT[1] / 2

    @property
    def right(self) -> tuple[float, float]:
        """Where an arrow leaves: the middle of the right face."""
        return self.x + self.width + self.side * SLANT[0], self.y + self.side * SLANT[1] / 2

    @property
    def top(self) -> tuple[float, float]:
        """The middle of the top face."""
        return (
            self.x + self.width / 2 + self.side * SLANT[0] / 2,
            self.y + self.side * (0.5 + SLANT[1]),
        )

    @property
    def foot(self) -> tuple[float, float]:
        """Under the front face."""
        return self.x + self.width / 2, self.y - self.side / 2


def shade(colour: str, by: float) -> tuple[float, float, float]:
    """Lighter for by > 0 (1 is white), darker for by < 0 (-1 is black)."""
    rgb = np.asarray(matplotlib.colors.to_rgb(colour))
    red, green, blue = rgb + (1 - rgb) * by if by > 0 else rgb * (1 + by)
    return red, green, blue


def draw_volume(
    axes: Axes, volume: Volume, parts: list[tuple[float, str]], side_shade: float = -0.25
) -> Volume:
    """Paint a box whose width is cut into coloured parts: [(share, colour), ...]."""
    x, bottom = volume.x, volume.y - volume.side / 2
    side, (right, up) = volume.side, (volume.side * SLANT[0], volume.side * SLANT[1])
    edge: Any = {"edgecolor": "white", "linewidth": 0.7, "joinstyle": "round"}
    total = sum(share for share, _ in parts)
    for share, colour in parts:
        width = volume.width * share / total
        axes.add_patch(Rectangle((x, bottom), width, side, facecolor=colour, **edge))
        top = [
            (x, bottom + side),
            (x + width, bottom + side),
            (x + width + right, bottom + side + up),
            (x + right, bottom + side + up),
        ]
        axes.add_patch(Polygon(top, facecolor=shade(colour, 0.45), **edge))
        x += width
    face = [
        (x, bottom),
        (x, bottom + side),
        (x + right, bottom + side + up),
        (x + right, bottom + up),
    ]
    axes.add_patch(Polygon(face, facecolor=shade(parts[-1][1], side_shade), **edge))
    return volume


def arrow(
    axes: Axes,
    start: tuple[float, float],
    end: tuple[float, float],
    colour: str = QUIET,
    bend: float = 0.0,
    width: float = 1.2,
) -> None:
    """An arrow from start to end; bend > 0 bows it upwards."""
    axes.add_patch(
        FancyArrowPatch(
            start,
            end,
            arrowstyle="-|>",
            mutation_scale=9,
            shrinkA=2,
            shrinkB=2,
            linewidth=width,
            color=colour,
            connectionstyle=f"arc3,rad={-bend}",
        )
    )


def note(axes: Axes, x: float, y: float, text: str, **how: Any) -> None:
    """A short text, centred at (x, y) unless told otherwise."""
    look: dict[str, Any] = {"ha": "center", "va": "center", "color": INK, "fontsize": 8} | how
    axes.text(x, y, text, **look)
