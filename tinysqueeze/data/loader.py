"""Batches: which images, in which order, how changed; all of it decided by (seed, epoch, batch)."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from tinysqueeze.data.augment import AS_IT_IS, Augment, Ints, Normalise, prepare
from tinysqueeze.data.dataset import Dataset
from tinysqueeze.errors import DataError

Batch = tuple[npt.NDArray[np.float32], npt.NDArray[np.int64] | npt.NDArray[np.float32]]

# The random numbers of an epoch come in independent streams, named by these and the seed.
ORDER, TURNS, CHANGES = range(3)


def batches(
    dataset: Dataset,
    batch_size: int,
    *,
    epoch: int = 0,
    seed: int = 0,
    augment: Augment | None = None,
    shuffle: bool = True,
    order: Ints | None = None,
    drop_last: bool = False,
    start: int = 0,
    shard: tuple[int, int] = (0, 1),
    normalise: Normalise | None = None,
    out: npt.NDArray[np.float32] | None = None,
) -> Iterator[Batch]:
    """The batches of one epoch: images (N, H, W, 3) float32, normalised, and labels (N,) int64.

    With CutMix labels are (N, classes) float32: the share of each class in an image.

    Batch b of an epoch is the same whenever and wherever it is made with the same seed, so a run
    resumes at batch `start` as if it had never stopped. `normalise` is that of the dataset unless
    given (give it: the test set takes the training set's). The last batch holds what is left over,
    unless `drop_last`.

    `order` are the numbers of the epoch's images, where it isn't simply all of them.

    `shard` = (rank, ranks) yields this rank's part of each batch of `batch_size`: all ranks together
    see just what a single one would, changes included.

    `out`, of shape (batch_size, H, W, 3), is written anew for each batch and yielded as a view, so a
    batch is only good until the next one; without it every batch has memory of its own.

    Raises DataError for a batch size, a padding or an order that does not fit.
    """
    count, (height, width) = len(dataset), dataset.images.shape[1:3]
    augment = augment or AS_IT_IS
    if order is None:
        order = _stream(seed, epoch, ORDER).permutation(count) if shuffle else np.arange(count)
    if len(order) and not 0 <= order.min() <= order.max() < count:
        raise DataError(f"{dataset.name}: an order of other images than its {count:,}")
    if batch_size < 1 or (drop_last and len(order) < batch_size):
        raise DataError(f"{dataset.name}: no batch of {batch_size} in {len(order)} images")
    if not 0 <= augment.pad < min(height, width):
        raise DataError(f"{dataset.name}: cannot pad {height}x{width} images by {augment.pad}")
    images = np.ascontiguousarray(dataset.images)
    normalise = normalise or Normalise.of(dataset)
    turns = _stream(seed, 0, TURNS).random(count) < 0.5  # the same in every epoch...
    turns ^= epoch % 2 == 1  # ...but for the turn
    rank, ranks = shard
    last = len(order) // batch_size if drop_last else -(-len(order) // batch_size)
    for b in range(start, last):
        chosen = order[b * batch_size : (b + 1) * batch_size]
        rng = _stream(seed, epoch, CHANGES, b)
        changes = augment.draw(rng, len(chosen), (height, width), turns[chosen])
        first, stop = len(chosen) * rank // ranks, len(chosen) * (rank + 1) // ranks
        shape = (stop - first, height, width, 3)
        batch = np.empty(shape, np.float32) if out is None else out[: stop - first]
        prepare(images, chosen, changes, augment, normalise, batch, first)
        own = dataset.labels[chosen]
        if augment.cutmix:
            yield batch, changes.shares(own, len(dataset.classes), (height, width))[first:stop]
        else:
            yield batch, own[first:stop]


def hardest(losses: npt.NDArray[np.floating], count: int, hard: int, seed: int, epoch: int) -> Ints:
    """`count` images for an epoch, shuffled: the `hard` ones of the largest losses, others by chance.

    losses (N,) floats are those of all images when last seen; the result is (count,) int64. Easy
    images teach little more: a network learns faster from those it still gets wrong (Loshchilov and
    Hutter, Online Batch Selection for Faster Training of Neural Networks, 2016; Jiang et al.,
    Accelerating Deep Learning by Focusing on the Biggest Losers, 2019), but should not forget the
    others.
    """
    rng = _stream(seed, epoch, ORDER)
    by_loss = np.argsort(-losses, kind="stable")
    others = rng.permutation(by_loss[hard:])[: count - hard]
    return rng.permutation(np.concatenate([by_loss[:hard], others]))


def _stream(seed: int, *names: int) -> np.random.Generator:
    return np.random.default_rng((seed, *names))
