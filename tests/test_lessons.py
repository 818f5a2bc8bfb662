"""`check`: every right answer passes, every wrong one hears why, and no answer is given away."""

import numpy as np
import pytest

from tinysqueeze.errors import UserError
from tinysqueeze.network.ops import convolution, fast, reference
from tinysqueeze.show.lessons import EXERCISES, check, source


def right_answer(exercise):
    if exercise.cases is not None or not callable(exercise.answer):
        return exercise.answer
    return exercise.answer()


@pytest.mark.parametrize("name", EXERCISES)
def test_the_librarys_own_answer_is_right(name):
    verdict = check(name, right_answer(EXERCISES[name]))
    assert verdict.passed is True, verdict


@pytest.mark.parametrize("name", EXERCISES)
def test_an_empty_answer_is_only_your_turn(name):
    assert check(name).passed is None
    assert check(name, ...).passed is None
    if EXERCISES[name].cases is not None:
        assert check(name, lambda *args: None).passed is None
        assert check(name, lambda *args: ...).passed is None


@pytest.mark.parametrize("name", EXERCISES)
def test_each_known_mistake_gets_its_hint(name):
    exercise = EXERCISES[name]
    for wrong, hint in exercise.mistakes:
        answer = wrong() if exercise.cases is None and callable(wrong) else wrong
        with np.errstate(all="ignore"):
            verdict = check(name, answer)
        assert verdict.passed is False
        assert hint in verdict.message


@pytest.mark.parametrize("name", [n for n, e in EXERCISES.items() if e.cases is None])
def test_a_wrong_number_is_refused_without_giving_the_answer_away(name):
    right = right_answer(EXERCISES[name])
    verdict = check(name, "dweight" if isinstance(right, str) else np.asarray(right) * 1.37 + 11)
    assert verdict.passed is False
    assert str(right) not in verdict.message


# ---------------------------------------------------------------- right answers of every kind


def with_loops(x, weight, stride):
    rows = []
    for i in range(0, x.shape[0] - weight.shape[0] + 1, stride):
        row = []
        for j in range(0, x.shape[1] - weight.shape[1] + 1, stride):
            total = 0.0
            for a in range(weight.shape[0]):
                for b in range(weight.shape[1]):
                    total += x[i + a, j + b] * weight[a, b]
            row.append(total)
        rows.append(row)
    return rows  # a list of lists


def with_einsum(x, weight, stride):
    every = np.lib.stride_tricks.sliding_window_view(x, weight.shape)[::stride, ::stride]
    return np.einsum("ijab,ab->ij", every, weight)


def channels_first(x, size):
    every = np.lib.stride_tricks.sliding_window_view(x, (size, size), axis=(0, 1))
    return every.reshape(-1, x.shape[2] * size * size)


def pool_with_loops(x, size):
    return [
        [x[i : i + size, j : j + size].max() for j in range(0, x.shape[1], size)]
        for i in range(0, x.shape[0], size)
    ]


RIGHT = [
    ("convolve", with_loops),
    ("convolve", with_einsum),
    ("convolve", lambda x, w, stride: with_einsum(x, w, stride).astype(np.float32)),
    ("patches", channels_first),
    ("patches", lambda x, size: fast.im2col(x[None], reference.Window.of(size))),
    ("one-by-one", lambda x, w: np.einsum("nhwc,cf->nhwf", x, w)),
    ("one-by-one", lambda x, w: np.tensordot(x, w, 1)),
    ("one-by-one", lambda x, w: (x.reshape(-1, x.shape[3]) @ w).reshape(*x.shape[:3], -1)),
    ("max-pool", pool_with_loops),
    ("dweight", lambda rows, dy: sum(np.outer(r, d) for r, d in zip(rows, dy, strict=True))),
    ("softmax", lambda x: [list(reference.softmax(row)) for row in x]),
    ("nine-times", 73728.0),
    ("nine-times", np.int32(73728)),
    ("which-gradient", " DX "),
    ("first-shape", [27, 27, 256]),
    ("kink", "0.5"),
    ("momentum", lambda w, v, g, lr, m: [w - lr * (m * v + g), m * v + g]),
    ("activation-map", lambda f, w, k: (f * w[:, k]).sum(axis=-1)),
]


@pytest.mark.parametrize(("name", "answer"), RIGHT)
def test_any_way_to_the_right_values_is_right(name, answer):
    verdict = check(name, answer)
    assert verdict.passed is True, verdict


# --------------------------------------------------------------------- wrong answers, named


def spoils_its_input(f, x):
    slopes = np.zeros_like(x)
    for at in np.ndindex(x.shape):
        x[at] += 1e-5
        above = f(x)
        x[at] -= 2e-5
        slopes[at] = (above - f(x)) / 2e-5
    return slopes


WRONG = [
    ("convolve", lambda x, w, s: with_einsum(x, w, 1), "shape: expected (3, 4), got"),
    ("convolve", lambda x, w, s: with_einsum(x, w, s).T, "axes are in another order"),
    ("convolve", lambda x, w, s: with_einsum(x, w, s).ravel(), "reshape them"),
    ("convolve", lambda x, w, s: -with_einsum(x, w, s), "the sign is turned round"),
    ("convolve", lambda x, w, s: 2 * with_einsum(x, w, s), "but for a constant factor"),
    ("convolve", lambda x, w, s: with_einsum(x, w, s) + 1, "a constant added"),
    ("convolve", lambda x, w, s: with_einsum(x, w, s) * np.nan, "are NaN"),
    ("convolve", lambda x, w, s: np.abs(with_einsum(x, w, s)), "differ, the first at ["),
    ("convolve", lambda x, w, s: x @ w, "it raised ValueError"),
    ("convolve", lambda x, w, s: "twelve", "expected numbers, got str"),
    ("convolve", 12, "hand in the function itself, not int"),
    ("gradient", spoils_its_input, "it changed its argument 2"),
    ("momentum", lambda w, v, g, lr, m: w, "expected 2 values, got ndarray"),
    ("momentum", lambda w, v, g, lr, m: (w - lr * (m * v + g), g), "value 2: "),
    ("first-shape", (27, 27), "shape: expected (3,), got (2,)"),
]


@pytest.mark.parametrize(("name", "answer", "says"), WRONG)
def test_what_is_wrong_is_named(name, answer, says):
    verdict = check(name, answer)
    assert verdict.passed is False
    assert not verdict
    assert says in repr(verdict)


def test_a_later_case_that_returns_nothing_is_wrong():
    verdict = check("conv-weights", lambda inputs, filters: 9216 if inputs == 16 else None)
    assert verdict.passed is False


def test_an_exercise_that_is_not_there():
    with pytest.raises(UserError, match="no exercise named 'fold'; there are first-parameters"):
        check("fold", 3)


# --------------------------------------------------------------------------------- source


def test_source_shows_the_library_itself():
    shown = source(reference.im2col, reference.conv2d)
    assert "tinysqueeze/network/ops/reference.py" in repr(shown)
    assert "def im2col(" in repr(shown)
    assert shown._repr_markdown_().startswith("```python\n")


def test_source_unwraps_a_numba_kernel():
    assert "def unfold(" in repr(source(convolution.unfold))
