"""Checking answers: any right one passes, a wrong one hears what is wrong, not what is right."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Any

import numpy as np

from tinysqueeze.errors import UserError
from tinysqueeze.show.lessons.exercise import Case, Exercise
from tinysqueeze.show.lessons.exercises import EXERCISES


@dataclass(frozen=True)
class Verdict:
    """What `check` found: `passed` is True, False, or None where nothing was answered yet."""

    passed: bool | None
    message: str

    def __bool__(self) -> bool:
        return bool(self.passed)

    def __repr__(self) -> str:
        mark = {True: "✔ right", False: "✘ not yet", None: "○ your turn"}[self.passed]
        return f"{mark}: {self.message}"


def check(name: str, answer: Any = None) -> Verdict:
    """Check an answer to the exercise `name`: a number, an array, or a function that is tried out.

    Loops, einsum or a matrix product, lists or arrays, int or float: whatever gives the right
    values is right. Raises UserError if there is no such exercise.
    """
    if name not in EXERCISES:
        raise UserError(f"no exercise named {name!r}; there are {', '.join(EXERCISES)}")
    exercise = EXERCISES[name]
    if answer is None or answer is Ellipsis:
        return Verdict(None, exercise.ask)
    if exercise.cases is None:
        return _check_value(exercise, answer, _right_answer(exercise))
    if not callable(answer):
        return Verdict(False, f"hand in the function itself, not {type(answer).__name__}")
    return _check_function(exercise, answer)


def _right_answer(exercise: Exercise) -> Any:
    return exercise.answer() if callable(exercise.answer) else exercise.answer


def _check_value(exercise: Exercise, got: Any, want: Any) -> Verdict:
    for wrong, hint in exercise.mistakes:
        value = wrong() if callable(wrong) else wrong
        if _fault(got, value, exercise) is None and _fault(got, want, exercise) is not None:
            return Verdict(False, hint)
    fault = _fault(got, want, exercise)
    return Verdict(True, exercise.ask) if fault is None else Verdict(False, fault)


def _check_function(exercise: Exercise, function: Callable[..., Any]) -> Verdict:
    assert exercise.cases is not None
    cases = exercise.cases(np.random.default_rng(0))
    for number, case in enumerate(cases, 1):
        handed, kept = copy.deepcopy(case), copy.deepcopy(case)
        where = f"case {number} of {len(cases)}, called with {_describe(case)}"
        try:
            got = function(*handed)
        except NotImplementedError:
            return Verdict(None, exercise.ask)
        except Exception as error:
            return Verdict(False, f"{where}: it raised {type(error).__name__}: {error}")
        if got is None or got is Ellipsis:
            text = "it returned nothing; is the `return` missing?"
            return Verdict(None if number == 1 else False, f"{exercise.ask} ({text})")
        changed = [i for i, (a, b) in enumerate(zip(handed, kept, strict=True)) if not _same(a, b)]
        if changed:
            text = f"it changed its argument {changed[0] + 1}; leave the inputs as they are"
            return Verdict(False, f"{where}: {text} and work on a copy")
        fault = _fault(got, exercise.answer(*kept), exercise)
        if fault is not None:
            hint = _known_mistake(exercise, function, cases)
            return Verdict(False, f"{where}: {hint or fault}")
    return Verdict(True, f"{len(cases)} cases agree with the library")


def _known_mistake(
    exercise: Exercise, function: Callable[..., Any], cases: Sequence[Case]
) -> str | None:
    """The hint for a mistake that explains the answers to all cases."""
    try:
        answers = [function(*copy.deepcopy(case)) for case in cases]
    except Exception:  # it fails on a later case: no known mistake does
        return None
    for wrong, hint in exercise.mistakes:
        alike = (
            _fault(answer, wrong(*copy.deepcopy(case)), exercise) is None
            for answer, case in zip(answers, cases, strict=True)
        )
        if all(alike):
            return hint
    return None


def _fault(got: Any, want: Any, exercise: Exercise) -> str | None:
    """What is wrong with an answer, or None if nothing is."""
    if isinstance(want, tuple | Mapping):
        return _fault_of_several(got, want, exercise)
    if isinstance(want, str | bool):
        return None if _plain(got) == want else "that is not it; try it out in a cell first"
    try:
        found, right = np.asarray(got, dtype=np.float64), np.asarray(want, dtype=np.float64)
    except (TypeError, ValueError):
        return f"expected numbers, got {type(got).__name__}"
    if exercise.accepts is not None and exercise.accepts(found, right):
        return None
    if found.shape != right.shape:
        return _wrong_shape(found, right)
    return _wrong_values(found, right, exercise.tolerance)


def _fault_of_several(got: Any, want: Any, exercise: Exercise) -> str | None:
    keys = list(want) if isinstance(want, Mapping) else list(range(len(want)))
    if isinstance(want, Mapping):
        if not isinstance(got, Mapping) or set(got) != set(want):
            return f"expected a dict with the keys {', '.join(map(repr, keys))}"
    elif not isinstance(got, Sequence) or len(got) != len(want):
        size = f"{len(got)} values" if isinstance(got, Sequence) else type(got).__name__
        return f"expected {len(want)} values, got {size}"
    for key in keys:
        fault = _fault(got[key], want[key], exercise)
        if fault is not None:
            return (
                f"value {key!r}: {fault}" if isinstance(key, str) else f"value {key + 1}: {fault}"
            )
    return None


def _wrong_shape(found: np.ndarray, right: np.ndarray) -> str:
    text = f"shape: expected {right.shape}, got {found.shape}"
    if found.ndim == right.ndim <= 5:
        for order in permutations(range(found.ndim)):
            if found.transpose(order).shape == right.shape and _close(
                found.transpose(order), right
            ):
                return f"{text}; the numbers are right, but the axes are in another order"
    if found.size == right.size and _close(found.reshape(right.shape), right):
        return f"{text}; the numbers are right, reshape them"
    return text


def _wrong_values(found: np.ndarray, right: np.ndarray, tolerance: float) -> str | None:
    if _close(found, right, tolerance):
        return None
    if np.isnan(found).any():
        return f"values: {int(np.isnan(found).sum())} of {found.size} are NaN"
    if right.ndim == 0:
        return _near_miss(found, right) or "that is not the number; go through it once more"
    near = _near_miss(found, right)
    if near:
        return f"values: {near}"
    bad = ~np.isclose(found, right, rtol=tolerance, atol=tolerance)
    first = tuple(int(i) for i in np.argwhere(bad)[0])
    where = f"the first at {list(first)}: got {found[first]:g}"
    return f"values: {int(bad.sum())} of {found.size} differ, {where}"


def _near_miss(found: np.ndarray, right: np.ndarray) -> str | None:
    """A pattern in the error that says where to look."""
    if found.size and np.abs(right).max() > 0 and _close(-found, right):
        return "the sign is turned round"
    if found.size > 1:
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = found[right != 0] / right[right != 0]
        if ratio.size and np.allclose(ratio, ratio[0]) and np.isfinite(ratio[0]) and ratio[0] != 0:
            return "right but for a constant factor"
    if found.size > 1 and np.allclose(found - right, (found - right).flat[0], rtol=1e-6):
        return "right but for a constant added to each"
    return None


def _close(found: np.ndarray, right: np.ndarray, tolerance: float = 1e-5) -> bool:
    finite = np.abs(right[np.isfinite(right)])
    scale = max(float(finite.max()), 1e-12) if finite.size else 1.0
    near = np.allclose(found, right, rtol=tolerance, atol=tolerance * scale, equal_nan=True)
    return bool(near)


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and np.array_equal(a, b)
    if isinstance(a, Mapping):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(_same, a, b))
    return bool(a == b)


def _plain(value: Any) -> Any:
    """A str or bool as Python has it, upper and lower case alike."""
    if isinstance(value, str):
        return value.strip().lower()
    return bool(value) if isinstance(value, bool | np.bool_) else value


def _describe(case: Case) -> str:
    return ", ".join(
        f"an array {a.shape}" if isinstance(a, np.ndarray) else f"{a!r}"[:40] for a in case
    )
