"""An option as a help page writes it: its names, what its value is called, and what it does."""

import argparse
from collections.abc import Callable
from typing import Any


def option(
    parser: argparse.ArgumentParser,
    spelling: str,
    purpose: str,
    kind: Callable[[str], Any] = str,
    default: Any = None,
    **more: Any,
) -> None:
    """Add one: `option(parser, "-o --out FILE", "what to write", Path)`; without a value a switch.

    kind   reads the value from a text
    more   what else `add_argument` takes
    """
    *names, last = spelling.split()
    if last.startswith("-"):
        parser.add_argument(*names, last, action="store_true", help=purpose, **more)
    else:
        parser.add_argument(*names, metavar=last, help=purpose, type=kind, default=default, **more)
