"""What each change of a recipe gave: a small CSV file, a row for a change and what it was compared with."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tinysqueeze.paper.results import read_table
from tinysqueeze.ranges import Range, checked, hints_of

Percent = Annotated[float, Range(0, 100)]
Kind = Literal["optimiser", "images", "network", "looking"]
CHANCE = (
    0.5  # points that two trainings of one recipe may lie apart: a standard error of 5,000 images
)


@dataclass(frozen=True)
class Ablation:
    """One change: accuracy in percent before and after it, at equal budgets, each the mean of `trainings`."""

    kind: Kind
    change: str
    instead_of: str
    budget: str
    trainings: Annotated[int, Range(1)]
    judged_by: Literal["held-out images", "test images"]
    before: Percent
    after: Percent

    def __post_init__(self) -> None:
        """Raises UserError where a value is of another type or out of its range."""
        checked("ablation", hints_of(Ablation), vars(self))

    @property
    def gain(self) -> float:
        """Points of accuracy, as exact as the file."""
        return round(self.after - self.before, 2)


def read_ablations(path: str | Path) -> list[Ablation]:
    """The rows of such a file. Raises FormatError."""
    return read_table(path, Ablation, "ablations")


def markdown(ablations: Sequence[Ablation]) -> str:
    """The table: a row a change, in the order given."""
    text = [
        "| change | instead of | budget | trainings | before | after | gain |",
        "|---|---|---|---:|---:|---:|---:|",
    ]
    for row in ablations:
        budget = row.budget + (" (test images)" if row.judged_by == "test images" else "")
        scores = f"{row.before:.1f} % | {row.after:.1f} % | {row.gain:+.1f}"
        text.append(f"| {row.change} | {row.instead_of} | {budget} | {row.trainings} | {scores} |")
    return "\n".join(text)
