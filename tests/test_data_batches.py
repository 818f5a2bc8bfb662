"""Batches and augmentation: the fused pass against plain NumPy, and who decides what."""

import time

import numpy as np
import pytest

from tinysqueeze.data import Augment, Dataset, Normalise, batches, hardest
from tinysqueeze.data.augment import Changes, prepare
from tinysqueeze.errors import DataError

FULL = Augment(pad=3, flip="random", cutout=4, cutmix=0.5)


@pytest.fixture(scope="module")
def photos() -> Dataset:
    """Random pixels, not square, each image labelled by its first byte."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (50, 9, 12, 3), np.uint8)
    return Dataset(images, np.arange(50) % 7, tuple("abcdefg"), "photos")


def plain(image, shift, flip, augment, normalise):
    """What `prepare` does to one image up to its hole, written with NumPy's own pad and slices."""
    x = (image / 255 - normalise.mean) / normalise.std
    height, width, _ = x.shape
    pad = augment.pad
    mode = {"mode": "reflect"} if augment.edge == "reflect" else {}
    x = np.pad(x, ((pad, pad), (pad, pad), (0, 0)), **mode)
    x = x[pad + shift[0] :, pad + shift[1] :][:height, :width]
    return x[:, ::-1] if flip else x


@pytest.mark.parametrize("edge", ["reflect", "zero"])
@pytest.mark.parametrize("cutout", [0, 5])
@pytest.mark.parametrize("cutmix", [0.0, 0.7])
def test_prepare_equals_numpy(photos, rng, edge, cutout, cutmix):
    augment = Augment(pad=4, edge=edge, cutout=cutout, cutmix=cutmix)
    normalise = Normalise.of(photos)
    chosen = rng.permutation(50)
    changes = augment.draw(rng, 50, (9, 12), np.zeros(50, bool))
    out = np.full((50, 9, 12, 3), np.nan, np.float32)
    prepare(photos.images, chosen, changes, augment, normalise, out)
    alone = [
        plain(photos.images[i], shift, flip, augment, normalise)
        for i, shift, flip in zip(chosen, changes.shift, changes.flip, strict=True)
    ]
    for n, (image, other) in enumerate(zip(alone, alone[1:] + alone[:1], strict=True)):
        expected = image.copy()
        top, left, bottom, right = changes.patch[n]
        expected[top:bottom, left:right] = other[top:bottom, left:right]
        rows, columns = (slice(max(i, 0), max(i + cutout, 0)) for i in changes.hole[n])
        expected[rows, columns] = 0
        np.testing.assert_allclose(out[n], expected, atol=2e-6)
    assert bool(changes.patch.any()) == (cutmix > 0)
    assert np.abs(changes.shift).max() == 4
    assert 0 < changes.flip.sum() < 50


def test_cutmix_mixes_labels_as_it_mixes_pixels():
    count, size = 4000, (9, 12)
    images = np.repeat(np.arange(4, dtype=np.uint8), 108 * 3).reshape(4, *size, 3)
    flat = Dataset(images[np.arange(count) % 4], np.arange(count) % 4, tuple("abcd"), "flat")
    options = {"augment": Augment(pad=2, cutmix=0.6), "normalise": Normalise()}
    (x, shares), *_ = batches(flat, count, shuffle=False, **options)
    seen = np.rint(x[..., 0] * 255)[..., None] == np.arange(4)
    np.testing.assert_allclose(shares, seen.mean((1, 2)), atol=1e-6)
    whole = shares[np.arange(count), flat.labels]
    assert abs((whole < 1).mean() - 0.6) < 0.05
    # A rectangle of side s covers s - s^2 / 4 on average; the mean of that squared, s^2 even in 0..1
    assert abs(1 - whole[whole < 1].mean() - 0.3208) < 0.02
    (_, labels), *_ = batches(flat, count, shuffle=False)
    np.testing.assert_array_equal(labels, flat.labels)


def test_hardest_first_and_others_by_chance(photos):
    losses = np.random.default_rng(3).random(50)
    hard = set(np.argsort(-losses)[:10])
    found = [hardest(losses, 30, 10, seed=1, epoch=e) for e in (2, 2, 3)]
    for chosen in found:
        assert len(set(chosen)) == 30
        assert hard <= set(chosen)
        assert not hard <= set(chosen[:10])  # shuffled
    assert np.array_equal(found[0], found[1])
    assert set(found[0]) != set(found[2])
    (_, labels), *_ = batches(photos, 30, order=found[0], drop_last=True)
    assert np.array_equal(labels, photos.labels[found[0]])
    assert sum(1 for _ in batches(photos, 16, order=found[0], drop_last=True)) == 1
    with pytest.raises(DataError, match="no batch of 40 in 30 images"):
        next(batches(photos, 40, order=found[0], drop_last=True))


def test_normalised_training_images_have_mean_0_and_deviation_1(photos):
    (x, _), *_ = batches(photos, 50)
    np.testing.assert_allclose(x.mean((0, 1, 2)), 0, atol=1e-6)
    np.testing.assert_allclose(x.std((0, 1, 2)), 1, atol=1e-5)


