"""Optimisers against PyTorch and against the formulas; schedules against their definitions."""

from math import sqrt

import numpy as np
import pytest

from tinysqueeze.errors import UserError
from tinysqueeze.kernels.optimiser import ema_update
from tinysqueeze.network.models import squeezenet_cifar
from tinysqueeze.network.params import flatten, initialise
from tinysqueeze.network.stepwise import StepByStep
from tinysqueeze.training.optimisers import SGD, Adam, Muon, filter_matrices, orthogonalise
from tinysqueeze.training.recipes import RECIPES
from tinysqueeze.training.schedule import CURVES, Schedule
from tinysqueeze.training.state import frozen_paths


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


def by_the_formula(count, update, lr=0.1, decay=0.05):
    """As `steps`, in float64: `update(w, g, memory, step, lr, decay)` gives the new w."""
    rng = np.random.default_rng(0)
    params, memory = rng.standard_normal(37).astype(np.float32).astype(np.float64), {}
    for step in range(1, count + 1):
        grads = rng.standard_normal(37).astype(np.float32).astype(np.float64)
        params = update(params, grads, memory, step, lr, decay)
    return params


def test_nesterovs_steps_by_their_formula():
    def update(w, g, memory, step, lr, decay):
        g = g + decay * w
        v = memory["v"] = 0.9 * memory.get("v", 0) + g
        return w - lr * (g + 0.9 * v)

    assert np.allclose(steps(SGD(0.9, True), 0.05), by_the_formula(7, update), rtol=1e-4, atol=1e-5)


def test_adams_steps_by_their_formula():
    """Each step corrects for its own number; weight decay is apart, and goes by the rate."""

    def update(w, g, memory, step, lr, decay):
        m = memory["m"] = 0.9 * memory.get("m", 0) + 0.1 * g
        s = memory["s"] = 0.99 * memory.get("s", 0) + 0.01 * g**2
        m, s = m / (1 - 0.9**step), s / (1 - 0.99**step)
        return w - lr * m / (np.sqrt(s) + 1e-8) - lr * decay * w

    ours = steps(Adam(beta2=0.99), 0.05)
    assert np.allclose(ours, by_the_formula(7, update), rtol=1e-4, atol=1e-5)


def test_muons_steps_by_their_formula():
    """The second step goes by Nesterov's mixture of both gradients."""

    def update(w, g, memory, step, lr, decay):
        m = memory["m"] = 0.9 * memory.get("m", 0) + g
        turned = orthogonalise((g + 0.9 * m)[:36].reshape(9, 4)).ravel()
        length = np.sqrt(2 * 4)
        w, v = w.copy(), memory.get("v", 0) * 0.9 + g[36]
        memory["v"] = v
        w[:36] *= length / np.linalg.norm(w[:36])
        w[:36] -= 0.2 * lr * length / np.sqrt(4) * turned
        w[36] -= lr * (g[36] + 0.9 * v)
        return w

    ours = steps(Muon(matrices=((0, 9, 4),), turn=0.2), 0)
    assert np.allclose(ours, by_the_formula(7, update), rtol=1e-4, atol=1e-4)


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
    muon, sgd = Muon().fitted(model), SGD()
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
    assert filter_matrices(model, frozen_paths(model, ["conv1"])) == all_of_them[1:]
    assert filter_matrices(model, frozen_paths(model, ["fire2/*"])) == (
        all_of_them[0],
        *all_of_them[4:],
    )


def test_adam_first_step_is_the_rate():
    """Bias correction makes the first step lr * sign(gradient), whatever the gradient's size."""
    params, grads = np.zeros(3, np.float32), np.array([1e-3, -5, 100], np.float32)
    adam = Adam()
    adam.update(params, grads, adam.start(params), np.zeros(3, np.float32), 0.1, 1)
    assert np.allclose(params, [-0.1, 0.1, -0.1], rtol=1e-4)


def test_running_average():
    average, params = np.zeros(5, np.float32), np.ones(5, np.float32)
    for _ in range(3):
        ema_update(average, params, 0.9)
    assert np.allclose(average, 1 - 0.9**3)


BY_HAND = {  # done: the factor of lr, with a warm-up of a fifth
    "constant": {0.2: 1, 0.6: 1, 1: 1},
    "one-cycle": {0.2: 1, 0.4: 0.75, 0.6: 0.5, 1: 0},
    "polynomial": {0.2: 1, 0.4: 0.75, 0.6: 0.5, 1: 0},
    "cosine": {0.2: 1, 0.4: (1 + sqrt(0.5)) / 2, 0.6: 0.5, 0.8: (1 - sqrt(0.5)) / 2, 1: 0},
}


@pytest.mark.parametrize("name", CURVES)
def test_a_schedule_begins_at_the_peak_where_the_warm_up_ends(name):
    for done, factor in {0: 0, 0.05: 0.25, 0.1: 0.5, **BY_HAND[name]}.items():
        assert Schedule(2.0, name, 0.2).rate(done) == pytest.approx(2 * factor, abs=1e-12)
    for warmup in (0.0, 0.05, 0.25, 0.9):
        assert Schedule(0.1, name, warmup).rate(warmup) == 0.1
        rates = [Schedule(0.1, name, warmup).rate(done) for done in np.linspace(warmup, 1, 50)]
        assert rates == sorted(rates, reverse=True)
        before = Schedule(0.1, name, warmup).rate(warmup * (1 - 1e-9))
        assert before == pytest.approx(0.1, rel=1e-6)
    assert Schedule(0.1, name, 1.0).rate(0.7) == pytest.approx(0.07)  # nothing but warm-up
    assert Schedule(0.1, name, 1.0).rate(1.0) == 0.1


def test_the_papers_curve_has_no_warm_up():
    """What the solver file says: 0.04 (1 - done)."""
    rates = [Schedule(0.04, "polynomial", warmup=0).rate(done) for done in (0, 0.25, 0.75, 1)]
    assert rates == pytest.approx([0.04, 0.03, 0.01, 0])


def test_one_cycle_is_what_the_named_recipes_were_measured_with():
    """Their curve to the bit: a resumed run goes on as it began."""
    for named in RECIPES.values():
        schedule = named.recipe.schedule
        lr, warmup = schedule.lr, schedule.warmup
        assert schedule.curve == "one-cycle"
        for step in range(400):
            done = (step + 0.5) / 400
            factor = done / warmup if done < warmup else (1 - done) / (1 - warmup)
            assert schedule.rate(done) == lr * factor


def test_a_schedule_of_no_known_name_is_refused():
    with pytest.raises(UserError, match="one-cycle"):
        Schedule(1, "steps")


@pytest.mark.oracle
@pytest.mark.parametrize(
    ("steps", "warmup"), [(10, 0), (12, 3), (40, 1), (40, 39), (7, 7), (90, 30)]
)
@pytest.mark.parametrize("name", ["cosine", "polynomial", "one-cycle", "constant"])
def test_schedules_as_pytorch_at_every_step(name, steps, warmup):
    pytest.importorskip("torch")
    import oracle

    theirs = oracle.learning_rates(name, 0.1, steps, warmup)
    ours = [Schedule(0.1, name, warmup / steps).rate(step / steps) for step in range(steps)]
    assert ours == pytest.approx(theirs, rel=1e-9, abs=1e-9)
    assert max(theirs) == pytest.approx(0.1, rel=1 / steps if warmup == steps else 1e-9)
