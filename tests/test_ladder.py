"""From a published training to ours: what each rung is, Lookahead and whitening, and that it goes on."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from tinysqueeze.cli import main
from tinysqueeze.data import Dataset, Normalise, batches
from tinysqueeze.errors import FormatError, UserError
from tinysqueeze.network.models import build
from tinysqueeze.paper import ladder
from tinysqueeze.paper.experiments import read_rows
from tinysqueeze.show.pictures.results import climbed
from tinysqueeze.training.loop import run
from tinysqueeze.training.optimisers import SGD
from tinysqueeze.training.recipe import Scoring
from tinysqueeze.training.recipes import find_recipe


@pytest.fixture
def noise() -> Dataset:
    images = np.random.default_rng(0).integers(0, 256, (40, 32, 32, 3), dtype=np.uint8)
    return Dataset(images, np.arange(40) % 2, ("even", "odd"), "noise")


@pytest.fixture
def quick(monkeypatch) -> None:
    """The same ladder of small networks and batches."""
    whole = ladder.rungs
    fast = find_recipe("fast")
    small = replace(fast, model=fast.model | {"base_e": 8, "incr_e": 8, "stem_filters": 8})

    def rungs(*given):
        return tuple(
            replace(rung, recipe=rung.recipe.changed(batch_size=16)) for rung in whole(*given)
        )

    monkeypatch.setattr(ladder, "BLOCKS", (8, 8, 8))
    monkeypatch.setattr(ladder, "find_recipe", lambda name: small)
    monkeypatch.setattr(ladder, "rungs", rungs)


def test_every_rung_changes_something_and_the_last_one_is_fast():
    rungs = ladder.rungs(epochs=12)
    for lower, upper in itertools.pairwise(rungs):
        assert replace(lower, change="") != replace(upper, change="")
    fast = find_recipe("fast")
    assert rungs[-1].recipe == replace(fast.recipe, scoring=Scoring(flip=True, shift=True))
    assert rungs[-1].network == build("squeezenet_cifar", **fast.model)
    assert not (rungs[-1].whitened)
    assert not (rungs[-1].lookahead)
    assert rungs[-1].classifier == 1


def test_whitened_filters_make_patches_uncorrelated(noise):
    smooth = np.cumsum(noise.images / 255 - 0.5, axis=1).astype(np.float32)  # neighbours are alike
    filters = ladder.whitening_filters(smooth, eps=0)
    assert filters.shape == (2, 2, 3, 24)
    np.testing.assert_array_equal(filters[..., 12:], -filters[..., :12])
    answers = sum(
        smooth[:, i : 31 + i, j : 31 + j] @ filters[i, j, :, :12] for i in (0, 1) for j in (0, 1)
    ).reshape(-1, 12)
    np.testing.assert_allclose(answers.T @ answers / len(answers), np.eye(12), atol=1e-3)


def test_lookahead_is_its_formula():
    rng = np.random.default_rng(0)
    params = rng.normal(size=7).astype(np.float32)
    here, slow, plain = params.copy(), params.astype(float), {"velocity": np.zeros(7, np.float32)}
    slots = {"velocity": np.zeros(7, np.float32), "slow": params.copy()}
    zero, sgd = np.zeros(7, np.float32), SGD(0.85)
    for step in range(1, 11):
        grads = rng.normal(size=7).astype(np.float32)
        ladder.Lookahead(0.85, steps=10).update(params, grads, slots, zero, 0.1, step, 1)
        sgd.update(here, grads, plain, zero, 0.1, step, 1)
        if step % 5 == 0:
            keep = 0.95**5 * (step / 10) ** 3
            slow = keep * slow + (1 - keep) * here
            here[:] = slow
        np.testing.assert_allclose(params, here, rtol=1e-5, atol=1e-6)


def test_a_rung_learns_as_it_says(noise, quick):
    published, muon, loud, *_ = ladder.rungs(3, 2)
    training = ladder.start(published, noise, threads=1)
    stem = training.engine.params["conv1"]
    before = {name: array.copy() for name, array in stem.items()}
    images, _ = next(batches(noise, 40, shuffle=False, normalise=Normalise.of(noise)))
    np.testing.assert_array_equal(before["weight"], ladder.whitening_filters(images))
    next(run(training, noise))
    np.testing.assert_array_equal(stem["weight"], before["weight"])
    assert (stem["bias"] != before["bias"]).any()
    norm = training.engine.params["block1a_norm"]
    assert (norm["weight"] == 1).all()
    assert (norm["bias"] != 0).any()
    classifiers = [ladder.start(rung, noise, threads=1) for rung in (muon, loud)]
    slow, fast = (t.engine.params["conv10"]["weight"] for t in classifiers)
    np.testing.assert_allclose(9 * slow, fast, rtol=1e-6)
    factors = [t.engine.views(t.factors)["conv10"]["weight"] for t in classifiers]
    assert (factors[0] == np.float32(1 / 81)).all()
    assert (factors[1] == 1).all()


def test_the_command_goes_on_where_it_stopped(tmp_path, capsys, quick):
    rng = np.random.default_rng(0)
    for name in ("even", "odd"):
        (tmp_path / "data" / "train" / name).mkdir(parents=True)
        for i in range(24):
            pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "data" / "train" / name / f"{i}.png")
    out = tmp_path / "out" / "ladder.csv"
    command = [
        "ladder",
        "--data",
        str(tmp_path / "data"),
        "--held-out",
        "8",
        "--epochs",
        "3",
        "-o",
        str(out),
    ]
    assert main(command) == 0
    said = capsys.readouterr().out
    rows = read_rows(out, ladder.COLUMNS)
    changes = [rung.change for rung in ladder.rungs()]
    assert [row["change"] for row in rows] == changes
    assert all(f"\n| {change} | 1 | " in said for change in changes)
    assert {row["seen"] for row in rows} == {120}
    assert {row["held_out"] for row in rows} == {8}
    ladder.write_csv(out, ladder.COLUMNS, rows[:-1])
    assert main(command) == 0
    again = read_rows(out, ladder.COLUMNS)
    timeless = [{k: v for k, v in row.items() if k != "seconds"} for row in (again[-1], rows[-1])]
    assert timeless[0] == timeless[1]
    assert main([*command, "--epochs", "4"]) == 1
    assert "saw 120 images, not 160: go on with the same settings" in capsys.readouterr().err
    out.write_text("no,table\n1,2\n")
    with pytest.raises(FormatError, match="not the table of"):
        read_rows(out, ladder.COLUMNS)


def test_gains_are_those_over_the_rung_below():
    row = {"seed": 0, "one_view": 0.5, "loss": 1.0}
    pairs = [("a", 0.5), ("b", 0.6), ("a", 0.7)]
    table = ladder.markdown([row | {"change": c, "accuracy": a} for c, a in pairs]).splitlines()
    assert table[2:] == [
        "| a | 2 | 50.0% | 60.0% |  | 1.000 |",
        "| b | 1 | 50.0% | 60.0% | +0.0 | 1.000 |",
    ]
    picture = climbed([row | {"change": c, "accuracy": a, "held_out": 24} for c, a in pairs])
    assert picture.alt == "Accuracy from rung to rung: a 60.0%; b 60.0%."
    bars = picture.figure.axes[0].containers[0]
    np.testing.assert_allclose(bars.lines[0].get_xdata().astype(float), [60, 60])
    (segments,) = (collection.get_segments() for collection in bars.lines[2])
    np.testing.assert_allclose(segments[0][:, 0], [50, 70])  # 0.6 * 0.4 / 24 is 0.1 squared


def test_a_table_of_other_images_is_refused(noise, quick, tmp_path):
    one = dict.fromkeys(ladder.COLUMNS, 0) | {"change": "x", "seen": 1}
    ladder.write_csv(tmp_path / "t.csv", ladder.COLUMNS, [one])
    with pytest.raises(UserError, match="saw 1 images, not 120"):
        next(ladder.climb(noise, noise, tmp_path / "t.csv", epochs=3))


def test_too_few_images_for_a_batch_are_refused(noise, tmp_path):
    with pytest.raises(UserError, match="noise: 40 images; the ladder's largest batch takes 1,024"):
        next(ladder.climb(noise, noise, tmp_path / "t.csv"))
