"""Pictures for a page of any colour: see-through, with a light rim around dark words; and for a dark one.

On white the rim can't be seen, and on the colours of the picture it is not there; on a dark page it
is what the words are read by. Where it is known that the page is dark, the words themselves are light.
"""

import io
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.typing import ColorType
from PIL import Image, ImageFilter

LUMA = np.array([0.299, 0.587, 0.114])  # how bright red, green and blue are
WORDS = 0.25, 0.33  # brightness: a whole rim up to the first, none from the second on


def see_through(figure: Figure, dpi: int) -> Image.Image:
    """The figure without its paper, as an RGBA image."""
    with _at(figure, dpi):
        image = _drawn(figure)
        rim = _rim(np.asarray(image), _words(figure, image.size))
    below = Image.new("RGBA", image.size, "white")
    below.putalpha(rim)
    return Image.alpha_composite(below, image)


def for_dark(figure: Figure, dpi: int) -> Image.Image:
    """The figure without its paper and with light words, as an RGBA image for a dark page."""
    with _at(figure, dpi):
        bare = _on_paper(figure)
        colours = [text.get_color() for text in bare]
        try:
            for text, colour in zip(bare, colours, strict=True):
                text.set_color(_lighter(colour))
            return _drawn(figure)
        finally:
            for text, colour in zip(bare, colours, strict=True):
                text.set_color(colour)


def on_white(image: Image.Image) -> Image.Image:
    """The same on white paper, in RGB."""
    paper = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(paper, image).convert("RGB")


@contextmanager
def _at(figure: Figure, dpi: int) -> Iterator[None]:
    """The figure drawn in so many dots an inch, and as it was again."""
    before = figure.dpi
    figure.set_dpi(dpi)
    try:
        yield
    finally:
        figure.set_dpi(before)


def _drawn(figure: Figure) -> Image.Image:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=figure.dpi, transparent=True)
    return Image.open(buffer).convert("RGBA")


Box = tuple[slice, slice]  # rows and columns of an image


def _texts(figure: Figure, size: tuple[int, int]) -> Iterator[tuple[Text, Box]]:
    """Every text that is seen, and where, in a drawing of (width, height)."""
    _, height = size
    for text in figure.findobj(Text):
        if isinstance(text, Text) and text.get_visible() and text.get_text().strip():
            box = text.get_window_extent()
            left, right = (max(round(x), 0) for x in (box.x0 - 1, box.x1 + 1))
            top, bottom = (max(round(height - y), 0) for y in (box.y1 + 1, box.y0 - 1))
            yield text, (slice(top, bottom), slice(left, right))


def _words(figure: Figure, size: tuple[int, int]) -> np.ndarray:
    """Where the figure has words: (height, width) bool."""
    found = np.zeros(size[::-1], bool)
    for _, box in _texts(figure, size):
        found[box] = True
    return found


def _on_paper(figure: Figure) -> list[Text]:
    """The texts that stand on the paper, not on a colour of the picture."""
    texts = list(_texts(figure, _drawn(figure).size))
    opaque = [text.get_alpha() for text, _ in texts]
    try:
        for text, _ in texts:
            text.set_alpha(0)  # they keep their room in the layout
        ground = np.asarray(_drawn(figure))[:, :, 3]
    finally:
        for (text, _), alpha in zip(texts, opaque, strict=True):
            text.set_alpha(alpha)
    return [text for text, box in texts if 2 * (ground[box] < 128).sum() > ground[box].size]


def _lighter(colour: ColorType) -> tuple[float, float, float]:
    """A colour with so much white in it that it is read on a dark page: the darker, the more."""
    rgb = np.array(to_rgb(colour))
    brightness = float(rgb @ LUMA)
    wanted = max(0.95 - 0.45 * brightness, brightness)
    red, green, blue = rgb + (1 - rgb) * (wanted - brightness) / max(1 - brightness, 1e-9)
    return red, green, blue


def _rim(pixels: np.ndarray, words: np.ndarray) -> Image.Image:
    """How opaque the rim is: dark words, two pixels wider, hardly soft at its edge."""
    light = pixels[:, :, :3] @ LUMA / 255
    dark = np.clip((WORDS[1] - light) / (WORDS[1] - WORDS[0]), 0, 1) * pixels[:, :, 3] * words
    wide = Image.fromarray(dark.astype(np.uint8)).filter(ImageFilter.MaxFilter(5))
    return wide.filter(ImageFilter.GaussianBlur(0.7)).point(lambda opaque: min(5 * opaque, 255))
