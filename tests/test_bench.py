"""The benchmark: right ratios from known numbers, sides that compute the same, JSON that is whole.

Nothing here says how fast anything is: that is what the benchmark itself is for.
"""

import importlib
import json
import os
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from tinysqueeze.bench import complete, text
from tinysqueeze.bench.accuracy import labelled_for
from tinysqueeze.bench.floor import flops
from tinysqueeze.bench.peak import OVER_PEAK, PRECISIONS, Peaks
from tinysqueeze.bench.peers import SIDES, chosen
from tinysqueeze.bench.report import ratio
from tinysqueeze.bench.runner import (
    TOLERANCE,
    TOLERANCE_IN_FEW_BITS,
    _compare_logits,
    workloads_named,
)
from tinysqueeze.bench.tasks import write_for
from tinysqueeze.bench.worker import (
    CHECK_STEPS,
    cache_seconds,
    classes_found,
    peak_bytes,
    read_task,
    timed,
)
from tinysqueeze.bench.workloads import WORKLOADS, describe
from tinysqueeze.cli import main
from tinysqueeze.errors import MissingExtra, UserError
from tinysqueeze.network.models import Model, squeezenet_cifar
from tinysqueeze.network.others import GroupedConv2D, vgg16
from tinysqueeze.network.params import initialise
from tinysqueeze.show.pictures.speed import scaling_lines, speed_bars
from tinysqueeze.weights import Preprocess, WeightSet, write_safetensors


def run(side, i, ms, threads=2, workload="train", part="rounds", **more):
    """One measured process, as the runner files it."""
    return {
        "part": part, "workload": workload, "side": side, "threads": threads, "round": i, "ms": ms,
        "fastest_ms": 0.9 * ms, "calls": 9, "import_s": 0.5, "prepare_s": 0.1, "first_s": 0.2,
        "base_bytes": 100, "peak_bytes": 300 if side == "ours" else 600, **more,
    }  # fmt: skip


def canned() -> dict:
    """Three rounds of two sides, ours on one thread as well, a cold start and two sizes."""
    about = {
        "title": "a step", "model": {}, "input_shape": [32, 32, 3], "batch": 64, "training": True,
        "flops": {"direct": 20e9, "2x2": 12e9, "4x4": 8e9},
    }  # fmt: skip
    runs = [run("ours", i, ms) for i, ms in enumerate((40, 50, 44))]
    runs += [run("torch", i, ms) for i, ms in enumerate((100, 90, 110))]
    runs += [run("ours", i, ms, threads=1) for i, ms in enumerate((80, 80, 88))]
    runs += [run("ours", 0, 1.0, part="cold"), run("ours", 0, 1.0, part="warm")]
    runs += [run("ours", 0, 5.0, workload="train-4x32", part="scaling")]
    runs += [run("ours", 0, 9.0, workload="train-16x32", part="scaling")]
    return {
        "machine": {"processor": "p", "processors": 2, "lanes": 16},
        "versions": {"numpy": "2"},
        "rounds": 3,
        "seconds": 1.0,
        "threads": [2],
        "peaks": {
            "float32": {
                "2": {"registers": 500.0, "product": 480.0},
                "1": {"registers": 250.0, "product": 240.0},
            }
        },
        "workloads": {
            "train": about,
            "train-4x32": about | {"batch": 4},
            "train-16x32": about | {"batch": 16},
        },
        "sides": {"ours": "tinysqueeze", "torch": "PyTorch"},
        "runs": runs,
        "checks": [{"workload": "train", "side": "torch", "difference": 1e-6}],
    }


