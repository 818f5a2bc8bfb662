"""Do weights want their images as we assume? A cheap sign, where their file does not say.

A few made pictures, smooth at large and rough at small as photographs are (their spectra fall as 1/f:
Field 1987), go through the network. Images of a scale that it was not trained on, Caffe's 0 to 255 for
0 to 1 or the reverse, show: its biases drown them, and all answers are the same, or answers are absurdly
large. The order of the channels and another mean cost some accuracy and cannot be seen so.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np

from tinysqueeze.errors import UserError
from tinysqueeze.network.layers import Mode
from tinysqueeze.network.ops import reference
from tinysqueeze.network.ops.reference import softmax
from tinysqueeze.weights.preprocess import PRESETS, Preprocess
from tinysqueeze.weights.trained import WeightSet

PICTURES, SIZE = 4, 96
# Of the authors' weights with their images; with images 57 times too small; 57 times too large:
DEAF = 0.03  # nats: 0.4 to 0.7; 0.003; 0.7
STILL = 0.15  # deviation of a logit over the pictures: 0.5 to 1; 0.05; 39
LOUD = 12.0  # the same


@dataclass(frozen=True)
class Sign:
    """How answers depend on the picture: information (nats), and how much a logit changes."""

    nats: float
    change: float

    @property
    def deaf(self) -> bool:
        """The answers are the same whatever the picture."""
        return self.nats < DEAF and self.change < STILL

    @property
    def loud(self) -> bool:
        """The logits are absurd."""
        return not self.change < LOUD


def doubt(weights: WeightSet) -> str:
    """Why these weights may want their images otherwise, or "" where nothing speaks against it."""
    if weights.model.input_shape[2] != 3:
        return ""
    try:
        now = sign(weights, weights.preprocess)
    except UserError:  # a network that takes no such pictures is told of elsewhere
        return ""
    if not now.deaf and not now.loud:
        return ""
    others = {name: sign(weights, preset) for name, preset in PRESETS.items()}
    better = [name for name, other in others.items() if not other.deaf and not other.loud]
    seen = (
        f"the answers hardly depend on the picture ({now.nats:.1g} nats)"
        if now.deaf
        else f"the answers are absurdly large (logits change by {now.change:.0f})"
    )
    remedy = " or ".join(f"--preprocess {name}" for name in better) or "--preprocess FILE"
    return (
        f"WARNING: with images prepared in this way {seen}: these weights want them otherwise (try "
        f"{remedy}), or are not trained"
    )


def sign(weights: WeightSet, preprocess: Preprocess) -> Sign:
    """The sign under one preparation. Raises UserError where the network can't take the pictures."""
    model = weights.model
    try:
        model = model.at(SIZE)
        height, width = SIZE, SIZE
    except UserError:  # a linear layer, for instance, fixes the size
        height, width, _ = model.input_shape
    images = preprocess.scaled(pictures(PICTURES, max(height, width))[:, :height, :width])
    with np.errstate(all="ignore"):  # weights that overflow are loud, no more
        logits = model.forward(weights.params, images, Mode(reference))[0].astype(np.float64)
        probabilities = softmax(logits)
        nats = _entropy(probabilities.mean(axis=0)) - _entropy(probabilities).mean()
    return Sign(float(nats), float(logits.std(axis=0).mean()))


def _entropy(probabilities: np.ndarray) -> np.ndarray:
    return -(probabilities * np.log(probabilities + 1e-12)).sum(axis=-1)


@cache
def pictures(count: int, size: int) -> np.ndarray:
    """(count, size, size, 3) uint8, the same at every call: 1/f noise, mostly grey, of many means."""
    rng = np.random.default_rng(0)
    frequency = np.fft.fftfreq(size)
    radius = np.hypot(frequency[:, None], frequency)
    radius[0, 0] = 1 / size
    white = np.fft.fft2(rng.normal(size=(count, 4, size, size)))
    noise = np.fft.ifft2(white / radius).real
    noise /= noise.std(axis=(2, 3), keepdims=True)
    colours = 0.95 * noise[:, :1] + 0.3 * noise[:, 1:]  # the channels of a photograph go together
    means = rng.normal(118, 20, (count, 3, 1, 1))
    return np.clip(means + 62 * colours, 0, 255).astype(np.uint8).transpose(0, 2, 3, 1)
