"""The grid of an experiment: what it varies, that it goes on where it stopped, curve and agreement."""

import itertools
import json

import numpy as np
import pytest

from tinysqueeze.cli import main
from tinysqueeze.data import Dataset
from tinysqueeze.errors import FormatError, UserError
from tinysqueeze.network.params import trained_shapes
from tinysqueeze.paper.experiments import (
    EXPERIMENTS,
    SHORT,
    Experiment,
    Point,
    affordable_epochs,
    agreement,
    find,
    knee,
    perform,
    places,
    rank_correlation,
    read_rows,
    runs,
    work,
)
from tinysqueeze.show.pictures.experiments import experiment_curve
from tinysqueeze.study.count import count
from tinysqueeze.training import loop
from tinysqueeze.training.recipe import Recipe
from tinysqueeze.training.run_folder import write_csv

TINY = {
    "base_e": 8,
    "incr_e": 4,
    "stem_filters": 4,
    "squeeze_ratio": 0.25,
    "fires": 2,
    "pools": (1,),
}
ONE = Recipe(epochs=1, batch_size=16)


@pytest.fixture
def small() -> Dataset:
    images = np.random.default_rng(0).integers(0, 256, (32, 8, 8, 3), dtype=np.uint8)
    return Dataset(images, np.arange(32) % 2, ("even", "odd"), "noise")


@pytest.fixture
def experiment() -> Experiment:
    points = tuple(Point(f"{p:g}", p, TINY | {"pct3x3": p}) for p in (0.25, 0.5, 0.75))
    paper = {0.25: 80.0, 0.5: 86.0, 0.75: 86.0}
    return Experiment("tiny", "Does it run?", "here", "share", points, paper)


def row(point: str, accuracy: float, seed: int = 0) -> dict:
    sizes = {"parameters": 1000, "multiply_adds": 2_000_000, "seconds": 1.5}
    settings = {"epochs": 1, "lr": 0.1, "images": 32, "split": "validation"}
    return (
        {"point": point, "x": float(point), "seed": seed, "accuracy": accuracy} | sizes | settings
    )


def test_every_experiment_varies_what_it_says():
    for name, experiment in EXPERIMENTS.items():
        assert find(name) is experiment
        networks = [trained_shapes(experiment.network(p)) for p in experiment.points]
        if name == "downsampling":  # Strategy 3 is compared at equal parameters
            assert all(shapes == networks[0] for shapes in networks)
        elif name == "bypass":
            assert networks[0] == networks[1] != networks[2]
        else:
            assert all(a != b for a, b in itertools.pairwise(networks))
    with pytest.raises(UserError, match="squeeze-ratio"):
        find("nothing")


@pytest.mark.parametrize("name", ["downsampling", "growth"])
def test_equal_parameters_where_the_question_says_so(name):
    experiment = find(name)
    assert "at equal parameters" in experiment.question
    sizes = [count(experiment.network(p)).parameters for p in experiment.points]
    assert max(sizes) <= 1.02 * min(sizes)


def test_a_grid_fits_an_hour():
    for experiment in EXPERIMENTS.values():
        effort = work(experiment, 45_000, seeds=2)
        epochs = affordable_epochs(effort, 60)
        assert epochs >= 5
        assert epochs * effort / runs.RATE <= 3600
    assert affordable_epochs(effort, 1e-6) == 1


def test_goes_on_where_it_stopped(small, experiment, tmp_path):
    table = tmp_path / "tiny.csv"
    first = next(iter(perform(experiment, small, small, ONE, table, seeds=2)))
    assert read_rows(table) == [first]
    rest = list(perform(experiment, small, small, ONE, table, seeds=2))
    order = [("0.5", 0), ("0.75", 0), ("0.25", 1), ("0.5", 1), ("0.75", 1)]
    assert [(r["point"], r["seed"]) for r in rest] == order
    rows = read_rows(table)
    assert rows == [first, *rest]
    assert list(perform(experiment, small, small, ONE, table, seeds=2)) == []
    assert rows[0]["parameters"] < rows[1]["parameters"]
    assert list(tmp_path.iterdir()) == [table]
    table.write_text("something,else\n1,2\n")
    with pytest.raises(FormatError, match="move it away"):
        read_rows(table)


def test_a_training_cut_short_goes_on_inside(small, experiment, tmp_path, monkeypatch):
    """Killed in the second epoch of the second point: the first is kept, nothing is trained twice."""
    recipe = Recipe(epochs=3, batch_size=16, average=0.9)
    whole = list(perform(experiment, small, small, recipe, tmp_path / "whole.csv"))
    monkeypatch.setattr(loop, "SAVE_EVERY", 0.0)  # a checkpoint a step
    table, steps = tmp_path / "cut.csv", []

    def report(point, seed, step):
        steps.append((point.label, step.epoch, step.batch))
        if steps[-1] == ("0.5", 1, 1) and steps.count(steps[-1]) == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(perform(experiment, small, small, recipe, table, report=report))
    assert [r["point"] for r in read_rows(table)] == ["0.25"]
    list(perform(experiment, small, small, recipe, table, report=report))
    assert len(steps) == len(set(steps)) == 3 * 3 * 2
    for got, expected in zip(read_rows(table), whole, strict=True):
        assert got["accuracy"] == expected["accuracy"]
    assert not table.with_suffix(".partial.safetensors").exists()


