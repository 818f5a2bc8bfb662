"""`ts.train`: what the command line does, as a function; its folder, its stop, and going on from there."""

import functools
import json
import signal
from argparse import Namespace
from dataclasses import replace

import numpy as np
import pytest
from numba.core import config

import tinysqueeze as ts
from tinysqueeze.cli import main
from tinysqueeze.cli.train import _announce
from tinysqueeze.errors import ShapeError, UserError
from tinysqueeze.files import held_alone
from tinysqueeze.network.params import flatten
from tinysqueeze.training import checkpoint
from tinysqueeze.training import train as train_module
from tinysqueeze.training.engine import EngineSpec, compiled_engine, stepwise_engine
from tinysqueeze.training.loop import scale
from tinysqueeze.training.recipes import RECIPES
from tinysqueeze.training.train import Stopped, start

TINY = {"base_e": 8, "incr_e": 4, "stem_filters": 6, "fires": 2, "pools": (1, 2)}
SMALL = {"name": "squeezenet_cifar", "classes": 3, "input_size": 12, **TINY}


@pytest.fixture
def squares() -> ts.data.Dataset:
    """Three classes of noise, 12x12 pixels."""
    rng = np.random.default_rng(7)
    images = rng.integers(0, 256, (96, 12, 12, 3), dtype=np.uint8)
    return ts.data.Dataset(images, np.arange(96) % 3, ("a", "b", "c"), "squares")


def same_bits(a, b) -> bool:
    a, b = flatten(a), flatten(b)
    return a.keys() == b.keys() and all(a[path].tobytes() == b[path].tobytes() for path in a)


@functools.cache
def shapes(source, split, size=None, load=ts.data.load) -> ts.data.Dataset:
    """A part of the built-in shapes, rendered once."""
    return load(source, split).subset(slice(0, 1500 if split == "train" else 400))


def test_train_is_what_the_command_does(tmp_path, monkeypatch):
    """One epoch on the built-in shapes with the same arguments: the same bits, tables and accuracy."""
    monkeypatch.setattr(ts.data, "load", shapes)
    arguments = ["--data", "builtin", "--epochs", "1", "--batch-size", "250", "--lr", "0.1"]
    arguments += ["--cutout", "4", "--optimiser", "muon", "--seed", "3", "--flip", "random"]
    network = [word for n, v in TINY.items() for word in ("--set", f"{n}={json.dumps(v)}")]
    assert main(["train", "--out", str(tmp_path / "command"), *arguments, *network]) == 0
    run = ts.train(
        {"name": "squeezenet_cifar", **TINY}, "builtin", out=tmp_path / "function", progress=False,
        epochs=1, batch_size=250, lr=0.1, cutout=4, optimiser="muon", seed=3, flip="random",
    )  # fmt: skip
    command = checkpoint.read(tmp_path / "command")
    assert run.model == command.model
    assert run.training.recipe == command.recipe
    assert same_bits(run.params, command.params)
    told, ours = (
        json.loads((tmp_path / name / "summary.json").read_text())
        for name in ("command", "function")
    )
    timed = {"seconds", "wall_seconds", "images_per_second"}
    assert {k: v for k, v in told.items() if k not in timed} == {
        k: v for k, v in ours.items() if k not in timed
    }
    assert run.accuracy == told["test_accuracy"] == run.history[-1]["test_accuracy"]
    with pytest.raises(UserError, match="holds a run already"):
        ts.train(SMALL, "builtin", out=tmp_path / "function")


def test_images_of_ones_own(squares):
    run = ts.train(SMALL, squares, epochs=2, batch_size=16, progress=False)
    assert run.accuracy is None
    assert len(run.history) == 2
    assert "test_accuracy" not in run.history[0]
    run = ts.train(
        ts.build(SMALL), squares, ts.Recipe(epochs=2, batch_size=16), test=squares, progress=False,
        engine="stepwise",
    )  # fmt: skip
    assert run.accuracy == run.history[-1]["test_accuracy"]
    with pytest.raises(ShapeError, match="classes=3"):
        ts.train({**SMALL, "classes": 4}, squares)
    with pytest.raises(UserError, match="no such setting: leraning_rate"):
        ts.train(SMALL, squares, leraning_rate=0.1)
    with pytest.raises(UserError, match="no recipe named 'slow'"):
        ts.train(SMALL, squares, "slow")
    with pytest.raises(UserError, match="no engine named 'zz'; there are compiled, stepwise"):
        ts.train(SMALL, squares, engine="zz")
    with pytest.raises(UserError, match="a Recipe or the name of one, not 3"):
        ts.train(SMALL, squares, 3)
    with pytest.raises(UserError, match=r"data\.load takes, not ndarray"):
        ts.train(SMALL, squares.images)
    with pytest.raises(UserError, match="floating-point numbers, not int64"):
        ts.initialise(ts.build(SMALL), dtype=int)


def test_a_folder_takes_one_run_at_a_time(squares, tmp_path):
    """While another process trains into it, and where another run has come between, this one is refused."""
    first, second = (start(SMALL, squares, epochs=1, batch_size=16, out=tmp_path) for _ in "ab")
    with held_alone(tmp_path), pytest.raises(UserError, match="another process is training into"):
        first.finish(progress=False)
    assert not list(tmp_path.iterdir())
    first.finish(progress=False)
    kept = (tmp_path / checkpoint.NAME).read_bytes()
    with pytest.raises(UserError, match="holds another run by now"):
        second.finish(progress=False)
    assert (tmp_path / checkpoint.NAME).read_bytes() == kept
    first.finish(progress=False)  # its own folder still


