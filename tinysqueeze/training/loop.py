"""The training loop: a generator that takes steps and yields reports; it never prints or plots."""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from math import isfinite

import numpy as np

from tinysqueeze.data import Dataset, batches, hardest
from tinysqueeze.errors import TrainingError
from tinysqueeze.kernels.optimiser import ema_update
from tinysqueeze.network.layers import Mode
from tinysqueeze.network.ops import reference
from tinysqueeze.network.params import buffer_shapes
from tinysqueeze.study.diagnose import first_broken
from tinysqueeze.training.alike import begin_alike, refuse_drift
from tinysqueeze.training.communicator import ALONE, Communicator
from tinysqueeze.training.state import Training, evaluate_training

SAVE_EVERY = 60.0  # seconds: what a kill may cost at most


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


def run(
    training: Training,
    dataset: Dataset,
    test: Dataset | None = None,
    communicator: Communicator = ALONE,
) -> Iterator[Report]:
    """Train until the recipe's last epoch, a report a step; evaluates on `test` after epochs.

    `training` changes as it goes and is whole whenever a report is yielded: save it then. Each
    batch is a function of (seed, epoch, batch), so that a resumed run sees the same ones. Raises
    TrainingError where the loss is no longer finite, naming the layer that broke first, or where ranks
    that train together have not begun alike, or are no longer.
    """
    if training.losses is not None and training.losses.shape != (len(dataset),):
        raise _other_images(training, dataset)
    engine, schedule = training.engine, training.recipe.schedule
    steps = training.recipe.steps(len(dataset))
    begin_alike(training, dataset, test, communicator)
    while not training.finished:
        step = training.step
        refuse_drift(training, communicator)
        started = time.perf_counter() - training.seconds
        for images, labels in rest_of_epoch(training, dataset, communicator):
            lr = schedule.rate((training.step + 0.5) / steps)
            sums = loss_and_grads(training, images, labels, communicator)
            if not isfinite(sums[0]):
                raise _broken(training, images, labels, lr)
            remember_losses(training, communicator)
            mean_over_ranks(training, communicator)
            scale(engine.grad_vector, training.factors)
            training.step += 1
            numbers = (engine.vector, engine.grad_vector, training.slots, training.decay)
            training.optimiser.update(*numbers, lr, training.step, engine.threads)
            move_average(training)
            count(training, sums, time.perf_counter() - started)
            report = _report(training, dataset, lr)
            if report.batch == report.batches:
                result = finish_epoch(training, report, test, communicator)
                report = replace(report, result=result)
            yield report
        if training.step == step:
            raise _other_images(training, dataset)


def drive(
    reports: Iterable[Report],
    show: Callable[[Report], object],
    save: Callable[[], object],
    stop: Callable[[], int] = lambda: 0,
) -> int:
    """Take all the steps, showing each; returns what made it stop early, else 0.

    All is saved after an epoch's last step, once a minute, and before it stops, which it does after
    the step that `stop` says something else than 0 to.
    """
    saved_at = time.perf_counter()
    for report in reports:
        if report.result is not None or time.perf_counter() - saved_at > SAVE_EVERY:
            save()
            saved_at = time.perf_counter()
        show(report)
        if told := stop():
            save()
            return told
    return 0


