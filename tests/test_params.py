"""Parameters by path: made, flattened, packed, checked."""

import numpy as np
import pytest

from tinysqueeze.errors import ShapeError
from tinysqueeze.network.models import squeezenet_cifar
from tinysqueeze.network.ops import reference
from tinysqueeze.network.params import (
    check_fit,
    flatten,
    initialise,
    map_params,
    pack,
    shapes,
    trained_shapes,
    unflatten,
)
from tinysqueeze.network.stepwise import StepByStep
from tinysqueeze.network.window import Window
from tinysqueeze.study.trace import trace
from tinysqueeze.weights.exporting import export

SMALL = squeezenet_cifar(base_e=16, incr_e=8, stem_filters=8, norm=True, bypass="complex")


def test_initialise_gives_every_shape_in_the_dtype_asked_for() -> None:
    for dtype in (np.float32, np.float64):
        flat = flatten(initialise(SMALL, dtype=dtype))
        assert {path: a.shape for path, a in flat.items()} == shapes(SMALL)
        assert {a.dtype for a in flat.values()} == {np.dtype(dtype)}


def test_initialise_follows_he_and_starts_the_last_layer_small() -> None:
    flat = flatten(initialise(squeezenet_cifar()))
    wide = flat["fire9/expand3x3/weight"]
    assert wide.std() == pytest.approx(np.sqrt(2 / (3 * 3 * 64)), rel=0.02)
    assert flat["conv10/weight"].std() == pytest.approx(0.01, rel=0.05)
    assert not any(a.any() for path, a in flat.items() if path.endswith("bias"))


def test_identity_passes_channels_on_and_leaves_all_else_as_he_has_it() -> None:
    plain, passing = (flatten(initialise(SMALL, identity=identity)) for identity in (False, True))
    rng, window = np.random.default_rng(0), Window.of(3, pad=1)
    for path, weight in passing.items():
        if "expand3x3/weight" not in path:
            assert np.array_equal(weight, plain[path]), path
            continue
        squeeze, filters = weight.shape[2:]
        first = min(squeeze, filters)
        assert np.array_equal(weight[..., first:], plain[path][..., first:])
        assert np.allclose(np.sum(weight[..., :first] ** 2, axis=(0, 1, 2)), 2)  # He's, in the mean
        maps = rng.standard_normal((2, 5, 6, squeeze))
        out = reference.conv2d(maps, weight.astype(float), np.zeros(filters), window)
        assert np.allclose(out[..., :first], np.sqrt(2) * maps[..., :first])


def test_batch_norm_starts_as_the_identity() -> None:
    flat = flatten(initialise(SMALL))
    norms = {path: a for path, a in flat.items() if "_norm/" in path}
    assert norms
    for path, array in norms.items():
        assert np.all(array == (path.split("/")[-1] in ("weight", "var"))), path


def test_a_seed_decides_every_bit() -> None:
    one, same, other = (flatten(initialise(SMALL, seed=seed)) for seed in (1, 1, 2))
    assert all(np.array_equal(one[path], same[path]) for path in one)
    assert not np.array_equal(one["conv1/weight"], other["conv1/weight"])


def test_flatten_and_unflatten_are_inverse_and_keep_the_order() -> None:
    tree = initialise(SMALL)
    flat = flatten(tree)
    assert unflatten(flat) == tree or flatten(unflatten(flat)).keys() == flat.keys()
    assert list(flat) == list(flatten(unflatten(flat)))
    assert all(flatten(unflatten(flat))[path] is flat[path] for path in flat)


def test_buffers_are_not_trained() -> None:
    extra = set(shapes(SMALL)) - set(trained_shapes(SMALL))
    assert extra
    assert {path.split("/")[-1] for path in extra} == {"mean", "var"}


def test_pack_gives_views_into_one_vector() -> None:
    params = initialise(SMALL)
    vector, tree = pack(params)
    assert vector.flags.c_contiguous
    assert vector.size == sum(a.size for a in flatten(params).values())
    for path, view in flatten(tree).items():
        assert np.shares_memory(view, vector), path
        assert np.array_equal(view, flatten(params)[path])
    vector[:] = 7
    assert all((view == 7).all() for view in flatten(tree).values())
    assert not (flatten(params)["conv1/weight"] == 7).any()


def test_map_params_keeps_the_tree() -> None:
    params = initialise(SMALL)
    doubled = flatten(map_params(lambda a: 2 * a, params))
    assert all(np.array_equal(doubled[path], 2 * a) for path, a in flatten(params).items())


def test_parameters_of_another_model_are_named() -> None:
    flat = flatten(initialise(SMALL))
    check_fit(SMALL, unflatten(flat))
    path = "fire2/squeeze/weight"
    with pytest.raises(ShapeError, match=rf"{path}: .* got \(2,\); .* another model"):
        check_fit(SMALL, unflatten(flat | {path: np.zeros(2)}))
    with pytest.raises(ShapeError, match=f"{path}: .* got nothing"):
        check_fit(SMALL, unflatten({p: a for p, a in flat.items() if p != path}))
    with pytest.raises(ShapeError, match=r"fire2/other/weight: .* has no such parameter"):
        check_fit(SMALL, unflatten(flat | {"fire2/other/weight": np.zeros(2)}))


def test_what_is_no_tree_of_arrays_is_refused_by_all_that_takes_one(tmp_path):
    flat = flatten(initialise(SMALL))
    path = "conv1/weight"
    trees = [None, [1], "x", {}] + [
        unflatten(flat | {path: wrong})
        for wrong in (None, "x", flat[path].tolist(), flat[path] + 1j, flat[path].astype(object))
    ]
    images = np.zeros((1, *SMALL.input_shape), np.float32)
    for tree in trees:
        for act in (
            lambda tree: trace(SMALL, tree, images),
            lambda tree: export((SMALL, tree), tmp_path / "net.safetensors"),
            lambda tree: StepByStep(SMALL).load(tree),
        ):
            with pytest.raises(ShapeError, match="expects"):
                act(tree)
    assert list(tmp_path.iterdir()) == []
