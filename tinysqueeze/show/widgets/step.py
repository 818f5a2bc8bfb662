"""The stepper: a training step with pictures, and as the explorer for a browser."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tinysqueeze.show import page
from tinysqueeze.show.pictures.maps import feature_maps
from tinysqueeze.show.pictures.style import Picture
from tinysqueeze.study.formulas import Place
from tinysqueeze.study.stepper import Steps
from tinysqueeze.weights import WeightSet

LARGEST = 1_500_000  # bytes of a page below a notebook's cell


class Stepper(Steps):
    """`Steps` that can be seen: `picture()` for scripts, `save()` for a browser, and below a cell.

    There it is the explorer, which needs no kernel: it lives in a saved notebook, and on the site. Of
    a network of more than LARGEST bytes, and where no scripts run, it is the picture and the text.
    `look` names the classes and says how the images were prepared.
    """

    look: page.Look = page.PLAIN_LOOK

    @classmethod
    def of(
        cls,
        weights: WeightSet | None = None,
        pictures: Sequence[str | os.PathLike[str]] = (),
        labels: Sequence[str] = (),
    ) -> "Stepper":
        """A step of trained weights on pictures; by default of our small network on two drawings.

        Pictures and labels are those of `step_of`.
        """
        stepper, look = page.step_of(weights or page.small_network(), pictures, labels, make=cls)
        stepper.look = look
        return stepper

    def picture(self, at: Place | None = None, example: int = 0) -> Picture:
        """The arrays as images: maps as mosaics, vectors as bars, 3x3 weights as small tiles."""
        shown = {name: _as_maps(array) for name, array in self.arrays(example).items()}
        place = self.place(at)
        mark = (place[0], place[1], place[2]) if len(place) == 3 else None
        marked = "y" if self.stop.direction == "forward" else "dx"
        sign = {"forward": "forward through", "backward": "backward through", "loss": "the"}
        title = f"{sign[self.stop.direction]} {self.stop.path}"
        return feature_maps(shown, title[0].upper() + title[1:], mark, marked)

    def save(self, path: str | Path) -> None:
        """Write the whole step as one HTML file: the explorer, for any browser, offline.

        `look` says what the page tells beside the numbers. Raises UserError where it can't be written.
        """
        page.save(self, path, self.look)

    def widget(self) -> Any:
        """The explorer as a widget, for a network too large for a saved notebook.

        Saved and opened again without its kernel it is the explorer; of so large a network the picture
        and the text. Raises MissingExtra where anywidget is not installed.
        """
        state, what = page.pack(self, self.look), "the explorer as a widget"
        return page.widget("widget.js", what, self.picture(), page.words(self), state=state)

    def _repr_mimebundle_(self, **_: object) -> tuple[dict[str, Any], dict[str, Any]]:
        picture = self.picture()
        data, about = picture._repr_mimebundle_()
        data["text/plain"] = self.text()
        text = page.whole(self, self.look)
        if len(text) <= LARGEST:
            title = f"A training step of {self.name}, to be explored"
            data["text/html"] = page.below_cell(text, title, picture, page.words(self))
        else:
            data["text/plain"] += "\n[too large for a notebook: .save(path) writes the explorer]"
        return data, about


def _as_maps(array: np.ndarray) -> np.ndarray:
    """Weights (KH, KW, C, F) as one map a filter, its channels joined; 1x1 ones as one C x F map."""
    if array.ndim == 4:
        height, width, channels, filters = array.shape
        if height * width == 1:
            return array.reshape(channels, filters, 1)
        return array.mean(axis=2)
    return array[:, :, None] if array.ndim == 2 else array
