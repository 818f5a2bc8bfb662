"""The checker checks: it passes what is right, and every planted mistake fails."""

import itertools

import numpy as np
import pytest
from cases import make_case, ops_with, training_mode

from tinysqueeze.errors import UserError
from tinysqueeze.network.layers import BatchNorm, Conv2D, Dropout, Mode, ReLU, Softmax
from tinysqueeze.network.ops import reference
from tinysqueeze.study.gradcheck import NUDGES, Check, check_layer, compare, summarise

# ------------------------------------------------------------------- mistakes that learners make


def forgotten_crop(dwindows, x_shape, window):
    """The gradient of padding is to cut the border off, not the far edge."""
    n, h, w, c = x_shape
    (ph, pw), (bottom, right) = window.pad, (2, 2)
    kept = reference.fold_windows(dwindows, (n, h + bottom, w + right, c), window)
    return np.roll(kept, (ph, pw), axis=(1, 2))[:, :h, :w]


def set_not_added(dwindows, x_shape, window):
    """= instead of +=: of the windows that saw a pixel only the last one counts."""
    n, h, w, c = x_shape
    (sh, sw), (ph, pw) = window.stride, window.pad
    dx = np.zeros((n, h + ph + 9, w + pw + 9, c))
    for oy, ox, ky, kx in np.ndindex(dwindows.shape[1:5]):
        dx[:, oy * sh + ky, ox * sw + kx] = dwindows[:, oy, ox, ky, kx]
    return dx[:, ph : ph + h, pw : pw + w]


def conv_by(fold):
    """conv2d_backward with another fold."""

    def backward(x, weight, window, dy):
        _, dweight, dbias = reference.conv2d_backward(x, weight, window, dy)
        drows = dy.reshape(-1, weight.shape[3]) @ weight.reshape(-1, weight.shape[3]).T
        dwindows = drows.reshape(*dy.shape[:3], *window.kernel, x.shape[3])
        return fold(dwindows, x.shape, window), dweight, dbias

    return backward


def conv_dweight_of_one_image(x, weight, window, dy):
    """The other images of the batch are forgotten."""
    dx, _, dbias = reference.conv2d_backward(x, weight, window, dy)
    return dx, reference.conv2d_backward(x[:1], weight, window, dy[:1])[1], dbias


def conv_dbias_averaged(x, weight, window, dy):
    """A mean where the sum belongs."""
    dx, dweight, dbias = reference.conv2d_backward(x, weight, window, dy)
    return dx, dweight, dbias / len(x)


def average_without_divisor(x_shape, window, dy):
    """Forgets to divide by the number of pixels."""
    return reference.avg_pool2d_backward(
        x_shape, window, dy * reference.pool_divisor(x_shape, window)
    )


def average_with_one_divisor(x_shape, window, dy):
    """Divides the overhanging windows by the whole kernel as well."""
    right = reference.pool_divisor(x_shape, window)
    return reference.avg_pool2d_backward(x_shape, window, dy * right / window.area)


def largest_to_the_corner(argmax, x_shape, window, dy):
    """Hands dy to the window's first pixel, whoever won."""
    return reference.max_pool2d_backward(np.zeros_like(argmax), x_shape, window, dy)


def constant_statistics(x, weight, mean, var, eps, dy, batch_stats):
    """Forgets that in training the mean and variance depend on x."""
    return reference.batch_norm_backward(x, weight, mean, var, eps, dy, False)


def softmax_as_if_elementwise(y, dy):
    """The diagonal of the Jacobian alone."""
    return dy * y * (1 - y)


def relu_by_the_sign_of_dy(y, dy):
    """Cuts the negative gradients, not the negative outputs."""
    return np.maximum(dy, 0)


def mean_of_rows_only(x_shape, dy):
    """Divides by H, not H*W."""
    return reference.global_avg_pool2d_backward(x_shape, dy) * x_shape[2]


def transposed(x, weight, dy):
    """dx with half of the chain rule."""
    dx, dweight, dbias = reference.linear_backward(x, weight, dy)
    return dx, dweight * (dbias != 0) * 0.5, dbias


