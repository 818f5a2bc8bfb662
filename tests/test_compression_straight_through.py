"""Training through the rounding: levels change by small steps, and the file stays within its size."""

import numpy as np
import pytest

from tinysqueeze import data
from tinysqueeze.errors import UserError
from tinysqueeze.network.models import squeezenet_cifar
from tinysqueeze.network.params import flatten, initialise, unflatten
from tinysqueeze.training.engine import stepwise_engine
from tinysqueeze.training.optimisers import Adam
from tinysqueeze.training.recipe import Recipe
from tinysqueeze.training.schedule import Schedule
from tinysqueeze.training.state import begin
from tinysqueeze.weights.compression import straight_through
from tinysqueeze.weights.compression.fileformat import Compressed
from tinysqueeze.weights.compression.straight_through import Grids, levels, train_through
from tinysqueeze.weights.compression.tensors import Dense, Stepped, Tensor

TINY = {"base_e": 8, "incr_e": 8, "stem_filters": 8, "fires": 2, "pools": (1,)}


def coarse(flat: dict[str, np.ndarray], step: float) -> dict[str, Tensor]:
    """Weights at whole multiples of a share of their layer's size, all else as it is."""
    found: dict[str, Tensor] = {}
    for path, array in flat.items():
        size = float(np.float32(step * array.std())) or 1.0
        rounded = array.ndim > 1
        found[path] = Stepped(levels(array, size), size) if rounded else Dense(array)
    return found


def test_a_rounded_network_learns_and_stays_on_its_grid() -> None:
    """Every step sees multiples of the steps; the engine holds what is not rounded between them."""
    dataset = data.load("builtin", "train").subset(range(64))
    model = squeezenet_cifar(classes=len(dataset.classes), norm=True, **TINY)
    flat = flatten(initialise(model))
    grids = Grids.of(Compressed(model, coarse(flat, 1.5), {}), flat)
    recipe = Recipe(
        epochs=40,
        batch_size=32,
        weight_decay=0.0,
        optimiser=Adam(),
        schedule=Schedule(0.1, "cosine"),
    )
    params = unflatten(dict(grids.start))
    training = begin(model, dataset, recipe, params, make_engine=stepwise_engine)
    engine, seen = training.engine, []
    inner = engine.loss_and_grads

    def watched(*given: object) -> tuple[float, int]:
        now = flatten(engine.params)
        seen.append(all(np.array_equal(now[path], t.values()) for path, t in stepped().items()))
        return inner(*given)  # type: ignore[arg-type]

    def stepped() -> dict[str, Tensor]:
        return {p: t for p, t in grids.tensors(latent).items() if isinstance(t, Stepped)}

    latent = {path: array.copy() for path, array in flatten(engine.params).items()}
    engine.loss_and_grads = watched  # type: ignore[method-assign]
    losses = []
    for report in train_through(training, dataset, grids, lambda arrays: None):
        latent = {path: array.copy() for path, array in flatten(engine.params).items()}
        losses.append(report.loss)
    assert training.finished
    assert all(seen)
    assert len(seen) == 80
    assert losses[-1] < losses[1] - 0.05
    paths = grids.steps.keys()
    assert paths == {path for path, array in flat.items() if array.ndim > 1}
    moved = [
        np.mean(levels(latent[p], grids.steps[p]) != levels(flat[p], grids.steps[p])) for p in paths
    ]
    assert 0.01 < np.mean(moved) < 0.9
    assert any(
        (latent[p] != np.float32(grids.steps[p]) * levels(latent[p], grids.steps[p])).any()
        for p in paths
    )


def test_norms_begin_as_they_were_trained() -> None:
    """What a file holds of them is merged, which training could not go on from."""
    model = squeezenet_cifar(norm=True, **TINY)
    flat = flatten(initialise(model))
    stored = {**coarse(flat, 1.0)}
    for path in flat:
        if path.endswith(("norm/mean", "norm/var")):
            stored[path] = Stepped(np.zeros(flat[path].shape, np.int32), 1.0)
        if path.endswith(("norm/weight", "norm/bias")):
            stored[path] = Dense(flat[path] + 1)
    grids = Grids.of(Compressed(model, stored, {}), flat)
    for path, array in flat.items():
        if "norm" in path:
            assert np.array_equal(grids.start[path], array)
            assert path not in grids.steps
        elif path.endswith("/mean"):
            assert grids.units(path) == 1


def test_what_is_nearest_to_a_lower_level_gives_way_first() -> None:
    step = 0.5
    weight = np.zeros((5, 6), np.float32)
    weight[0] = 0.26, 0.49, -0.26, -0.8, 0.0, 1.2
    latent = {"a/weight": weight}
    grids = Grids(latent, {"a/weight": step})
    assert levels(weight, step)[0].tolist() == [1, 1, -1, -2, 0, 2]

    def left(arrays: dict[str, np.ndarray]) -> int:
        return int(np.abs(levels(arrays["a/weight"], step)).sum())

    straight_through.fit_into(7, latent, grids, left)  # it fits: nothing moves
    assert weight[0, 0] == np.float32(0.26)
    straight_through.fit_into(5, latent, grids, left)
    assert levels(weight, step)[0].tolist() == [0, 1, 0, -2, 0, 2]
    assert np.allclose(weight[0], [0.2, 0.49, -0.2, -0.8, 0.0, 1.2])
    straight_through.fit_into(1, latent, grids, left)
    assert left(latent) <= 1
    with pytest.raises(UserError, match="with every weight 0"):
        straight_through.fit_into(-1, latent, grids, left)
