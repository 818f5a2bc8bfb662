"""What people drag: each widget is controls around a pure function, and a picture without ipywidgets."""

from tinysqueeze.widgets.bugs import BUGS, gradient_heat_map
from tinysqueeze.widgets.curve import live_curve
from tinysqueeze.widgets.panel import Choice, Panel, Slider
from tinysqueeze.widgets.panels import design_space, early_or_late, fire_designer, one_by_one
from tinysqueeze.widgets.step import stepper_panel

__all__ = [
    "BUGS",
    "Choice",
    "Panel",
    "Slider",
    "design_space",
    "early_or_late",
    "fire_designer",
    "gradient_heat_map",
    "live_curve",
    "one_by_one",
    "stepper_panel",
]
