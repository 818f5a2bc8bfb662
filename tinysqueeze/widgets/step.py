"""The stepper's buttons: next, back, run to a layer, choose a pixel."""

from typing import TYPE_CHECKING, Any

from tinysqueeze.widgets.panel import Choice, Panel, Shown, Slider, ipywidgets

if TYPE_CHECKING:
    from tinysqueeze.stepper import Stepper


class StepperPanel(Panel):
    """A panel around a `Stepper`, with buttons that move it."""

    def __init__(self, stepper: "Stepper") -> None:
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


def stepper_panel(stepper: "Stepper") -> StepperPanel:
    """The ipywidgets form of a stepper; a picture of where it stands without ipywidgets."""
    return StepperPanel(stepper)
