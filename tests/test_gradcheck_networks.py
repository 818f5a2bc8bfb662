"""Whole networks under the gradient check: no array is left out in silence, and no fault hides."""

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from cases import ops_with, read_only, small_params, training_mode

from tinysqueeze.network.compose import map_layers
from tinysqueeze.network.layers import EVAL, Layer, Mode
from tinysqueeze.network.models import squeezenet_cifar
from tinysqueeze.network.ops import reference
from tinysqueeze.network.params import flatten, initialise, trained_shapes
from tinysqueeze.study.gradcheck import NUDGES, check_model, summarise

TINY = squeezenet_cifar(
    base_e=8, incr_e=4, stem_filters=6, squeeze_ratio=0.25, input_size=12, classes=4
)
FEW = {"fires": 4, "pools": (1, 3)}


def batch(rng):
    """Parameters of TINY, images, labels; all read-only."""
    params = small_params(TINY, rng)
    for array in flatten(params).values():
        read_only(array)
    return params, read_only(rng.standard_normal((3, *TINY.input_shape))), np.array([0, 3, 1])


def drawn(seed, changes):
    """A small network, parameters fresh as before a training (biases are 0), images and labels."""
    model, rng = TINY.with_changes(**changes), np.random.default_rng(seed)
    images, labels = rng.standard_normal((2, *model.input_shape)), rng.integers(0, 4, 2)
    return model, initialise(model, seed), images, labels


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_whole_model_passes(smoothing, rng) -> None:
    params, images, labels = batch(rng)
    checks = list(check_model(TINY, params, images, labels, smoothing=smoothing, most=3))
    assert {check.path for check in checks} == {"x", *flatten(params)}
    assert all(check.ok for check in checks), "\n".join(map(str, checks))


def test_shares_of_classes_are_labels_too(rng) -> None:
    params, images, _ = batch(rng)
    shares = rng.dirichlet(np.ones(4), 3)
    assert summarise(check_model(TINY, params, images, shares, most=1)).ok


def test_a_whole_model_with_batch_norm_and_bypass_passes_in_training_mode(rng) -> None:
    model = TINY.with_changes(norm=True, bypass="complex")
    params = small_params(model, rng)
    images, labels = rng.standard_normal((3, *model.input_shape)), np.array([0, 3, 1])
    checks = list(check_model(model, params, images, labels, training_mode(), most=2))
    assert all(check.ok for check in checks), "\n".join(str(c) for c in checks if not c.ok)
    assert not any(check.path.endswith(("mean", "var")) for check in checks)  # not trained
    flat = {check.path for check in summarise(checks).flat}  # a norm takes every constant away
    assert {
        path for path in trained_shapes(model) if re.search("(conv1|squeeze)/bias", path)
    } <= flat


def test_a_loss_whose_gradient_is_not_divided_by_the_batch_fails(rng) -> None:
    def loss(logits, labels, smoothing):
        value, dlogits = reference.softmax_cross_entropy(logits, labels, smoothing)
        return value, dlogits * len(logits)

    params, images, labels = batch(rng)
    mode = Mode(ops_with(softmax_cross_entropy=loss))
    checks = {
        check.path: check for check in check_model(TINY, params, images, labels, mode, most=2)
    }
    bias = checks["conv10/bias"]
    assert not bias.ok
    assert bias.analytic == pytest.approx(len(images) * bias.numeric)


# ------------------------------------------------------------------------- nothing is left out

KINDS = [
    {}, {"norm": True}, {"bypass": "simple"}, {"bypass": "complex", "norm": True}, {"dropout": 0.5},
    {"activation": "hard-swish"}, {"pool_kernel": 3, "pools": (1, 3)}, {"final_relu": True},
    {"activation": "hard-swish", "norm": True, "linear_squeeze": True, "bypass": "simple"},
    {"norm": True, "dropout": 0.3, "pool_kernel": 4, "pools": (1, 3)},
]  # fmt: skip


def no_array_is_left_out(seed) -> None:
    model, params, images, labels = drawn(seed, KINDS[seed % len(KINDS)])
    mode = training_mode() if seed // len(KINDS) % 2 else EVAL
    checks = list(check_model(model, params, images, labels, mode, most=2, seed=seed))
    assert {check.path for check in checks} == {"x", *trained_shapes(model)}
    assert all(check.checked >= 1 for check in checks), "\n".join(map(str, checks))
    summary = summarise(checks)
    assert summary.ok, str(summary)
    places = sum(check.checked for check in checks)
    assert f"all right: {len(checks)} of {len(checks)} arrays compared at {places} places" in str(
        summary
    )
    assert "; 0 wrong; 0 not compared" in str(summary)


@pytest.mark.parametrize("seed", [0, 11, 14])
def test_no_array_of_a_fresh_network_is_left_out(seed) -> None:
    no_array_is_left_out(seed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(50))
def test_no_array_of_fifty_fresh_networks_is_left_out(seed) -> None:
    no_array_is_left_out(seed)


