"""Any picture becomes the right array: modes, orientation, damage; preprocessing as a value."""

from contextlib import suppress

import numpy as np
import pytest
from PIL import Image

from tinysqueeze.data import images as images_module
from tinysqueeze.errors import DataError, FormatError
from tinysqueeze.weights import CAFFE, TORCHVISION, Preprocess, find_images, open_image

RED = (200, 40, 30)


def picture(size=(40, 30)) -> Image.Image:
    """A smooth picture whose four corners differ, so that a turn shows."""
    x, y = np.meshgrid(np.linspace(0, 1, size[0]), np.linspace(0, 1, size[1]))
    return Image.fromarray((255 * np.stack([x, y, 1 - x], -1)).astype(np.uint8))


def saved(tmp_path, image: Image.Image, name: str, **options):
    image.save(tmp_path / name, **options)
    return tmp_path / name


@pytest.mark.parametrize(
    ("mode", "name"),
    [("RGB", "x.png"), ("RGB", "x.bmp"), ("L", "x.png"), ("1", "x.png"), ("P", "x.gif"),
     ("P", "x.png"), ("RGBA", "x.png"), ("LA", "x.png"), ("CMYK", "x.tiff"), ("YCbCr", "x.jpg"),
     ("CMYK", "x.jpg"), ("LAB", "x.tiff"), ("RGB", "x.webp"), ("I;16", "x.png"), ("I;16", "x.tiff"),
     ("F", "x.tiff")],
)  # fmt: skip
def test_every_mode_opens_as_the_same_picture(tmp_path, mode, name):
    grey = mode in ("L", "1", "LA", "I;16", "F")
    original = picture().convert("L") if grey else picture()
    if mode == "I;16":
        made = Image.fromarray(np.asarray(original).astype(np.uint16) * 257)
    elif mode == "LAB":
        made = Image.merge("LAB", [original.convert("L"), *[Image.new("L", (40, 30), 128)] * 2])
        grey, original = True, original.convert("L")
    else:
        made = original.quantize(256) if mode == "P" else original.convert(mode)
    options = (
        {"lossless": True} if name.endswith("webp") else {"quality": 95} if "jpg" in name else {}
    )
    opened = open_image(saved(tmp_path, made, name, **options))
    assert (opened.mode, opened.size) == ("RGB", (40, 30))
    error = np.abs(np.asarray(opened, float) - np.asarray(original.convert("RGB"), float))
    assert error.mean() < (130 if mode == "1" else 12)


def test_float_samples_of_either_range(tmp_path):
    unit = np.linspace(0, 1, 100, dtype=np.float32).reshape(10, 10)
    unit[0, 0] = np.nan
    for scale in (1, 255):
        opened = open_image(saved(tmp_path, Image.fromarray(unit * scale), "x.tiff"))
        assert np.asarray(opened).max() == 255
        assert 100 < np.asarray(opened).mean() < 150


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "RGB"])
def test_what_is_transparent_shows_white(tmp_path, mode):
    image = Image.new("RGBA", (8, 8), (*RED, 0))
    image.paste((*RED, 255), (0, 0, 4, 8))
    if mode in ("P", "RGB"):
        image = image.convert("RGB")
        image.paste((1, 2, 3), (4, 0, 8, 8))
        image = image if mode == "RGB" else image.quantize(4)
        clear = (1, 2, 3) if mode == "RGB" else image.getpixel((6, 4))
        path = saved(tmp_path, image, "x.png", transparency=clear)
    else:
        path = saved(tmp_path, image.convert(mode), "x.png")
    opened = open_image(path)
    assert opened.getpixel((6, 4)) == (255, 255, 255)
    assert opened.getpixel((1, 4)) != (255, 255, 255)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_cameras_rotation_is_undone(tmp_path, orientation):
    upright = picture()
    turns = {
        2: [Image.Transpose.FLIP_LEFT_RIGHT], 3: [Image.Transpose.ROTATE_180],
        4: [Image.Transpose.FLIP_TOP_BOTTOM], 5: [Image.Transpose.TRANSPOSE],
        6: [Image.Transpose.ROTATE_90], 7: [Image.Transpose.TRANSVERSE],
        8: [Image.Transpose.ROTATE_270],
    }  # fmt: skip
    stored = upright
    for turn in turns.get(orientation, []):
        stored = stored.transpose(turn)
    exif = Image.Exif()
    exif[0x0112] = orientation
    opened = open_image(saved(tmp_path, stored, "x.png", exif=exif))
    assert opened.size == upright.size
    assert np.array_equal(np.asarray(opened), np.asarray(upright))


def test_the_first_frame_of_an_animation(tmp_path):
    frames = [Image.new("RGB", (9, 9), colour) for colour in ("red", "blue")]
    path = saved(tmp_path, frames[0], "x.gif", save_all=True, append_images=frames[1:])
    assert open_image(path).getpixel((4, 4)) == (255, 0, 0)


