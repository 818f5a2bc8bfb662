"""The training loop: a generator that takes steps and yields reports; it never prints or plots."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from fnmatch import fnmatch
from math import isfinite

import numpy as np

from tinysqueeze.data import Dataset, Normalise, batches, hardest
from tinysqueeze.errors import DataError, ShapeError, TrainingError, UserError
from tinysqueeze.kernels.optimiser import ema_update
from tinysqueeze.network.layers import Mode, Params
from tinysqueeze.network.loss import softmax_cross_entropy
from tinysqueeze.network.models import Model
from tinysqueeze.network.ops import reference
from tinysqueeze.network.params import buffer_shapes, flatten, initialise, trained_shapes
from tinysqueeze.study.diagnose import first_broken
from tinysqueeze.training.communicator import ALONE, Communicator
from tinysqueeze.training.engine import Engine, EngineMaker, compiled_engine
from tinysqueeze.training.optimisers import Optimiser, Slots, learning_rate
from tinysqueeze.training.recipe import Recipe


@dataclass
class Training:
    """A training under way: everything that a checkpoint must keep to go on as if never stopped.

    `epoch` epochs are complete, and `batch` batches of the next one; `loss_sum`, `correct`, `seen`
    and `seconds` are of that one so far. `average` is a vector like the engine's, or None. Where
    epochs prefer hard images, `losses` are those of all images when last seen (infinite before
    that), and `order` the images of the epoch that is under way.
    """

    engine: Engine
    recipe: Recipe
    normalise: Normalise
    classes: tuple[str, ...]
    slots: Slots
    average: np.ndarray | None = None
    losses: np.ndarray | None = None
    order: np.ndarray | None = None
    epoch: int = 0
    batch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    correct: float = 0.0
    seen: float = 0.0
    seconds: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)
    evaluation: "Evaluation | None" = None  # the last one, on this rank's share of the test images

    @property
    def best_vector(self) -> np.ndarray:
        """What to evaluate and to use: the average if there is one, else the parameters."""
        return self.engine.vector if self.average is None else self.average

    @property
    def best_params(self) -> Params:
        """The same by path, as views."""
        return self.engine.views(self.best_vector)

    @property
    def finished(self) -> bool:
        """All epochs done."""
        return self.epoch >= self.recipe.epochs


@dataclass(frozen=True)
class Report:
    """After one step: means over the epoch so far; after an epoch's last step also its `result`."""

    epoch: int
    batch: int
    batches: int
    loss: float
    accuracy: float
    images_per_second: float
    lr: float
    result: dict[str, float] | None = None


@dataclass(frozen=True)
class Evaluation:
    """How well a network does on a dataset: mean loss, accuracy (0 to 1), and its logits."""

    loss: float
    accuracy: float
    logits: np.ndarray
    labels: np.ndarray

    def top(self, k: int) -> float:
        """The share of images whose label is among the k best classes."""
        best = np.argsort(-self.logits, axis=1, kind="stable")[:, :k]
        return float((best == self.labels[:, None]).any(axis=1).mean())


def begin(
    model: Model,
    dataset: Dataset,
    recipe: Recipe = Recipe(),
    params: Params | None = None,
    normalise: Normalise | None = None,
    threads: int | None = None,
    ranks: int = 1,
    make_engine: EngineMaker = compiled_engine,
) -> Training:
    """A training of `model` from fresh (or the given) parameters, before its first step.

    The images' normalisation is computed from `dataset` unless given; of `ranks` that train together
    each sees its share of a batch (`threads` are those of one). Raises ShapeError where the
    dataset's images or classes don't fit the model.
    """
    height, width, channels = dataset.images.shape[1:]
    if model.input_shape[2] != channels:
        raise ShapeError(
            f"{model.name} takes {model.input_shape[2]} channels, {dataset.name} has {channels}"
        )
    if model.classes != len(dataset.classes):
        raise ShapeError(
            f"{model.name} has {model.classes} classes, {dataset.name} has {len(dataset.classes)}; "
            f"build it with classes={len(dataset.classes)}"
        )
    if model.input_shape[:2] != (height, width):
        raise ShapeError(
            f"{model.name} is for {model.input_shape[0]}x{model.input_shape[1]} images, {dataset.name} "
            f"has {height}x{width}; build it with input_size={height}"
        )
    if params is None:
        params = initialise(model, recipe.seed, identity=recipe.identity)
    engine = make_engine(model, recipe.share(ranks), params, threads, recipe.precision)
    return Training(
        engine=engine,
        recipe=recipe,
        normalise=normalise or Normalise.of(dataset),
        classes=dataset.classes,
        slots=recipe.make_optimiser(model).start(engine.vector),
        average=engine.vector.copy() if recipe.average else None,
        losses=np.full(len(dataset), np.inf, np.float32) if recipe.keep < 1 else None,
    )


