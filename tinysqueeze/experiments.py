"""The paper's experiments on its own design space, re-run at CIFAR size: grids of short trainings.

Each experiment varies one thing and keeps the rest. A grid is a table of (point, seed); finished
rows are kept in a CSV file, so that an interrupted grid goes on where it stopped.
"""

import csv
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tinysqueeze.count import count
from tinysqueeze.data import Dataset
from tinysqueeze.errors import FormatError, UserError
from tinysqueeze.files import write_atomically
from tinysqueeze.models import build
from tinysqueeze.recipes import Recipe
from tinysqueeze.train import Report, begin, evaluate_training, run

Row = dict[str, Any]
COLUMNS = ("point", "x", "seed", "parameters", "multiply_adds", "accuracy", "seconds")


@dataclass(frozen=True)
class Point:
    """One network of a grid: its label, where it stands on the x axis, how it differs."""

    label: str
    x: float
    changes: dict[str, Any]


@dataclass(frozen=True)
class Experiment:
    """What is varied, what the paper found (ImageNet top-5, percent, by x), and where it says so."""

    name: str
    question: str
    source: str
    axis: str
    points: tuple[Point, ...]
    paper: dict[float, float] = field(default_factory=dict)


def _numbers(name: str, values: tuple[float, ...], **changes: Any) -> tuple[Point, ...]:
    return tuple(Point(f"{v:g}", v, {name: v} | changes) for v in values)


def _named(**networks: dict[str, Any]) -> tuple[Point, ...]:
    pairs = enumerate(networks.items())
    return tuple(Point(label.replace("_", " "), i, changes) for i, (label, changes) in pairs)


EXPERIMENTS = {
    e.name: e
    for e in (
        Experiment(
            "squeeze-ratio",
            "How much do wider squeeze layers gain?",
            "§5.2, Figure 3(a)",
            "squeeze ratio",
            _numbers("squeeze_ratio", (0.125, 0.25, 0.5, 0.75, 1.0), allow_wide_squeeze=True),
            {0.125: 80.3, 0.75: 86.0, 1.0: 86.0},
        ),
        Experiment(
            "pct3x3",
            "How many of the expand filters must be 3x3?",
            "§5.3, Figure 3(b)",
            "share of 3x3 filters in expand layers",
            _numbers("pct3x3", (0.01, 0.125, 0.25, 0.5, 0.75, 0.99), squeeze_ratio=0.5),
            {0.5: 85.6, 0.99: 85.3},
        ),
        Experiment(
            "bypass",
            "What does a bypass around Fire modules gain?",
            "§6, Table 3",
            "bypass",
            _named(none={}, simple={"bypass": "simple"}, complex={"bypass": "complex"}),
            {0: 80.3, 1: 82.5, 2: 82.0},
        ),
        Experiment(
            "downsampling",
            "Is it better to downsample late, at equal parameters?",
            "§3.1, Strategy 3; argued there, not measured",
            "pools after layers",
            _named(
                early_1_2_3={"pools": (1, 2, 3)},
                middle_1_3_5={"pools": (1, 3, 5)},
                paper_1_4_8={"pools": (1, 4, 8)},
                late_4_6_8={"pools": (4, 6, 8)},
            ),
        ),
        Experiment(
            "expand",
            "1x1 filters, 3x3 filters, or both?",
            "§3.1, Strategy 1",
            "expand layers",
            _named(all_1x1={"pct3x3": 0.0}, mixed={}, all_3x3={"pct3x3": 1.0}),
        ),
        Experiment(
            "growth",
            "Should filters grow from Fire to Fire?",
            "§3.3, 'we gradually increase the number of filters per fire module'",
            "filters a Fire",
            _named(
                flat={"base_e": 352, "incr_e": 0},
                slow={"base_e": 248, "incr_e": 64},
                paper={"base_e": 128, "incr_e": 128},
            ),
        ),
    )
}


def grid(experiment: Experiment, seeds: int) -> list[tuple[Point, int]]:
    """All (point, seed), a whole sweep of points before the next seed."""
    return [(point, seed) for seed in range(seeds) for point in experiment.points]


def read_rows(path: Path) -> list[Row]:
    """The finished rows of a grid's CSV file; none if there is no file. Raises FormatError."""
    if not path.exists():
        return []
    try:
        found = list(csv.DictReader(io.StringIO(path.read_text())))
        return [{c: row[c] if c == "point" else float(row[c]) for c in COLUMNS} for row in found]
    except (KeyError, TypeError, ValueError) as error:
        raise FormatError(
            f"{path}: not the table of an experiment ({error}); move it away"
        ) from None


def perform(
    experiment: Experiment,
    dataset: Dataset,
    test: Dataset,
    recipe: Recipe,
    path: Path,
    seeds: int = 1,
    model: str = "squeezenet_cifar",
    threads: int | None = None,
    report: Callable[[Point, int, Report], None] | None = None,
) -> Iterator[Row]:
    """Train what is missing of the grid; yields each finished row after writing it to `path`.

    `report` hears of every step. `test` should be a validation split where something is chosen by it.
    """
    rows = read_rows(path)
    done = {(row["point"], int(row["seed"])) for row in rows}
    for point, seed in grid(experiment, seeds):
        if (point.label, seed) in done:
            continue
        row = _one(point, replace(recipe, seed=seed), dataset, test, model, threads, report)
        rows.append(row)
        write_rows(path, rows)
        yield row


def _one(
    point: Point,
    recipe: Recipe,
    dataset: Dataset,
    test: Dataset,
    model: str,
    threads: int | None,
    report: Callable[[Point, int, Report], None] | None,
) -> Row:
    """Train one network of the grid and measure it."""
    sizes = {"classes": len(dataset.classes), "input_size": dataset.images.shape[1]}
    network = build(model, **sizes | point.changes)
    training = begin(network, dataset, recipe, threads=threads)
    for step in run(training, dataset):
        if report:
            report(point, recipe.seed, step)
    table = count(network)
    return {
        "point": point.label,
        "x": point.x,
        "seed": recipe.seed,
        "parameters": table.parameters,
        "multiply_adds": table.multiply_adds,
        "accuracy": evaluate_training(training, test).accuracy,
        "seconds": sum(epoch["seconds"] for epoch in training.history),
    }


def write_rows(path: Path, rows: list[Row]) -> None:
    """The table as CSV, whole or not at all."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, text.getvalue().encode())


def find(name: str) -> Experiment:
    """An experiment by name. Raises UserError."""
    if name not in EXPERIMENTS:
        raise UserError(f"no experiment named {name!r}; there are {', '.join(EXPERIMENTS)}")
    return EXPERIMENTS[name]
