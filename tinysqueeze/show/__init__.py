"""Everything drawn or dragged: pictures, the inside of a trained network, widgets, lessons."""
