"""The stepper: a training step with pictures, and buttons: next, back, run to a layer, choose a pixel."""

from pathlib import Path
from typing import Any

import numpy as np

from tinysqueeze.show.page import PLAIN_LOOK, Look, save
from tinysqueeze.show.pictures.maps import feature_maps
from tinysqueeze.show.pictures.style import Picture
from tinysqueeze.show.widgets.panel import Choice, Panel, Shown, Slider, ipywidgets
from tinysqueeze.study.formulas import Place
from tinysqueeze.study.stepper import Steps


class Stepper(Steps):
    """`Steps` that can be seen: `picture()` for scripts; in a notebook buttons (with the notebook extra).

    Without that extra a notebook shows its picture.
    """

    def picture(self, at: Place | None = None, example: int = 0) -> Picture:
        """The arrays as images: maps as mosaics, vectors as bars, 3x3 weights as small tiles."""
        shown = {name: _as_maps(array) for name, array in self.arrays(example).items()}
        place = self.place(at)
        mark = (place[0], place[1], place[2]) if len(place) == 3 else None
        marked = "y" if self.stop.direction == "forward" else "dx"
        sign = {"forward": "forward through", "backward": "backward through", "loss": "the"}
        title = f"{sign[self.stop.direction]} {self.stop.path}"
        return feature_maps(shown, title[0].upper() + title[1:], mark, marked)

    def save(self, path: str | Path, look: Look = PLAIN_LOOK) -> None:
        """Write the whole step as one HTML file: the explorer, for any browser, offline.

        `look` names the classes and says how the images were prepared. Raises ShapeError where the
        network's layers don't fit the images.
        """
        save(self, path, look)

    def _repr_mimebundle_(self, **how: object) -> object:
        return StepperPanel(self)._repr_mimebundle_(**how)


def _as_maps(array: np.ndarray) -> np.ndarray:
    """Weights (KH, KW, C, F) as one map a filter, its channels joined; 1x1 ones as one C x F map."""
    if array.ndim == 4:
        height, width, channels, filters = array.shape
        if height * width == 1:
            return array.reshape(channels, filters, 1)
        return array.mean(axis=2)
    return array[:, :, None] if array.ndim == 2 else array


class StepperPanel(Panel):
    """A panel around a `Stepper`, with buttons that move it."""

    def __init__(self, stepper: Stepper) -> None:
        side = max(max(record.x.shape[1:]) for record in stepper.trace.records.values()) - 1
        self.stepper = stepper
        names = tuple(
            f"{i + 1} {stop.direction} {stop.path}" for i, stop in enumerate(stepper.stops)
        )
        controls: dict[str, Slider | Choice] = {
            "stop": Choice("run to", names, names[stepper.position]),
            "row": Slider("row of the pixel", 0, min(side, 63), 1, 0),
            "column": Slider("column of the pixel", 0, min(side, 63), 1, 0),
            "channel": Slider("channel", 0, side, 1, 0),
            "example": Slider("image of the batch", 0, max(len(stepper.images) - 1, 1), 1, 0),
        }
        super().__init__(controls, self.look, "the stepper")

    def look(self, stop: str, row: int, column: int, channel: int, example: int) -> Shown:
        """Go to a stop and look at one number of it."""
        stepper = self.stepper
        stepper.position = int(stop.split()[0]) - 1
        example, at = min(example, len(stepper.images) - 1), (row, column, channel)
        return stepper.text(at, example), stepper.picture(at, example)

    def live(self) -> Any:
        """The panel with its buttons. Raises MissingExtra where ipywidgets is not installed."""
        if self._live is None:
            box = super().live()
            widgets, select = ipywidgets(), box.children[0]
            self._live = widgets.VBox([_buttons(widgets, select), *box.children])
        return self._live


def _buttons(widgets: Any, select: Any) -> Any:
    stops = select.options
    loss = next(i for i, name in enumerate(stops) if name.endswith("loss loss"))
    moves = {
        "|◀ first": lambda here: 0,
        "◀ back": lambda here: max(here - 1, 0),
        "next ▶": lambda here: min(here + 1, len(stops) - 1),
        "to the loss": lambda here: loss,
        "last ▶|": lambda here: len(stops) - 1,
    }
    buttons = []
    for label, move in moves.items():
        button = widgets.Button(description=label, layout={"width": "110px"})
        button.on_click(lambda _, move=move: setattr(select, "index", move(select.index)))
        button.add_class("tinysqueeze-step")
        buttons.append(button)
    return widgets.HBox(buttons)
