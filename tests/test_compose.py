"""How layers join: paths, folds, rewriting, and errors that name the layer."""

import pickle

import numpy as np
import pytest
from cases import apart, make_params

from tinysqueeze.compiled import compile
from tinysqueeze.errors import ShapeError
from tinysqueeze.network.compose import (
    Chain,
    Composition,
    Concat,
    Residual,
    Rewritten,
    join,
    leaves,
    map_layers,
    map_leaves,
    walk,
    within,
)
from tinysqueeze.network.layers import (
    BatchNorm,
    Conv2D,
    GlobalAvgPool2D,
    HardSwish,
    Layer,
    MaxPool2D,
    ReLU,
)
from tinysqueeze.network.models import Fire, Model, squeezenet1_0, squeezenet_cifar
from tinysqueeze.network.params import flatten

TINY = squeezenet_cifar(base_e=16, incr_e=8, stem_filters=8, input_size=16, bypass="complex")


def test_a_chain_is_its_steps_one_by_one(rng) -> None:
    """The loop that lessons show is the body of Chain.forward and Chain.backward."""
    params = make_params(TINY, TINY.input_shape, rng)
    x = images = rng.standard_normal((2, *TINY.input_shape))
    caches, grads = {}, {}
    for name, layer in TINY.steps:
        x, caches[name] = layer.forward(params.get(name, {}), x)
    dy = rng.standard_normal(x.shape)
    y, cache = TINY.forward(params, images)
    dx, found = TINY.backward(params, cache, dy)
    assert np.array_equal(x, y)
    for name, layer in reversed(TINY.steps):
        dy, grads[name] = layer.backward(params.get(name, {}), caches[name], dy)
    assert np.array_equal(dy, dx)
    assert all(np.array_equal(a, flatten(found)[path]) for path, a in flatten(grads).items())


def test_concat_joins_channels_and_adds_gradients(rng) -> None:
    x, dy = rng.standard_normal((2, 3, 3, 2)), rng.standard_normal((2, 3, 3, 4))
    twice = Concat((("a", ReLU()), ("b", ReLU())))
    y, cache = twice.forward({}, x)
    dx, _ = twice.backward({}, cache, dy)
    assert np.array_equal(y, np.concatenate([np.maximum(x, 0)] * 2, axis=-1))
    assert apart(dx, (x > 0) * (dy[..., :2] + dy[..., 2:])) < 1e-15


def test_a_bypass_passes_the_gradient_unchanged_beside_the_body(rng) -> None:
    x, dy = -np.ones((1, 2, 2, 3)), rng.standard_normal((1, 2, 2, 3))
    block = Residual(ReLU())  # the body lets nothing through
    y, cache = block.forward({}, x)
    assert np.array_equal(y, x)
    assert np.array_equal(block.backward({}, cache, dy)[0], dy)


def test_a_nameless_child_is_transparent(rng) -> None:
    inner = Chain((("conv", Conv2D(2, 1)),))
    outer = Chain((("", inner), ("relu", ReLU())))
    assert list(flatten(outer.param_shapes((3, 3, 4)))) == ["conv/weight", "conv/bias"]
    assert [path for path, *_ in leaves(outer, (3, 3, 4))] == ["conv", "relu"]
    assert join("", "conv") == join("conv", "") == "conv"
    assert join("fire2", "squeeze") == "fire2/squeeze"


def test_leaves_come_in_forward_order_and_their_shapes_fit_together() -> None:
    model = squeezenet1_0()
    found = list(leaves(model, model.input_shape))
    assert [path for path, *_ in found[:8]] == [
        "conv1", "conv1_relu", "pool1", "fire2/squeeze", "fire2/squeeze_relu",
        "fire2/expand1x1", "fire2/expand3x3", "fire2/expand_relu",
    ]  # fmt: skip
    assert found[-1][3] == (1000,)
    for _, layer, in_shape, out_shape in found:
        assert not isinstance(layer, Composition)
        assert layer.out_shape(in_shape) == out_shape
    paths = [path for path, *_ in walk(model, model.input_shape)]
    assert paths.index("fire2") < paths.index("fire2/squeeze")


