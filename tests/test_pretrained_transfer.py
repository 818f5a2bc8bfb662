"""From ImageNet to other classes: a new head on the old layers, and what stays frozen."""

from dataclasses import replace

import numpy as np
import pytest
import weight_files as files

from tinysqueeze.data import Dataset, Normalise
from tinysqueeze.errors import ShapeError
from tinysqueeze.network.models import squeezenet1_0, squeezenet_cifar
from tinysqueeze.network.others import alexnet
from tinysqueeze.network.params import flatten, initialise, trained_shapes, unflatten
from tinysqueeze.training.loop import run as train
from tinysqueeze.training.recipe import Recipe
from tinysqueeze.training.schedule import Schedule
from tinysqueeze.training.state import begin
from tinysqueeze.weights import training_start, transferred, with_classes


@pytest.mark.parametrize("norm", [False, True])
def test_only_the_head_is_new(norm):
    weights = files.weight_set(squeezenet_cifar(norm=norm))
    model, params = with_classes(weights.model, weights.params, 3, seed=1)
    assert model.classes == 3
    new = flatten(params)
    for path, array in weights.flat.items():
        if path.startswith("conv10"):
            assert new[path].shape[-1] == 3
        else:
            assert new[path] is array
    assert 0.005 < new["conv10/weight"].std() < 0.02
    assert not new["conv10/bias"].any()
    again = flatten(with_classes(weights.model, weights.params, 3, seed=1)[1])
    other = flatten(with_classes(weights.model, weights.params, 3, seed=2)[1])
    assert np.array_equal(new["conv10/weight"], again["conv10/weight"])
    assert not np.array_equal(new["conv10/weight"], other["conv10/weight"])


def test_the_recipe_may_change_with_it():
    weights = files.small(0, classes=9)
    moved = transferred(weights, ("cat", "dog"), input_size=96, final_relu=False)
    assert moved.model.input_shape == (96, 96, 3)
    assert moved.preprocess.crop == (96, 96)
    assert "conv10_relu" not in dict(moved.model.steps)
    assert moved.classes == ("cat", "dog")
    assert "2 classes" in moved.description
    with pytest.raises(ShapeError):
        transferred(weights, ("cat", "dog"), norm=True)
    with pytest.raises(ShapeError):
        with_classes(squeezenet1_0(classes=3), initialise(squeezenet_cifar()), 2)


def test_alexnets_head_is_its_last_linear_layer():
    model = alexnet(classes=4)
    tree = {path: np.broadcast_to(np.float32(1), s) for path, s in trained_shapes(model).items()}
    other, params = with_classes(model, unflatten(tree), 2)
    assert other.classes == 2
    assert flatten(params)["fc8/weight"].shape == (4096, 2)


def test_fine_tuning_moves_the_head_alone():
    """Two classes told apart by brightness, every layer but conv10 frozen, from other weights."""
    weights = files.weight_set(squeezenet_cifar(classes=5, input_size=16))
    weights = replace(weights, params=initialise(weights.model))
    moved = transferred(weights, ("dark", "light"))
    rng = np.random.default_rng(0)
    labels = np.arange(64) % 2
    images = (rng.integers(0, 90, (64, 16, 16, 3)) + 150 * labels[:, None, None, None]).astype("u1")
    dataset = Dataset(images, labels, moved.classes, "brightness")
    recipe = Recipe(
        epochs=3,
        batch_size=16,
        schedule=Schedule(0.02),
        frozen=("conv1", "fire*"),
        weight_decay=0.01,
    )
    training = begin(moved.model, dataset, recipe, params=moved.params)
    reports = list(train(training, dataset))
    assert reports[-1].accuracy > 0.9
    after = flatten(training.engine.params)
    for path, array in moved.flat.items():
        assert np.array_equal(after[path], array) == (not path.startswith("conv10"))
    assert isinstance(training.normalise, Normalise)


@pytest.mark.parametrize("caffe", [True, False])
def test_the_trainer_sees_what_the_weights_expect(caffe):
    """BGR weights turned to RGB and the trainer's own normalisation: the same logits."""
    weights = files.weight_set(squeezenet_cifar(), caffe=caffe)
    params, normalise = training_start(weights)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype(np.uint8)
    seen = (pixels / np.float32(255) - np.float32(normalise.mean)) / np.float32(normalise.std)
    expected, _ = weights.model.forward(weights.params, weights.preprocess.scaled(pixels))
    found, _ = weights.model.forward(params, seen.astype(np.float32))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())
    turned = flatten(params)["conv1/weight"]
    assert np.array_equal(turned[:, :, :: -1 if caffe else 1], weights.flat["conv1/weight"])
