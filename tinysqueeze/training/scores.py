"""How good are a classifier's answers? By class, by how sure it was, and its worst mistakes.

Labels are (N,) integers, probabilities (N, classes) whose rows sum to 1 (the softmax of logits).
"""

from dataclasses import dataclass

import numpy as np

from tinysqueeze.errors import ShapeError
from tinysqueeze.labels import check_classes


def confusion_counts(labels: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """(classes, classes) integers: how many images of class i (row) were taken for class j.

    labels and predicted are (N,) integers below `classes`. Raises ShapeError.
    """
    labels = check_classes(labels, None, classes)
    predicted = check_classes(predicted, len(labels), classes, "predicted classes")
    counts = np.zeros((classes, classes), int)
    np.add.at(counts, (labels, predicted), 1)
    return counts


def per_class_accuracy(counts: np.ndarray) -> np.ndarray:
    """(classes,) the share of each class's images that are right, NaN for a class without images.

    counts is what `confusion_counts` gives.
    """
    sizes = counts.sum(axis=1)
    return np.where(sizes > 0, np.diagonal(counts) / np.maximum(sizes, 1), np.nan)


@dataclass(frozen=True)
class Calibration:
    """Bins of equal width over the confidence (the probability of the class that was answered).

    images      (bins,) how many answers fell into each
    confidence  (bins,) their mean confidence, NaN for an empty bin
    accuracy    (bins,) the share of them that is right, NaN for an empty bin
    """

    images: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray

    @property
    def error(self) -> float:
        """Expected calibration error, 0 to 1: the mean gap between confidence and accuracy.

        Each bin counts by its images (Guo et al. 2017, equation 3); 0 without any images.
        """
        gaps = np.nan_to_num(np.abs(self.accuracy - self.confidence))
        return float((gaps * self.images).sum() / max(self.images.sum(), 1))


def calibration(probabilities: np.ndarray, labels: np.ndarray, bins: int = 15) -> Calibration:
    """Is the network right as often as it says? Bin m is ((m-1)/bins, m/bins] (Guo et al. 2017, §2).

    Raises ShapeError where probabilities and labels do not fit.
    """
    labels = _fitting(labels, probabilities, "calibration")
    sure = probabilities.max(axis=1).astype(float)
    right = probabilities.argmax(axis=1) == labels
    place = np.clip(np.ceil(sure * bins).astype(int) - 1, 0, bins - 1)
    images = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):  # an empty bin is 0 / 0: it has no mean
        confidence = np.bincount(place, sure, bins) / images
        accuracy = np.bincount(place, right, bins) / images
    return Calibration(images, confidence, accuracy)


def worst_mistakes(probabilities: np.ndarray, labels: np.ndarray, most: int = 24) -> np.ndarray:
    """Indices of the images that are wrong, the surest first, at most `most` of them.

    Raises ShapeError where probabilities and labels do not fit.
    """
    labels = _fitting(labels, probabilities, "worst mistakes")
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != labels)
    sure = probabilities[wrong].max(axis=1)
    return wrong[np.argsort(-sure, kind="stable")][:most]


def _fitting(labels: np.ndarray, probabilities: np.ndarray, who: str) -> np.ndarray:
    if probabilities.ndim != 2:
        raise ShapeError(f"{who}: expected probabilities (N, classes), got {probabilities.shape}")
    return check_classes(labels, len(probabilities), probabilities.shape[1], who)
