"""The training loop: it learns, it repeats, it stops on NaN by name, and it resumes to the bit."""

from dataclasses import replace
from math import log

import numpy as np
import pytest

from tinysqueeze.data import Dataset, Normalise
from tinysqueeze.errors import CheckpointError, ShapeError, TrainingError, UserError
from tinysqueeze.network.models import squeezenet_cifar
from tinysqueeze.network.params import flatten, initialise
from tinysqueeze.study.diagnose import diagnose
from tinysqueeze.training import checkpoint
from tinysqueeze.training.communicator import Communicator
from tinysqueeze.training.engine import compiled_engine, stepwise_engine
from tinysqueeze.training.evaluate import evaluate
from tinysqueeze.training.loop import run
from tinysqueeze.training.optimisers import Adam
from tinysqueeze.training.recipe import Recipe
from tinysqueeze.training.state import begin, evaluate_training, frozen_paths

TINY = {
    "base_e": 8,
    "incr_e": 4,
    "stem_filters": 6,
    "squeeze_ratio": 0.25,
    "input_size": 12,
    "fires": 3,
}
TINY |= {"pools": (1, 3), "classes": 3}


@pytest.fixture
def shapes3() -> Dataset:
    """Three classes told apart by where a bright square sits."""
    rng = np.random.default_rng(7)
    images = rng.integers(0, 60, (96, 12, 12, 3), dtype=np.uint8)
    labels = np.arange(96) % 3
    for image, label in zip(images, labels, strict=True):
        image[4 * label : 4 * label + 4, 2:10] += 150
    return Dataset(images, labels, ("high", "middle", "low"), "squares")


def tiny(**changes):
    return squeezenet_cifar(**TINY | changes)


def last(training, dataset, **options):
    """Train to the end; the last report."""
    return list(run(training, dataset, **options))[-1]


def same_bits(a, b) -> bool:
    return np.array_equal(a.engine.vector, b.engine.vector) and all(
        np.array_equal(a.slots[name], b.slots[name]) for name in a.slots
    )


@pytest.mark.parametrize("make_engine", [stepwise_engine, compiled_engine])
@pytest.mark.parametrize(
    "changes", [{}, {"norm": True, "bypass": "complex", "dropout": 0.2}], ids=str
)
def test_learns(shapes3, changes, make_engine):
    recipe = Recipe().changed(epochs=15, batch_size=16, lr=0.05, average=0.9)
    training = begin(tiny(**changes), shapes3, recipe, make_engine=make_engine)
    report = last(training, shapes3, test=shapes3)
    assert report.result is not None
    assert report.result["test_accuracy"] > 0.9
    assert report.result["train_loss"] < 0.6 * training.history[0]["train_loss"]
    assert len(training.history) == 15
    assert training.finished


def test_overfits_16_images_with_adam(shapes3):
    few = shapes3.subset(slice(16))
    recipe = Recipe().changed(
        epochs=60, batch_size=16, lr=0.01, optimiser="adam", schedule="cosine"
    )
    training = begin(tiny(), few, recipe, make_engine=stepwise_engine)
    last(training, few)
    score = evaluate_training(training, few)
    assert score.accuracy == 1
    assert score.top(2) == 1
    assert score.loss < 0.1


def test_a_seed_repeats_bit_for_bit(shapes3):
    recipe = Recipe().changed(epochs=2, batch_size=16, pad=2, flip="random", cutout=3, seed=3)
    model = tiny(norm=True, dropout=0.3)
    first, second, other = (
        begin(model, shapes3, r) for r in (recipe, recipe, replace(recipe, seed=4))
    )
    for training in (first, second, other):
        last(training, shapes3)
    assert same_bits(first, second)
    assert not same_bits(first, other)


@pytest.mark.parametrize("schedule", ["cosine", "polynomial", "one-cycle", "constant"])
def test_each_step_takes_the_rate_of_its_middle(shapes3, schedule):
    recipe = Recipe().changed(epochs=2, batch_size=8, lr=0.02, schedule=schedule, warmup=0.25)
    training = begin(tiny(fires=1, pools=(1,)), shapes3, recipe, make_engine=stepwise_engine)
    rates = [report.lr for report in run(training, shapes3)]
    assert len(rates) == recipe.steps(len(shapes3)) == 24
    assert rates[:6] == pytest.approx([0.02 * (step + 0.5) / 6 for step in range(6)])
    assert 0.95 < max(rates) / recipe.schedule.lr <= 1
    assert rates.index(max(rates)) in (5, 6)
    assert np.allclose(np.diff(rates, n=2)[6:], 0) == (schedule != "cosine")


