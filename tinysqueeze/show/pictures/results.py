"""The results page's pictures: accuracy against minutes, what each change of a recipe gave, the ladder."""

from collections.abc import Sequence
from math import log, sqrt
from textwrap import fill

from tinysqueeze.paper.ablations import CHANCE, Ablation
from tinysqueeze.paper.ladder import Row, by_change
from tinysqueeze.paper.results import Result, summaries
from tinysqueeze.show.pictures.style import (
    BLUE,
    FAINT,
    GREEN,
    ORANGE,
    PURPLE,
    QUIET,
    Picture,
    styled,
)

MINUTES = (1, 2, 3, 4, 6, 8, 10, 12, 15, 20, 30, 45, 60, 90, 120)
KINDS = {"optimiser": BLUE, "images": ORANGE, "network": GREEN, "looking": PURPLE}
ENGINES = {"compiled": ("tinysqueeze", BLUE), "torch": ("PyTorch", ORANGE)}


@styled
def accuracy_by_minutes(results: Sequence[Result]) -> Picture:
    """A dot a training, a recipe's name beside its dots, a line from ours to PyTorch's run of the same."""
    lines = [line for line in summaries(results) if line.engine in ENGINES]
    told = "; ".join(
        f"{line.recipe} on {ENGINES[line.engine][0]} {100 * line.accuracy:.1f}% in "
        f"{line.minutes:.1f} minutes"
        for line in lines
    )
    picture = Picture(6.8, 4, f"Test accuracy by minutes of training: {told}.")
    axes = picture.subplots()
    for alike in dict.fromkeys((line.recipe, line.lanes) for line in lines):
        pair = [line for line in lines if (line.recipe, line.lanes) == alike]
        axes.plot(
            [p.minutes for p in pair], [100 * p.accuracy for p in pair], color=QUIET, lw=1, ls=":"
        )
    for engine, (name, colour) in ENGINES.items():
        own = [result for result in results if result.engine == engine]
        if own:
            minutes, scores = [r.minutes for r in own], [100 * r.accuracy for r in own]
            axes.plot(minutes, scores, "o", ms=5, color=colour, alpha=0.8, label=name)
        theirs = [line for line in lines if line.engine == engine]
        for line in theirs:
            dots = [r.accuracy for r in own if (r.recipe, r.lanes) == (line.recipe, line.lanes)]
            crowded = any(  # by a recipe of the same length that lies lower
                abs(log(other.minutes / line.minutes)) < 0.1 and other.accuracy < line.accuracy
                for other in theirs
            )
            axes.annotate(
                line.recipe,
                (line.minutes, 100 * (max(dots) if crowded else min(dots))),
                (0, 6 if crowded else -6),
                textcoords="offset points",
                ha="center",
                va="bottom" if crowded else "top",
                fontsize=8,
                color=colour,
            )
    axes.set(
        xscale="log", xlabel="minutes on 2 cores", ylabel="test accuracy, percent",
        title="What each recipe reaches, and how soon",
    )  # fmt: skip
    axes.margins(0.12)
    first, last = axes.get_xlim()
    ticks = [minutes for minutes in MINUTES if first <= minutes <= last]
    axes.set_xticks(ticks, [str(minutes) for minutes in ticks])
    axes.set_xticks([], minor=True)
    axes.grid(True, axis="y")
    if len({line.engine for line in lines}) > 1:
        axes.legend(loc="best", frameon=True, framealpha=1, edgecolor="none")
    return picture


@styled
def gains(ablations: Sequence[Ablation]) -> Picture:
    """A dot a change, the largest gain on top; grey is what chance alone may give."""
    rows = sorted(ablations, key=lambda row: row.gain)
    changes = [row.change for row in rows]
    names = [
        c if changes.count(c) == 1 else f"{c}, {row.budget}"
        for c, row in zip(changes, rows, strict=True)
    ]
    gained, lost = (sum(sign * row.gain > CHANCE for row in rows) for sign in (1, -1))
    alt = (
        f"What {len(rows)} changes gave, in points of accuracy: {gained} gained more than {CHANCE}, "
        f"{lost} lost more. Most: {names[-1]} {rows[-1].gain:+.1f}; least: {names[0]} {rows[0].gain:+.1f}."
    )
    picture = Picture(7.6, 0.2 * len(rows) + 1, alt)
    axes = picture.subplots()
    axes.axvspan(-CHANCE, CHANCE, color=FAINT, lw=0)
    axes.axvline(0, color=QUIET, lw=1)
    for kind, colour in KINDS.items():
        own = [(row.gain, place) for place, row in enumerate(rows) if row.kind == kind]
        if own:
            axes.plot(*zip(*own, strict=True), "o", ms=5, color=colour, label=kind)
    axes.set_yticks(range(len(rows)), names, fontsize=7)
    axes.set(
        xlabel="points of accuracy gained", title="What each change gave at its budget", ylim=(-1, len(rows))
    )  # fmt: skip
    axes.grid(True, axis="x")
    axes.legend(loc="lower right", frameon=True, framealpha=1, edgecolor="none")
    return picture


@styled
def climbed(rows: Sequence[Row]) -> Picture:
    """The ladder, its first rung below: accuracy by all views (and their standard error), by one view."""
    means = by_change(rows)
    told = "; ".join(f"{change} {100 * mean.accuracy:.1f}%" for change, mean in means.items())
    picture = Picture(7.6, 0.45 * len(means) + 1, f"Accuracy from rung to rung: {told}.")
    axes = picture.subplots()
    scores = [mean.accuracy for mean in means.values()]
    errors = [100 * sqrt(p * (1 - p) / rows[0]["held_out"]) for p in scores]
    places = range(len(means))
    all_views = [100 * p for p in scores]
    axes.errorbar(
        all_views, places, xerr=errors, fmt="o-", ms=6, lw=1, color=BLUE, label="all 18 views"
    )
    one = [100 * mean.one_view for mean in means.values()]
    axes.plot(one, places, "o", ms=4, color=QUIET, label="one view")
    axes.set_yticks(places, [fill(change, 44) for change in means], fontsize=8)
    axes.set(
        xlabel="accuracy on held-out images, percent", title="From a published training to fast"
    )
    axes.grid(True, axis="x")
    axes.legend(loc="best", frameon=True, framealpha=1, edgecolor="none")
    return picture