def run(
    training: Training,
    dataset: Dataset,
    test: Dataset | None = None,
    communicator: Communicator = ALONE,
) -> Iterator[Report]:
    """Train until the recipe's last epoch, a report a step; evaluates on `test` after epochs.

    `training` changes as it goes and is whole whenever a report is yielded: save it then. Each
    batch is a function of (seed, epoch, batch), so that a resumed run sees the same ones. Raises
    TrainingError where the loss is no longer finite, naming the layer that broke first.
    """
    recipe, engine = training.recipe, training.engine
    optimiser = recipe.make_optimiser(engine.model)
    decay = _decay(training, optimiser)
    frozen = _frozen(engine, recipe.frozen)
    biases = _norm_biases(engine) if recipe.norm_bias_rate != 1 else []
    shard = (communicator.rank, communicator.ranks)
    statistics = engine.vector[_trained_size(engine.model) :]
    total = recipe.steps(len(dataset))
    while not training.finished:
        epoch, started = training.epoch, time.perf_counter() - training.seconds
        per_epoch = recipe.batches(len(dataset), epoch)
        if training.losses is not None and not training.batch:
            training.order = _order(training, per_epoch * recipe.batch_size)
        feed = batches(
            dataset,
            recipe.batch_size,
            epoch=epoch,
            seed=recipe.seed,
            augment=recipe.augment(),
            drop_last=True,
            start=training.batch,
            order=training.order,
            shard=shard,
            normalise=training.normalise,
        )
        for images, labels in feed:
            done = (training.step + 0.5) / total
            lr = learning_rate(recipe.schedule, recipe.lr, done, recipe.warmup)
            seed = _step_seed(recipe.seed, training.step, communicator.rank)
            loss, correct = engine.loss_and_grads(images, labels, recipe.smoothing, seed)
            sums = communicator.total(np.array([loss * len(labels), correct, len(labels)], float))
            if not isfinite(sums[0]):
                raise _broken(training, images, labels, lr)
            _remember_losses(training, communicator)
            communicator.mean(engine.grad_vector)
            if communicator.ranks > 1 and statistics.size:  # each rank's own images moved them
                statistics[...] = communicator.total(statistics) / communicator.ranks
            for view in frozen:
                view[...] = 0
            for view in biases:
                view *= recipe.norm_bias_rate
            training.step += 1
            numbers = (engine.vector, engine.grad_vector, training.slots, decay)
            optimiser.update(*numbers, lr, training.step, engine.threads)
            if training.average is not None:
                keep = _keep(recipe.average, training.step)
                ema_update(training.average, engine.vector, keep, engine.threads)
            training.loss_sum += float(sums[0])
            training.correct += float(sums[1])
            training.seen += float(sums[2])
            training.batch += 1
            training.seconds = time.perf_counter() - started
            report = _report(training, per_epoch, lr)
            if training.batch == per_epoch:
                result = _finish_epoch(training, report, test, communicator)
                report = replace(report, result=result)
            yield report


def _order(training: Training, count: int) -> np.ndarray:
    """The images of the epoch that begins."""
    assert training.losses is not None
    recipe, hard = training.recipe, round(training.recipe.hard * len(training.losses))
    return hardest(training.losses, count, min(hard, count), recipe.seed, training.epoch)


def _remember_losses(training: Training, communicator: Communicator) -> None:
    """File the losses of the step's images, of all ranks."""
    if training.losses is None or training.order is None:
        return
    size, mine = training.recipe.batch_size, training.engine.losses
    losses = np.zeros(size)
    losses[communicator.rank * len(mine) :][: len(mine)] = mine
    images = training.order[training.batch * size :][:size]
    training.losses[images] = communicator.total(losses)


def _report(training: Training, per_epoch: int, lr: float) -> Report:
    seen = training.seen
    return Report(
        epoch=training.epoch,
        batch=training.batch,
        batches=per_epoch,
        loss=training.loss_sum / seen,
        accuracy=training.correct / seen,
        images_per_second=seen / training.seconds,
        lr=lr,
    )


def _finish_epoch(
    training: Training,
    report: Report,
    test: Dataset | None,
    communicator: Communicator,
) -> dict[str, float]:
    """Evaluate, write the epoch into the history, and set the counters for the next one.

    Each rank evaluates its share of the test images.
    """
    result = {
        "epoch": training.epoch + 1,
        "train_loss": report.loss,
        "train_accuracy": report.accuracy,
        "lr": report.lr,
        "seconds": training.seconds,
        "images_per_second": report.images_per_second,
    }
    last = training.epoch + 1 == training.recipe.epochs
    if test is not None and (last or (training.epoch + 1) % training.recipe.test_every == 0):
        share = test.subset(slice(communicator.rank, None, communicator.ranks))
        training.evaluation = score = evaluate_training(training, share)
        sums = communicator.total(len(share) * np.array([score.loss, score.accuracy]))
        result |= {"test_loss": sums[0] / len(test), "test_accuracy": sums[1] / len(test)}
    training.history.append(result)
    training.epoch, training.batch = training.epoch + 1, 0
    training.loss_sum = training.correct = training.seen = training.seconds = 0.0
    return result


