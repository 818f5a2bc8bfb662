"""The modules as one: what a notebook's widget imports, and a page in one file that works offline."""

import base64
import html
import json
import re
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
IMPORT = re.compile(r'^import \{[^}]*\} from "\./([\w-]+\.js)";\n', re.MULTILINE)
EXPORT = re.compile(r"^export (?!default)", re.MULTILINE)


@cache
def module(start: str) -> str:
    """A module and all that it imports as one text, those first that others need.

    Our modules import by name, from files beside them, and no two define the same name: then joining
    is leaving out the imports.
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
    return "\n".join([*parts, IMPORT.sub("", _text(start))])


def style() -> str:
    """The style sheet of all modules."""
    return _text("style.css")


@cache
def _text(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")


def page(title: str, state: bytes | dict[str, Any], plain: str) -> str:
    """One HTML file: modules, style, state, and `plain`, HTML for where no scripts run.

    `state` is a packed step for the explorer, or what a panel of sliders begins with.
    """
    if isinstance(state, dict):
        text, start = _safe(json.dumps(state)), "slider_page.js"
    else:
        text, start = base64.b64encode(state).decode(), "standalone.js"
    return _text("page.html").format(
        title=html.escape(title),
        style=style(),
        plain=plain,
        state=text,
        code=module(start),
    )


def _safe(text: str) -> str:
    """JSON that can't end the element it stands in."""
    return text.replace("<", "\\u003c")
