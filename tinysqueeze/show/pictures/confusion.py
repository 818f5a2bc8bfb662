"""The confusion, seen: how often each class is right, what it is taken for, how sure, how wrong."""

from collections.abc import Sequence

import numpy as np

from tinysqueeze.show.pictures.style import BLUE, FAINT, ORANGE, QUIET, RED, SKY, Picture, styled
from tinysqueeze.show.pictures.training import sheet
from tinysqueeze.training.scores import (
    Calibration,
    calibration,
    confusion_counts,
    per_class_accuracy,
    worst_mistakes,
)


@styled
def class_accuracy(labels: np.ndarray, predicted: np.ndarray, classes: Sequence[str]) -> Picture:
    """A bar a class, the best at the top, each with what the class is most often taken for.

    labels and predicted are (N,) integers. Whiskers are two standard errors of a share; classes
    without images are left out, and the title says so.
    """
    counts = confusion_counts(labels, predicted, len(classes))
    accuracy, sizes = per_class_accuracy(counts), counts.sum(axis=1)
    shown = [i for i in np.argsort(accuracy, kind="stable") if sizes[i]]  # NaN is sorted last
    mean = counts.trace() / max(counts.sum(), 1)
    told = "; ".join(f"{classes[i]} {accuracy[i]:.1%}" for i in reversed(shown))
    picture = Picture(
        6.5, 0.32 * len(shown) + 1.1, f"Accuracy by class, {mean:.1%} in all: {told}."
    )
    axes = picture.subplots()
    values = 100 * accuracy[shown]
    spread = 2 * np.sqrt(values * (100 - values) / sizes[shown])
    axes.barh(range(len(shown)), values, color=BLUE, height=0.65)
    axes.errorbar(values, range(len(shown)), xerr=spread, fmt="none", ecolor=QUIET, elinewidth=1)
    for place, i in enumerate(shown):
        others = np.where(np.arange(len(classes)) == i, 0, counts[i])
        if others.any():
            text = f"{classes[int(others.argmax())]} {others.max() / sizes[i]:.0%}"
            axes.text(103, place, text, va="center", fontsize=7.5, color=QUIET)
    axes.text(103, len(shown) - 0.35, "taken for", fontsize=7.5, color=QUIET, va="bottom")
    axes.axvline(100 * mean, color=ORANGE, lw=1, ls="--")
    axes.set_yticks(range(len(shown)), [classes[i] for i in shown])
    left_out = f"; {len(classes) - len(shown)} without images" if len(shown) < len(classes) else ""
    axes.set(xlabel="percent right", xlim=(0, 100), title=f"{mean:.1%} in all{left_out}")
    axes.tick_params(left=False)
    return picture


@styled
def reliability_diagram(probabilities: np.ndarray, labels: np.ndarray, bins: int = 15) -> Picture:
    """Is it right as often as it says? Accuracy against confidence, and how many answers are so sure.

    probabilities (N, classes), labels (N,). Bars that end below the diagonal: right less often than
    it says (Guo et al. 2017, Figure 1).
    """
    found = calibration(probabilities, labels, bins)
    picture = Picture(4.6, 4.8, _reliability_alt(found))
    above, below = picture.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    width = 1 / bins
    centres = (np.arange(bins) + 0.5) * width
    full = found.images > 0
    accuracy, confidence = found.accuracy[full], found.confidence[full]
    above.bar(centres[full], accuracy, 0.9 * width, color=BLUE)
    for sign, colour, said in ((1, RED, "less often than it says"), (-1, SKY, "more often")):
        gap = np.maximum(sign * (confidence - accuracy), 0)
        bottom = np.minimum(accuracy, confidence)
        above.bar(centres[full], gap, 0.9 * width, bottom=bottom, color=colour, label=said)
    above.plot([0, 1], [0, 1], color=QUIET, lw=1, ls="--")
    above.set(ylabel="share that is right", xlim=(0, 1), ylim=(0, 1))
    above.set_title(f"expected calibration error {100 * found.error:.1f}%")
    above.legend(loc="upper left", title="right")
    total = max(found.images.sum(), 1)
    below.bar(centres, 100 * found.images / total, 0.9 * width, color=QUIET)
    below.set(xlabel="confidence: probability of the answer", ylabel="percent of images")
    for axes in (above, below):
        axes.grid(True, axis="y", color=FAINT)
    return picture


def _reliability_alt(found: Calibration) -> str:
    full = found.images > 0
    share = found.images[-1] / max(found.images.sum(), 1)
    gaps = (found.confidence - found.accuracy)[full]
    side = "surer than right" if (gaps * found.images[full]).sum() > 0 else "less sure than right"
    return (
        f"Reliability diagram of {found.images.sum()} answers: expected calibration error "
        f"{found.error:.1%}, on the whole {side}; {share:.0%} of the answers are in the surest bin."
    )


@styled
def worst_mistake_sheet(
    images: np.ndarray,
    labels: np.ndarray,
    probabilities: np.ndarray,
    classes: Sequence[str],
    most: int = 24,
) -> Picture:
    """The surest of the wrong answers, each with what the image is and how likely that seemed.

    images (N, H, W, 3) uint8, labels (N,), probabilities (N, classes).
    """
    chosen = worst_mistakes(probabilities, labels, most)
    texts = []
    for i in chosen:
        guess = probabilities[i].argmax()
        said, true = classes[guess], classes[labels[i]]
        texts.append(
            f"{said} {probabilities[i, guess]:.0%}\nis {true} {probabilities[i, labels[i]]:.0%}"
        )
    told = "; ".join(text.replace("\n", ", ") for text in texts)
    alt = f"The {len(chosen)} surest wrong answers: {told or 'none'}."
    return sheet(images[chosen], texts, [RED] * len(texts), alt)
