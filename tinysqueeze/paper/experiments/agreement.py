"""How far does the shape of a curve match the paper's? Ranks and knees; the numbers may not be compared."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinysqueeze.paper.experiments.grids import Experiment

WITHIN = 0.005
"""The knee is the first point so near the best: about a standard error of 5,000 images."""


@dataclass(frozen=True)
class Place:
    """All trainings of one point: mean accuracy (0 to 1) and the standard deviation between seeds.

    `spread` is NaN for a single seed, `paper` None where the paper gives no number (top-5, percent).
    """

    label: str
    x: float
    seeds: int
    parameters: int
    multiply_adds: int
    accuracy: float
    spread: float
    paper: float | None


def places(experiment: Experiment, rows: Sequence[Mapping[str, Any]]) -> list[Place]:
    """The points that have rows, by x."""
    found = []
    for point in experiment.points:
        own = [row for row in rows if row["point"] == point.label]
        if own:
            scores = np.array([row["accuracy"] for row in own])
            spread = float(scores.std(ddof=1)) if len(own) > 1 else float("nan")
            sizes = own[0]["parameters"], own[0]["multiply_adds"]
            paper = experiment.paper.get(point.x)
            mean = float(scores.mean())
            found.append(Place(point.label, point.x, len(own), *sizes, mean, spread, paper))
    return sorted(found, key=lambda place: place.x)


def rank_correlation(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """Spearman's: the correlation of the ranks, equal values sharing theirs. NaN if all are equal."""
    first, second = _ranks(ours), _ranks(theirs)
    if not (np.ptp(first) and np.ptp(second)):
        return float("nan")
    return float(np.corrcoef(first, second)[0, 1])


def _ranks(values: Sequence[float]) -> np.ndarray:
    array = np.asarray(values, float)
    below = (array[:, None] > array).sum(axis=1)
    return below + ((array[:, None] == array).sum(axis=1) - 1) / 2


def knee(values: Mapping[float, float], within: float = WITHIN) -> float:
    """The smallest x whose value is within `within` of the best: from there on nothing is gained."""
    best = max(values.values())
    return min(x for x, value in values.items() if value >= best - within)


def agreement(experiment: Experiment, rows: Sequence[Mapping[str, Any]]) -> str:
    """A table of the points beside the paper's, and a line on how far the shapes match."""
    found = places(experiment, rows)
    lines = [f"{'':>14}  {'parameters':>11} {'multiply-adds':>14} {'accuracy':>14} {'paper':>7}"]
    for place in found:
        spread = f" ± {100 * place.spread:.2f}" if place.seeds > 1 else ""
        score = f"{100 * place.accuracy:.2f}{spread}"
        paper = "" if place.paper is None else f"{place.paper:.1f}"
        size, effort = f"{place.parameters:,}", f"{place.multiply_adds / 1e6:.1f} M"
        lines.append(f"{place.label:>14}  {size:>11} {effort:>14} {score:>14} {paper:>7}")
    return "\n".join([*lines, *_shape(experiment, found)])


def _shape(experiment: Experiment, found: list[Place]) -> list[str]:
    """Rank correlation where the paper has three points or more; where the gain ends, or who is best."""
    if len(found) < len(experiment.points):
        return [f"{len(found)} of {len(experiment.points)} points so far"]
    both = [(place.accuracy, place.paper) for place in found if place.paper is not None]
    ours = {place.x: place.accuracy for place in found}
    theirs = {x: value / 100 for x, value in experiment.paper.items()}
    names = {point.x: point.label for point in experiment.points}
    lines = []
    if len(both) >= 3:
        value = rank_correlation([a for a, _ in both], [b for _, b in both])
        lines.append(
            f"rank correlation with the paper's {len(both)} points: {value:.2f} (Spearman)"
        )
    if experiment.is_numeric:
        line = f"knee (within {100 * WITHIN:g} points of the best) at {names[knee(ours)]}"
        lines.append(line + (f", in the paper at {names[knee(theirs)]}" if theirs else ""))
    else:
        line = f"best: {names[max(ours, key=lambda x: ours[x])]}"
        best = max(theirs, key=lambda x: theirs[x]) if theirs else None
        lines.append(line + (f", in the paper {names[best]}" if best is not None else ""))
    return lines