def test_a_recipes_name_brings_its_network(squares):
    wide = squares.resized(32)
    run = start(None, wide, "fast")
    assert run.training.recipe == RECIPES["fast"].recipe
    assert run.model.spec["activation"] == "hard-swish"
    assert (run.model.classes, run.model.input_shape) == (3, (32, 32, 3))


def test_stopped_and_resumed_to_the_bit(squares, tmp_path, monkeypatch):
    """Ctrl-C in the fifth batch saves and raises; `resume` ends with the bits of the whole run."""
    recipe = ts.Recipe(epochs=3, batch_size=16, augment=ts.Augment(pad=2), average=0.9)
    monkeypatch.setattr(train_module, "load_both", lambda *given: (squares, squares))
    options = {"recipe": recipe, "progress": False}
    whole = ts.train(SMALL, "squares", out=tmp_path / "whole", **options)
    shown, show = [], train_module._show

    def stop_at_five(*given):
        shown.append(show(*given))
        if len(shown) == 5:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(train_module, "_show", stop_at_five)
    with pytest.raises(Stopped, match="resume") as stop:
        ts.train(SMALL, "squares", out=tmp_path / "cut", **options)
    assert (stop.value.by, len(shown)) == (signal.SIGINT, 5)
    assert isinstance(stop.value, KeyboardInterrupt)
    assert checkpoint.read(tmp_path / "cut").meta["counters"]["batch"] == 5
    again = ts.resume(tmp_path / "cut").finish(progress=False)
    assert same_bits(again.params, whole.params)
    assert again.accuracy == whole.accuracy
    assert len(shown) == 18


@pytest.mark.skipif(config.DISABLE_JIT, reason="then nothing is compiled")
def test_what_is_run_layer_by_layer_is_told(squares, tmp_path, capsys):
    """A sum of maps that are laid out differently; and nothing of a network of whole vectors."""
    whole = {"bypass": "simple", "base_e": 32, "incr_e": 0, "stem_filters": 32, "fires": 2}
    for name, changes, told in (
        ("whole", {}, ""),
        ("odd", {"base_e": 42, "stem_filters": 42}, "run la"),
    ):
        spec = SMALL | whole | changes
        run = start(spec, squares, out=tmp_path / name, epochs=1)
        run.test = squares
        _announce(Namespace(resume=None, threads=1), run)
        error = capsys.readouterr().err
        assert error.startswith(told)
        assert bool(error) == bool(told)


@pytest.mark.parametrize("make_engine", [compiled_engine, stepwise_engine])
@pytest.mark.parametrize(
    "optimiser", [ts.SGD(), ts.Adam(), ts.Muon()], ids=lambda o: type(o).__name__
)
def test_what_is_frozen_never_moves(squares, optimiser, make_engine):
    """Not by decay, momentum or turning either; a layer's name stands for all that it holds."""
    recipe = ts.Recipe(
        epochs=2, batch_size=16, optimiser=optimiser, weight_decay=0.1,
        frozen=("conv1", "fire2/*/bias", "fire3/squeeze/weight"),
    )  # fmt: skip
    training = ts.begin(ts.build(SMALL), squares, recipe, make_engine=make_engine)
    before = {path: view.copy() for path, view in flatten(training.engine.params).items()}
    for _ in ts.run(training, squares):
        pass
    still = {
        p for p, v in flatten(training.engine.params).items() if v.tobytes() == before[p].tobytes()
    }
    assert still == {
        "conv1/weight", "conv1/bias", "fire2/squeeze/bias", "fire2/expand1x1/bias",
        "fire2/expand3x3/bias", "fire3/squeeze/weight",
    }  # fmt: skip


def test_factors_of_gradients(squares):
    """Frozen is 0, a norm's bias 16, everything else 1; nothing where all are 1."""
    model = ts.build({**SMALL, "norm": True})
    recipe = ts.Recipe(norm_bias_rate=16, frozen=("conv1*",), batch_size=16)
    training = ts.begin(model, squares, recipe)
    for path, factors in flatten(training.engine.views(training.factors)).items():
        frozen = path.startswith("conv1") and not path.endswith(("mean", "var"))
        expected = 0 if frozen else 16 if path.endswith("norm/bias") else 1
        assert (factors == expected).all(), path
    assert ts.begin(model, squares, ts.Recipe(batch_size=16)).factors is None


def test_a_factor_of_0_makes_0_of_everything():
    gradients = np.array([1, -2, np.inf, np.nan, 3], np.float32)
    scale(gradients, np.array([1, 16, 0, 0, 0], np.float32))
    assert gradients.tobytes() == np.array([1, -32, 0, 0, 0], np.float32).tobytes()


def test_an_engine_is_made_from_one_value(squares):
    model = ts.build(SMALL)
    spec = EngineSpec(model, 16, ts.initialise(model, 5), threads=1)
    engines = [make(spec) for make in (compiled_engine, stepwise_engine)]
    assert engines[0].threads == 1
    for engine in engines:
        assert same_bits(engine.params, spec.params)
        engine.vector += 1  # its own copy
        assert same_bits(spec.params, ts.initialise(model, 5))
    assert replace(spec, batch=8).params is spec.params
