"""Operations themselves: adjoints, ceil and padding against an oracle, NaN, and honest large numbers."""

import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from cases import OPS, apart, read_only
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numba import config

from tinysqueeze.errors import ShapeError
from tinysqueeze.network.ops import convolution, fast, reference
from tinysqueeze.network.window import Window

both_ops = pytest.mark.parametrize("ops", OPS.values(), ids=OPS)
small = settings(max_examples=60, deadline=None, derandomize=True, database=None)
pairs = st.tuples(st.integers(1, 4), st.integers(1, 4))


@pytest.fixture(scope="module", autouse=True)
def small_tiles():
    """A small image takes several tiles of patches here, as a batch does otherwise."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(convolution, "TILE", 300)
        yield


def test_both_offer_the_same_names() -> None:
    ours = {
        name
        for name, thing in vars(reference).items()
        if callable(thing) and getattr(thing, "__module__", "") == reference.__name__
    }
    assert ours == set(fast.__all__)


@small
@given(pairs, pairs, st.tuples(st.integers(0, 2), st.integers(0, 2)), pairs)
def test_col2im_is_the_adjoint_of_im2col(kernel, stride, pad, extra) -> None:
    window = Window(kernel, stride, pad)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, kernel[0] + extra[0], kernel[1] + extra[1], 3))
    for ops in OPS.values():
        patches = ops.im2col(x, window)
        p = rng.standard_normal(patches.shape)
        assert np.isclose((patches * p).sum(), (x * ops.col2im(p, x.shape, window)).sum())


def test_im2col_by_hand() -> None:
    x = np.arange(1.0, 10).reshape(1, 3, 3, 1)
    expected = [[1, 2, 4, 5], [2, 3, 5, 6], [4, 5, 7, 8], [5, 6, 8, 9]]
    for ops in OPS.values():
        assert np.array_equal(ops.im2col(x, Window.of(2)), expected)
        counts = ops.col2im(np.ones((4, 4)), x.shape, Window.of(2))[0, :, :, 0]
        assert np.array_equal(counts, [[1, 2, 1], [2, 4, 2], [1, 2, 1]])  # windows that saw each


@both_ops
def test_a_1x1_convolution_is_a_product_of_pixels(ops, rng) -> None:
    x, weight = rng.standard_normal((2, 3, 4, 5)), rng.standard_normal((1, 1, 5, 6))
    y = ops.conv2d(x, weight, np.zeros(6), Window.of(1))
    assert np.array_equal(y.reshape(-1, 6), x.reshape(-1, 5) @ weight[0, 0])


@st.composite
def convolutions(draw):
    """A window that fits, and shapes of x and weight: many places, or one pixel."""
    window = Window(draw(pairs), draw(pairs), draw(st.tuples(*[st.integers(0, 3)] * 2)))
    room = [max(k - 2 * p, 1) for k, p in zip(window.kernel, window.pad, strict=True)]
    height, width = (least + draw(st.integers(0, 9)) for least in room)
    n, c, f = draw(st.integers(1, 3)), draw(st.integers(1, 9)), draw(st.integers(1, 19))
    return window, (n, height, width, c), (*window.kernel, c, f)


SEVERAL_TILES = (Window.of(3, pad=1), (2, 7, 7, 5), (3, 3, 5, 6))
ALL_PADDING = (Window((2, 1), (1, 2), (3, 2)), (1, 1, 1, 1), (2, 1, 1, 1))


def convolve(ops, window, x, weight, bias, seed=0):
    """y, dx, dweight, dbias of one convolution; dy is drawn, with a seed of its own."""
    y = ops.conv2d(x, weight, bias, window)
    dy = np.random.default_rng(seed).standard_normal(y.shape).astype(x.dtype)
    return y, *ops.conv2d_backward(x, weight, window, dy)


def drawn(x_shape, weight_shape, dtype=np.float64):
    """x, weight and bias of these shapes; x and weight are strided, as views of larger arrays are."""
    rng = np.random.default_rng(1)
    x = rng.standard_normal((2, *x_shape[::-1])).astype(dtype)[1].T
    weight = rng.standard_normal((*weight_shape[:3], 2 * weight_shape[3])).astype(dtype)[..., ::2]
    return read_only(x), read_only(weight), rng.standard_normal(weight_shape[3]).astype(dtype)


def test_fast_convolution_is_a_function_of_its_own(monkeypatch, rng) -> None:
    assert fast.conv2d is not reference.conv2d
    x, weight = rng.standard_normal((1, 4, 4, 2)), rng.standard_normal((3, 3, 2, 2))
    expected = convolve(reference, Window.of(3), x, weight, np.zeros(2))
    if not config.DISABLE_JIT:
        for name in ("conv2d", "conv2d_backward", "im2col", "col2im"):
            monkeypatch.delattr(reference, name)
    found = convolve(fast, Window.of(3), x, weight, np.zeros(2))
    assert max(map(apart, found, expected)) < 1e-14


@small
@given(convolutions(), st.booleans())
@example(SEVERAL_TILES, False)
@example(ALL_PADDING, False)
def test_fast_convolution_is_the_references_for_any_window(case, ceil) -> None:
    window = Window(case[0].kernel, case[0].stride, case[0].pad, ceil)
    arrays = drawn(*case[1:])
    found, expected = (convolve(ops, window, *arrays) for ops in (fast, reference))
    assert max(map(apart, found, expected)) < 1e-13


@small
@given(convolutions())
@example(SEVERAL_TILES)
def test_float32_convolution_is_as_exact_as_float32_can_promise(case) -> None:
    """No bound is chosen: a sum of n products is off by at most n roundings of its absolute terms."""
    window, x_shape, weight_shape = case
    arrays = drawn(x_shape, weight_shape, np.float32)
    wide = [a.astype(np.float64) for a in arrays]
    y = reference.conv2d(*wide, window)
    dy = np.random.default_rng(0).standard_normal(y.shape).astype(np.float32)
    exact = y, *reference.conv2d_backward(*wide[:2], window, dy.astype(np.float64))
    size = [np.abs(a) for a in wide]
    largest = (
        reference.conv2d(*size, window),
        *reference.conv2d_backward(*size[:2], window, np.abs(dy).astype(np.float64)),
    )
    (*patch, filters), places = weight_shape, y[..., 0].size
    terms = np.prod(patch) + 1, filters * window.area, places, places
    for ops in OPS.values():
        found = ops.conv2d(*arrays, window), *ops.conv2d_backward(*arrays[:2], window, dy)
        for a, b, most, count in zip(found, exact, largest, terms, strict=True):
            assert a.dtype == np.float32
            assert (np.abs(a - b) <= count * 2.0**-24 * most).all()


@pytest.mark.oracle
@small
@given(convolutions())
@example(SEVERAL_TILES)
@example(ALL_PADDING)
def test_convolution_is_pytorchs_for_any_window(case) -> None:
    torch = pytest.importorskip("torch")
    window, arrays = case[0], drawn(*case[1:])
    tx, tw, tb = (torch.tensor(np.array(a), requires_grad=True) for a in arrays)
    ty = torch.nn.functional.conv2d(
        tx.permute(0, 3, 1, 2), tw.permute(3, 2, 0, 1), tb, window.stride, window.pad
    ).permute(0, 2, 3, 1)
    dy = np.random.default_rng(0).standard_normal(ty.shape)
    ty.backward(torch.tensor(dy))
    expected = [t.numpy() for t in (ty.detach(), tx.grad, tw.grad, tb.grad)]
    for ops in OPS.values():
        assert max(map(apart, convolve(ops, window, *arrays), expected)) < 1e-13


@pytest.mark.parametrize("tile", [1, 300, 2**19])
def test_convolution_by_tiles_is_the_same_to_the_bit_every_time(tile, monkeypatch, rng) -> None:
    """Tiles of one patch, of some or of all; and while other threads convolve as well."""
    x, weight = rng.standard_normal((5, 9, 8, 3)), rng.standard_normal((3, 3, 3, 7))
    window, bias = Window.of(3, pad=1), rng.standard_normal(7)
    expected = convolve(reference, window, x, weight, bias)
    monkeypatch.setattr(convolution, "TILE", tile)
    with ThreadPoolExecutor(3) as pool:
        runs = list(pool.map(lambda _: convolve(fast, window, x, weight, bias), range(6)))
    for run in runs:
        assert all(map(np.array_equal, run, runs[0]))
        assert max(map(apart, run, expected)) < 1e-13


@pytest.mark.skipif(bool(config.DISABLE_JIT), reason="then the reference convolves")
def test_all_patches_are_never_in_memory_at_once(monkeypatch, rng) -> None:
    monkeypatch.setattr(convolution, "TILE", 2**12)
    x, weight = rng.standard_normal((2, 32, 32, 16)), rng.standard_normal((3, 3, 16, 4))
    window, bias = Window.of(3, pad=1), np.zeros(4)
    arrays = sum(a.nbytes for a in (x, *convolve(fast, window, x, weight, bias)))
    tracemalloc.start()
    try:
        convolve(fast, window, x, weight, bias)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < arrays + 10 * 8 * convolution.TILE < reference.im2col(x, window).nbytes


@pytest.mark.skipif(bool(config.DISABLE_JIT), reason="then the reference convolves")
def test_fast_convolution_refuses_what_does_not_fit(rng) -> None:
    """Its loops check nothing, and would read beside the arrays."""
    x, weight, window = np.zeros((2, 5, 5, 3)), np.zeros((3, 3, 3, 4)), Window.of(3)
    for wrong in (weight[:, :, :2], weight[:2], np.zeros((3, 3, 6, 4))):
        with pytest.raises(ShapeError, match=r"expected weight \(3, 3, 3, 4\), got"):
            fast.conv2d(x, wrong, np.zeros(4), window)
        with pytest.raises(ShapeError, match=r"expected weight \(3, 3, 3, 4\), got"):
            fast.conv2d_backward(x, wrong, window, np.zeros((2, 3, 3, 4)))
    with pytest.raises(ValueError, match="broadcast"):
        fast.conv2d(x, weight, np.zeros(3), window)
    for shape in ((2, 3, 3, 3), (2, 5, 5, 4), (1, 3, 3, 4)):
        with pytest.raises(ShapeError, match=r"expected dy \(2, 3, 3, 4\), got"):
            fast.conv2d_backward(x, weight, window, np.zeros(shape))


@pytest.mark.oracle
@both_ops
@pytest.mark.parametrize("pad", [0, 1])
@pytest.mark.parametrize("size", [(6, 7), (5, 8), (3, 3)])
def test_pools_with_ceil_and_padding_divide_as_pytorch_does(ops, pad, size, rng) -> None:
    torch = pytest.importorskip("torch")
    x, window = rng.standard_normal((2, *size, 3)), Window.of(3, 2, pad, ceil=True)
    tx = torch.tensor(x).permute(0, 3, 1, 2)
    average = torch.nn.functional.avg_pool2d(tx, 3, 2, pad, ceil_mode=True, count_include_pad=True)
    largest = torch.nn.functional.max_pool2d(tx, 3, 2, pad, ceil_mode=True)
    assert apart(ops.avg_pool2d(x, window), average.permute(0, 2, 3, 1).numpy()) < 1e-14
    assert np.array_equal(ops.max_pool2d(x, window)[0], largest.permute(0, 2, 3, 1).numpy())


@both_ops
def test_an_average_counts_padding_but_no_overhang(ops) -> None:
    """The mean of ones is the share of a window that is not padding: the rule of Caffe."""
    x, window = np.ones((1, 3, 4, 1)), Window((3, 2), (2, 2), (1, 1))
    assert np.allclose(ops.avg_pool2d(x, window)[0, :, :, 0] * 6, [[2, 4, 2], [2, 4, 2]])
    x, window = np.ones((1, 4, 4, 1)), Window.of(3, 2, ceil=True)
    assert np.allclose(ops.avg_pool2d(x, window), 1)


@both_ops
def test_ties_go_to_the_first_pixel(ops) -> None:
    x = np.zeros((1, 4, 4, 1))
    _, argmax = ops.max_pool2d(x, Window.of(2, 2))
    assert not argmax.any()
    dx = ops.max_pool2d_backward(argmax, x.shape, Window.of(2, 2), np.ones((1, 2, 2, 1)))
    assert np.array_equal(np.argwhere(dx[0, :, :, 0]), [[0, 0], [0, 2], [2, 0], [2, 2]])


@pytest.mark.parametrize("window", [Window.of(2, 2), Window.of(3, 2, 1, True), Window.of(3, 1)])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_a_number_passes_alike_through_both(window, value, rng) -> None:
    x = rng.standard_normal((2, 5, 6, 3))
    x[0, 2:4, 1:3, 0] = value
    x[1, :, :, 2] = value
    y, argmax = reference.max_pool2d(x, window)
    fast_y, fast_argmax = fast.max_pool2d(x, window)
    assert np.array_equal(fast_y, y, equal_nan=True)
    assert np.array_equal(fast_argmax, argmax)
    assert np.isnan(y).any() == np.isnan(value)
    dy = rng.standard_normal(x.shape)
    for name in ("relu", "softmax"):
        forward, backward = getattr(reference, name), f"{name}_backward"
        with np.errstate(invalid="ignore"):
            y = forward(x)
            a, b = (getattr(ops, backward)(y, dy) for ops in (fast, reference))
        assert np.array_equal(a, b, equal_nan=True)


@both_ops
def test_softmax_of_large_numbers_stays_finite_and_sums_to_one(ops) -> None:
    y = ops.softmax(np.array([[1e4, 1e4 - 1, -1e4]], np.float32))
    assert np.isfinite(y).all()
    assert np.isclose(y.sum(), 1)


@both_ops
def test_moments_survive_a_large_mean_in_float32(ops, rng) -> None:
    x = (rng.standard_normal((64, 16, 16, 4)) + 1000).astype(np.float32)
    mean, var = ops.channel_moments(x)
    assert np.allclose(mean, x.astype(np.float64).mean(axis=(0, 1, 2)), rtol=1e-6)
    assert np.allclose(var, x.astype(np.float64).var(axis=(0, 1, 2)), rtol=1e-4)


@both_ops
def test_an_empty_batch_passes(ops) -> None:
    x, window = np.zeros((0, 5, 5, 3)), Window.of(3, 2)
    weight = np.zeros((3, 3, 3, 4))
    y = ops.conv2d(x, weight, np.zeros(4), window)
    assert y.shape == (0, 2, 2, 4)
    assert ops.conv2d_backward(x, weight, window, y)[0].shape == x.shape
    assert ops.avg_pool2d(x, window).shape == (0, 2, 2, 3)


def test_fast_is_the_same_to_the_bit_every_time(rng) -> None:
    x = read_only(rng.standard_normal((4, 9, 9, 8)).astype(np.float32))
    window = Window.of(3, 2, ceil=True)
    y, argmax = fast.max_pool2d(x, window)
    for _ in range(3):
        assert np.array_equal(fast.max_pool2d(x, window)[0], y)
        once, again = (fast.max_pool2d_backward(argmax, x.shape, window, y) for _ in range(2))
        assert np.array_equal(once, again)
