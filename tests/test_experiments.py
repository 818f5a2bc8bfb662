"""The grid of an experiment: what it varies, that it goes on where it stopped, and its curve."""

import itertools

import numpy as np
import pytest

from tinysqueeze.data import Dataset
from tinysqueeze.errors import FormatError, UserError
from tinysqueeze.experiments import EXPERIMENTS, Experiment, Point, find, perform, read_rows
from tinysqueeze.models import squeezenet_cifar
from tinysqueeze.params import trained_shapes
from tinysqueeze.pictures.experiments import experiment_curve
from tinysqueeze.recipes import Recipe

TINY = {
    "base_e": 8,
    "incr_e": 4,
    "stem_filters": 4,
    "squeeze_ratio": 0.25,
    "fires": 2,
    "pools": (1,),
}


@pytest.fixture
def small() -> Dataset:
    images = np.random.default_rng(0).integers(0, 256, (32, 8, 8, 3), dtype=np.uint8)
    return Dataset(images, np.arange(32) % 2, ("even", "odd"), "noise")


@pytest.fixture
def experiment() -> Experiment:
    points = tuple(Point(str(p), p, TINY | {"pct3x3": p}) for p in (0.25, 0.5))
    return Experiment("tiny", "Does it run?", "here", "share", points, {0.25: 80.0, 0.5: 82.0})


def test_every_experiment_varies_what_it_says():
    for name, experiment in EXPERIMENTS.items():
        assert find(name) is experiment
        networks = [trained_shapes(squeezenet_cifar(**p.changes)) for p in experiment.points]
        if name == "downsampling":  # Strategy 3 is compared at equal parameters
            assert all(shapes == networks[0] for shapes in networks)
        elif name != "bypass":
            assert all(a != b for a, b in itertools.pairwise(networks))
    with pytest.raises(UserError, match="squeeze-ratio"):
        find("nothing")


def test_goes_on_where_it_stopped(small, experiment, tmp_path):
    table, recipe = tmp_path / "tiny.csv", Recipe(epochs=1, batch_size=16)
    first = next(iter(perform(experiment, small, small, recipe, table, seeds=2)))
    assert read_rows(table) == [first]
    rest = list(perform(experiment, small, small, recipe, table, seeds=2))
    assert [(r["point"], r["seed"]) for r in rest] == [("0.5", 0), ("0.25", 1), ("0.5", 1)]
    rows = read_rows(table)
    assert rows == [first, *rest]
    assert list(perform(experiment, small, small, recipe, table, seeds=2)) == []
    assert rows[0]["parameters"] < rows[1]["parameters"]
    table.write_text("something,else\n1,2\n")
    with pytest.raises(FormatError, match="move it away"):
        read_rows(table)


def test_the_curve(experiment):
    rows = [{"x": x, "accuracy": a} for x, a in ((0.25, 0.8), (0.25, 0.82), (0.5, 0.9))]
    picture = experiment_curve(rows, experiment.axis, experiment.question, experiment.paper)
    assert "0.25: 81.0%, 0.5: 90.0%" in picture.alt
    line = picture.axes[0].lines[0]
    assert np.allclose(line.get_xydata(), [[0.25, 81], [0.5, 90]])
    assert np.allclose(picture.axes[1].lines[0].get_ydata(), [80, 82])
