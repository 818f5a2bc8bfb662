"""The models are the published ones: parameters, shapes, the paper's table, and PyTorch's answers."""

import json

import numpy as np
import pytest
from cases import make_params, small_params, training_mode

from tinysqueeze.errors import ShapeError, UserError
from tinysqueeze.network.compose import leaves
from tinysqueeze.network.layers import EVAL, Dropout, HardSwish, MaxPool2D, ReLU
from tinysqueeze.network.models import (
    MODELS,
    Fire,
    Model,
    build,
    minimum_size,
    squeezenet1_0,
    squeezenet1_1,
    squeezenet_cifar,
)
from tinysqueeze.network.others import alexnet, alexnet_torchvision, vgg16
from tinysqueeze.network.params import flatten, trained_shapes

TINY = {
    "classes": 5, "stem_filters": 8, "base_e": 8, "incr_e": 8, "squeeze_ratio": 0.25,
    "dropout": 0.0, "input_size": 35,
}  # fmt: skip


def parameters(model: Model) -> int:
    return sum(int(np.prod(shape)) for shape in trained_shapes(model).values())


@pytest.mark.parametrize(
    ("model", "published"),
    [
        (squeezenet1_0(), 1_248_424),
        (squeezenet1_1(), 1_235_496),
        (squeezenet1_0(classes=10), 740_554),
        (squeezenet1_1(classes=10), 727_626),
        (squeezenet1_0(classes=10, stem_kernel=3), 729_034),
        (squeezenet_cifar(), 729_034),
        (squeezenet1_0(bypass="simple"), 1_248_424),
        (squeezenet1_0(bypass="complex"), 1_589_672),
        (alexnet(), 60_965_224),
        (alexnet_torchvision(), 61_100_840),
        (vgg16(), 138_357_544),
    ],
    ids=lambda value: value.name if isinstance(value, Model) else str(value),
)
def test_parameters_are_as_published(model, published) -> None:
    assert parameters(model) == published


def test_the_map_sizes_of_the_papers_table_1() -> None:
    model = squeezenet1_0(input_size=227)
    sizes = {path: out for path, _, _, out in leaves(model, model.input_shape)}
    assert sizes["conv1"] == (111, 111, 96)
    assert sizes["pool1"] == (55, 55, 96)
    assert sizes["fire4/expand_relu"] == (55, 55, 256)
    assert sizes["pool4"] == (27, 27, 256)
    assert sizes["pool8"] == (13, 13, 512)
    assert sizes["fire9/expand_relu"] == (13, 13, 512)
    assert sizes["conv10"] == (13, 13, 1000)
    assert sizes["pool10"] == (1000,)


def test_the_fires_of_the_papers_table_1() -> None:
    fires = [layer for name, layer in squeezenet1_0().steps if name.startswith("fire")]
    assert [fire.squeeze for fire in fires] == [16, 16, 32, 32, 48, 48, 64, 64]
    expands = [64, 64, 128, 128, 192, 192, 256, 256]
    assert [fire.expand1x1 for fire in fires] == expands
    assert [fire.expand3x3 for fire in fires] == expands


def test_a_model_of_1_1_pools_earlier_than_1_0() -> None:
    pools = {
        make: [name for name, layer in make().steps if isinstance(layer, MaxPool2D)]
        for make in (squeezenet1_0, squeezenet1_1)
    }
    assert pools == {
        squeezenet1_0: ["pool1", "pool4", "pool8"],
        squeezenet1_1: ["pool1", "pool3", "pool5"],
    }


def test_paths_are_the_ones_people_know_with_or_without_a_bypass() -> None:
    plain, simple = (
        set(trained_shapes(squeezenet1_0())),
        set(trained_shapes(squeezenet1_0(bypass="simple"))),
    )
    assert plain == simple
    assert {"conv1/weight", "fire2/squeeze/weight", "fire9/expand3x3/bias"} < plain
    extra = set(trained_shapes(squeezenet1_0(bypass="complex"))) - plain
    assert extra == {f"fire{i}/bypass/{name}" for i in (2, 4, 6, 8) for name in ("weight", "bias")}
    normed = set(trained_shapes(squeezenet1_0(norm=True))) - plain
    assert {"conv1_norm/weight", "fire2/squeeze_norm/bias", "fire2/expand_norm/weight"} < normed
    linear = set(trained_shapes(squeezenet1_0(norm=True, linear_squeeze=True)))
    assert linear == {path for path in plain | normed if "squeeze_norm" not in path}
    around = set(trained_shapes(squeezenet1_0(norm=True, bypass="complex"))) - normed - plain
    names = ("conv/weight", "conv/bias", "norm/weight", "norm/bias")
    assert around == {f"fire{i}/bypass/{name}" for i in (2, 4, 6, 8) for name in names}


def test_every_metaparameter_is_heard() -> None:
    model = squeezenet1_0(
        base_e=64, incr_e=32, pct3x3=0.25, freq=4, squeeze_ratio=0.5, pools=(2,), fires=5
    )
    assert dict(model.steps)["fire2"] == Fire(32, 48, 16)
    assert dict(model.steps)["fire6"] == Fire(48, 72, 24)
    assert [n for n, part in model.steps if isinstance(part, MaxPool2D)] == ["pool2"]
    assert model.steps[-1][0] == "pool7"
    names = [name for name, _ in squeezenet1_0(final_relu=False, dropout=0).steps]
    assert "conv10_relu" not in names
    kinds = {
        type(part) for _, part, *_ in leaves(squeezenet_cifar(activation="hard-swish"), (32, 32, 3))
    }
    assert HardSwish in kinds
    assert ReLU not in kinds
    assert squeezenet1_0(activation="hard-swish").steps[1][0] == "conv1_swish"
    assert "drop9" not in names


