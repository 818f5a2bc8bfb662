"""From a published training to our own, one change after the other: what each is worth on the same images.

The first rung is K. Jordan's (94% on CIFAR-10 in 3.29 Seconds on a Single GPU, 2024, arXiv 2404.00498),
in its smallest form: 2x2 whitened filters that stay as they are, three blocks of two 3x3 convolutions,
SGD with Lookahead, norms without a scale, biases that learn 64 times as fast. The last one is our recipe
`fast`. Three things of the first rung are not its own: hard-swishes for GELUs, norms before the pools
instead of behind them, and a rate that starts and ends at 0.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import sqrt
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np

from tinysqueeze.data import Augment, Dataset, Normalise, batches
from tinysqueeze.errors import UserError
from tinysqueeze.network.layers import (
    BatchNorm,
    Conv2D,
    GlobalAvgPool2D,
    HardSwish,
    Layer,
    MaxPool2D,
)
from tinysqueeze.network.models import Model, build
from tinysqueeze.network.params import initialise
from tinysqueeze.paper.experiments.runs import read_rows
from tinysqueeze.ranges import Kept, Range, setting
from tinysqueeze.study.count import count
from tinysqueeze.training.loop import Report, drive, run
from tinysqueeze.training.optimisers import SGD, Muon, Optimiser, Slots
from tinysqueeze.training.recipe import HardImages, Recipe, Scoring
from tinysqueeze.training.recipes import find_recipe
from tinysqueeze.training.run_folder import write_csv
from tinysqueeze.training.schedule import Schedule
from tinysqueeze.training.state import Training, begin, evaluate_training

Row = dict[str, Any]
COLUMNS = {
    "change": str, "seed": int, "parameters": int, "multiply_adds": int, "seen": int, "held_out": int,
    "one_view": float, "accuracy": float, "loss": float, "seconds": float,
}  # fmt: skip
"""`seen` images in all trained on; `accuracy` (0 to 1) and loss by all 18 views of the `held_out` images."""

EPOCHS = 6
"""Times through the images, or as many images in shorter epochs: what `fast` sees in five minutes."""

BLOCKS = (64, 128, 128)  # filters
PUBLISHED = SGD(momentum=0.85)


@dataclass(frozen=True)
class Rung:
    """A training, and what it changes of the one before.

    `whitened` sets the first layer's filters from the images, `lookahead` goes back to a slow average
    every fifth step, `classifier` is what the last layer's gradient is multiplied by.
    """

    change: str
    network: Model
    recipe: Recipe
    whitened: bool = False
    lookahead: bool = False
    classifier: float = 1.0


def rungs(epochs: int = EPOCHS, classes: int = 10) -> tuple[Rung, ...]:
    """The ladder from the bottom; each rung keeps what those before have changed."""
    fast = find_recipe("fast")
    plain = Recipe(
        epochs=epochs, batch_size=1024, schedule=Schedule(1.5, warmup=0.23), optimiser=PUBLISHED,
        weight_decay=1.33e-3, norm_bias_rate=64, smoothing=0.2, augment=Augment(2, flip="alternate"),
        identity=True, frozen=("conv1/weight", "*_norm/weight"), scoring=Scoring(flip=True, shift=True),
    )  # fmt: skip
    whitened = blocks(classes, [("conv1", Conv2D(24, 2)), ("conv1_swish", HardSwish())])
    learned = blocks(
        classes,
        [("conv1", Conv2D(32, 5, pad=2)), ("conv1_norm", BatchNorm()), ("conv1_swish", HardSwish())],
    )  # fmt: skip
    muon = plain.changed(
        optimiser=Muon(), lr=0.2, warmup=0.05, batch_size=256, weight_decay=5e-4, average=0.996
    )
    biases = muon.changed(norm_bias_rate=16, smoothing=0.1, freeze=("conv1/weight",))
    cut = biases.changed(pad=4, cutout=5)
    ours = cut.changed(freeze=())
    fires = build({"name": "squeezenet_cifar", "classes": classes} | fast.model)
    hard = replace(ours, epochs=2 * epochs - 2, hard_images=HardImages(keep=0.5, hard=0.35))
    slow = 1 / 81  # its logits are divided by 9: so is what its filters do, and what they learn by
    return (
        Rung("the published training", whitened, plain, True, True, slow),
        Rung("Muon and a running average for SGD and Lookahead", whitened, muon, True, False, slow),
        Rung("norms with scale, biases 16 times as fast, the classifier as fast as the rest, smoothing 0.1",
             whitened, biases, True),
        Rung("crops of up to 4 pixels, cutout of 5", whitened, cut, True),
        Rung("a first layer of 5x5 filters that learns", learned, ours),
        Rung("Fire modules for 3x3 convolutions", fires, ours),
        Rung("from the third epoch half of the images, hard ones preferred: the recipe fast", fires, hard),
    )  # fmt: skip


def blocks(classes: int, stem: list[tuple[str, Layer]]) -> Model:
    """Three blocks of two 3x3 convolutions behind `stem`, for 32x32 images; a pool in each block."""
    steps = list(stem)
    for number, filters in enumerate(BLOCKS, 1):
        for half in "ab":
            name = f"block{number}{half}"
            conv = Conv2D(filters, 3, pad=1, bias=False)
            steps += [
                (name, conv),
                (f"{name}_norm", BatchNorm(momentum=0.4)),
                (f"{name}_swish", HardSwish()),
            ]
            steps += [(f"pool{number}", MaxPool2D(2, stride=2))] if half == "a" else []
    steps += [("pool4", MaxPool2D(3, stride=3)), ("conv10", Conv2D(classes, 1, bias=False))]
    return Model("blocks", (*steps, ("pool10", GlobalAvgPool2D())), (32, 32, 3), {})


def whitening_filters(images: np.ndarray, size: int = 2, eps: float = 5e-4) -> np.ndarray:
    """Filters (size, size, C, 2 * size * size * C) whose answers to `images` (N, H, W, C) are uncorrelated.

    The eigenvectors of the patches' covariance over the root of their eigenvalues (+ `eps`), and the
    same with the other sign (Jordan 2024, §3.2).
    """
    patches = np.lib.stride_tricks.sliding_window_view(images, (size, size), (1, 2))
    rows = np.moveaxis(patches, 3, -1).reshape(-1, size * size * images.shape[3])  # (KH, KW, C)
    values, vectors = np.linalg.eigh(rows.T.astype(float) @ rows / len(rows))
    filters = vectors / np.sqrt(values + eps)
    both = np.concatenate([filters, -filters], axis=1).astype(np.float32)
    return both.reshape(size, size, images.shape[3], -1)


@dataclass(frozen=True)
class Lookahead(Optimiser):
    """SGD that goes back to a slow average of itself every fifth step, at last not at all.

    The average keeps 0.95^5 * (share of the training done)^3 of itself each time (Zhang et al., Lookahead
    Optimizer, 2019; as Jordan 2024, §3.4, has it).
    """

    momentum: Kept = setting(0.9, "kept of the steps before")
    steps: Annotated[int, Range(1)] = setting(1, "of the whole training")
    slots = ("velocity", "slow")

    def update(
        self,
        params: np.ndarray,
        grads: np.ndarray,
        slots: Slots,
        decay: np.ndarray,
        lr: float,
        step: int,
        threads: int | None = None,
    ) -> None:
        """One step, in place; `slots` hold the average, "slow", beside SGD's velocity."""
        own, slow = {"velocity": slots["velocity"]}, slots["slow"]
        SGD(self.momentum).update(params, grads, own, decay, lr, step, threads)
        if step % 5 == 0:
            slow += np.float32(1 - 0.95**5 * (step / self.steps) ** 3) * (params - slow)
            params[...] = slow


