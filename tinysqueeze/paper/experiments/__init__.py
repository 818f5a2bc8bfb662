"""The paper's experiments on its own design space, re-run at CIFAR size: grids of short trainings.

`grids` says what is varied and what the paper found, `runs` trains what is missing and keeps it in a
CSV file, `agreement` compares the curve with the paper's.
"""

from tinysqueeze.paper.experiments.agreement import agreement, knee, places, rank_correlation
from tinysqueeze.paper.experiments.grids import EXPERIMENTS, Experiment, Point, find, grid
from tinysqueeze.paper.experiments.runs import SHORT, affordable_epochs, perform, read_rows, work

__all__ = [
    "EXPERIMENTS", "SHORT", "Experiment", "Point", "affordable_epochs", "agreement", "find",
    "grid", "knee", "perform", "places", "rank_correlation", "read_rows", "work",
]  # fmt: skip
