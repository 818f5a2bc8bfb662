"""The kernels against NumPy, on shapes that fit neither a vector nor a tile."""

import time

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numba.core import config
from numpy.lib.stride_tricks import sliding_window_view

from tinysqueeze.compiled.convolution import Convolution, halo_of
from tinysqueeze.compiled.nodes import read, write
from tinysqueeze.compiled.sequence import Given, Sequence
from tinysqueeze.compiled.space import Space, job
from tinysqueeze.compiled.steps import Arm, Map
from tinysqueeze.compiled.weights import Gradients, Weights, winograd_size
from tinysqueeze.kernels import KERNELS, TARGET, is_cached, warm_up
from tinysqueeze.kernels.head import softmax_cross_entropy
from tinysqueeze.kernels.kernel import source_digest
from tinysqueeze.kernels.pointwise import dropout, hard_swish_backward, mask, mask_by_signs
from tinysqueeze.kernels.pooling import max_pool, max_pool_backward
from tinysqueeze.kernels.products import clear
from tinysqueeze.kernels.target import lanes_of
from tinysqueeze.kernels.team import Program, Split, Stage, Team, native
from tinysqueeze.kernels.winograd import MATRICES
from tinysqueeze.network.ops import reference
from tinysqueeze.network.window import Window

needs_jit = pytest.mark.skipif(
    bool(config.DISABLE_JIT), reason="kernels are machine code; NUMBA_DISABLE_JIT is set"
)


def run(*jobs, units=1, chunk=1, threads=1):
    """Runs some jobs as one stage over `units`."""
    stage = Stage(units=units, chunk=chunk)
    stage.add(*jobs)
    Team(threads).run(Program([stage]))


@pytest.mark.parametrize(("m", "taps"), [(2, 3), (4, 3), (3, 4)])
def test_winograd_matrices_convolve_exactly(m, taps, rng):
    bt, g, at = MATRICES[m]
    side = m + taps - 1
    x, w = rng.standard_normal((side, side)), rng.standard_normal((taps, taps))
    y = at @ ((g @ w @ g.T) * (bt @ x @ bt.T)) @ at.T
    expected = (sliding_window_view(x, (taps, taps)) * w).sum((2, 3))
    np.testing.assert_allclose(y, expected, atol=1e-12)


