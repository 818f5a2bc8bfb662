"""Pages that live without Python, as modules for any browser: a training step, a network on photographs."""

from pathlib import Path

from tinysqueeze.files import write_atomically
from tinysqueeze.show.page.html import module, page, style
from tinysqueeze.show.page.notebook import below_cell, widget
from tinysqueeze.show.page.of_weights import small_network, step_of
from tinysqueeze.show.page.photo import photo_page, small_file
from tinysqueeze.show.page.plain import plain, preformatted, words
from tinysqueeze.show.page.state import PLAIN_LOOK, Look, pack
from tinysqueeze.study.stepper import Steps

__all__ = [
    "PLAIN_LOOK", "Look", "below_cell", "module", "pack", "page", "photo_page", "plain", "preformatted",
    "save", "small_file", "small_network", "step_of", "style", "whole", "widget", "words",
]  # fmt: skip


def whole(steps: Steps, look: Look = PLAIN_LOOK) -> str:
    """A whole training step as one HTML page: the explorer, for any browser, offline.

    Raises ShapeError where the network's layers don't fit the images.
    """
    return page(f"A training step of {steps.name}", pack(steps, look), plain(steps, look))


def save(steps: Steps, path: str | Path, look: Look = PLAIN_LOOK) -> None:
    """Write that page. Raises UserError where the file can't be written."""
    write_atomically(path, whole(steps, look).encode())