def test_ratios_are_of_medians_and_their_spread_is_of_rounds():
    data = complete(canned())
    ours, torch, single = data["rows"]
    assert ours["ms"] == {"median": 44, "least": 40, "most": 50}
    assert torch["times_ours"] == pytest.approx({"median": 100 / 44, "least": 1.8, "most": 2.5})
    assert torch["memory_times_ours"]["median"] == 2
    assert ours["images_per_second"] == pytest.approx(64 / 0.044)
    assert ours["gflops"] == pytest.approx(20 / 0.044)
    assert ours["share_of_peak"] == pytest.approx(20 / 0.044 / 500)
    assert ours["share_of_floor"] == pytest.approx(8 / 500 / 0.044)
    assert torch["share_of_floor"] is None
    assert (single["threads"], single["share_of_peak"]) == (1, pytest.approx(20 / 0.080 / 250))
    assert ours["memory_over_imports"] == 200
    assert data["speedups"][0]["speedup"] == pytest.approx(
        {"median": 80 / 44, "least": 1.6, "most": 2.0}
    )
    assert [row["part"] for row in data["startup"]] == ["cold", "warm"]
    assert [(row["workload"], row["batch"]) for row in data["scaling"]] == [
        ("train", 4),
        ("train", 16),
    ]
    assert complete(json.loads(json.dumps(data)))["rows"] == data["rows"]


def test_tenths_of_a_second_in_which_a_core_was_not_ours_are_told_apart():
    """By the time of reading the first cache alone: the fastest block of all may be one of them."""

    def blocks(*pairs):
        return {"blocks": [{"ms": ms, "cache_s": 1e-6 * cache} for ms, cache in pairs]}

    data = canned()
    assert complete(data)["undisturbed"] == []  # an older file
    assert "undisturbed" not in text(complete(data))
    data["runs"] = [
        run("ours", 0, 44, **blocks((40, 1.0), (42, 1.1), (60, 1.5))),
        run("ours", 1, 70, **blocks((70, 1.2), (30, 1.9))),
        run("torch", 0, 100, **blocks((100, 1.0), (90, 1.0), (150, 1.0))),
        run("torch", 1, 120, **blocks((110, 1.1), (130, 2.0))),
    ]
    data = complete(data)
    ours, torch = data["undisturbed"]
    assert ours["ms"] == {"median": 41, "least": 41, "most": 41}
    assert torch["ms"] == {"median": 105, "least": 100, "most": 110}
    assert torch["times_ours"] == pytest.approx(
        {"median": 105 / 41, "least": 100 / 41, "most": 100 / 41}
    )
    assert "In 4 of 10 tenths of a second" in text(data)
    assert "(floor/time of ours: train 39%)" in text(data)  # 8 GFLOP at 500 a second: 16 of 41 ms
    assert "105 (100–110) ×2.56 [2.44–2.44]" in text(data)
    for one in data["runs"]:
        for block in one["blocks"]:
            block["cache_s"] = 1e-6
    assert "undisturbed" not in text(complete(data))  # then both tables would be one


def test_a_ratio_needs_rounds_of_both_sides():
    assert ratio([], [run("torch", 0, 1.0)]) is None
    assert ratio([run("ours", 0, 1.0)], [run("torch", 1, 1.0)]) is None
    without = run("torch", 0, 1.0) | {"peak_bytes": None}
    assert ratio([run("ours", 0, 1.0)], [without], "peak_bytes") is None


def test_the_table_and_the_picture_show_the_numbers(tmp_path):
    data = complete(canned())
    shown = text(data)
    assert "100 (90–110) ×2.27 [1.80–2.50]" in shown
    assert "| tinysqueeze |" in shown
    assert "1.82 [1.60–2.00]" in shown
    picture = speed_bars(data)
    assert "PyTorch 100" in picture.alt
    picture.save(str(tmp_path / "speed.png"))
    assert np.asarray(Image.open(tmp_path / "speed.png")).std() > 5
    file, lines = tmp_path / "bench.json", tmp_path / "lines.png"
    file.write_text(json.dumps(data))
    assert main(["bench", "--read", str(file), "--scaling", str(lines)]) == 0
    assert np.asarray(Image.open(lines)).std() > 5
    assert "train, tinysqueeze, 16 of 32 pixels: 1,778" in scaling_lines(data).alt
    with pytest.raises(UserError, match="it takes --scaling"):
        scaling_lines(data | {"scaling": []})


