"""The built-in dataset: ten shapes drawn by a seed, so that a first training needs no download.

Every picture has one shape of random size, place, turn and colour, on a shaded background, among
confetti, under noise. In every class the shape and the background take their colours from the same
distribution, so that colour says nothing about the class: a network has to look at neighbouring
pixels together, which is what 3x3 filters are for.

Only +, -, *, / and square roots are used, which every machine rounds alike: a seed gives the same
bytes everywhere.
"""

from collections.abc import Callable
from functools import cache

import numpy as np
import numpy.typing as npt

from tinysqueeze.data.dataset import Dataset
from tinysqueeze.errors import DataError

SIZE = 32
COUNTS = {"train": 10_000, "test": 2_000}
SEEDS = {"train": 1, "test": 2}
RADIUS = (8.0, 13.0)  # of a shape, in pixels
CONFETTI = 5  # specks a picture
TILT = 0.45  # to either side, as a slope: 24 degrees
CONTRAST = 0.9  # the least difference between shape and ground, summed over the three channels
LIGHT = 0.3  # how much brighter one side of the picture is than the other
NOISE = 0.15  # the width of the noise, which is uniform
Array = npt.NDArray[np.floating]  # float32 all through

# --- the shapes ------------------------------------------------------------------------------
# Each is a function of the plane, (u, v) with the shape about one unit in radius, that says how far
# a point is outside the outline (negative inside), in the same unit.


def disc(u: Array, v: Array) -> Array:
    return np.sqrt(u * u + v * v) - 0.9


def ring(u: Array, v: Array) -> Array:
    return np.abs(np.sqrt(u * u + v * v) - 0.75) - 0.25


def box(u: Array, v: Array, width: float, height: float) -> Array:
    return np.maximum(np.abs(u) - width, np.abs(v) - height)


def square(u: Array, v: Array) -> Array:
    return box(u, v, 0.8, 0.8)


def triangle(u: Array, v: Array) -> Array:
    return np.maximum(0.8660254 * np.abs(u) - 0.5 * v, v) - 0.52  # the centre of mass is (0, 0)


def cross(u: Array, v: Array) -> Array:
    return np.minimum(box(u, v, 0.3, 1.0), box(u, v, 1.0, 0.3))


def star(u: Array, v: Array) -> Array:
    """Five points: the plane is folded along the star's axes until one edge is left."""
    u = np.abs(u)
    for x, y in ((0.809017, -0.587785), (-0.809017, -0.587785)):
        over = 2 * np.maximum(x * u + y * v, 0)
        u, v = u - over * x, v - over * y
    return np.abs(u) * 0.9135 + v * 0.4067 - 0.43


def heart(u: Array, v: Array) -> Array:
    u, v = np.abs(u), v + 0.1
    lobe = np.sqrt((u - 0.43) * (u - 0.43) + (v + 0.3) * (v + 0.3)) - 0.52
    wedge = np.maximum(0.76 * u + 0.65 * v - 0.652, -v - 0.02)
    return np.minimum(lobe, wedge)


def moon(u: Array, v: Array) -> Array:
    bite = 0.82 - np.sqrt((u - 0.55) * (u - 0.55) + v * v)
    return np.maximum(np.sqrt(u * u + v * v) - 1.0, bite)


def wave(t: Array) -> Array:
    """A triangle wave of period 1 between -1/4 and 1/4, rising and falling with slope 1."""
    return np.abs(t - np.floor(t) - 0.5) - 0.25


def stripes(u: Array, v: Array) -> Array:
    bars = wave(u / 0.7) * 0.7
    return np.maximum(bars, np.sqrt(u * u + v * v) - 1.0)


def checkers(u: Array, v: Array) -> Array:
    across, down = wave(u / 0.9 + 0.25) * 0.9, wave(v / 0.9 + 0.25) * 0.9
    cells = -np.sign(across * down) * np.minimum(np.abs(across), np.abs(down))
    return np.maximum(cells, box(u, v, 0.9, 0.9))


SHAPES: tuple[Callable[[Array, Array], Array], ...] = (
    disc, ring, square, triangle, cross, star, heart, moon, stripes, checkers,
)  # fmt: skip
CLASSES = tuple(shape.__name__ for shape in SHAPES)

# --- the pictures ----------------------------------------------------------------------------