def test_normalise_of_a_single_grey_is_zero_not_nan():
    grey = Dataset(np.full((4, 2, 2, 3), 99, np.uint8), np.zeros(4, np.int64), ("grey",), "grey")
    (x, _), *_ = batches(grey, 4)
    np.testing.assert_allclose(x, 0, atol=1e-6)


def test_without_shuffle_or_augmentation_it_is_the_dataset_in_order(photos):
    raw = Normalise()
    parts = list(batches(photos, 16, shuffle=False, normalise=raw))
    assert [len(x) for x, _ in parts] == [16, 16, 16, 2]
    x, labels = (np.concatenate(column) for column in zip(*parts, strict=True))
    assert x.dtype == np.float32
    assert np.array_equal(np.rint(x * 255), photos.images)
    assert np.array_equal(labels, photos.labels)
    assert [len(x) for x, _ in batches(photos, 16, drop_last=True)] == [16, 16, 16]


def test_every_epoch_shows_every_image_once_in_a_new_order(photos):
    orders = [
        np.concatenate([labels for _, labels in batches(photos, 16, epoch=e)]) for e in range(3)
    ]
    for order in orders:
        assert np.array_equal(np.sort(order), np.sort(photos.labels))
    assert not np.array_equal(orders[0], orders[1])


def test_a_batch_depends_on_nothing_but_seed_epoch_and_number(photos):
    whole = list(batches(photos, 16, epoch=5, seed=2, augment=FULL))
    resumed = list(batches(photos, 16, epoch=5, seed=2, augment=FULL, start=2))
    for (x, labels), (again, same) in zip(whole[2:], resumed, strict=True):
        assert np.array_equal(x, again)
        assert np.array_equal(labels, same)
    other = next(batches(photos, 16, epoch=5, seed=3, augment=FULL))
    assert not np.array_equal(other[0], whole[0][0])


@pytest.mark.parametrize("ranks", [2, 3])
def test_shards_together_are_the_whole_batch(photos, ranks):
    options = {"epoch": 1, "seed": 4, "augment": FULL}
    whole = batches(photos, 16, **options)
    shards = [batches(photos, 16, shard=(rank, ranks), **options) for rank in range(ranks)]
    for (x, labels), *parts in zip(whole, *shards, strict=True):
        assert np.array_equal(x, np.concatenate([part for part, _ in parts]))
        assert np.array_equal(labels, np.concatenate([part for _, part in parts]))


def test_alternating_flips_show_both_sides_in_two_epochs(photos):
    def flipped(epoch):
        options = {"augment": Augment(pad=0, flip="alternate"), "normalise": Normalise()}
        ((x, _),) = batches(photos, 50, epoch=epoch, shuffle=False, **options)
        return (np.rint(x * 255) == photos.images[:, :, ::-1]).all((1, 2, 3))

    first, second, third = (flipped(epoch) for epoch in range(3))
    assert np.array_equal(first, ~second)
    assert np.array_equal(first, third)
    assert 10 < first.sum() < 40


def test_a_buffer_is_written_in_place(photos):
    out = np.empty((16, 9, 12, 3), np.float32)
    fresh = list(batches(photos, 16, augment=FULL))
    for (x, _), (expected, _) in zip(
        batches(photos, 16, augment=FULL, out=out), fresh, strict=True
    ):
        assert np.shares_memory(x, out)
        assert np.array_equal(x, expected)


def test_what_does_not_fit_is_refused(photos):
    with pytest.raises(DataError, match="no batch of 0"):
        next(batches(photos, 0))
    with pytest.raises(DataError, match="no batch of 64 in 50"):
        next(batches(photos, 64, drop_last=True))
    with pytest.raises(DataError, match="cannot pad 9x12 images by 9"):
        next(batches(photos, 8, augment=Augment(pad=9)))


def test_reflection_by_hand():
    row = np.arange(4, dtype=np.uint8)[None, None, :, None] * np.ones((1, 1, 1, 3), np.uint8)
    image = np.repeat(row, 4, axis=1)
    none = np.zeros((1, 4), np.int64)
    changes = Changes(np.array([[0, -2]]), np.array([False]), none[:, :2], none)
    out = np.empty((1, 4, 4, 3), np.float32)
    prepare(image, np.array([0]), changes, Augment(pad=2), Normalise((0,) * 3, (1 / 255,) * 3), out)
    assert out[0, 0, :, 0].tolist() == pytest.approx([2, 1, 0, 1])


@pytest.mark.slow
def test_a_batch_costs_under_five_percent_of_a_step():
    """A training step of 64 CIFAR images takes about 33 ms on two cores; a twentieth is 1.65 ms."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (6400, 32, 32, 3), np.uint8)
    data = Dataset(images, np.zeros(6400, np.int64), ("any",), "any")
    options = {"augment": Augment(cutout=8), "normalise": Normalise()}
    times = []
    for epoch in range(6):
        start = time.process_time()
        count = sum(1 for _ in batches(data, 64, epoch=epoch, **options))
        times.append((time.process_time() - start) / count)
    assert min(times) < 1.65e-3
