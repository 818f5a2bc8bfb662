"""How to train, as a value: nested settings that document themselves."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from tinysqueeze.data import AS_IT_IS, Augment
from tinysqueeze.errors import UserError
from tinysqueeze.ranges import Kept, Range, Share, setting
from tinysqueeze.training.optimisers import OPTIMISERS, SGD, Adam, Optimiser
from tinysqueeze.training.schedule import Schedule
from tinysqueeze.training.settings import Plain, changed, check, from_plain, to_plain

MOST = 1_000_000  # epochs, or images a step
Count = Annotated[int, Range(1, MOST)]
EARLIER = {"f4": "4x4", "f2": "2x2"}
"""What tiles were called once."""
WHOLE_EPOCHS = 2
"""After so many epochs of all images, losses say which are hard."""


@dataclass(frozen=True)
class HardImages:
    """Later epochs are shorter, and prefer the images whose losses were largest when last seen.

    The others come by chance; so loss and accuracy of such an epoch are worse than those of all images.
    """

    keep: Annotated[float, Range(0, 1, above=True)] = setting(
        1.0, "share of the images that an epoch sees, from the third on"
    )
    hard: Share = setting(
        0.0, "share of the images, those of the largest losses, that is among them"
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
    every: Count = setting(
        1, "epochs from one test to the next; the last one is tested", option="test_every"
    )


@dataclass(frozen=True)
class Recipe:
    """How to train, as a value that a checkpoint keeps. Raises UserError for what can't be.

    A step takes the schedule's rate of its middle. The running `average` of the parameters is evaluated
    and saved beside them. Weight decay is for weights, not for biases and norms. The biases of batch norms
    learn faster by larger gradients, of which Adam would make nothing. `identity` is described in
    `params.initialise`.
    """

    epochs: Count = setting(10, "times through the training images")
    batch_size: Count = setting(64, "images a step")
    schedule: Schedule = setting(Schedule(), "the learning rate over the steps")
    optimiser: Optimiser = setting(SGD(), "how gradients become steps", kinds=OPTIMISERS)
    weight_decay: Annotated[float, Range(0, 1000)] = setting(5e-4, "pull of the weights to zero")
    norm_bias_rate: Annotated[float, Range(0, 1000, above=True)] = setting(
        1.0, "times the learning rate, for the biases of batch norms"
    )
    smoothing: Kept = setting(0.0, "label smoothing")
    taught: Share = setting(0.0, "share of the labels that a teacher's answers are (see --teacher)")
    augment: Augment = setting(AS_IT_IS, "random changes to the images")
    hard_images: HardImages = setting(HardImages(), "which images later epochs see")
    average: Kept = setting(
        0.0, "kept of the running average of the parameters, each step (0: none)"
    )
    identity: bool = setting(False, "start with 3x3 filters that pass their input channels on")
    frozen: Annotated[tuple[str, ...], Range(0, MOST)] = setting(
        (), "layers or paths to leave as they are, as conv1 or fire[2-5]/*", option="freeze"
    )
    scoring: Scoring = setting(Scoring(), "how it is evaluated")
    precision: Literal["4x4", "2x2", "direct"] = setting(
        "4x4", "of 3x3 convolutions, by tiles (4x4 is fastest)"
    )
    seed: Annotated[int, Range(0)] = setting(0, "for weights, order and augmentation")

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
