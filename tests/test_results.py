"""From run folders to the table of results; clear refusals; the answers of a network, kept small."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tinysqueeze.cli import main
from tinysqueeze.errors import FormatError, UserError
from tinysqueeze.network.ops.reference import softmax
from tinysqueeze.paper.ablations import markdown as ablation_table
from tinysqueeze.paper.ablations import read_ablations
from tinysqueeze.paper.results import (
    Result,
    load_answers,
    markdown,
    read_results,
    read_run,
    save_answers,
    summaries,
    write_results,
)
from tinysqueeze.show.pictures.results import accuracy_by_minutes, gains


def result(seed=0, accuracy=0.9, engine="compiled", minutes=9.5, recipe="fast") -> Result:
    return Result(recipe, engine, seed, 735_000, 52_500_000, 20, 16, minutes, accuracy)


@pytest.fixture
def results():
    ours = [result(seed, accuracy) for seed, accuracy in enumerate((0.90, 0.91, 0.92))]
    return [*ours, result(0, 0.905, "torch", 27.0), result(0, 0.85, recipe="tiny", minutes=4.0)]


def test_a_run_folder_becomes_a_row(tmp_path):
    summary = {
        "recipe_name": "fast", "engine": "compiled", "seed": 3, "parameters": 735_000,
        "multiply_adds": 52_500_000, "recipe": {"epochs": 20}, "wall_seconds": 570.0,
        "test_accuracy": 0.9, "lanes": 16,
    }  # fmt: skip
    place = tmp_path / "summary.json"
    place.write_text(json.dumps(summary))
    assert read_run(tmp_path) == result(seed=3)
    place.write_text(json.dumps(summary | {"recipe_name": None}))
    assert read_run(tmp_path).recipe == tmp_path.name
    del summary["wall_seconds"]
    place.write_text(json.dumps(summary))
    with pytest.raises(FormatError, match="no 'wall_seconds' in it"):
        read_run(tmp_path)
    with pytest.raises(FormatError, match=r"not the summary of a finished run.*--resume .*nowhere"):
        read_run(tmp_path / "nowhere")


def test_the_file_holds_all_rows(results, tmp_path):
    path = tmp_path / "results" / "recipes.csv"
    write_results(path, results)
    assert sorted(read_results(path), key=str) == sorted(results, key=str)
    with pytest.raises(UserError, match="two runs of recipe fast, engine compiled, seed 0"):
        write_results(path, [*results, result(0, 0.5)])
    path.write_text("a,b\n1,2\n")
    with pytest.raises(FormatError, match="not a table"):
        read_results(path)


def test_the_table_has_means_and_spreads(results):
    first = summaries(results)[0]
    assert (first.seeds, first.minutes) == (3, 9.5)
    assert first.accuracy == pytest.approx(0.91)
    assert first.spread == pytest.approx(0.01)
    lines = markdown(results).splitlines()
    assert lines[2] == (
        "| fast | 735,000 | 52.5 M | 512 bits | 9.5 | 91.00 % ± 1.00 (3 seeds) | 27.0 "
        "| 90.50 % (1 seed) |"
    )
    assert lines[3] == "| tiny | 735,000 | 52.5 M | 512 bits | 4.0 | 85.00 % (1 seed) | – | – |"
    elsewhere = replace(result(minutes=14.0), lanes=8)
    assert markdown([*results, elsewhere]).splitlines()[-1] == (
        "| fast | 735,000 | 52.5 M | 256 bits | 14.0 | 90.00 % (1 seed) | – | – |"
    )
    assert "fast on PyTorch 90.5% in 27.0 minutes" in accuracy_by_minutes(results).alt


def test_the_command(tmp_path, capsys):
    runs = []
    for seed in (0, 1):
        folder = tmp_path / f"run{seed}"
        folder.mkdir()
        summary = {
            "recipe_name": "fast", "engine": "compiled", "seed": seed, "parameters": 1,
            "multiply_adds": 1, "recipe": {"epochs": 1}, "wall_seconds": 60, "test_accuracy": 0.5,
            "lanes": 16,
        }  # fmt: skip
        (folder / "summary.json").write_text(json.dumps(summary))
        runs.append(str(folder))
    out = tmp_path / "recipes.csv"
    assert main(["results", runs[0], "-o", str(out)]) == 0
    assert main(["results", runs[1], "-o", str(out), "--add"]) == 0
    assert "(2 seeds)" in capsys.readouterr().out
    assert [r.seed for r in read_results(out)] == [0, 1]


def test_answers_are_small_and_say_the_same(tmp_path):
    rng = np.random.default_rng(0)
    logits = (3 * rng.standard_normal((5000, 10))).astype(np.float32)
    labels = rng.integers(0, 10, 5000)
    images = rng.integers(0, 256, (5000, 32, 32, 3), dtype=np.uint8)
    path = tmp_path / "answers.npz"
    save_answers(path, logits, labels, images, list("abcdefghij"))
    assert path.stat().st_size < 200_000
    found = load_answers(path)
    exact = softmax(logits.astype(float))
    np.testing.assert_allclose(found.probabilities, exact, atol=3e-3)
    np.testing.assert_array_equal(found.labels, labels)
    np.testing.assert_array_equal(found.images, images[found.worst])
    assert (exact[found.worst].argmax(1) != labels[found.worst]).all()
    assert found.classes == tuple("abcdefghij")
    for damaged in (b"PK", path.read_bytes()[:1000]):
        path.write_bytes(damaged)
        with pytest.raises(FormatError, match="not the answers"):
            load_answers(path)


def test_what_each_change_gave(tmp_path):
    path = tmp_path / "ablations.csv"
    head = "kind,change,instead_of,budget,trainings,judged_by,before,after\n"
    path.write_text(
        head
        + "optimiser,Muon,SGD,2 epochs,1,held-out images,71,75\n"
        + "images,CutMix,cutout,20 epochs,2,held-out images,91.1,90.4\n"
        + "images,CutMix,cutout,an hour,1,test images,91.7,92.2\n"
    )
    rows = read_ablations(path)
    assert [row.gain for row in rows] == [4, -0.7, 0.5]  # as printed, not 0.4999999999999858
    assert ablation_table(rows).splitlines()[2:] == [
        "| Muon | SGD | 2 epochs | 1 | 71.0 % | 75.0 % | +4.0 |",
        "| CutMix | cutout | 20 epochs | 2 | 91.1 % | 90.4 % | -0.7 |",
        "| CutMix | cutout | an hour (test images) | 1 | 91.7 % | 92.2 % | +0.5 |",
    ]
    picture = gains(rows)
    assert "1 gained more than 0.5, 1 lost more" in picture.alt
    names = [label.get_text() for label in picture.axes[0].get_yticklabels()]
    assert names == ["CutMix, 20 epochs", "CutMix, an hour", "Muon"]
    for wrong in (
        "luck,Muon,SGD,2,1,held-out images,71,75",
        "images,Muon,SGD,2,1,test images,71,175",
    ):
        path.write_text(head + wrong + "\n")
        with pytest.raises(
            FormatError, match=r"not a table of ablations \(ablation: (kind|after) is "
        ):
            read_ablations(path)


def test_the_lesson_s_ablations_are_all_read():
    rows = read_ablations(Path(__file__).parents[1] / "notebooks" / "results" / "ablations.csv")
    assert len({(row.change, row.budget) for row in rows}) == len(rows) > 40
