"""Recipes that are there: what suits each kind of data, and those with a name and a result."""

from dataclasses import dataclass
from typing import Any

from tinysqueeze.data import Augment
from tinysqueeze.errors import UserError
from tinysqueeze.training.optimisers import Muon
from tinysqueeze.training.recipe import HardImages, Recipe, Scoring
from tinysqueeze.training.schedule import Schedule

DEFAULTS = {  # what a first run on each kind of data should use
    "builtin": Recipe(
        epochs=4, batch_size=64, schedule=Schedule(0.04, warmup=0.5),
        augment=Augment(pad=2, flip=None), average=0.99,
    ),
    "other": Recipe(
        epochs=20, batch_size=128, schedule=Schedule(0.08), augment=Augment(pad=4), smoothing=0.1,
        average=0.995,
    ),
}  # fmt: skip
FINE_TUNING = Recipe(
    epochs=3, batch_size=64, schedule=Schedule(0.01), augment=Augment(pad=0), smoothing=0.1,
    average=0.99,
)  # fmt: skip


@dataclass(frozen=True)
class NamedRecipe:
    """A network and a way to train it on CIFAR-10 that belong together, found by experiment.

    `model` are the metaparameters that differ from `squeezenet_cifar`; `purpose` says what it is for
    and what it reached on 5,000 test images of a JPEG-coded copy (notebooks/results/recipes.csv), about
    a point below the original.
    """

    purpose: str
    model: dict[str, Any]
    recipe: Recipe


SHALLOW: dict[str, Any] = {
    "norm": True, "bypass": "simple", "stem_filters": 32, "fires": 6, "pools": (1, 3, 5),
    "base_e": 64, "incr_e": 64, "squeeze_ratio": 0.5, "pct3x3": 0.75,
}  # fmt: skip
"""Six Fire modules, two each at 16x16, 8x8 and 4x4 pixels, fewer filters than the paper's but squeeze
layers half as wide as the expand layers: a small network sees more images in the same time, and the
3x3 filters are nearly free with Winograd. In ten minutes later pools end alike, in an hour they gain a
point; wider layers end alike, too, until their squeeze layers are linear."""

SWISH: dict[str, Any] = {
    "linear_squeeze": True, "activation": "hard-swish", "stem_kernel": 5, "stem_pad": 2, "pool_kernel": 3,
}  # fmt: skip
"""No batch norm and ReLU behind the squeeze layers, hard-swishes for all other ReLUs; a wider look at
the pixels first, and pooling windows that overlap."""

RECIPES: dict[str, NamedRecipe] = {
    "fast": NamedRecipe(
        "CIFAR-10 in ten minutes on 2 cores: 90 %",
        SHALLOW | SWISH | {"base_e": 96, "incr_e": 96},
        Recipe(
            epochs=22, batch_size=256, schedule=Schedule(0.2, warmup=0.05), optimiser=Muon(),
            norm_bias_rate=16, smoothing=0.1, augment=Augment(pad=4, flip="alternate", cutout=5),
            hard_images=HardImages(keep=0.5, hard=0.35), average=0.996, identity=True,
            scoring=Scoring(flip=True, shift=True, every=22),
        ),
    ),
    "best": NamedRecipe(
        "as much as an hour gives: 92.2 % in 56 minutes",
        SHALLOW | SWISH | {"base_e": 128, "incr_e": 128},
        Recipe(
            epochs=52, batch_size=256, schedule=Schedule(0.2, warmup=0.05), optimiser=Muon(),
            norm_bias_rate=16, smoothing=0.1, augment=Augment(pad=4, flip="alternate", cutmix=0.5),
            average=0.998, scoring=Scoring(flip=True, shift=True, every=13),
        ),
    ),
    "small": NamedRecipe(
        "454,602 parameters: 92.1 % in 89 minutes of one core",
        SHALLOW | SWISH | {"pools": (1, 4, 6)},
        Recipe(
            epochs=75, batch_size=256, schedule=Schedule(0.2, warmup=0.05), optimiser=Muon(),
            norm_bias_rate=16, smoothing=0.1, augment=Augment(pad=3, flip="alternate", cutmix=0.25),
            average=0.998, scoring=Scoring(flip=True, shift=True, every=25),
        ),
    ),
    "tiny": NamedRecipe(
        "122,138 parameters: 90.7 % in 53 minutes of one core",
        SHALLOW | SWISH | {"incr_e": 32, "squeeze_ratio": 0.25, "pools": (1, 4, 6)},
        Recipe(
            epochs=75, batch_size=256, schedule=Schedule(0.2, warmup=0.05), optimiser=Muon(),
            norm_bias_rate=16, smoothing=0.1, augment=Augment(pad=2, flip="alternate"),
            average=0.998, scoring=Scoring(flip=True, shift=True, every=25),
        ),
    ),
    "paper": NamedRecipe(
        "the paper's network but for its stem, without norm and bypass: 89.2 % in 71 minutes of a core",
        {},
        Recipe(
            epochs=30, batch_size=128, schedule=Schedule(0.05), optimiser=Muon(), smoothing=0.1,
            augment=Augment(pad=3, flip="alternate"), average=0.998,
            scoring=Scoring(flip=True, shift=True, every=15),
        ),
    ),
}  # fmt: skip


def find_recipe(name: str) -> NamedRecipe:
    """A recipe by name. Raises UserError."""
    if name not in RECIPES:
        raise UserError(f"no recipe named {name!r}; there are {', '.join(RECIPES)}")
    return RECIPES[name]
