"""How to train, as a value: nested settings that document themselves."""

from dataclasses import dataclass
from typing import Any

from tinysqueeze.data import AS_IT_IS, Augment
from tinysqueeze.errors import UserError
from tinysqueeze.ranges import setting
from tinysqueeze.training.optimisers import OPTIMISERS, SGD, Adam, Optimiser
from tinysqueeze.training.schedule import Schedule
from tinysqueeze.training.settings import Plain, changed, check, from_plain, to_plain

MOST = 1_000_000  # epochs, or images a step
EARLIER = {"f4": "4x4", "f2": "2x2"}
"""What tiles were called once."""
WHOLE_EPOCHS = 2
"""After so many epochs of all images, losses say which are hard."""


@dataclass(frozen=True)
class HardImages:
    """Later epochs are shorter, and prefer the images whose losses were largest when last seen.

    The others come by chance; so loss and accuracy of such an epoch are worse than those of all images.
    """

    keep: float = setting(
        1.0, "share of the images that an epoch sees, from the third on", above=0, most=1
    )
    hard: float = setting(
        0.0, "share of the images, those of the largest losses, that is among them", least=0, most=1
    )

    def __post_init__(self) -> None:
        if not 0 <= self.hard <= self.keep <= 1 or not self.keep:
            raise UserError(
                f"keep is the share of the images that an epoch sees, hard a part of it: got keep "
                f"{self.keep}, hard {self.hard}"
            )


@dataclass(frozen=True)
class Scoring:
    """How a training is evaluated: which views of an image are averaged, and when."""

    flip: bool = setting(
        False, "average the logits of an image and its mirror image", option="flip_test"
    )
    shift: bool = setting(
        False, "average with the logits of the image moved by up to a pixel", option="shift_test"
    )
    every: int = setting(
        1,
        "epochs from one test to the next; the last one is tested",
        option="test_every",
        least=1,
        most=MOST,
    )


@dataclass(frozen=True)
class Recipe:
    """How to train, as a value that a checkpoint keeps. Raises UserError for what can't be.

    A step takes the schedule's rate of its middle. The running `average` of the parameters is evaluated
    and saved beside them. Weight decay is for weights, not for biases and norms. The biases of batch norms
    learn faster by larger gradients, of which Adam would make nothing. `identity` is described in
    `params.initialise`.
    """

    epochs: int = setting(10, "times through the training images", least=1, most=MOST)
    batch_size: int = setting(64, "images a step", least=1, most=MOST)
    schedule: Schedule = setting(Schedule(), "the learning rate over the steps")
    optimiser: Optimiser = setting(SGD(), "how gradients become steps", kinds=OPTIMISERS)
    weight_decay: float = setting(5e-4, "pull of the weights to zero", least=0, most=1e3)
    norm_bias_rate: float = setting(
        1.0, "times the learning rate, for the biases of batch norms", above=0, most=1e3
    )
    smoothing: float = setting(0.0, "label smoothing", least=0, below=1)
    taught: float = setting(
        0.0, "share of the labels that a teacher's answers are (see --teacher)", least=0, most=1
    )
    augment: Augment = setting(AS_IT_IS, "random changes to the images")
    hard_images: HardImages = setting(HardImages(), "which images later epochs see")
    average: float = setting(
        0.0, "kept of the running average of the parameters, each step (0: none)", least=0, below=1
    )
    identity: bool = setting(False, "start with 3x3 filters that pass their input channels on")
    frozen: tuple[str, ...] = setting(
        (), "layers or paths to leave as they are, as conv1 or fire[2-5]/*", option="freeze"
    )
    scoring: Scoring = setting(Scoring(), "how it is evaluated")
    precision: str = setting(
        "4x4", "of 3x3 convolutions, by tiles (4x4 is fastest)", choices=("4x4", "2x2", "direct")
    )
    seed: int = setting(0, "for weights, order and augmentation", least=0, most=2**63)

    def __post_init__(self) -> None:
        check(self)
        if self.norm_bias_rate != 1 and isinstance(self.optimiser, Adam):
            raise UserError(
                "norm_bias_rate must be 1 with adam, which a gradient's size can't move"
            )

    def batches(self, count: int, epoch: int) -> int:
        """Whole batches of an epoch, counted from 0, of a dataset of `count` images."""
        seen = round(self.hard_images.keep * count) if epoch >= WHOLE_EPOCHS else count
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

    def changed(self, **settings: Any) -> "Recipe":
        """With other settings, named as the command line names them: `changed(lr=0.1, cutout=5)`."""
        return changed(self, **settings)

    def to_dict(self) -> Plain:
        """Nested dicts, ready for JSON."""
        return to_plain(self)

    @classmethod
    def from_dict(cls, plain: Plain) -> "Recipe":
        """The reverse; also of one as it was kept once. Raises UserError for a setting unknown."""
        tiles = plain.get("precision", "4x4")
        plain = plain | {"precision": EARLIER.get(tiles, tiles)}
        return from_plain(cls, _nested(plain) if "lr" in plain else plain)


def _nested(flat: Plain) -> Plain:
    """A recipe that an early checkpoint kept without nesting."""
    kind = OPTIMISERS[flat["optimiser"]]
    unused = {name for name in ("momentum", "nesterov") if not hasattr(kind(), name)}
    options = {name: value for name, value in flat.items() if name not in {"frozen", *unused}}
    options |= {"flip": flat["flip"] or None, "freeze": flat["frozen"]}
    return Recipe().changed(**options).to_dict()