def test_map_leaves_rewrites_and_leaves_alone() -> None:
    assert map_leaves(lambda path, layer: layer, TINY) == TINY
    wider = map_leaves(lambda path, layer: Conv2D(8, 1) if path == "conv10" else layer, TINY)
    assert wider.out_shape(TINY.input_shape) == (8,)
    assert wider.name == TINY.name
    paths = {path for path, *_ in leaves(wider, TINY.input_shape)}
    assert paths == {path for path, *_ in leaves(TINY, TINY.input_shape)}


def test_a_rewritten_fire_computes_as_before(rng) -> None:
    def no_relu(path, layer):
        return Chain(()) if isinstance(layer, ReLU) else layer

    def put_back(path, layer):
        return ReLU() if layer == Chain(()) else layer

    fire, shape = Fire(2, 3, 3), (4, 4, 5)
    params, x = make_params(fire, shape, rng), rng.standard_normal((2, *shape))
    linear = map_layers(no_relu, fire)
    assert apart(linear.forward(params, -x)[0] + linear.forward(params, x)[0],
                 2 * linear.forward(params, 0 * x)[0]) < 1e-12  # fmt: skip
    again = map_layers(put_back, linear)
    assert np.array_equal(again.forward(params, x)[0], fire.forward(params, x)[0])


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        (Chain((("stem", Conv2D(4, 9)),)), "^stem: a 9x9 window"),
        (
            Chain((("fire2", Chain((("squeeze", Conv2D(2, 9)),))),)),
            "^fire2/squeeze: a 9x9 window",
        ),
        (
            Chain((("two", Concat((("a", Conv2D(2, 1)), ("b", Conv2D(2, 3))))),)),
            "^two: Concat: arms must give maps of one size",
        ),
        (
            Chain((("fire3", Residual(Conv2D(7, 1))),)),
            "^fire3: Residual: the body gives .* 1x1 convolution as shortcut",
        ),
        (
            Chain((("mean", GlobalAvgPool2D()), ("pool", MaxPool2D(2, 2)))),
            r"^pool: MaxPool2D: expected \(H, W, C\), got \(3,\)",
        ),
    ],
)
def test_a_shape_error_begins_with_the_path_of_its_layer(layer, words) -> None:
    with pytest.raises(ShapeError, match=words):
        layer.out_shape((6, 6, 3))


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        (
            Residual(Residual(Conv2D(3, 1), Conv2D(3, 1)), Conv2D(3, 1)),
            "^net/bypass: there are two",
        ),
        (Chain((("a", Conv2D(3, 1)), ("a", Conv2D(3, 1)))), "^net/a: there are two"),
        (Chain((("", Conv2D(3, 1)), ("", BatchNorm()))), "^net/weight: there are two"),
    ],
)
def test_two_of_one_name_are_refused(layer, words) -> None:
    with pytest.raises(ShapeError, match=words):
        Chain((("net", layer),)).param_shapes((6, 6, 3))


def test_two_that_would_keep_one_cache_are_refused(rng) -> None:
    """Else the second one's would be taken for the first one's, and the gradient be wrong."""
    twice = Chain((("", HardSwish()), ("", HardSwish())))
    with pytest.raises(ShapeError, match="there are two"):
        twice.forward({}, rng.standard_normal((2, 3, 3, 1)))


class Picky(Layer):
    """A layer that nothing fits."""

    def _refuse(self, *arguments, **named):
        raise ShapeError("Picky: not this", "inside")

    out_shape = param_shapes = buffer_shapes = forward = backward = moved_buffers = _refuse


FINE = Conv2D(3, 1)


