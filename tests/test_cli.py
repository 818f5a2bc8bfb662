"""The commands as a user types them: what they print, write, and say when something is wrong."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from tinysqueeze.cli import COMMANDS, main
from tinysqueeze.network.ops import fast
from tinysqueeze.network.params import flatten
from tinysqueeze.training import checkpoint

SMALL = [
    "--set", "base_e=8", "--set", "incr_e=4", "--set", "stem_filters=6", "--set", "squeeze_ratio=0.25",
    "--set", "fires=3", "--set", "pools=[1,3]", "--epochs", "2", "--batch-size", "16",
]  # fmt: skip


def fails(capsys, *argv: str) -> str:
    """The one line that a wrong call prints."""
    assert main(argv) == 1
    error = capsys.readouterr().err.strip()
    assert error.startswith("tinysqueeze: ")
    assert "\n" not in error
    return error


def test_summary_json_has_the_published_counts(capsys):
    for model, extra, parameters in [
        ("squeezenet1_0", [], 1_248_424),
        ("squeezenet1_1", [], 1_235_496),
        ("squeezenet1_0", ["--classes", "10"], 740_554),
        ("squeezenet1_1", ["--classes", "10"], 727_626),
        ("alexnet", [], 60_965_224),
        ("alexnet_torchvision", [], 61_100_840),
        ("vgg16", [], 138_357_544),
    ]:
        assert main(["summary", model, "--json", *extra]) == 0
        assert json.loads(capsys.readouterr().out)["parameters"] == parameters


def test_summary_table(capsys):
    assert main(["summary", "squeezenet1_0", "--input-size", "227"]) == 0
    out = capsys.readouterr().out
    assert "111 x 111 x 96" in out
    assert "Parameters           1,248,424 (4.99 MB as float32)" in out
    assert main(["summary", "squeezenet_cifar", "--set", "bypass=simple", "--compiled"]) == 0
    assert "fire3" in capsys.readouterr().out


CHECKED = [
    "gradcheck", "squeezenet_cifar", "--places", "1", "--training", "--input-size", "8", "--set", "fires=3",
    "--set", "pools=[1]", "--set", "base_e=8", "--set", "incr_e=4", "--set", "stem_filters=4",
    "--set", "squeeze_ratio=0.25", "--set", "norm=true", "--set", "bypass=complex", "--set", "dropout=0.3",
]  # fmt: skip


def test_gradcheck(capsys):
    assert main(CHECKED) == 0
    *lines, last = capsys.readouterr().out.splitlines()
    assert len(lines) == 45
    assert all(line.startswith("ok ") for line in lines)
    assert "all right: 45 of 45 arrays compared at " in last
    assert main([*CHECKED, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["arrays"], found["wrong"], found["unchecked"]) == (45, 0, 0)
    assert found["places"] == sum(check["checked"] for check in found["checks"]) >= 45
    assert found["summary"] in last
    assert main([*CHECKED, "--places", "0"]) == 2
    assert "--places: takes a whole number of at least 1, not '0'" in capsys.readouterr().err


def test_gradcheck_fails_where_a_gradient_is_wrong_or_missing(capsys, monkeypatch):
    def spoilt(x, weight, mean, var, eps, dy, batch_stats):
        dx, dweight, dbias = fast.batch_norm_backward(x, weight, mean, var, eps, dy, batch_stats)
        return dx, np.full_like(dweight, np.nan), dbias[:, None]

    ops = SimpleNamespace(**{**vars(fast), "batch_norm_backward": spoilt})
    monkeypatch.setattr("tinysqueeze.cli.gradcheck.fast", ops)
    assert main(CHECKED) == 1
    last = capsys.readouterr().out.splitlines()[-1]
    assert "WRONG: 36 of 45 arrays compared" in last
    assert "worst error inf at conv1_norm/weight[0]; 9 wrong: conv1_norm/weight, " in last
    assert "9 not compared: conv1_norm/bias (backward gives a gradient of shape (4, 1), " in last
    assert main([*CHECKED, "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["verdict"], found["wrong"], found["unchecked"]) == ("WRONG", 9, 9)
    assert {check["error"] for check in found["checks"] if check["verdict"] != "ok"} == {None}


def test_train_evaluate_and_the_run_folder(folder, tmp_path, capsys):
    out = tmp_path / "run"
    assert main(["train", "--data", str(folder), "--out", str(out), *SMALL]) == 0
    assert "test accuracy" in capsys.readouterr().out
    expected = {
        "history.csv",
        "learning_curve.png",
        "confusion_matrix.png",
        "predictions.png",
        "summary.json",
    }
    assert {p.name for p in out.iterdir()} == expected | {checkpoint.NAME}
    summary = json.loads((out / "summary.json").read_text())
    assert {"test_accuracy", "seconds", "images_per_second", "versions", "seed"} <= summary.keys()
    rows = list(csv.DictReader((out / "history.csv").read_text().splitlines()))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    for picture in out.glob("*.png"):
        assert np.asarray(Image.open(picture)).std() > 5
    assert main(["evaluate", str(out), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["top1"] == pytest.approx(summary["test_accuracy"])
    assert "holds a run already" in fails(
        capsys, "train", "--data", str(folder), "--out", str(out), *SMALL
    )
    assert "leave out --epochs" in fails(capsys, "train", "--resume", str(out), "--epochs", "5")


def test_fine_tuning_keeps_what_is_frozen(folder, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    assert main(["train", "--data", str(folder), "--out", str(first), *SMALL]) == 0
    tune = ["--from", str(first), "--freeze", "fire*", "--epochs", "1", "--batch-size", "8"]
    assert (
        main(["train", "--data", str(folder), "--out", str(second), "--input-size", "20", *tune])
        == 0
    )
    before, after = (flatten(checkpoint.read(run).params) for run in (first, second))
    moved = {path for path in before if not np.array_equal(before[path], after[path])}
    trained = {path for path in moved if not path.endswith(("mean", "var"))}
    still = ("mean", "var", "conv1/bias")  # a bias that a norm takes away has no gradient
    assert trained == {p for p in before if p.startswith("conv") and not p.endswith(still)}
    assert checkpoint.read(second).model.input_shape == (20, 20, 3)


def test_wrong_input_gets_one_line(capsys, tmp_path, monkeypatch):
    early = lambda: pytest.fail("seconds of compiling before a word")  # noqa: E731
    monkeypatch.setattr("tinysqueeze.cli.train.compile_kernels", early)
    assert "no such data" in fails(capsys, "train", "--data", str(tmp_path / "nowhere"))
    assert "no such checkpoint" in fails(capsys, "evaluate", str(tmp_path))
    assert "no model named" in fails(capsys, "summary", "squeezenet9")
    assert "at least 21x21" in fails(capsys, "summary", "squeezenet1_0", "--input-size", "20")
    assert "Strategy 2" in fails(capsys, "summary", "squeezenet1_0", "--set", "squeeze_ratio=1.5")
    (tmp_path / checkpoint.NAME).write_bytes(b"\0" * 1000)
    assert "truncated or corrupt" in fails(capsys, "evaluate", str(tmp_path))


def test_every_command_explains_itself(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    out = capsys.readouterr().out
    assert all(command in out for command in COMMANDS)
    for command in COMMANDS:
        with pytest.raises(SystemExit) as stop:
            main([command, "--help"])
        assert stop.value.code == 0


def start(*argv: str) -> subprocess.Popen:
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "tinysqueeze", *argv]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def wait_for(path, seconds=120) -> None:
    until = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < until, f"{path} did not appear"
        time.sleep(0.02)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT], ids=["kill -9", "Ctrl-C"])
def test_killed_and_resumed_to_the_same_bits(folder, tmp_path, how):
    long = [*SMALL, "--data", str(folder), "--epochs", "40"]
    cut, whole = tmp_path / "cut", tmp_path / "whole"
    process = start("train", "--out", str(cut), *long)
    wait_for(cut / checkpoint.NAME)
    process.send_signal(how)
    code = process.wait(60)
    assert code == (-9 if how == signal.SIGKILL else 130)
    process.stdout.close()
    stopped = checkpoint.read(cut).meta["counters"]
    assert 1 <= stopped["epoch"] < 40
    assert main(["train", "--resume", str(cut)]) == 0
    assert main(["train", "--out", str(whole), *long]) == 0
    a, b = checkpoint.read(cut).arrays, checkpoint.read(whole).arrays
    assert all(np.array_equal(a[name], b[name]) for name in a.keys() | b.keys())


@pytest.mark.slow
def test_real_cifar10_killed_in_the_middle(shared_data, tmp_path):
    """The official layout, 50,000 images: killed within the second epoch, it ends with the same bits."""
    unpack = [sys.executable, str(shared_data / "make_cifar10.py"), str(tmp_path)]
    subprocess.run(unpack, check=True, capture_output=True)
    options = ["--data", str(tmp_path), "--batch-size", "128", *SMALL[:-2]]
    cut, whole = tmp_path / "cut", tmp_path / "whole"
    process = start("train", "--out", str(cut), *options)
    wait_for(cut / checkpoint.NAME, seconds=600)
    time.sleep(1)
    process.kill()
    process.wait(60)
    process.stdout.close()
    assert main(["train", "--resume", str(cut)]) == 0
    assert main(["train", "--out", str(whole), *options]) == 0
    a, b = checkpoint.read(cut), checkpoint.read(whole)
    assert all(np.array_equal(a.arrays[name], b.arrays[name]) for name in a.arrays)
    assert b.meta["history"][-1]["test_accuracy"] > 0.25  # a tiny network; guessing gives 0.1