def test_an_array_that_is_all_on_kinks_is_tried_elsewhere_and_says_so() -> None:
    """Behind a squeeze layer that is off, a bias of 0 is where its ReLU bends, whatever the step."""
    model, params, images, labels = drawn(0, {})
    alone, moved = (
        {c.path: c for c in check_model(model, params, images, labels, most=2, redraws=redraws)}
        for redraws in (0, 3)
    )
    missed = {path for path, check in alone.items() if not check.checked}
    assert missed
    for path in missed:
        assert not alone[path].ok
        assert re.search(r"all of \d+ places are on a kink of fire\d/\w+_relu", alone[path].why)
        assert moved[path].ok
        assert moved[path].nudge in NUDGES
        assert f"all numbers moved by {moved[path].nudge:g}" in str(moved[path])
    text = str(summarise(alone.values()))
    assert text.startswith(f"NOT ALL CHECKED: {53 - len(missed)} of 53 arrays compared")
    assert f"{len(missed)} not compared: {min(missed, key=list(alone).index)} (all of" in text
    assert len(text.splitlines()) == 1


# ------------------------------------------------------------------------------- no fault hides


@dataclass(frozen=True)
class Spoilt(Layer):
    """A layer of a network whose backward has one of its results changed."""

    inner: Layer
    name: str
    change: Callable[[np.ndarray], np.ndarray]

    def out_shape(self, in_shape):
        return self.inner.out_shape(in_shape)

    def param_shapes(self, in_shape):
        return self.inner.param_shapes(in_shape)

    def buffer_shapes(self, in_shape):
        return self.inner.buffer_shapes(in_shape)

    def forward(self, params, x, mode=EVAL):
        return self.inner.forward(params, x, mode)

    def backward(self, params, cache, dy, mode=EVAL):
        dx, grads = self.inner.backward(params, cache, dy, mode)
        found = {"dx": dx} | grads
        found[self.name] = self.change(found[self.name])
        return found.pop("dx"), {n: grad for n, grad in found.items() if grad is not None}


def with_fault(model, path, name, change):
    """The model, one layer of it spoilt."""
    return map_layers(lambda at, layer: Spoilt(layer, name, change) if at == path else layer, model)


def one_nan(grad):
    """NaN at a single place that no draw of two is likely to meet."""
    grad = grad.copy()
    grad.flat[-1] = np.nan
    return grad


FAULTS = {
    "wrong sign": ("fire4/expand3x3", "weight", np.negative, {"fire4/expand3x3/weight"}),
    "a factor missing": ("fire4/squeeze", "bias", lambda d: 0.5 * d, {"fire4/squeeze/bias"}),
    "a hundredth off": ("conv6", "bias", lambda d: 1.01 * d, {"conv6/bias"}),
    "zeros": ("conv1", "weight", np.zeros_like, {"conv1/weight"}),
    "one NaN": ("fire3/squeeze", "weight", one_nan, {"fire3/squeeze/weight"}),
    "infinite": ("fire3/squeeze", "bias", lambda d: d + np.inf, {"fire3/squeeze/bias"}),
    "dx halved": ("fire2/squeeze", "dx", lambda d: 0.5 * d, {"x", "conv1/weight", "conv1/bias"}),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("seed", [0, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 2, 3))])
def test_a_fault_in_one_layer_of_a_network_is_seen_in_the_summary(fault, seed) -> None:
    path, name, change, wrong = FAULTS[fault]
    model, params, images, labels = drawn(seed, FEW)
    spoilt = with_fault(model, path, name, change)
    summary = summarise(check_model(spoilt, params, images, labels, most=2, seed=seed))
    assert {check.path for check in summary.wrong} == wrong
    assert not summary.ok
    text = str(summary)
    assert text.startswith("WRONG: 29 of 29 arrays compared")
    assert f"{len(wrong)} wrong: " in text
    assert all(path in text for path in wrong)
    assert summary.worst is not None
    assert summary.worst.path in wrong


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda grad: None, r"no gradient, the array is \(1, 1, 2, 4\)"),
        (lambda grad: grad[0, 0], r"a gradient of shape \(2, 4\), the array is \(1, 1, 2, 4\)"),
    ],
    ids=["forgotten", "of another shape"],
)
def test_a_gradient_that_is_not_there_is_not_passed_over(change, why) -> None:
    model, params, images, labels = drawn(0, FEW)
    spoilt = with_fault(model, "fire2/expand1x1", "weight", change)
    summary = summarise(check_model(spoilt, params, images, labels, most=1))
    (check,) = summary.unchecked
    assert check.path == "fire2/expand1x1/weight"
    assert re.search(why, str(check))
    assert str(check).startswith("UNCHECKED")
    assert "NOT ALL CHECKED: 28 of 29 arrays" in str(summary)
    assert re.search(
        rf"1 not compared: fire2/expand1x1/weight \(backward gives {why}\)", str(summary)
    )
