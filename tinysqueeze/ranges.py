"""What values a field takes: declared as its type, checked, said and read from text in one place.

A field is declared as `fires: Annotated[int, Range(1, 64)]`, as a bool, as a Literal of texts, as
`Annotated[str, Text(...)]`, as a tuple of one kind, or as one of these or None. With `setting` as its
default it has words for a help page too.
"""

import functools
import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from numbers import Integral, Real
from reprlib import Repr
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    Literal,
    ParamSpec,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

import numpy as np

from tinysqueeze.errors import UserError

P = ParamSpec("P")
T = TypeVar("T")
NUMBERS = {int: Integral, float: Real}
WORDS = {
    int: "a whole number", float: "a number", bool: "true or false", str: "a text", NoneType: "None",
}  # fmt: skip
BRACKETS = ("[]", "()")
LARGEST = 2**63 - 1


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included unless `above` or `below`; of a tuple, how many entries.

    Without an upper end it is what 64 bits hold: no integer is slow to handle, and no number infinite.
    """

    low: float
    high: float = LARGEST
    above: bool = False
    below: bool = False

    def __contains__(self, value: float) -> bool:
        over = self.low < value if self.above else self.low <= value
        return over and (value < self.high if self.below else value <= self.high)

    def __str__(self) -> str:
        if self.high == LARGEST:
            return f"{'above' if self.above else 'of at least'} {self.low:,}"
        start, end = (
            "above" if self.above else "from",
            "up to, not including," if self.below else "to",
        )
        return f"{start} {self.low:,} {end} {self.high:,}"

    @property
    def count(self) -> str:
        """In words, of entries: "3", "0 to 65"."""
        return f"{self.low:,}" if self.low == self.high else f"{self.low:,} to {self.high:,}"


@dataclass(frozen=True)
class Text:
    """Texts that a regular expression matches in whole, and are no longer than `most`; `words` say it."""

    pattern: str
    words: str
    most: int = 1000

    def __contains__(self, value: str) -> bool:
        return len(value) <= self.most and re.fullmatch(self.pattern, value, re.ASCII) is not None

    def __str__(self) -> str:
        return f"of {self.words}"


Share = Annotated[float, Range(0, 1)]
Kept = Annotated[float, Range(0, 1, below=True)]  # of what was there before, each step


def setting(default: Any, help: str, **more: Any) -> Any:
    """A documented field of a value; `more` is for `training.settings`: "option", "kinds"."""
    return field(default=default, metadata={"help": help, **more})


@functools.cache
def hints_of(owner: Callable[..., Any]) -> dict[str, Any]:
    """The fields of a dataclass, or the arguments of a function, with what each may be."""
    hints = get_type_hints(owner, include_extras=True)
    return {name: hint for name, hint in hints.items() if name != "return"}


def checked(owner: str, hints: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """The values as plain Python: NumPy's numbers as int and float, lists as tuples.

    Raises UserError, which names `owner`, the field, what it may be and what it is.
    """
    refuse_unknown(owner, "metaparameter", values, sorted(hints))
    found = {}
    for name, value in values.items():
        try:
            found[name] = _plain(hints[name], value)
        except (ValueError, OverflowError):
            wanted, got = said(hints[name]), _shown(value)
            raise UserError(f"{owner}: {name} is {wanted}, not {got}") from None
    return found


def refuse_unknown(owner: str, what: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Raises UserError for a name that is not known."""
    unknown = sorted(set(given).difference(known))
    if unknown:
        wrong = ", ".join(unknown) or "''"
        raise UserError(f"{owner}: no such {what}: {wrong}; there are {', '.join(known)}")