@pytest.mark.parametrize("share", [0, 1])
def test_a_fire_of_1x1_or_3x3_filters_alone_runs(share, rng) -> None:
    model = squeezenet_cifar(**TINY | {"pct3x3": share})
    params = make_params(model, model.input_shape, rng)
    assert model.forward(params, rng.standard_normal((1, *model.input_shape)))[0].shape == (1, 5)


def test_strategy_2_is_enforced_by_name_and_may_be_waived() -> None:
    for squeeze in (128, 200):
        with pytest.raises(UserError, match=r"Strategy 2.*allow_wide_squeeze=True"):
            Fire(squeeze, 64, 64)
        assert Fire(squeeze, 64, 64, allow_wide_squeeze=True).squeeze == squeeze
    with pytest.raises(UserError, match="Strategy 2"):
        squeezenet1_0(squeeze_ratio=1.0)
    assert squeezenet1_0(squeeze_ratio=1.0, allow_wide_squeeze=True).classes == 1000


def test_the_smallest_image_of_1_0_is_21_pixels() -> None:
    assert minimum_size(squeezenet1_0()) == 21
    assert squeezenet1_0(input_size=21).classes == 1000
    with pytest.raises(
        ShapeError, match="squeezenet1_0 needs images of at least 21x21 pixels, got 20x20"
    ):
        squeezenet1_0(input_size=20)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"stem": 3}, "no such metaparameter: stem; there are"),
        ({"activation": "gelu"}, "'relu' or 'hard-swish', not 'gelu'"),
        ({"bypass": "none"}, "'simple' or 'complex', not 'none'"),
        ({"pools": (10,)}, "pools follow layers 1 to 9"),
        ({"pct3x3": 1.5}, "pct3x3 is a number from 0 to 1, not 1.5"),
        ({"classes": 0}, "classes is a whole number from 1 to 100,000, not 0"),
    ],
)
def test_a_wrong_metaparameter_is_named(changes, words) -> None:
    with pytest.raises(UserError, match=words):
        squeezenet1_0(**changes)


def test_a_spec_goes_through_json_and_builds_the_same_model() -> None:
    for model in (
        squeezenet1_0(bypass="complex", pools=(1, 3)),
        squeezenet_cifar(norm=True),
        alexnet(classes=7),
        vgg16(input_size=64),
    ):
        assert build(json.loads(json.dumps(model.spec))) == model
    assert squeezenet1_0().with_changes(classes=10) == squeezenet1_0(classes=10)
    assert {build(name).name for name in MODELS} == set(MODELS)
    with pytest.raises(UserError, match="no model named 'resnet'; there are squeezenet1_0"):
        build("resnet")
    with pytest.raises(UserError, match="alexnet: "):
        build("alexnet", depth=3)


def test_an_image_with_channels_first_is_named_with_its_layer(rng) -> None:
    model = squeezenet_cifar(**TINY)
    params = make_params(model, model.input_shape, rng)
    with pytest.raises(ShapeError, match=r"^conv1: .*3 channels.*\(1, 3, 35, 35\).*transpose"):
        model.forward(params, np.zeros((1, 3, 35, 35)))


# ---------------------------------------------------------------------------- whole models' calculus

WHOLE = {
    "v1.0": squeezenet1_0(**TINY),
    "v1.0 simple bypass": squeezenet1_0(**TINY, bypass="simple"),
    "v1.0 complex bypass, norm": squeezenet1_0(**TINY, bypass="complex", norm=True),
    "v1.1 complex bypass": squeezenet1_1(**TINY, bypass="complex"),
    "v1.1 simple bypass, norm": squeezenet1_1(**TINY, bypass="simple", norm=True),
    "cifar": squeezenet_cifar(),
    "cifar, linear squeeze": squeezenet_cifar(norm=True, linear_squeeze=True, base_e=32, incr_e=32),
    "cifar, hard-swish": squeezenet_cifar(norm=True, activation="hard-swish", base_e=32, incr_e=32),
    "cifar, norm": squeezenet_cifar(norm=True, bypass="simple", base_e=32, incr_e=32),
}


@pytest.mark.oracle
@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_model_equals_pytorch_forward_backward_and_statistics(name, training, rng) -> None:
    pytest.importorskip("torch")
    import oracle

    model = WHOLE[name]
    params = small_params(model, rng)
    h, w, c = model.input_shape
    x = rng.standard_normal((4, h, w - 2, c))  # not square
    dy = rng.standard_normal((4, model.classes))
    mode = training_mode() if training else EVAL
    y, cache = model.forward(params, x, mode)
    dx, grads = model.backward(params, cache, dy, mode)
    theirs = oracle.step(model, params, x, dy, training)
    ours = {"y": y, "dx": dx} | flatten(grads)
    if training:
        ours |= flatten(model.moved_buffers(params, cache))
    assert theirs.keys() == ours.keys() | flatten(model.buffer_shapes(model.input_shape)).keys()
    largest = max(np.abs(a).max() for a in flatten(grads).values())
    for path, array in ours.items():
        # a bias before a batch norm has a gradient of zero but for rounding
        scale = max(np.abs(theirs[path]).max(), 1e-3 * largest)
        assert np.abs(array - theirs[path]).max() < 1e-9 * scale, path


def test_the_logits_come_from_the_last_layers_as_the_paper_orders_them() -> None:
    names = [(n, type(part)) for n, part in squeezenet1_0().steps][-5:]
    assert [n for n, _ in names] == ["fire9", "drop9", "conv10", "conv10_relu", "pool10"]
    assert names[1][1] is Dropout
    assert names[3][1] is ReLU
