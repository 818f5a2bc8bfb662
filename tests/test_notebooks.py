"""The lessons: each runs from an empty kernel in any folder, its solutions pass, its outputs are small."""

import ast
import json
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

import tinysqueeze as ts

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")

ROOT = Path(__file__).parents[1]
execute = runpy.run_path(str(ROOT / "notebooks" / "execute.py"))
tidy, LARGEST = execute["tidy"], execute["LARGEST"]
LESSONS = sorted((ROOT / "notebooks").glob("*.ipynb"))
CHECKED = re.compile(r'check\(\s*"([a-z0-9-]+)"')
QUICK = ("00", "08")  # the others are slow together
WIDGET = "application/vnd.jupyter.widget-view+json"
ROOMS = {  # beside the face itself: what a lesson may import from
    *(f"tinysqueeze.{name}" for name in (
        "devices", "kernels", "network", "network.ops", "paper", "show", "study", "training", "weights",
        "weights.compression", "show.lessons", "show.pictures", "show.widgets",
    )),
    "tinysqueeze.devices.c",
}  # fmt: skip
DRAWINGS = "tinysqueeze.show.pictures."  # a picture may come from the file that draws it

every_lesson = pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)


def read(path: Path):
    return nbformat.read(path, as_version=4)


def execute(notebook, folder: Path, monkeypatch):
    """Run it from an empty kernel in `folder`; the cells' outputs are in the notebook."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    nbclient.NotebookClient(notebook, timeout=300, kernel_name="python3").execute(cwd=folder)
    return notebook


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def tagged(notebook, tag: str):
    return [cell for cell in code_cells(notebook) if tag in cell.metadata.get("tags", [])]


def text_of(cell) -> str:
    """All that a cell printed or showed as text; in how many pieces it came is chance."""
    printed = "".join(output.get("text", "") for output in cell.outputs)
    shown = [output.get("data", {}).get("text/plain", "") for output in cell.outputs]
    return "\n".join([printed, *shown])


@pytest.mark.filterwarnings("default")  # Jupyter's own
@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, id=path.stem, marks=[] if path.name[:2] in QUICK else pytest.mark.slow)
        for path in LESSONS
    ],
)
def test_runs_from_an_empty_kernel_and_its_solutions_pass(path, tmp_path, monkeypatch):
    shared = ROOT.parent / "shared" / "data"
    if path.stem.startswith("13") and not shared.exists():
        pytest.skip(f"no real data at {shared}: lesson 13 needs the authors' weights")
    monkeypatch.setenv("TINYSQUEEZE_SHARED", str(shared))
    notebook, committed = execute(read(path), tmp_path, monkeypatch), read(path)
    for cell in tagged(notebook, "solution"):
        if CHECKED.search(cell.source):
            assert "✔ right" in text_of(cell), text_of(cell)
    tidy(notebook, path.stem)
    for now, before in zip(code_cells(notebook), code_cells(committed), strict=True):
        assert told(now) == told(before), f"run notebooks/execute.py {path.stem[:2]}"


def told(cell) -> str:
    """What a cell says; where it is tagged `varies` (timings, what rounding decides) without numbers."""
    text = re.sub(r"\s*\n\s*", "\n", text_of(cell)).strip()
    return (
        re.sub(r" *[-−+]?\d[\d.,e+-]* *", " # ", text)
        if "varies" in cell.metadata.get("tags", [])
        else text
    )


@every_lesson
def test_committed_outputs_are_complete_and_small(path):
    assert path.stat().st_size < LARGEST
    for cell in code_cells(read(path)):
        assert cell.execution_count, cell.source
        for output in cell.outputs:
            assert output.output_type != "error", cell.source
            assert WIDGET not in output.get("data", {}), "an empty box without its kernel"
            assert "/work/" not in json.dumps(output), "no paths of a machine"


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_what_the_face_has_comes_from_the_face(path):
    """`import tinysqueeze as ts`, a few named rooms, and nothing from files deep inside."""
    code = "\n".join(cell.source for cell in code_cells(read(path)))
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            ours = [alias for alias in node.names if alias.name.startswith("tinysqueeze")]
            assert all((a.name, a.asname) == ("tinysqueeze", "ts") for a in ours)
        elif isinstance(node, ast.ImportFrom) and str(node.module).startswith("tinysqueeze"):
            assert node.module in ROOMS or str(node.module).startswith(DRAWINGS), node.module
            face = {alias.name for alias in node.names} & set(ts.__all__)
            assert not face, f"{node.module}: import tinysqueeze as ts, and take {face} from there"


@every_lesson
def test_the_source_that_it_shows_is_the_packages_own(path):
    """Without running the rest: what is imported, then each `source(...)`."""
    trees = [(cell, ast.parse(cell.source.replace("%pip", "#"))) for cell in code_cells(read(path))]
    names: dict = {}
    for _, tree in trees:
        imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
        exec(compile(ast.Module(imports, []), path.name, "exec"), names)
    for cell, tree in trees:
        last = tree.body[-1]
        if isinstance(last, ast.Expr) and ast.unparse(last).startswith("source("):
            shown = eval(compile(ast.Expression(last.value), path.name, "eval"), names)
            assert repr(shown).strip() in text_of(cell), f"run notebooks/execute.py {path.stem[:2]}"


@every_lesson
def test_every_picture_has_alternative_text(path):
    for cell in code_cells(read(path)):
        for output in cell.outputs:
            for kind in output.get("data", {}):
                if kind.startswith("image/"):
                    assert len(output.metadata[kind]["alt"]) > 15, cell.source
                    assert len(cell.metadata.mystnb.image.alt) > 15, cell.source


@every_lesson
def test_has_a_picture_source_an_assert_and_exercises_with_solutions(path):
    notebook = read(path)
    code = "\n".join(cell.source for cell in code_cells(notebook))
    assert "assert " in code
    assert any(
        kind.startswith("image/")
        for cell in code_cells(notebook)
        for output in cell.outputs
        for kind in output.get("data", {})
    )
    asked, solved = (
        [name for cell in tagged(notebook, tag) for name in CHECKED.findall(cell.source)]
        for tag in ("exercise", "solution")
    )
    assert asked == solved
    assert asked or "check" not in code


@every_lesson
def test_links_lead_somewhere(path):
    text = "\n".join(cell.source for cell in read(path).cells if cell.cell_type == "markdown")
    for target in re.findall(r"\]\(([^)#:]+\.ipynb)", text):
        assert (path.parent / target).exists(), target


def test_every_exercise_is_asked_once():
    from tinysqueeze.show.lessons import EXERCISES

    asked = [
        name
        for path in LESSONS
        for c in tagged(read(path), "exercise")
        for name in CHECKED.findall(c.source)
    ]
    assert sorted(asked) == sorted(EXERCISES)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_without_the_authors_weights_lesson_13_stops_in_a_line(tmp_path, monkeypatch):
    monkeypatch.setenv("TINYSQUEEZE_SHARED", str(tmp_path))
    monkeypatch.setenv("TINYSQUEEZE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")  # where nobody answers
    notebook = read(next(path for path in LESSONS if path.name.startswith("13")))
    for cell in code_cells(notebook):
        cell.outputs = []
    with pytest.raises(nbclient.exceptions.CellExecutionError):
        execute(notebook, tmp_path, monkeypatch)
    first, *others = code_cells(notebook)
    (error,) = [output for output in first.outputs if output.output_type == "error"]
    said = "\n".join(error.traceback)
    assert said.startswith("This lesson stops here: it needs the authors' Deep Compression file")
    assert "cannot download compressed_SqueezeNet.net" in said
    assert "Traceback" not in said
    assert not any(cell.outputs for cell in others)


# ------------------------------------------------------------------------------- the site

MAP = ROOT / "notebooks" / "lesson_map.md"
ROWS = [
    line.strip("|\n").split(" | ") for line in MAP.read_text().splitlines() if line[:2] == "| "
][1:]


def slug(heading: str) -> str:
    """The anchor of a heading, as GitHub and MyST make it."""
    return re.sub(r"[^\w -]", "", heading.strip().lower()).replace(" ", "-")


def sections(path: Path) -> dict[str, int]:
    """Each heading's anchor, and how many code cells with an output stand under it."""
    found: dict[str, int] = {}
    for cell in read(path).cells:
        if cell.cell_type == "markdown":
            for line in cell.source.splitlines():
                if line.startswith("#"):
                    found[anchor := slug(line.lstrip("#"))] = 0
        elif cell.outputs or "assert" in cell.source:
            found[anchor] += 1
    return found


