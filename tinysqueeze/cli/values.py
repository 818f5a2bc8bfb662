"""Kinds of option values, each checked as it is read: one line says what it takes, and the status is 2."""

from argparse import ArgumentTypeError
from collections.abc import Callable
from typing import Annotated, Any

from tinysqueeze.ranges import LARGEST, Range, read, said

MOST_THREADS = 256
MOST_IMAGES = 1_000_000  # at once


def of(hint: Any) -> Callable[[str], Any]:
    """What a field of this type takes (see `ranges`)."""

    def value(text: str) -> Any:
        try:
            return read(hint, text)
        except (ValueError, OverflowError):
            raise ArgumentTypeError(f"takes {said(hint)}, not {shown(text)}") from None

    return value


def whole(least: int = 1, most: int = LARGEST) -> Callable[[str], int]:
    """A whole number from `least` to `most`."""
    return of(Annotated[int, Range(least, most)])


def number(least: float = 0, above: bool = False) -> Callable[[str], float]:
    """A number of at least `least`, or `above` it."""
    return of(Annotated[float, Range(least, above=above)])


def shown(text: str) -> str:
    """What was typed, in a message."""
    return repr(text if len(text) <= 40 else f"{text[:40]}...")


threads, images = whole(1, MOST_THREADS), whole(1, MOST_IMAGES)
