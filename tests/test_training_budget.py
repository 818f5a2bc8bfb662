"""`--minutes`: the speed measured, the epochs that fit, and a run that is like any other from there on."""

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

import tinysqueeze as ts
from tinysqueeze.cli import main
from tinysqueeze.errors import UserError
from tinysqueeze.network.params import flatten
from tinysqueeze.training import budget, checkpoint
from tinysqueeze.training.budget import RESERVE, Speed, epochs_within, measured
from tinysqueeze.training.recipes import RECIPES
from tinysqueeze.training.train import start

TINY = {"base_e": 8, "incr_e": 4, "stem_filters": 6, "fires": 2, "pools": (1, 2)}
SMALL = {"name": "squeezenet_cifar", "classes": 3, "input_size": 12, **TINY}
RECIPE = ts.Recipe(batch_size=16)


@pytest.fixture
def squares() -> ts.data.Dataset:
    """Three classes of noise, 12x12 pixels."""
    images = np.random.default_rng(7).integers(0, 256, (96, 12, 12, 3), dtype=np.uint8)
    return ts.data.Dataset(images, np.arange(96) % 3, ("a", "b", "c"), "squares")


@pytest.fixture
def fixed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that takes a second a step, and two a test."""
    monkeypatch.setattr("tinysqueeze.training.train.measured", lambda *_: Speed(1.0, 2.0))


@pytest.mark.parametrize("name", RECIPES)
def test_as_many_epochs_as_fit_and_not_one_more(name: str) -> None:
    """By the sum over the epochs, of which those of hard images are shorter, and their tests."""
    recipe, speed = RECIPES[name].recipe, Speed(0.25, 20.0)
    epochs = epochs_within(recipe, 50_000, speed, 600)

    def seconds(count: int) -> float:
        changed = recipe.changed(epochs=count)
        tests = sum((e + 1) % recipe.scoring.every == 0 or e + 1 == count for e in range(count))
        return 0.25 * sum(changed.batches(50_000, e) for e in range(count)) + 20 * tests

    assert seconds(epochs) <= (1 - RESERVE) * 600 < seconds(epochs + 1)
    assert speed.seconds(recipe.changed(epochs=epochs), 50_000) == seconds(epochs)
    more = [epochs_within(recipe, 50_000, speed, minutes * 60) for minutes in (5, 10, 20, 60)]
    assert all(b > a for a, b in pairwise(more))


def test_what_no_epoch_fits_into_is_refused() -> None:
    with pytest.raises(UserError, match=r"one takes about 7\.0 here"):
        epochs_within(RECIPE, 16 * 378, Speed(1.0), 60)


def test_the_first_steps_do_not_count(
    squares: ts.data.Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock of our own: the first three steps take ten seconds each, the others two."""
    now = 0.0

    def steps(*_: object, **__: object):
        nonlocal now
        for number in range(100):
            now += 10 if number < 3 else 2
            yield None

    monkeypatch.setattr(budget, "run", steps)
    monkeypatch.setattr(budget.time, "perf_counter", lambda: now)
    training = ts.begin(ts.build(SMALL), squares, RECIPE)
    assert measured(training, squares, None) == Speed(2.0)


def test_minutes_are_epochs_from_the_first_step_on(
    squares: ts.data.Dataset, tmp_path: Path, fixed: None
) -> None:
    """The same bits as with that number of epochs; what was measured is kept and said."""
    run = ts.train(
        SMALL, squares, RECIPE, test=squares, out=tmp_path, minutes=1, progress=False
    )  # 54 seconds: six steps and a test an epoch
    assert run.training.recipe.epochs == 6
    again = ts.train(SMALL, squares, RECIPE, test=squares, epochs=6, progress=False)
    for path, array in flatten(run.params).items():
        assert array.tobytes() == flatten(again.params)[path].tobytes(), path
    told = json.loads((tmp_path / "summary.json").read_text())
    assert told["minutes"] == 1
    assert told["measured_images_per_second"] == 16
    assert told["recipe"]["epochs"] == 6
    assert checkpoint.read(tmp_path).meta["extra"]["minutes"] == 1


def test_the_real_measure_leaves_the_run_as_it_was(squares: ts.data.Dataset) -> None:
    """Nothing of the steps that were measured is left in what is trained."""
    begun = start(SMALL, squares, RECIPE, test=squares, minutes=1)
    fresh = start(SMALL, squares, RECIPE, test=squares)
    assert begun.training.step == 0
    assert begun.training.recipe.epochs >= 1
    assert np.array_equal(begun.training.engine.vector, fresh.training.engine.vector)


def test_minutes_and_epochs_together_are_refused(
    squares: ts.data.Dataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError, match="leave one of them out"):
        ts.train(SMALL, squares, RECIPE, epochs=3, minutes=1)
    for argv in (["--minutes", "0"], ["--minutes", "1", "--epochs", "2", "--out", f"{tmp_path}/x"]):
        try:
            status = main(["train", *argv])
        except SystemExit as stop:
            status = int(stop.code or 0)
        assert status != 0
        assert not (tmp_path / "x").exists()
    assert "leave one of them out" in capsys.readouterr().err


def test_a_resumed_run_keeps_its_minutes(
    tmp_path: Path,
    squares: ts.data.Dataset,
    fixed: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(ts.data, "load", lambda *_, **__: squares)
    network = [word for n, v in TINY.items() for word in ("--set", f"{n}={json.dumps(v)}")]
    argv = ["train", "--out", str(tmp_path), "--batch-size", "16", *network]
    assert main([*argv, "--minutes", "1"]) == 0
    assert "6 epochs: what fits into 1 minutes at 16 images/s" in capsys.readouterr().out
    assert main(["train", "--resume", str(tmp_path)]) == 0
    assert "6 epochs: what fits into 1 minutes" in capsys.readouterr().out
    assert main(["train", "--resume", str(tmp_path), "--minutes", "2"]) == 1
    assert "leave out --minutes" in capsys.readouterr().err