def test_files_that_are_no_pictures(tmp_path, monkeypatch):
    whole = saved(tmp_path, picture((300, 300)), "whole.jpg").read_bytes()
    (tmp_path / "half.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.jpg").write_text("no picture")
    (tmp_path / "empty.png").write_bytes(b"")
    for name in ("half.jpg", "text.jpg", "empty.png", "missing.jpg", "."):
        with pytest.raises(DataError) as error:
            open_image(tmp_path / name)
        assert str(error.value).startswith(str(tmp_path / name))
        assert "\n" not in str(error.value)
    monkeypatch.setattr(images_module, "MAX_PIXELS", 300 * 300 - 1)
    with pytest.raises(DataError, match="300×300 pixels are more than"):
        open_image(tmp_path / "whole.jpg")


def test_a_decompression_bomb_is_refused_before_it_is_decoded(tmp_path):
    Image.new("1", (20_000, 20_000)).save(tmp_path / "bomb.png")
    assert (tmp_path / "bomb.png").stat().st_size < 100_000
    with pytest.raises(DataError, match=r"bomb\.png"):
        open_image(tmp_path / "bomb.png")


def test_damaged_pictures_never_crash(tmp_path):
    rng = np.random.default_rng(0)
    for name in ("x.jpg", "x.png", "x.gif", "x.webp", "x.tiff", "x.bmp"):
        data = saved(tmp_path, picture(), name).read_bytes()
        for _ in range(60):
            flipped = bytearray(data)
            for bit in rng.integers(0, 8 * len(data), 3):
                flipped[bit // 8] ^= 1 << bit % 8
            (tmp_path / name).write_bytes(bytes(flipped))
            with suppress(DataError):
                assert open_image(tmp_path / name).mode == "RGB"


def test_folders_are_walked_in_order(tmp_path):
    for name in ("b/2.png", "b/1.JPG", "a/x.jpeg", "z.txt", "top.bmp"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    found = [path.relative_to(tmp_path).as_posix() for path in find_images([tmp_path])]
    assert found == ["top.bmp", "a/x.jpeg", "b/1.JPG", "b/2.png"]
    assert list(find_images([tmp_path / "z.txt"])) == [tmp_path / "z.txt"]  # asked for by name


# --- preprocessing ------------------------------------------------------------------------------


def test_caffes_preprocessing_by_hand():
    image = picture((500, 333))
    x = CAFFE(image)
    warped = np.asarray(image.resize((256, 256), Image.Resampling.BILINEAR))[14:241, 14:241]
    expected = warped[..., ::-1].astype("f4") - np.array([104, 117, 123], "f4")
    assert x.dtype == np.float32
    assert np.array_equal(x, expected)


@pytest.mark.parametrize("size", [(500, 333), (333, 500), (256, 256), (100, 2000), (31, 17)])
def test_torchvisions_preprocessing_by_hand(size):
    image = picture(size)
    x = TORCHVISION(image)
    width, height = size
    shorter = min(size)
    new = (int(256 * width / shorter), int(256 * height / shorter))
    resized = np.asarray(image.resize(new, Image.Resampling.BILINEAR))
    top, left = round((new[1] - 224) / 2), round((new[0] - 224) / 2)
    crop = resized[top : top + 224, left : left + 224].astype("f4") / np.float32(255)
    expected = (crop - np.array([0.485, 0.456, 0.406], "f4")) / np.array(
        [0.229, 0.224, 0.225], "f4"
    )
    np.testing.assert_allclose(x, expected, rtol=1e-6, atol=1e-6)


def test_preprocessing_is_a_value():
    assert str(CAFFE) == (
        "resize to 256×256, aspect ratio not kept; centre crop 227×227; channels BGR; "
        "subtract (104, 117, 123)"
    )
    assert str(TORCHVISION) == (
        "shorter side to 256 pixels; centre crop 224×224; channels RGB; divide by 255; "
        "subtract (0.485, 0.456, 0.406); divide by (0.229, 0.224, 0.225)"
    )
    for preprocess in (CAFFE, TORCHVISION):
        assert Preprocess.from_json(preprocess.to_json()) == preprocess
    assert CAFFE.with_size(227) == CAFFE
    assert TORCHVISION.with_size(112).resize == 128


@pytest.mark.parametrize(
    "changes",
    [{"channels": "GBR"}, {"std": (1, 0, 1)}, {"mean": [1, 2]}, {"crop": 3}, {"resize": None}],
)
def test_odd_preprocessing_is_refused(changes):
    with pytest.raises(FormatError):
        Preprocess.from_json(CAFFE.to_json() | changes)
