"""Distillation: a run's network teaches another one by its answers to the very same images."""

import shutil
import signal
from pathlib import Path

import numpy as np
import pytest

import tinysqueeze as ts
from tinysqueeze.cli import main
from tinysqueeze.data import Normalise
from tinysqueeze.errors import CheckpointError, UserError
from tinysqueeze.network.ops import reference
from tinysqueeze.network.params import flatten
from tinysqueeze.training import train as train_module
from tinysqueeze.training.teacher import Teacher
from tinysqueeze.training.train import Stopped

SMALL = {
    "name": "squeezenet_cifar", "classes": 3, "input_size": 12, "base_e": 8, "incr_e": 4, "stem_filters": 6,
    "squeeze_ratio": 0.25, "fires": 2, "pools": (1,),
}  # fmt: skip
RECIPE = ts.Recipe(epochs=3, batch_size=16, augment=ts.Augment(pad=2), average=0.9, taught=0.7)


@pytest.fixture(scope="module")
def images() -> ts.data.Dataset:
    """Three classes told apart by where a bright square sits."""
    images = np.random.default_rng(7).integers(0, 60, (96, 12, 12, 3), dtype=np.uint8)
    labels = np.arange(96) % 3
    for image, label in zip(images, labels, strict=True):
        image[4 * label : 4 * label + 4, 2:10] += 150
    return ts.data.Dataset(images, labels, ("high", "middle", "low"), "squares")


@pytest.fixture
def squares(images: ts.data.Dataset, monkeypatch: pytest.MonkeyPatch) -> ts.data.Dataset:
    """The same; also what every name of data loads."""
    monkeypatch.setattr(train_module, "load_both", lambda *given: (images, images))
    return images


@pytest.fixture(scope="module")
def learned(images: ts.data.Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that has learned the squares."""
    folder = tmp_path_factory.mktemp("runs") / "master"
    recipe = ts.Recipe(epochs=40, batch_size=16, average=0.9).changed(lr=0.05)
    run = ts.train(SMALL, images, recipe, test=images, out=folder, progress=False)
    assert run.accuracy is not None
    assert run.accuracy > 0.9
    return folder


@pytest.fixture
def master(learned: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    shutil.copytree(learned, tmp_path / "master")
    return tmp_path / "master"


class Fixed:
    """An engine that says of each image what its mean is, three times over."""

    def predict(self, images: np.ndarray) -> np.ndarray:
        return images.mean(axis=(1, 2, 3))[:, None] * np.array([1, -2, 0.5], np.float32)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_labels_are_mixed_of_truth_and_answers(share: float) -> None:
    rng = np.random.default_rng(1)
    images = rng.standard_normal((5, 4, 4, 3)).astype(np.float32)
    labels = np.array([0, 2, 1, 1, 0])
    answers = reference.softmax(Fixed().predict(images))
    mixed = Teacher(Fixed(), Normalise()).labels(images, labels, share, Normalise())
    assert mixed.dtype == np.float32
    assert np.allclose(mixed, share * answers + (1 - share) * np.eye(3)[labels], atol=1e-6)
    shares = rng.dirichlet(np.ones(3), 5).astype(np.float32)  # as CutMix gives them
    both = Teacher(Fixed(), Normalise()).labels(images, shares, share, Normalise())
    assert np.allclose(both, share * answers + (1 - share) * shares, atol=1e-6)


def test_a_teacher_sees_images_as_it_wants_them() -> None:
    """It was trained with other means and deviations than its pupil: pixels are the same."""
    pixels = np.random.default_rng(2).random((5, 4, 4, 3)).astype(np.float32)
    own, other = (
        Normalise((0.5, 0.4, 0.3), (0.2, 0.25, 0.3)),
        Normalise((0.1, 0.2, 0.3), (1.0, 2.0, 0.5)),
    )

    def seen(by: Normalise) -> np.ndarray:
        return (pixels - np.float32(by.mean)) / np.float32(by.std)

    labels = np.zeros(5, np.int64)
    as_wanted = Teacher(Fixed(), own).labels(seen(own), labels, 1.0, own)
    assert np.allclose(
        Teacher(Fixed(), own).labels(seen(other), labels, 1.0, other), as_wanted, atol=1e-5
    )


def test_what_is_taught_is_learned(squares: ts.data.Dataset, master: Path) -> None:
    """Of answers alone, with every label wrong, the pupil learns what its teacher knows."""
    wrong = ts.data.Dataset(squares.images, (squares.labels + 1) % 3, squares.classes, "wrong")
    recipe = ts.Recipe(epochs=30, batch_size=16, taught=1.0, average=0.9).changed(lr=0.03)
    pupil = ts.train(SMALL, wrong, recipe, test=squares, teacher=master, seed=5, progress=False)
    assert pupil.accuracy is not None
    assert pupil.accuracy > 0.9


def test_taught_stopped_and_resumed_to_the_bit(
    squares: ts.data.Dataset, master: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"recipe": RECIPE, "teacher": master, "progress": False}
    whole = ts.train(SMALL, "squares", out=tmp_path / "whole", **options)
    untaught = ts.train(SMALL, "squares", RECIPE, taught=0.0, progress=False)
    assert not np.array_equal(whole.training.engine.vector, untaught.training.engine.vector)
    seen: list[object] = []

    def stop_at_eight(*given: object) -> None:
        seen.append(given)
        if len(seen) == 8:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(train_module, "_show", stop_at_eight)
    with pytest.raises(Stopped):
        ts.train(SMALL, "squares", out=tmp_path / "cut", **options)
    again = ts.resume(tmp_path / "cut").finish(progress=False)
    for path, array in flatten(again.params).items():
        assert array.tobytes() == flatten(whole.params)[path].tobytes(), path

    shutil.copy(tmp_path / "whole" / "checkpoint.safetensors", master)
    with pytest.raises(UserError, match="no more the teacher"):
        ts.resume(tmp_path / "cut")
    shutil.rmtree(master)
    with pytest.raises(CheckpointError, match="master"):
        ts.resume(tmp_path / "cut")


def test_who_can_not_teach_is_refused(
    squares: ts.data.Dataset, master: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="--teacher RUN"):
        ts.train(SMALL, squares, RECIPE)
    with pytest.raises(UserError, match=r"set taught, 0\.7 is usual"):
        ts.train(SMALL, squares, RECIPE, taught=0.0, teacher=master)
    renamed = ts.data.Dataset(squares.images, squares.labels, ("a", "b", "c"), "renamed")
    with pytest.raises(UserError, match="the teacher knows images"):
        ts.train(SMALL, renamed, RECIPE, teacher=master)
    with pytest.raises(UserError, match="the teacher knows images"):
        ts.train({**SMALL, "input_size": 16}, squares.resized(16), RECIPE, teacher=master)
    with pytest.raises(CheckpointError, match="nobody"):
        ts.train(SMALL, squares, RECIPE, teacher=tmp_path / "nobody")


def test_the_command(
    squares: ts.data.Dataset, master: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [
        "train",
        "--teacher",
        str(master),
        "--epochs",
        "1",
        "--engine",
        "stepwise",
        "--out",
        str(tmp_path / "pupil"),
    ]
    sizes = [
        f"--set={name}={SMALL[name]}" for name in ("base_e", "incr_e", "stem_filters", "fires")
    ]
    assert main([*command, *sizes, "--set=pools=1", "--taught", "0.5"]) == 0
    assert str(master) in (tmp_path / "pupil" / "summary.json").read_text()
    assert main(["train", "--resume", str(tmp_path / "pupil"), "--teacher", str(master)]) == 1
    assert "leave out --teacher" in capsys.readouterr().err