def evaluate_training(training: Training, dataset: Dataset) -> Evaluation:
    """Evaluate the training's best parameters (the average, if it keeps one), as its recipe says."""
    views = {"flip": training.recipe.flip_test, "shift": training.recipe.shift_test}
    with _borrowed(training.engine, training.best_vector):
        return evaluate(training.engine, dataset, training.normalise, **views)


def evaluate(
    engine: Engine,
    dataset: Dataset,
    normalise: Normalise,
    batch_size: int = 256,
    flip: bool = False,
    shift: bool = False,
) -> Evaluation:
    """Logits, loss and accuracy on a whole dataset; of several views the logits are averaged.

    `flip` adds the mirrored images, `shift` all that lie up to a pixel away in either direction: nine
    for one (after K. Jordan, 94% on CIFAR-10 in 3.29 Seconds on a Single GPU, 2024, §3.5, with three).
    Raises DataError for a dataset without images, ShapeError for one that does not fit the network.
    """
    if not len(dataset):
        raise DataError(f"{dataset.name}: no images to evaluate")
    feed = batches(dataset, batch_size, shuffle=False, normalise=normalise)
    logits = np.concatenate(
        [
            np.mean([engine.predict(view) for view in _views(images, flip, shift)], axis=0)
            for images, _ in feed
        ]
    )
    loss, _ = softmax_cross_entropy(logits, dataset.labels)
    accuracy = float((logits.argmax(axis=1) == dataset.labels).mean())
    return Evaluation(loss, accuracy, logits, dataset.labels)


def _views(images: np.ndarray, flip: bool, shift: bool) -> list[np.ndarray]:
    """A batch as it is seen when tested (edges mirrored where it moves)."""
    views = [images]
    if shift:
        height, width = images.shape[1:3]
        wide = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
        views = [wide[:, i : i + height, j : j + width] for i in range(3) for j in range(3)]
    if flip:
        views += [view[:, :, ::-1] for view in views]
    return [np.ascontiguousarray(view) for view in views]


@contextmanager
def _borrowed(engine: Engine, vector: np.ndarray) -> Iterator[None]:
    """Let the engine run with another vector's numbers for a while."""
    if vector is engine.vector:
        yield
        return
    own = engine.vector.copy()
    engine.vector[:] = vector
    try:
        yield
    finally:
        engine.vector[:] = own


def _decay(training: Training, optimiser: Optimiser) -> np.ndarray:
    """Each number's weight decay: the recipe's for trained weights, 0 for everything else.

    And 0 for weights whose length the optimiser keeps.
    """
    decay = np.zeros_like(training.engine.vector)
    for path, view in flatten(training.engine.views(decay)).items():
        matches = any(fnmatch(path, pattern) for pattern in training.recipe.frozen)
        if view.ndim > 1 and not matches:  # a norm's scale has one axis, a weight two or four
            view[...] = training.recipe.weight_decay
    for start, rows, columns in optimiser.matrices:
        decay[start : start + rows * columns] = 0
    return decay


def _frozen(engine: Engine, patterns: tuple[str, ...]) -> list[np.ndarray]:
    """The gradients of all that is frozen. Raises UserError for a pattern that matches nothing."""
    grads = flatten(engine.views(engine.grad_vector))
    for pattern in patterns:
        if not any(fnmatch(path, pattern) for path in grads):
            raise UserError(
                f"frozen: {pattern!r} matches no parameter, for instance {next(iter(grads))}"
            )
    return [view for path, view in grads.items() if any(fnmatch(path, p) for p in patterns)]


def _norm_biases(engine: Engine) -> list[np.ndarray]:
    """The gradients of the biases of all batch norms: they have a running mean beside them."""
    grads = flatten(engine.views(engine.grad_vector))
    means = (path for path in buffer_shapes(engine.model) if path.endswith("/mean"))
    return [grads[path.removesuffix("mean") + "bias"] for path in means]


def _keep(average: float, step: int) -> float:
    """How much of the running average to keep: less in the first steps, which it should forget."""
    return min(average, (1 + step) / (10 + step))


def _trained_size(model: Model) -> int:
    """How many numbers of the vector are trained; batch norm's running statistics lie behind them."""
    return sum(int(np.prod(shape)) for shape in trained_shapes(model).values())


def _step_seed(seed: int, step: int, rank: int) -> int:
    """A seed of its own for each step's and each rank's dropout masks."""
    return int(np.random.SeedSequence((seed, step, rank)).generate_state(1)[0])


def _broken(training: Training, images: np.ndarray, labels: np.ndarray, lr: float) -> TrainingError:
    mode = Mode(reference, np.random.default_rng(0))
    other = "" if buffer_shapes(training.engine.model) else " or build the model with norm=True"
    where = first_broken(training.engine.model, training.engine.params, images, labels, mode)
    return TrainingError(
        f"the loss is no longer a number in epoch {training.epoch + 1}, batch {training.batch + 1}: "
        f"{where}; lower the learning rate (it was {lr:.3g}){other}"
    )
