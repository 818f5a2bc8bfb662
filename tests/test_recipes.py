"""The named recipes: networks as they claim to be, and `train --recipe` does what they say."""

import json
import re
from dataclasses import fields, is_dataclass
from typing import get_args

import pytest
from numba.core import config

from tinysqueeze.cli import main
from tinysqueeze.compiled import compile
from tinysqueeze.data import Augment
from tinysqueeze.errors import UserError
from tinysqueeze.kernels import TARGET
from tinysqueeze.network.compose import leaves
from tinysqueeze.network.layers import BatchNorm
from tinysqueeze.network.models import build, squeezenet_cifar
from tinysqueeze.paper.results import read_run
from tinysqueeze.ranges import Range, hints_of, plain_type, said
from tinysqueeze.study.count import count
from tinysqueeze.training.optimisers import SGD, Adam, Muon
from tinysqueeze.training.recipe import HardImages, Recipe, Scoring
from tinysqueeze.training.recipes import RECIPES, find_recipe
from tinysqueeze.training.schedule import Schedule
from tinysqueeze.training.settings import settings_of
from tinysqueeze.training.state import evaluate_training


def network(name):
    return build({"name": "squeezenet_cifar", **RECIPES[name].model})


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_whole(name):
    model, named = network(name), find_recipe(name)
    assert model.input_shape == (32, 32, 3)
    assert model.classes == 10
    assert named.purpose
    assert Recipe.from_dict(json.loads(json.dumps(named.recipe.to_dict()))) == named.recipe


def test_the_networks_are_what_they_claim():
    assert count(network("tiny")).parameters < 125_000
    assert count(network("small")).parameters < 455_000
    paper = network("paper")
    assert count(paper).parameters == count(squeezenet_cifar()).parameters == 729_034
    assert not any(isinstance(layer, BatchNorm) for _, layer, *_ in leaves(paper, (32, 32, 3)))


def test_keep_and_hard():
    recipe = Recipe().changed(epochs=5, batch_size=10, keep=0.5, hard=0.2)
    assert [recipe.batches(101, epoch) for epoch in range(5)] == [10, 10, 5, 5, 5]
    assert recipe.steps(101) == 35
    for wrong in ({"keep": 0.0}, {"keep": 1.1}, {"keep": 0.5, "hard": 0.6}, {"hard": -0.1}):
        with pytest.raises(UserError, match="keep is the share"):
            Recipe().changed(**wrong)


PARTS = (Recipe, Schedule, SGD, Adam, Muon, Augment, HardImages, Scoring)


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.__name__)
def test_the_help_of_every_field_is_the_commands(part, capsys):
    """Nothing is without help but what a network says, and no help is said twice."""
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    shown = " ".join(capsys.readouterr().out.replace("-\n", "-").split())
    for field in fields(part):
        if field.name == "matrices":
            assert not field.metadata
            continue
        text = field.metadata["help"]
        nested = is_dataclass(field.default) and "kinds" not in field.metadata
        assert nested or text in shown.replace("- ", "-") or text in shown, field.name
        option = field.metadata.get("option", field.name).replace("_", "-")
        assert nested or f" --{option} " in shown.replace(",", " ")


def test_types_choices_and_ranges_come_from_the_fields():
    found = {one.option: one for one in settings_of(Recipe)}
    kinds = {option: plain_type(one.hint) for option, one in found.items()}
    assert (kinds["lr"], kinds["epochs"], kinds["identity"]) == (float, int, bool)
    assert (kinds["freeze"], kinds["flip"], kinds["optimiser"]) == (tuple, str, str)
    assert said(found["flip"].hint) == "None, 'random' or 'alternate'"
    assert said(found["optimiser"].hint) == "'sgd', 'adam' or 'muon'"
    assert found["momentum"].help.startswith("of sgd and muon: ")
    assert found["cutmix"].path == ("augment", "cutmix")
    assert said(found["warmup"].hint) == "a number from 0 to 1"
    assert said(found["epochs"].hint) == "a whole number from 1 to 1,000,000"


def test_every_number_has_a_range_with_two_ends():
    for part in PARTS:
        for name, hint in hints_of(part).items():
            if plain_type(hint) in (int, float):
                assert isinstance(get_args(hint)[1], Range), (part, name)


