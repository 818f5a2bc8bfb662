"""How the site is built: `sphinx-build -W -b html notebooks OUT`, from the notebooks and docstrings.

The landing page holds the explorer, live; a page for each module is written to notebooks/api. Where the
authors' weights are in the cache, or TINYSQUEEZE_WEIGHTS names a file of any, a page of them comes with it.
"""

import ast
import os
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from docutils import nodes
from docutils.parsers.rst import Directive

import tinysqueeze
from tinysqueeze.data.remote import cache_folder
from tinysqueeze.show.page import photo_page, small_file
from tinysqueeze.show.widgets import Stepper
from tinysqueeze.weights import SOURCES, open_weights

project = "tinysqueeze"
author = "The tinysqueeze authors"
copyright = "The tinysqueeze authors"
release = tinysqueeze.__version__
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.viewcode"]
exclude_patterns = ["figures", "_build", "api/list.md", "**.ipynb_checkpoints"]
html_theme = "furo"
html_title = "tinysqueeze"
html_static_path: list[str] = []

nb_execution_mode = "off"  # the committed outputs; tests run the notebooks
nb_mime_priority_overrides = [("html", "image/gif", 15)]
myst_heading_anchors = 3
myst_enable_extensions = ["dollarmath"]

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_default_options = {"members": True, "exclude-members": "set"}
autodoc_mock_imports = ["jax", "mpi4py", "ncnn", "openvino", "torch"]
suppress_warnings = [
    "ref.python"
]  # `bytes` in a signature is the type, not an attribute of that name
pygments_style = "a11y-high-contrast-light"
pygments_dark_style = "monokai"


def _escaped(line: str) -> str:
    parts = line.split("`")
    plain = [re.sub(r"([\\*|_])", r"\\\1", part) for part in parts]
    return "".join(f"``{p}``" if i % 2 and p else plain[i] for i, p in enumerate(parts))


def _plain_to_rst(app, what, name, obj, options, lines: list[str]) -> None:
    """Docstrings here are plain prose with `code` and indented blocks: make that valid RST."""
    found: list[str] = []
    inside = False  # an indented block
    for line in lines:
        if line.strip() and line.startswith("  ") != inside:
            inside = not inside
            found += ["", "::", ""] if inside else [""]
        found.append(line if inside else _escaped(line))
    lines[:] = found


ROOMS = {  # in reading order; what is in none of them all rooms use
    "network": "The evening: what a convolutional network is",
    "study": "Looking at one step",
    "data": "Datasets and batches",
    "graph": "A network as one list of nodes",
    "kernels": "What the compiled plan runs",
    "devices": "Memory, integers, C",
    "compiled": "The fast engine",
    "training": "Training",
    "weights": "Weights from outside, and out again",
    "paper": "The paper's experiments, re-run",
    "bench": "How fast",
    "show": "Pictures, pages, what is dragged, lessons",
    "": "What all rooms use",
}
PAGE = "{name}\n{line}\n\n.. automodule:: {name}\n   :ignore-module-all:\n"


def _write_api() -> None:
    """A page for each module, and the list of them by rooms, each with its first line."""
    package = Path(tinysqueeze.__file__).parent
    by_room: dict[str, list[str]] = {room: [] for room in ROOMS}
    first: dict[str, str] = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package).with_suffix("").parts
        if parts[0] == "cli" or parts[-1] == "__main__" or parts == ("__init__",):
            continue
        name = ".".join(("tinysqueeze", *parts)).removesuffix(".__init__")
        by_room[parts[0] if parts[0] in ROOMS else ""].append(name)
        about = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        first[name] = about.splitlines()[0]
    here = Path(__file__).parent / "api"
    here.mkdir(exist_ok=True)
    lines = []
    for room, title in ROOMS.items():
        lines += [f"## {title}", ""]
        for name in by_room[room]:
            lines.append(f"- [{name}](api/{name}.rst): {first[name]}")
            (here / f"{name}.rst").write_text(PAGE.format(name=name, line="=" * len(name)))
        names = [f"api/{name}" for name in by_room[room]]
        lines += ["", "```{toctree}", ":hidden:", "", *names, "```", ""]
    (here / "list.md").write_text("\n".join(lines), encoding="utf-8")


_write_api()


class Explorer(Directive):
    """The explorer of the small network's training step, live, and its numbers as text."""

    def run(self) -> list[nodes.Node]:
        """What stands in the page."""
        data, _ = Stepper.of()._repr_mimebundle_()
        return [nodes.raw("", data["text/html"], format="html")]


AUTHORS = "squeezenet1_0_compressed"
PHOTO = "photograph.html"


def photo_link(out: Path) -> str:
    """HTML: a link to the page that takes a photograph, made in `out` of weights that are here, if any."""
    given = os.environ.get("TINYSQUEEZE_WEIGHTS")
    file = Path(given or cache_folder() / SOURCES[AUTHORS].file.name)
    if not given and not file.exists():
        return f"<p>A network on your own photograph: <code>tinysqueeze page {AUTHORS}</code> writes it.</p>"
    weights, packed = small_file(file, open_weights(file, download=False))
    (out / PHOTO).write_text(photo_page(weights, packed), encoding="utf-8")
    return f'<p><a href="{PHOTO}">{weights.model.name} on your own photograph</a>, in your browser, too.</p>'


class Photograph(Directive):
    """That link, or how to make such a page."""

    def run(self) -> list[nodes.Node]:
        """What stands in the page."""
        out = Path(self.state.document.settings.env.app.outdir)
        return [nodes.raw("", photo_link(out), format="html")]


def _levels(app, page, template, context: dict, doctree) -> None:
    """Sphinx makes the captions of its lists headings, and leaves out of which level."""
    for name, value in context.items():
        if isinstance(value, str):
            context[name] = value.replace('role="heading">', 'role="heading" aria-level="2">')


def setup(app) -> None:
    """Sphinx calls this."""
    app.connect("html-page-context", _levels, priority=900)  # after the theme has made its menu
    app.add_directive("explorer", Explorer)
    app.add_directive("photograph", Photograph)
    app.connect("autodoc-process-docstring", _plain_to_rst)
