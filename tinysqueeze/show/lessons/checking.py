"""Checking answers: any right one passes, a wrong one hears what is wrong, not what is right."""

import copy
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isclose
from typing import Any

import numpy as np

from tinysqueeze.errors import UserError
from tinysqueeze.show.lessons import hints
from tinysqueeze.show.lessons.answers import numbers, plain
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

    Loops, einsum or a matrix product, lists, sets or arrays, int, float or text: whatever gives the
    right values is right, and a number may be rounded to three digits where it is no count. Raises
    UserError if there is no such exercise.
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
    got = plain(got)  # a generator can be read once
    fault = _fault(got, want, exercise)
    if fault is None:
        return Verdict(True, exercise.why)
    for hint, wrong in exercise.mistakes.items():
        if _fault(got, wrong() if callable(wrong) else wrong, exercise) is None:
            return Verdict(False, hint)
    return Verdict(False, fault)


def _check_function(exercise: Exercise, function: Callable[..., Any]) -> Verdict:
    assert exercise.cases is not None
    cases = exercise.cases(np.random.default_rng(0))
    for number, case in enumerate(cases, 1):
        handed, kept = copy.deepcopy(case), copy.deepcopy(case)
        where = f"case {number} of {len(cases)}, called with {_describe(case)}"
        try:
            got = plain(function(*handed))
        except NotImplementedError:
            return Verdict(None, exercise.ask)
        except (Exception, SystemExit) as error:  # exit() in an answer must not end the kernel
            return Verdict(False, f"{where}: {_what_it_raised(function, case, error)}")
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
    agree = "1 case agrees" if len(cases) == 1 else f"{len(cases)} cases agree"
    return Verdict(True, f"{agree} with the library. {exercise.why}")


def _what_it_raised(function: Callable[..., Any], case: Case, error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return "it called exit(); return the result instead"
    try:
        inspect.signature(function).bind(*case)
    except ValueError:  # a function of C has none
        pass
    except TypeError:
        return f"it does not take {len(case)} arguments"
    return f"it raised {type(error).__name__}: {error}"


def _known_mistake(
    exercise: Exercise, function: Callable[..., Any], cases: Sequence[Case]
) -> str | None:
    """The hint for a mistake that explains the answers to all cases."""
    try:
        answers = [plain(function(*copy.deepcopy(case))) for case in cases]
    except (Exception, SystemExit):  # it fails on a later case: no known mistake does
        return None
    for hint, wrong in exercise.mistakes.items():
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
        return None if _word(got) == want else "that is not it; try it out in a cell first"
    right = np.asarray(want, dtype=np.float64)
    try:
        found = numbers(got, several=right.ndim > 0)
    except ValueError as error:
        return str(error)
    if exercise.accepts is not None and exercise.accepts(found, right):
        return None
    if right.ndim == 0 and found.size == 1:
        return _fault_of_a_number(got, float(found.reshape(())), float(right), exercise)
    if found.shape != right.shape:
        return hints.of_a_shape(found, right)
    if hints.close(found, right, exercise.tolerance):
        return None
    return hints.of_values(found, right, exercise.tolerance)


def _fault_of_a_number(got: Any, found: float, right: float, exercise: Exercise) -> str | None:
    counted = exercise.cases is None and right.is_integer()  # then it is exact, or wrong
    if found == right or (
        not counted and isclose(found, right, rel_tol=exercise.tolerance, abs_tol=1e-12)
    ):
        return None
    if exercise.cases is None and hints.is_rounded(got, right):
        return None
    return hints.of_a_number(got, found, right)


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


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and np.array_equal(a, b)
    if isinstance(a, Mapping):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(_same, a, b))
    return bool(a == b)


def _word(value: Any) -> Any:
    """A word or truth value as Python has it: upper and lower case, quotes and a full stop aside."""
    if isinstance(value, str):
        return value.strip(" \t\n.!?'\"`").lower()
    return bool(value) if isinstance(value, bool | np.bool_) else value


def _describe(case: Case) -> str:
    return ", ".join(
        f"an array {a.shape}" if isinstance(a, np.ndarray) else f"{a!r}"[:40] for a in case
    )
