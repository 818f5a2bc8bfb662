"""Networks drawn at random, on every engine, against float64: what can be built computes right."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import battery
import networks
import numpy as np
import pytest
from numba.core import config

from tinysqueeze.compiled import compile
from tinysqueeze.kernels import TARGET
from tinysqueeze.network.compose import Chain, Concat, Residual
from tinysqueeze.network.layers import (
    AvgPool2D,
    BatchNorm,
    Conv2D,
    Dropout,
    Flatten,
    GlobalAvgPool2D,
    HardSwish,
    Layer,
    Linear,
    MaxPool2D,
    ReLU,
)
from tinysqueeze.network.models import Model, squeezenet1_0, squeezenet_cifar
from tinysqueeze.network.others import GroupedConv2D

HERE = Path(__file__).parent
SHARE = 60
"""Networks of the quick run; `--networks` says how many in all, CI's run takes 300."""

needs_jit = pytest.mark.skipif(
    bool(config.DISABLE_JIT), reason="NUMBA_DISABLE_JIT: the plan runs step by step"
)


def small(**changes) -> Model:
    """A CIFAR SqueezeNet of one Fire module or two."""
    return squeezenet_cifar(**{"input_size": 14, "fires": 2, "base_e": 16, "pools": [1]} | changes)


def net(
    *steps: tuple[str, Layer], size: tuple[int, int, int] = (11, 9, 5), classes: int = 4
) -> Model:
    """A composition with a head."""
    head = (("last", Conv2D(classes, 1)), ("mean", GlobalAvgPool2D()))
    return Model("composition", (*steps, *head), size, {})


