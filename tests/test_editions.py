"""`tinysqueeze lessons`: both editions from the package's notebooks, and a class's results read back."""

import json
import re
from pathlib import Path

import pytest

from tinysqueeze.cli import main
from tinysqueeze.errors import UserError
from tinysqueeze.show.lessons import EXERCISES, editions, plan

LESSONS = sorted(path.name for path in editions.folder().glob("*.ipynb"))


def cells(path: Path):
    return json.loads(path.read_text(encoding="utf-8"))["cells"]


def code_of(path: Path, tag: str) -> list[str]:
    tagged = (c for c in cells(path) if tag in c["metadata"].get("tags", []))
    return ["".join(c["source"]) for c in tagged if c["cell_type"] == "code"]


def test_the_student_edition_holds_no_solution(tmp_path, capsys):
    assert main(["lessons", str(tmp_path / "class")]) == 0
    assert "20 lessons, student edition" in capsys.readouterr().out
    asked = []
    for name in LESSONS:
        student = tmp_path / "class" / name
        text = student.read_text(encoding="utf-8")
        assert "✔ right" not in text
        assert not code_of(student, "solution")
        every = "\n\n".join("".join(cell["source"]) for cell in cells(student))
        for solution in code_of(editions.folder() / name, "solution"):
            assert solution not in every
        asked += editions.CHECKED.findall("\n".join(code_of(student, "exercise")))
    assert sorted(asked) == sorted(EXERCISES)
    assert (tmp_path / "class" / "results" / "recipes.csv").exists()


def test_the_teacher_edition_has_every_solution_in_a_cell_of_its_own(tmp_path):
    editions.write_lessons(tmp_path, "teacher")
    solved = [n for name in LESSONS for code in code_of(tmp_path / name, "solution")
              for n in editions.CHECKED.findall(code)]  # fmt: skip
    assert sorted(solved) == sorted(EXERCISES)


def test_links_inside_an_edition_lead_somewhere(tmp_path):
    editions.write_lessons(tmp_path)
    for path in [*tmp_path.glob("*.ipynb"), *tmp_path.glob("*.md")]:
        for target in re.findall(r"\]\(([\w.-]+\.(?:md|ipynb))", path.read_text(encoding="utf-8")):
            assert (tmp_path / target).exists(), f"{path.name}: {target}"


def test_every_notebook_begins_as_the_plan_says():
    assert [one.name + ".ipynb" for one in plan.LESSONS] == LESSONS
    for one in plan.LESSONS:
        first = cells(editions.folder() / f"{one.name}.ipynb")[0]
        assert "".join(first["source"]) == plan.header(one)


def test_the_first_code_cell_installs_what_is_missing(tmp_path):
    for path in editions.write_lessons(tmp_path):
        first = next(c for c in cells(path) if c["cell_type"] == "code")
        assert "%pip install" in first["source"]


def test_every_heading_begins_a_slide_and_a_question_stands_with_its_code(tmp_path):
    nbformat = pytest.importorskip("nbformat")
    for path in editions.write_lessons(tmp_path, "teacher"):
        nbformat.validate(nbformat.read(path, as_version=4))
        before = None
        for cell in cells(path):
            source = "".join(cell["source"])
            kind, tags = (
                cell["metadata"]["slideshow"]["slide_type"],
                cell["metadata"].get("tags", []),
            )
            if cell["cell_type"] == "markdown":
                headings = re.findall(r"^#+ ", source, re.MULTILINE)
                assert (kind == "slide") == bool(headings) == source.startswith("#"), source
                assert len(headings) <= 1
            assert ("setup" in tags) == (kind == "skip")
            assert ("solution" in tags) == (kind == "fragment")
            if "exercise" in tags:
                assert before == "markdown"
                assert kind == "-"
            before = cell["cell_type"]


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # nbconvert's own
def test_a_lesson_becomes_slides(tmp_path):
    nbconvert = pytest.importorskip("nbconvert")
    editions.write_lessons(tmp_path, "teacher")
    exporter = nbconvert.SlidesExporter(reveal_scroll=True)
    page, _ = exporter.from_filename(str(tmp_path / LESSONS[8]))
    kinds = [c["metadata"]["slideshow"]["slide_type"] for c in cells(tmp_path / LESSONS[8])]
    below = kinds.count("slide") + kinds.count("subslide")
    assert page.count("<section>") == kinds.count("slide") + below
    assert page.count('class="fragment"') == kinds.count("fragment") == 3
    assert "%pip install" not in page