def test_the_floor_counts_what_the_paper_of_winograd_says():
    """19.8 GFLOP a training step of 64 images; conv1's dx is not needed, 3x3 shrink by 2.25 and 4."""
    train = flops(WORKLOADS["train"])
    assert train["direct"] == pytest.approx(19.84e9, rel=1e-3)
    assert train["4x4"] < train["2x2"] < train["direct"]
    forward = flops(WORKLOADS["infer"])
    stem = 2 * 64 * 32 * 32 * 27 * 96
    assert train["direct"] == 3 * forward["direct"] - stem
    wide = (forward["direct"] - forward["2x2"]) / (1 - 1 / 2.25)  # all 3x3 but the stem
    assert forward["direct"] - forward["4x4"] == pytest.approx(wide * 3 / 4)


def test_the_peak_is_measured_once_a_round(monkeypatch):
    """How fast a product is beside it is no test's business: the table says it where it is too fast."""
    monkeypatch.setattr("tinysqueeze.bench.peak.BURSTS", 1)
    peaks = Peaks({*PRECISIONS, "bfloat16"})
    peaks.look(1, 0)
    first = json.loads(json.dumps(peaks.found))
    peaks.look(1, 0)
    assert peaks.found == first
    assert list(first) == list(PRECISIONS)
    for by_threads in first.values():
        assert all(one["registers"] > 0 and one["product"] > 0 for one in by_threads.values())


def test_shares_are_of_the_peak_of_the_same_precision():
    data = canned() | {"precisions": {"torch": "bfloat16"}}
    data["peaks"]["int8"] = {"2": {"registers": 2000.0, "product": 1900.0}}
    assert complete(data)["rows"][1]["share_of_peak"] is None  # nobody measured bfloat16
    data["precisions"] = {"torch": "int8"}
    assert complete(data)["rows"][1]["share_of_peak"] == pytest.approx(20 / 0.1 / 2000)


def test_a_peak_that_a_product_beats_is_called_wrong():
    data = complete(canned())
    assert "float32, 2 threads 500 GOP/s, of which the product" in text(data)
    assert "too low" not in text(data)
    data["peaks"]["float32"]["1"]["product"] = 250 * OVER_PEAK + 1
    assert "Measured too low for float32, 1 thread: shares of it say nothing." in text(data)
    assert "Measured peak: unknown." in text(data | {"peaks": {"float32": {}}})


def test_timing_of_a_process():
    calls = []
    found = timed(lambda: calls.append(0), 0.0)
    assert found["calls"] == len(calls) >= 5
    assert 0 <= found["fastest_ms"] <= found["ms"]
    assert 1 <= len(found["blocks"]) <= 5
    assert all(block["ms"] >= found["fastest_ms"] for block in found["blocks"])


def test_looking_at_the_caches_leaves_a_process_where_it_was():
    processors = getattr(os, "sched_getaffinity", lambda _: None)
    before = processors(0)
    assert 0 < cache_seconds() < 1e-3
    assert processors(0) == before


def test_memory_of_a_process():
    memory = peak_bytes()
    assert memory is None or memory > 1e6


def task_of(workload, folder, side):
    write_for((side,), workload, folder)
    return read_task(folder, threads=1, variant=side.variant)


def logits_after_steps(task, module):
    step, logits = importlib.import_module(f"tinysqueeze.bench.peers.{module}").prepare(task)
    for _ in range(CHECK_STEPS if task.training else 0):
        step()
    return np.asarray(logits())


@pytest.mark.parametrize("name", WORKLOADS)
@pytest.mark.parametrize(
    "side",
    [  # those that compile for long are slow
        pytest.param(
            side, marks=[pytest.mark.slow] if side.name in ("jax", "torch-compile") else []
        )
        for side in SIDES.values()
    ],
    ids=list(SIDES),
)
@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
def test_every_side_computes_the_same(name, side, tmp_path):
    """Also after training steps; and these move the logits much more than sides may differ."""
    workload = WORKLOADS[name].quick()
    if workload.training and not side.trains:
        pytest.skip(f"{side.title} does not train")
    for library in side.libraries:
        pytest.importorskip(library)
    layers = SIDES["ours-stepwise"]
    expected = logits_after_steps(task_of(workload, tmp_path, layers), "ours")
    got = logits_after_steps(task_of(workload, tmp_path, side), side.module)
    allowed = TOLERANCE_IN_FEW_BITS if side.in_few_bits else TOLERANCE
    assert np.abs(got - expected).max() < allowed * np.abs(expected).max()
    if workload.training:
        before = logits_after_steps(
            SimpleNamespace(**vars(task_of(workload, tmp_path, layers)) | {"training": False}),
            "ours",
        )
        assert np.abs(before - expected).max() > 5 * TOLERANCE * np.abs(expected).max()


