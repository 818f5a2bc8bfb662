"""Train what is missing of a grid, resumable at every minute; a row of the CSV file a training."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from tinysqueeze.data import Augment, Dataset
from tinysqueeze.errors import CheckpointError, FormatError, UserError
from tinysqueeze.network.models import Model
from tinysqueeze.paper.experiments.grids import Experiment, Point, grid
from tinysqueeze.study.count import count
from tinysqueeze.training import checkpoint
from tinysqueeze.training.loop import Report, drive, run
from tinysqueeze.training.optimisers import Muon
from tinysqueeze.training.recipe import Recipe
from tinysqueeze.training.run_folder import read_csv, write_csv
from tinysqueeze.training.schedule import Schedule
from tinysqueeze.training.state import Training, begin, evaluate_training

Row = dict[str, Any]
COLUMNS = {
    "point": str, "x": float, "seed": int, "parameters": int, "multiply_adds": int,
    "accuracy": float, "seconds": float, "epochs": int, "lr": float, "images": int, "split": str,
}  # fmt: skip
"""`images` were trained on; accuracy (0 to 1) is on the `split`, "validation" or "test"."""

SHORT = Recipe(
    epochs=6,
    batch_size=128,
    schedule=Schedule(0.14),
    optimiser=Muon(),
    smoothing=0.1,
    augment=Augment(pad=2, flip="alternate"),
    average=0.99,
)
"""For trainings of few epochs: Muon, the rate goes up and down once, flips take turns."""

RATE = 5e10
"""Multiply-adds of the forward pass that a training does a second: 1,000 images a second of the CIFAR
SqueezeNet, on the 2 cores of the README's table. For an estimate beforehand, no more."""

MOST_EPOCHS = 12


def work(experiment: Experiment, images: int, seeds: int = 1, **changes: Any) -> float:
    """Multiply-adds of the forward pass over an epoch of `images` of every training in the grid."""
    networks = [experiment.network(point, **changes) for point in experiment.points]
    return float(seeds * images * sum(count(network).multiply_adds for network in networks))


def affordable_epochs(epoch_work: float, minutes: float) -> int:
    """How many epochs of a grid fit the time, from its `work`: at least 1, at most 12."""
    return max(1, min(MOST_EPOCHS, int(60 * minutes * RATE / epoch_work)))


def read_rows(path: Path, columns: Mapping[str, Callable[[str], Any]] = COLUMNS) -> list[Row]:
    """The finished rows of a grid's CSV file; none if there is no file. Raises FormatError."""
    if not path.exists():
        return []
    try:
        return read_csv(path, columns)
    except (KeyError, TypeError, ValueError) as error:
        raise FormatError(
            f"{path}: not the table of an experiment ({error}); move it away"
        ) from None


def perform(
    experiment: Experiment,
    dataset: Dataset,
    measured: Dataset,
    recipe: Recipe,
    path: Path,
    seeds: int = 1,
    split: str = "validation",
    threads: int | None = None,
    report: Callable[[Point, int, Report], object] = lambda *_: None,
    **changes: Any,
) -> Iterator[Row]:
    """Train what is missing of the grid; yields each finished row after writing it to `path`.

    Accuracy is on `measured`, which `split` names: a validation split where something is chosen by
    it. `report` hears of every step, `changes` are made to all networks. A training that was
    cut short goes on from its last checkpoint, at most a minute old, beside `path`. Raises UserError
    where the rows that are there were trained otherwise.
    """
    rows = read_rows(path)
    sizes = {"classes": len(dataset.classes), "input_size": dataset.images.shape[1]}
    common = {
        "epochs": recipe.epochs, "lr": recipe.schedule.lr, "images": len(dataset), "split": split,
    }  # fmt: skip
    networks = {p.label: experiment.network(p, **sizes | changes) for p in experiment.points}
    _check_alike(path, rows, common, networks)
    done = {(row["point"], row["seed"]) for row in rows}
    kept_at = path.with_suffix(".partial.safetensors")
    for point, seed in grid(experiment, seeds):
        if (point.label, seed) in done:
            continue
        network, own = networks[point.label], replace(recipe, seed=seed)
        training = _begun(kept_at, network, own, dataset, threads)
        save = partial(checkpoint.save, kept_at, training, images=len(dataset))
        drive(run(training, dataset), partial(report, point, seed), save)
        table = count(network)
        row = common | {
            "point": point.label,
            "x": point.x,
            "seed": seed,
            "parameters": table.parameters,
            "multiply_adds": table.multiply_adds,
            "accuracy": evaluate_training(training, measured).accuracy,
            "seconds": sum(epoch["seconds"] for epoch in training.history),
        }
        rows.append(row)
        write_csv(path, COLUMNS, rows)
        kept_at.unlink(missing_ok=True)
        yield row


def _check_alike(path: Path, rows: list[Row], common: Row, networks: dict[str, Model]) -> None:
    """Rows of one table must be comparable. Raises UserError, naming what differs."""
    for row in rows:
        wanted = common
        if row["point"] in networks:
            wanted = common | {"parameters": count(networks[row["point"]]).parameters}
        for name, value in wanted.items():
            if row[name] != value:
                raise UserError(
                    f"{path} holds a training with {name} {row[name]}, not {value}: go on with the "
                    "same settings, or choose another folder with --out"
                )


def _begun(
    kept_at: Path, network: Model, recipe: Recipe, dataset: Dataset, threads: int | None
) -> Training:
    """The training, from its checkpoint if there is one of this very training, or from the start."""
    try:
        saved = checkpoint.read(kept_at)
    except CheckpointError:
        return begin(network, dataset, recipe, threads=threads)
    kept = saved.model.spec, saved.recipe, saved.meta["extra"]
    if kept != (network.spec, recipe, {"images": len(dataset)}):
        return begin(network, dataset, recipe, threads=threads)
    return checkpoint.resume(saved, threads)
