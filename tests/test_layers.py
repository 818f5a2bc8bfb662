"""One list of awkward cases, one body: shapes, gradients, purity, batches, and two oracles."""

import numpy as np
import pytest
from cases import CASES, MODES, OPS, apart, make_case, make_params, step, training_mode
from hypothesis import given, settings
from hypothesis import strategies as st

from tinysqueeze.errors import ShapeError
from tinysqueeze.network.layers import (
    AvgPool2D,
    BatchNorm,
    Conv2D,
    Dropout,
    GlobalAvgPool2D,
    Linear,
    MaxPool2D,
    Mode,
)
from tinysqueeze.network.ops import fast, reference
from tinysqueeze.network.others import GroupedConv2D
from tinysqueeze.network.params import flatten
from tinysqueeze.study.gradcheck import check_layer

every_case = pytest.mark.parametrize("name", CASES)
both_ops = pytest.mark.parametrize("ops", OPS.values(), ids=OPS)
both_modes = pytest.mark.parametrize("mode", MODES)


@every_case
@both_ops
@both_modes
def test_shapes_and_dtypes_are_as_promised_and_no_input_changes(name, ops, mode) -> None:
    for dtype in (np.float32, np.float64):
        layer, params, x, dy = make_case(name, dtype)  # read-only: a mutation raises
        found = step(layer, params, x, dy, MODES[mode](ops))
        assert found["y"].shape[1:] == tuple(layer.out_shape(x.shape[1:]))
        assert found["dx"].shape == x.shape
        expected = flatten(layer.param_shapes(x.shape[1:]))
        assert {p: found[p].shape for p in found if p not in ("y", "dx")} == expected
        assert {a.dtype for a in found.values()} == {np.dtype(dtype)}


@every_case
@both_ops
@both_modes
def test_every_gradient_agrees_with_finite_differences(name, ops, mode) -> None:
    layer, params, x, _ = make_case(name)
    for check in check_layer(layer, params, x, MODES[mode](ops)):
        assert check.ok, str(check)
        assert check.skipped == 0, str(check)


@every_case
@both_ops
def test_a_batch_equals_its_images_one_by_one(name, ops) -> None:
    layer, params, x, dy = make_case(name)
    mode = MODES["evaluation"](ops)
    whole = step(layer, params, x, dy, mode)
    singles = [step(layer, params, x[i : i + 1], dy[i : i + 1], mode) for i in range(len(x))]
    for path, array in whole.items():
        parts = [single[path] for single in singles]
        joined = np.concatenate(parts) if path in ("y", "dx") else np.sum(parts, axis=0)
        assert apart(joined, array) < 1e-12, path


@every_case
@both_modes
def test_fast_equals_reference(name, mode) -> None:
    for dtype, limit in ((np.float64, 1e-12), (np.float32, 1e-5)):
        case = make_case(name, dtype)
        a, b = (step(*case, MODES[mode](ops)) for ops in (fast, reference))
        for path in a:
            assert apart(a[path], b[path]) < limit, (path, dtype)


@every_case
@both_ops
def test_memory_layout_does_not_matter(name, ops) -> None:
    layer, params, x, dy = make_case(name)
    strided = [np.repeat(a, 2, axis=-1)[..., ::2] for a in (x, dy)]
    assert not strided[0].flags.c_contiguous
    mode = MODES["training"]
    plain, other = step(layer, params, x, dy, mode(ops)), step(layer, params, *strided, mode(ops))
    for path in plain:
        assert apart(other[path], plain[path]) < 1e-13, path


@every_case
@both_modes
@pytest.mark.oracle
def test_equals_pytorch(name, mode) -> None:
    pytest.importorskip("torch")
    import oracle

    layer, params, x, dy = make_case(name)
    if mode == "training" and isinstance(layer, Dropout):
        pytest.skip("PyTorch draws other masks")
    ours = step(layer, params, x, dy, MODES[mode]())
    if mode == "training":
        _, cache = layer.forward(params, x, training_mode())
        ours |= flatten(layer.moved_buffers(params, cache))
    theirs = oracle.step(layer, params, x, dy, mode == "training")
    for path in ours:
        assert apart(ours[path], theirs[path]) < 1e-9, path


# ------------------------------------------------------------------- shapes that hypothesis draws

small = settings(max_examples=40, deadline=None, derandomize=True, database=None)
pairs = st.tuples(st.integers(1, 4), st.integers(1, 4))


