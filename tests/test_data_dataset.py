"""Dataset: what fits together, subsets and splits."""

import numpy as np
import pytest

from tinysqueeze.data import Dataset, load
from tinysqueeze.data.builtin import render
from tinysqueeze.errors import DataError, UserError


def small(labels, classes=("a", "b")):
    images = np.arange(len(labels), dtype=np.uint8)[:, None, None, None] * np.ones(
        (1, 2, 2, 3), np.uint8
    )
    return Dataset(images, np.array(labels, np.int64), classes, "small")


def test_subset_takes_indices_masks_and_slices():
    part = small([0, 1, 0, 1])
    for chosen in ([3, 1], np.array([False, True, False, True]), slice(1, None, 2)):
        taken = part.subset(chosen)
        assert len(taken) == 2
        assert sorted(taken.images[:, 0, 0, 0]) == [1, 3]
        assert taken.classes == part.classes


@pytest.mark.parametrize("held_out", [60, 0.1])
def test_split_holds_out_every_class_alike_and_loses_nothing(held_out):
    whole = render(600, seed=3)
    rest, part = whole.split(held_out, seed=1)
    assert (len(rest), len(part)) == (540, 60)
    assert np.bincount(part.labels).tolist() == [6] * 10
    both = {image.tobytes() for image in np.concatenate([rest.images, part.images])}
    assert both == {image.tobytes() for image in whole.images}
    again = whole.split(held_out, seed=1)[1]
    assert np.array_equal(again.images, part.images)
    assert not np.array_equal(whole.split(held_out, seed=2)[1].images, part.images)


@pytest.mark.parametrize("held_out", [0, 1.0, 4, -1])
def test_a_split_that_leaves_nothing_is_refused(held_out):
    with pytest.raises(DataError, match="cannot hold out"):
        small([0, 1, 0, 1]).split(held_out)


def test_what_does_not_fit_together_is_refused():
    with pytest.raises(DataError, match="small: image 1 has label 2, but there are 2 classes"):
        small([0, 2])
    with pytest.raises(
        DataError, match=r"short: 4 images have labels of shape \(4,\), integers; not \(3,\)"
    ):
        Dataset(np.zeros((4, 2, 2, 3), np.uint8), np.zeros(3, np.int64), ("a",), "short")
    with pytest.raises(DataError, match="must be uint8"):
        Dataset(np.zeros((4, 2, 2, 3)), np.zeros(4, np.int64), ("a",), "float")


def test_a_source_or_split_that_does_not_exist_is_named():
    with pytest.raises(DataError, match=r"no such data: nowhere.*cifar-10-python\.tar\.gz"):
        load("nowhere")
    with pytest.raises(DataError, match="no split 'valid'"):
        load("builtin", "valid")


@pytest.mark.parametrize("size", [0, -1, 1.5, "8", True, 10**7])
def test_a_size_that_no_memory_holds_is_refused_at_once(size):
    with pytest.raises(UserError, match="load: size is None, a whole number from 1 to 4,096, not"):
        load("builtin", "test", size=size)


@pytest.mark.parametrize("images", [None, [[1]], "a.png", {"a": 1}, 3.0])
def test_images_that_are_no_array(images):
    with pytest.raises(DataError, match=f"got {type(images).__name__}"):
        Dataset(images, np.zeros(1, int), ("a",), "n")
