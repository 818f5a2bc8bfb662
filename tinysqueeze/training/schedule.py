"""The learning rate over a training: a way up to the peak, then a curve down."""

from collections.abc import Callable
from dataclasses import dataclass
from math import cos, pi
from typing import Annotated, Literal

from tinysqueeze.ranges import Range, Share, setting
from tinysqueeze.training.settings import check

Curve = Callable[[float], float]  # share of the way down still ahead, 1 to 0 -> factor of the peak


def constant(left: float) -> float:
    """Stays at the peak."""
    return 1.0


def linear(left: float) -> float:
    """Falls in a straight line to 0: the paper's "poly" policy of power 1 (their solver file).

    Behind a linear warm-up it is Smith's one cycle (2018) as well: one curve under both names.
    """
    return left


def cosine(left: float) -> float:
    """Falls along half a cosine (Loshchilov & Hutter 2017)."""
    return (1 - cos(pi * left)) / 2


CURVES: dict[str, Curve] = {
    "constant": constant, "polynomial": linear, "cosine": cosine, "one-cycle": linear,
}  # fmt: skip
"""How the rate goes on from the peak, where every warm-up ends."""


@dataclass(frozen=True)
class Schedule:
    """Up to `lr` in a straight line, then down along `curve`. Raises UserError for a name unknown.

    The curve begins where the warm-up ends, at the peak, and has the rest of the training for itself, as
    PyTorch's LinearLR followed by CosineAnnealingLR or PolynomialLR.
    """

    lr: Annotated[float, Range(0, 10**9, above=True)] = setting(0.05, "peak learning rate")
    curve: Literal["constant", "polynomial", "cosine", "one-cycle"] = setting(
        "one-cycle", "how it falls", option="schedule"
    )
    warmup: Share = setting(0.25, "share of all steps until the peak")

    def __post_init__(self) -> None:
        check(self)

    def rate(self, done: float) -> float:
        """The learning rate when `done` (0 to 1) of the training is over."""
        if done < self.warmup:
            return self.lr * (done / self.warmup)
        left = (1 - done) / (1 - self.warmup) if self.warmup < 1 else 1.0
        return self.lr * CURVES[self.curve](left)
