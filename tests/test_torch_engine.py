"""PyTorch as an engine: the same gradients, statistics and losses as the plan's, for any image size."""

import numpy as np
import pytest

from tinysqueeze.bench.torch_engine import torch_engine
from tinysqueeze.compiled import compile
from tinysqueeze.errors import MissingExtra, ShapeError, UserError
from tinysqueeze.network.models import squeezenet_cifar
from tinysqueeze.network.ops.reference import label_shares
from tinysqueeze.network.params import flatten, initialise
from tinysqueeze.network.stepwise import StepByStep
from tinysqueeze.training.engine import EngineSpec
from tinysqueeze.training.optimisers import SGD

SMALL = {
    "input_size": 12, "base_e": 16, "incr_e": 16, "stem_filters": 16, "fires": 4, "pools": (1, 4),
    "norm": True,
}  # fmt: skip


def batch(count, side, seed=0):
    rng = np.random.default_rng(seed)
    images = rng.standard_normal((count, side, side, 3), np.float32)
    return images, rng.integers(0, 10, count)


def started(model):
    """Parameters whose logits are not all near zero."""
    params = initialise(model)
    flatten(params)["conv6/weight"][...] *= 30
    return params


def distances(got, expected):
    """Relative L2 distance of every array; those that are zero but for rounding count absolutely.

    A bias before a batch norm is one: the norm takes any constant away.
    """
    got, expected = flatten(got), flatten(expected)
    scale = max(np.linalg.norm(a) for a in expected.values())
    return {
        path: np.linalg.norm(got[path] - a) / max(np.linalg.norm(a), 1e-3 * scale)
        for path, a in expected.items()
    }


@pytest.mark.oracle
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"bypass": "simple"},
        {"bypass": "complex"},
        {"bypass": "simple", "activation": "hard-swish", "linear_squeeze": True},
    ],
    ids=str,
)
@pytest.mark.parametrize("against", ["stepwise", "direct", "4x4"])
def test_follows_our_engines(changes, against):
    pytest.importorskip("torch")
    model = squeezenet_cifar(**SMALL, **changes)
    params = started(model)
    theirs = torch_engine(EngineSpec(model, 4, params, threads=1))
    if against == "stepwise":
        ours = StepByStep(model, params)
    else:
        ours = compile(model, 8, precision=against, threads=1, params=params)
    velocity = {engine: SGD().start(engine.vector) for engine in (theirs, ours)}
    decay = np.full_like(ours.vector, 5e-4)
    for step in range(5):
        images, labels = batch(8, 12, seed=step)
        if step % 2:
            shares = label_shares(labels, model.classes)
            labels = np.float32(0.7) * shares + np.float32(0.3) * shares[::-1]
        got, expected = (e.loss_and_grads(images, labels, 0.1) for e in (theirs, ours))
        assert got[0] == pytest.approx(expected[0], rel=2e-4)
        np.testing.assert_allclose(theirs.losses, ours.losses, rtol=2e-3)
        if step == 0:
            assert got[1] == expected[1]
            assert max(distances(theirs.grads, ours.grads).values()) < 1e-4
            moved = distances(theirs.params, ours.params)
            assert max(moved.values()) < 1e-5
            before, after = flatten(params), flatten(theirs.params)
            assert not np.array_equal(
                before["fire2/expand_norm/var"], after["fire2/expand_norm/var"]
            )
        for engine, slots in velocity.items():
            SGD().update(engine.vector, engine.grad_vector, slots, decay, 0.05, step + 1)
    images, _ = batch(5, 12, seed=9)
    want = ours.predict(images)
    np.testing.assert_allclose(theirs.predict(images), want, atol=2e-3 * abs(want).max())


@pytest.mark.oracle
def test_other_sizes_smaller_batches_and_new_parameters():
    pytest.importorskip("torch")
    model = squeezenet_cifar(**SMALL)
    theirs = torch_engine(EngineSpec(model, 4, started(model), threads=1))
    for count, side in ((4, 8), (2, 16)):
        ours = StepByStep(model, theirs.params)
        images, labels = batch(count, side)
        images.flags.writeable = False
        kept = images.copy()
        assert theirs.loss_and_grads(images, labels) == pytest.approx(
            ours.loss_and_grads(images, labels), rel=1e-5
        )
        assert max(distances(theirs.grads, ours.grads).values()) < 1e-4
        assert max(distances(theirs.params, ours.params).values()) < 1e-5
        assert np.array_equal(images, kept)
    images, _ = batch(3, 12)
    before = theirs.predict(images)
    theirs.vector *= 0.9  # in place, as an optimiser and a running average do
    expected = StepByStep(model, theirs.params).predict(images)
    assert not np.allclose(before, expected, rtol=1e-3)
    np.testing.assert_allclose(theirs.predict(images), expected, atol=1e-5 * abs(expected).max())
    theirs.load(started(model))
    want = StepByStep(model, started(model)).predict(images)
    np.testing.assert_allclose(theirs.predict(images), want, atol=1e-5 * abs(want).max())


@pytest.mark.oracle
def test_what_does_not_fit_is_refused():
    pytest.importorskip("torch")
    model = squeezenet_cifar(**SMALL)
    with pytest.raises(ShapeError, match="3"):
        torch_engine(EngineSpec(model, 1)).predict(np.zeros((1, 12, 12, 1), np.float32))
    with pytest.raises(ShapeError, match="conv1"):
        torch_engine(EngineSpec(model, 1, {}))
    with pytest.raises(UserError, match="dropout"):
        torch_engine(EngineSpec(squeezenet_cifar(**SMALL, dropout=0.5), 1))


def test_says_what_to_install(monkeypatch):
    monkeypatch.setattr("tinysqueeze.bench.torch_engine.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"tinysqueeze\[torch\]"):
        torch_engine(EngineSpec(squeezenet_cifar(**SMALL), 1))
