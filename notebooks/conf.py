"""How the site is built: `sphinx-build -W -b html notebooks OUT`, from the notebooks and docstrings.

The landing page holds the explorer, live; a page for each module of api.md is written to notebooks/api.
"""

import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from docutils import nodes
from docutils.parsers.rst import Directive

import tinysqueeze
from tinysqueeze.show.widgets import Stepper

project = "tinysqueeze"
author = "The tinysqueeze authors"
copyright = "The tinysqueeze authors"
release = tinysqueeze.__version__
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.autosummary", "sphinx.ext.viewcode"]
templates_path = ["_templates"]
exclude_patterns = ["figures", "_build", "_templates", "**.ipynb_checkpoints"]
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
autodoc_mock_imports = ["mpi4py", "jax", "torch"]
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


class Explorer(Directive):
    """The explorer of the small network's training step, live, and its numbers as text."""

    def run(self) -> list[nodes.Node]:
        """What stands in the page."""
        data, _ = Stepper.of()._repr_mimebundle_()
        return [nodes.raw("", data["text/html"], format="html")]


def _levels(app, page, template, context: dict, doctree) -> None:
    """Sphinx makes the captions of its lists headings, and leaves out of which level."""
    for name, value in context.items():
        if isinstance(value, str):
            context[name] = value.replace('role="heading">', 'role="heading" aria-level="2">')


def setup(app) -> None:
    """Sphinx calls this."""
    app.connect("html-page-context", _levels, priority=900)  # after the theme has made its menu
    app.add_directive("explorer", Explorer)
    app.connect("autodoc-process-docstring", _plain_to_rst)
