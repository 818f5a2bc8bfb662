"""The stepper: every stop in order, and every formula's numbers give the number that is there."""

import numpy as np
import pytest

from tinysqueeze.errors import UserError
from tinysqueeze.network.compose import Chain, Residual
from tinysqueeze.network.layers import (
    AvgPool2D,
    BatchNorm,
    Conv2D,
    Dropout,
    Flatten,
    GlobalAvgPool2D,
    Linear,
    MaxPool2D,
    Mode,
    ReLU,
    Softmax,
)
from tinysqueeze.network.models import squeezenet_cifar
from tinysqueeze.network.others import GroupedConv2D
from tinysqueeze.network.params import flatten, initialise, unflatten
from tinysqueeze.show.widgets import Stepper

EVERY_LAYER = Chain(
    (
        ("conv", GroupedConv2D(6, (3, 2), stride=(2, 1), pad=(1, 0), groups=3)),
        ("norm", BatchNorm()),
        ("relu", ReLU()),
        ("max", MaxPool2D(3, 2, pad=1, ceil=True)),
        ("avg", AvgPool2D(2, 1, pad=1)),
        ("pointwise", Conv2D(4, 1, bias=False)),
        ("drop", Dropout(0.3)),
        ("flat", Flatten()),
        ("linear", Linear(5)),
        ("softmax", Softmax()),
    )
)
POOLED = Chain((("conv", Conv2D(5, 3)), ("gap", GlobalAvgPool2D())))
BYPASSED = Chain(
    (
        ("simple", Residual(Chain((("conv", Conv2D(3, 3, pad=1)), ("relu", ReLU()))))),
        ("complex", Residual(Chain((("conv", Conv2D(5, 3, pad=1)),)), Conv2D(5, 1))),
        ("gap", GlobalAvgPool2D()),
    )
)
EACH = {"every layer": EVERY_LAYER, "pooled": POOLED, "bypassed": BYPASSED}


def stepper(network, mode, rng):
    images = rng.standard_normal((2, 9, 8, 3))
    shapes = flatten(network.param_shapes((9, 8, 3)))
    params = {path: rng.standard_normal(shape) for path, shape in shapes.items()}
    buffers = flatten(network.buffer_shapes((9, 8, 3)))
    params |= {path: np.full(shape, 0.7) for path, shape in buffers.items()}
    return Stepper(network, unflatten(params), images, np.array([1, 3]), mode)


@pytest.mark.parametrize("network", EACH.values(), ids=EACH)
@pytest.mark.parametrize("training", [False, True], ids=["evaluating", "training"])
def test_each_formula_gives_the_number_that_is_there(network, training, rng):
    mode = Mode(rng=np.random.default_rng(5)) if training else Mode()
    steps = stepper(network, mode, rng)
    for stop in steps.stops:
        steps.run_to(stop.path, stop.direction)
        if stop.direction == "loss":
            assert steps.formula().value == pytest.approx(steps.trace.loss)
            continue
        array = steps.record.y if stop.direction == "forward" else steps.record.dx
        corners = [(0,) * 3, (1, 2, 1), tuple(side - 1 for side in array.shape[1:])]
        for example, at in ((0, corners[0]), (1, corners[1]), (1, corners[2])):
            place = steps.place(at)
            found = steps.formula(at, example).value
            assert found == pytest.approx(array[example][place], rel=1e-6, abs=1e-12), stop


def test_walks_to_the_loss_and_back_to_the_first_layer(rng):
    model = squeezenet_cifar(bypass="simple", norm=True)
    images = rng.standard_normal((1, 32, 32, 3)).astype(np.float32)
    steps = Stepper(model, initialise(model), images, np.array([3]))
    assert steps.stop.path == "conv1"
    assert steps.back().path == "conv1"
    steps.run_to("loss")
    assert f"{steps.trace.loss:.4f}" in steps.headline()
    assert steps.next().direction == "backward"
    assert steps.run_to("conv1") == steps.stops[-1]
    assert steps.next() == steps.stops[-1]
    assert set(steps.arrays()) == {"dy", "dx", "dweight", "dbias"}
    assert len(steps.stops) == 2 * sum(1 for s in steps.stops if s.direction == "forward") + 1


def test_where_a_bypass_ends_its_sum_is_a_stop(rng):
    steps = stepper(BYPASSED, Mode(), rng)
    up = [stop.path for stop in steps.stops if stop.direction == "forward"]
    assert up[:3] == ["simple/conv", "simple/relu", "simple/sum"]
    assert set(up[3:]) == {"complex/conv", "complex/bypass", "complex/sum", "gap"}
    for path in ("simple/sum", "complex/sum"):
        steps.run_to(path, "forward")
        seen = steps.arrays()
        np.testing.assert_array_equal(seen["x"] + seen["around"], seen["y"])
        steps.run_to(path, "backward")
        np.testing.assert_array_equal(steps.arrays()["dx"], steps.arrays()["dy"])


def test_unknown_path_names_the_stops(rng):
    with pytest.raises(UserError, match=r"no stop 'fire99'.*conv.*gap"):
        stepper(POOLED, Mode(), rng).run_to("fire99")


def test_text_and_picture_at_every_stop(rng):
    steps = stepper(EVERY_LAYER, Mode(), rng)
    for stop in steps.stops:
        steps.run_to(stop.path, stop.direction)
        assert stop.path in steps.text()
        picture = steps.picture()
        assert stop.path in picture.alt
        assert picture.png(30).startswith(b"\x89PNG")
