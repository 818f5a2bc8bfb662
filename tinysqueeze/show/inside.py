"""Look inside a trained network: what its first filters are, where it looks, which pixels count.

Every function takes a weight set and a photograph and returns a picture; the numbers behind the
pictures come from functions beside them, through our own forward and backward.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray
from PIL import Image

from tinysqueeze.errors import UserError
from tinysqueeze.network import layers
from tinysqueeze.network.compose import leaves, map_leaves
from tinysqueeze.network.layers import EVAL, Cache, Layer, Mode, Params
from tinysqueeze.network.models import Model
from tinysqueeze.network.others import GroupedConv2D
from tinysqueeze.show.pictures.style import ORANGE, SEQUENTIAL, Picture, bare, styled
from tinysqueeze.study.trace import Trace, trace
from tinysqueeze.weights import Prediction, WeightSet, open_image

Array = NDArray[np.float32]


# --- the numbers --------------------------------------------------------------------------------


def look(weights: WeightSet, image: Image.Image) -> Trace:
    """One forward pass of a photograph, everything kept by path: look(w, image)["fire4"].y."""
    return trace(weights.model, weights.params, weights.preprocess(image)[None])


def class_activation_map(weights: WeightSet, image: Image.Image, index: int) -> Array:
    """How much each place speaks for class `index`: (height, width), whose mean is the logit.

    Zhou et al. 2016, for free: SqueezeNet ends in a 1x1 convolution and an average over all places,
    so that what is averaged for a class is its map. Raises UserError for a network that ends
    otherwise.
    """
    return _maps_of_classes(weights, look(weights, image))[..., index]


def _maps_of_classes(weights: WeightSet, seen: Trace) -> Array:
    """(height, width, classes): what the global average pool, the last step, averages."""
    name, last = weights.model.steps[-1]
    maps = seen[name].x[0]
    if maps.ndim != 3:
        raise UserError(f"{weights.model.name} ends in {last}: it has no maps of its classes")
    return maps


@dataclass(frozen=True)
class GuidedReLU(layers.ReLU):
    """A ReLU that hands back only what speaks for the class (Springenberg et al. 2015)."""

    def backward(
        self, params: Params, cache: Cache, dy: np.ndarray, mode: Mode = EVAL
    ) -> tuple[np.ndarray, Params]:
        """dy where both it and y were positive."""
        return super().backward(params, cache, np.maximum(dy, 0), mode)


def input_gradient(
    weights: WeightSet, image: Image.Image, index: int, guided: bool = False
) -> Array:
    """d logit of class `index` / d pixel, (height, width, 3) in RGB order.

    The plain gradient is exact but noisy. Guided, every ReLU also drops what is negative on the way
    back: no longer a derivative, but it shows the shapes that excited the network.
    """
    model: Layer = weights.model
    if guided:
        model = map_leaves(
            lambda _, layer: GuidedReLU() if isinstance(layer, layers.ReLU) else layer, model
        )
    logits, cache = model.forward(weights.params, weights.preprocess(image)[None])
    dlogits = np.zeros_like(logits)
    dlogits[0, index] = 1
    dx, _ = model.backward(weights.params, cache, dlogits)
    return _rgb(weights, dx[0])


def _rgb(weights: WeightSet, pixels: Array) -> Array:
    return pixels if weights.preprocess.channels == "RGB" else pixels[..., ::-1]


def extent(model: Model, path: str) -> tuple[float, float, float, float]:
    """Where the map of `path` lies on the image: left, right, bottom, top in pixels.

    A place of the map stands for the middle of the window of pixels that it sees, so a ring of
    padding lies outside, and the map need not reach the edges. Raises UserError for an unknown
    path.
    """
    jump, middle = np.ones(2), np.full(2, 0.5)  # pixels between neighbours; the first one's middle
    size = None
    for name, layer, _, out_shape in leaves(model, model.input_shape):
        if size is not None and not name.startswith(f"{path}/"):
            break
        if isinstance(layer, layers.Conv2D | GroupedConv2D | layers.MaxPool2D | layers.AvgPool2D):
            window = layer.window
            middle += ((np.array(window.kernel) - 1) / 2 - window.pad) * jump
            jump *= window.stride
        if name == path or name.startswith(f"{path}/"):
            size = out_shape
    if size is None or len(size) != 3:
        raise UserError(f"{path} is no layer of {model.name} that has maps")
    (top, left), (down, across) = middle - jump / 2, jump * size[:2]
    return float(left), float(left + across), float(top + down), float(top)


# --- the pictures -------------------------------------------------------------------------------


@styled
def first_filters(weights: WeightSet) -> Picture:
    """The filters of the first layer as little colour images, each stretched to its own range."""
    path = "conv1/weight"
    filters = _rgb(weights, weights.flat[path].transpose(3, 0, 1, 2))  # (filters, K, K, 3)
    height, width = filters.shape[1:3]
    alt = f"The {len(filters)} filters of {path}, {height}×{width} pixels each, in colour."
    columns = 12
    rows = -(-len(filters) // columns)
    picture = Picture(8, 8 * rows / columns + 0.4, alt)
    for i, axes in enumerate(picture.subplots(rows, columns, squeeze=False).flat):
        bare(axes)
        if i < len(filters):
            reach = np.abs(filters[i]).max() or 1
            axes.imshow(0.5 + filters[i] / (2 * reach))  # grey is zero
    picture.suptitle(f"{path}: {len(filters)} filters of {height}×{width}; grey is zero", x=0.5)
    return picture


@styled
def activation_maps(weights: WeightSet, image: Image.Image, path: str, most: int = 24) -> Picture:
    """The photograph, then the strongest channels of a layer's output, in order of their mean."""
    seen = look(weights, image)
    if path not in seen.records or seen[path].y.ndim != 4:
        places = [name for name, record in seen.records.items() if name and record.y.ndim == 4]
        raise UserError(f"no maps at {path!r}; there are {', '.join(places)}")
    maps = seen[path].y[0]
    means = maps.mean(axis=(0, 1))
    chosen = np.argsort(-means, kind="stable")[:most]
    dead = int((np.abs(maps).max(axis=(0, 1)) == 0).sum())
    size = "×".join(map(str, maps.shape))
    alt = f"The {len(chosen)} strongest of {maps.shape[2]} channels of {path} for one photograph."
    columns = 5
    rows = -(-(len(chosen) + 1) // columns)
    picture = Picture(8, 8 * rows / columns + 0.5, alt)
    panels = list(picture.subplots(rows, columns, squeeze=False).flat)
    for axes in panels:
        bare(axes)
    panels[0].imshow(weights.preprocess.framed(image))
    brightest = maps[..., chosen].max()
    for axes, channel in zip(panels[1:], chosen, strict=False):
        axes.imshow(maps[..., channel], cmap=SEQUENTIAL, vmin=min(maps.min(), 0), vmax=brightest)
        axes.set_title(f"{channel}", fontsize=7, loc="left", pad=2)
    silent = f", {dead} of them silent here" if dead else ""
    picture.suptitle(f"{path}, {size}: the strongest channels{silent}")
    return picture


@styled
def class_maps(
    weights: WeightSet, image: Image.Image, classes: Sequence[int] | None = None
) -> Picture:
    """Where the network sees each class: its class activation map over the photograph.

    `classes` defaults to the three likeliest. All maps share one scale.
    """
    seen = look(weights, image)
    maps = _maps_of_classes(weights, seen)
    logits = seen.logits[0]
    chosen = list(np.argsort(-logits, kind="stable")[:3]) if classes is None else list(classes)
    names = [weights.class_name(int(index)) for index in chosen]
    alt = f"A photograph and, over it, where the network sees {', '.join(names)}."
    picture = Picture(2.6 * (len(chosen) + 1), 3.0, alt)
    panels = picture.subplots(1, len(chosen) + 1)
    photograph = np.asarray(weights.preprocess.framed(image))
    grey = photograph.mean(axis=2)
    _photograph(panels[0], photograph, "photograph")
    place = extent(weights.model, weights.model.steps[-2][0])
    brightest = max(float(maps[..., chosen].max()), 1e-12)
    for axes, index, name in zip(panels[1:], chosen, names, strict=True):
        _photograph(axes, grey, f"{name} {logits[index]:.1f}", cmap="gray")
        axes.imshow(
            np.maximum(maps[..., index], 0) / brightest,
            extent=place, cmap="inferno", alpha=0.6, vmin=0, vmax=1, interpolation="bilinear",
        )  # fmt: skip
        axes.set(xlim=(0, grey.shape[1]), ylim=(grey.shape[0], 0))
    picture.suptitle("Class activation maps, with the score of each class (its map's mean)")
    return picture


@styled
def pixels_that_count(weights: WeightSet, image: Image.Image, index: int | None = None) -> Picture:
    """The pixels that a decision hangs on: plain and guided gradients of the class's logit.

    `index` defaults to the likeliest class.
    """
    if index is None:
        index = int(look(weights, image).logits.argmax())
    name = weights.class_name(index)
    picture = Picture(8.4, 3.2, f"A photograph, and which of its pixels speak for {name}.")
    panels = picture.subplots(1, 3)
    _photograph(panels[0], np.asarray(weights.preprocess.framed(image)), "photograph")
    plain = np.abs(input_gradient(weights, image, index)).max(axis=2)
    limit = float(np.quantile(plain, 0.995)) or 1.0
    _photograph(panels[1], plain, "gradient, its size", cmap=SEQUENTIAL, vmin=0, vmax=limit)
    guided = input_gradient(weights, image, index, guided=True)
    reach = float(np.quantile(np.abs(guided), 0.998)) or 1.0
    _photograph(panels[2], np.clip(0.5 + guided / (2 * reach), 0, 1), "guided gradient, in colour")
    picture.suptitle(f"What “{name}” hangs on")
    return picture


def _photograph(axes: Axes, pixels: np.ndarray, title: str, **shown: object) -> None:
    bare(axes)
    height, width = pixels.shape[:2]
    axes.imshow(pixels, extent=(0, width, height, 0), **shown)  # type: ignore[arg-type]
    axes.set_title(title, fontsize=9)


@styled
def prediction_sheet(predictions: Sequence[Prediction], top: int = 5) -> Picture:
    """Photographs from files, each with bars for its likeliest classes."""
    columns = min(5, max(len(predictions), 1))
    rows = -(-len(predictions) // columns) or 1
    alt = f"{len(predictions)} photographs, each with its {top} likeliest classes as bars."
    picture = Picture(2.6 * columns, (2.3 + 0.2 * top) * rows, alt)
    panels = picture.subplots(
        2 * rows, columns, squeeze=False, height_ratios=[2.3, 0.2 * top] * rows
    )
    for axes in panels.flat:
        axes.axis("off")
    for i, prediction in enumerate(predictions):
        row, column = divmod(i, columns)
        photograph, bars = panels[2 * row, column], panels[2 * row + 1, column]
        if prediction.path is None:
            raise UserError("a sheet shows photographs from files: classify paths, not arrays")
        thumbnail = open_image(prediction.path)
        thumbnail.thumbnail((256, 256))
        photograph.imshow(thumbnail)
        photograph.set_title(_shortened(prediction.path.name, 34), fontsize=7, loc="center")
        _bars(bars, prediction, top)
    return picture


def _bars(axes: Axes, prediction: Prediction, top: int) -> None:
    guesses = prediction.best(top)
    places = list(range(len(guesses)))
    axes.barh(places, [guess.probability for guess in guesses], color=ORANGE, height=0.8)
    for place, guess in zip(places, guesses, strict=True):
        text = f"{_shortened(guess.name, 30)}  {guess.probability:.0%}"
        axes.text(0.01, place, text, va="center", fontsize=7)
    axes.set(xlim=(0, 1), ylim=(len(guesses) - 0.5, -0.5))


def _shortened(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"
