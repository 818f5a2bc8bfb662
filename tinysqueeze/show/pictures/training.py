"""What a training run leaves to look at: learning curve, confusion matrix, a sheet of predictions."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from tinysqueeze.data import Dataset
from tinysqueeze.labels import check_classes
from tinysqueeze.network.ops.reference import softmax
from tinysqueeze.show.pictures import style
from tinysqueeze.show.pictures.style import Picture, styled
from tinysqueeze.training.evaluate import Evaluation
from tinysqueeze.training.scores import confusion_counts
from tinysqueeze.training.state import Training


def run_pictures(
    training: Training, score: Evaluation, test: Dataset
) -> dict[str, Callable[[], Picture]]:
    """All three of a finished run, by name, to be drawn; `score` is its evaluation on `test`."""
    title = f"{training.engine.model.name} on {test.name}: {score.accuracy:.2%}"
    probabilities = softmax(score.logits)
    predicted = probabilities.argmax(axis=1)
    return {
        "learning_curve": lambda: learning_curve(training.history, title),
        "confusion_matrix": lambda: confusion_matrix(score.labels, predicted, test.classes),
        "predictions": lambda: sample_predictions(
            test.images, score.labels, probabilities, test.classes
        ),
    }


@styled
def learning_curve(history: Sequence[Mapping[str, float]], title: str = "") -> Picture:
    """Loss and accuracy by epoch, training and test, from `Training.history`."""
    last = history[-1]
    picture = Picture(8, 3.2, _curve_alt(history))
    for axes, name in zip(picture.subplots(1, 2), ("loss", "accuracy"), strict=True):
        for split, colour in (("train", style.ORANGE), ("test", style.BLUE)):
            key = f"{split}_{name}"
            if key in last:
                points = [(row["epoch"], row[key]) for row in history if key in row]
                axes.plot(*zip(*points, strict=True), "o-", ms=3, color=colour, label=split)
        axes.set(xlabel="epoch", title=name)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(True)
        axes.legend()
    if "test_accuracy" in last:
        axes.axhline(last["test_accuracy"], color=style.QUIET, lw=0.8, ls=":")
    picture.suptitle(title, x=0.01, ha="left")
    return picture


def _curve_alt(history: Sequence[Mapping[str, float]]) -> str:
    last = history[-1]
    end = ", ".join(
        f"{k.replace('_', ' ')} {v:.3f}" for k, v in last.items() if k[:4] in ("trai", "test")
    )
    return f"Loss and accuracy over {len(history)} epochs, ending at {end}."


@styled
def confusion_matrix(labels: np.ndarray, predicted: np.ndarray, classes: Sequence[str]) -> Picture:
    """How often each class (rows) was taken for each other (columns), in percent of the row.

    labels and predicted are (N,) integers.
    """
    size = len(classes)
    counts = confusion_counts(labels, predicted, size)
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    accuracy = counts.trace() / max(counts.sum(), 1)
    side = max(4.5, 0.5 * size + 1.5)
    alt = f"Confusion matrix over {size} classes; {accuracy:.1%} of {len(labels)} images are right."
    picture = Picture(side, side, alt)
    axes = picture.subplots()
    axes.imshow(share, cmap=style.SEQUENTIAL, vmin=0, vmax=1)
    if size <= 20:
        for (i, j), value in np.ndenumerate(share):
            if counts[i, j]:
                axes.text(
                    j, i, f"{100 * value:.0f}", ha="center", va="center", fontsize=7,
                    color=style.INK if value > 0.5 else "white",
                )  # fmt: skip
        axes.set_xticks(range(size), classes, rotation=45, ha="right")
        axes.set_yticks(range(size), classes)
    axes.set(xlabel="predicted", ylabel="true", title=f"{accuracy:.1%} right; percent of each row")
    axes.spines[:].set_visible(False)
    return picture


@styled
def sample_predictions(
    images: np.ndarray,
    labels: np.ndarray,
    probabilities: np.ndarray,
    classes: Sequence[str],
    most: int = 24,
) -> Picture:
    """Some images with what the network says; the mistakes come first, the surest ones at the top.

    images (N, H, W, 3) uint8, labels (N,), probabilities (N, classes).
    """
    labels = check_classes(labels, len(images), len(classes), "predictions")
    predicted = probabilities.argmax(axis=1)
    sure = probabilities.max(axis=1)
    order = np.lexsort((-sure, predicted == labels))  # wrong before right, sure before unsure
    wrong = order[: int((predicted != labels).sum())][: most // 2]
    right = np.flatnonzero(predicted == labels)[: most - len(wrong)]
    chosen = np.concatenate([wrong, right])
    texts, colours = [], []
    for i in chosen:
        is_right = predicted[i] == labels[i]
        text = f"{classes[predicted[i]]} {sure[i]:.0%}"
        texts.append(text if is_right else f"{text}\nis {classes[labels[i]]}")
        colours.append(style.GREEN if is_right else style.RED)
    alt = f"{len(wrong)} wrong and {len(right)} right predictions, each under its image."
    return sheet(images[chosen], texts, colours, alt)


def sheet(
    images: np.ndarray, texts: Sequence[str], colours: Sequence[str], alt: str, columns: int = 8
) -> Picture:
    """Small images in rows, a text of one or two lines over each."""
    rows = max(1, -(-len(images) // columns))
    picture = Picture(columns * 1.15, rows * 1.45, alt)
    for axes in np.ravel(picture.subplots(rows, columns, squeeze=False)):
        axes.axis("off")
    for axes, image, text, colour in zip(picture.axes, images, texts, colours, strict=False):
        axes.imshow(image)
        axes.set_title(text, fontsize=7, loc="center", color=colour)
    return picture
