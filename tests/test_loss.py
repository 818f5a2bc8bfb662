"""Softmax cross-entropy: its value, its gradient, label smoothing, and what it refuses."""

import numpy as np
import pytest
from cases import OPS, apart

from tinysqueeze.errors import ShapeError
from tinysqueeze.network.layers import Mode
from tinysqueeze.network.loss import count_right, softmax_cross_entropy

both_ops = pytest.mark.parametrize("ops", OPS.values(), ids=OPS)
smoothings = pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
labellings = pytest.mark.parametrize(
    "labels", [[0, 4, 2, 2], [[1, 0, 0, 0, 0], [0.3, 0.7, 0, 0, 0], [0, 0, 0.5, 0, 0.5], [0.2] * 5]],
    ids=["one-class", "shares"],
)  # fmt: skip


@both_ops
@smoothings
@labellings
def test_dlogits_agrees_with_finite_differences(ops, smoothing, labels, rng) -> None:
    logits, labels, h = rng.standard_normal((4, 5)), np.array(labels), 1e-5
    _, dlogits = softmax_cross_entropy(logits, labels, smoothing, Mode(ops))
    numeric = np.empty_like(logits)
    for place in np.ndindex(logits.shape):
        nudge = np.zeros_like(logits)
        nudge[place] = h
        above, below = (
            softmax_cross_entropy(logits + s * nudge, labels, smoothing)[0] for s in (1, -1)
        )
        numeric[place] = (above - below) / (2 * h)
    assert apart(dlogits, numeric) < 1e-8


@pytest.mark.oracle
@smoothings
@labellings
@pytest.mark.parametrize("scale", [1, 100])
def test_equals_pytorch(smoothing, scale, labels, rng) -> None:
    torch = pytest.importorskip("torch")
    logits, labels = scale * rng.standard_normal((4, 5)), np.array(labels)
    loss, dlogits = softmax_cross_entropy(logits, labels, smoothing)
    t = torch.tensor(logits, requires_grad=True)
    theirs = torch.nn.functional.cross_entropy(t, torch.tensor(labels), label_smoothing=smoothing)
    theirs.backward()
    assert np.isclose(loss, theirs.item(), rtol=1e-12)
    assert apart(dlogits, t.grad.numpy()) < 1e-12


def test_an_even_guess_costs_the_logarithm_of_the_classes() -> None:
    loss, dlogits = softmax_cross_entropy(np.zeros((3, 10), np.float32), np.array([1, 2, 3]))
    assert np.isclose(loss, np.log(10))
    assert dlogits.dtype == np.float32
    assert np.allclose(dlogits.sum(axis=1), 0)


def test_large_logits_neither_overflow_nor_warn() -> None:
    logits = np.array([[1e4, 0], [0, 1e4]], np.float32)
    loss, dlogits = softmax_cross_entropy(logits, np.array([0, 0]))
    assert loss == 5000
    assert np.isfinite(dlogits).all()


@pytest.mark.parametrize(
    ("logits", "labels", "words"),
    [
        ((2, 3, 3, 4), [0, 1], "global average pool"),
        ((2, 4), [0, 1, 2], r"\(2, 4\), so labels must be \(2,\) integers or .*, not \(3,\)"),
        (
            (2, 4),
            [0, 4],
            "image 1 has label 4, but there are 4 classes, 0 to 3; it needs classes=5",
        ),
        ((2, 4), [-1, 3], "image 0 has label -1, but classes are counted from 0"),
        ((2, 4), [[1, 0, 0]] * 2, r"\(2, 4\) shares, not \(2, 3\)"),
        ((2, 2), [[0.5, 0.6]] * 2, "shares of image 0 sum to 1.1; .*sum to 1: shares / shares.sum"),
        ((2, 2), [[-0.5, 1.5]] * 2, "shares of image 0 go down to -0.5"),
    ],
)
def test_what_does_not_fit_is_named(logits, labels, words) -> None:
    with pytest.raises(ShapeError, match=words):
        softmax_cross_entropy(np.zeros(logits), np.array(labels))


def test_shares_of_one_class_are_its_label(rng) -> None:
    logits, labels = rng.standard_normal((4, 5)), np.array([0, 4, 2, 2])
    loss, dlogits = softmax_cross_entropy(logits, labels, 0.1)
    same, dsame = softmax_cross_entropy(logits, np.eye(5)[labels], 0.1)
    assert loss == same
    np.testing.assert_array_equal(dlogits, dsame)
    assert count_right(logits, labels) == count_right(logits, np.eye(5)[labels])
