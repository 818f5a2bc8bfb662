"""A panel: controls around a pure function. With ipywidgets one drags it; without, it is a picture."""

import html
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tinysqueeze.errors import UserError, missing_extra
from tinysqueeze.show.pictures.style import Picture

Shown = tuple[str, Picture]  # what a panel's function gives: text, and a picture


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


@dataclass
class Panel:
    """Controls by name, and `show(**values)`, a pure function that gives text and a picture.

    `at(**values)` calls it headless. In a notebook with ipywidgets the panel is live; everywhere
    else, and in saved outputs, it is the picture of its starting values.
    """

    controls: Mapping[str, Slider | Choice]
    show: Callable[..., Shown]
    name: str = "panel"
    _live: Any = field(default=None, repr=False)

    @property
    def start(self) -> dict[str, Any]:
        """The values that the controls start at."""
        return {name: control.start for name, control in self.controls.items()}

    def at(self, **values: Any) -> Shown:
        """Text and picture at the given values, the rest as at the start.

        Raises UserError for a control that the panel does not have.
        """
        unknown = set(values) - set(self.controls)
        if unknown:
            known = ", ".join(self.controls)
            raise UserError(f"{self.name} has no control {unknown.pop()!r}; there are {known}")
        return self.show(**(self.start | values))

    def live(self) -> Any:
        """The panel as an ipywidgets box. Raises MissingExtra where ipywidgets is not installed."""
        if self._live is None:
            self._live = _box(self)
        return self._live

    def _repr_mimebundle_(self, **how: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        text, picture = self.at()
        data, about = picture._repr_mimebundle_()
        data["text/plain"] = f"{text}\n{picture!r}"
        try:
            box = self.live()
        except ImportError as error:
            data["text/plain"] += f"\n[{error}]"
            return data, about
        return data | {
            k: v for k, v in box._repr_mimebundle_(**how).items() if "widget" in k
        }, about


def as_html(text: str) -> str:
    """Plain text for a browser, its lines and columns kept."""
    style = (
        "white-space:pre-wrap;font-family:monospace;font-size:13px;line-height:1.45;margin:4px 0"
    )
    return f'<pre class="tinysqueeze-text" style="{style}">{html.escape(text)}</pre>'


def ipywidgets() -> Any:
    """The library of live controls. Raises MissingExtra, naming the extra, where it is missing."""
    try:
        import ipywidgets
    except ImportError:
        raise missing_extra("notebook", "dragging the sliders") from None
    return ipywidgets


def _control(widgets: Any, name: str, control: Slider | Choice) -> Any:
    layout, style = {"width": "440px"}, {"description_width": "190px"}
    if isinstance(control, Choice):
        made = widgets.Dropdown(
            options=control.options, value=control.start, description=control.label
        )
    else:
        whole = float(control.step).is_integer()
        kind = widgets.IntSlider if whole else widgets.FloatSlider
        made = kind(
            value=control.start,
            min=control.low,
            max=control.high,
            step=control.step,
            description=control.label,
        )
    made.layout, made.style = layout, style
    made.add_class(f"tinysqueeze-{name.replace('_', '-')}")
    return made


def _box(panel: Panel) -> Any:
    widgets = ipywidgets()
    controls = {name: _control(widgets, name, c) for name, c in panel.controls.items()}
    text, picture = widgets.HTML(), widgets.HTML()

    def redraw(_: Any = None) -> None:
        try:
            words, drawn = panel.show(**{name: c.value for name, c in controls.items()})
            text.value, picture.value = as_html(words), drawn.html()
        except UserError as error:  # a setting that the network refuses: say why, keep the picture
            text.value = as_html(str(error))

    for control in controls.values():
        control.observe(redraw, names="value")
    redraw()
    return widgets.VBox([*controls.values(), text, picture])
