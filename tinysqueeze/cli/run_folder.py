"""The folder of a training run: the checkpoint while it lasts, tables and pictures at its end."""

import csv
import io
import json
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from tinysqueeze.data import Dataset
from tinysqueeze.files import write_atomically
from tinysqueeze.kernels import TARGET
from tinysqueeze.network.ops.reference import softmax
from tinysqueeze.show.pictures.training import confusion_matrix, learning_curve, sample_predictions
from tinysqueeze.study.count import count
from tinysqueeze.training import checkpoint
from tinysqueeze.training.loop import Evaluation, Training
from tinysqueeze.training.recipe import recipe_dict


@dataclass(frozen=True)
class About:
    """What a checkpoint keeps of a run beside the training: its data, the name of its recipe (if it
    has one), its engine, and the wall time so far, start of the command to now."""

    data: str
    recipe: str | None = None
    engine: str = "compiled"
    wall_seconds: float = 0.0


@dataclass
class RunFolder:
    """Where a run is kept, and its clock (which a resumed run sets back by the time already spent)."""

    path: Path
    about: About
    started: float = field(default_factory=time.perf_counter)
    saved_at: float = field(default_factory=time.perf_counter)

    def now(self) -> About:
        """What to say of the run at this moment."""
        spent = self.about.wall_seconds + time.perf_counter() - self.started
        return replace(self.about, wall_seconds=spent)

    def save(self, training: Training) -> None:
        """Write the checkpoint."""
        checkpoint.save(self.path, training, **asdict(self.now()))
        self.saved_at = time.perf_counter()

    def finish(self, training: Training, score: Evaluation, test: Dataset) -> None:
        """history.csv, summary.json and three pictures, beside the checkpoint."""
        write_atomically(self.path / "history.csv", _history(training).encode())
        model = training.engine.model
        title = f"{model.name} on {test.name}: {score.accuracy:.2%}"
        probabilities = softmax(score.logits)
        predicted = probabilities.argmax(axis=1)
        drawn = {
            "learning_curve": learning_curve(training.history, title),
            "confusion_matrix": confusion_matrix(score.labels, predicted, test.classes),
            "predictions": sample_predictions(
                test.images, score.labels, probabilities, test.classes
            ),
        }
        for name, picture in drawn.items():
            picture.save(str(self.path / f"{name}.png"))
        summary = json.dumps(self._summary(training, score), indent=2)
        write_atomically(self.path / "summary.json", summary.encode())

    def _summary(self, training: Training, score: Evaluation) -> dict[str, Any]:
        about, table, history = self.now(), count(training.engine.model), training.history
        return {
            "model": training.engine.model.spec,
            "parameters": table.parameters,
            "multiply_adds": table.multiply_adds,
            "data": about.data,
            "engine": about.engine,
            "lanes": TARGET.lanes,
            "recipe_name": about.recipe,
            "test_accuracy": score.accuracy,
            "test_loss": score.loss,
            "seconds": sum(row["seconds"] for row in history),
            "wall_seconds": about.wall_seconds,
            "images_per_second": float(np.mean([row["images_per_second"] for row in history])),
            "recipe": recipe_dict(training.recipe),
            "seed": training.recipe.seed,
            "versions": checkpoint.versions(),
        }


def _history(training: Training) -> str:
    """A row an epoch; empty where an epoch was not tested."""
    table = io.StringIO()
    writer = csv.DictWriter(table, training.history[-1].keys(), lineterminator="\n")
    writer.writeheader()
    writer.writerows(training.history)
    return table.getvalue()
