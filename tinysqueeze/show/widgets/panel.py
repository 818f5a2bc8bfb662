"""A panel: controls around pure functions. A browser drags it without Python; else it is a picture."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tinysqueeze.errors import UserError
from tinysqueeze.files import write_atomically
from tinysqueeze.show import page
from tinysqueeze.show.pictures.style import Picture

SHEET = "sliders.css"
HEIGHT = 560  # pixels of its frame, until it knows better


@dataclass(frozen=True)
class Slider:
    """A number between `low` and `high`, dragged in steps."""

    label: str
    low: float
    high: float
    step: float
    start: float


@dataclass(frozen=True)
class Choice:
    """One of some options."""

    label: str
    options: tuple[Any, ...]
    start: Any


@dataclass(frozen=True)
class Panel:
    """Controls by name, and two pure functions of their values: `tell` gives text, `draw` a picture.

    `at(**values)` calls both headless. In a browser the module panels.js counts and draws the same
    under `key`, without Python (a test holds its words to ours); `data` is what it can't count itself.
    Below a notebook's cell the panel is live, with a kernel or without; where no scripts run, and in
    `save`'s file too, it is the text and the picture of its starting values.
    """

    key: str
    title: str
    controls: Mapping[str, Slider | Choice]
    tell: Callable[..., str]
    draw: Callable[..., Picture]
    data: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def start(self) -> dict[str, Any]:
        """The values that the controls start at."""
        return {name: control.start for name, control in self.controls.items()}

    def at(self, **values: Any) -> tuple[str, Picture]:
        """Text and picture at the given values, the rest as at the start.

        Raises UserError for a control that the panel does not have.
        """
        unknown = set(values) - set(self.controls)
        if unknown:
            known = ", ".join(self.controls)
            raise UserError(f"{self.title} has no control {unknown.pop()!r}; there are {known}")
        values = self.start | values
        return self.tell(**values), self.draw(**values)

    def save(self, path: str | Path) -> None:
        """Write the panel as one HTML file, for any browser, offline.

        Raises UserError where it can't be written.
        """
        write_atomically(path, self._page(*self.at()).encode())

    def widget(self) -> Any:
        """The panel as a widget: its `values`, by control, follow the sliders, and can be set.

        Saved and opened again without its kernel it is as it was left, and its sliders live. Raises
        MissingExtra where anywidget is not installed.
        """
        text, picture = self.at()
        what = "the sliders as a widget"
        return page.widget("slider_widget.js", what, picture, text, SHEET, **self._state())

    def _state(self) -> dict[str, Any]:
        """What the module sliders.js begins with."""
        controls = [{"name": name} | vars(control) for name, control in self.controls.items()]
        about = {"name": self.key, "title": self.title, "controls": controls, "data": self.data}
        return {"panel": about, "values": self.start}

    def _page(self, text: str, picture: Picture) -> str:
        plain = f"<h1>{self.title}</h1>{picture.html()}{page.preformatted(text)}"
        return page.page(self.title, self._state(), plain, "slider_page.js", (SHEET,))

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        text, picture = self.at()
        data, about = picture._repr_mimebundle_()
        data["text/plain"] = f"{text}\n{picture!r}"
        data["text/html"] = page.below_cell(
            self._page(text, picture), self.title, picture, text, HEIGHT
        )
        return data, about