def render(count: int, seed: int) -> Dataset:
    """`count` pictures, as many of each class, in a random order; the same seed, the same bytes."""
    if count < 1:
        raise DataError(f"builtin: cannot render {count} images")
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.arange(count) % len(CLASSES))
    images = np.empty((count, SIZE, SIZE, 3), np.uint8)
    for start in range(0, count, 500):  # a few megabytes at a time stay in the cache
        part = slice(start, start + 500)
        images[part] = _pictures(rng, labels[part])
    return Dataset(images, labels.astype(np.int64), CLASSES, "builtin")


def _pictures(rng: np.random.Generator, labels: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
    """(N,) labels -> (N, SIZE, SIZE, 3) uint8: ground, confetti, shape, light, noise."""
    n = len(labels)
    paint, ground = _two_colours(rng, n)
    picture = np.empty((3, n, SIZE, SIZE), np.float32)  # as three planes, which is twice as fast
    picture[:] = ground[..., None, None]
    for _ in range(CONFETTI):
        radius = _uniform(rng, n, 0.8, 2.0)
        _lay(picture, box(*_plane(rng, n, radius), 1.0, 0.6), radius, _colours(rng, n))
    radius = _uniform(rng, n, *RADIUS)
    u, v = _plane(rng, n, radius)
    outside = np.empty_like(u)
    for label, shape in enumerate(SHAPES):
        mine = labels == label
        outside[mine] = shape(u[mine], v[mine])
    _lay(picture, outside, radius, paint)
    u, _ = _plane(rng, n, _uniform(rng, n, SIZE, SIZE))
    picture *= 0.85 + LIGHT * u
    picture += NOISE * (rng.random(picture.shape, np.float32) - 0.5)
    return np.moveaxis((np.clip(picture, 0, 1) * 255 + 0.5).astype(np.uint8), 0, -1)


def _uniform(rng: np.random.Generator, n: int, low: float, high: float) -> Array:
    """(N, 1, 1): one number an image."""
    return low + (high - low) * rng.random((n, 1, 1), np.float32)


def _plane(rng: np.random.Generator, n: int, radius: Array) -> tuple[Array, Array]:
    """The pixels' places in each image's own plane: moved, tilted, mirrored, scaled by the radius.

    (N, SIZE, SIZE) twice. The centre is drawn so that a shape of that radius stays in the picture.
    """
    pixel = np.arange(SIZE, dtype=np.float32) + 0.5
    room = np.maximum(SIZE / 2 - radius, 0)
    x = pixel[None, None, :] - (SIZE / 2 + room * _uniform(rng, n, -1, 1))
    y = pixel[None, :, None] - (SIZE / 2 + room * _uniform(rng, n, -1, 1))
    slope = _uniform(rng, n, -TILT, TILT)  # the tangent, so that no sine or cosine is needed
    x *= 1 - 2 * rng.integers(0, 2, (n, 1, 1)).astype(np.float32)
    length = np.sqrt(1 + slope * slope) * radius
    return (x + slope * y) / length, (y - slope * x) / length


def _lay(picture: Array, outside: Array, radius: Array, colour: Array) -> None:
    """Paint the inside of a shape over the picture, its edge softened over one pixel."""
    cover = np.clip(0.5 - outside * radius, 0, 1)
    picture += cover * (colour[..., None, None] - picture)


def _colours(rng: np.random.Generator, n: int) -> Array:
    """(3, N): any hue, from pastel to full, from dark to bright."""
    hue, saturation, value = rng.random((3, n), np.float32)
    # Red, green and blue are the same ramp over the hue, a third of the circle apart.
    thirds = np.array([[0], [1 / 3], [2 / 3]], np.float32)
    ramp = np.abs((hue + thirds) % 1 * 6 - 3) - 1
    saturation = 0.2 + 0.8 * saturation
    return (0.25 + 0.75 * value) * (1 - saturation * (1 - np.clip(ramp, 0, 1)))


def _two_colours(rng: np.random.Generator, n: int) -> tuple[Array, Array]:
    """Shape and ground: the first of eight drawn pairs far enough apart; either may be the lighter.

    Drawing pairs, not one colour after the other, is what keeps the two distributions equal.
    """
    one = _colours(rng, 8 * n).reshape(3, 8, n)
    two = _colours(rng, 8 * n).reshape(3, 8, n)
    first = np.argmax(np.abs(one - two).sum(0) > CONTRAST, axis=0), np.arange(n)
    return one[:, *first], two[:, *first]


@cache
def dataset(split: str) -> Dataset:
    """The split "train" or "test", of seeds of their own; rendered once a process, read-only."""
    result = render(COUNTS[split], SEEDS[split])
    result.images.flags.writeable = False
    result.labels.flags.writeable = False
    return result
