"""The named recipes: networks as they claim to be, and `train --recipe` does what they say."""

import json

import pytest

from tinysqueeze.cli import main
from tinysqueeze.errors import UserError
from tinysqueeze.kernels import TARGET
from tinysqueeze.network.compose import leaves
from tinysqueeze.network.layers import BatchNorm
from tinysqueeze.network.models import build, squeezenet_cifar
from tinysqueeze.paper.results import read_run
from tinysqueeze.study.count import count
from tinysqueeze.training.loop import evaluate_training
from tinysqueeze.training.recipe import RECIPES, Recipe, find_recipe, recipe_dict


def network(name):
    return build({"name": "squeezenet_cifar", **RECIPES[name].model})


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_whole(name):
    model, named = network(name), find_recipe(name)
    assert model.input_shape == (32, 32, 3)
    assert model.classes == 10
    assert named.purpose
    assert Recipe.from_dict(json.loads(json.dumps(recipe_dict(named.recipe)))) == named.recipe


def test_the_networks_are_what_they_claim():
    assert count(network("tiny")).parameters < 125_000
    paper = network("paper")
    assert count(paper).parameters == count(squeezenet_cifar()).parameters == 729_034
    assert not any(isinstance(layer, BatchNorm) for _, layer, *_ in leaves(paper, (32, 32, 3)))


def test_keep_and_hard():
    recipe = Recipe(epochs=5, batch_size=10, keep=0.5, hard=0.2)
    assert [recipe.batches(101, epoch) for epoch in range(5)] == [10, 10, 5, 5, 5]
    assert recipe.steps(101) == 35
    for wrong in ({"keep": 0.0}, {"keep": 1.1}, {"keep": 0.5, "hard": 0.6}, {"hard": -0.1}):
        with pytest.raises(UserError, match="keep is the share"):
            Recipe(**wrong)


def test_an_unknown_name_lists_the_known():
    with pytest.raises(UserError, match="there are fast"):
        find_recipe("slow")


def test_train_by_recipe(folder, tmp_path, capsys):
    """The recipe's network and settings, but for what the options change."""
    out = tmp_path / "run"
    options = ["--epochs", "1", "--batch-size", "16", "--set", "base_e=8", "--set", "incr_e=8"]
    assert (
        main(["train", "--recipe", "fast", "--data", str(folder), "--out", str(out), *options]) == 0
    )
    summary = json.loads((out / "summary.json").read_text())
    named = RECIPES["fast"]
    changed = {"epochs": 1, "batch_size": 16}
    assert summary["recipe"] == json.loads(json.dumps(recipe_dict(named.recipe))) | changed
    assert summary["recipe_name"] == "fast"
    assert read_run(out).lanes == TARGET.lanes
    assert summary["engine"] == "compiled"
    assert summary["wall_seconds"] > summary["seconds"] > 0
    given = {**named.model, "base_e": 8, "incr_e": 8, "classes": 2, "input_size": 16}
    wanted = build({"name": "squeezenet_cifar", **given})
    assert summary["model"] == json.loads(json.dumps(wanted.spec))
    assert summary["parameters"] == count(wanted).parameters
    capsys.readouterr()
    assert main(["train", "--resume", str(out), "--recipe", "fast"]) == 1
    assert "leave out --recipe" in capsys.readouterr().err


def test_the_last_test_is_made_once(folder, tmp_path, monkeypatch):
    """The summary has the accuracy of the last epoch's test, and --no-test one of its own."""
    made = []

    def counted(*given):
        made.append(evaluate_training(*given))
        return made[-1]

    for module in ("tinysqueeze.training.loop", "tinysqueeze.cli.train"):
        monkeypatch.setattr(f"{module}.evaluate_training", counted)
    small = ["--epochs", "1", "--batch-size", "16", "--set", "base_e=8", "--set", "incr_e=8"]
    for extra in ([], ["--no-test"]):
        out = tmp_path / f"run{len(extra)}"
        assert main(["train", "--data", str(folder), "--out", str(out), *small, *extra]) == 0
        assert len(made) == 1
        summary = json.loads((out / "summary.json").read_text())
        assert summary["test_accuracy"] == made.pop().accuracy