def within_ranges(make: Callable[P, T]) -> Callable[P, T]:
    """A function whose arguments are checked as they are annotated. Raises UserError."""
    signature, hints, name = inspect.signature(make), hints_of(make), make.__name__
    call: Callable[..., T] = make

    @functools.wraps(make)
    def checking(*args: P.args, **kwargs: P.kwargs) -> T:
        checked(name, hints, kwargs)  # an unknown name is the user's error, with a list of names
        return call(**checked(name, hints, signature.bind(*args, **kwargs).arguments))

    return checking


def said(hint: Any) -> str:
    """A field's type in words: "a whole number from 1 to 64"."""
    kind, inner = _parts(hint)
    if kind is Annotated and get_origin(inner[0]) is tuple:
        return f"a list of {inner[1].count} entries, each {said(get_args(inner[0])[0])}"
    if kind is Annotated:
        return f"{said(inner[0])} {inner[1]}"
    if kind is Union:
        return f"None, {said(inner[0])}"
    if kind is Literal:
        *first, last = map(repr, inner)
        return f"{', '.join(first)} or {last}"
    return WORDS[hint]


def from_text(owner: str, hints: Mapping[str, Any], name: str, text: str) -> Any:
    """A field's value as a user types it: 3, .5, true, simple, none, 1,3 or [1,3]. Raises UserError."""
    return checked(owner, hints, {name: _read(hints.get(name), text)})[name]


def read(hint: Any, text: str) -> Any:
    """The same of a type alone. Raises ValueError or OverflowError."""
    return _plain(hint, _read(hint, text))


def plain_type(hint: Any) -> type:
    """What a field holds, whatever its limits: int, float, bool, str or tuple."""
    kind, inner = _parts(hint)
    if kind is Literal:
        return str
    return plain_type(inner[0]) if kind in (Annotated, Union) else kind or hint


def _read(hint: Any, text: str) -> Any:
    """The text as its type is written; as it stands where it isn't, for the check to refuse."""
    kind, inner = _parts(hint)
    if kind is Annotated:
        return _read(inner[0], text)
    if kind is tuple:
        text = text[1:-1] if text[:1] + text[-1:] in BRACKETS else text
        return [_read(inner[0], part) for part in text.split(",")] if text else []
    if kind is Union:
        return None if text.lower() in ("none", "null") else _read(inner[0], text)
    if hint is bool:
        return {"true": True, "false": False}.get(text.lower(), text)
    try:
        return hint(text) if hint in NUMBERS else text.strip("\"'")
    except ValueError:
        return text


def _plain(hint: Any, value: Any) -> Any:
    """The value as its type holds it. Raises ValueError where it is of another, or out of range."""
    kind, inner = _parts(hint)
    if kind is Annotated:
        found = _plain(inner[0], value)
        if (len(found) if isinstance(found, tuple) else found) not in inner[1]:
            raise ValueError
        return found
    if kind is tuple and isinstance(value, list | tuple):
        return tuple(_plain(inner[0], entry) for entry in value)
    if kind is Union:
        return None if value is None else _plain(inner[0], value)
    if kind is Literal and isinstance(value, str) and value in inner:
        return str(value)
    if hint is bool and isinstance(value, bool | np.bool_):
        return bool(value)
    if hint is str and isinstance(value, str):
        return value
    if hint in NUMBERS and isinstance(value, NUMBERS[hint]) and not isinstance(value, bool):
        return hint(value)
    raise ValueError


def _parts(hint: Any) -> tuple[Any, tuple[Any, ...]]:
    """What a type is made by and of: (Union, (what is not None,)) for one or None."""
    kind, inner = get_origin(hint), get_args(hint)
    if kind in (Union, UnionType):
        return Union, tuple(part for part in inner if part is not NoneType)
    return kind, inner


def _shown(value: Any) -> str:
    """A value in a message, however long or deep it is."""
    short = Repr()
    short.maxlevel, short.maxstring, short.maxother = 2, 60, 60
    try:
        return short.repr(value)
    except ValueError:  # Python writes no integer of more than 4,300 digits
        return f"a number of {value.bit_length():,} bits"