PLANTED = {
    "forgotten crop": ("conv 3x5, non-square all over", {"conv2d_backward": conv_by(forgotten_crop)}, "x"),
    "= for +=": ("conv 3x3, pad 1", {"conv2d_backward": conv_by(set_not_added)}, "x"),
    "one image": ("conv 3x3, pad 1", {"conv2d_backward": conv_dweight_of_one_image}, "weight"),
    "mean for sum": ("conv 1x1", {"conv2d_backward": conv_dbias_averaged}, "bias"),
    "no divisor": ("AvgPool2D 2x2", {"avg_pool2d_backward": average_without_divisor}, "x"),
    "one divisor": ("AvgPool2D 3x3, ceil", {"avg_pool2d_backward": average_with_one_divisor}, "x"),
    "corner": ("MaxPool2D 2x2", {"max_pool2d_backward": largest_to_the_corner}, "x"),
    "statistics": ("batch norm", {"batch_norm_backward": constant_statistics}, "x"),
    "diagonal": ("softmax", {"softmax_backward": softmax_as_if_elementwise}, "x"),
    "sign of dy": ("relu", {"relu_backward": relu_by_the_sign_of_dy}, "x"),
    "rows only": ("global average", {"global_avg_pool2d_backward": mean_of_rows_only}, "x"),
    "half": ("linear", {"linear_backward": transposed}, "weight"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", PLANTED)
def test_a_planted_mistake_fails_where_it_is_and_only_there(mistake) -> None:
    case, replaced, wrong = PLANTED[mistake]
    layer, params, x, _ = make_case(case)
    mode = training_mode(ops_with(**replaced))
    verdicts = {check.path: check.ok for check in check_layer(layer, params, x, mode)}
    assert {path for path, ok in verdicts.items() if not ok} == {wrong}


def test_a_softmax_without_the_maximum_subtracted_fails_on_large_numbers(rng) -> None:
    def softmax(x):
        e = np.exp(x)
        return e / e.sum(axis=-1, keepdims=True)

    x = 1000 * rng.random((2, 4))
    assert all(check.ok for check in check_layer(Softmax(), {}, x, Mode(reference)))
    with np.errstate(over="ignore", invalid="ignore"):
        checks = list(check_layer(Softmax(), {}, x, Mode(ops_with(softmax=softmax))))
    assert not any(check.ok for check in checks)


def test_an_error_in_one_number_of_many_is_named_with_both_numbers(rng) -> None:
    value, wrong = rng.standard_normal((3, 4, 5)), rng.standard_normal((3, 4, 5))
    factor = wrong.copy()
    wrong[1, 2, 3] += 0.01

    def loss():
        return float((value * factor).sum()), {}

    check = compare("conv/weight", value, wrong, loss, np.arange(60))
    assert not check.ok
    assert check.index == (1, 2, 3)
    assert check.analytic == wrong[1, 2, 3]
    assert check.numeric == pytest.approx(factor[1, 2, 3])
    assert all(word in str(check) for word in ("WRONG", "conv/weight", "(1, 2, 3)"))


# ------------------------------------------------------------------------------ the checker itself


def test_a_kink_is_replaced_by_another_place() -> None:
    """Of ten numbers six are on the kink of a ReLU; four places are wanted, and found."""
    x = np.array([[0.0, 1, 0, 2, 0, -3, 0, 4, 0, 0]])
    (check,) = check_layer(ReLU(), {}, x, most=4)
    assert (check.ok, check.checked, check.nudge) == (True, 4, 0)
    assert 0 < check.skipped <= 6


def test_small_arrays_are_searched_whole() -> None:
    """One place of 16 can be compared, and is, though a single one was to be tried."""
    x = np.zeros((1, 4))
    x[0, 2] = 1
    for seed in range(5):
        (check,) = check_layer(ReLU(), {}, x, most=1, seed=seed)
        assert (check.ok, check.checked, check.nudge, check.index) == (True, 1, 0, (0, 2))


def test_zeros_alone_show_nothing() -> None:
    """Where no number has a slope, agreement says little; the summary does not call it right."""
    (check,) = check_layer(ReLU(), {}, -np.ones((1, 3)))
    assert (check.ok, check.checked, check.flat) == (True, 3, 3)
    summary = summarise([check])
    assert not summary.ok
    assert str(summary).startswith("NOTHING SHOWN")
    assert "1 without slope: x" in str(summary)
    assert not summarise([]).ok
    assert str(summarise([])).startswith("NOTHING SHOWN: 0 of 0 arrays")


def test_the_worst_error_is_never_hidden_by_nan() -> None:
    def check(error):
        return Check("w", error, (0,), 0.0, 0.0, 1, 0)

    for errors in itertools.permutations((1e-9, np.nan, np.inf)):
        summary = summarise(map(check, errors))
        assert np.isnan(summary.worst.error)
        assert not summary.ok
        assert len(summary.wrong) == 2
    assert not check(np.nan).ok


def test_a_loss_that_is_nan_beside_a_finite_gradient_is_wrong() -> None:
    value = np.array([1.0, 2.0])

    def loss():
        return (float(value.sum()) if np.array_equal(value, [1, 2]) else np.nan), {}

    check = compare("w", value, np.ones(2), loss, np.arange(2))
    assert (check.ok, check.verdict, check.error) == (False, "WRONG", np.inf)


def test_a_curved_loss_does_not_fail_a_right_gradient() -> None:
    """Batch norm of two numbers that are nearly alike bends within a few thousandths."""
    x = np.array([[0.5], [0.5 + 2e-3]])
    params = {"weight": np.ones(1), "bias": np.zeros(1), "mean": np.zeros(1), "var": np.ones(1)}
    checks = list(check_layer(BatchNorm(), params, x, training_mode(reference)))
    assert all(check.ok for check in checks), "\n".join(map(str, checks))


def test_no_numbers_are_not_a_success() -> None:
    (check,) = check_layer(ReLU(), {}, np.ones((0, 3)))
    assert (check.ok, check.why) == (False, "it is empty")


def test_no_places_are_refused() -> None:
    with pytest.raises(UserError, match="at least 1 place"):
        list(check_layer(ReLU(), {}, np.ones((1, 3)), most=0))


def test_a_kink_is_skipped_and_counted_not_failed() -> None:
    x = np.array([[0.0, 1.0, -1.0]])
    (check,) = check_layer(ReLU(), {}, x)
    assert (check.ok, check.checked, check.skipped) == (True, 2, 1)
    (check,) = check_layer(ReLU(), {}, np.zeros((1, 3)), redraws=0)
    assert (check.ok, check.checked, check.skipped) == (False, 0, 3)
    assert "all of 3 places are on a kink of the ReLU" in str(check)
    (check,) = check_layer(ReLU(), {}, np.zeros((1, 3)))
    assert (check.ok, check.checked, check.skipped, check.nudge) == (True, 3, 3, NUDGES[0])


def test_a_kink_nearby_is_stepped_around() -> None:
    (check,) = check_layer(ReLU(), {}, np.array([[3e-6, -3e-6, 1.0]]))
    assert (check.ok, check.skipped) == (True, 0)


def test_a_layer_that_draws_anew_is_not_a_function_and_fails(rng) -> None:
    ops = ops_with(dropout_mask=lambda x, rate, _: reference.dropout_mask(x, rate, rng))
    (check,) = check_layer(Dropout(0.5), {}, np.ones((4, 4)), Mode(ops, rng))
    assert not check.ok


def test_float32_is_checked_in_float64(rng) -> None:
    layer, params, x, _ = make_case("conv 3x3, pad 1", np.float32)
    assert all(check.ok for check in check_layer(layer, params, x))


@pytest.mark.parametrize("order", ["C", "F"])
def test_the_array_is_put_back_to_the_bit(rng, order) -> None:
    value = np.array(rng.standard_normal((5, 3)), order=order)
    before, factor = value.copy(), rng.standard_normal((5, 3))
    check = compare("x", value, factor, lambda: (float((value * factor).sum()), {}), np.arange(15))
    assert check.ok
    assert np.array_equal(value, before)


def test_most_limits_the_places() -> None:
    layer, params, x, _ = make_case("conv 3x3, pad 1")
    assert isinstance(layer, Conv2D)
    assert all(check.checked <= 2 for check in check_layer(layer, params, x, most=2))
