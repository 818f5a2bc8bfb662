"""`check`: every right answer passes, every wrong one hears why, and no answer is given away."""

import math
import sys
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest

from tinysqueeze.errors import DataError, UserError
from tinysqueeze.network.ops import convolution, fast, reference
from tinysqueeze.show.lessons import EXERCISES, LessonStopped, check, published, source


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
    for hint, wrong in exercise.mistakes.items():
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


MEANS = ((2, 104.0), (1, 117.0), (0, 123.0))  # of Caffe: channel and mean

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
    # numbers: rounded, as text, with units, as another type
    ("even-loss", 6.908),
    ("even-loss", "6.908"),
    ("even-loss", 6.91),
    ("even-loss", "≈ 6.9078"),
    ("even-loss", np.float32(np.log(1000))),
    ("even-loss", math.log(1000)),
    ("even-loss", Decimal("6.9078")),
    ("winograd", Fraction(9, 4)),
    ("winograd", "9/4"),
    ("winograd", "2.25 times"),
    ("winograd", [2.25]),
    ("kink", Fraction(1, 2)),
    ("kink", "50 %"),
    ("fire-share", "76.8 %"),
    ("fire-share", 0.77),
    ("fire-share", "77 per cent"),
    ("fully-connected", 0.96),
    ("fully-connected", "96%"),
    ("fifty-times", "48.8×"),
    ("fifty-times", 49),
    ("first-parameters", "775,204"),
    ("first-parameters", "775 204 parameters"),
    ("first-parameters", "775_204"),
    ("first-parameters", np.array([775204])),
    ("first-parameters", 775204.0),
    ("gradient-bytes", "4,993,696 bytes"),
    ("gradient-bytes", 4 * 1248424),
    ("nine-times", {73728}),
    ("sending", "192 s"),
    ("amdahl", "2.5"),
    ("polynomial", 1e-2),
    ("polynomial", "0.01"),
    ("late-cost", 1.97),
    ("late-cost", "1.97x"),
    # shapes, lists, sets, names
    ("first-shape", (27, 27, 256)),
    ("first-shape", "(27, 27, 256)"),
    ("first-shape", "27×27×256"),
    ("first-shape", "27 x 27 x 256"),
    ("first-shape", map(int, ("27", "27", "256"))),
    ("simple-bypass", {9, 7, 5, 3}),
    ("simple-bypass", range(3, 10, 2)),
    ("simple-bypass", [9, 7, 5, 3]),
    ("simple-bypass", ["fire3", "fire5", "fire7", "fire9"]),
    ("simple-bypass", {"fire9", "fire3", "fire7", "fire5"}),
    ("simple-bypass", "fire3, fire5, fire7 and fire9"),
    ("simple-bypass", "3, 5, 7, 9"),
    ("simple-bypass", (i for i in (3, 5, 7, 9))),
    ("simple-bypass", dict.fromkeys((3, 5, 7, 9)).keys()),
    ("which-gradient", "'dx'."),
    ("which-gradient", np.str_("dx")),
    # functions
    ("gaps", lambda flat: (int(g) for g in np.diff(np.flatnonzero(flat), prepend=-1) - 1)),
    ("output-size", lambda s, k, t, p: len(range(0, s + 2 * p - k + 1, t))),
    ("output-size", lambda s, k, t, p: Fraction((s + 2 * p - k) // t + 1)),
    ("chain-peak", lambda sizes: np.array([max(a + b for a, b in pairwise(sizes))])),
    ("whole-mean", lambda g, n: sum(m * k for m, k in zip(g, n, strict=True)) / sum(n)),
    ("to-bytes", lambda x, s, z: [min(255, max(0, round(float(v) / s) + z)) for v in x]),
    ("caffe-pixels", lambda image: np.stack([image[:, :, c] - m for c, m in MEANS], -1)),
    ("momentum", lambda w, v, g, lr, m: iter([w - lr * (m * v + g), m * v + g])),
    (
        "entropy",
        lambda counts: -sum(c / sum(counts) * math.log2(c / sum(counts)) for c in counts if c),
    ),
    ("expand-filters", lambda i, base, more, every: base + more * math.floor(i / every)),
    ("dlogits", lambda x, t: (reference.softmax(x) - np.eye(x.shape[1])[t]) / len(x)),
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


def wrong_border(x, weight, stride):
    y = with_einsum(x, weight, stride).copy()
    y[0] = y[-1] = 0
    y[:, 0] = y[:, -1] = 7
    return y


WRONG = [
    ("convolve", lambda x, w, s: with_einsum(x, w, 1), "shape: expected (3, 4), got"),
    ("convolve", lambda x, w, s: with_einsum(x, w, s).T, "axes are in another order"),
    ("convolve", lambda x, w, s: with_einsum(x, w, s).ravel(), "reshape them"),
    ("convolve", lambda x, w, s: -with_einsum(x, w, s), "the sign is turned round"),
    ("convolve", lambda x, w, s: 2 * with_einsum(x, w, s), "but for a constant factor"),
    ("convolve", lambda x, w, s: with_einsum(x, w, s) + 1, "a constant added"),
    ("convolve", lambda x, w, s: with_einsum(x, w, s) * np.nan, "are NaN"),
    ("convolve", lambda x, w, s: with_einsum(x, w, s) ** 2, "differ, the first at ["),
    ("convolve", lambda x, w, s: x @ w, "it raised ValueError"),
    ("convolve", lambda x, w, s: "twelve", "expected numbers, got str"),
    ("convolve", 12, "hand in the function itself, not int"),
    ("gradient", spoils_its_input, "it changed its argument 2"),
    ("momentum", lambda w, v, g, lr, m: w, "expected 2 values, got ndarray"),
    ("momentum", lambda w, v, g, lr, m: (w - lr * (m * v + g), g), "value 2: "),
    ("first-shape", (27, 27), "shape: expected (3,), got (2,)"),
    # numbers
    ("even-loss", 7, "rounded too far"),
    ("even-loss", 6.9, "rounded too far"),
    ("even-loss", "6.907", "cut off, not rounded"),
    ("even-loss", 6.95, "not within rounding"),
    ("even-loss", -np.log(1000), "sign"),
    ("even-loss", 1 / np.log(1000), "inverse"),
    ("even-loss", 2 * np.log(1000), "factor of two"),
    ("even-loss", np.nan, "NaN"),
    ("even-loss", "a lot", "expected one number, got str"),
    ("even-loss", np.log, "call it"),
    ("fire-share", 76.8, "per cent"),
    ("fire-share", 0.2315, "what is left to 1"),
    ("fully-connected", 0.481, "factor of two"),
    ("first-parameters", 775_000, "counted exactly"),
    ("first-parameters", 775_205, "out by one"),
    ("first-parameters", {"conv10": 775_204}, "got a dict"),
    ("first-parameters", 4 * 775_204, "factor of four"),
    ("gradient-bytes", 8 * 4_993_696, "factor of eight"),
    ("gradient-bytes", 4_993.696, "power of ten"),
    ("gradient-bytes", "4.99 MB", "power of ten"),
    ("gradient-bytes", 4_993_696 / 1024, "1,024"),
    ("nine-times", 9 * 73_728, "factor of nine"),
    ("ring-messages", 2047, "out by one"),
    ("polynomial", -0.01, "sign"),
    ("winograd", "9/8", "factor of two"),
    ("winograd", 1 / 2.25, "the other way round"),
    ("late-cost", 0.507, "the other way round"),
    ("fifty-times", 1 / 48.8, "inverse"),
    ("fifty-times", 50, "rounded too far"),
    ("amdahl", 0.4, "inverse"),
    ("stops", 94, "out by one"),
    # shapes, sets, names
    ("first-shape", (256, 27, 27), "back to front along axis 0"),
    ("first-shape", (27, 27, 257), "differ, the first at [2]"),
    ("first-shape", "27×27", "shape: expected (3,), got (2,)"),
    ("first-shape", [[27, 27, 256]], "reshape them"),
    ("simple-bypass", {3, 5, 7}, "shape: expected (4,), got (3,)"),
    ("simple-bypass", ["fire2", "fire4", "fire6", "fire8"], "the channels change"),
    ("simple-bypass", "all of them", "expected numbers, got str"),
    ("simple-bypass", [True, False, True], "shape: expected (4,), got (3,)"),
    ("which-gradient", "dW", "that is not it"),
    ("which-gradient", 3, "that is not it"),
    # arrays
    ("dweight", lambda rows, dy: dy.T @ rows, "axes are in another order"),
    ("dweight", lambda rows, dy: -(rows.T @ dy), "sign"),
    ("dweight", lambda rows, dy: rows.T @ dy / len(rows), "constant factor"),
    ("dweight", lambda rows, dy: rows[:, :, None] * dy[:, None], "its sum over one axis"),
    ("dweight", lambda rows, dy: (rows.T @ dy).astype(int), "cut off to whole numbers"),
    ("dweight", lambda rows, dy: np.round(rows.T @ dy, 1), "rounded on the way"),
    ("dweight", lambda rows, dy: np.abs(rows.T @ dy), "signs of some"),
    ("dweight", lambda rows, dy: (rows.T @ dy)[::-1], "back to front along axis 0"),
    ("dweight", lambda rows, dy: np.roll(rows.T @ dy, 1, axis=1), "moved by one along axis 1"),
    ("dweight", lambda rows, dy: np.sort(rows.T @ dy, axis=0), "not each in its place"),
    ("dweight", lambda rows, dy: np.full((4, 3), np.inf), "infinite"),
    ("dweight", lambda rows, dy: (rows.T @ dy) * 1j, "complex"),
    ("dweight", lambda rows, dy: [[1, 2], [3]], "rows of one length"),
    ("dweight", lambda rows: rows, "it does not take 2 arguments"),
    ("dweight", lambda rows, dy: sys.exit("bye"), "it called exit()"),
    ("dweight", lambda rows, dy: 1 / 0, "it raised ZeroDivisionError"),
    ("dweight", lambda rows, dy: print(rows.T @ dy) or 0, "shape: expected (4, 3), got ()"),
    ("max-pool", lambda x, size: x.max(), "shape: expected (2, 3), got ()"),
    ("softmax", lambda x: np.exp(x - x.max()), "case 1 of 2"),
    ("convolve", wrong_border, "right inside, wrong at the border"),
    ("scatter-add", lambda rows, length: rows.sum(axis=1), "shape: expected (6,), got (4,)"),
    ("output-size", lambda s, k, t, p: (s + 2 * p - k) // t + 2, "out by one"),
    ("to-bytes", lambda x, s, z: np.clip(np.rint(x / s), 0, 255), "case 1 of 2"),
    ("caffe-pixels", lambda image: image[:, :, ::-1], "case 1 of 1"),
    ("chain-peak", lambda sizes: 2 * max(a + b for a, b in pairwise(sizes)), "factor of two"),
    ("entropy", lambda counts: -check("entropy").passed, "it raised TypeError"),
    ("momentum", lambda w, v, g, lr, m: {"w": w, "v": v}, "expected 2 values, got dict"),
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
    with pytest.raises(UserError, match="no exercise named 'fold'; there are one-number"):
        check("fold", 3)


# ----------------------------------------------------------------------------- what it needs


def test_published_weights_come_from_the_folder_or_by_name(tmp_path, monkeypatch):
    asked = []
    module = sys.modules[published.__module__]
    monkeypatch.setattr(module, "open_weights", lambda source: asked.append(source))
    monkeypatch.setenv("TINYSQUEEZE_SHARED", str(tmp_path))
    published("squeezenet1_0_compressed")
    (tmp_path / "compressed_SqueezeNet.net").write_bytes(b"")
    published("squeezenet1_0_compressed")
    assert asked == ["squeezenet1_0_compressed", tmp_path / "compressed_SqueezeNet.net"]


def test_without_published_weights_a_lesson_says_what_to_do_and_stops(tmp_path, monkeypatch):
    def offline(source):
        raise DataError(f"cannot download {source}")

    monkeypatch.setattr(sys.modules[published.__module__], "open_weights", offline)
    monkeypatch.setenv("TINYSQUEEZE_SHARED", str(tmp_path))
    with pytest.raises(LessonStopped, match="cannot download squeezenet1_0_compressed") as stopped:
        published("squeezenet1_0_compressed")
    (line,) = stopped.value._render_traceback_()
    assert "set TINYSQUEEZE_SHARED to the folder that holds compressed_SqueezeNet.net" in line


# --------------------------------------------------------------------------------- source


def test_source_shows_the_library_itself():
    shown = source(reference.im2col, reference.conv2d)
    assert "tinysqueeze/network/ops/reference.py" in repr(shown)
    assert "def im2col(" in repr(shown)
    assert shown._repr_markdown_().startswith("```python\n")


def test_source_unwraps_a_numba_kernel():
    assert "def unfold(" in repr(source(convolution.unfold))
