"""How to train, as values: what a recipe says, the usual ones, and those with a name and a result."""

from dataclasses import asdict, dataclass, fields
from fnmatch import fnmatch
from typing import Any, Literal

import numpy as np

from tinysqueeze.data import Augment
from tinysqueeze.errors import UserError
from tinysqueeze.network.models import Model
from tinysqueeze.network.params import trained_shapes
from tinysqueeze.training.optimisers import SGD, Adam, Muon, Optimiser, learning_rate

WHOLE_EPOCHS = 2
"""After so many epochs of all images, losses say which are hard."""


@dataclass(frozen=True)
class Recipe:
    """How to train, as a value that a checkpoint keeps.

    `lr` is the peak of the schedule ("one-cycle", "cosine", "polynomial", "constant"), reached after
    the share `warmup` of all steps (see `optim.learning_rate`; a step takes the rate of its middle). The
    biases of batch norms learn `norm_bias_rate` times as fast (by larger gradients, of which Adam would
    make nothing: there it must be 1). Weight decay is for weights, not for biases and norms. `pad`,
    `flip`, `cutout` and `cutmix` are those of `data.Augment` (`flip` "" for none). `average` is the
    share kept each step of the running average of the parameters (0: none) that is evaluated and saved
    beside them. From the third epoch on, an epoch is the share `keep` of all images: the share `hard`
    (of all) whose losses were largest when last seen, and others by chance; so loss and accuracy of such
    an epoch are worse than those of all images. `flip_test` averages the logits of an image and its
    mirror image wherever this training is evaluated, which is after every `test_every`-th epoch and the
    last; `shift_test` those of an image moved by up to a pixel. `identity` is how 3x3 filters start, see
    `params.initialise`. `frozen` are patterns of paths that stay as they are ("conv1*", "fire[2-5]/*").
    """

    epochs: int = 10
    batch_size: int = 64
    lr: float = 0.05
    schedule: str = "one-cycle"
    warmup: float = 0.25
    optimiser: str = "sgd"
    momentum: float = 0.9
    nesterov: bool = True
    weight_decay: float = 5e-4
    norm_bias_rate: float = 1.0
    smoothing: float = 0.0
    pad: int = 0
    flip: Literal["random", "alternate", ""] = ""
    cutout: int = 0
    cutmix: float = 0.0
    average: float = 0.0
    identity: bool = False
    keep: float = 1.0
    hard: float = 0.0
    frozen: tuple[str, ...] = ()
    flip_test: bool = False
    shift_test: bool = False
    test_every: int = 1
    precision: str = "f4"
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.epochs, self.batch_size, self.test_every) < 1 or not self.lr > 0:
            raise UserError(
                "epochs, batch size and test_every must be at least 1, the learning rate above 0"
            )
        if not self.norm_bias_rate > 0:
            raise UserError(f"norm_bias_rate must be above 0, not {self.norm_bias_rate}")
        if not 0 <= self.cutmix <= 1:
            raise UserError(f"cutmix is a share of the images from 0 to 1, not {self.cutmix}")
        if self.norm_bias_rate != 1 and self.optimiser == "adam":
            raise UserError(
                "norm_bias_rate must be 1 with adam, which a gradient's size can't move"
            )
        if not 0 <= self.smoothing < 1 or not 0 <= self.average < 1:
            raise UserError("smoothing and average are shares from 0 up to, not including, 1")
        if not 0 <= self.warmup <= 1:
            raise UserError(f"warmup is a share of all steps from 0 to 1, not {self.warmup}")
        if not 0 <= self.hard <= self.keep <= 1 or not self.keep:
            raise UserError(
                f"keep is the share of the images that an epoch sees, hard a part of it: got keep "
                f"{self.keep}, hard {self.hard}"
            )
        if self.optimiser not in ("sgd", "adam", "muon"):
            raise UserError(f"no optimiser named {self.optimiser!r}; there are sgd, adam and muon")
        learning_rate(self.schedule, self.lr, 0.0, self.warmup)  # a wrong name is better known now

    def make_optimiser(self, model: Model) -> Optimiser:
        """The optimiser that it names, for the parameters of `model` in a flat vector."""
        if self.optimiser == "muon":
            return Muon(filter_matrices(model, self.frozen), self.momentum)
        return Adam() if self.optimiser == "adam" else SGD(self.momentum, self.nesterov)

    def augment(self) -> Augment:
        """How training images are varied."""
        return Augment(pad=self.pad, flip=self.flip or None, cutout=self.cutout, cutmix=self.cutmix)

    def batches(self, count: int, epoch: int) -> int:
        """Whole batches of an epoch, counted from 0, of a dataset of `count` images."""
        seen = round(self.keep * count) if epoch >= WHOLE_EPOCHS else count
        return seen // self.batch_size

    def steps(self, count: int) -> int:
        """Batches of all epochs."""
        return sum(self.batches(count, epoch) for epoch in range(self.epochs))

    def share(self, ranks: int) -> int:
        """Images a batch for each of the ranks that train together. Raises UserError."""
        if self.batch_size % ranks:
            raise UserError(
                f"a batch of {self.batch_size} can't be shared equally by {ranks} ranks"
            )
        return self.batch_size // ranks

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Recipe":
        """The reverse of `dataclasses.asdict`, from JSON. Raises UserError for a field unknown."""
        unknown = set(values) - {f.name for f in fields(cls)}
        if unknown:
            raise UserError(f"recipe: no such setting: {', '.join(sorted(unknown))}")
        return cls(**values | {"frozen": tuple(values.get("frozen", ()))})