def test_other_networks_are_described_for_the_other_sides():
    described = json.loads(json.dumps(describe(squeezenet_cifar(bypass="complex"))))
    nodes = {node["path"]: node for node in described["nodes"] if node["kind"] != "Concat"}
    around, total = nodes["fire2/bypass"], nodes["fire2/sum"]
    assert around["target"] in total["sources"]
    joined = next(node for node in described["nodes"] if node["kind"] == "Concat")
    arms = [nodes["fire2/expand1x1"]["target"], nodes["fire2/expand3x3"]["target"]]
    assert joined["sources"] == joined["done"] == arms
    read = [number for node in described["nodes"] for number in node["done"]]
    assert sorted(read) == list(range(described["output"]))  # each map is done with once
    with pytest.raises(UserError, match="flatten"):
        describe(vgg16())
    with pytest.raises(UserError, match=r"drop9: .* no dropout"):
        describe(squeezenet_cifar(dropout=0.5), training=True)
    with pytest.raises(UserError, match=r"a: .*2 groups"):
        describe(Model("grouped", (("a", GroupedConv2D(4, 1, groups=2)),), (4, 4, 2), {}))


def test_a_side_that_computes_something_else_is_refused():
    def check(side, logits):
        return {"part": "check", "workload": "train", "side": side, "logits": logits}

    right = check("ours-stepwise", [[1.0, 2.0]])
    close = check("torch", [[1.0, 2.0 + 1e-6]])
    _compare_logits([right, close])
    assert close["difference"] == pytest.approx(5e-7)
    with pytest.raises(UserError, match="torch computes something else at train"):
        _compare_logits([check("ours-stepwise", [[1.0, 2.0]]), check("torch", [[1.0, 2.3]])])
    with pytest.raises(UserError, match="something else"):
        _compare_logits([check("ours-stepwise", [[1.0, 2.0]]), check("torch", [[1.0, np.nan]])])
    _compare_logits([check("ours-stepwise", [[1.0, 2.0]]), check("ours-int8", [[1.0, 2.3]])])
    with pytest.raises(UserError, match="ours-int8 computes something else"):
        _compare_logits([check("ours-stepwise", [[1.0, 2.0]]), check("ours-int8", [[2.0, 1.0]])])


