"""The built-in dataset: deterministic, balanced, and not to be solved by colour."""

import hashlib

import numpy as np
import pytest

from tinysqueeze.data import builtin, load
from tinysqueeze.data.dataset import Dataset
from tinysqueeze.errors import DataError
from tinysqueeze.network.models import squeezenet_cifar
from tinysqueeze.training.loop import run
from tinysqueeze.training.recipes import DEFAULTS
from tinysqueeze.training.state import begin, evaluate_training


def test_the_same_seed_gives_the_same_bytes_on_every_machine():
    digest = hashlib.sha256(builtin.render(200, seed=0).images.tobytes()).hexdigest()
    assert digest == "3e120f7ea5cbcdfe959817f3b5f23e7c61e7a9146862ffa712c1c88b5e9058fb"


def test_another_seed_gives_other_pictures():
    one, two = builtin.render(50, seed=0).images, builtin.render(50, seed=1).images
    assert (one != two).any(axis=(1, 2, 3)).all()


def test_train_and_test_are_balanced_and_disjoint():
    train, test = load("builtin", "train"), load("builtin", "test")
    assert (len(train), len(test)) == (10_000, 2_000)
    assert train.images.shape[1:] == (32, 32, 3)
    for part in (train, test):
        assert np.bincount(part.labels).tolist() == [len(part) // 10] * 10
    seen = {image.tobytes() for image in train.images}
    assert not any(image.tobytes() in seen for image in test.images)


def test_it_is_rendered_once_and_nobody_can_spoil_it():
    train = load("builtin", "train")
    assert load("builtin", "train") is train
    with pytest.raises(ValueError, match="read-only"):
        train.images[0] = 0


def test_the_colours_of_a_class_say_nothing_about_it():
    """Nearest mean colour, and a least-squares classifier on the pixels, are both near chance."""
    train, test = load("builtin", "train").subset(slice(4000)), load("builtin", "test")

    def accuracy(features):
        x, v = features(train), features(test)
        weight = np.linalg.lstsq(x, np.eye(10)[train.labels], rcond=None)[0]
        return np.mean(np.argmax(v @ weight, axis=1) == test.labels)

    def mean_colour(part: Dataset):
        colour = part.images.mean(axis=(1, 2)) / 255
        return np.column_stack([np.ones(len(part)), colour, colour**2])

    def pixels(part: Dataset):  # every third one, to be quick
        return part.images[:, ::3, ::3].reshape(len(part), -1) / 255.0

    assert accuracy(mean_colour) < 0.25
    assert accuracy(pixels) < 0.5


def test_nothing_to_render_is_said():
    with pytest.raises(DataError, match="cannot render 0"):
        builtin.render(0, seed=0)


def trained_accuracy(**changes) -> float:
    """Test accuracy of the CIFAR network so changed, trained as `tinysqueeze train` does it."""
    model = squeezenet_cifar(norm=True, bypass="simple", **changes)
    training = begin(model, load("builtin", "train"), DEFAULTS["builtin"])
    for _ in run(training, load("builtin", "train")):
        pass
    return evaluate_training(training, load("builtin", "test")).accuracy


@pytest.mark.slow
def test_squeezenet_solves_it():
    assert trained_accuracy() >= 0.95


@pytest.mark.slow
def test_filters_of_one_pixel_do_not():
    """The same network with 1x1 filters only sees neighbours through nothing but its pools."""
    assert trained_accuracy(pct3x3=0.0, stem_kernel=1, stem_pad=0) < 0.7
