"""A graph under every command that takes weights: it works, or one line says why not."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import test_c_export as c_tests
from PIL import Image

import tinysqueeze as ts
from tinysqueeze.cli import main
from tinysqueeze.compiled import compile as compile_plan
from tinysqueeze.data import load
from tinysqueeze.devices.c import export_float32, export_int8
from tinysqueeze.devices.int8 import quantise
from tinysqueeze.errors import ShapeError, UserError
from tinysqueeze.graph import Activate, Add, Conv, Copy, Graph, Mean, Norm, Pool, model_of
from tinysqueeze.network.ops.reference import softmax
from tinysqueeze.network.params import initialise, trained_shapes
from tinysqueeze.network.window import Window
from tinysqueeze.study.count import count
from tinysqueeze.weights import CAFFE, Preprocess, WeightSet, training_start

CLASSES = 10


def network(channels: int = 3, size=(32, 32)) -> WeightSet:
    """What no SqueezeNet has: an average without its padding, groups, a sum beside a map in a Concat."""
    height, width = size
    half = Window.of(3, 2, 1).out_size(height, width)
    shapes = [(height, width, channels), (height, width, 8), (*half, 8), (*half, 8), (*half, 20),
              (*half, CLASSES), (CLASSES,)]  # fmt: skip
    nodes = (
        Conv("conv1", 0, 1, Window.of(3, 1, 1), 8),
        Pool("average1", 1, 2, Window.of(3, 2, 1), average=True, counts_padding=False),
        Activate("swish1", 2, 3, "hard-swish"),
        Conv("conv2", 3, 4, Window.of(3, 1, 1), 12, groups=4),
        Add("add1", 2, 4, 3, offset=12),
        Conv("conv3", 4, 5, Window.of(1), CLASSES, bias=False),
        Mean("mean", 5, 6),
    )
    model = model_of(Graph("main_graph", tuple(shapes), nodes, 6))
    params = c_tests.lively(model, np.random.default_rng(0))
    prep = Preprocess(min(size), size, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.25))
    return WeightSet(model, params, prep, "a test")


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("graph") / "net.tsq"
    ts.compress(network(), path)
    return str(path)


@pytest.fixture(scope="module")
def names(tmp_path_factory) -> Path:
    """What the built-in classes are called: the network itself does not say."""
    path = tmp_path_factory.mktemp("names") / "names.txt"
    path.write_text("\n".join(load("builtin", "test", size=32).classes))
    return path


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> str:
    root, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for i in range(CLASSES):
        (root / str(i)).mkdir()
        pixels = rng.integers(0, 255, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / str(i) / "a.png")
    return str(root)


def said(capsys, *arguments: object) -> str:
    assert main([str(a) for a in arguments]) == 0
    return capsys.readouterr().out


def fails(capsys, *arguments: object) -> str:
    assert main([str(a) for a in arguments]) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("tinysqueeze: ")
    return error


@pytest.mark.parametrize("more", [[], ["--stepwise", "--flip", "--batch-size", "100"]])
def test_evaluate(file, names, more, tmp_path, capsys):
    plots, answers = tmp_path / "plots", tmp_path / "a.npz"
    options = ["--json", "--answers", answers, "--threads", 1, *more]
    named = ["evaluate", file, "--data", "builtin", "--classes", names]
    found = json.loads(said(capsys, *named, *options))
    assert set(found["class_accuracy"]) == set(load("builtin", "test", size=32).classes)
    assert answers.exists()
    if more:
        return
    said(capsys, *named, "--plot", plots)
    assert {path.name for path in plots.iterdir()} == {
        "confusion_matrix.png", "class_accuracy.png", "calibration.png", "worst_mistakes.png",
    }  # fmt: skip
    made, dataset = network(), load("builtin", "test", size=32)
    x = made.preprocess.scaled(dataset.images)
    logits = compile_plan(made.model, 100, training=False, params=made.params).predict(x)
    best, right = logits.argmax(axis=1), dataset.labels
    assert found["top1"] == pytest.approx((best == right).mean())
    loss = -np.log(softmax(logits.astype(float))[range(len(right)), right]).mean()
    assert found["loss"] == pytest.approx(loss, rel=1e-5)


def test_photographs(file, photos, tmp_path, capsys):
    assert json.loads(said(capsys, "evaluate", file, "--data", photos, "--json"))["images"] == 10
    classes = tmp_path / "classes.txt"
    classes.write_text("\n".join(f"class{i}" for i in range(CLASSES)))
    sheet = tmp_path / "sheet.png"
    out = said(capsys, "predict", photos, "--weights", file, "--classes", classes, "--out", sheet)
    assert "class3" in out
    assert sheet.exists()
    assert "--plot and --answers are for" in fails(
        capsys, "evaluate", file, "--data", photos, "--plot", tmp_path
    )


@pytest.mark.parametrize("to", ["net.safetensors", "net.onnx"])
def test_export_and_back(file, names, to, tmp_path, capsys):
    if to == "net.onnx":
        pytest.importorskip("onnx")
    out = tmp_path / to
    said(capsys, "export", file, out)
    again = ts.open_weights(out)
    assert again.model == network().model
    options = ["--data", "builtin", "--classes", names, "--threads", 1]
    score = said(capsys, "evaluate", file, *options)
    assert said(capsys, "evaluate", out, *options) == score
    assert "read as a graph: export it to ONNX" in fails(
        capsys, "export", file, tmp_path / "x.safetensors", "--to", "torchvision"
    )


def test_every_way_to_compress(file, names, photos, tmp_path, capsys):
    small = tmp_path / "small.tsq"
    whole = Path(file).stat().st_size
    for options in (
        ["--bits", 6], ["--bits", 4, "--prune", 0.3, "--coding", "huffman"],
        ["--target-kb", 3.6], ["--target-kb", 3.6, "--photos", photos],
    ):  # fmt: skip
        assert "times smaller" in said(capsys, "compress", file, "-o", small, *options)
        assert small.stat().st_size < whole
        assert "conv2/weight" in said(capsys, "inspect", small)
    assert "top-1" in said(capsys, "evaluate", small, "--data", "builtin", "--classes", names)
    back = tmp_path / "back.safetensors"
    said(capsys, "decompress", small, "-o", back)
    found, kept = ts.open_weights(back), ts.open_weights(small)
    assert all(np.array_equal(found.flat[path], kept.flat[path]) for path in kept.flat)
    assert "retraining needs a run folder" in fails(
        capsys, "compress", file, "-o", small, "--retrain", 1
    )
    assert "authors' format holds" in fails(capsys, "decompress", small, "-o", tmp_path / "x.net")


def test_measured(file, capsys):
    assert "arena" in said(capsys, "memory", "--weights", file)
    assert "measures SqueezeNets only" in fails(capsys, "memory", "--weights", file, "--compare")
    table = json.loads(said(capsys, "summary", "--weights", file, "--json"))
    rows = {row["path"]: row for row in table["layers"]}
    assert rows["conv2"]["multiply_adds"] == 16 * 16 * 12 * 3 * 3 * 2
    assert (rows["add1"]["kind"], rows["add1"]["parameters"]) == ("Add", 0)
    assert table["parameters"] == sum(
        int(np.prod(shape)) for shape in trained_shapes(network().model).values()
    )
    assert "conv2" in said(capsys, "summary", "--weights", file, "--compiled")
    assert f"say --weights {file}" in fails(capsys, "summary", file)
    assert "leave out --classes" in fails(capsys, "summary", "--weights", file, "--classes", 3)


def test_a_plain_network_counts_the_same_as_its_graph():
    model = ts.squeezenet_cifar(norm=True, bypass="complex")
    graph = model_of(ts.graph.lower(model))
    whole, parts = count(model), count(graph)
    for column in ("parameters", "multiply_adds", "im2col_bytes"):
        assert parts.total(column) == whole.total(column)


def test_it_does_not_train(file, tmp_path, capsys):
    assert "does not train" in fails(capsys, "train", "--from", file, "--out", tmp_path / "r")
    model = network().model
    with pytest.raises(UserError, match="read as a graph, which does not train: train it where"):
        ts.train(model, "builtin", epochs=1)
    with pytest.raises(UserError, match="does not train: training=False"):
        compile_plan(model, 4)
    assert "has no backward pass" in fails(capsys, "gradcheck", "--weights", file)
    with pytest.raises(UserError, match="takes images of 32x32 pixels alone"):
        model.at(64)
    with pytest.raises(UserError, match="has no classes to change"):
        model.with_changes(classes=3)
    assert model.at(32) is model


def test_images_that_do_not_fit_are_told_so(photos, tmp_path, capsys):
    grey, wide = tmp_path / "grey.tsq", tmp_path / "wide.tsq"
    ts.compress(network(channels=1), grey)
    ts.compress(network(size=(24, 40)), wide)
    assert "ts.classify" in fails(capsys, "evaluate", grey, "--data", "builtin")
    assert "a folder of photographs" in fails(capsys, "evaluate", wide, "--data", "builtin")
    assert "top-1" in said(capsys, "evaluate", wide, "--data", photos)
    for arguments in (
        ["predict", photos, "--weights", grey], ["evaluate", grey, "--data", photos],
        ["compress", grey, "-o", tmp_path / "x.tsq", "--target-kb", 3, "--photos", photos],
        ["export", grey, "--c", tmp_path / "c", "--int8", photos],
    ):  # fmt: skip
        assert "photographs have three channels" in fails(capsys, *arguments)
    x = np.zeros((32, 32, 1), np.float32)
    assert ts.classify(str(grey), x)[0].logits.shape == (CLASSES,)
    with pytest.raises(ShapeError, match="photographs have three"):
        ts.classify(str(grey), np.zeros((40, 40, 3), np.uint8))


def test_colours_in_the_other_order_are_turned_round_wherever_the_image_is_read():
    made = network()
    other = replace(made, preprocess=CAFFE.with_size(32))
    rgb = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    wanted = other.model.forward(other.params, other.preprocess.scaled(rgb))[0]
    params, normalise = training_start(other)
    x = ((rgb / 255 - normalise.mean) / normalise.std).astype(np.float32)
    found = other.model.forward(params, x)[0]
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-3 * np.abs(wanted).max())
    shapes = ((32, 32, 3), (32, 32, 3), (32, 32, 2), (32, 32, 5), (5,))
    nodes = (Norm("norm", 0, 1, 1e-5, 0.1), Conv("conv1", 0, 2, Window.of(1), 2),
             Copy("copy", 1, 3), Copy("copy", 2, 3, offset=3), Mean("mean", 3, 4))  # fmt: skip
    model = model_of(Graph("x", shapes, nodes, 4))
    normed = WeightSet(model, initialise(model), CAFFE.with_size(32), "a test")
    with pytest.raises(UserError, match="not only convolutions read them"):
        training_start(normed)


def test_c_with_an_average_that_leaves_its_padding_out(tmp_path):
    gcc = shutil.which("gcc") or shutil.which("cc")
    if not gcc:
        pytest.skip("no C compiler (gcc or cc) on this machine")
    made = network(size=(13, 18))
    rng = np.random.default_rng(1)
    images = rng.standard_normal((3, *made.model.input_shape)).astype(np.float32)
    export_float32(made.model, made.params, tmp_path)
    program = c_tests.compile_c(gcc, tmp_path, "main_graph")
    wanted = made.model.forward(made.params, images)[0]
    found = c_tests.logits_of(program, images, "<f4")
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5 * np.abs(wanted).max())
    small = quantise(made.model, made.params, images)
    export_int8(small, tmp_path / "int8")
    program = c_tests.compile_c(gcc, tmp_path / "int8", "main_graph_int8")
    bytes_in = small.encode(images)
    assert np.array_equal(c_tests.logits_of(program, bytes_in, "<i4"), small.integers(bytes_in))
    assert np.abs(small.logits(images) - wanted).max() < 0.1 * np.abs(wanted).max()
