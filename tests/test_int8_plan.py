"""The compiled plan in integers: the bits of `devices.int8`, whatever the network, batch and threads."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numba.core import config

from tinysqueeze.compiled import compile
from tinysqueeze.compiled.int8 import Int8Plan, products
from tinysqueeze.compiled.int8.maps import pooled_at_once
from tinysqueeze.devices.int8 import Grid, quantise
from tinysqueeze.errors import ShapeError, UserError
from tinysqueeze.graph import Pool
from tinysqueeze.kernels import TARGET
from tinysqueeze.kernels.byte_tile import SHIFT_MOST
from tinysqueeze.network.compose import Chain, Concat, Residual
from tinysqueeze.network.layers import (
    AvgPool2D,
    BatchNorm,
    Conv2D,
    Flatten,
    GlobalAvgPool2D,
    HardSwish,
    Linear,
    MaxPool2D,
    ReLU,
)
from tinysqueeze.network.models import Model, squeezenet1_1, squeezenet_cifar
from tinysqueeze.network.others import GroupedConv2D
from tinysqueeze.network.params import initialise, map_params

HEAD = (("last", Conv2D(5, 1)), ("mean", GlobalAvgPool2D()))


def net(*steps, size=(9, 7, 3), head=HEAD) -> Model:
    """A composition with a head."""
    return Model("odd", (*steps, *head), size, {})


def quantised(model, rng, images=4):
    """A network of random parameters, and what it was calibrated on."""
    params = map_params(
        lambda a: a + (0.2 * rng.standard_normal(a.shape)).astype(np.float32), initialise(model)
    )
    params = map_params(lambda a: np.abs(a) + np.float32(0.3) if a.ndim == 1 else a, params)
    x = rng.standard_normal((images, *model.input_shape)).astype(np.float32)
    return quantise(model, params, x), x


def check(network, x, batch=None, threads=1):
    """To the bit, from images and from bytes."""
    plan = compile(network, batch or len(x), precision="int8", threads=threads)
    codes = network.encode(x)
    np.testing.assert_array_equal(plan.integers(codes), network.integers(codes))
    np.testing.assert_array_equal(plan.predict(x), network.logits(x))
    return plan


CONV = Conv2D(13, 3, pad=1)
NETWORKS = {
    "grouped": net(("a", Conv2D(6, 3, pad=1)), ("g", GroupedConv2D(9, 3, groups=3, pad=1))),
    "a norm alone": net(("a", CONV), ("r", ReLU()), ("n", BatchNorm()), ("s", ReLU())),
    "average pools": net(
        ("a", CONV), ("p", AvgPool2D(3, 2, 1)), ("q", AvgPool2D((2, 3), 2, 1, True))
    ),
    "max pools that hang over": net(
        ("a", CONV), ("p", MaxPool2D(3, 2, 1, True)), ("q", MaxPool2D((1, 2), 2))
    ),
    "pools that are done at once": net(
        ("a", Conv2D(70, 3, pad=1)), ("r", ReLU()), ("p", MaxPool2D(2, 2)),
        ("b", Concat((("c", Conv2D(21, 1)), ("d", Conv2D(33, 3, pad=1))))), ("q", MaxPool2D(2, 2)),
        ("e", Conv2D(16, 3, pad=1)), size=(12, 20, 3),
    ),
    "pools that are done at once in arms, and some that are not": net(
        ("a", CONV),
        ("b", Concat((
            ("c", Chain((("d", Conv2D(50, 1)), ("p", MaxPool2D(2, 2))))), ("q", MaxPool2D(2, 2)),
            ("e", Chain((("f", Conv2D(100, 3, pad=1)), ("r", ReLU()), ("s", MaxPool2D(2, 2))))),
            ("g", Chain((("h", CONV), ("w", HardSwish()), ("t", MaxPool2D(2, 2))))),
        ))),
        ("u", MaxPool2D(2, 2, ceil=True)), ("i", CONV), ("v", MaxPool2D(2, 2, 0)), size=(10, 14, 3),
    ),
    "a hard-swish and wide maps": net(("a", Conv2D(70, 3, pad=1)), ("s", HardSwish()), ("b", CONV)),
    "sums of maps laid out alike and not": net(
        ("a", CONV),
        ("b", Residual(Chain((("c", CONV), ("r", ReLU()), ("d", CONV))))),
        ("e", Residual(Chain((("f", Concat((("g", Conv2D(6, 1)), ("h", Conv2D(7, 3, pad=1))))),)))),
        ("r", ReLU()),
    ),
    "arms that are copies and pools": net(
        ("a", CONV),
        ("b", Concat((("c", CONV), ("p", MaxPool2D(3, 1, 1)), ("i", Chain(())), ("s", HardSwish())))),
    ),
    "a mean, then fully connected": net(
        ("a", CONV), ("r", ReLU()), head=(("mean", GlobalAvgPool2D()), ("fc", Linear(5)))
    ),
    "fully connected": net(("a", CONV), head=(("flat", Flatten()), ("fc", Linear(5)))),
    "only a convolution and a mean that is read twice": net(
        ("a", Conv2D(17, 1)), head=(("mean", GlobalAvgPool2D()),)
    ),
    "a mean of bytes": net(("a", CONV), ("s", HardSwish()), head=(("mean", GlobalAvgPool2D()),)),
    "logits through a ReLU": net(
        ("a", CONV), head=(("last", Conv2D(5, 1, pad=1)), ("r", ReLU()), ("m", GlobalAvgPool2D()))
    ),
    "one channel, wide windows": net(("a", Conv2D(3, (7, 5), (2, 3), (3, 2))), size=(15, 16, 1)),
    "strides that leave pixels out": net(("a", Conv2D(4, 2, 3)), ("b", Conv2D(35, 1, 2, 1))),
}  # fmt: skip


@pytest.fixture
def always_tiled(monkeypatch):
    """Winograd for every convolution that it can do, whether it pays or not."""
    monkeypatch.setattr(products, "WEIGHT_COST", -(10**9))


@pytest.mark.parametrize("name", NETWORKS)
def test_every_kind_of_node(name, rng):
    network, x = quantised(NETWORKS[name], rng)
    check(network, x)
    check(network, x, batch=1, threads=2)


@pytest.mark.parametrize("name", [name for name in NETWORKS if "pool" in name or "laid" in name])
def test_every_kind_of_node_beside_tiles(name, rng, always_tiled):
    network, x = quantised(NETWORKS[name], rng)
    check(network, x)
    check(network, x, batch=1, threads=2)


@settings(max_examples=20, deadline=None, derandomize=True)
@given(
    height=st.integers(1, 14),
    width=st.integers(1, 30),
    channels=st.sampled_from([1, 16, 33]),
    filters=st.sampled_from([1, 16, 33, 80, 100]),
    pad=st.integers(0, 2),
    relu=st.booleans(),
    pool=st.booleans(),
    shared=st.booleans(),
)
@example(height=4, width=8, channels=16, filters=80, pad=1, relu=True, pool=True, shared=False)
@example(height=9, width=30, channels=33, filters=100, pad=0, relu=False, pool=False, shared=True)
@example(height=14, width=13, channels=16, filters=64, pad=2, relu=False, pool=False, shared=False)
def test_a_convolution_in_tiles(height, width, channels, filters, pad, relu, pool, shared):
    """Any shape, though maps are seldom whole tiles; the largest bytes and weights there are."""
    rng = np.random.default_rng(height * width)
    rest = [("r", ReLU())] * relu + [("p", MaxPool2D(2, 2))] * pool
    model = net(
        ("a", Conv2D(channels, 1)), ("b", Conv2D(filters, 3, pad=pad)), *rest, ("c", Conv2D(7, 1)),
        size=(height, width, 3),
    )  # fmt: skip
    try:
        network, x = quantised(model, rng, images=3)
    except ShapeError:
        return  # smaller than its kernel, or its pool
    conv = network.convs[1]
    extremes = rng.choice(np.array([-127, 127], np.int8), conv.weight.shape)
    network.convs[1] = replace(conv, weight=extremes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(products, "WEIGHT_COST", -(10**9))
        plan = check(network, x * 9, batch=1 if shared else 3, threads=2)
    assert not plan.is_compiled or plan._program.packed[1].tiled


def test_tiles_only_where_they_are_exact_and_pay(rng):
    model = net(("a", Conv2D(32, 1)), ("b", Conv2D(64, 3, pad=1)), size=(32, 32, 3))
    network, x = quantised(model, rng)

    def tiled(bias=0, shift=40, batch=4):
        conv = network.convs[1]
        network.convs[1] = replace(
            conv, bias=np.full_like(conv.bias, bias), shift=np.full_like(conv.shift, shift)
        )
        plan = check(network, x, batch)
        return plan.is_compiled and plan._program.packed[1].tiled

    assert tiled() == (not config.DISABLE_JIT)
    most = (1 << 25) - 255 * int(
        np.abs(network.convs[1].weight.astype(int)).sum(axis=(0, 1, 2)).max()
    )
    assert tiled(bias=1 - most) == (not config.DISABLE_JIT)
    assert not tiled(bias=-most)  # 27 bits
    assert not tiled(shift=SHIFT_MOST - 5)
    small, x = quantised(
        net(("a", Conv2D(32, 1)), ("b", Conv2D(64, 3, pad=1)), size=(5, 5, 3)), rng
    )
    plan = check(small, x)
    assert not plan.is_compiled or not plan._program.packed[1].tiled


def test_what_is_pooled_at_once_is_never_stored(rng):
    for name, places in (
        ("pools that are done at once", ["p", "q"]),
        ("pools that are done at once in arms, and some that are not", ["b/c/p", "b/e/s"]),
        ("max pools that hang over", []),
    ):
        network, _ = quantised(NETWORKS[name], rng)
        assert [pool.path for pool in pooled_at_once(network.graph).values()] == places
    big, x = quantised(squeezenet_cifar(base_e=16, incr_e=16), rng)
    plan = check(big, x, batch=3)
    assert plan.peak_bytes < 600_000


@settings(max_examples=20, deadline=None, derandomize=True)
@given(
    size=st.tuples(st.integers(1, 9), st.integers(1, 9), st.sampled_from([1, 2, 3, 4, 5, 17])),
    filters=st.sampled_from([1, 15, 16, 33, 80, 100]),
    window=st.sampled_from([(1, 1, 0), (1, 2, 0), (1, 1, 1), (3, 1, 1), (3, 2, 1), (5, 1, 2)]),
    relu=st.booleans(),
    shared=st.booleans(),
    exact=st.booleans(),
)
@example(size=(4, 4, 3), filters=80, window=(3, 1, 1), relu=False, shared=True, exact=True)
def test_a_convolution(size, filters, window, relu, shared, exact):
    """Any shape; and scales that only the long way round can do, of multipliers from 2^-30 to 2^12."""
    rng = np.random.default_rng(filters)
    kernel, stride, pad = window
    model = net(
        ("a", Conv2D(filters, kernel, stride, pad)), *([("r", ReLU())] if relu else []),
        ("b", Conv2D(7, 1)), size=size,
    )  # fmt: skip
    try:
        network, x = quantised(model, rng, images=3)
    except ShapeError:
        return  # smaller than its kernel
    if exact:
        conv = network.convs[0]
        shift = rng.integers(18, 61, filters).astype(np.uint8)
        network.convs[0] = replace(conv, shift=shift)
    check(network, x, batch=1 if shared else 3, threads=2)


def test_averages_may_leave_their_padding_out(rng):
    """As graphs from ONNX files may ask for."""
    network, x = quantised(NETWORKS["average pools"], rng)
    nodes = tuple(
        replace(n, counts_padding=False) if isinstance(n, Pool) else n for n in network.graph.nodes
    )
    other = replace(network, graph=replace(network.graph, nodes=nodes))
    assert not np.array_equal(other.logits(x), network.logits(x))
    check(other, x)


def test_each_channel_of_the_image_has_a_zero_of_its_own(rng):
    """And padding stands for zero in each of them."""
    model = net(("a", Conv2D(9, 3, pad=1)), ("r", ReLU()))
    params = initialise(model)
    x = rng.standard_normal((3, *model.input_shape)).astype(np.float32)
    pixel = np.array([0.02, 0.03, 0.01]), np.array([100.3, 0.2, 254.9])
    check(quantise(model, params, x, pixel), x, threads=2)


def test_numbers_beyond_the_range_and_none_at_all(rng):
    network, x = quantised(net(("a", CONV)), rng)
    x[0], x[1, 0, 0], x[2, 1, 1] = 1e30, -np.inf, np.inf
    check(network, x)
    plan = compile(network, 2, precision="int8", threads=1)
    assert plan.predict(x[:0]).shape == (0, 5)
    np.testing.assert_array_equal(plan.predict(np.asfortranarray(x)), network.logits(x))


def test_a_squeezenet_in_batches_and_by_several_threads(rng):
    network, x = quantised(squeezenet_cifar(base_e=32, stem_filters=24, bypass="simple"), rng, 7)
    for batch, threads in ((1, 1), (1, 3), (2, 2), (7, 3)):
        plan = check(network, x, batch, threads)
        assert plan.threads == threads or not plan.is_compiled
    assert plan.precision == "int8"
    assert not plan.training
    large, images = quantised(squeezenet1_1(input_size=100, classes=7), rng, 2)
    assert check(large, images).is_single


def test_sums_that_32_bits_might_not_hold_are_left_to_numpy(rng):
    network, x = quantised(net(("a", CONV)), rng)
    deep = replace(network.convs[0], bias=np.full(13, (1 << 31) - 9, np.int32))
    network.convs[0] = deep
    assert not check(network, x).is_compiled


def test_a_grid_that_ends_below_zero(rng):
    """Zero may be any byte, 255 too."""
    network, x = quantised(net(("a", CONV), ("b", CONV)), rng)
    grid = network.grids[1]
    network.grids[1] = Grid(grid.scale, np.array([255]))
    check(network, x)


def test_a_model_is_quantised_on_the_way(rng):
    model = net(("a", CONV), ("r", ReLU()))
    params = initialise(model)
    x = rng.standard_normal((4, *model.input_shape)).astype(np.float32)
    plan = compile(model, 4, precision="int8", params=params, calibration=x)
    assert isinstance(plan, Int8Plan)
    np.testing.assert_array_equal(plan.predict(x), quantise(model, params, x).logits(x))


def test_what_it_refuses(rng):
    model = net(("a", CONV))
    network, x = quantised(model, rng)
    with pytest.raises(UserError, match="images to calibrate on"):
        compile(model, precision="int8")
    with pytest.raises(UserError, match="for inference"):
        compile(network, precision="int8", training=True)
    with pytest.raises(UserError, match="precision='int8'"):
        compile(network)
    with pytest.raises(UserError, match="has its size"):
        compile(network, precision="int8", calibration=x)
    with pytest.raises(UserError, match="calibration images are for"):
        compile(model, calibration=x)
    with pytest.raises(UserError, match="batch is a whole number from 1 to"):
        compile(network, 0, precision="int8")
    plan = compile(network, precision="int8")
    with pytest.raises(ShapeError, match="expected images"):
        plan.predict(x[:, 1:])
    with pytest.raises(ShapeError, match="uint8"):
        plan.integers(x)
    odd = x.copy()
    odd[0, 0, 0, 0] = np.nan
    with pytest.raises(ShapeError, match="hold NaN"):
        plan.predict(odd)
    for other in (
        x.astype(np.uint8),
        x > 0,
        x + 1j,
        x.astype(object),
        "a.png",
        {"a": 1},
        None,
        3.0,
    ):
        with pytest.raises(ShapeError, match="images"):
            plan.predict(other)
        with pytest.raises(ShapeError, match=r"to calibrate.*images"):
            compile(model, precision="int8", calibration=other if other is not None else "none")
    for wrong in (odd, np.full_like(x, 3e38)):  # the second: finite images, sums that are not
        with pytest.raises(UserError, match="are not all finite"):
            compile(model, precision="int8", calibration=wrong)
    for wrong in (x[0], x[:, 1:], x[..., :1]):
        with pytest.raises(ShapeError, match="to calibrate: expected images"):
            compile(model, precision="int8", calibration=wrong)
    with pytest.raises(ShapeError):
        compile(model, precision="int8", params={}, calibration=x)


FEATURES = {
    "AVX-512 without VNNI": "+avx512f,+avx512bw,+avx512vl,+avx512dq,+avx2,+fma,+avx,+sse4.2",
    "VNNI of 256 bits": "+avx,+avx2,+fma,+sse4.2,+popcnt,+avx512vl,+avx512vnni",
    "AVX2": "+avx,+avx2,+fma,+sse4.2,+popcnt,-avx512f",
    "SSE": "+sse4.2,+popcnt,-avx,-avx512f",
}


@pytest.mark.slow
@pytest.mark.parametrize("what", FEATURES)
def test_other_processors(what):
    """The same networks with the kernels that another processor would get, in a process of its own."""
    if TARGET.dot != "vnni" or TARGET.lanes != 16:
        pytest.skip("this processor cannot do all that the others can")
    environment = os.environ | {
        "NUMBA_CPU_NAME": "x86-64", "NUMBA_CPU_FEATURES": FEATURES[what],
        "PYTHONPATH": os.pathsep.join(sys.path),
    }  # fmt: skip
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__]
    command += [str(Path(__file__).with_name("test_byte_kernels.py")), "-m", "not slow"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
