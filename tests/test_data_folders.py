"""Folders of one's own images."""

import os

import numpy as np
import pytest
import weight_files
from PIL import Image

from tinysqueeze.data import load
from tinysqueeze.data.images import find_images, open_image
from tinysqueeze.errors import DataError, FormatError
from tinysqueeze.weights import labels_under


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
    with pytest.raises(
        DataError, match=r"8x6 pixels in .*, 40x10 pixels in .*wide\.png; --input-size N"
    ):
        load(folder)
    assert load(folder, size=5).images.shape[1:] == (5, 5, 3)


def test_damaged_images_and_folders_of_something_else_are_named(folder, tmp_path_factory):
    (folder / "cat" / "bad.png").write_bytes(b"\x89PNG but not really")
    with pytest.raises(FormatError, match=r"bad\.png: not an image that Pillow can open; mend it"):
        load(folder)
    whole = (folder / "cat" / "0.png").read_bytes()
    (folder / "cat" / "bad.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FormatError, match=r"bad\.png: .*; mend it, or take it away"):
        load(folder)
    with pytest.raises(DataError, match="found 0 such"):
        load(tmp_path_factory.mktemp("nothing"))


# --- what is in folders beside pictures ----------------------------------------------------------


def test_hidden_names_are_no_classes_and_no_pictures(folder):
    draw(folder / ".ipynb_checkpoints" / "0-checkpoint.png", (0, 0, 0))
    draw(folder / "__MACOSX" / "cat" / "0.png", (0, 0, 0))
    draw(folder / "cat" / ".ipynb_checkpoints" / "0.png", (0, 0, 0))
    for name in ("ant/._0.png", "cat/.DS_Store", "cat/Thumbs.db", ".DS_Store"):
        (folder / name).write_bytes(b"no picture")
    train = load(folder)
    assert train.classes == ("ant", "cat")
    assert len(train) == 16
    empty, hidden, other = train.notes
    assert empty == f"1 without a picture, no class: {folder / 'empty'}"
    assert hidden.startswith(f"7 hidden, left out: {folder}/.DS_Store, ")
    assert other == f"1 no pictures by their suffix, left out: {folder / 'cat' / 'notes.txt'}"
    assert list(find_images([folder])) == [
        folder / name / f"{i}.{suffix}"
        for name, suffix in (("ant", "PNG"), ("cat", "png"))
        for i in range(10)
    ]


def test_suffixes_and_nested_folders_behave_alike_everywhere(tmp_path):
    names = ["a.jfif", "b.JPEG", "c.WebP", "deep/er/d.TIFF", "e.gif", "f.png"]
    for kind in ("cat", "dog"):
        for name in names:
            path = tmp_path / kind / name
            path.parent.mkdir(parents=True, exist_ok=True)
            suffix = path.suffix.lower().replace(".jfif", ".jpeg")[1:]
            Image.new("RGB", (8, 6), (1, 2, 3)).save(path, format=suffix)
    assert len(load(tmp_path, "test", whole=True)) == 12
    assert len(list(find_images([tmp_path]))) == 12
    weights = weight_files.small(classes=2).with_classes(("Cat", "DOG"))
    labels = labels_under(tmp_path, weights)
    assert sorted(labels.values()) == [0] * 6 + [1] * 6
    assert labels[tmp_path / "dog" / "deep" / "er" / "d.TIFF"] == 1


def test_links_to_folders_are_followed_but_never_in_circles(tmp_path):
    draw(tmp_path / "real" / "0.png", (0, 0, 0))
    (tmp_path / "data").mkdir()
    for name in ("a", "b"):
        (tmp_path / "data" / name).symlink_to(tmp_path / "real")
    (tmp_path / "real" / "around").symlink_to(tmp_path / "data")
    assert load(tmp_path / "data", whole=True).classes == ("a", "b")
    assert len(list(find_images([tmp_path / "data"]))) <= 4


def test_a_class_may_be_called_train(tmp_path):
    for name in ("car", "train"):
        for i in range(5):
            draw(tmp_path / name / f"{i}.png", (i, 0, 0))
    assert load(tmp_path).classes == ("car", "train")
    draw(tmp_path / "split" / "train" / "a" / "0.png", (0, 0, 0))
    draw(tmp_path / "split" / "train" / "b" / "0.png", (0, 0, 0))
    draw(tmp_path / "split" / "val" / "b" / "0.png", (0, 0, 0))
    assert load(tmp_path / "split", "test").labels.tolist() == [1]


def test_a_pipe_is_no_picture(tmp_path):
    os.mkfifo(tmp_path / "x.png")
    with pytest.raises(DataError, match=r"x\.png: a pipe, not a file"):
        open_image(tmp_path / "x.png")
    assert list(find_images([tmp_path])) == []


# --- one opener for all --------------------------------------------------------------------------


def test_training_sees_pictures_as_predict_does(tmp_path):
    """16-bit greys, transparency, palettes, CMYK, a camera's rotation, the first of several frames."""
    grey = np.linspace(0, 65535, 48).reshape(6, 8).astype(np.uint16)
    clear = Image.new("RGBA", (8, 6), (0, 0, 0, 0))
    clear.paste((200, 40, 30, 255), (0, 0, 4, 6))
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = Image.fromarray(np.arange(144, dtype=np.uint8).reshape(8, 6, 3))
    made = {
        "grey16.png": (Image.fromarray(grey), {}),
        "clear.png": (clear, {}),
        "clear.webp": (clear, {"lossless": True}),
        "palette.png": (clear.convert("RGB").quantize(4), {"transparency": 0}),
        "cmyk.jpg": (Image.new("CMYK", (8, 6), (0, 200, 200, 0)), {}),
        "turned.png": (turned, {"exif": exif}),
        "frames.gif": (
            Image.new("RGB", (8, 6), "red"),
            {"save_all": True, "append_images": [Image.new("RGB", (8, 6), "blue")]},
        ),
    }
    for kind in ("a", "b"):
        (tmp_path / kind).mkdir()
        for name, (image, options) in made.items():
            image.save(tmp_path / kind / name, **options)
    images = load(tmp_path, whole=True).images
    for image, path in zip(images, sorted((tmp_path / "a").iterdir()), strict=False):
        assert np.array_equal(image, np.asarray(open_image(path))), path.name
    named = dict(zip(sorted(made), images, strict=False))
    assert len(np.unique(named["grey16.png"])) == 48  # not all white
    assert (named["clear.png"][0, 7] == 255).all()  # not black
    assert (named["frames.gif"][0, 0] == (255, 0, 0)).all()
