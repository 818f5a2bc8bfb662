"""The lessons as notebooks: a teacher's edition, a student's without solutions, a class's results.

The notebooks come with the package. A cell's tags say what it is: `exercise` is a question's code, and
`solution` its answer or a word on it, which students do not get.
"""

import json
import re
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, metadata
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from tinysqueeze.errors import UserError
from tinysqueeze.files import check_folder, write_together
from tinysqueeze.show.lessons.plan import contents
from tinysqueeze.show.lessons.slides import as_slides

Edition = Literal["student", "teacher"]
Notebook = dict[str, Any]
CHECKED = re.compile(r"""\bcheck\(\s*["']([a-z0-9-]+)["']""")
MARKS = {"✔": "right", "✘": "wrong", "○": ""}  # what a `Verdict` begins with
DATA, PAGES = ("results", "figures"), ("glossary.md", "lesson_map.md", "teaching.md", "LICENSE.md")
SETUP = """\
# Where tinysqueeze is missing (on Colab, for instance), this installs it.
import importlib.util

if importlib.util.find_spec("tinysqueeze") is None:
    %pip install -q "tinysqueeze[notebook]"
"""


def folder() -> Path:
    """Where the lessons lie: inside the installed package, or beside it in a checkout."""
    package = Path(str(files("tinysqueeze")))
    for place in (package / "notebooks", package.parent / "notebooks"):
        if any(place.glob("*.ipynb")):
            return place
    raise UserError(
        "this installation has no lessons; install tinysqueeze from a wheel or a checkout"
    )


def write_lessons(target: Path, edition: Edition = "student", force: bool = False) -> list[Path]:
    """Write all lessons, and the data that they read, to the folder `target`; returns the notebooks.

    Raises UserError, before anything is written, where that would overwrite a notebook (somebody may
    have worked in it) and `force` is not given.
    """
    source = folder()
    lessons = sorted(source.glob("*.ipynb"))
    there = [path.name for path in lessons if (target / path.name).exists()]
    if there and not force:
        raise UserError(
            f"{target} holds {there[0]}{f' and {len(there) - 1} more' if there[1:] else ''} already: "
            "name another folder, or say --force to overwrite"
        )
    check_folder(target)
    data = [path for name in DATA for path in (source / name).rglob("*") if path.is_file()]
    copied = [*data, *(source / page for page in PAGES)]
    written = {target / path.relative_to(source): path.read_bytes() for path in copied}
    written[target / "index.md"] = contents().encode()
    for path in lessons:
        notebook = edited(json.loads(path.read_text(encoding="utf-8")), edition, badges(path.name))
        text = json.dumps(notebook, ensure_ascii=False, indent=1) + "\n"
        written[target / path.name] = text.encode()
    for folder_of_it in {path.parent for path in written}:
        folder_of_it.mkdir(parents=True, exist_ok=True)
    write_together(written)
    return [target / path.name for path in lessons]


def edited(notebook: Notebook, edition: Edition, top: str = "") -> Notebook:
    """One notebook for students or teachers, with slides and a cell that installs; `top` goes above all."""
    cells = notebook["cells"]
    if edition == "student":
        cells = [_unanswered(cell) for cell in cells if "solution" not in _tags(cell)]
    setup: dict[str, Any] = {"cell_type": "code", "id": "setup", "metadata": {"tags": ["setup"]},
             "execution_count": None, "outputs": [], "source": SETUP}  # fmt: skip
    first, *others = as_slides([cells[0], setup, *cells[1:]])
    if top:
        first = first | {"source": top + "".join(first["source"])}
    return notebook | {"cells": [first, *others]}


def _tags(cell: dict[str, Any]) -> list[str]:
    return cell["metadata"].get("tags", [])


def _unanswered(cell: dict[str, Any]) -> dict[str, Any]:
    answered = "exercise" in _tags(cell)
    return cell | {"outputs": [], "execution_count": None} if answered else cell


def class_results(place: Path) -> dict[str, dict[str, str]]:
    """What `check` said in each student's saved notebooks: {student: {exercise: right, wrong or ""}}.

    A student is a folder inside `place`, or a notebook that lies there by itself. An exercise counts as
    right if any saved run of it was. Raises UserError where there is no notebook.
    """
    found: dict[str, dict[str, str]] = {}
    for path in sorted(place.rglob("*.ipynb")):
        inside = path.relative_to(place)
        if any(part.startswith(".") for part in inside.parts):
            continue
        student = inside.parts[0] if len(inside.parts) > 1 else inside.stem
        results = found.setdefault(student, {})
        for name, verdict in _verdicts(path):
            if results.get(name) != "right":
                results[name] = verdict
    if not found:
        raise UserError(f"{place}: no notebook in there; expected a folder for each student")
    return found


def _verdicts(path: Path) -> Iterator[tuple[str, str]]:
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        for cell in cells:
            names = CHECKED.findall("".join(cell["source"]))
            if cell["cell_type"] == "code" and names and "solution" not in _tags(cell):
                yield names[-1], _said(cell["outputs"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: this is not a notebook ({error})") from error


def _said(outputs: list[dict[str, Any]]) -> str:
    shown = (
        "".join(output.get("text") or output.get("data", {}).get("text/plain", ""))
        for output in outputs
    )
    marks = [MARKS[line[0]] for text in shown for line in text.splitlines() if line[:1] in MARKS]
    return marks[-1] if marks else ""


def badges(name: str) -> str:
    """Markdown that opens a lesson on Colab and Binder; empty as long as the project has no address."""
    where = re.fullmatch(r"https://github\.com/([\w.-]+/[\w.-]+?)(\.git)?/?", _address())
    if not where:
        return ""
    colab = f"https://colab.research.google.com/github/{where[1]}/blob/main/notebooks/{name}"
    binder = f"https://mybinder.org/v2/gh/{where[1]}/main?labpath=notebooks/{name}"
    return (
        f"[![Open in Colab](https://colab.research.google.com/assets/colab-badge.svg)]({colab}) "
        f"[![Open in Binder](https://mybinder.org/badge_logo.svg)]({binder})\n\n"
    )


def _address() -> str:
    """Where the project says that its code is (`project.urls` of pyproject.toml); empty if nowhere."""
    try:
        urls = metadata("tinysqueeze").get_all("Project-URL") or []
    except PackageNotFoundError:
        return ""
    named = dict(url.split(", ", 1) for url in urls)
    return next((named[key] for key in ("Source", "Repository", "Homepage") if key in named), "")
