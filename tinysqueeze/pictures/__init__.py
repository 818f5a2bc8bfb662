"""The lesson's pictures, drawn by our own code: functions that return figures with alt text."""

from tinysqueeze.pictures.networks import fire_diagram, network_diagram
from tinysqueeze.pictures.style import Movie, Picture
from tinysqueeze.pictures.windows import (
    overlap_counts,
    patch_to_row,
    sliding_window,
    through_channels,
)

__all__ = [
    "Movie",
    "Picture",
    "fire_diagram",
    "network_diagram",
    "overlap_counts",
    "patch_to_row",
    "sliding_window",
    "through_channels",
]
