"""A thread that is late changes nothing: wherever one needs what another makes, they wait."""

from collections.abc import Callable
from dataclasses import replace

import networks
import numpy as np
import pytest
from numba.core import config

from tinysqueeze.compiled import compile, layout
from tinysqueeze.compiled.sequence import Runnable
from tinysqueeze.kernels.kernel import Kernel
from tinysqueeze.kernels.team import Program, Split, Stage, doze
from tinysqueeze.network.compose import Chain, Residual
from tinysqueeze.network.layers import Conv2D, GlobalAvgPool2D, MaxPool2D, ReLU
from tinysqueeze.network.models import Model, squeezenet1_1, squeezenet_cifar
from tinysqueeze.network.others import GroupedConv2D
from tinysqueeze.network.params import flatten

pytestmark = pytest.mark.skipif(
    bool(config.DISABLE_JIT), reason="NUMBA_DISABLE_JIT: there is one thread"
)
THREADS = 3


def _pause(job, first, count, thread):
    """One thread sleeps for a millisecond or two."""
    if thread == job.who:
        for _ in range(15):
            doze()


pause = Kernel(_pause, "who")


def changed(runnable: Runnable, change: Callable) -> Runnable:
    """Its programs with other stages."""
    parts = [Program(change(p.stages)) if isinstance(p, Program) else p for p in runnable.parts]
    return Runnable(parts, runnable.settings)


def in_step(stages: list[Stage]) -> list[Stage]:
    """Everybody waits for everybody after every stage: so it is right whatever they forget."""
    return [replace(stage, wait=True) for stage in stages]


def with_stragglers(late: Callable[[], int]):
    """Before every stage some thread sleeps, and whoever need not wait for it goes on."""

    def change(stages: list[Stage]) -> list[Stage]:
        made = []
        for stage in stages:
            made += [Stage(Split.OWN, wait=False), stage]
            made[-2].add(pause.job(who=late()))
        return made

    return change


def ways() -> list:
    """One thread is always late, each in turn; then, a few times, now this one and now that."""
    rng = np.random.default_rng(0)
    always = [with_stragglers(lambda who=who: who) for who in range(THREADS)]
    return always + [with_stragglers(lambda: int(rng.integers(THREADS))) for _ in range(5)]


def small(**changes) -> Model:
    """A CIFAR SqueezeNet whose maps have several sizes and chunks of several images."""
    settings = {"input_size": 12, "fires": 4, "base_e": 16, "incr_e": 16, "pools": (1, 3)}
    return squeezenet_cifar(**settings | changes)


CONV = Conv2D(8, 3, pad=1)
NETWORKS = {
    "plain": small(),
    "dropout": small(dropout=0.5),
    "bypass": small(bypass="simple"),
    "complex bypass": small(bypass="complex", pools=(2, 3)),
    "norm": small(norm=True),
    "norm and bypass": small(norm=True, bypass="simple"),
    "hard-swish and norm": small(norm=True, bypass="complex", activation="hard-swish"),
    "pools and a layer without a kernel": Model("composition", (
        ("a", CONV), ("r", ReLU()), ("p", MaxPool2D(3, 2)), ("b", Residual(Chain((("c", CONV),)))),
        ("g", GroupedConv2D(4, 3, 2, pad=1)), ("d", CONV), ("s", ReLU()), ("q", MaxPool2D(2, 2)),
        ("last", Conv2D(5, 1)), ("mean", GlobalAvgPool2D()),
    ), (13, 11, 3), {}),
}  # fmt: skip


def two_inputs(model: Model, images: int) -> list:
    """(params, images, labels), twice: what a run leaves behind is not what the next one needs."""
    rng = np.random.default_rng(1)
    return [
        (
            networks.lively(model, rng),
            rng.standard_normal((images, *model.input_shape)).astype(np.float32),
            rng.integers(0, model.classes, images),
        )
        for _ in range(2)
    ]