def filter_matrices(model: Model, frozen: tuple[str, ...] = ()) -> tuple[tuple[int, int, int], ...]:
    """Where the weights of all convolutions but the last, the classifier, lie in the flat vector.

    Each as (start, rows, columns): a (KH, KW, C, F) weight is a matrix of KH * KW * C rows and F
    columns. Those that a pattern of `frozen` names are left out.
    """
    found, start = [], 0
    for path, shape in trained_shapes(model).items():
        size = int(np.prod(shape))
        if len(shape) == 4:
            found.append((path, (start, size // shape[3], shape[3])))
        start += size
    return tuple(place for path, place in found[:-1] if not any(fnmatch(path, p) for p in frozen))


def recipe_dict(recipe: Recipe) -> dict[str, Any]:
    """The recipe, ready for JSON."""
    return asdict(recipe) | {"frozen": list(recipe.frozen)}


DEFAULTS = {  # what a first run on each kind of data should use
    "builtin": Recipe(epochs=4, lr=0.06, batch_size=64, pad=2, average=0.99),
    "other": Recipe(
        epochs=20, lr=0.08, batch_size=128, pad=4, flip="random", smoothing=0.1, average=0.995
    ),
}
FINE_TUNING = Recipe(epochs=3, lr=0.01, batch_size=64, flip="random", smoothing=0.1, average=0.99)


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
3x3 filters are nearly free with Winograd. In ten minutes later pools end alike; wider layers too, until
their squeeze layers are linear."""

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
            epochs=22, batch_size=256, lr=0.2, warmup=0.05, optimiser="muon", smoothing=0.1, pad=4,
            cutout=5, flip="alternate", average=0.996, identity=True, keep=0.5, hard=0.35,
            norm_bias_rate=16, flip_test=True, shift_test=True, test_every=22,
        ),
    ),
    "best": NamedRecipe(
        "as much as an hour gives: 92.2 % in 56 minutes",
        SHALLOW | SWISH | {"base_e": 128, "incr_e": 128},
        Recipe(
            epochs=52, batch_size=256, lr=0.2, warmup=0.05, optimiser="muon", smoothing=0.1, pad=4,
            cutmix=0.5, flip="alternate", average=0.998, norm_bias_rate=16, flip_test=True,
            shift_test=True, test_every=13,
        ),
    ),
    "tiny": NamedRecipe(
        "fewer than 125,000 parameters, in eight minutes: 87.3 %",
        SHALLOW | {"incr_e": 32, "squeeze_ratio": 0.25, "pools": (1, 4, 6)},
        Recipe(
            epochs=25, batch_size=128, lr=0.14, optimiser="muon", smoothing=0.1, pad=2,
            flip="alternate", average=0.998, flip_test=True, test_every=5,
        ),
    ),
    "paper": NamedRecipe(
        "the paper's network but for its stem, without batch norm and bypass, in 17 minutes: 87.0 %",
        {},
        Recipe(
            epochs=18, batch_size=128, lr=0.05, optimiser="muon", smoothing=0.1, pad=3,
            flip="alternate", average=0.998, flip_test=True, test_every=6,
        ),
    ),
}  # fmt: skip


def find_recipe(name: str) -> NamedRecipe:
    """A recipe by name. Raises UserError."""
    if name not in RECIPES:
        raise UserError(f"no recipe named {name!r}; there are {', '.join(RECIPES)}")
    return RECIPES[name]