def test_wrong_names_get_a_clear_answer(monkeypatch):
    with pytest.raises(UserError, match="no side named 'tensorflow'"):
        chosen(["tensorflow"])
    with pytest.raises(UserError, match="no workload named 'tune'"):
        workloads_named(["tune"])
    monkeypatch.setattr("tinysqueeze.bench.peers.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match=r"tinysqueeze\[jax\]"):
        chosen(["jax"])


def test_quick_end_to_end(capsys, tmp_path):
    picture = tmp_path / "speed.png"
    wanted = [
        "--quick",
        "--against",
        "textbook",
        "--workload",
        "train",
        "--threads",
        "1",
        "--stages",
    ]
    assert main(["bench", *wanted, "--json", "--plot", str(picture)]) == 0
    data = json.loads(capsys.readouterr().out)
    assert {
        "machine", "versions", "rounds", "seconds", "threads", "peaks", "workloads", "sides",
        "runs", "checks", "rows", "undisturbed", "speedups", "startup", "scaling",
    } <= data.keys()  # fmt: skip
    assert [(row["workload"], row["side"]) for row in data["rows"]] == [
        ("train", "ours"),
        ("train", "textbook"),
    ]
    assert all(row["ms"]["median"] > 0 for row in data["rows"])
    assert all(check["difference"] < TOLERANCE for check in data["checks"])
    assert picture.stat().st_size > 1000
    assert {"products", "transforms", "optimiser"} <= {one["stage"] for one in data["stages"]}
    assert "| products " in text(data)


def test_wrong_options_get_one_line(capsys, tmp_path):
    for argv, status, complaint in [
        (["--threads", "0"], 1, "--threads takes numbers"),
        (["--rounds", "0"], 2, "--rounds: takes a whole number of at least 1"),
        (["--against", "nobody"], 1, "no side named"),
        (
            ["--scaling", str(tmp_path / "x.png"), "--workload", "one"],
            2,
            "--scaling draws train and v10",
        ),
        (["--weights", "w"], 2, "--weights and --photographs go together"),
        (["--read", str(tmp_path / "nothing.json")], 1, "not a file of"),
    ]:
        assert main(["bench", *argv]) == status
        error = capsys.readouterr().err
        assert complaint in error
        assert error.count("\n") == 1


@pytest.mark.oracle
def test_accuracy_stands_beside_whatever_has_fewer_bits(capsys):
    """Without photographs, of a network that was briefly trained on the built-in images."""
    few = [name for name in ("ours-int8", "onnxruntime-int8") if SIDES[name].is_installed]
    wanted = ["--quick", "--against", ",".join(["textbook", *few]), "--workload", "infer"]
    assert main(["bench", *wanted, "--threads", "1", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)
    top1 = {row["side"]: row["top1"] for row in data["rows"]}
    assert top1.keys() == {"ours", "textbook", *few}
    assert top1.pop("textbook") is None
    assert all(0 <= share <= 1 for share in top1.values())
    assert {row["side"]: row["precision"] for row in data["rows"]}["ours-int8"] == "int8"
    assert {row["processor"] for row in data["rows"]} == {data["machine"]["processor"]}
    assert "Top-1: the network of the recipe tiny after" in text(data)


def test_a_side_that_fails_at_the_network_of_the_accuracy_has_none():
    data = canned()
    known = {"workload": "train", "images": 4, "source": "a network"}
    data["accuracy"] = [
        known | {"side": "ours", "top1": 0.5},
        known | {"side": "torch", "top1": None},
    ]
    data = complete(data)
    assert [row["top1"] for row in data["rows"]] == [0.5, None, 0.5]
    assert "Top-1: a network. torch fails at that network." in text(data)


def test_every_image_is_scored_a_batch_at_a_time():
    """The last batch is smaller, and each comes to a side of its own."""
    images = np.arange(7.0)[:, None]
    seen = []

    def prepare(task):
        seen.append(len(task.images))
        return None, lambda: np.eye(10)[task.images[:, 0].astype(int)]

    task = SimpleNamespace(images=images, batch=3)
    assert classes_found(SimpleNamespace(prepare=prepare), task) == list(range(7))
    assert seen == [3, 3, 1]


def test_photographs_belong_to_the_workload_that_runs_their_network(tmp_path):
    model = WORKLOADS["infer"].quick().model
    folder = tmp_path / "photographs" / "class 3"
    folder.mkdir(parents=True)
    noise = np.random.default_rng(0).integers(0, 255, (4, 40, 40, 3), np.uint8)
    for i, picture in enumerate(noise):
        Image.fromarray(picture).save(folder / f"{i}.png")
    file = tmp_path / "own.safetensors"
    write_safetensors(WeightSet(model, initialise(model), Preprocess(32, (32, 32)), "own"), file)
    workloads = [WORKLOADS[name].quick() for name in ("train", "infer")]
    found = labelled_for(workloads, str(file), str(folder.parent), quick=True)
    assert list(found) == workloads[1:]
    labelled = found[workloads[1]]
    assert labelled.images.shape == (4, 32, 32, 3)
    assert labelled.labels.tolist() == [3] * 4
    assert len(labelled.calibration) == 4
    assert "4 photographs" in labelled.source
    with pytest.raises(UserError, match="no workload runs its network"):
        labelled_for([WORKLOADS["v10"].quick()], str(file), str(folder.parent), quick=True)
