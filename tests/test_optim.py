"""Optimisers against PyTorch and against the formulas; schedules against their definitions."""

import numpy as np
import pytest

from tinysqueeze.errors import UserError
from tinysqueeze.kernels.optimiser import ema_update
from tinysqueeze.network.models import squeezenet_cifar
from tinysqueeze.network.params import flatten, initialise
from tinysqueeze.network.stepwise import StepByStep
from tinysqueeze.training.optimisers import SCHEDULES, SGD, Adam, Muon, learning_rate, orthogonalise
from tinysqueeze.training.recipe import Recipe, filter_matrices


def steps(optimiser, decay, lr=0.1, count=7):
    """Parameters after some steps on fixed random gradients."""
    rng = np.random.default_rng(0)
    params = rng.standard_normal(37).astype(np.float32)
    slots = optimiser.start(params)
    for step in range(1, count + 1):
        grads = rng.standard_normal(37).astype(np.float32)
        optimiser.update(params, grads, slots, np.full(37, decay, np.float32), lr, step)
    return params


@pytest.mark.oracle
@pytest.mark.parametrize("nesterov", [True, False])
@pytest.mark.parametrize("decay", [0, 0.05])
@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_as_pytorch(name, decay, nesterov):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    theirs = torch.nn.Parameter(torch.tensor(rng.standard_normal(37).astype(np.float32)))
    if name == "sgd":
        ours = SGD(0.9, nesterov)
        peer = torch.optim.SGD(
            [theirs], lr=0.1, momentum=0.9, nesterov=nesterov, weight_decay=decay
        )
    else:
        ours = Adam()
        peer = torch.optim.AdamW([theirs], lr=0.1, weight_decay=decay)
    for _ in range(7):
        theirs.grad = torch.tensor(rng.standard_normal(37).astype(np.float32))
        peer.step()
    assert np.allclose(steps(ours, decay), theirs.detach().numpy(), rtol=2e-5, atol=1e-6)


def test_sgd_by_its_formula():
    params, grads, velocity = (np.array([v], np.float32) for v in (1.0, 0.5, 0.2))
    SGD(0.9, nesterov=False).update(
        params, grads, {"velocity": velocity}, np.array([0.1], np.float32), 0.1, 1
    )
    assert velocity == pytest.approx(0.9 * 0.2 + 0.5 + 0.1 * 1.0)
    assert params == pytest.approx(1.0 - 0.1 * 0.78)


@pytest.mark.parametrize("shape", [(5, 40), (40, 5), (16, 16), (1, 7)])
def test_orthogonalise_is_the_polar_factor(shape):
    """Against the singular value decomposition: the same vectors, values near 1."""
    matrix = np.random.default_rng(1).standard_normal(shape)
    u, values, vt = np.linalg.svd(matrix, full_matrices=False)
    inside = u.T @ orthogonalise(matrix) @ vt.T
    assert np.allclose(inside, np.diag(np.diag(inside)), atol=1e-9)
    assert np.all(np.abs(np.diag(inside)[values > 0.02 * values[0]] - 0.95) < 0.3)


def test_muon_turns_filters_and_leaves_the_rest_to_sgd():
    model = squeezenet_cifar(fires=1, base_e=8, stem_filters=4, squeeze_ratio=0.25, pools=(1,))
    one, other = (StepByStep(model, initialise(model, 1)) for _ in range(2))
    matrices = filter_matrices(model)
    assert len(matrices) == 4  # conv1, squeeze and both expands, not the classifier
    rng = np.random.default_rng(2)
    grads = rng.standard_normal(one.vector.shape).astype(np.float32)
    muon, sgd = Recipe(optimiser="muon").make_optimiser(model), SGD()
    decay = np.zeros_like(grads)
    assert isinstance(muon, Muon)
    for optimiser, engine in ((muon, one), (sgd, other)):
        optimiser.update(engine.vector, grads.copy(), optimiser.start(engine.vector), decay, 0.1, 1)
    before = flatten(initialise(model, 1))
    for path, weight in flatten(one.params).items():
        if not path.startswith("conv3") and weight.ndim == 4:
            start = before[path].reshape(-1, weight.shape[3])
            length = np.sqrt(2 * weight.shape[3])
            start = start * (length / np.linalg.norm(start))
            turn = np.linalg.norm(weight.reshape(start.shape) - start) / length
            assert turn == pytest.approx(0.15 * 0.1, rel=0.3)
        else:
            assert np.array_equal(weight, flatten(other.params)[path])


def test_muon_leaves_frozen_weights_alone():
    model = squeezenet_cifar(fires=2, base_e=8, stem_filters=4, squeeze_ratio=0.25, pools=(1,))
    all_of_them = filter_matrices(model)
    assert filter_matrices(model, ("conv1/*",)) == all_of_them[1:]
    assert filter_matrices(model, ("fire2/*",)) == (all_of_them[0], *all_of_them[4:])


def test_adam_first_step_is_the_rate():
    """Bias correction makes the first step lr * sign(gradient), whatever the gradient's size."""
    params, grads = np.zeros(3, np.float32), np.array([1e-3, -5, 100], np.float32)
    adam = Adam()
    adam.update(params, grads, adam.start(params), np.zeros(3, np.float32), 0.1, 1)
    assert np.allclose(params, [-0.1, 0.1, -0.1], rtol=1e-4)


def test_running_average():
    average, params = np.zeros(5, np.float32), np.ones(5, np.float32)
    for _ in range(3):
        ema_update(average, params, 0.5)
    assert np.allclose(average, 1 - 0.5**3)


def test_schedules():
    done = np.linspace(0, 1, 101)
    rates = {name: [learning_rate(name, 2.0, d, 0.2) for d in done] for name in SCHEDULES}
    assert rates["one-cycle"][20] == pytest.approx(2)
    assert rates["one-cycle"][10] == pytest.approx(1)
    assert rates["one-cycle"][60] == pytest.approx(1)
    assert rates["constant"][50] == 2
    assert rates["polynomial"][50] == pytest.approx(1)
    assert rates["cosine"][50] == pytest.approx(1)
    for name in ("one-cycle", "polynomial", "cosine"):
        assert rates[name][-1] == pytest.approx(0)
    assert all(rate[0] == 0 and min(rate) >= 0 and max(rate) <= 2 for rate in rates.values())
    with pytest.raises(UserError, match="one-cycle"):
        learning_rate("steps", 1, 0, 0)