def rest_of_epoch(
    training: Training, dataset: Dataset, communicator: Communicator
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """This rank's share of the epoch's batches, from the first that the training has not seen.

    Where the recipe prefers hard images, they are chosen when the epoch begins.
    """
    recipe, epoch = training.recipe, training.epoch
    if training.losses is not None and not training.batch:
        size = recipe.batches(len(dataset), epoch) * recipe.batch_size
        hard = min(round(recipe.hard_images.hard * len(dataset)), size)
        training.order = hardest(training.losses, size, hard, recipe.seed, epoch)
    return batches(
        dataset,
        recipe.batch_size,
        epoch=epoch,
        seed=recipe.seed,
        augment=recipe.augment,
        drop_last=True,
        start=training.batch,
        order=training.order,
        shard=(communicator.rank, communicator.ranks),
        normalise=training.normalise,
    )


def loss_and_grads(
    training: Training, images: np.ndarray, labels: np.ndarray, communicator: Communicator
) -> np.ndarray:
    """This rank's gradients, in the engine; returns loss, hits and images, summed over all ranks."""
    where = (training.recipe.seed, training.step, communicator.rank)
    seed = int(np.random.SeedSequence(where).generate_state(1)[0])  # of dropout's masks
    smoothing, share = training.recipe.smoothing, training.recipe.taught
    if training.teacher is not None:
        labels = training.teacher.labels(images, labels, share, training.normalise)
    loss, correct = training.engine.loss_and_grads(images, labels, smoothing, seed)
    return communicator.total(np.array([loss * len(labels), correct, len(labels)], float))


def remember_losses(training: Training, communicator: Communicator) -> None:
    """File the losses of the step's images, of all ranks, where hard images are preferred."""
    if training.losses is None or training.order is None:
        return
    size, mine = training.recipe.batch_size, training.engine.losses
    losses = np.zeros(size)
    losses[communicator.rank * len(mine) :][: len(mine)] = mine
    images = training.order[training.batch * size :][:size]
    training.losses[images] = communicator.total(losses)


def mean_over_ranks(training: Training, communicator: Communicator) -> None:
    """Average gradients, and batch norm's statistics, which each rank's own images have moved."""
    communicator.mean(training.engine.grad_vector)
    if communicator.ranks > 1 and training.statistics.size:
        training.statistics[...] = communicator.total(training.statistics) / communicator.ranks


def scale(gradients: np.ndarray, factors: np.ndarray | None) -> None:
    """Multiply in place. A factor of 0 makes 0 of everything, also of what has overflowed."""
    if factors is None:  # 1 for all
        return
    with np.errstate(invalid="ignore"):  # inf * 0
        gradients *= factors
    np.copyto(gradients, 0, where=factors == 0)


def move_average(training: Training) -> None:
    """The running average follows a step; it keeps less in the first ones, which it should forget."""
    if training.average is not None:
        keep = min(training.recipe.average, (1 + training.step) / (10 + training.step))
        ema_update(training.average, training.engine.vector, keep, training.engine.threads)


def count(training: Training, sums: np.ndarray, seconds: float) -> None:
    """One more batch of the epoch is done."""
    training.loss_sum += float(sums[0])
    training.correct += float(sums[1])
    training.seen += float(sums[2])
    training.batch += 1
    training.seconds = seconds


def _report(training: Training, dataset: Dataset, lr: float) -> Report:
    seen = training.seen
    return Report(
        epoch=training.epoch,
        batch=training.batch,
        batches=training.recipe.batches(len(dataset), training.epoch),
        loss=training.loss_sum / seen,
        accuracy=training.correct / seen,
        images_per_second=seen / training.seconds,
        lr=lr,
    )


def finish_epoch(
    training: Training, report: Report, test: Dataset | None, communicator: Communicator
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
    if test is not None and (last or (training.epoch + 1) % training.recipe.scoring.every == 0):
        share = test.subset(slice(communicator.rank, None, communicator.ranks))
        training.evaluation = score = evaluate_training(training, share)
        sums = communicator.total(len(share) * np.array([score.loss, score.accuracy]))
        result |= {"test_loss": sums[0] / len(test), "test_accuracy": sums[1] / len(test)}
    training.history.append(result)
    training.epoch, training.batch = training.epoch + 1, 0
    training.loss_sum = training.correct = training.seen = training.seconds = 0.0
    return result


def _other_images(training: Training, dataset: Dataset) -> TrainingError:
    losses = training.losses
    known = "" if losses is None else f" and knows the losses of {losses.size:,} images"
    return TrainingError(
        f"it goes on at batch {training.batch + 1:,} of epoch {training.epoch + 1}{known}, which "
        f"{dataset.name} with {len(dataset):,} images has not: take the images that it began with"
    )


def _broken(training: Training, images: np.ndarray, labels: np.ndarray, lr: float) -> TrainingError:
    mode = Mode(reference, np.random.default_rng(0))
    other = "" if buffer_shapes(training.engine.model) else " or build the model with norm=True"
    where = first_broken(training.engine.model, training.engine.params, images, labels, mode)
    return TrainingError(
        f"the loss is no longer a number in epoch {training.epoch + 1}, batch {training.batch + 1}: "
        f"{where}; lower the learning rate (it was {lr:.3g}){other}"
    )
