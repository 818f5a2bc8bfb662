"""Integers where people meet them: predict, evaluate, classify, on files and small images."""

import json

import numpy as np
import pytest
import weight_files as files
from PIL import Image

import tinysqueeze as ts
from tinysqueeze.cli import main
from tinysqueeze.devices.int8 import pixel_grid, quantise
from tinysqueeze.training import checkpoint
from tinysqueeze.training.recipe import Recipe
from tinysqueeze.training.state import begin
from tinysqueeze.weights import open_image, write_safetensors
from tinysqueeze.weights.calibration import calibration_images, quantised


@pytest.fixture(scope="module")
def known(tmp_path_factory):
    """A little network with named classes, its file, and a folder of labelled pictures."""
    root = tmp_path_factory.mktemp("int8")
    rng = np.random.default_rng(0)
    for i in range(8):
        place = root / "pictures" / f"class_number_{i % 4}"
        place.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (40, 50, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(place / f"{i}.png")
    path = root / "net.safetensors"
    write_safetensors(files.small(classes=4), path)
    return path, root / "pictures"


def test_classify_gives_the_integer_networks_logits(known):
    path, folder = known
    weights = ts.open_weights(path)
    found = ts.classify(weights, folder, int8=folder)
    images = calibration_images(weights, folder, 20)
    network = quantise(weights.model, weights.params, images, pixel_grid(weights.preprocess))
    expected = network.logits(np.stack([weights.preprocess(open_image(f.path)) for f in found]))
    np.testing.assert_array_equal([one.logits for one in found], expected)
    assert not np.array_equal(ts.classify(weights, folder)[0].logits, found[0].logits)
    assert quantised(weights, folder).logit_scale == network.logit_scale


def test_predict_and_evaluate_photographs(known, capsys):
    path, folder = (str(one) for one in known)
    argv = ["predict", folder, "--weights", path, "--int8", folder, "--json", "--top", "1"]
    assert main(argv) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    weights = ts.open_weights(path)
    found = ts.classify(weights, folder, int8=folder)
    assert [line["top"][0]["class"] for line in lines] == [one.best(1)[0].index for one in found]
    assert main(["evaluate", path, "--data", folder, "--int8", folder, "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)
    right = [f"class_number_{one.best(1)[0].index}" == one.path.parent.name for one in found]
    assert scores["int8"]["top1"] == pytest.approx(np.mean(right))
    assert {"top1", "top5", "images_per_second"} <= scores["int8"].keys()
    assert main(["evaluate", path, "--data", folder, "--int8", folder]) == 0
    assert "in 8-bit integers: top-1" in capsys.readouterr().out
    assert main(["evaluate", path, "--data", folder, "--int8"]) == 1
    assert "which photographs to calibrate on" in capsys.readouterr().err


def test_evaluate_small_images(folder, tmp_path, capsys):
    """A run of `train`: calibrated on its own training images."""
    model = ts.squeezenet_cifar(
        classes=2, input_size=16, base_e=16, incr_e=8, stem_filters=8, pools=[1]
    )
    training = begin(model, ts.data.load(str(folder), "train"), Recipe(batch_size=8))
    checkpoint.save(tmp_path / "run", training, data=str(folder))
    assert main(["evaluate", str(tmp_path / "run"), "--int8", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert abs(found["int8"]["top1"] - found["top1"]) <= 0.5
    assert found["int8"]["loss"] == pytest.approx(found["loss"], abs=0.2)
    assert main(["evaluate", str(tmp_path / "run"), "--int8"]) == 0
    assert "in 8-bit integers: top-1" in capsys.readouterr().out
