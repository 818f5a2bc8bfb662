"""Pictures for a page of any colour: see-through, with a light rim around dark words.

On white the rim can't be seen, and on the colours of the picture it is not there; on a dark page it
is what the words are read by.
"""

import io

import numpy as np
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image, ImageFilter

WORDS = 0.25, 0.33  # brightness: a whole rim up to the first, none from the second on


def see_through(figure: Figure, dpi: int) -> Image.Image:
    """The figure without its paper, as an RGBA image."""
    buffer, before = io.BytesIO(), figure.dpi
    figure.set_dpi(dpi)
    try:
        figure.savefig(buffer, format="png", dpi=dpi, transparent=True)
        image = Image.open(buffer).convert("RGBA")
        rim = _rim(np.asarray(image), _words(figure, image.size))
    finally:
        figure.set_dpi(before)
    below = Image.new("RGBA", image.size, "white")
    below.putalpha(rim)
    return Image.alpha_composite(below, image)


def on_white(image: Image.Image) -> Image.Image:
    """The same on white paper, in RGB."""
    paper = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(paper, image).convert("RGB")


def _words(figure: Figure, size: tuple[int, int]) -> np.ndarray:
    """Where the figure has words: (height, width) bool."""
    width, height = size
    found = np.zeros((height, width), bool)
    for text in figure.findobj(Text):
        if isinstance(text, Text) and text.get_visible() and text.get_text().strip():
            box = text.get_window_extent()
            left, right = (round(x) for x in (box.x0 - 1, box.x1 + 1))
            top, bottom = (round(height - y) for y in (box.y1 + 1, box.y0 - 1))
            found[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)] = True
    return found


def _rim(pixels: np.ndarray, words: np.ndarray) -> Image.Image:
    """How opaque the rim is: dark words, two pixels wider, hardly soft at its edge."""
    light = pixels[:, :, :3] @ np.array([0.299, 0.587, 0.114]) / 255
    dark = np.clip((WORDS[1] - light) / (WORDS[1] - WORDS[0]), 0, 1) * pixels[:, :, 3] * words
    wide = Image.fromarray(dark.astype(np.uint8)).filter(ImageFilter.MaxFilter(5))
    return wide.filter(ImageFilter.GaussianBlur(0.7)).point(lambda opaque: min(5 * opaque, 255))
