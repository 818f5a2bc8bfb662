"""Training on after pruning and after sharing: both recover what they cost, and keep their form."""

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tinysqueeze import data
from tinysqueeze.cli import main
from tinysqueeze.data import batches
from tinysqueeze.network.models import squeezenet_cifar
from tinysqueeze.network.params import flatten, initialise, unflatten
from tinysqueeze.network.stepwise import StepByStep
from tinysqueeze.training import checkpoint
from tinysqueeze.training.engine import stepwise_engine
from tinysqueeze.training.recipe import Recipe
from tinysqueeze.training.state import begin
from tinysqueeze.weights.compression import fileformat, prune, retrain, trained
from tinysqueeze.weights.compression.from_run import RETRAINING
from tinysqueeze.weights.compression.kept import kept_at
from tinysqueeze.weights.compression.tensors import Dense, Shared, Tensor

TARGET = 2.4  # thousand bytes
TINY = {"base_e": 8, "incr_e": 8, "stem_filters": 8, "fires": 2, "pools": (1,)}


def test_pruned_weights_stay_pruned_while_the_others_learn() -> None:
    dataset = data.load("builtin", "train").subset(range(64))
    model = squeezenet_cifar(classes=len(dataset.classes), norm=True, **TINY)
    recipe = Recipe(epochs=6, batch_size=32, average=0.5)
    training = begin(model, dataset, recipe, make_engine=stepwise_engine)
    engine = training.engine
    keep = prune.masks(flatten(engine.params), 0.6)
    reports = list(retrain.retrain(training, dataset, keep))
    assert training.finished
    assert reports[-1].loss < reports[0].loss
    for vector in (engine.vector, training.best_vector):
        for path, array in flatten(engine.views(vector)).items():
            if path in keep:
                assert not array[~keep[path]].any()
                assert array[keep[path]].all()


def test_codebooks_learn_and_codes_stay() -> None:
    dataset = data.load("builtin", "train").subset(range(64))
    model = squeezenet_cifar(classes=len(dataset.classes), norm=True, **TINY)
    engine = StepByStep(model)
    tensors: dict[str, Tensor] = {}
    rng = np.random.default_rng(0)
    for path, array in flatten(initialise(model)).items():
        if array.ndim > 1:
            codes = rng.integers(0, 8, array.shape).astype(np.int32)
            codebook = (rng.standard_normal(7) * array.std()).astype(np.float32)
            tensors[path] = Shared(codes, codebook)
        else:
            tensors[path] = Dense(array)
    feed = (batch for epoch in range(12) for batch in batches(dataset, 32, epoch=epoch))
    steps = list(retrain.finetune_codebooks(engine, tensors, feed, lr=0.02))
    losses, (_, last) = [loss for loss, _ in steps], steps[-1]
    assert np.mean(losses[-4:]) < np.mean(losses[:4])
    for path, tensor in tensors.items():
        if isinstance(tensor, Shared):
            found = last[path]
            assert isinstance(found, Shared)
            assert np.array_equal(found.codes, tensor.codes)
            assert not np.array_equal(found.codebook, tensor.codebook)
            assert len(np.unique(found.values())) <= 8
    assert model.forward(
        unflatten({p: t.values() for p, t in last.items()}), next(iter(batches(dataset, 4)))[0]
    )[0].shape == (4, len(dataset.classes))


# --- the whole pipeline ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained network, batch norm and bypass in it, beside the pictures it was trained on."""
    root = tmp_path_factory.mktemp("pipeline")
    rng = np.random.default_rng(0)
    for split, count in (("train", 60), ("test", 20)):
        for bright, name in enumerate(("dark", "light")):
            place = root / "pictures" / split / name
            place.mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 90, (16, 16, 3), dtype=np.uint8) + np.uint8(120 * bright)
                Image.fromarray(pixels).save(place / f"{i}.png")
    sizes = [
        "base_e=16",
        "incr_e=8",
        "stem_filters=12",
        "squeeze_ratio=0.25",
        "fires=3",
        "pools=[1]",
    ]
    options = [word for size in sizes for word in ("--set", size)]
    command = ["train", "--data", str(root / "pictures"), "--out", str(root / "run"), *options]
    assert main([*command, "--epochs", "2", "--batch-size", "20", "--no-test"]) == 0
    return root / "run"


def compress(run: Path, out: Path, *options: str) -> list[str]:
    return ["compress", str(run), "-o", str(out), "--retrain", "3", *options]


