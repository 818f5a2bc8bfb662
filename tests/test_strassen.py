"""Strassen's product of the last convolution of one image: its matrices, its plan, and its rounding."""

import itertools

import numpy as np
import pytest
from networks import lively
from numba.core import config

from tinysqueeze.bench.floor import flops
from tinysqueeze.bench.workloads import WORKLOADS
from tinysqueeze.compiled import compile
from tinysqueeze.kernels import TARGET
from tinysqueeze.kernels.strassen import BACK, LEFT, RIGHT
from tinysqueeze.network.models import squeezenet_cifar
from tinysqueeze.network.params import map_params
from tinysqueeze.network.stepwise import StepByStep

compiled = pytest.mark.skipif(
    bool(config.DISABLE_JIT), reason="NUMBA_DISABLE_JIT: the plan runs step by step"
)


def test_seven_products_make_the_four_quarters():
    """Exactly, term by term: quarter (i, j) is the sum of a[i, k] * b[k, j], and of nothing else."""
    made = np.einsum("qm,ma,mb->qab", BACK, LEFT, RIGHT)
    expected = np.zeros((4, 4, 4))
    for i, j, k in itertools.product(range(2), repeat=3):
        expected[2 * i + j, 2 * i + k, 2 * k + j] = 1
    np.testing.assert_array_equal(made, expected)


def wide(**changes):
    """A network that ends in 512 channels."""
    sizes = {"input_size": 9, "fires": 1, "pools": (), "stem_filters": 16, "base_e": 512}
    return squeezenet_cifar(**sizes | changes)


def last(plan):
    """The last convolution's weights in a plan of one image."""
    layout = plan._inference_program().layout
    return layout.convs[max(layout.convs)][0].weights


ENDS = [
    (8, 512, {}),  # pixels even in number, whole pairs of panels
    (9, 512 + 3 * TARGET.lanes - 5, {}),  # odd; half of the last panel
    (9, 512 + TARGET.lanes + 1, {"final_relu": True}),
]


@compiled
@pytest.mark.parametrize(("size", "classes", "changes"), ENDS)
def test_the_last_convolution_in_halves(size, classes, changes, rng):
    """Like step-by-step execution, for any number of threads and again and again."""
    model = wide(classes=classes, input_size=size, **changes)
    params = lively(model, rng)
    images = rng.standard_normal((2, *model.input_shape), np.float32)
    expected = StepByStep(model, params).predict(images)
    for threads in (1, 2, 3):
        plan = compile(model, 1, training=False, threads=threads, params=params)
        assert last(plan).halves
        got = plan.predict(images)
        np.testing.assert_allclose(got, expected, atol=2e-5 * abs(expected).max())
        np.testing.assert_array_equal(plan.predict(images), got)


@compiled
@pytest.mark.parametrize(("precision", "changes"), [
    ("direct", {}), ("2x2", {}), ("4x4", {"classes": 511}), ("4x4", {"base_e": 480}),
    ("4x4", {"input_size": 7}),
])  # fmt: skip
def test_kept_off(precision, changes, rng):
    """Where another precision is asked for, and where the product is too small to gain."""
    model = wide(**{"classes": 512} | changes)
    plan = compile(model, 1, training=False, precision=precision, params=lively(model, rng))
    assert not last(plan).halves


@compiled
def test_rounding_stays_near_that_of_a_plain_product(rng):
    """Against 64-bit numbers, the 3x3 convolutions done directly in both."""
    model = wide(classes=512, input_size=13, pct3x3=0.0)
    params = lively(model, rng)
    images = rng.standard_normal((1, *model.input_shape), np.float32)
    double = map_params(lambda a: a.astype(np.float64), params)
    right = StepByStep(model, double).predict(images.astype(np.float64))
    errors = []
    for precision in ("4x4", "direct"):
        plan = compile(model, 1, training=False, precision=precision, params=params)
        errors.append(np.sqrt(np.mean((plan.predict(images) - right) ** 2)) / abs(right).max())
    print(f"of the largest logit: Strassen {errors[0]:.1e}, plain {errors[1]:.1e}")
    assert errors[0] < 3 * errors[1] < 1e-6


def test_the_floor_counts_seven_eighths():
    """Of v1.1's last convolution; the 3x3 convolutions shrink by 2.25 and 4."""
    counted, last_one = flops(WORKLOADS["v11"]), 2 * 169 * 512 * 1000
    tiled = (counted["direct"] - counted["2x2"]) / (1 - 1 / 2.25)
    saved = tiled * 3 / 4 + last_one / 8
    assert counted["direct"] - counted["4x4"] == pytest.approx(saved)
