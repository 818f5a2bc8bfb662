"""Several ranks train as one does; a rank that dies ends the job; the cost model is the ring's."""

import functools
import json
import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from tinysqueeze.cli import main
from tinysqueeze.errors import MissingExtra, UserError
from tinysqueeze.paper import scaling
from tinysqueeze.show.pictures.scaling import scaling_efficiency
from tinysqueeze.training import checkpoint
from tinysqueeze.training import mpi as distributed
from tinysqueeze.training.communicator import ALONE

ROOT = Path(__file__).parents[1]

TRAIN = """
import sys
import numpy as np
from tinysqueeze.data import Dataset, Normalise
from tinysqueeze.training.mpi import MPICommunicator
from tinysqueeze.training.engine import stepwise_engine
from tinysqueeze.network.models import squeezenet_cifar
from tinysqueeze.training.recipe import Recipe
from tinysqueeze.training.loop import run
from tinysqueeze.training.state import begin

out, norm, half = sys.argv[1], sys.argv[2] == "norm", sys.argv[3] == "half"
tiny = dict(base_e=8, incr_e=4, stem_filters=6, squeeze_ratio=0.25, input_size=12, fires=3,
            pools=(1, 3), classes=3, norm=norm)
rng = np.random.default_rng(7)
images, labels = rng.integers(0, 256, (64, 12, 12, 3), dtype=np.uint8), np.arange(64) % 3
dataset = Dataset(images, labels, ("a", "b", "c"), "noise")
recipe = Recipe().changed(epochs=4, batch_size=16, pad=1, flip="random", cutmix=0.3, average=0.9,
                          keep=0.75, hard=0.25)
with MPICommunicator(half=half) as together:
    training = begin(squeezenet_cifar(**tiny), dataset, recipe, ranks=together.ranks,
                     make_engine=stepwise_engine)
    reports = list(run(training, dataset, dataset, together))
    same = together.total(training.engine.vector) / together.ranks
    assert np.allclose(same, training.engine.vector, rtol=0, atol=0), "the ranks have drifted apart"
    if together.rank == 0:
        np.savez(out, vector=training.engine.vector, losses=[r.loss for r in reports],
                 result=list(reports[-1].result.values()), lines=together.lines())
"""


