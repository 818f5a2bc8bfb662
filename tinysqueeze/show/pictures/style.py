"""What all pictures share: the palette, the typography, and figures that carry their own alt text."""

import base64
import functools
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image, ImageChops

from tinysqueeze.files import PICTURES, check_writable, write_atomically
from tinysqueeze.show.pictures.ground import for_dark, on_white, see_through

# Okabe and Ito's colours, told apart by every kind of colour vision; each has one meaning throughout.
INK, QUIET, FAINT = "#2b2b33", "#8a8a94", "#e9e9ee"
BLUE, ORANGE, GREEN = "#0072b2", "#e69f00", "#009e73"
RED, PURPLE, SKY = "#d55e00", "#cc79a7", "#56b4e9"
CONV, SQUEEZE, EXPAND1, EXPAND3, POOL = PURPLE, BLUE, ORANGE, GREEN, "#b9b9c3"
SEQUENTIAL, DIVERGING = "cividis", "PuOr"  # both survive colour blindness and grey print

STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": QUIET,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "figure.dpi": 100,
    "savefig.facecolor": "white",
    "grid.color": QUIET,
    "grid.alpha": 0.25,
    "lines.linewidth": 1.8,
    "image.cmap": SEQUENTIAL,
    "image.interpolation": "nearest",
}

P = ParamSpec("P")
T = TypeVar("T")


def styled(draw: Callable[P, T]) -> Callable[P, T]:
    """Draw in this package's style, whatever the user's own matplotlib settings are."""

    @functools.wraps(draw)
    def inside(*args: P.args, **kwargs: P.kwargs) -> T:
        with matplotlib.rc_context(STYLE):
            return draw(*args, **kwargs)

    return inside


class Picture(Figure):
    """A matplotlib figure with alternative text; a notebook shows it without pyplot.

    `alt` says in words what the picture shows. `save(path)` writes it, the text included, where the
    format has room for it.
    """

    def __init__(self, width: float, height: float, alt: str = "") -> None:
        """Width and height in inches."""
        super().__init__(figsize=(width, height), layout="constrained")
        self.alt = alt

    def __repr__(self) -> str:
        return f"[picture: {self.alt}]"

    def png(self, dpi: int = 90) -> bytes:
        """The picture as PNG bytes without paper, of at most 256 colours, which is what a diagram needs."""
        return _small_png(self._pixels(dpi))

    def html(self, dpi: int = 90) -> str:
        """A `<picture>` element with the alternative text: on a dark page its words are light."""
        with matplotlib.rc_context(STYLE):
            dark = base64.b64encode(_small_png(for_dark(self, dpi))).decode()
        source = (
            f'<source media="(prefers-color-scheme: dark)" srcset="data:image/png;base64,{dark}">'
        )
        return f"<picture>{source}{img(self.png(dpi), self.alt)}</picture>"

    def save(self, path: str, dpi: int = 150) -> None:
        """Write a file, whole or not at all; the format follows the name (.png, .svg, .pdf).

        Raises UserError where it cannot be written.
        """
        check_writable(path, PICTURES)
        kind, buffer = Path(path).suffix[1:].lower(), io.BytesIO()
        key = {"svg": "Title", "pdf": "Subject"}.get(kind, "Description")
        self.savefig(buffer, format=kind, dpi=dpi, metadata={key: self.alt})
        write_atomically(path, buffer.getvalue())

    def _pixels(self, dpi: int) -> Image.Image:
        with matplotlib.rc_context(STYLE):
            return see_through(self, dpi)

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        data = {"image/png": self.png(), "text/plain": repr(self)}
        return data, {"image/png": {"alt": self.alt}}