@pytest.mark.parametrize(("statement", "where"), ROWS, ids=[row[0].strip()[:50] for row in ROWS])
def test_each_statement_of_the_lesson_is_demonstrated_where_the_map_says(statement, where):
    targets = re.findall(r"\]\(([^)#]+\.ipynb)#([^)]+)\)", where)
    assert targets, statement
    for name, anchor in targets:
        assert sections(MAP.parent / name).get(anchor), f"{name}#{anchor} shows nothing"


def test_no_statement_of_the_lesson_is_missing(shared_data):
    lesson = shared_data.parent / "design" / "squeezenet-lesson.md"
    if not lesson.exists():
        pytest.skip(f"no {lesson}")

    def plain(text: str) -> str:
        return re.sub(r"[^a-z0-9=]", "", text.lower().replace("&gt;", ">").replace("_", ""))

    mapped = plain("\n".join(row[0] for row in ROWS))
    said = re.findall(r"^(?:\* |> )(.+)$", lesson.read_text(), re.MULTILINE)
    statements = [text for text in said if not text.startswith("[")]  # links to papers
    assert len(statements) > 40
    assert not [text for text in statements if plain(text) not in mapped]
    pictures = re.findall(r"gitbook/assets/(\w+)", lesson.read_text())
    assert len(pictures) == sum(row[0].strip().startswith("picture:") for row in ROWS)


@pytest.mark.slow
def test_the_site_builds_without_a_warning_and_every_figure_has_alt_text(tmp_path):
    pytest.importorskip("sphinx")
    pytest.importorskip("myst_nb")
    command = [
        sys.executable,
        "-m",
        "sphinx",
        "-W",
        "-q",
        "-b",
        "html",
        ROOT / "notebooks",
        tmp_path,
    ]
    built = subprocess.run(command, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    for page in tmp_path.glob("*.html"):
        figures = re.findall(r"<img[^>]*_images/[^>]*>", page.read_text())
        for image in figures:
            assert re.search(r'alt="[^"]{10,}"', image), f"{page.name}: {image[:200]}"
        assert figures or page.name[:2] not in {path.name[:2] for path in LESSONS}
    assert "class_activation_map" in (tmp_path / "api/tinysqueeze.show.inside.html").read_text()
    landing, lesson = (
        (tmp_path / f"{name}.html").read_text() for name in ("index", "08_fire_module")
    )
    for text, said in ((landing, "→ conv1"), (lesson, "Strategy 2 holds")):
        assert "<iframe" in text  # live
        outside = re.sub("<iframe.*?</iframe>", "", text, flags=re.DOTALL)
        assert said in outside  # and told in the page's own text
