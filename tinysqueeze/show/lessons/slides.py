"""Lessons as slides: every heading begins one, and the rule for what stands together on it."""

from itertools import chain
from typing import Any

Cell = dict[str, Any]


def as_slides(cells: list[Cell]) -> list[Cell]:
    """The cells with `slideshow` metadata, split so that a heading stands first in its cell.

    A heading begins a slide. Below it, a text stays together with the code after it; what follows on
    code begins a slide underneath. A solution comes in at a keypress, and the cell that installs is
    left out.
    """
    marked: list[Cell] = []
    after_code = False
    for cell in chain.from_iterable(map(_at_headings, cells)):
        kind = _kind(cell, after_code)
        marked.append(cell | {"metadata": cell["metadata"] | {"slideshow": {"slide_type": kind}}})
        if kind != "skip":
            after_code = cell["cell_type"] == "code"
    return marked


def _kind(cell: Cell, after_code: bool) -> str:
    tags = cell["metadata"].get("tags", [])
    if "setup" in tags:
        return "skip"
    if _source(cell).startswith("#") and cell["cell_type"] == "markdown":
        return "slide"
    if "solution" in tags:
        return "fragment"
    return "subslide" if after_code else "-"


def _at_headings(cell: Cell) -> list[Cell]:
    """A text cut before each of its headings; other cells as they are."""
    parts: list[list[str]] = [[]]
    fenced = False
    for line in _source(cell).splitlines(keepends=True):
        fenced ^= line.startswith("```")
        if line.startswith("#") and not fenced and "".join(parts[-1]).strip():
            parts.append([])
        parts[-1].append(line)
    if cell["cell_type"] != "markdown" or len(parts) == 1:
        return [cell]
    texts = ["".join(part).strip() for part in parts]
    own = cell.get("id", "text")
    return [cell | {"id": f"{own}-{i}", "source": text} for i, text in enumerate(texts)]


def _source(cell: Cell) -> str:
    return "".join(cell["source"])
