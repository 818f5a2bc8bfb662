"""What people drag: each is controls around pure functions, live in any browser, with or without Python."""

from tinysqueeze.show.widgets.bugs import BUGS, gradient_heat_map
from tinysqueeze.show.widgets.curve import live_curve
from tinysqueeze.show.widgets.panel import Choice, Panel, Slider
from tinysqueeze.show.widgets.panels import (
    design_space,
    early_or_late,
    fire_designer,
    one_by_one,
    window_places,
)
from tinysqueeze.show.widgets.step import Stepper

__all__ = [
    "BUGS", "Choice", "Panel", "Slider", "Stepper", "design_space", "early_or_late",
    "fire_designer", "gradient_heat_map", "live_curve", "one_by_one", "window_places",
]  # fmt: skip
