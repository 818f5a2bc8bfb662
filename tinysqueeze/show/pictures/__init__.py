"""The lesson's pictures, drawn by our own code: functions that return figures with alt text."""

from tinysqueeze.show.pictures.charts import (
    bars,
    heat_maps,
    layer_bars,
    map_sides,
    parameter_bars,
    series,
    split_bars,
)
from tinysqueeze.show.pictures.maps import feature_maps
from tinysqueeze.show.pictures.networks import fire_diagram, network_diagram, networks_beside
from tinysqueeze.show.pictures.style import Movie, Picture
from tinysqueeze.show.pictures.windows import (
    overlap_counts,
    overlaps,
    patch_to_row,
    places_along,
    sliding_window,
    through_channels,
)

__all__ = [
    "Movie", "Picture", "bars", "feature_maps", "fire_diagram", "heat_maps", "layer_bars",
    "map_sides", "network_diagram", "networks_beside", "overlap_counts", "overlaps",
    "parameter_bars", "patch_to_row", "places_along", "series", "sliding_window", "split_bars",
    "through_channels",
]  # fmt: skip
