"""Parameters as nested dicts of arrays: made, named by path, and packed into one flat array."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tinysqueeze.errors import ShapeError, UserError
from tinysqueeze.network.compose import join
from tinysqueeze.network.layers import Params, Shape
from tinysqueeze.network.models import Model

Flat = dict[str, Any]  # path -> array (or shape)


def flatten(tree: Mapping[str, Any], path: str = "") -> Flat:
    """{"fire2": {"squeeze": {"weight": a}}} -> {"fire2/squeeze/weight": a}, in the same order."""
    flat: Flat = {}
    for name, value in tree.items():
        here = join(path, name)
        flat |= flatten(value, here) if isinstance(value, Mapping) else {here: value}
    return flat


def unflatten(flat: Mapping[str, Any]) -> Params:
    """The reverse of `flatten`."""
    tree: Params = {}
    for path, value in flat.items():
        *parents, name = path.split("/")
        place = tree
        for parent in parents:
            place = place.setdefault(parent, {})
        place[name] = value
    return tree


def trained_shapes(model: Model) -> dict[str, Shape]:
    """What training changes by gradients: path -> shape."""
    return flatten(model.param_shapes(model.input_shape))


def buffer_shapes(model: Model) -> dict[str, Shape]:
    """What lives beside it, moved but not trained (batch norm's statistics): path -> shape."""
    return flatten(model.buffer_shapes(model.input_shape))


def shapes(model: Model) -> dict[str, Shape]:
    """Every array of the model: path -> shape. Parameters first, then buffers."""
    return trained_shapes(model) | buffer_shapes(model)


def initialise(
    model: Model, seed: int = 0, dtype: Any = np.float32, identity: bool = False
) -> Params:
    """Fresh parameters: He's normal weights (He et al. 2015), zero biases, small last layer.

    Weights have the deviation sqrt(2 / fan-in), which keeps the size of activations through ReLUs.
    The last layer starts near zero (deviation 0.01), so that the first predictions are even. With
    `identity` 3x3 filters first pass their input channels on, see `pass_on`; but not the stem's,
    whose channels are colours, nor the last layer's. Raises UserError for a dtype that isn't floating.
    """
    if np.dtype(dtype).kind != "f":
        raise UserError(f"parameters are floating-point numbers, not {np.dtype(dtype)}")
    rng = np.random.default_rng(seed)
    sizes = shapes(model)
    matrices = [p for p in sizes if p.split("/")[-1] == "weight" and len(sizes[p]) > 1]  # no norm's
    flat: Flat = {}
    for path, shape in sizes.items():
        if path in matrices:
            deviation = 0.01 if path == matrices[-1] else np.sqrt(2 / np.prod(shape[:-1]))
            flat[path] = (rng.standard_normal(shape) * deviation).astype(dtype)
        else:
            flat[path] = np.full(shape, float(path.split("/")[-1] in ("weight", "var")), dtype)
    for path in matrices[1:-1] if identity else ():
        if len(sizes[path]) == 4 and sizes[path][0] > 1:
            pass_on(flat[path])
    return unflatten(flat)


def pass_on(weight: np.ndarray) -> None:
    """Make a convolution's first filters pass on an input channel each, in place.

    Of a (KH, KW, C, F) float weight filter i becomes channel i's pixel in the middle, as long as He's are,
    for the first min(C, F); the others stay as they are (K. Jordan, 94% on CIFAR-10 in 3.29 Seconds
    on a Single GPU, 2024, §3.3, after the Dirac deltas of Zagoruyko & Komodakis 2017).
    """
    height, width, channels, filters = weight.shape
    same = np.arange(min(channels, filters))
    weight[..., same] = 0
    weight[height // 2, width // 2, same, same] = np.sqrt(2)


def check_fit(model: Model, params: Mapping[str, Any]) -> None:
    """Raises ShapeError if the parameters are not this model's: names the first path that differs."""
    if not isinstance(params, Mapping):
        raise ShapeError(
            f"{model.name} expects parameters as nested dicts of arrays, got {type(params).__name__}; "
            "ts.initialise(model) makes fresh ones"
        )
    expected, got = shapes(model), flatten(params)
    for path, shape in expected.items():
        array = got.get(path)
        if path in got and getattr(array, "dtype", np.dtype(object)).kind not in "fiu":
            kind = getattr(array, "dtype", type(array).__name__)
            raise ShapeError(
                f"{model.name} expects an array of real numbers {tuple(shape)}, got {kind}; give np.float32",
                path,
            )
        found = "nothing" if array is None else array.shape
        if found != tuple(shape):
            raise ShapeError(
                f"{model.name} expects {tuple(shape)}, got {found}; "
                "these parameters belong to another model",
                path,
            )
    extra = sorted(set(got) - set(expected))
    if extra:
        raise ShapeError(
            f"{model.name} has no such parameter; it belongs to another model", extra[0]
        )


def map_params(change: Callable[[np.ndarray], np.ndarray], params: Mapping[str, Any]) -> Params:
    """The same tree with every array changed: `map_params(np.copy, params)`."""
    return unflatten({path: change(array) for path, array in flatten(params).items()})


def assign(places: Mapping[str, Any], values: Mapping[str, Any]) -> None:
    """Copy every array of one tree into the same place of another."""
    flat = flatten(places)
    for path, value in flatten(values).items():
        flat[path][...] = value


def pack(params: Mapping[str, Any]) -> tuple[np.ndarray, Params]:
    """Copy all arrays into one contiguous vector; returns it and the same tree as views into it."""
    flat = flatten(params)
    vector = np.concatenate([array.ravel() for array in flat.values()])
    return vector, views(vector, {path: a.shape for path, a in flat.items()})


def views(vector: np.ndarray, sizes: Mapping[str, Shape]) -> Params:
    """A flat vector as a tree of views into it: one path after another, each of its shape."""
    ends = np.cumsum([int(np.prod(shape)) for shape in sizes.values()], dtype=int)
    parts = zip(sizes.items(), np.split(vector, ends), strict=False)  # and what is left over
    return unflatten({path: part.reshape(shape) for (path, shape), part in parts})
