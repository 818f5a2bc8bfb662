"""The curve of an experiment: our accuracies with their standard errors, the paper's as a ghost line."""

from collections.abc import Mapping, Sequence
from math import sqrt
from typing import Any

from tinysqueeze.paper.experiments import Experiment, places
from tinysqueeze.show.pictures.style import BLUE, QUIET, Picture, styled


@styled
def experiment_curve(experiment: Experiment, rows: Sequence[Mapping[str, Any]]) -> Picture:
    """Accuracy against what is varied: a dot a seed, a line through the means, bars of one standard error.

    rows are those of `experiments.read_rows`. The paper's numbers (ImageNet top-5) have an axis of
    their own on the right: the shape may be compared, the numbers may not.
    """
    found = places(experiment, rows)
    told = ", ".join(f"{place.label}: {100 * place.accuracy:.1f}%" for place in found)
    alt = f"{experiment.question} Mean accuracy by {experiment.axis}: {told}."
    picture = Picture(6.5, 3.8, alt)
    axes = picture.subplots()
    means = [100 * place.accuracy for place in found]
    errors = [100 * p.spread / sqrt(p.seeds) if p.seeds > 1 else 0 for p in found]
    axes.errorbar([p.x for p in found], means, yerr=errors, color=BLUE, capsize=3, elinewidth=1)
    axes.plot(
        [row["x"] for row in rows], [100 * row["accuracy"] for row in rows], "o", ms=4, color=BLUE
    )
    split = rows[0]["split"]
    axes.set(xlabel=experiment.axis, ylabel=f"{split} accuracy, percent", title=experiment.question)
    if not experiment.is_numeric:
        axes.set_xticks([p.x for p in experiment.points], [p.label for p in experiment.points])
    axes.grid(True, axis="y")
    if experiment.paper:
        ghost = axes.twinx()
        ghost.plot(list(experiment.paper), list(experiment.paper.values()), "o:", color=QUIET, ms=4)
        least, most = min(experiment.paper.values()), max(experiment.paper.values())
        low, high = axes.get_ylim()
        span, best = most - least, max(means)
        low, high = min(low, best - 1.05 * span), max(high, best + 0.05 * span)
        axes.set_ylim(low, high)
        shift = most - best  # as many points a centimetre, and the best equally high
        ghost.set_ylim(low + shift, high + shift)
        ghost.set_ylabel("the paper: ImageNet top-5, percent", color=QUIET)
        ghost.tick_params(colors=QUIET)
        ghost.spines["right"].set_visible(True)
    return picture
