"""Looking inside: the numbers behind the pictures are right, and the pictures are drawn."""

from dataclasses import replace

import numpy as np
import pytest
import weight_files as files
from PIL import Image

from tinysqueeze.errors import UserError
from tinysqueeze.network.layers import Conv2D, Flatten, Linear
from tinysqueeze.network.models import Model, squeezenet1_0, squeezenet_cifar
from tinysqueeze.network.params import map_params
from tinysqueeze.show import inside
from tinysqueeze.show.pictures.style import Picture
from tinysqueeze.weights import Prediction


@pytest.fixture(scope="module")
def weights():
    return files.weight_set(squeezenet1_0(classes=6, input_size=99, conv10_pad=1), caffe=True)


@pytest.fixture(scope="module")
def image():
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 256, (9, 12, 3)).astype(np.uint8))
    return small.resize((160, 120), Image.Resampling.BICUBIC)


def test_a_class_map_averages_to_its_score(weights, image):
    seen = inside.look(weights, image)
    for index in range(6):
        cam = inside.class_activation_map(weights, image, index)
        assert cam.mean() == pytest.approx(seen.logits[0, index], rel=1e-5)


def test_networks_without_maps_of_classes_say_so(image):
    steps = (("conv1", Conv2D(4, 3)), ("flatten", Flatten()), ("fc", Linear(3)))
    flat = files.weight_set(Model("flat", steps, (12, 12, 3), {"name": "flat"}))
    with pytest.raises(UserError, match="has no maps of its classes"):
        inside.class_activation_map(flat, image, 0)


@pytest.mark.parametrize("channels", ["BGR", "RGB"])
def test_the_input_gradient_is_the_derivative_by_each_pixel(image, channels):
    """Central differences in float64 on single pixels, in the picture's own red, green and blue."""
    made = files.weight_set(squeezenet_cifar(classes=3), caffe=channels == "BGR")
    assert made.preprocess.channels == channels
    precise = replace(made, params=map_params(lambda a: a.astype(np.float64), made.params))
    gradient = inside.input_gradient(precise, image, 1)
    assert gradient.shape == (32, 32, 3)
    x = made.preprocess(image)[None].astype(np.float64)
    step = 1e-4 * x.std()
    for place in [(3, 4, 0), (16, 16, 1), (30, 9, 2)]:
        channel = place[2] if channels == "RGB" else 2 - place[2]
        moved = np.zeros_like(x)
        moved[0, place[0], place[1], channel] = step
        up, down = (
            precise.model.forward(precise.params, x + sign * moved)[0][0, 1] for sign in (1, -1)
        )
        assert gradient[place] == pytest.approx((up - down) / (2 * step), rel=1e-3, abs=1e-9)


def test_the_guided_gradient_keeps_only_what_excites(weights, image):
    plain = inside.input_gradient(weights, image, 2)
    guided = inside.input_gradient(weights, image, 2, guided=True)
    assert plain.shape == guided.shape == (99, 99, 3)
    assert np.isfinite(guided).all()
    assert np.abs(guided).max() > 0
    assert not np.allclose(plain, guided)
    relu = inside.GuidedReLU()
    y = np.array([[1.0, 1.0, 0.0, 0.0]])
    dy = np.array([[2.0, -2.0, 2.0, -2.0]])
    assert relu.backward({}, {"y": y}, dy)[0].tolist() == [[2.0, 0.0, 0.0, 0.0]]


def test_where_maps_lie_on_the_image():
    model = squeezenet1_0(input_size=227, conv10_pad=1)
    assert inside.extent(model, "conv1") == (2.5, 224.5, 224.5, 2.5)
    for path in ("fire9", "drop9"):
        assert inside.extent(model, path) == (9.5, 217.5, 217.5, 9.5)
    assert inside.extent(model, "conv10_relu") == (
        -6.5,
        233.5,
        233.5,
        -6.5,
    )  # the ring lies outside
    cifar = squeezenet_cifar(bypass="complex")
    assert inside.extent(cifar, "fire2") == (0, 32, 32, 0)
    assert inside.extent(cifar, "fire9/expand3x3") == (0, 32, 32, 0)
    for path in ("fire99", "pool10"):
        with pytest.raises(UserError, match=f"{path} is no layer"):
            inside.extent(model, path)


def test_a_map_lies_where_its_extent_says():
    """Move a bright spot: the place of conv1 that answers most moves with it."""
    weights = files.weight_set(squeezenet1_0(classes=2, input_size=99))
    weights.flat["conv1/weight"][...] = 1
    weights.flat["conv1/bias"][...] = 0
    left, right, bottom, top = inside.extent(weights.model, "pool1")
    for row, column in ((30, 60), (70, 20)):
        x = np.zeros((1, 99, 99, 3), np.float32)
        x[0, row, column] = 1
        answer = x
        for name, layer in weights.model.steps[:3]:
            answer, _ = layer.forward(weights.params.get(name, {}), answer)
        rows, columns = np.nonzero(answer[0, :, :, 0] == answer.max())
        size = answer.shape[1]
        assert top + (rows.mean() + 0.5) * (bottom - top) / size == pytest.approx(row + 0.5, abs=2)
        assert left + (columns.mean() + 0.5) * (right - left) / size == pytest.approx(
            column + 0.5, abs=2
        )


def test_every_picture_is_drawn_with_alternative_text(weights, image, tmp_path):
    image.save(tmp_path / "photo.png")
    logits = np.array([3, 1, 0, 0, 0, -1], np.float32)
    prediction = Prediction(tmp_path / "photo.png", logits, weights)
    drawn = {
        "filters": inside.first_filters(weights),
        "maps": inside.activation_maps(weights, image, "fire4", most=6),
        "squeeze": inside.activation_maps(weights, image, "fire2/squeeze_relu"),
        "cam": inside.class_maps(weights, image),
        "one cam": inside.class_maps(weights, image, [5]),
        "pixels": inside.pixels_that_count(weights, image),
        "chosen": inside.pixels_that_count(weights, image, 3),
        "sheet": inside.prediction_sheet([prediction] * 7, top=3),
        "single": inside.prediction_sheet([prediction]),
    }
    for name, picture in drawn.items():
        assert isinstance(picture, Picture)
        assert len(picture.alt) > 30
        picture.save(str(tmp_path / f"{name}.png"))
        with Image.open(tmp_path / f"{name}.png") as png:
            assert np.asarray(png).std() > 1, name
    assert "class number 3" in drawn["chosen"].alt


def test_paths_without_maps_are_named(weights, image):
    for path in ("nowhere", "pool10"):
        with pytest.raises(UserError, match=r"there are conv1, conv1_relu, .*fire9"):
            inside.activation_maps(weights, image, path)