class OneConvolution:
    """A convolution, forward and backward, through the kernels alone."""

    def __init__(self, images, shape, filters, window, precision, rng, group, count=2, threads=2):
        height, width, channels = shape
        self.n, self.count, self.threads = images, count, threads
        self.group, self.back = group, count + bool(group)
        self.source = Map.of(height, width, (channels,))
        arm = Arm("conv", window, filters, True)
        self.result = Map.of(*window.out_size(height, width), (filters,))
        self.m = winograd_size(arm, 1, self.result, precision)
        self.weight = rng.standard_normal((*window.kernel, channels, filters)).astype(np.float32)
        self.bias = rng.standard_normal(filters).astype(np.float32)
        self.grads = {"weight": np.zeros_like(self.weight), "bias": np.zeros_like(self.bias)}
        space = Space(threads)
        self.build(space, arm)
        self.build(space.allocated(), arm)

    def build(self, space, arm):
        halo = halo_of(arm, self.m, self.source, self.result)
        batch = self.n + self.back
        params = {"weight": self.weight, "bias": self.bias}
        weights = Weights(space, arm, self.source, self.m, params, needs_dx=True, group=self.group)
        bias, positions = space.array("bias", self.result.padded), self.source.positions
        conv = Convolution(
            space, arm, weights, self.result, positions, self.count, self.back, bias, low=-np.inf
        )
        self.x = space.buffer("x", batch, self.source, halo)
        self.y = space.buffer("y", batch, self.result)
        self.d = space.buffer("d", batch, self.result)
        self.dx = space.buffer("dx", batch, self.source, halo)
        gradients = Gradients(space)
        packing, self.joining = Sequence(), Sequence()
        weights.pack(packing.each(), packing.each(), bias)
        forward, backward = Sequence(), Sequence()
        forward.chunks(self.count).add(*conv.forward(self.x, self.y))
        made = conv.backward(self.x, self.d, self.dx, False, gradients, 0)
        chunks = backward.chunks(self.back)
        chunks.before.add(*made.before)
        if self.m:
            whole = self.dx.whole()
            chunks.add(job(clear, {"x": whole}, vectors=whole.channels // TARGET.lanes))
        chunks.add(*made.jobs, *made.last)
        chunks.after.add(*made.after)
        weights.gradient(made.sums, self.x.pixel, self.grads["weight"], self.joining.each())
        everything = Sequence()
        for part in (packing, forward, backward, self.joining):
            everything.extend(part)
        self.everything = everything

    def __call__(self, x, dy):
        write(self.x, self.source, x)
        write(self.d, self.result, dy)
        self.everything.programs().run(Team(self.threads), Given(x))
        return read(self.y, self.result, self.n), read(self.dx, self.source, self.n)


@needs_jit
@settings(max_examples=25, deadline=None, derandomize=True)
@example(
    images=5,
    height=9,
    width=7,
    channels=19,
    filters=48,
    kernel=(3, 3, 1),
    precision="4x4",
    group=16,
)
@example(
    images=4,
    height=5,
    width=6,
    channels=16,
    filters=33,
    kernel=(3, 3, 1),
    precision="2x2",
    group=16,
)
@given(
    images=st.integers(1, 5),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    channels=st.sampled_from([1, 3, 16, 19]),
    filters=st.sampled_from([1, 5, 16, 33, 48]),
    kernel=st.sampled_from([(1, 1, 0), (3, 3, 1), (3, 3, 0), (1, 3, 0), (5, 5, 2), (1, 1, 1)]),
    precision=st.sampled_from(["direct", "2x2", "4x4"]),
    group=st.sampled_from([0, 16]),
)
def test_a_convolution_and_its_gradients(
    images, height, width, channels, filters, kernel, precision, group
):
    rng = np.random.default_rng(images * height + width)
    high, wide, pad = kernel
    window = Window.of((high, wide), 1, pad)
    if height + 2 * pad < high or width + 2 * pad < wide:
        return
    conv = OneConvolution(images, (height, width, channels), filters, window, precision, rng, group)
    x = rng.standard_normal((images, height, width, channels)).astype(np.float32)
    dy = rng.standard_normal((images, *window.out_size(height, width), filters)).astype(np.float32)
    y, dx = conv(x, dy)
    wide64 = [a.astype(np.float64) for a in (x, conv.weight, conv.bias, dy)]
    expected = reference.conv2d(*wide64[:3], window)
    expected_dx, expected_dw, _ = reference.conv2d_backward(wide64[0], wide64[1], window, wide64[3])
    limit = 3e-5 if precision == "4x4" else 3e-6
    for got, want in ((y, expected), (dx, expected_dx), (conv.grads["weight"], expected_dw)):
        assert np.linalg.norm(got - want) <= limit * np.linalg.norm(want) + 1e-6


@needs_jit
@settings(max_examples=25, deadline=None, derandomize=True)
@example(height=7, width=6, channels=5, window=Window.of((3, 2), (1, 2)))
@example(height=6, width=8, channels=5, window=Window.of((2, 3), (2, 1), (1, 0)))
@given(
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    channels=st.sampled_from([1, 16, 21]),
    window=st.sampled_from(
        [
            Window.of(2, 2), Window.of(3, 2, 0, True), Window.of(3, 2, 1), Window.of((1, 3), (2, 1)),
            Window.of(2, 3), Window.of(3, 1, 1, True),
        ]
    ),
)  # fmt: skip
def test_max_pool_and_its_gradient(height, width, channels, window):
    try:
        oh, ow = window.out_size(height, width)
    except ValueError:
        return
    rng = np.random.default_rng(height * width)
    n, big, small = 3, Map.of(height, width, (channels,)), Map.of(oh, ow, (channels,))
    space = Space(2)
    for space in (space, space.allocated()):  # noqa: B020
        x, dx = space.buffer("x", n, big), space.buffer("dx", n, big)
        y, d = space.buffer("y", n, small), space.buffer("d", n, small)
        argmax = space.array("argmax", n * small.pixels * small.padded, np.uint8)
    names = ("kernel_high", "kernel_wide", "stride_high", "stride_wide", "pad_high", "pad_wide")
    fields = dict(zip(names, (*window.kernel, *window.stride, *window.pad), strict=True))
    common = {
        "argmax": argmax, "argmax_unit": small.pixels * small.padded, "out_height": oh, "out_width": ow,
        "height": height, "width": width, "channels": big.padded,
    } | fields  # fmt: skip
    image = rng.standard_normal((n, *big.shape)).astype(np.float32)
    dy = rng.standard_normal((n, *small.shape)).astype(np.float32)
    write(x, big, image)
    write(d, small, dy)
    want, places = reference.max_pool2d(image, window)
    for remember in (0, 1):
        write(y, small, np.zeros_like(dy))
        made = job(max_pool, {"x": x, "y": y}, by_row=0, remember=remember, **common)
        run(made, units=n, threads=2)
        np.testing.assert_array_equal(read(y, small, n), want)
    run(job(max_pool_backward, {"d": d, "dx": dx}, **common), units=n, threads=2)
    want_dx = reference.max_pool2d_backward(places, image.shape, window, dy)
    np.testing.assert_allclose(read(dx, big, n), want_dx, atol=1e-6)


@needs_jit
@pytest.mark.parametrize("remember", [0, 1])
@pytest.mark.parametrize("side", [2, 3])
def test_a_pool_shows_what_is_not_a_number(side, remember):
    """Wherever in the window it is, and whatever the others are."""
    area, lanes = side**2, TARGET.lanes
    x = np.zeros((area, area, lanes), np.float32)
    x[np.arange(area), np.arange(area)] = np.nan
    y, argmax = np.zeros((area, lanes), np.float32), np.zeros((area, lanes), np.uint8)
    window = {f"{what}_{axis}": n for what, n in (("kernel", side), ("stride", side), ("pad", 0))
              for axis in ("high", "wide")}  # fmt: skip
    run(max_pool.job(
        x=x, x_unit=area * lanes, x_thread=0, x_next=area * lanes, x_row=side * lanes, x_pixel=lanes,
        height=side, width=side, y=y, y_unit=lanes, y_thread=0, y_next=lanes, y_row=lanes, y_pixel=lanes,
        argmax=argmax, argmax_unit=lanes, out_height=1, out_width=1, channels=lanes, by_row=0,
        remember=remember, **window,
    ), units=area)  # fmt: skip
    assert np.isnan(y).all()
    assert not remember or np.array_equal(argmax[:, 0], np.arange(area))


@needs_jit
@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize(
    ("classes", "smoothing", "size"),
    [(1, 0.0, 10), (10, 0.0, 10), (1000, 0.1, 10), (10, 0.1, 1000)],
)
def test_softmax_cross_entropy(classes, smoothing, size, mixed, rng):
    n = 5
    logits = (rng.standard_normal((n, classes)) * size).astype(np.float32)
    labels = rng.integers(0, classes, n)
    labels[0] = logits[0].argmax()
    shares = reference.label_shares(labels, classes)
    if mixed:
        shares = np.float32(0.7) * shares + np.float32(0.3) * shares[::-1]
    d, losses, hits = np.zeros_like(logits), np.zeros(n, np.float32), np.zeros(n, np.int32)
    made = softmax_cross_entropy.job(
        logits=logits, stride=classes, classes=classes, shares=shares, dlogits=d, losses=losses,
        hits=hits, smoothing=smoothing, scale=1 / n,
    )  # fmt: skip
    run(made, units=n)
    loss, dlogits = reference.softmax_cross_entropy(logits.astype(np.float64), shares, smoothing)
    np.testing.assert_allclose(losses.mean(), loss, rtol=1e-5)
    np.testing.assert_allclose(d, dlogits, atol=1e-6)
    np.testing.assert_array_equal(hits, logits.argmax(1) == labels)


@needs_jit
@pytest.mark.parametrize("kernel", [mask, mask_by_signs, hard_swish_backward])
def test_a_bias_gradient_of_many_pixels_keeps_its_digits(kernel):
    """Equal terms: each rounds the same way, so that sums in one row would drift (by 2e-4 here)."""
    n, side, lanes = 8, 64, 5 * TARGET.lanes
    d, seen = np.full((n, side, side, lanes), 0.1, np.float32), np.full((n, side, side, lanes), 5.0)
    z, total = np.zeros_like(d), np.zeros((2, lanes), np.float32)  # of all, and of a row
    places = {
        "unit": d[0].size,
        "thread": 0,
        "next": d[0].size,
        "row": side * lanes,
        "pixel": lanes,
    }
    others = {
        mask: {"y": seen.astype(np.float32), "floor": 0.0}
        | {f"y_{k}": v for k, v in places.items()},
        mask_by_signs: {"signs": (seen > 0).astype(np.uint8), "signs_unit": d[0].size},
        hard_swish_backward: {"x": seen.astype(np.float32)}
        | {f"x_{k}": v for k, v in places.items() if k != "pixel"},
    }[kernel]
    others |= {f"d_{k}": v for k, v in places.items()}
    others |= {f"z_{k}": places[k] for k in ("unit", "thread", "next")}
    if kernel is not mask_by_signs:
        others["z_row"] = places["row"]
    run(kernel.job(d=d, z=z, total=total, total_thread=0, height=side, width=side, channels=lanes,
                   **others), units=n)  # fmt: skip
    np.testing.assert_array_equal(z, d)
    np.testing.assert_allclose(total[0], d[..., 0].sum(dtype=np.float64), rtol=5e-6)


@needs_jit
def test_dropout_is_a_function_of_seed_and_place():
    n, size = 8, 64 * TARGET.lanes
    x = np.ones((n, size), np.float32)
    fields = {"size": size, "threshold": round(0.25 * 2**32), "scale": 1 / 0.75}
    run(dropout.job(x=x, seed=5, **fields), units=n, chunk=n)
    assert set(np.unique(x)) == {np.float32(0), np.float32(1 / 0.75)}
    assert abs((x == 0).mean() - 0.25) < 0.02
    again, other = np.ones_like(x), np.ones_like(x)
    run(dropout.job(x=again, seed=5, **fields), units=n, chunk=3, threads=2)
    run(dropout.job(x=other, seed=6, **fields), units=n)
    np.testing.assert_array_equal(x, again)
    assert 0.3 < (x != other).mean() < 0.45  # 2 * 0.25 * 0.75 = 0.375


def test_lanes_follow_the_features_numba_targets():
    assert lanes_of("znver4", "+avx2,+fma,+avx512f") == 16
    assert lanes_of("znver4", "+avx2,+fma,-avx512f") == 8
    assert lanes_of("haswell", "") == 8
    assert lanes_of("skylake-avx512", "") == 16
    assert lanes_of("apple-m1", "+neon") == 4
    assert lanes_of("generic", "") == 4


@needs_jit
def test_every_kernel_is_cached_after_warming_up():
    seen = []
    warm_up(report=lambda done, total, name: seen.append((done, total, name)))
    assert is_cached()
    assert seen[-1][:2] == (len(KERNELS), len(KERNELS))
    assert len(source_digest()) == 64


def test_a_job_must_name_every_argument():
    with pytest.raises(TypeError, match="vectors"):
        clear.job(x=np.zeros(16, np.float32), x_unit=0, x_thread=0, x_next=0)


@needs_jit
def test_stages_run_in_order_and_share_their_units(rng):
    """Each thread gets its range, in chunks; the next stage sees all that the one before wrote."""
    teams = [Team(threads) for threads in (1, 2, 3)]
    for team in teams:
        x = np.ones((7, TARGET.lanes), np.float32)
        y = np.ones((3, TARGET.lanes), np.float32)
        one = Stage(units=7, chunk=2)
        one.add(clear.job(x=x, x_unit=TARGET.lanes, x_thread=0, x_next=TARGET.lanes, vectors=1))
        two = Stage(Split.OWN)
        two.add(clear.job(x=y, x_unit=0, x_thread=TARGET.lanes, x_next=0, vectors=1))
        team.run(Program([one, two]))
        assert not x.any()
        assert not y[: team.threads].any()
        assert y[team.threads :].all()


@needs_jit
@pytest.mark.parametrize("threads", [2, 3, 5])
def test_orders_reach_threads_that_listen_sleep_or_fall_asleep(threads, rng):
    """Programs come at once, or after pauses around the time that a thread listens; some are kept."""
    team, width = Team(threads), TARGET.lanes
    x = np.empty((4 * threads, width), np.float32)

    def program(first):
        stage = Stage(Split.EACH)
        made = clear.job(x=x[first:], x_unit=width, x_thread=0, x_next=width, vectors=1)
        stage.add(made, units=len(x) - first)
        return Program([stage, stage])

    kept = [program(first) for first in range(3)]
    for i, pause in enumerate(rng.choice([0, 0, 1e-5, 3e-5, 6e-5, 3e-4], 400)):
        first = i % 3
        x[:] = 1
        team.run(kept[first] if i % 2 else program(first))
        assert x[:first].all()
        assert not x[first:].any()
        until = time.perf_counter() + pause
        while time.perf_counter() < until:
            pass


@needs_jit
def test_a_team_begins_anew_after_an_interruption(monkeypatch):
    """Of all places between the orders and the walk, where the others would wait for ever."""
    team, x = Team(2), np.ones((2, TARGET.lanes), np.float32)
    stage = Stage(units=2)
    stage.add(clear.job(x=x, x_unit=TARGET.lanes, x_thread=0, x_next=0, vectors=1))
    program = Program([stage])
    team.run(program)

    def torn(kernel):
        def interrupted(*_):
            raise KeyboardInterrupt

        return interrupted if kernel.name == "walk" else native(kernel)

    with monkeypatch.context() as changed:
        changed.setattr("tinysqueeze.kernels.team.native", torn)
        with pytest.raises(KeyboardInterrupt):
            team.run(program)
    x[:] = 1
    team.run(program)
    assert not x.any()
