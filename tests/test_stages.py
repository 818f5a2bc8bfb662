"""Where the time goes: all of it is counted, as what it is, and the plan computes the same."""

import numpy as np
import pytest
from numba.core import config

from tinysqueeze.bench.stages import KIND_OF, KINDS, ROW, Clock, _measured, _plan, _watch, by_stage
from tinysqueeze.bench.workloads import WORKLOADS
from tinysqueeze.errors import UserError
from tinysqueeze.kernels.kernel import _all_kernels

needs_jit = pytest.mark.skipif(config.DISABLE_JIT, reason="then nothing is compiled")
BESIDE_PROGRAMS = {"walk", "offer", "serve", "sgd", "adam", "ema"}


def test_every_kernel_is_of_some_kind():
    names = {kernel.name for kernel in _all_kernels()} - {"pause", "look"}
    assert names - BESIDE_PROGRAMS == set(KIND_OF)
    assert len(KINDS) < ROW


@needs_jit
@pytest.mark.parametrize(
    ("name", "precision"),
    [
        ("train", "float32"),
        ("norm", "float32"),
        ("infer", "float32"),
        ("v10", "float32"),
        ("v10", "int8"),
    ],
)
def test_a_watched_plan_computes_the_same(name, precision):
    """On two threads, whose ticks are counted apart; shared images, batches and training."""
    workload = WORKLOADS[name].quick()
    rng = np.random.default_rng(0)
    images = rng.standard_normal((workload.batch, *workload.model.input_shape), np.float32)
    labels = rng.integers(0, workload.model.classes, workload.batch)
    plan = _plan(workload, precision, 2, images)

    def outcome():
        if workload.training:
            plan.loss_and_grads(images, labels)
            return plan.grad_vector.copy()
        return plan.predict(images)

    before = outcome()
    clock = Clock(np.zeros((2, ROW), np.int64))
    _watch(plan, clock)
    np.testing.assert_array_equal(outcome(), before)
    assert (clock.counted[:, 0] > 0).all()
    assert (clock.counted >= 0).all()
    kinds = {kind.stage: kind for kind in clock.kinds(10.0, optimiser=0.0)}
    assert sum(kind.ms for kind in kinds.values()) == pytest.approx(10)
    assert sum(kind.share for kind in kinds.values()) == pytest.approx(1)
    assert "products" in kinds
    assert ("norms" in kinds) == (name == "norm")
    assert ("encoding" in kinds) == (precision == "int8")


@needs_jit
def test_a_step_is_divided_up(monkeypatch):
    found = _measured(vars(WORKLOADS["norm"].quick()), "float32", 1, 0.01)
    assert {"transforms", "products", "pools", "norms", "loss", "optimiser"} <= {
        k.stage for k in found
    }
    monkeypatch.setattr(config, "DISABLE_JIT", 1)
    with pytest.raises(UserError, match="--stages tells the time of compiled kernels"):
        by_stage(WORKLOADS["norm"].quick(), "float32", 1, 0.01)