def mpi(ranks: int, program: str, *args: object) -> subprocess.CompletedProcess[str]:
    """Run a program on several ranks, or skip where there is no MPI."""
    pytest.importorskip("mpi4py", reason="no mpi4py (the extra `mpi`)")
    beside = Path(sys.executable).with_name("mpiexec")
    mpiexec = str(beside) if beside.exists() else shutil.which("mpiexec")
    if mpiexec is None:
        pytest.skip("no mpiexec on this machine")
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "NUMBA_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "OMPI_ALLOW_RUN_AS_ROOT": "1",  # where the MPI is Open MPI and the test runs in a container
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    }
    command = [mpiexec, "-n", str(ranks), sys.executable, "-c", textwrap.dedent(program)]
    return subprocess.run(
        [*command, *map(str, args)], env=environment, capture_output=True, text=True, timeout=240
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A training on some ranks, as (ranks, norm, half) -> what it left; each is run once."""
    folder = tmp_path_factory.mktemp("ranks")

    @functools.cache
    def train(ranks: int, norm: str = "plain", half: str = "full"):
        out = folder / f"{ranks}-{norm}-{half}.npz"
        done = mpi(ranks, TRAIN, out, norm, half)
        assert done.returncode == 0, done.stderr
        return dict(np.load(out))

    return train


@pytest.mark.parametrize("ranks", [2, 4])
def test_ranks_follow_one(trained, ranks):
    """R ranks of b images against one of R * b: parameters, losses and test results."""
    one, several = trained(1), trained(ranks)
    np.testing.assert_allclose(several["losses"], one["losses"], rtol=1e-5)
    np.testing.assert_allclose(several["vector"], one["vector"], rtol=1e-3, atol=2e-6)
    scores = [1, 2, 6, 7]  # losses and accuracies, but not seconds
    np.testing.assert_allclose(several["result"][scores], one["result"][scores], rtol=1e-4)


def test_ranks_stay_together_with_batch_norm(trained):
    """The program itself checks that no rank drifts, running statistics included."""
    assert np.isfinite(trained(2, "norm")["vector"]).all()


def test_half_gradients_are_close_and_say_how_close(trained):
    exact, half = trained(2), trained(2, half="half")
    np.testing.assert_allclose(half["losses"], exact["losses"], rtol=1e-2)
    assert not np.array_equal(half["vector"], exact["vector"])
    said = [str(line) for line in half["lines"]]
    assert any("16-bit gradients: relative error" in line for line in said)
    assert any(line.startswith("gradients in 16 bits: 14 collectives") for line in said)
    assert str(exact["lines"][1]).startswith("gradients: 14 collectives")


ALIKE = """
import sys
import numpy as np
from tinysqueeze.data import Dataset, Normalise
from tinysqueeze.training.mpi import MPICommunicator
from tinysqueeze.training.engine import stepwise_engine
from tinysqueeze.network.models import squeezenet_cifar
from tinysqueeze.network.params import initialise
from tinysqueeze.training.recipe import Recipe
from tinysqueeze.training.loop import run
from tinysqueeze.training.state import begin
from tinysqueeze.errors import TrainingError

def train(together, what):
    odd = what if together.rank == 1 else ""
    tiny = dict(base_e=8, incr_e=4, stem_filters=6, squeeze_ratio=0.25, input_size=12, fires=3,
                pools=(1, 3), classes=3, norm=odd == "model")
    count = 48 if odd == "count" else 64
    images = np.random.default_rng(7).integers(0, 256, (count, 12, 12, 3), dtype=np.uint8)
    images[0, 0, 0, 0] += odd == "pixel"
    classes = ("a", "b", "d" if odd == "classes" else "c")
    dataset = Dataset(images, np.arange(count) % 3, classes, "noise")
    test = dataset.subset(slice(8, 16)) if odd == "test" else dataset.subset(slice(8))
    model = squeezenet_cifar(**tiny)
    recipe = Recipe().changed(epochs=3, batch_size=16, lr=0.02 if odd == "recipe" else 0.01)
    normalise = Normalise((0.5, 0.5, 0.5 + 1e-6 * (odd == "normalise")), (0.2, 0.2, 0.2))
    training = begin(model, dataset, recipe, initialise(model, int(odd == "parameters")), normalise,
                     ranks=together.ranks, make_engine=stepwise_engine)
    for report in run(training, dataset, test, together):
        if odd == "drift" and report.epoch == 1:
            training.engine.vector[0] += 1e-6
    return f"finished {training.normalise.mean[2]}"

with MPICommunicator() as together:
    for what in sys.argv[1:]:
        try:
            said = train(together, what)
        except TrainingError as error:
            said = str(error)
        if together.rank == 0:
            print(*(f"{what}: {one}" for one in together.everybody(said)), sep="\\n", flush=True)
        else:
            together.everybody(said)
    train(together, "pixel")
"""

DIFFERENT = {
    "count": "the number of training images (rank 0: 64, rank 1: 48)",
    "pixel": "the training images (rank 0: ",
    "classes": "the classes (rank 0: ",
    "test": "the test images (rank 0: ",
    "model": "the model (rank 0: ",
    "recipe": "the recipe (rank 0: ",
    "parameters": "the parameters (rank 0: ",
    "drift": "the parameters before epoch 3 (rank 0: ",
}


def test_ranks_that_differ_refuse_on_every_rank():
    done = mpi(2, ALIKE, *DIFFERENT, "nothing", "normalise")
    said = done.stdout.splitlines()
    for what, message in DIFFERENT.items():
        start = f"{what}: the ranks do not train the same: {message}"
        assert sum(line.startswith(start) for line in said) == 2, what
    for what in ("nothing", "normalise"):  # rank 0's is taken
        assert said.count(f"{what}: finished 0.5") == 2
    assert done.returncode != 0
    (line,) = (line for line in done.stderr.splitlines() if line.startswith("tinysqueeze: "))
    assert line.startswith(
        "tinysqueeze: rank 0 of 2: the ranks do not train the same: the training i"
    )


DYING = """
import os, signal, sys
import numpy as np
from tinysqueeze.training.mpi import MPICommunicator
from tinysqueeze.errors import UserError

with MPICommunicator() as together:
    vector = np.ones(1000, np.float32)
    for step in range(1000):
        together.mean(vector)
        if step == 3 and together.rank == int(sys.argv[1]):
            if sys.argv[2] == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            raise {"user": UserError, "bug": ValueError}[sys.argv[2]]("something is amiss")
"""


@pytest.mark.parametrize(("rank", "how"), [(0, "kill"), (1, "kill"), (1, "user"), (0, "bug")])
def test_a_rank_that_dies_ends_the_job_with_a_message(rank, how):
    done = mpi(2, DYING, rank, how)
    assert done.returncode != 0
    assert "--resume" in done.stderr
    if how == "kill":
        assert "a rank failed or was killed" in done.stderr
    else:
        assert f"rank {rank} of 2: something is amiss" in done.stderr
    assert ("Traceback" in done.stderr) == (how == "bug")


@pytest.mark.slow
def test_command_line_on_two_ranks_then_resumed_on_one(tmp_path):
    """A real run: rank 0 alone prints, a killed job leaves a whole checkpoint, one rank goes on."""
    program = "import sys; from tinysqueeze.cli import main; sys.exit(main(sys.argv[1:]))"
    small = [
        "--set",
        "base_e=8",
        "--set",
        "incr_e=4",
        "--set",
        "stem_filters=8",
        "--batch-size",
        250,
    ]
    done = mpi(2, program, "train", "--out", tmp_path, "--epochs", 1, "--half-gradients", *small)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("run folder") == 1
    assert "2 ranks of 125 images and 1 threads each: a batch of 250" in done.stdout
    assert "16-bit gradients: relative error" in done.stdout
    odd = mpi(3, program, "train", "--out", tmp_path / "odd", *small)
    assert odd.returncode != 0
    assert "a batch of 250 can't be shared equally by 3 ranks" in odd.stderr
    again = mpi(1, program, "train", "--resume", tmp_path)
    assert again.returncode == 0, again.stderr


KILLED = """
import os, signal, sys, threading, time
from pathlib import Path
from tinysqueeze.cli import main

def kill_when_saved(file):
    while not file.exists():
        time.sleep(0.02)
    os.kill(os.getpid(), signal.SIGKILL)

if int(os.environ.get("PMI_RANK", os.environ.get("OMPI_COMM_WORLD_RANK", "0"))) == 1:
    file = Path(sys.argv[3], "checkpoint.safetensors")
    threading.Thread(target=kill_when_saved, args=(file,), daemon=True).start()
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_killed_rank_leaves_a_whole_checkpoint_for_any_number_of_ranks(tmp_path):
    small = ["--set", "base_e=8", "--set", "incr_e=4", "--set", "stem_filters=8"]
    options = ["train", "--out", tmp_path, "--epochs", 3, "--batch-size", 500, *small]
    done = mpi(2, KILLED, *options)
    assert done.returncode != 0
    assert "a rank failed or was killed" in done.stderr
    saved = checkpoint.read(tmp_path)
    assert 1 <= saved.meta["counters"]["epoch"] < 3
    program = "import sys; from tinysqueeze.cli import main; sys.exit(main(sys.argv[1:]))"
    again = mpi(4, program, "train", "--resume", tmp_path)
    assert again.returncode == 0, again.stderr
    assert "4 ranks of 125 images" in again.stdout
    assert len(checkpoint.read(tmp_path).meta["history"]) == 3


@pytest.mark.slow
def test_communication_command(tmp_path, capsys):
    pytest.importorskip("mpi4py", reason="no mpi4py (the extra `mpi`)")
    figure = tmp_path / "scaling.png"
    options = ["--networks", "squeezenet_cifar", "--batch", "4", "--faster", "10"]
    assert main(["communication", *options, "--figure", str(figure)]) == 0
    said = capsys.readouterr().out
    assert "as if 10 times as fast" in said
    assert said.count("squeezenet_cifar") == 1 + len(scaling.LINKS)
    assert figure.stat().st_size > 10_000


def test_ring():
    link = scaling.Link(8, 1e-3)  # 1e9 bytes a second
    assert scaling.ring_seconds(1e9, 1, link) == 0
    assert scaling.ring_seconds(1e9, 2, link) == pytest.approx(2e-3 + 1)
    assert scaling.ring_seconds(1e9, 1024, link) == pytest.approx(2.046 + 2 * 1023 / 1024)
    assert distributed.ring_bytes(1000, 4) == 1500
    assert scaling.gradient_bytes("squeezenet1_0") == 4 * 1_248_424
    assert scaling.efficiency(1.0, 0, 2, scaling.Link(1, 0)) == 1
    assert scaling.efficiency(1, 1e9, 2, link, overlap=True) > scaling.efficiency(1, 1e9, 2, link)
    with pytest.raises(UserError, match="at least 1 worker"):
        scaling.ring_seconds(1, 0, link)


def test_small_networks_scale_further():
    found = [
        scaling.Demand("squeezenet1_0", 4_993_696, 1.0, 0.001),
        scaling.Demand("alexnet", 243_860_896, 1.0, 0.06),
    ]
    for link in scaling.LINKS:
        for workers in scaling.WORKERS:
            small, large = (scaling.efficiency(d.compute, d.size, workers, link) for d in found)
            assert small > large
    picture = scaling_efficiency(found, 32)
    assert [axes.get_title("left")[:9] for axes in picture.axes] == [
        "1 Gbit/s,",
        "10 Gbit/s",
        "100 Gbit/",
    ]
    assert "squeezenet1_0 keeps" in picture.alt


def test_all_reduce_is_measured():
    if shutil.which("mpiexec") is None and not Path(sys.executable).with_name("mpiexec").exists():
        pytest.skip("no mpiexec on this machine")
    pytest.importorskip("mpi4py", reason="no mpi4py (the extra `mpi`)")
    found = scaling.measure_all_reduce({"small": 4000, "large": 8_000_000})
    assert 0 < found["small"] < found["large"] < 10
    with pytest.raises(UserError, match="no model named"):
        scaling.demands(["resnet"])


@pytest.mark.parametrize("wrong", [{"ranks": 1}, {"ranks": 0}, {"batch": 0}, {"faster": 0.0}])
def test_what_cannot_be_measured_is_named(wrong):
    with pytest.raises(UserError, match="2 ranks at least"):
        scaling.demands(["squeezenet1_0"], **wrong)


def test_alone_and_launched(monkeypatch):
    for name in (*distributed.LAUNCHERS, *distributed.NEIGHBOURS):
        monkeypatch.delenv(name, raising=False)
    assert distributed.communicator() is ALONE
    assert distributed.threads_a_rank() is None
    assert distributed.threads_a_rank(3) == 3
    monkeypatch.setenv("MPI_LOCALNRANKS", "1000")
    assert distributed.threads_a_rank() == 1
    assert distributed.launched_by_mpi()
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    with pytest.raises(MissingExtra, match=r"tinysqueeze\[mpi\]"):
        distributed.communicator()
    vector = np.arange(3.0)
    ALONE.mean(vector)
    assert ALONE.largest(7) == 7
    assert json.dumps(ALONE.lines()) == "[]"
