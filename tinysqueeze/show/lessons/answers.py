"""Reading an answer: the numbers in it, in whatever form somebody hands them in."""

import re
from collections.abc import Iterable, Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np

NUMBER = re.compile(r"(?:(?<![\w)])[-−+])?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?")
THOUSANDS = re.compile(r"(?<=\d)[,_ '\u202f\u00a0](?=\d{3}(?!\d))")


def plain(answer: Any) -> Any:
    """The same answer in a form that NumPy takes: sets (sorted), ranges, fractions, views, generators.

    Text, arrays and dicts stay as they are.
    """
    if isinstance(answer, Fraction | Decimal):
        return float(answer)
    if isinstance(answer, str | bytes | np.ndarray | Mapping) or hasattr(answer, "__array__"):
        return answer
    if not isinstance(answer, Iterable):
        return answer
    values = [plain(value) for value in answer]
    if isinstance(answer, set | frozenset):
        return sorted(values, key=lambda value: (str(type(value)), value))
    return tuple(values) if isinstance(answer, tuple) else values


def numbers(answer: Any, several: bool = True) -> np.ndarray:
    """An answer's numbers in float64. Raises ValueError, which says what is there instead.

    Text may hold them with words and signs around ("27×27×256", "fire3, fire5"); where one number is
    asked, not `several`, with separators of thousands, units or per cent ("1,248,424 bytes", "12.5 %").
    """
    answer = plain(answer)
    if isinstance(answer, str):
        return _in_text(answer, several)
    if isinstance(answer, list) and answer and all(isinstance(value, str) for value in answer):
        return np.array([_in_text(value, several=False) for value in answer])
    if isinstance(answer, Mapping) or callable(answer):
        kind = "a dict" if isinstance(answer, Mapping) else "a function; call it"
        raise ValueError(f"expected numbers, got {kind}")
    try:
        array = np.asarray(answer)
    except ValueError:
        raise ValueError("expected numbers in rows of one length, got rows of several") from None
    if np.iscomplexobj(array):
        raise ValueError("expected real numbers, got complex ones")
    try:
        return array.astype(np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"expected numbers, got {type(answer).__name__}") from None


def _in_text(text: str, several: bool) -> np.ndarray:
    if ratio := re.fullmatch(r"\s*(\d+)\s*/\s*(0*[1-9]\d*)\s*", text):
        return np.array(int(ratio[1]) / int(ratio[2]))
    found = NUMBER.findall(text if several else THOUSANDS.sub("", text))
    if not found or (len(found) > 1 and not several):
        raise ValueError(
            f"expected {'numbers' if several else 'one number'}, got str {text[:40]!r}"
        )
    values = np.array([float(one.replace("−", "-")) for one in found])
    if several:
        return values
    return values[0] / (100 if re.search(r"%|per ?cent", text) else 1)


def digits(answer: Any) -> Decimal | None:
    """A number with the digits that it was written with; None where it is not one finite number."""
    if isinstance(answer, str):
        found = NUMBER.findall(THOUSANDS.sub("", answer))
        return (
            Decimal(found[0].replace("−", "-")) if len(found) == 1 and "%" not in answer else None
        )
    try:
        value = float(numbers(answer).reshape(()))
    except ValueError:
        return None
    return Decimal(repr(value)).normalize() if np.isfinite(value) else None
