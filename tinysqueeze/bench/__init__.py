"""How fast is it, and how fast are others on this machine? Measured fairly, side by side.

`workloads` says what is run, `peers` who runs it, `worker` is the process that does, `runner` lets
them take turns, `report` makes medians and ratios of it, `table` the text. `peak` and `floor` tell
how much the machine could do and how much there is to do.
"""

from tinysqueeze.bench.report import complete
from tinysqueeze.bench.runner import Settings, measure
from tinysqueeze.bench.table import text

__all__ = ["Settings", "complete", "measure", "text"]
