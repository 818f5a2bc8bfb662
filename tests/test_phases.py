"""An image convolved in phases, by Winograd, against step-by-step execution."""

import itertools

import numpy as np
import pytest
from networks import lively
from numba.core import config

from tinysqueeze.compiled import compile
from tinysqueeze.compiled.steps import PhaseStep
from tinysqueeze.network.models import squeezenet1_0
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
