"""Two drawings of ours, of things that CIFAR-10 has classes for: no photograph needs to be shipped."""

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from tinysqueeze.errors import UserError

FINE = 8  # drawn so many times larger, then shrunk: soft edges


def drawing(name: str, size: int = 32) -> Image.Image:
    """ "ship" or "airplane", RGB, size x size pixels. Raises UserError for another name."""
    if name not in DRAWINGS:
        raise UserError(f"no drawing named {name!r}; there are {', '.join(DRAWINGS)}")
    side = 32 * FINE
    picture = _gradient(side, *SKIES[name])
    DRAWINGS[name](ImageDraw.Draw(picture), FINE)
    rng = np.random.default_rng(1)  # a little grain, as in a photograph
    pixels = np.asarray(picture.filter(ImageFilter.GaussianBlur(FINE / 3)), np.float32)
    grain = rng.normal(0, 5, (32, 32, 1)).repeat(FINE, 0).repeat(FINE, 1)
    noisy = Image.fromarray(np.clip(pixels + grain, 0, 255).astype(np.uint8))
    return noisy.resize((size, size), Image.Resampling.BOX)


Colour = tuple[int, int, int]


def _gradient(side: int, top: Colour, bottom: Colour) -> Image.Image:
    share = np.linspace(0, 1, side)[:, None, None]
    rows = np.array(top) * (1 - share) + np.array(bottom) * share
    return Image.fromarray(np.broadcast_to(rows, (side, side, 3)).astype(np.uint8))


def _polygon(
    draw: ImageDraw.ImageDraw, s: int, points: list[tuple[float, float]], fill: Colour
) -> None:
    draw.polygon([(x * s, y * s) for x, y in points], fill=fill)


def _ship(draw: ImageDraw.ImageDraw, s: int) -> None:
    """A cargo ship on the sea, seen from the side."""
    draw.rectangle((0, 20 * s, 32 * s, 32 * s), fill=(44, 84, 122))
    for y, shade in ((22, 60), (25, 74), (28, 52), (30, 66)):
        draw.line(
            (0, y * s, 32 * s, (y + 0.6) * s), fill=(shade, shade + 42, shade + 80), width=s // 2
        )
    _polygon(draw, s, [(2, 17), (30, 16), (27, 22.5), (5, 22.5)], (38, 38, 46))
    _polygon(draw, s, [(4.3, 21), (28, 21), (27, 22.8), (5, 22.8)], (140, 40, 36))
    draw.rectangle((18 * s, 9 * s, 26 * s, 16.5 * s), fill=(236, 236, 232))
    draw.rectangle((20 * s, 6 * s, 25 * s, 9 * s), fill=(222, 222, 220))
    draw.rectangle((21.5 * s, 3 * s, 23.5 * s, 6 * s), fill=(190, 60, 44))
    for x in (19, 21, 23):
        draw.rectangle((x * s, 11 * s, (x + 1) * s, 12.5 * s), fill=(60, 76, 96))
    for x, colour in ((5, (170, 70, 50)), (9, (70, 120, 80)), (13, (190, 150, 60))):
        draw.rectangle((x * s, 13.5 * s, (x + 3.4) * s, 17 * s), fill=colour)


def _airplane(draw: ImageDraw.ImageDraw, s: int) -> None:
    """An airliner in the sky, seen from the side and a little below."""
    _polygon(
        draw,
        s,
        [(3, 17), (5, 15), (25, 12.5), (29.5, 14), (29, 15.6), (25, 17), (6, 18.6)],
        (232, 234, 238),
    )
    _polygon(draw, s, [(6, 18.6), (25, 17), (29, 15.6), (25, 17.8), (8, 19.2)], (150, 156, 168))
    _polygon(draw, s, [(3, 16.5), (1.4, 9), (4.6, 9), (8.5, 15.2)], (60, 84, 140))
    _polygon(draw, s, [(13, 17), (19, 16.4), (11, 25.5), (8.6, 25.5)], (176, 182, 194))
    _polygon(draw, s, [(15, 13.6), (19, 13.2), (15, 7.5), (13, 7.5)], (196, 202, 212))
    _polygon(draw, s, [(3.4, 16.6), (7, 16.4), (3, 20), (1.6, 20)], (170, 176, 188))
    draw.line((9 * s, 15.6 * s, 25 * s, 14 * s), fill=(70, 90, 130), width=s // 2)


SKIES = {"ship": ((168, 196, 222), (206, 218, 226)), "airplane": ((86, 140, 206), (176, 208, 238))}
DRAWINGS = {"ship": _ship, "airplane": _airplane}