CONV = Conv2D(8, 3, pad=1)
KNOWN = {
    # each once computed wrong gradients, or did not build, without a word
    "pool narrower than its stride": small(pool_kernel=1),
    "pool narrower than its stride, norm": small(pool_kernel=1, norm=True),
    "pool of 2 by 3, stride 3 by 4": net(("a", CONV), ("r", ReLU()), ("p", MaxPool2D((2, 3), (3, 4))),
                                         ("b", CONV)),
    "bypass below a padded 1x1": small(conv10_pad=1, bypass="simple"),
    "complex bypass below a padded 1x1": small(conv10_pad=2, bypass="complex"),
    "the authors' padding and a bypass": squeezenet1_0(
        7, conv10_pad=1, bypass="simple", input_size=63, stem_filters=12, base_e=16, incr_e=16,
    ),
    "bypass that ends in a ReLU, below a 3x3": net(
        ("a", CONV),
        ("b", Residual(Chain((("c", CONV), ("r", ReLU()), ("d", CONV), ("s", ReLU()))))),
        ("e", CONV),
    ),
    "nothing beside the bypass": net(("a", CONV), ("b", Residual(Chain(()))), ("r", ReLU())),
    "nothing beside the bypass, pooled": net(("a", CONV), ("b", Residual(Chain(()))),
                                             ("p", MaxPool2D(2, 2))),
    "a bypass around nothing first": net(("b", Residual(Chain(()))), ("a", CONV)),
    "a dropout beside the bypass": net(("a", CONV), ("b", Residual(Chain((("d", Dropout(0.5)),))))),
    # what the drawn compositions only sometimes are
    "residual in concat in chain": net(
        ("a", CONV),
        ("b", Concat((("left", Chain((("c", Residual(CONV)), ("r", ReLU())))), ("right", Chain(()))))),
        ("d", CONV),
    ),
    "a layer without a kernel in the middle": net(
        ("a", CONV), ("r", ReLU()), ("g", GroupedConv2D(8, 3, pad=1, groups=4)), ("s", HardSwish()),
        ("b", CONV), ("t", ReLU()),
    ),
    "bypasses around one convolution": net(
        ("a", CONV), ("b", Residual(CONV)), ("s", Conv2D(8, 1)), ("r", ReLU()),
        ("c", Residual(Chain((("c", CONV), ("n", BatchNorm()), ("r", ReLU()))))),
        ("d", Residual(Conv2D(8, 1))), ("p", MaxPool2D(3, 2)), ("e", CONV),
    ),
    "a bypass around arms with gaps between": net(
        ("a", CONV), ("b", Residual(Concat((("c", Conv2D(3, 1)), ("d", Conv2D(5, 3, pad=1)))))),
        ("e", CONV),
    ),
    "a bypass around a pool": net(
        ("a", CONV),
        ("b", Residual(Chain((("p", MaxPool2D(3, 1, 1)), ("c", CONV))))),
        ("n", BatchNorm()),
    ),
    "a dropout before a bypass, below a 3x3": net(
        ("a", CONV), ("d", Dropout(0.5)),
        ("b", Residual(Chain((("c", Conv2D(8, 1)), ("r", ReLU()), ("e", Conv2D(8, 1)))))),
        ("f", CONV),
    ),
    "arms of which one is a pool and one nothing": net(
        ("a", Conv2D(5, 3, pad=1)), ("r", ReLU()),
        ("b", Concat((("c", CONV), ("p", MaxPool2D(3, 1, 1)), ("i", Chain(()))))),
        ("d", CONV), ("s", ReLU()), ("q", MaxPool2D(2, 2)),
    ),
    "arms that end in different activations": net(
        ("a", CONV),
        ("b", Concat((("c", Chain((("c", CONV), ("r", ReLU())))), ("d", CONV)))),
        ("n", BatchNorm()), ("e", CONV),
    ),
    "a mean of arms side by side": Model(
        "composition",
        (("a", CONV), ("b", Concat((("c", Conv2D(3, 1)), ("d", Conv2D(2, 1))))),
         ("m", GlobalAvgPool2D())),
        (7, 6, 3), {},
    ),
    "a mean of what is pooled": Model(
        "composition",
        (("a", CONV), ("r", ReLU()), ("p", MaxPool2D(3, 2, 1)), ("m", GlobalAvgPool2D())), (9, 6, 3), {},
    ),
    "a mean of more channels than a panel": Model(
        "composition",
        (("a", Conv2D(150, 3)), ("p", MaxPool2D(2, 2)), ("m", GlobalAvgPool2D())), (8, 7, 3), {},
    ),
    "a mean of a sum": Model(
        "composition", (("a", CONV), ("b", Residual(CONV)), ("m", GlobalAvgPool2D())), (5, 6, 3), {},
    ),
    "hard-swishes on convolutions": net(
        ("a", CONV), ("s", HardSwish()), ("p", MaxPool2D(3, 2)),
        ("b", Residual(Chain((("c", CONV), ("t", HardSwish()))))), ("q", MaxPool2D(3, 1, 1)),
        ("d", Conv2D(5, 1)), ("u", HardSwish()), ("e", CONV),
    ),
    "three arms": net(
        ("a", Concat((("c", Conv2D(3, 1)), ("d", Conv2D(9, 3, pad=1)), ("e", Conv2D(4, 5, pad=2))))),
        ("r", ReLU()), ("b", CONV),
    ),
    "logits side by side": Model(
        "composition",
        (("a", CONV), ("m", GlobalAvgPool2D()), ("b", Concat((("c", Linear(3)), ("d", Linear(2)))))),
        (7, 6, 3), {},
    ),
    "a ReLU behind a sum": net(
        ("a", CONV),
        ("b", Residual(Chain((("c", CONV), ("n", BatchNorm()), ("r", ReLU()), ("d", CONV))))),
        ("s", ReLU()), ("e", CONV),
    ),
    "strides along one side": net(
        ("a", CONV), ("b", Conv2D(8, 3, (1, 2), 1)), ("c", Conv2D(8, 3, (2, 1), 1)), ("d", CONV),
    ),
    "padded along one side": net(("a", CONV), ("b", Conv2D(8, (3, 5), 1, (2, 0))), ("c", CONV)),
    "a norm beside a bypass, rows of other lengths": net(
        ("a", CONV), ("b", Residual(Chain((("c", CONV), ("n", BatchNorm()), ("r", ReLU()))))),
        ("d", Conv2D(8, 1)),
    ),
    "a pool that overlaps one way": net(("a", CONV), ("p", MaxPool2D((3, 2), (1, 2))), ("b", CONV)),
    "a pool of more pixels than a byte counts": net(("a", CONV), ("p", MaxPool2D(17, 1)), size=(18, 19, 3)),
    "rows of tiles that hang over the edge": net(("a", CONV), ("b", CONV), ("c", CONV), size=(27, 25, 5)),
    "an image in phases": net(("a", Conv2D(8, 7, 2, 3)), ("r", ReLU()), ("p", MaxPool2D(3, 2)), ("b", CONV),
                              size=(45, 47, 2)),
    "an image in phases, both ways": net(
        ("b", Concat((("c", Conv2D(5, 5, 2, 2)), ("d", Conv2D(3, 3, 2, 1))))), ("e", CONV), size=(22, 21, 3),
    ),
    "an image in phases, unevenly padded": net(("a", Conv2D(8, 11, 4, (2, 0))), ("b", CONV),
                                               size=(51, 60, 1)),
    "a norm of its own kind": net(("a", CONV), ("n", BatchNorm(eps=0.5, momentum=0.3)), ("b", CONV)),
    "a map that a pool reads before a convolution": net(
        ("a", CONV), ("r", ReLU()), ("b", Concat((("p", AvgPool2D(3, 1)), ("c", Conv2D(8, 3))))), ("d", CONV),
    ),
    "linear behind everything": Model(
        "composition", (("a", CONV), ("d", Dropout(0.3)), ("f", Flatten()), ("fc", Linear(3))), (5, 7, 1), {},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", KNOWN)
@pytest.mark.parametrize("precision", ["4x4", "2x2", "direct"])
def test_networks_that_once_went_wrong(name, precision):
    """Three precisions, and each of them with fewer images than the plan has room for."""
    tally = battery.Tally()
    for images, batch, threads in ((3, 3, 2), (1, 4, 3), (9, 9, 4)):
        rng = np.random.default_rng(images)
        d = networks.drawn(images, KNOWN[name], rng)
        x = rng.standard_normal((images, *d.model.input_shape)).astype(np.float32)
        labels = rng.integers(0, d.model.classes, images)
        d = replace(d, x=x, labels=labels, batch=batch, threads=threads, precision=precision)
        battery.trial(d, tally)
    assert not tally.wrong, "\n".join(tally.wrong)


def run(seeds, trial, tally) -> None:
    """A trial of each network; an error of any kind is one that is wrong."""
    for seed in seeds:
        d = networks.draw(seed)
        try:
            trial(d, tally)
        except Exception as error:
            raise AssertionError(f"{d}: {error!r}") from error
    print("\n" + tally.table())
    assert not tally.wrong, "\n".join(tally.wrong)


def test_networks_drawn_at_random(request):
    """Step by step with both operations, compiled training, both kinds of compiled inference."""
    count = request.config.getoption("networks")
    tally = battery.Tally()
    run(range(SHARE if count is None else count), battery.trial, tally)
    assert len(tally.tried) >= 11


@pytest.mark.slow
def test_three_hundred_networks(request):
    """CI's share: other networks than the quick run's."""
    if request.config.getoption("networks") is not None:
        pytest.skip("--networks says how many, to the quick run")
    run(range(SHARE, SHARE + 300), battery.trial, battery.Tally())


@pytest.mark.oracle
@needs_jit
def test_the_other_engines(request):
    """PyTorch against the reference; ONNX Runtime, C and integers against both."""
    for needed in ("torch", "onnx", "onnxruntime"):
        pytest.importorskip(needed)
    import battery_others

    compiler = battery_others.compiler()
    tally = battery.Tally()
    count = request.config.getoption("networks") or 100
    run(range(1000, 1000 + count), lambda d, t: battery_others.trial(d, t, compiler), tally)
    expected = {"PyTorch, float64", "ONNX Runtime"}
    assert expected <= tally.tried.keys()


@needs_jit
@pytest.mark.parametrize("bypass", [False, True])
def test_dropouts_keep_their_share_each_by_a_mask_of_its_own(bypass):
    """Asked apart, for the battery takes a plan's masks as they are.

    Behind two identities dweight[i, j] counts the pixels where one kept i and the other j: a quarter.
    With a bypass around each of them no kernel does the dropout.
    """
    same, ones, grads = Conv2D(16, 1, bias=False), np.ones((8, 16, 16, 16), np.float32), []
    params = {name: {"weight": np.eye(16, dtype=np.float32)[None, None]} for name in "ab"}
    for layer in (Dropout(0.5), ReLU()):
        layer = Residual(layer) if bypass else layer
        steps = (
            ("a", same),
            ("one", layer),
            ("b", same),
            ("two", layer),
            ("mean", GlobalAvgPool2D()),
        )
        plan = compile(Model("two", steps, (16, 16, 16), {}), 8, params=params)
        plan.loss_and_grads(ones, np.zeros(8, int), seed=2)
        grads.append(plan.grads["b"]["weight"][0, 0, :, 1:].copy())
    assert grads[0].mean() == pytest.approx(grads[1].mean(), rel=0.1)
    assert np.diag(grads[0], -1).mean() == pytest.approx(grads[0].mean(), rel=0.1)  # i = j


FEATURES = {
    8: "+avx,+avx2,+fma,+sse4.2,+popcnt,+bmi,+bmi2,+f16c,-avx512f",
    4: "+sse4.2,+popcnt,-avx,-avx2,-avx512f",
}
"""What a processor with vectors of so many floats has, as LLVM names it."""


@pytest.mark.slow
@needs_jit
@pytest.mark.parametrize("lanes", [8, 4])
def test_narrower_vectors(lanes):
    """The same networks with the kernels of an older processor, in a process of its own."""
    if TARGET.lanes <= lanes:
        pytest.skip(f"this processor's vectors have {TARGET.lanes} lanes already")
    environment = os.environ | {
        "NUMBA_CPU_NAME": "x86-64", "NUMBA_CPU_FEATURES": FEATURES[lanes],
        "PYTHONPATH": os.pathsep.join(sys.path),
    }  # fmt: skip
    command = [sys.executable, str(HERE / "battery.py"), "60", "--first", "500"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert f"vectors of {lanes} floats" in done.stdout, done.stdout + done.stderr
    assert done.returncode == 0, done.stdout + done.stderr