def test_cutting_a_text_at_its_headings_keeps_every_line():
    text = "before\n\n## One\n\na\n```\n# no heading\n```\n### Two\nb\n"
    cell = {"cell_type": "markdown", "id": "00-01", "metadata": {}, "source": [text]}
    notebook = editions.edited({"cells": [cell]}, "student")
    parts = [c["source"] for c in notebook["cells"] if c["cell_type"] == "markdown"]
    assert parts == ["before", "## One\n\na\n```\n# no heading\n```", "### Two\nb"]
    kinds = [c["metadata"]["slideshow"]["slide_type"] for c in notebook["cells"]]
    assert kinds == ["-", "slide", "slide", "skip"]


def test_what_somebody_has_worked_in_is_not_overwritten(tmp_path, capsys):
    mine = tmp_path / LESSONS[3]
    mine.write_text("my answers")
    assert main(["lessons", str(tmp_path)]) == 1
    assert "--force" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == [LESSONS[3]]
    assert mine.read_text() == "my answers"
    assert main(["lessons", str(tmp_path), "--force"]) == 0
    assert mine.read_text() != "my answers"


def test_badges_wait_for_an_address(monkeypatch):
    assert editions.badges(LESSONS[0]) == ""  # there is none yet
    monkeypatch.setattr(editions, "_address", lambda: "https://github.com/some-one/tinysqueeze")
    text = editions.badges(LESSONS[0])
    assert (
        f"colab.research.google.com/github/some-one/tinysqueeze/blob/main/notebooks/{LESSONS[0]}"
        in text
    )
    assert "mybinder.org/v2/gh/some-one/tinysqueeze/main" in text
    notebook = {"cells": [{"cell_type": "markdown", "metadata": {}, "source": ["# Title"]}]}
    first = editions.edited(notebook, "student", text)["cells"][0]["source"]
    assert re.match(r"\[!\[Open in Colab\].*\n\n# Title", first, re.DOTALL)


def answered(path: Path, **said: str) -> None:
    """A saved notebook in which the checks said this."""
    made = [
        {
            "cell_type": "code", "metadata": {"tags": ["exercise"]}, "source": [f'check("{name}", 1)'],
            "outputs": [{"data": {"text/plain": [f"{text}: because"]}}] if text else [],
        }
        for name, text in said.items()
    ]  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"cells": made}), encoding="utf-8")


def test_a_class_as_a_table(tmp_path, capsys):
    answered(tmp_path / "ada" / "00.ipynb", kink="✔ right", overlap="✘ not yet", ceil="○ your turn")
    answered(tmp_path / "ada" / "01.ipynb", overlap="✔ right", stops="✘ not yet")
    answered(tmp_path / "bob" / "deep" / "00.ipynb", kink="✘ not yet", overlap="")
    answered(tmp_path / "eve.ipynb", kink="✔ right")
    answered(tmp_path / "ada" / ".ipynb_checkpoints" / "00.ipynb", stops="✔ right")
    assert editions.class_results(tmp_path) == {
        "ada": {"kink": "right", "overlap": "right", "ceil": "", "stops": "wrong"},
        "bob": {"kink": "wrong", "overlap": ""},
        "eve": {"kink": "right"},
    }
    table = tmp_path / "class.csv"
    assert main(["lessons", "--results", str(tmp_path), "-o", str(table)]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"^ada +2 +1 +1$", printed, re.MULTILINE)
    assert table.read_text().splitlines() == [
        "student,ceil,kink,overlap,stops", "ada,,right,right,wrong", "bob,,wrong,,", "eve,,right,,",
    ]  # fmt: skip


def test_what_is_no_notebook_is_named(tmp_path):
    with pytest.raises(UserError, match="no notebook in there"):
        editions.class_results(tmp_path)
    (tmp_path / "x.ipynb").write_text("{}")
    with pytest.raises(UserError, match=r"x\.ipynb: this is not a notebook"):
        editions.class_results(tmp_path)


def test_a_folder_or_results_not_both_nor_none(tmp_path, capsys):
    for arguments in ([], [str(tmp_path), "--results", str(tmp_path)], [str(tmp_path), "-o", "x"]):
        assert main(["lessons", *arguments]) == 2
        assert capsys.readouterr().err.startswith("tinysqueeze: ")
