"""Kinds of option values, each checked as it is read: one line says what it takes, and the status is 2."""

from argparse import ArgumentTypeError
from collections.abc import Callable
from math import inf

from tinysqueeze.errors import UserError
from tinysqueeze.training.settings import Setting

MOST_THREADS = 256
MOST_IMAGES = 1_000_000  # at once
LARGEST = 2**63 - 1


def whole(least: int = 1, most: int = LARGEST) -> Callable[[str], int]:
    """A whole number from `least` to `most`."""

    def read(text: str) -> int:
        limits = f"of at least {least:,}" if most == LARGEST else f"from {least:,} to {most:,}"
        try:
            number = int(text)
        except ValueError:
            number = least - 1
        if not least <= number <= most:
            raise ArgumentTypeError(f"takes a whole number {limits}, not {shown(text)}")
        return number

    return read


def number(above: float = -inf, least: float = -inf, most: float = inf) -> Callable[[str], float]:
    """A finite number above one bound, and within the others."""

    def read(text: str) -> float:
        words = [(above, f"above {above:g}"), (least, f"of at least {least:g}")]
        words += [(most, f"of at most {most:g}")]
        limits = " and ".join(word for bound, word in words if abs(bound) != inf)
        try:
            found = float(text)
        except ValueError:
            found = inf
        if not (found > above and least <= found <= most and abs(found) != inf):
            raise ArgumentTypeError(f"takes a number {limits}, not {shown(text)}")
        return found

    return read


def of_setting(setting: Setting) -> Callable[[str], object]:
    """What a recipe's setting takes."""

    def read(text: str) -> object:
        try:
            return setting.read(text)
        except UserError as error:
            raise ArgumentTypeError(f"takes another value: {error}") from None

    return read


def shown(text: str) -> str:
    """What was typed, in a message."""
    return repr(text if len(text) <= 40 else f"{text[:40]}...")


def threads(text: str) -> int:
    """How many processor threads."""
    return whole(1, MOST_THREADS)(text)


def images(text: str) -> int:
    """How many images at once."""
    return whole(1, MOST_IMAGES)(text)