@pytest.mark.oracle
@pytest.mark.parametrize("schedule", ["cosine", "polynomial"])
def test_rates_of_a_training_are_pytorchs_between_its_steps(shapes3, schedule):
    """The middle of a step is the beginning of every second one of twice as many."""
    pytest.importorskip("torch")
    import oracle

    recipe = Recipe().changed(epochs=2, batch_size=8, lr=0.02, schedule=schedule, warmup=0.25)
    training = begin(tiny(fires=1, pools=(1,)), shapes3, recipe, make_engine=stepwise_engine)
    rates = [report.lr for report in run(training, shapes3)]
    steps = len(rates)
    theirs = oracle.learning_rates(schedule, 0.02, 2 * steps, 2 * (steps // 4))
    assert rates == pytest.approx(theirs[1::2], rel=1e-9, abs=1e-9)


HARD_IMAGES = {"keep": 0.7, "hard": 0.4, "epochs": 4}


@pytest.mark.parametrize("stop_after", [1, 6, 9, 14])
@pytest.mark.parametrize(
    "changes",
    [
        {"optimiser": "sgd"},
        {"optimiser": "adam", "schedule": "cosine"},
        {"optimiser": "muon", "schedule": "polynomial"},
        HARD_IMAGES,
    ],
    ids=str,
)
def test_resume_equals_never_having_stopped(shapes3, tmp_path, stop_after, changes):
    usual = Recipe().changed(epochs=3, batch_size=16, pad=2, flip="alternate", average=0.9, lr=0.02)
    recipe = usual.changed(**changes)
    model = tiny(norm=True, bypass="simple", dropout=0.3)
    whole = begin(model, shapes3, recipe)
    last(whole, shapes3, test=shapes3)
    part = begin(model, shapes3, recipe)
    for step, _ in enumerate(run(part, shapes3, test=shapes3), 1):
        if step == stop_after:
            break
    checkpoint.save(tmp_path, part, data="squares")
    again = checkpoint.resume(checkpoint.read(tmp_path))
    last(again, shapes3, test=shapes3)
    assert same_bits(whole, again)
    assert np.array_equal(whole.average, again.average)
    timed = ("seconds", "images_per_second")
    kept = [
        [{k: v for k, v in row.items() if k not in timed} for row in t.history]
        for t in (whole, again)
    ]
    assert kept[0] == kept[1]


def test_epochs_prefer_hard_images(shapes3):
    recipe = Recipe().changed(batch_size=16, lr=0.02, **HARD_IMAGES)
    training = begin(tiny(), shapes3, recipe, make_engine=stepwise_engine)
    before = training.losses.copy()
    per_epoch = []
    for report in run(training, shapes3):
        if report.batch == 1:
            per_epoch.append(report.batches)
            chosen = training.order
            assert len(set(chosen)) == len(chosen) == 16 * report.batches
            if report.epoch >= 2:
                hard = np.argsort(-before, kind="stable")[: round(0.4 * len(shapes3))]
                assert set(hard) <= set(chosen)
        elif report.batch == 2 and report.epoch == 2:
            seen = chosen[:32]
            assert (training.losses[seen] != before[seen]).all()
            unseen = np.setdiff1d(np.arange(len(shapes3)), seen)
            assert np.array_equal(training.losses[unseen], before[unseen])
        before = training.losses.copy() if report.result is not None else before
    whole, part = len(shapes3) // 16, round(0.7 * len(shapes3)) // 16
    assert per_epoch == [whole, whole, part, part]
    assert np.isfinite(training.losses[chosen]).all()


def test_biases_of_norms_have_a_rate_of_their_own(shapes3):
    """After one step of plain SGD they have gone four times as far, and everything else as far."""
    plain = Recipe().changed(epochs=1, batch_size=16, momentum=0.0, nesterov=False, warmup=0)
    steps = []
    for recipe in (plain, replace(plain, norm_bias_rate=4.0)):
        training = begin(tiny(norm=True), shapes3, recipe)
        before = training.engine.vector.copy()
        next(run(training, shapes3))
        steps.append(flatten(training.engine.views(training.engine.vector - before)))
    for path, moved in steps[0].items():
        times = 4 if path.endswith("norm/bias") else 1
        np.testing.assert_allclose(steps[1][path], times * moved, rtol=1e-4, atol=1e-7)
    assert any(moved.any() for path, moved in steps[0].items() if path.endswith("norm/bias"))
    with pytest.raises(UserError, match="norm_bias_rate is a number above 0"):
        Recipe(norm_bias_rate=0)
    with pytest.raises(UserError, match="must be 1 with adam"):
        Recipe(norm_bias_rate=2, optimiser=Adam())


def test_a_recipe_says_how_3x3_filters_start(shapes3):
    for identity in (False, True):
        training = begin(tiny(), shapes3, Recipe(seed=3, identity=identity))
        start = flatten(initialise(training.engine.model, 3, identity=identity))
        for path, array in flatten(training.engine.views(training.engine.vector)).items():
            np.testing.assert_array_equal(array, start[path], err_msg=path)


def test_nan_stops_training_and_names_the_layer(shapes3):
    model = tiny()
    params = initialise(model)
    params["fire3"]["expand3x3"]["bias"][2] = np.inf
    training = begin(
        model, shapes3, Recipe(epochs=1, batch_size=16), params, make_engine=stepwise_engine
    )
    with (
        np.errstate(all="ignore"),
        pytest.raises(TrainingError, match=r"fire3/expand3x3/bias is not finite"),
    ):
        last(training, shapes3)


def test_a_rate_too_high_is_told(shapes3):
    training = begin(
        tiny(),
        shapes3,
        Recipe().changed(epochs=30, batch_size=16, lr=1e6, warmup=0),
        make_engine=stepwise_engine,
    )
    with np.errstate(all="ignore"), pytest.raises(TrainingError, match="lower the learning rate"):
        last(training, shapes3)


def test_frozen_paths_stay(shapes3):
    model = tiny()
    before = flatten(initialise(model, 0))
    recipe = Recipe(epochs=1, batch_size=16, frozen=("conv1/*", "fire[23]/*"))
    training = begin(model, shapes3, recipe)
    last(training, shapes3)
    moved = {
        p for p, a in flatten(training.engine.params).items() if not np.array_equal(a, before[p])
    }
    assert moved == {p for p in before if p.startswith(("fire4", "conv5"))}
    with pytest.raises(UserError, match=r"'nothing' matches no parameter"):
        last(begin(model, shapes3, replace(recipe, frozen=("nothing",))), shapes3)


def test_frozen_paths():
    model = squeezenet_cifar()
    assert frozen_paths(model, ["conv1"]) == ("conv1/weight", "conv1/bias")
    assert len(frozen_paths(model, ["fire[2-5]"])) == 4 * 6
    assert frozen_paths(model, ["*/expand3x3/bias"]) == tuple(
        f"fire{i}/expand3x3/bias" for i in range(2, 10)
    )
    assert frozen_paths(model, []) == ()
    with pytest.raises(UserError, match="nothing to freeze is called conv99"):
        frozen_paths(model, ["conv1", "conv99"])


def test_ranks_share_a_batch(shapes3):
    """Two ranks, each with half of every batch, average to the gradient of the whole."""
    recipe = Recipe().changed(epochs=1, batch_size=16, pad=2, seed=1)
    alone = begin(tiny(), shapes3, recipe, make_engine=stepwise_engine)
    next(run(alone, shapes3))
    gradients = []
    for rank in range(2):

        class Watch(Communicator):
            ranks = 2

            def mean(self, vector):
                gradients.append(vector.copy())

        Watch.rank = rank
        next(
            run(
                begin(tiny(), shapes3, recipe, ranks=2, make_engine=stepwise_engine),
                shapes3,
                communicator=Watch(),
            )
        )
    mean = sum(gradients) / 2
    assert np.allclose(mean, alone.engine.grad_vector, rtol=1e-4, atol=1e-7)
    assert not np.allclose(gradients[0], gradients[1], rtol=1e-2)


def test_flip_at_test_time_averages_two_views(shapes3):
    training = begin(tiny(), shapes3, Recipe(), make_engine=stepwise_engine)
    mirrored = replace(shapes3, images=shapes3.images[:, :, ::-1])
    both = evaluate(training.engine, shapes3, training.normalise, flip=True).logits
    one = evaluate(training.engine, shapes3, training.normalise).logits
    other = evaluate(training.engine, mirrored, training.normalise).logits
    assert np.allclose(both, (one + other) / 2, atol=1e-6)


def test_shifts_at_test_time_are_nine(shapes3):
    """Logits are the mean over all places up to a pixel away; flips of all of them."""
    training = begin(tiny(), shapes3, Recipe(), make_engine=stepwise_engine)

    def logits(images, **views):
        changed = replace(shapes3, images=images)
        return evaluate(training.engine, changed, training.normalise, **views).logits

    wide = np.pad(shapes3.images, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
    for flip in (False, True):
        places = [wide[:, y : y + 12, x : x + 12] for y in range(3) for x in range(3)]
        expected = sum(logits(place, flip=flip) for place in places) / 9
        got = logits(shapes3.images, flip=flip, shift=True)
        assert np.allclose(got, expected, atol=1e-6)


def test_what_does_not_fit_is_refused(shapes3):
    with pytest.raises(ShapeError, match="classes=3"):
        begin(tiny(classes=4), shapes3)
    with pytest.raises(ShapeError, match="input_size=12"):
        begin(tiny(input_size=16), shapes3)
    with pytest.raises(ShapeError, match="1 channels"):
        begin(tiny(input_channels=1), shapes3)
    with pytest.raises(UserError, match="schedule is 'constant', 'polynomial'"):
        Recipe().changed(schedule="sawtooth")
    for warmup in (-0.1, 1.1, float("nan")):
        with pytest.raises(UserError, match="warmup is a number from 0 to 1"):
            Recipe().changed(warmup=warmup)
    with pytest.raises(UserError, match="can't be shared equally"):
        begin(tiny(), shapes3, Recipe(batch_size=15), ranks=2)


def test_diagnose_names_what_is_dead(shapes3):
    model = tiny(final_relu=True)
    params = initialise(model)
    images = shapes3.images[:16].astype(np.float32) / 255
    assert diagnose(model, params, images, shapes3.labels[:16]) == []
    params["conv5"]["bias"][:] = -100
    found = {f.path: str(f) for f in diagnose(model, params, images, shapes3.labels[:16])}
    assert "100% of its ReLUs are zero" in found["conv5_relu"]
    assert f"ln(3) = {log(3):.3f}" in found["logits"]
    params["conv1"]["weight"] *= 1e6
    assert any("explode" in str(f) for f in diagnose(model, params, images, shapes3.labels[:16]))


def test_checkpoint_keeps_everything(shapes3, tmp_path):
    training = begin(
        tiny(norm=True),
        shapes3,
        Recipe(epochs=1, batch_size=16, average=0.5),
        make_engine=stepwise_engine,
    )
    last(training, shapes3)
    saved = checkpoint.read(checkpoint.save(tmp_path, training, data="squares"))
    assert saved.model == training.engine.model
    assert saved.classes == shapes3.classes
    assert saved.normalise == training.normalise == Normalise.of(shapes3)
    assert saved.meta["extra"] == {"data": "squares"}
    kept = flatten(saved.params)
    assert all(
        np.array_equal(kept[path], view) for path, view in flatten(training.best_params).items()
    )


def test_the_same_training_is_saved_as_the_same_bytes(shapes3, tmp_path):
    training = begin(tiny(), shapes3, make_engine=stepwise_engine)
    saved = {checkpoint.save(tmp_path, training, data="squares").read_bytes() for _ in range(12)}
    assert len(saved) == 1


def test_damaged_checkpoints_are_refused(shapes3, tmp_path):
    file = checkpoint.save(tmp_path, begin(tiny(), shapes3, make_engine=stepwise_engine))
    good = file.read_bytes()
    for damaged in (good[:-100], good[:50], b"", b"not a checkpoint at all" * 10):
        file.write_bytes(damaged)
        with pytest.raises(CheckpointError, match="truncated or corrupt"):
            checkpoint.read(tmp_path)
    rng = np.random.default_rng(0)
    for place in rng.integers(len(good) // 2, len(good), 20):
        file.write_bytes(good[:place] + bytes([good[place] ^ 4]) + good[place + 1 :])
        with pytest.raises(CheckpointError, match="corrupt"):
            checkpoint.read(tmp_path)
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        checkpoint.read(tmp_path / "elsewhere")


def test_a_failed_save_leaves_the_old_checkpoint(shapes3, tmp_path, monkeypatch):
    training = begin(tiny(), shapes3, make_engine=stepwise_engine)
    before = checkpoint.save(tmp_path, training).read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tinysqueeze.files.os.fsync", full)
    training.engine.vector += 1
    with pytest.raises(CheckpointError, match=r"No space left.*is as it was"):
        checkpoint.save(tmp_path, training)
    assert (tmp_path / checkpoint.NAME).read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [checkpoint.NAME]
