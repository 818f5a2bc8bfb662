"""Folders of one's own images."""

import numpy as np
import pytest
from PIL import Image

from tinysqueeze.data import load
from tinysqueeze.errors import DataError, FormatError


def draw(path, colour, size=(8, 6), **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(options.pop("mode", "RGB"), size, colour).save(path, **options)


@pytest.fixture
def folder(tmp_path):
    """Two classes of ten images, 8 pixels wide and 6 high."""
    for i in range(10):
        draw(tmp_path / "cat" / f"{i}.png", (200, i, 0))
        draw(tmp_path / "ant" / f"{i}.PNG", (0, i, 200))
    (tmp_path / "cat" / "notes.txt").write_text("not an image")
    (tmp_path / "empty").mkdir()
    return tmp_path


def test_one_folder_gets_a_fixed_split_with_every_class_in_it(folder):
    train, test = load(folder), load(folder, "test")
    assert (len(train), len(test)) == (16, 4)
    assert train.classes == test.classes == ("ant", "cat")
    assert np.bincount(test.labels).tolist() == [2, 2]
    assert train.images.shape == (16, 6, 8, 3)
    assert np.array_equal(train.images[:, 0, 0, 0] == 200, train.labels == 1)
    assert np.array_equal(load(str(folder), "test").images, test.images)


def test_train_and_test_folders(tmp_path):
    for split, count in (("train", 3), ("test", 2)):
        for i in range(count):
            draw(tmp_path / split / "a" / f"{i}.png", (i, 0, 0))
            draw(tmp_path / split / "b" / f"{i}.jpg", (i, 255, 0))
    assert (len(load(tmp_path)), len(load(tmp_path, "test"))) == (6, 4)
    draw(tmp_path / "test" / "c" / "0.png", (0, 0, 0))
    draw(tmp_path / "test" / "d" / "0.png", (0, 0, 0))
    with pytest.raises(DataError, match="c: the training set has no class of that name"):
        load(tmp_path, "test")


def test_a_test_folder_may_lack_a_class_but_not_be_missing(tmp_path):
    for name in "abc":
        draw(tmp_path / "train" / name / "0.png", (0, 0, 0))
    with pytest.raises(DataError, match="but no test beside it"):
        load(tmp_path, "test")
    for name in "bc":
        draw(tmp_path / "test" / name / "0.png", (0, 0, 0))
    assert load(tmp_path, "test").labels.tolist() == [1, 2]


def test_every_kind_of_image_becomes_rgb(tmp_path):
    draw(tmp_path / "a" / "grey.png", 77, mode="L")
    draw(tmp_path / "a" / "palette.gif", 3, mode="P")
    draw(tmp_path / "b" / "clear.png", (1, 2, 3, 128), mode="RGBA")
    draw(tmp_path / "b" / "mono.bmp", 1, mode="1")
    train = load(tmp_path)
    test = load(tmp_path, "test")
    assert train.images.shape[1:] == test.images.shape[1:] == (6, 8, 3)


def test_sizes_must_agree_unless_one_is_chosen(folder):
    draw(folder / "cat" / "wide.png", (1, 2, 3), size=(40, 10))
    with pytest.raises(DataError, match=r"8x6 pixels in .*, 40x10 pixels in .*wide\.png"):
        load(folder)
    assert load(folder, size=5).images.shape[1:] == (5, 5, 3)


def test_damaged_images_and_folders_of_something_else_are_named(folder, tmp_path_factory):
    (folder / "cat" / "bad.png").write_bytes(b"\x89PNG but not really")
    with pytest.raises(FormatError, match=r"bad\.png: not an image that can be read"):
        load(folder)
    whole = (folder / "cat" / "0.png").read_bytes()
    (folder / "cat" / "bad.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FormatError, match=r"bad\.png: not an image that can be read"):
        load(folder)
    with pytest.raises(DataError, match="found 0 such"):
        load(tmp_path_factory.mktemp("nothing"))