def test_a_checkpoint_of_another_training_is_not_taken(small, experiment, tmp_path):
    table = tmp_path / "tiny.csv"
    partial = table.with_suffix(".partial.safetensors")
    partial.write_bytes(b"not a checkpoint")
    expected = next(iter(perform(experiment, small, small, ONE, tmp_path / "other.csv")))
    for start in ("damaged", "another recipe"):
        if start == "another recipe":
            network = experiment.network(experiment.points[0], input_size=8, classes=2)
            longer = runs.begin(network, small, Recipe(epochs=2, batch_size=16))
            runs.checkpoint.save(partial, longer, images=len(small))
        got = next(iter(perform(experiment, small, small, ONE, table)))
        assert got["accuracy"] == expected["accuracy"]
        table.unlink()


def test_rows_of_one_table_were_trained_alike(small, experiment, tmp_path):
    table = tmp_path / "tiny.csv"
    next(iter(perform(experiment, small, small, ONE, table)))
    for recipe, split, changes, what in (
        (Recipe(epochs=2, batch_size=16), "validation", {}, "epochs 1, not 2"),
        (ONE, "test", {}, "split validation, not test"),
        (ONE, "validation", {"norm": False}, "parameters"),
    ):
        with pytest.raises(UserError, match=what):
            list(perform(experiment, small, small, recipe, table, split=split, **changes))


def test_rank_correlation_and_knee():
    assert rank_correlation([1, 2, 3], [10, 20, 90]) == pytest.approx(1)
    assert rank_correlation([3, 2, 1], [1, 5, 6]) == pytest.approx(-1)
    assert rank_correlation([1, 2, 3], [1, 2, 2]) == pytest.approx(np.sqrt(3) / 2)
    assert np.isnan(rank_correlation([1, 2, 3], [4, 4, 4]))
    assert knee({1: 0.5, 2: 0.796, 3: 0.8, 4: 0.79}) == 2
    assert knee({1: 0.5}) == 1


def test_agreement_and_the_curve(experiment):
    rows = [row("0.25", 0.8), row("0.25", 0.82, 1), row("0.5", 0.9), row("0.75", 0.85)]
    first = places(experiment, rows)[0]
    assert (first.seeds, first.paper) == (2, 80.0)
    assert first.accuracy == pytest.approx(0.81)
    assert first.spread == pytest.approx(0.02 / np.sqrt(2))
    text = agreement(experiment, rows)
    assert "81.00 ± 1.41" in text
    assert "paper's 3 points: 0.87 (Spearman)" in text
    assert "best) at 0.5, in the paper at 0.5" in text
    picture = experiment_curve(experiment, rows)
    assert "0.25: 81.0%, 0.5: 90.0%, 0.75: 85.0%" in picture.alt
    line = picture.axes[0].containers[0].lines[0]
    assert np.allclose(line.get_xydata(), [[0.25, 81], [0.5, 90], [0.75, 85]])
    errors = picture.axes[0].containers[0].lines[2][0].get_segments()  # spread / √2, here one point
    assert np.allclose(errors[0], [[0.25, 80], [0.25, 82]])
    assert np.allclose(picture.axes[1].lines[0].get_ydata(), [80, 86, 86])


def test_names_instead_of_numbers():
    bypass = find("bypass")
    scores = {"none": 0.8, "simple": 0.82, "complex": 0.83}
    rows = [row("0", a) | {"point": n, "x": float(x)} for x, (n, a) in enumerate(scores.items())]
    text = agreement(bypass, rows)
    assert "paper's 3 points: 0.50" in text
    assert "best: complex, in the paper simple" in text
    ticks = [t.get_text() for t in experiment_curve(bypass, rows).axes[0].get_xticklabels()]
    assert ticks == ["none", "simple", "complex"]
    text = agreement(find("expand"), [row("0", 0.5) | {"point": "mixed", "x": 1.0}])
    assert "1 of 3 points so far" in text


def test_the_command(tmp_path, capsys, monkeypatch):
    from PIL import Image

    noise = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in ("even", "odd"):
            place = tmp_path / "data" / split / name
            place.mkdir(parents=True)
            for i in range(80):
                Image.fromarray(noise.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(
                    place / f"{i}.png"
                )
    changes = [f"{k}={json.dumps(v)}" for k, v in TINY.items() if k not in ("fires", "pools")]
    out = tmp_path / "out"
    command = ["experiment", "expand", "--data", str(tmp_path / "data"), "--out", str(out)]
    command += [x for c in changes for x in ("--set", c)]
    assert main([*command, "--seeds", "1", "--epochs", "1"]) == 0
    text = capsys.readouterr().out
    assert "3 trainings to go, of 1 epochs on 144 images, measured on 16 validation images" in text
    assert "G multiply-adds a second" in text
    assert "best: " in text
    assert {p.name for p in out.iterdir()} == {"expand.csv", "expand.png"}
    rows = read_rows(out / "expand.csv")
    assert {r["split"] for r in rows} == {"validation"}
    assert {r["images"] for r in rows} == {144}
    assert {r["lr"] for r in rows} == {SHORT.schedule.lr}
    assert main([*command, "--seeds", "1"]) == 0  # the epochs are the table's
    assert "0 trainings to go, of 1 epochs" in capsys.readouterr().out
    assert main([*command, "--seeds", "1", "--epochs", "2"]) == 1
    assert "epochs 1, not 2" in capsys.readouterr().err
    assert SHORT.batch_size == 128
    write_csv(out / "expand.csv", runs.COLUMNS, rows[:1])
    assert read_rows(out / "expand.csv") == rows[:1]