def test_one_command_prunes_retrains_shares_and_stores(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "small.tsq"
    assert main(compress(run_folder, out, "--prune", "0.6", "--finetune", "1")) == 0
    said = capsys.readouterr().out
    for stage in ("as trained", "pruned, retrained", "shared, ", "fine-tuned", "times smaller"):
        assert stage in said, said
    found = fileformat.read(out)
    weights = {p: a for p, a in found.params().items() if a.ndim > 1}
    assert 0.38 < prune.density(weights) < 0.42
    assert all(len(np.unique(a)) <= 256 for a in weights.values())
    assert not kept_at(out, RETRAINING).exists()
    assert main(["evaluate", str(out), "--data", str(run_folder.parent / "pictures/test")]) == 0
    assert "top-1 100.00%" in capsys.readouterr().out


def test_one_command_calibrates_and_retrains_to_a_size(
    run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a network that so few bytes hold badly; what is printed is what the file gives."""
    out = tmp_path / "small.tsq"
    assert main(compress(run_folder, out, "--target-kb", str(TARGET), "--threads", "1")) == 0
    said = capsys.readouterr().out
    stages = ("with 118 training images", "as trained", "calibrated  ", "retrained  ", " after: ")
    for stage in stages:
        assert stage in said, said
    assert 0.95 * 1000 * TARGET < out.stat().st_size <= 1000 * TARGET
    assert [path.name for path in tmp_path.iterdir()] == [out.name]
    assert main(["evaluate", str(out), "--data", str(run_folder.parent / "pictures/test")]) == 0
    after = said.split(" without training, ")[1].split("%")[0]
    assert f"top-1 {after}%" in capsys.readouterr().out


@pytest.mark.parametrize(
    "options",
    [["--bits", "4", "--finetune", "1"], ["--target-kb", str(TARGET)]],
    ids=["bits", "size"],
)
def test_ctrl_c_keeps_the_retraining_and_the_same_command_goes_on(
    options: list[str], run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Interrupted or not, the same file comes out."""
    whole, parted = tmp_path / "whole.tsq", tmp_path / "parted.tsq"
    options = [*options, "--threads", "1", "--retrain", "200"]
    assert main([*compress(run_folder, whole), *options]) == 0
    command = [*compress(run_folder, parted), *options]
    with subprocess.Popen(
        [sys.executable, "-m", "tinysqueeze", *command], stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        while "accuracy" not in (line := process.stderr.readline()) and line:
            pass
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 128 + signal.SIGINT
    assert not parted.exists()
    assert 0 < checkpoint.read(kept_at(parted, RETRAINING)).meta["counters"]["step"] < 200 * 5
    assert main([*command, "--retrain", "3"]) == 1  # neither thrown away nor gone on with
    assert "other options" in capsys.readouterr().err
    assert main(command) == 0
    assert "going on with" in capsys.readouterr().out
    assert parted.read_bytes() == whole.read_bytes()
    assert {path.name for path in tmp_path.iterdir()} == {parted.name, whole.name}


@pytest.mark.parametrize(
    ("options", "status", "says"),
    [
        ("--prune 1.5", 1, "prune must be"),
        ("--bits 40", 1, "bits must be"),
        ("--finetune -1", 2, "not '-1'"),
        ("--target-kb 3 --prune 0.5", 1, "leave out bits and prune"),
        ("--target-kb 3 --bits 4", 1, "leave out bits and prune"),
        ("--target-kb 3 --finetune 1", 1, "leave it out"),
        ("--target-kb 3 --photos builtin", 1, "leave out photos"),
        ("--target-kb 3 --preprocess caffe", 1, "leave out preprocess"),
        ("--target-kb 0.3", 1, "does not fit into 300 bytes"),
    ],
)
def test_wrong_options_of_the_pipeline(
    options: str,
    status: int,
    says: str,
    run_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(compress(run_folder, tmp_path / "x.tsq", *options.split())) == status
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("tinysqueeze: ")
    assert says in said
    assert not list(tmp_path.iterdir())


def test_only_a_run_can_be_retrained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(compress(tmp_path / "net.npz", tmp_path / "x.tsq")) == 1
    assert "run folder" in capsys.readouterr().err


def test_thin_layers_keep_more() -> None:
    rng = np.random.default_rng(0)
    flat = {
        "thin/weight": rng.standard_normal((10, 8)).astype(np.float32),
        "wide/weight": (0.01 * rng.standard_normal((100, 80))).astype(np.float32),
        "wide/bias": np.ones(80, np.float32),
    }
    found = prune.fractions_by_layer(flat, 0.6)
    assert found.keys() == {"thin/weight", "wide/weight"}
    assert found["thin/weight"] < 0.3 < 0.59 < found["wide/weight"]
    keep = prune.masks(flat, found)
    assert sum(k.sum() for k in keep.values()) == pytest.approx(0.4 * 8080, abs=2)
    assert set(prune.fractions_by_layer(flat, 0.0).values()) == {0.0}


def test_what_is_stored_computes_the_same() -> None:
    """Merging the statistics of batch norm into its scale and shift changes nothing but rounding."""
    rng = np.random.default_rng(0)
    model = squeezenet_cifar(norm=True, bypass="simple", **TINY)
    flat = flatten(initialise(model))
    for array in flat.values():
        if array.ndim == 1:
            array[...] = rng.uniform(0.5, 1.5, array.shape)
    tensors = trained.shared_tensors(flat, 4)
    stored = trained.for_storing(model, tensors)
    images = rng.standard_normal((4, *model.input_shape)).astype(np.float32)
    want, got = (model.forward(trained.values_of(t), images)[0] for t in (tensors, stored))
    assert np.abs(got - want).max() < 5e-3 * np.abs(want).max()
    sizes = [
        len(fileformat.to_bytes(fileformat.Compressed(model, t, {}))) for t in (tensors, stored)
    ]
    assert sizes[1] < 0.85 * sizes[0]
