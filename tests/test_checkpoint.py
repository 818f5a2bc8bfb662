"""Nothing in a checkpoint can be changed unseen, and what is in it has types and ranges."""

import json

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

import tinysqueeze as ts
from tinysqueeze.data import Augment, Dataset, batches
from tinysqueeze.errors import CheckpointError, DataError, TrainingError, UserError
from tinysqueeze.training import checkpoint
from tinysqueeze.training.engine import stepwise_engine
from tinysqueeze.training.loop import run
from tinysqueeze.training.recipe import HardImages, Recipe
from tinysqueeze.training.state import begin

SMALL = {"base_e": 8, "incr_e": 8, "fires": 2, "pools": (1,), "stem_filters": 8}


@pytest.fixture(scope="module")
def pictures():
    rng = np.random.default_rng(0)
    labels = np.arange(40) % 2
    images = (rng.integers(0, 90, (40, 8, 8, 3)) + 120 * labels[:, None, None, None]).astype("u1")
    return Dataset(images, labels, ("dark", "light"), "pictures")


@pytest.fixture
def saved(pictures, tmp_path):
    """A checkpoint in the middle of the third epoch, where hard images are preferred."""
    model = ts.squeezenet_cifar(classes=2, input_size=8, **SMALL)
    recipe = Recipe(
        epochs=4,
        batch_size=10,
        hard_images=HardImages(0.5, 0.2),
        augment=Augment(pad=1),
        average=0.9,
    )
    training = begin(model, pictures, recipe, make_engine=stepwise_engine)
    for report in run(training, pictures):
        if (report.epoch, report.batch) == (2, 1):
            break
    return checkpoint.save(tmp_path, training, data="pictures")


def parts(path):
    with safe_open(path, "numpy") as file:
        return file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def forged(path, change=None, arrays=None, repair=True, kind=checkpoint.FORMAT):
    """Rewrite a checkpoint with other metadata or arrays, with a check sum that fits or not."""
    header, found = parts(path)
    meta = json.loads(header["tinysqueeze"])
    if change:
        change(meta)
    found |= arrays or {}
    if kind == checkpoint.FIRST:
        meta["sha256"] = checkpoint.digest(found, None)
    text = json.dumps(meta)
    if repair:
        header["sha256"] = checkpoint.digest(found, text)
    save_file(found, path, header | {"tinysqueeze": text, "format": kind})
    return path


def put(*path, value):
    """A change of metadata: meta[a][b] = value."""

    def change(meta):
        *outer, last = path
        for key in outer:
            meta = meta[key]
        meta[last] = value

    return change


CHANGES = {
    "std": put("normalise", "std", 0, value=0.5),
    "rate": put("recipe", "schedule", "lr", value=0.06),
    "step": put("counters", "step", value=7),
    "seed": put("recipe", "seed", value=1),
    "a class": put("classes", 0, value="light"),
    "data": put("extra", "data", value="other"),
    "history": put("history", 0, "test_accuracy", value=1.0),
}


@pytest.mark.parametrize("name", CHANGES)
def test_no_change_of_metadata_goes_unseen(saved, name):
    with pytest.raises(CheckpointError, match="do not match their SHA-256"):
        checkpoint.read(forged(saved, CHANGES[name], repair=False))
    checkpoint.read(forged(saved, repair=True))
    assert checkpoint.read(
        forged(saved, CHANGES[name])
    ).meta  # in range: only the sum is against it


INF, NAN = float("inf"), float("nan")
ODD = [
    (put("normalise", "std", value=[1, 0, 1]), "normalise: std is a list of 3 entries"),
    (put("normalise", "std", value=[1, NAN, 1]), "normalise: std"),
    (put("normalise", "mean", value=[0, 0]), "normalise: mean"),
    (put("normalise", value=None), "truncated or corrupt"),
    (put("recipe", "schedule", "lr", value=INF), "lr is a number above 0"),
    (put("recipe", "batch_size", value=2**70), "batch_size is a whole number from 1"),
    (put("recipe", "optimiser", "name", value=["sgd"]), "no optimiser named"),
    (put("recipe", value=3), "truncated or corrupt"),
    (put("recipe", "frozen", value=[1]), "freeze is a list of"),
    (put("counters", "step", value=-1), "counters: step is a whole number from 0"),
    (put("counters", "epoch", value=5), "counters: epoch is 5, the recipe has 4"),
    (put("counters", "seen", value=NAN), "counters: seen"),
    (put("counters", value=[]), "truncated or corrupt"),
    (put("history", value={}), "its history is not a row of numbers an epoch"),
    (put("history", value=[[]]), "its history"),
    (put("history", 0, "seconds", value="1"), "its history"),
    (put("classes", value=["a"]), "it names 1 classes, its network has 2"),
    (put("classes", value=[1, 2]), "no texts"),
    (put("extra", value=[]), "does not say what it was trained on"),
    (put("spec", value={}), "cannot be built"),
]


