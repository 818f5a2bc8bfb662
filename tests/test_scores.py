"""Accuracy by class, calibration and worst mistakes, on hand-made answers; and their pictures."""

import json

import numpy as np
import pytest
from PIL import Image

from tinysqueeze.cli import main
from tinysqueeze.errors import ShapeError
from tinysqueeze.network.ops.reference import softmax
from tinysqueeze.show.pictures.confusion import (
    class_accuracy,
    reliability_diagram,
    worst_mistake_sheet,
)
from tinysqueeze.training.scores import (
    calibration,
    confusion_counts,
    per_class_accuracy,
    worst_mistakes,
)

CLASSES = ("cat", "dog", "frog", "unicorn")
LABELS = np.array([0, 0, 0, 1, 1, 2])  # no unicorn
LOGITS = np.log(
    [
        [0.70, 0.10, 0.10, 0.10],  # right
        [0.05, 0.90, 0.03, 0.02],  # a cat, surely a dog
        [0.40, 0.30, 0.20, 0.10],  # right
        [0.10, 0.80, 0.05, 0.05],  # right
        [0.97, 0.01, 0.01, 0.01],  # a dog, most surely a cat
        [0.30, 0.20, 0.15, 0.35],  # a frog, perhaps a unicorn
    ]
)


@pytest.fixture
def probabilities():
    return softmax(LOGITS)


def test_by_class_with_an_empty_class(probabilities):
    counts = confusion_counts(LABELS, probabilities.argmax(1), 4)
    assert counts.tolist() == [[2, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 1], [0, 0, 0, 0]]
    np.testing.assert_allclose(per_class_accuracy(counts), [2 / 3, 1 / 2, 0, np.nan])


def test_calibration_by_hand(probabilities):
    """Five bins of 0.2: (0.2, 0.4] holds two, one right; (0.6, 0.8] two, both; (0.8, 1] two, none."""
    found = calibration(probabilities, LABELS, bins=5)
    assert found.images.tolist() == [0, 2, 0, 2, 2]
    np.testing.assert_allclose(found.confidence, [np.nan, 0.375, np.nan, 0.75, 0.935])
    np.testing.assert_allclose(found.accuracy, [np.nan, 0.5, np.nan, 1, 0])
    assert found.error == pytest.approx((0.125 + 0.25 + 0.935) / 3)


def test_calibration_at_the_edges():
    """A confidence on an edge belongs to the bin below it, certainty to the last."""
    sure = np.array([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]])
    found = calibration(sure, np.array([0, 1, 0]), bins=2)
    assert found.images.tolist() == [1, 2]
    assert found.error == pytest.approx(0.5 / 3)
    nothing = calibration(np.zeros((0, 3)), np.zeros(0, int))
    assert len(nothing.images) == 15
    assert nothing.error == 0
    with pytest.raises(ShapeError, match="labels"):
        calibration(sure, np.array([0, 1]))


def test_a_network_that_knows_how_sure_it_is():
    """Labels drawn from the probabilities themselves: what error is left is that of the sample."""
    rng = np.random.default_rng(0)
    probabilities = softmax(2 * rng.standard_normal((20_000, 10)))
    labels = (probabilities.cumsum(1) < rng.random((20_000, 1))).sum(1)
    assert calibration(probabilities, labels).error < 0.02
    sharper = softmax(2 * np.log(probabilities))
    assert calibration(sharper, labels).error > 0.15


def test_worst_mistakes_are_the_surest(probabilities):
    assert worst_mistakes(probabilities, LABELS).tolist() == [4, 1, 5]
    assert worst_mistakes(probabilities, LABELS, most=1).tolist() == [4]
    assert worst_mistakes(probabilities[:1], LABELS[:1]).tolist() == []


def test_the_pictures_say_what_they_show(probabilities):
    bars = class_accuracy(LABELS, probabilities.argmax(1), CLASSES)
    assert "50.0% in all: cat 66.7%; dog 50.0%; frog 0.0%." in bars.alt
    texts = [text.get_text() for text in bars.axes[0].texts]
    assert texts == ["unicorn 100%", "cat 50%", "dog 33%", "taken for"]
    assert "1 without images" in bars.axes[0].get_title(loc="left")
    diagram = reliability_diagram(probabilities, LABELS, bins=5)
    assert "6 answers: expected calibration error 43.7%" in diagram.alt
    assert [bar.get_height() for bar in diagram.axes[0].containers[0]] == [0.5, 1, 0]
    images = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), dtype=np.uint8)
    sheet = worst_mistake_sheet(images, LABELS, probabilities, CLASSES)
    assert "3 surest wrong answers: cat 97%, is dog 1%; dog 90%, is cat 5%" in sheet.alt
    assert np.array_equal(sheet.axes[0].images[0].get_array(), images[4])
    right = worst_mistake_sheet(images[:1], LABELS[:1], probabilities[:1], CLASSES)
    assert "none" in right.alt


def test_evaluate_draws_and_tells(tmp_path, capsys):
    rng = np.random.default_rng(0)
    for split, number in (("train", 24), ("test", 6)):
        for name, shade in (("dark", 60), ("light", 180)):
            place = tmp_path / "data" / split / name
            place.mkdir(parents=True)
            for i in range(number):
                noisy = np.clip(shade + rng.normal(0, 20, (16, 16, 3)), 0, 255)
                Image.fromarray(noisy.astype(np.uint8)).save(place / f"{i}.png")
    small = "--set base_e=8 --set incr_e=8 --set stem_filters=8 --set fires=2 --set pools=[1]"
    data = ["--data", str(tmp_path / "data"), "--out", str(tmp_path / "run")]
    recipe = ["--epochs", "1", "--batch-size", "8", "--lr", "0.02"]
    assert main(["train", *data, *recipe, *small.split()]) == 0
    capsys.readouterr()
    plots = tmp_path / "plots"
    assert main(["evaluate", str(tmp_path / "run"), "--plot", str(plots), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found["class_accuracy"]) == ["dark", "light"]
    assert np.mean(list(found["class_accuracy"].values())) == pytest.approx(found["top1"])
    assert 0 <= found["calibration_error"] <= 1
    names = {"confusion_matrix", "class_accuracy", "calibration", "worst_mistakes"}
    assert {p.stem for p in plots.iterdir()} == names
    assert main(["evaluate", "squeezenet1_0", "--plot", str(plots)]) == 1
    assert "are for small images" in capsys.readouterr().err