def start(rung: Rung, dataset: Dataset, seed: int = 0, threads: int | None = None) -> Training:
    """The training of a rung before its first step. Raises ShapeError unless images are 32x32."""
    recipe, normalise = replace(rung.recipe, seed=seed), Normalise.of(dataset)
    params = initialise(rung.network, seed, identity=recipe.identity)
    if rung.whitened:
        some = dataset.subset(slice(5000))
        images, _ = next(batches(some, len(some), shuffle=False, normalise=normalise))
        params["conv1"]["weight"] = whitening_filters(images)
    classifier = rung.network.steps[-2][0]  # a mean over the pixels follows it
    params[classifier]["weight"] *= np.float32(sqrt(rung.classifier))
    training = begin(rung.network, dataset, recipe, params, normalise, threads)
    if rung.classifier != 1:
        assert training.factors is not None  # the norms' biases have theirs
        own = training.engine.views(training.factors)[classifier]["weight"]
        own *= np.float32(rung.classifier)
    if rung.lookahead:
        training.optimiser = Lookahead(PUBLISHED.momentum, steps=recipe.steps(len(dataset)))
        training.slots["slow"] = training.engine.vector.copy()
    return training


def climb(
    dataset: Dataset,
    held_out: Dataset,
    path: Path,
    epochs: int = EPOCHS,
    seeds: int = 1,
    threads: int | None = None,
    report: Callable[[Rung, int, Report], object] = lambda *_: None,
) -> Iterator[Row]:
    """Train the rungs that the table at `path` lacks; yields each row when the table has it.

    `report` hears of every step. Raises UserError where the table's rows saw another number of images, or
    where there are too few for a batch; of a rung that is interrupted nothing is kept.
    """
    ladder = rungs(epochs, len(dataset.classes))
    batch = max(rung.recipe.batch_size for rung in ladder)
    if len(dataset) < batch:
        raise UserError(
            f"{dataset.name}: {len(dataset):,} images; the ladder's largest batch takes {batch:,}"
        )
    rows, seen = read_rows(path, COLUMNS), epochs * len(dataset)
    for row in rows:
        if row["seen"] != seen:
            raise UserError(
                f"{path} holds a training that saw {row['seen']:,} images, not {seen:,}: go on with the "
                "same settings, or choose another file with --out"
            )
    done = {(row["change"], row["seed"]) for row in rows}
    for seed in range(seeds):
        for rung in ladder:
            if (rung.change, seed) in done:
                continue
            training = start(rung, dataset, seed, threads)
            drive(run(training, dataset), partial(report, rung, seed), lambda: None)
            rows.append(_row(rung, training, held_out, seed, seen))
            write_csv(path, COLUMNS, rows)
            yield rows[-1]