@pytest.mark.parametrize(("change", "says"), ODD, ids=[str(i) for i in range(len(ODD))])
def test_metadata_have_types_and_ranges(saved, change, says):
    with pytest.raises(CheckpointError, match=says):
        checkpoint.read(forged(saved, change))


def test_arrays_that_fit_no_training_are_refused(saved, pictures):
    header, arrays = parts(saved)
    path = next(name for name in arrays if name.startswith("velocity/"))
    for array, says in (
        (arrays[path].astype("f8"), "float64 instead of float32"),
        (arrays[path] * np.float32(np.nan), "not a finite number"),
    ):
        with pytest.raises(CheckpointError, match=says):
            checkpoint.read(forged(saved, arrays={path: array}))
    forged(saved, arrays={path: np.zeros(1, "f4")})  # would fit every shape
    with pytest.raises(CheckpointError, match=f"lacks {path} of shape"):
        checkpoint.resume(checkpoint.read(saved), make_engine=stepwise_engine)
    save_file(arrays, saved, header)
    forged(saved, arrays={"images/order": np.full(20, 10**9)})
    training = checkpoint.resume(checkpoint.read(saved), make_engine=stepwise_engine)
    with pytest.raises(DataError, match="an order of other images than its 40"):
        next(run(training, pictures))
    save_file(arrays, saved, header)
    forged(saved, put("counters", "batch", value=2))
    training = checkpoint.resume(checkpoint.read(saved), make_engine=stepwise_engine)
    with pytest.raises(
        TrainingError, match=r"at batch 3 of epoch 3 and .* pictures with 40 images has not"
    ):
        next(run(training, pictures))  # it would look for one for ever
    save_file(arrays, saved, header)
    forged(saved, arrays={"images/order": np.arange(10)})
    training = checkpoint.resume(checkpoint.read(saved), make_engine=stepwise_engine)
    with pytest.raises(TrainingError, match="at batch 2 of epoch 3"):
        next(run(training, pictures))
    save_file(arrays, saved, header)
    forged(saved, arrays={"images/losses": np.zeros(3, "f4")})
    training = checkpoint.resume(checkpoint.read(saved), make_engine=stepwise_engine)
    with pytest.raises(TrainingError, match="losses of 3 images, which pictures with 40"):
        next(run(training, pictures))
    with pytest.raises(DataError, match="an order of other images"):
        next(batches(pictures, 4, order=np.array([0, 1, -1, 2])))


def test_the_first_format_is_read_and_told_of(saved):
    before = checkpoint.read(saved)
    assert before.notes == ()
    found = checkpoint.read(forged(saved, kind=checkpoint.FIRST))
    assert "its SHA-256 covers the parameters, not recipe" in found.notes[0]
    assert (found.recipe, found.normalise) == (before.recipe, before.normalise)
    assert found.notes[0] in ts.open_weights(saved).notes
    with pytest.raises(CheckpointError, match=r"checkpoint-9, of another version.*checkpoint-2"):
        checkpoint.read(forged(saved, kind="tinysqueeze-checkpoint-9"))


def test_what_is_no_run_of_train_does_not_resume(saved):
    forged(saved, put("extra", value={"data": 3}))
    with pytest.raises(UserError, match="of no run of `train`"):
        ts.resume(saved.parent)
    forged(saved, put("extra", value={"data": "builtin", "engine": "steam"}))
    with pytest.raises(UserError, match="by the engine steam; here are compiled, stepwise"):
        ts.resume(saved.parent)