class Movie:
    """An animation: `draw(picture, i)` paints frame i on an empty picture.

    A notebook shows it as a GIF. `frame(i)` and `strip()` are the still forms, for print and for
    places that show no animation.
    """

    def __init__(
        self,
        draw: Callable[[Picture, int], None],
        frames: int,
        size: tuple[float, float],
        alt: str,
        seconds: float = 0.5,
    ) -> None:
        """`size` in inches, `seconds` a frame."""
        self.draw, self.frames, self.size, self.alt, self.seconds = draw, frames, size, alt, seconds

    def __repr__(self) -> str:
        return f"[animation of {self.frames} frames: {self.alt}]"

    def frame(self, i: int) -> Picture:
        """Frame i as a picture. Negative i count from the end."""
        picture = Picture(*self.size, f"{self.alt} (frame {i % self.frames + 1} of {self.frames})")
        with matplotlib.rc_context(STYLE):
            self.draw(picture, i % self.frames)
        return picture

    def gif(self, dpi: int = 90) -> bytes:
        """The animation as GIF bytes without paper: three times, then it rests on the last frame."""
        clear = [self.frame(i)._pixels(dpi) for i in range(self.frames)]
        pictures = [on_white(picture) for picture in clear]
        # One palette for all frames, so that colours do not flicker; the last of it is no colour.
        sheet = Image.fromarray(
            np.concatenate([np.asarray(p) for p in pictures[:: len(pictures) // 4 or 1]])
        )
        palette = sheet.quantize(63, dither=Image.Dither.NONE)
        # What is clear is so in all frames: then each has to hold only what changes.
        opaque = functools.reduce(ImageChops.lighter, (glass.getchannel("A") for glass in clear))
        frames = [p.quantize(palette=palette, dither=Image.Dither.NONE) for p in pictures]
        for frame in frames:
            frame.paste(63, mask=opaque.point(lambda alpha: 255 * (alpha < 128)))
        each = round(self.seconds * 1000)
        buffer = io.BytesIO()
        frames[0].save(
            buffer,
            format="GIF",
            save_all=True,
            append_images=frames[1:],
            duration=[each] * (len(frames) - 1) + [4 * each],
            loop=2,  # two more times; nothing moves for ever beside a text that is being read
            transparency=63,
            optimize=True,
        )
        return buffer.getvalue()

    def save(self, path: str, dpi: int = 100) -> None:
        """Write a GIF. Raises UserError where it cannot be written."""
        write_atomically(path, self.gif(dpi))

    def to_jshtml(self, dpi: int = 70) -> str:
        """A player with buttons, as HTML and JavaScript (matplotlib's)."""
        from matplotlib.animation import FuncAnimation

        picture = Picture(*self.size, self.alt)
        picture.set_dpi(dpi)

        def paint(i: int) -> Sequence[Any]:
            picture.clear()
            self.draw(picture, i)
            return ()

        with matplotlib.rc_context(STYLE):
            movie = FuncAnimation(
                picture, paint, frames=self.frames, interval=self.seconds * 1000, blit=False
            )
            return movie.to_jshtml(default_mode="once")

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        gif = base64.b64encode(self.gif()).decode()
        return {"image/gif": gif, "text/plain": repr(self)}, {"image/gif": {"alt": self.alt}}


def _small_png(image: Image.Image, enough: int = 80_000) -> bytes:
    """A PNG of 256 colours; of fewer where it would be large, as photographs are."""
    data = b""
    for colours in (256, 64, 32):
        buffer = io.BytesIO()
        few = image.quantize(colours, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
        few.save(buffer, "PNG", optimize=True)
        data = buffer.getvalue()
        if len(data) < enough:
            break
    return data


def img(png: bytes, alt: str, style: str = "max-width:100%") -> str:
    """PNG bytes as an HTML `<img>` element."""
    text = alt.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    data = base64.b64encode(png).decode()
    return f'<img alt="{text}" style="{style}" src="data:image/png;base64,{data}">'


def bare(axes: Axes) -> Axes:
    """An axes that is only a sheet of paper: no frame, no ticks, equal scales."""
    axes.set_aspect("equal")
    axes.axis("off")
    return axes


def text_on(colour: str) -> str:
    """Ink or white, whichever is read more easily on `colour`."""
    red, green, blue = matplotlib.colors.to_rgb(colour)
    return "white" if 0.299 * red + 0.587 * green + 0.114 * blue < 0.55 else INK
