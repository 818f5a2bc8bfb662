"""Winograd for an image in phases, and panel by panel for few tiles, against step-by-step execution."""

import itertools

import numpy as np
import pytest
from networks import lively
from numba.core import config

from tinysqueeze.compiled import compile
from tinysqueeze.compiled.steps import PhaseStep
from tinysqueeze.kernels import TARGET
from tinysqueeze.network.models import squeezenet1_0, squeezenet_cifar
from tinysqueeze.network.stepwise import StepByStep

pytestmark = pytest.mark.skipif(
    bool(config.DISABLE_JIT), reason="NUMBA_DISABLE_JIT: the plan runs step by step"
)
STEMS = [
    (7, 2, 0, 112),
    (7, 2, 3, 131),
    (8, 2, 1, 45),
    (5, 2, 2, 44),
    (7, 3, 1, 50),
    (11, 4, 2, 143),
]


@pytest.mark.parametrize(("kernel", "stride", "pad", "size"), STEMS)
def test_an_image_in_phases(kernel, stride, pad, size, rng):
    """Pooled in bands, and by images; what is no number spoils its own image only."""
    model = squeezenet1_0(
        7, stem_kernel=kernel, stem_stride=stride, stem_pad=pad, input_size=size, fires=2,
        stem_filters=40, base_e=16, pools=(1,),
    )  # fmt: skip
    params = lively(model, rng)
    images = rng.standard_normal((3, *model.input_shape), np.float32)
    expected = StepByStep(model, params).predict(images)
    for count, threads in itertools.product((1, 3), (1, 2, 3)):
        plan = compile(model, count, training=False, threads=threads, params=params)
        got = plan.predict(images)
        np.testing.assert_allclose(got, expected, atol=2e-5 * abs(expected).max())
        np.testing.assert_array_equal(plan.predict(images), got)
        assert isinstance(plan._inference_program().layout.steps.steps[0], PhaseStep)
        assert plan.steps[0].name == "conv1"
    seen = (size + 2 * pad - kernel) // stride * stride + kernel - pad  # pixels, by the last window
    images[:, seen:] = images[:, :, seen:] = np.nan
    np.testing.assert_array_equal(plan.predict(images), got)
    images[1, size // 2, size // 2] = np.nan
    spoilt = np.isnan(plan.predict(images)).any(axis=1)
    np.testing.assert_array_equal(spoilt, [False, True, False])


@pytest.mark.parametrize(("size", "pools", "precision"), [
    (12, (), "4x4"), (12, (3,), "4x4"), (9, (), "4x4"), (6, (), "2x2"), (5, (), "2x2"),
])  # fmt: skip
def test_few_tiles_of_one_image_are_made_panel_by_panel(size, pools, precision, rng):
    """Nine tiles; three panels of output channels, the last of them one vector, and whole ones."""
    wide = 5 * TARGET.panel  # of which half are 3x3
    changes = {"input_size": size, "pools": pools, "fires": 3, "stem_filters": 20, "stem_pad": 1}
    model = squeezenet_cifar(**changes, base_e=wide, incr_e=3 * TARGET.panel, freq=1)
    params, images = lively(model, rng), rng.standard_normal((2, *model.input_shape), np.float32)
    expected = StepByStep(model, params).predict(images)
    for threads in (1, 2, 3):
        plan = compile(
            model, 1, training=False, precision=precision, threads=threads, params=params
        )
        convs = [c for made in plan._inference_program().layout.convs.values() for c in made]
        assert any(conv.weights.by_panels for conv in convs)
        got = plan.predict(images)
        np.testing.assert_allclose(got, expected, atol=2e-5 * abs(expected).max())