@pytest.mark.parametrize("name", NETWORKS)
def test_a_late_thread_changes_no_gradient(name):
    model = NETWORKS[name]
    before, now = two_inputs(model, 7)
    plan = compile(model, 8, threads=THREADS)
    runnable = plan._training.steps

    def step(params, images, labels):
        plan.load(params)
        return (
            plan.loss_and_grads(images, labels, seed=3)[0],
            plan.grad_vector.copy(),
            plan.vector.copy(),
        )

    def after_another(how):
        plan._training.steps = changed(runnable, in_step)
        step(*before)
        plan._training.steps = changed(runnable, how)
        return step(*now)

    expected = after_another(in_step)
    for how in ways():
        for got, right in zip(after_another(how), expected, strict=True):
            np.testing.assert_array_equal(got, right)


@pytest.mark.parametrize("name", NETWORKS)
def test_how_many_steps_share_a_chunk_changes_no_gradient(name, monkeypatch):
    """They do while their weights stay in the cache: none do where nothing fits, and all where all does."""
    model, found, chained = NETWORKS[name], [], []
    for staying in (0, 1 << 40):
        monkeypatch.setattr(layout, "STAYING", staying)
        plan = compile(model, 8, threads=2)
        for params, images, labels in two_inputs(model, 7):
            plan.load(params)
            found.append((plan.loss_and_grads(images, labels)[0], plan.grad_vector.copy()))
        chained.append(len(plan._training.layout.chained))
    for (loss, grads), (other, others) in zip(found[:2], found[2:], strict=True):
        assert loss == other
        np.testing.assert_array_equal(grads, others)
    assert chained[0] < chained[1] or (name != "plain" and chained[0] == chained[1])


WIDE = {
    "plain": small(base_e=64),
    "norm and bypass": small(base_e=64, norm=True, bypass="simple"),
    "complex bypass, pools of nine": small(base_e=64, bypass="complex", pool_kernel=3),
    "hard-swish": small(base_e=64, incr_e=6, activation="hard-swish"),
}


@pytest.mark.parametrize("plain", range(3))
@pytest.mark.parametrize("name", WIDE)
def test_steps_that_go_back_by_groups_of_filters_change_no_gradient(name, plain, monkeypatch):
    """Any of them may, in chunks of their own size: a large network's do."""
    model, found = WIDE[name], []
    inputs = two_inputs(model, 13)
    for grouped in (lambda *step: False, lambda layout, i, precision: i % 3 != plain):
        monkeypatch.setattr(layout, "GROUP", 16)
        monkeypatch.setattr(layout, "_is_grouped", grouped)
        plan = compile(model, 15, threads=2)
        for params, images, labels in inputs:
            plan.load(params)
            loss = plan.loss_and_grads(images, labels)[0]
            found.append((loss, {k: g.copy() for k, g in flatten(plan.grads).items()}))
    convs = plan._training.layout.convs.values()
    assert any(conv.weights.is_grouped and conv.back > conv.count for one in convs for conv in one)
    for (loss, grads), (other, others) in zip(found[:2], found[2:], strict=True):
        assert loss == other
        largest = max(np.linalg.norm(g) for g in grads.values())
        for path, one in grads.items():
            error = np.linalg.norm(one - others[path])
            assert error <= 1e-5 * np.linalg.norm(one) + 1e-6 * largest, path


SINGLE = {
    "one image": (small(), 1, "4x4"),
    "one image, norm and bypass": (small(norm=True, bypass="simple"), 1, "4x4"),
    "one image, complex bypass": (small(bypass="complex", pools=(2, 3)), 1, "direct"),
    "large image": (
        squeezenet1_1(5, input_size=131, base_e=32, incr_e=16, bypass="simple"),
        1,
        "2x2",
    ),
}


@pytest.mark.parametrize(
    ("model", "batch", "precision"),
    [*((model, 8, "4x4") for model in NETWORKS.values()), *SINGLE.values()],
    ids=[*NETWORKS, *SINGLE],
)
def test_a_late_thread_changes_no_prediction(model, batch, precision):
    before, now = two_inputs(model, 7 if batch > 1 else 1)
    plan = compile(model, batch, training=False, precision=precision, threads=THREADS)
    plan.predict(before[1])
    inference = plan._inference
    packed, runnable = inference.packing, inference.steps

    def after_another(how):
        for change, (params, images, _) in ((in_step, before), (how, now)):
            inference.packing = changed(packed, change)
            inference.steps = changed(runnable, change)
            plan.load(params)
            logits = plan.predict(images)
        return logits

    expected = after_another(in_step)
    for how in ways():
        np.testing.assert_array_equal(after_another(how), expected)
