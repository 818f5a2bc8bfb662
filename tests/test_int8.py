"""Integer inference: exact sums, exact rounding, close to the floats, and as good on photographs."""

import json

import numpy as np
import pytest

from tinysqueeze.devices import int8
from tinysqueeze.errors import UserError
from tinysqueeze.graph import Conv, run
from tinysqueeze.network import models
from tinysqueeze.network.layers import Conv2D, GlobalAvgPool2D, MaxPool2D, ReLU
from tinysqueeze.network.ops.reference import windows
from tinysqueeze.network.params import initialise, map_params
from tinysqueeze.network.window import Window
from tinysqueeze.weights import CAFFE, TORCHVISION


def test_sums_are_int32_accumulation(rng):
    """BLAS in float64 against plain int32 sums, at the largest values there are."""
    node = Conv("c", 0, 1, Window.of(3, 2, 1), 6)
    x = rng.choice(np.array([0, 255], np.uint8), (2, 7, 9, 300))
    weight = rng.choice(np.array([-127, 127], np.int8), (3, 3, 300, 6))
    bias = rng.integers(-(1 << 29), 1 << 29, 6, dtype=np.int32)
    zero = np.array([17])
    unused = np.ones(6, np.int32)
    conv = int8.Int8Conv(weight, bias, unused, unused.astype(np.uint8), np.ones(6))
    seen = windows(x.astype(np.int32) - 17, node.window)  # padding is a true zero
    expected = np.einsum("nyxijc,ijcf->nyxf", seen, weight.astype(np.int32), dtype=np.int32) + bias
    np.testing.assert_array_equal(int8.sums(x, zero, conv, node), expected)


def test_rescale_is_floor_of_the_exact_quotient(rng):
    total = np.concatenate([rng.integers(-(1 << 31), 1 << 31, 500), [-(1 << 31), -3, -1, 0, 1, 3]])
    for factor in (0.9999999, 0.5, 0.31, 1e-3, 7e-9, 3.5, 1e-12):
        multiplier, shift = int8.fixed_point(np.array([factor]))
        m, s = int(multiplier[0]), int(shift[0])
        expected = [
            (int(t) * m + (1 << (s - 1))) // (1 << s) for t in total
        ]  # Python's big integers
        np.testing.assert_array_equal(int8.rescale(total, multiplier, shift), expected)
        assert m / 2**s == pytest.approx(factor, rel=1e-8, abs=2**-31)
    with pytest.raises(UserError, match="finer"):
        int8.fixed_point(np.array([2.0**31]))


def test_grids_hold_zero_exactly_and_the_ends_nearly():
    for low, high in ((0.0, 5.0), (-1.0, 3.0), (-7.0, 0.0)):
        grid = int8._grid(low, high, 2)
        assert grid.decode(grid.encode(np.zeros(2))).tolist() == [0, 0]
        ends = grid.decode(grid.encode(np.array([low, high])))
        np.testing.assert_allclose(ends, [low, high], atol=grid.scale[0])


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"norm": True},
        {"bypass": "simple"},
        {"bypass": "complex", "norm": True},
        {"linear_squeeze": True, "norm": True},
        {"activation": "hard-swish", "norm": True, "bypass": "simple"},
    ],
    ids=str,
)
def test_close_to_the_floats(rng, changes):
    model = models.squeezenet_cifar(base_e=32, incr_e=16, stem_filters=24, **changes)
    params = initialise(model, 1)
    params["conv10"] = map_params(lambda a: a * 20, params["conv10"])
    images = rng.standard_normal((24, 32, 32, 3)).astype(np.float32)
    network = int8.quantise(model, params, images[:16])
    expected, _ = model.forward(params, images)
    got = network.logits(images)
    centred = expected - expected.mean(axis=0)
    assert np.sqrt(np.mean((got - expected) ** 2)) < 0.25 * np.sqrt(np.mean(centred**2))
    kernels = sum(c.weight.size for c in network.convs.values())
    assert kernels <= network.parameter_bytes < 1.3 * kernels + 4000


@pytest.mark.parametrize("preprocess", [CAFFE, TORCHVISION], ids=["Caffe", "torchvision"])
def test_takes_the_bytes_of_the_photograph(rng, preprocess):
    """With the grid of the preprocessing, encoding gives back the very bytes."""
    pixels = rng.integers(0, 256, (4, 48, 48, 3), dtype=np.uint8)
    images = preprocess.scaled(pixels)
    model = models.squeezenet1_1(input_size=48, classes=5)
    network = int8.quantise(model, initialise(model), images, int8.pixel_grid(preprocess))
    ordered = pixels if preprocess.channels == "RGB" else pixels[..., ::-1]
    np.testing.assert_array_equal(network.encode(images), ordered)
    first = run(network.graph, initialise(model), images)[1]
    ours = network.grids[1].decode(network.run_node(0, network.graph.nodes[0], {0: ordered}))
    assert np.abs(ours - first).max() < 4 * network.grids[1].scale[0]


def test_what_integers_do_not_do():
    def model(*steps):
        return models.Model("odd", steps, (8, 8, 3), {})

    images = np.zeros((1, 8, 8, 3), np.float32)
    pooled = model(("p", MaxPool2D(2, 2)), ("m", GlobalAvgPool2D()))
    with pytest.raises(UserError, match="convolution as the first layer"):
        int8.quantise(pooled, {}, images)
    headless = model(("c", Conv2D(4, 3)), ("r", ReLU()))
    with pytest.raises(UserError, match="ends with a global average"):
        int8.quantise(headless, initialise(headless), images)
    whole = model(("c", Conv2D(4, 3)), ("m", GlobalAvgPool2D()))
    with pytest.raises(UserError, match="at least one image"):
        int8.quantise(whole, initialise(whole), images[:0])
    silent = int8.quantise(whole, map_params(np.zeros_like, initialise(whole)), images)
    assert silent.logits(images).tolist() == [[0, 0, 0, 0]]


@pytest.mark.slow
def test_within_a_point_on_photographs(shared_data):
    """The authors' network on 200 photographs, calibrated on 40 of them without their labels."""
    from tinysqueeze.weights import load_weights, open_image

    weights = load_weights(shared_data / "compressed_SqueezeNet.net")
    known = json.loads((shared_data / "imagenet200_reference.json").read_text())["images"]
    names = sorted(known)
    labels = np.array([known[name]["label"] for name in names])
    images = np.stack(
        [weights.preprocess(open_image(shared_data / "imagenet200" / n)) for n in names]
    )
    grid = int8.pixel_grid(weights.preprocess)
    network = int8.quantise(weights.model, weights.params, images[2::10], grid)
    best = np.concatenate([network.logits(images[i : i + 8]).argmax(1) for i in range(0, 200, 8)])
    floats = np.array([known[name]["top5"][0] for name in names])
    assert (best == labels).mean() >= (floats == labels).mean() - 0.01
    left_out = np.arange(200) % 10 != 2
    assert (best == labels)[left_out].mean() >= (floats == labels)[left_out].mean() - 0.01
    assert (best == floats).mean() > 0.9
    assert network.parameter_bytes < 1_300_000