def _row(rung: Rung, training: Training, held_out: Dataset, seed: int, seen: int) -> Row:
    table, all_views = count(rung.network), evaluate_training(training, held_out)
    training.recipe = replace(training.recipe, scoring=Scoring())
    return {
        "change": rung.change, "seed": seed, "parameters": table.parameters,
        "multiply_adds": table.multiply_adds, "seen": seen, "held_out": len(held_out),
        "one_view": evaluate_training(training, held_out).accuracy, "accuracy": all_views.accuracy,
        "loss": all_views.loss, "seconds": sum(epoch["seconds"] for epoch in training.history),
    }  # fmt: skip


class Mean(NamedTuple):
    """Of the trainings of one rung: accuracies 0 to 1."""

    trainings: int
    one_view: float
    accuracy: float
    loss: float


def by_change(rows: Sequence[Row]) -> dict[str, Mean]:
    """The rungs of a table in their order, each with its means over the seeds."""
    found = {}
    for change in dict.fromkeys(row["change"] for row in rows):
        own = [row for row in rows if row["change"] == change]
        sums = [sum(row[name] for row in own) for name in ("one_view", "accuracy", "loss")]
        found[change] = Mean(len(own), *(total / len(own) for total in sums))
    return found


def markdown(rows: Sequence[Row]) -> str:
    """The ladder as a table, from the bottom: means over the seeds, and what each change gained."""
    text = [
        "| change | trainings | one view | all 18 views | gain | loss |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    before = None
    for change, mean in by_change(rows).items():
        gain = "" if before is None else f"{100 * (mean.accuracy - before):+.1f}"
        scores = f"{mean.one_view:.1%} | {mean.accuracy:.1%} | {gain} | {mean.loss:.3f}"
        text.append(f"| {change} | {mean.trainings} | {scores} |")
        before = mean.accuracy
    return "\n".join(text)
