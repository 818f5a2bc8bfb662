"""The modules as one: what a notebook's widget imports, and a page in one file that works offline."""

import base64
import html
import json
import re
from collections.abc import Sequence
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
IMPORT = re.compile(r'^import \{[^}]*\} from "\./([\w-]+\.js)";\n', re.MULTILINE)
COMMENT = re.compile(r"^ *//.*\n", re.MULTILINE)  # an eighth of all: they stay in the files
EXPORT = re.compile(r"^export (?!default)", re.MULTILINE)


@cache
def module(start: str) -> str:
    """A module and all that it imports as one text, those first that others need.

    Our modules import by name, from files beside them, and no two define the same name: then joining
    is leaving out the imports. Lines that are comments are left out, too.
    """
    needs: dict[str, list[str]] = {}
    waiting = [start]
    while waiting:
        name = waiting.pop()
        if name not in needs:
            needs[name] = IMPORT.findall(_text(name))
            waiting += needs[name]
    order = TopologicalSorter(needs).static_order()
    parts = [EXPORT.sub("", IMPORT.sub("", _text(name))) for name in order if name != start]
    return COMMENT.sub("", "\n".join([*parts, IMPORT.sub("", _text(start))]))


def style(*more: str) -> str:
    """The style sheet of the explorer's modules, and what comes beside it."""
    return "".join(_text(name) for name in ("style.css", *more))


@cache
def _text(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")


def page(
    title: str,
    state: bytes | dict[str, Any],
    plain: str,
    start: str = "standalone.js",
    sheets: Sequence[str] = (),
) -> str:
    """One HTML file: the modules, their style, the state, and `plain`, HTML for where no scripts run.

    state    bytes, or what JSON holds
    start    the module that runs
    sheets   style sheets beside the explorer's
    """
    return _text("page.html").format(
        title=html.escape(title),
        style=style(*sheets),
        plain=plain,
        state=base64.b64encode(state).decode() if isinstance(state, bytes) else _safe(state),
        code=module(start),
    )


def _safe(state: dict[str, Any]) -> str:
    """JSON that can't end the element it stands in."""
    return json.dumps(state).replace("<", "\\u003c")
