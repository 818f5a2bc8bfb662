"""The folder of a training run: the checkpoint while it lasts, two tables at its end."""

import csv
import io
import json
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from tinysqueeze.errors import UserError
from tinysqueeze.files import content, held_alone, write_atomically
from tinysqueeze.kernels import TARGET
from tinysqueeze.ranges import Range, checked, hints_of
from tinysqueeze.study.count import count
from tinysqueeze.training import checkpoint
from tinysqueeze.training.evaluate import Evaluation
from tinysqueeze.training.state import Training

Seconds = Annotated[float, Range(0, 1e10)]


@dataclass(frozen=True)
class About:
    """What a checkpoint keeps of a run beside the training: its data, the name of its recipe (if it
    has one), its engine, and the wall time so far, from its beginning to now. Where its epochs follow
    from `minutes`, also those, and the images a second that were `measured` (0: they don't); and the run
    that teaches it, with its checkpoint's SHA-256."""

    data: str
    recipe: str | None = None
    engine: str = "compiled"
    wall_seconds: Seconds = 0.0
    minutes: Seconds = 0.0
    measured: Seconds = 0.0
    teacher: str | None = None
    teacher_sha256: str | None = None

    @classmethod
    def of(cls, kept: Mapping[str, Any]) -> "About":
        """From what a checkpoint keeps. Raises UserError where that is no run of `train`."""
        if "data" not in kept:
            raise UserError(
                "this checkpoint is of no run of `train`: it does not say on which data"
            )
        return cls(**checked("this checkpoint is of no run of `train`", hints_of(About), kept))


@dataclass
class RunFolder:
    """Where a run is kept, and its clock (which a resumed run sets back by the time already spent).

    `mine` says that the checkpoint that is there, if any, is this run's.
    """

    path: Path
    about: About
    started: float = field(default_factory=time.perf_counter)
    mine: bool = False

    def now(self) -> About:
        """What to say of the run at this moment."""
        spent = self.about.wall_seconds + time.perf_counter() - self.started
        return replace(self.about, wall_seconds=spent)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """While no other process trains into this folder. Raises UserError where one does, or has."""
        with held_alone(self.path) as held:
            if not held:
                raise UserError(
                    f"another process is training into {self.path}: wait for it, or --out elsewhere"
                )
            if not self.mine and (self.path / checkpoint.NAME).exists():
                raise UserError(
                    f"{self.path} holds another run by now; --out starts this one elsewhere"
                )
            yield

    def save(self, training: Training) -> None:
        """Write the checkpoint."""
        self.mine = True
        checkpoint.save(self.path, training, **asdict(self.now()))

    def finish(self, training: Training, score: Evaluation | None) -> None:
        """history.csv and summary.json, beside the checkpoint."""
        history = training.history  # a row an epoch, of which not every one was tested
        columns = dict.fromkeys(name for row in history for name in row)
        write_csv(self.path / "history.csv", columns, history)
        summary = json.dumps(self._summary(training, score), indent=2)
        write_atomically(self.path / "summary.json", summary.encode())

    def _summary(self, training: Training, score: Evaluation | None) -> dict[str, Any]:
        about, table, history = self.now(), count(training.engine.model), training.history
        return {
            "model": training.engine.model.spec,
            "parameters": table.parameters,
            "multiply_adds": table.multiply_adds,
            "data": about.data,
            "engine": about.engine,
            "lanes": TARGET.lanes,
            "recipe_name": about.recipe,
            "test_accuracy": score.accuracy if score else None,
            "test_loss": score.loss if score else None,
            "seconds": sum(row["seconds"] for row in history),
            "wall_seconds": about.wall_seconds,
            "images_per_second": float(np.mean([row["images_per_second"] for row in history])),
            "minutes": about.minutes or None,
            "teacher": about.teacher,
            "measured_images_per_second": about.measured or None,
            "recipe": training.recipe.to_dict(),
            "seed": training.recipe.seed,
            "versions": checkpoint.versions(),
        }


def read_csv(path: str | Path, kinds: Mapping[str, Callable[[str], Any]]) -> list[dict[str, Any]]:
    """The rows of a table, each column read by its kind.

    Raises OSError, KeyError for a column that is missing, TypeError or ValueError for what is no such value.
    """
    try:
        rows = list(csv.DictReader(io.StringIO(content(path).decode())))
    except csv.Error as error:
        raise ValueError(str(error)) from None
    return [{name: kind(row[name]) for name, kind in kinds.items()} for row in rows]


def write_csv(path: Path, columns: Collection[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """A table, whole or not at all; empty where a row has nothing in a column."""
    table = io.StringIO()
    writer = csv.DictWriter(table, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, table.getvalue().encode())