@pytest.mark.parametrize(
    ("layer", "path"),
    [
        (Chain((("odd", Picky()),)), "odd"),
        (Chain((("a", FINE), ("", Picky()))), ""),
        (Concat((("a", FINE), ("odd", Picky()))), "odd"),
        (Residual(Chain((("odd", Picky()),))), "odd"),
        (Residual(FINE, Picky()), "bypass"),
        (Residual(FINE, Chain((("norm", Picky()),))), "bypass/norm"),
        (Residual(Residual(FINE, Picky())), "bypass"),
        (Rewritten("Fire", Concat((("odd", Picky()),))), "odd"),
        (Model("net", (("odd", Picky()),), (4, 4, 3), {}), "odd"),
    ],
)
def test_every_composition_names_its_child_in_all_that_it_does(layer, path, rng) -> None:
    x = rng.standard_normal((2, 4, 4, 3))
    own = {"weight": rng.standard_normal((1, 1, 3, 3)), "bias": np.zeros(3)}
    params = own | {name: own for name in ("a", "odd", "bypass")}
    cache = {"x": x, "channels": (3, 3)}
    cache |= {"a": {"x": x}, "odd": {}, "bypass": {}}
    dy = np.concatenate([x, x], axis=-1) if isinstance(layer, Concat) else x
    calls = {
        "out_shape": lambda: layer.out_shape(x.shape[1:]),
        "param_shapes": lambda: layer.param_shapes(x.shape[1:]),
        "buffer_shapes": lambda: layer.buffer_shapes(x.shape[1:]),
        "forward": lambda: layer.forward(params, x),
        "backward": lambda: layer.backward(params, cache, dy),
        "moved_buffers": lambda: layer.moved_buffers(params, cache),
    }
    for name, call in calls.items():
        with pytest.raises(ShapeError) as caught, within("net"):
            call()
        inner = "/".join(filter(None, ("net", path, "inside")))
        assert (caught.value.path, caught.value.message) == (inner, "Picky: not this"), name
        assert str(caught.value) == f"{inner}: Picky: not this"


def test_a_shape_error_keeps_its_path_on_the_way_to_another_process() -> None:
    again = pickle.loads(
        pickle.dumps(ShapeError("does not fit").within("b").within("").within("a"))
    )
    assert (again.path, str(again)) == ("a/b", "a/b: does not fit")
    assert str(ShapeError("does not fit: 3")) == "does not fit: 3"


def test_an_arm_named_as_what_concat_keeps_is_refused(rng) -> None:
    arms = Concat((("channels", ReLU()), ("b", ReLU())))
    with pytest.raises(ShapeError, match=r"^channels: there are two"):
        arms.forward({}, rng.standard_normal((2, 3, 3, 1)))


def test_a_name_with_a_slash_is_refused(rng) -> None:
    """As "b" in "a" it would share its arrays with that, of another shape perhaps."""
    conv = Conv2D(3, 1)
    two = Chain((("a/b", conv), ("a", Chain((("b", Conv2D(4, 1)),)))))
    for layer in (two, Concat((("a/b", conv),)), Residual(Chain((("a/b", conv),)))):
        for call in (layer.param_shapes, layer.buffer_shapes):
            with pytest.raises(ShapeError, match=r"^a/b: a slash stands between names"):
                call((5, 5, 3))
    with pytest.raises(ShapeError, match=r"^a/b: a slash"):
        Chain((("a/b", ReLU()),)).forward({}, rng.standard_normal((2, 3, 3, 1)))
    with pytest.raises(ShapeError, match=r"^a/b: a slash"):
        compile(Model("slash", (*two.steps, ("mean", GlobalAvgPool2D())), (5, 5, 3), {}), 2)


def test_a_wrong_array_is_named_by_path_at_run_time(rng) -> None:
    fire = Chain((("fire2", Fire(2, 3, 3)),))
    params = make_params(fire, (4, 4, 5), rng)
    with pytest.raises(
        ShapeError, match=r"^fire2/squeeze: Conv2D: expected 5 channels.*\(1, 4, 4, 6\)"
    ):
        fire.forward(params, np.zeros((1, 4, 4, 6)))