@st.composite
def windowed(draw: st.DrawFn) -> tuple:
    """A convolution or pool with any window, and the shape of a batch that it fits."""
    kernel, stride = draw(pairs), draw(pairs)
    pad = tuple(draw(st.integers(0, k // 2)) for k in kernel)
    size = tuple(draw(st.integers(max(k - 2 * p, 1), 7)) for k, p in zip(kernel, pad, strict=True))
    kind = draw(st.sampled_from((Conv2D, GroupedConv2D, MaxPool2D, AvgPool2D)))
    if kind is Conv2D:
        layer = Conv2D(draw(st.integers(1, 4)), kernel, stride, pad)
        channels = draw(st.integers(1, 4))
    elif kind is GroupedConv2D:
        groups = draw(st.integers(1, 2))
        layer = GroupedConv2D(groups * draw(st.integers(1, 2)), kernel, groups, stride, pad)
        channels = groups * draw(st.integers(1, 2))
    else:
        layer, channels = kind(kernel, stride, pad, draw(st.booleans())), draw(st.integers(1, 3))
    return layer, (draw(st.integers(1, 2)), *size, channels)


@small
@given(windowed())
def test_any_window_is_right_in_both_ops(case) -> None:
    layer, shape = case
    rng = np.random.default_rng(0)
    params, x = make_params(layer, shape[1:], rng), rng.standard_normal(shape)
    dy = rng.standard_normal((shape[0], *layer.out_shape(shape[1:])))
    a, b = (step(layer, params, x, dy, Mode(ops)) for ops in (fast, reference))
    for path in a:
        assert apart(a[path], b[path]) < 1e-12, path
    for check in check_layer(layer, params, x, most=6):
        assert check.ok, str(check)


# --------------------------------------------------------------------------- dropout, batch norm


def test_dropout_keeps_the_mean_and_its_gradient_goes_through_the_same_mask(rng) -> None:
    layer, x = Dropout(0.3), np.ones((200, 500))
    y, cache = layer.forward({}, x, Mode(rng=rng))
    assert abs((y == 0).mean() - 0.3) < 0.01
    assert abs(y.mean() - 1) < 0.01
    assert np.allclose(y[y != 0], 1 / 0.7)
    dy = rng.standard_normal(x.shape)
    dx, _ = layer.backward({}, cache, dy, Mode(rng=rng))
    assert np.array_equal(dx, dy * y)  # x is all ones, so that y is the mask


@pytest.mark.oracle
def test_dropout_scales_as_pytorch_does(rng) -> None:
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    theirs = torch.nn.functional.dropout(torch.ones(200, 500), 0.3, training=True).numpy()
    ours, _ = Dropout(0.3).forward({}, np.ones((200, 500), np.float32), Mode(rng=rng))
    assert np.allclose(np.unique(ours), np.unique(theirs))
    assert abs(ours.mean() - theirs.mean()) < 0.02


def test_dropout_does_nothing_outside_training_and_is_seeded_in_it() -> None:
    layer, params, x, _ = make_case("dropout")
    assert layer.forward(params, x)[0] is x
    first, second = (layer.forward(params, x, training_mode())[0] for _ in range(2))
    assert np.array_equal(first, second)


def test_running_statistics_arrive_at_those_of_the_data(rng) -> None:
    layer = BatchNorm(momentum=0.5)
    params = make_params(layer, (3,), rng)
    x = rng.standard_normal((4000, 3)) * [1, 2, 3] + [5, 0, -5]
    for _ in range(40):
        _, cache = layer.forward(params, x, training_mode())
        params = params | layer.moved_buffers(params, cache)
    assert apart(params["mean"], x.mean(axis=0)) < 1e-9
    assert apart(params["var"], x.var(axis=0, ddof=1)) < 1e-9
    _, cache = layer.forward(params, x)
    assert layer.moved_buffers(params, cache)["mean"] is params["mean"]  # evaluation moves nothing


# ------------------------------------------------------------------------------ mistakes of users


@pytest.mark.parametrize(
    ("layer", "channels", "shape", "words"),
    [
        (Conv2D(4, 3), 3, (2, 3, 8, 9), ("3 channels", "(2, 3, 8, 9)", "channels come last")),
        (Conv2D(4, 3), 3, (8, 9, 3), ("(N, H, W, C)", "images[None]")),
        (Linear(4), 5, (2, 6), ("(N, 5)", "(2, 6)", "Flatten")),
        (BatchNorm(), 5, (2, 6), ("5 channels", "(2, 6)")),
    ],
)
def test_a_wrong_input_is_named_with_its_remedy(layer, channels, shape, words, rng) -> None:
    in_shape = (channels,) if not isinstance(layer, Conv2D) else (8, 9, channels)
    params = make_params(layer, in_shape, rng)
    with pytest.raises(ShapeError) as caught:
        layer.forward(params, np.zeros(shape))
    message = str(caught.value)
    assert all(word in message for word in (type(layer).__name__, *words)), message


@pytest.mark.parametrize(
    ("layer", "in_shape", "words"),
    [
        (Conv2D(4, 5), (3, 9, 2), "at least 5x5 pixels, got 3x9"),
        (GroupedConv2D(4, 3, groups=3), (8, 8, 4), "divisible by groups=3"),
        (MaxPool2D(2, 2, pad=2), (8, 8, 4), "at most half the kernel"),
        (GlobalAvgPool2D(), (8,), "channels last"),
        (Linear(4), (8, 8, 4), "put a Flatten before it"),
    ],
)
def test_a_shape_that_does_not_fit_is_refused_before_anything_runs(layer, in_shape, words) -> None:
    with pytest.raises(ShapeError, match=words):
        layer.param_shapes(in_shape), layer.out_shape(in_shape)


def test_a_dropout_rate_of_one_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"rate in \[0, 1\)"):
        Dropout(1.0)


@pytest.mark.parametrize("count", [-1, 8.5, "8", None])
def test_a_layer_of_no_number_of_outputs_is_refused_when_it_is_made(count) -> None:
    with pytest.raises(ShapeError, match="Conv2D: expected filters, a whole number"):
        Conv2D(count, 3)
    with pytest.raises(ShapeError, match="Linear: expected features, a whole number"):
        Linear(count)