def test_changed_by_the_names_of_the_options():
    recipe = Recipe(optimiser=SGD(momentum=0.8)).changed(
        optimiser="muon", turn=0.1, lr=0.3, flip="alternate", keep=0.5, hard=0.4, freeze=["conv1"]
    )
    assert recipe == Recipe(
        schedule=Schedule(0.3), optimiser=Muon(momentum=0.8, turn=0.1), frozen=("conv1",),
        augment=Augment(pad=0, flip="alternate"), hard_images=HardImages(0.5, 0.4),
    )  # fmt: skip
    assert recipe.changed(keep=0.2, hard=0.1).hard_images == HardImages(0.2, 0.1)
    assert Recipe().changed(augment=Augment(pad=2), pad=3).augment == Augment(pad=3)
    assert json.loads(json.dumps(recipe.to_dict())) == recipe.to_dict()
    assert recipe.to_dict()["optimiser"] == {"name": "muon", "momentum": 0.8, "turn": 0.1}


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"rate": 1}, "no such setting: rate; there are epochs, "),
        ({"optimiser": "lion"}, "no optimiser named 'lion'; there are sgd, adam, muon"),
        ({"optimiser": "adam", "momentum": 0.5}, "adam: no such setting: momentum"),
        ({"flip": "up"}, "augment: flip is None, 'random' or 'alternate', not 'up'"),
        ({"cutmix": 1.5}, "augment: cutmix is a number from 0 to 1, not 1.5"),
        ({"lr": float("nan")}, "schedule: lr is a number above 0 to 1,000,000,000, not nan"),
        ({"lr": "0.1"}, "lr is a number above 0 to 1,000,000,000, not '0.1'"),
        ({"epochs": 1.5}, "recipe: epochs is a whole number from 1 to 1,000,000, not 1.5"),
        ({"epochs": 0}, "epochs is a whole number from 1 to 1,000,000, not 0"),
        ({"lr": float("inf")}, "lr is a number above 0 to 1,000,000,000, not inf"),
        ({"seed": 2**200}, "seed is a whole number of at least 0, not 16069"),
        ({"precision": "f8"}, "precision is '4x4', '2x2' or 'direct', not 'f8'"),
        ({"freeze": ("conv1", 3)}, "freeze is a list of 0 to 1,000,000 entries, each a text"),
        (
            {"freeze": "conv1"},
            "freeze is a list of 0 to 1,000,000 entries, each a text, not 'conv1'",
        ),
        ({"augment": Schedule()}, "augment must be of type Augment"),
        ({"schedule": Augment()}, "schedule must be of type Schedule"),
        ({"lr": Augment()}, "no such setting: lr"),
    ],
    ids=str,
)
def test_what_can_not_be_is_refused(wrong, says):
    with pytest.raises(UserError, match=re.escape(says)):
        Recipe().changed(**wrong)


def test_a_flat_recipe_of_an_early_checkpoint_is_read():
    flat = {
        "epochs": 22, "batch_size": 256, "lr": 0.2, "schedule": "one-cycle", "warmup": 0.05,
        "optimiser": "muon", "momentum": 0.9, "nesterov": True, "weight_decay": 5e-4,
        "norm_bias_rate": 16, "smoothing": 0.1, "pad": 4, "flip": "alternate", "cutout": 5, "cutmix": 0.0,
        "average": 0.996, "identity": True, "keep": 0.5, "hard": 0.35, "frozen": [], "flip_test": True,
        "shift_test": True, "test_every": 22, "precision": "f4", "seed": 0,
    }  # fmt: skip
    assert Recipe.from_dict(flat) == RECIPES["fast"].recipe
    adam = Recipe.from_dict({**flat, "optimiser": "adam", "norm_bias_rate": 1, "flip": ""})
    assert (adam.optimiser, adam.augment.flip) == (Adam(), None)


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
    assert summary["recipe"] == named.recipe.to_dict() | changed
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

    for module in ("tinysqueeze.training.loop", "tinysqueeze.training.train"):
        monkeypatch.setattr(f"{module}.evaluate_training", counted)
    small = ["--epochs", "1", "--batch-size", "16", "--set", "base_e=8", "--set", "incr_e=8"]
    for extra in ([], ["--no-test"]):
        out = tmp_path / f"run{len(extra)}"
        assert main(["train", "--data", str(folder), "--out", str(out), *small, *extra]) == 0
        assert len(made) == 1
        summary = json.loads((out / "summary.json").read_text())
        assert summary["test_accuracy"] == made.pop().accuracy


@pytest.mark.skipif(config.DISABLE_JIT, reason="then nothing is compiled")
@pytest.mark.parametrize("name", RECIPES)
def test_nothing_of_a_recipe_is_run_layer_by_layer(name):
    """One hard-swish that was, behind a convolution without a norm, once halved the speed of a network."""
    model = squeezenet_cifar(**RECIPES[name].model)
    assert all(step.compiled for step in compile(model, batch=2, threads=1).steps)
    bent = squeezenet_cifar(**RECIPES[name].model | {"norm": False, "activation": "hard-swish"})
    steps = compile(bent, batch=2, threads=1).steps
    assert all(step.compiled for step in steps)
    assert any("hard-swish" in step.kind for step in steps)
