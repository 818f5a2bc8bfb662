"""The curve of an experiment: our accuracies with their spread, the paper's as a ghost line."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tinysqueeze.pictures.style import BLUE, QUIET, Picture, styled


@styled
def experiment_curve(
    rows: Sequence[Mapping[str, Any]],
    axis: str,
    question: str,
    paper: Mapping[float, float] | None = None,
    labels: Mapping[float, str] | None = None,
) -> Picture:
    """Accuracy against x: a dot a seed, a line through the means.

    `paper` maps x to ImageNet top-5 percent and gets an axis of its own on the right: the shape may
    be compared, the numbers may not. `labels` name the places on the x axis where they are no numbers.
    """
    xs = sorted({row["x"] for row in rows})
    scores = {x: [100 * row["accuracy"] for row in rows if row["x"] == x] for x in xs}
    means = [float(np.mean(scores[x])) for x in xs]
    told = ", ".join(
        f"{(labels or {}).get(x, f'{x:g}')}: {m:.1f}%" for x, m in zip(xs, means, strict=True)
    )
    picture = Picture(6.5, 3.8, f"{question} Mean accuracy by {axis}: {told}.")
    axes = picture.subplots()
    axes.plot(xs, means, color=BLUE, label="here")
    for x in xs:
        axes.plot([x] * len(scores[x]), scores[x], "o", ms=4, color=BLUE)
    axes.set(xlabel=axis, ylabel="test accuracy, percent", title=question)
    if labels:
        axes.set_xticks(list(labels), list(labels.values()))
    axes.grid(True, axis="y")
    if paper:
        ghost = axes.twinx()
        ghost.plot(list(paper), list(paper.values()), "o:", color=QUIET, ms=4)
        ghost.set_ylabel("the paper: ImageNet top-5, percent", color=QUIET)
        ghost.tick_params(colors=QUIET)
        ghost.spines["right"].set_visible(True)
    return picture
