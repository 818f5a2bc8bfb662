"""The command line: predict and export, on files, folders, unreadable pictures and our own runs."""

import json
import os
import threading
from pathlib import Path

import numpy as np
import pytest
import weight_files as files
from PIL import Image

from tinysqueeze.cli import main
from tinysqueeze.cli.weights import find_weights
from tinysqueeze.data import Dataset, batches
from tinysqueeze.errors import DataError, FormatError, UserError
from tinysqueeze.network.layers import Mode
from tinysqueeze.network.models import squeezenet_cifar
from tinysqueeze.network.ops import reference
from tinysqueeze.study.count import count
from tinysqueeze.training import checkpoint
from tinysqueeze.training.recipe import Recipe
from tinysqueeze.training.state import begin
from tinysqueeze.weights import (
    Prediction,
    Skipped,
    classify,
    evaluate_folder,
    load_weights,
    named,
    open_image,
    open_weights,
    read_class_names,
    write_safetensors,
)
from tinysqueeze.weights.trained import describe


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    """A little network with four named classes, as a file."""
    path = tmp_path_factory.mktemp("weights") / "net.safetensors"
    write_safetensors(files.small(classes=4), path)
    return path


@pytest.fixture
def folder(tmp_path) -> Path:
    """Seven pictures in two sub-folders, and two files that are none."""
    rng = np.random.default_rng(0)
    for i in range(7):
        place = tmp_path / "pictures" / f"class_number_{i % 2}"
        place.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (40 + i, 50, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(place / f"{i}.png")
    (tmp_path / "pictures" / "class_number_0" / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    (tmp_path / "pictures" / "class_number_1" / "notes.txt").write_text("not asked for")
    return tmp_path / "pictures"


def test_json_lines_agree_with_the_reference_operations(capsys, weights, folder):
    assert (
        main(["predict", str(folder), "--weights", str(weights), "--json", "--batch-size", "3"])
        == 3
    )
    out, err = capsys.readouterr()
    rows = [json.loads(line) for line in out.splitlines()]
    assert len(rows) == 8
    assert [row["image"] for row in rows if "error" in row] == [
        str(folder / "class_number_0" / "broken.jpg")
    ]
    assert "1 of 8 files were skipped" in err
    known = load_weights(weights)
    for row in rows:
        if "error" in row:
            continue
        x = known.preprocess(open_image(row["image"]))[None]
        expected = known.model.forward(known.params, x, Mode(reference))[0][0]
        scores = np.array([best["score"] for best in row["top"]])
        order = [best["class"] for best in row["top"]]
        assert order == np.argsort(-expected, kind="stable").tolist()
        np.testing.assert_allclose(scores, expected[order], rtol=1e-3, atol=1e-4)
        assert sum(best["probability"] for best in row["top"]) == pytest.approx(1, abs=1e-5)
        assert row["top"][0]["name"] == f"class number {order[0]}"


def test_table_and_sheet(capsys, weights, folder, tmp_path):
    pictures = sorted(map(str, folder.glob("*/[0-9].png")))
    sheet = tmp_path / "sheet.png"
    assert (
        main(["predict", *pictures, "--weights", str(weights), "--top", "2", "--out", str(sheet)])
        == 0
    )
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 7 * 3
    assert out.splitlines()[0] == pictures[0]
    assert "SqueezeNet v1.1" in err
    assert "shorter side to" in err
    with Image.open(sheet) as drawn:
        assert drawn.width > 500
        assert drawn.info["Description"].startswith("7 photographs")
    assert main(["predict", pictures[0], "--weights", str(weights), "--top", "1"]) == 0
    assert capsys.readouterr().out.rstrip().endswith(pictures[0])


def test_names_of_classes(capsys, tmp_path, weights, folder):
    listed = tmp_path / "names.txt"
    listed.write_text("n00000001 a_b\nn00000002 cat, true cat\nn00000003 d\n\nn00000004 e\n")
    assert read_class_names(listed) == (
        ("a b", "cat, true cat", "d", "e"),
        ("n00000001", "n00000002", "n00000003", "n00000004"),
    )
    arguments = [
        "predict",
        str(folder),
        "--weights",
        str(weights),
        "--json",
        "--classes",
        str(listed),
    ]
    main(arguments)
    names = {
        best["name"]
        for line in capsys.readouterr().out.splitlines()
        for best in json.loads(line).get("top", [])
    }
    assert names == {"a b", "cat, true cat", "d", "e"}
    (tmp_path / "index.json").write_text('{"0": ["n00000001", "x_y"], "1": ["n00000002", "z"]}')
    assert read_class_names(tmp_path / "index.json")[0] == ("x y", "z")
    for text, wrong in (
        (b'{"1": []}', FormatError),
        (b'{"0": 3', FormatError),
        (b"\xff\xfe", FormatError),
    ):
        with pytest.raises(wrong, match=r"bad\.json"):
            read_class_names(files.write(tmp_path / "bad.json", text))
    with pytest.raises(DataError, match="nowhere"):
        read_class_names(tmp_path / "nowhere")
    with pytest.raises(FormatError, match=r"index\.json: 2 class names for 4 classes: give a line"):
        named(load_weights(weights), tmp_path / "index.json")


def test_thousand_classes_without_names_stay_numbers(tmp_path):
    weights = files.small(classes=1000)
    plain = named(weights.with_classes(()), download=False)
    assert plain.class_name(7) == "class 7"
    assert "--classes FILE" in plain.notes[0]
    (tmp_path / "synset_words.txt").write_text("n00000001 cat")  # a list that isn't theirs
    plain = named(weights.with_classes(()), beside=tmp_path / "net.pth")
    assert plain.class_name(7) == "class 7"
    assert "synset_words.txt: 1 class names for 1000 classes" in plain.notes[0]


def test_a_wrong_word_is_refused_before_names_are_fetched(tmp_path, monkeypatch):
    monkeypatch.setattr("tinysqueeze.weights.class_names.fetch", lambda file: 1 / 0)
    net = tmp_path / "net.safetensors"
    write_safetensors(files.small(classes=1000).with_classes(()), net)
    with pytest.raises(UserError, match="caffee: neither one of caffe, torchvision nor a file"):
        open_weights(net, preprocess="caffee")


def test_a_folder_without_pictures_is_named(tmp_path, weights, capsys):
    (tmp_path / "a.txt").write_text("")
    assert main(["predict", str(tmp_path), "--weights", str(weights)]) == 1
    assert f"no pictures in {tmp_path}" in capsys.readouterr().err


def test_parameters_are_those_that_are_trained():
    model = squeezenet_cifar(norm=True, classes=2)
    assert f"{count(model).parameters:,} parameters" in describe(model, "here")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nowhere.png", "--weights", "WEIGHTS"], "none of the 1 files could be read"),
        (["x.png", "--weights", "nowhere.net"], "nowhere.net: no such file, nor a name of weights"),
        (["EMPTY", "--weights", "WEIGHTS"], "no pictures in "),
        (["x.png", "--weights", "EMPTY"], "no such checkpoint"),
    ],
)
def test_mistakes_are_told_in_one_line(capsys, tmp_path, weights, arguments, says):
    places = {"WEIGHTS": str(weights), "EMPTY": str(tmp_path)}
    assert main(["predict", *(places.get(word, word) for word in arguments)]) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("tinysqueeze: ")
    assert says in last


def test_a_sheet_that_cannot_be_written(capsys, weights, folder):
    picture = str(folder / "class_number_0" / "0.png")
    for out in ("no/such/folder.png", "sheet.nothing"):
        assert main(["predict", picture, "--weights", str(weights), "--out", out]) == 1
        assert "cannot be written" in capsys.readouterr().err


def test_our_own_checkpoints(capsys, tmp_path, folder):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (8, 32, 32, 3)).astype(np.uint8)
    dataset = Dataset(images, np.arange(8) % 2, ("left", "right"), "noise")
    training = begin(squeezenet_cifar(classes=2), dataset, Recipe(batch_size=8))
    checkpoint.save(tmp_path / "run", training, data="noise")
    found = find_weights(str(tmp_path / "run"))
    assert found.classes == ("left", "right")
    x = found.preprocess(Image.fromarray(images[0]))
    (seen, _), *_ = batches(dataset, 8, shuffle=False, normalise=training.normalise)
    np.testing.assert_allclose(x, seen[0], rtol=1e-5, atol=1e-6)
    run_file = str(tmp_path / "run" / checkpoint.NAME)
    picture = str(folder / "class_number_0" / "0.png")
    for source in (str(tmp_path / "run"), run_file):
        assert main(["predict", picture, "--weights", source, "--top", "1"]) == 0
    assert "trained here" in capsys.readouterr().err
    assert main(["export", run_file, str(tmp_path / "net.safetensors")]) == 0
    assert files.same(load_weights(tmp_path / "net.safetensors"), found)


def test_export(capsys, tmp_path, weights):
    assert (
        main(["export", str(weights), str(tmp_path / "x.safetensors"), "--to", "torchvision"]) == 0
    )
    assert files.same(load_weights(tmp_path / "x.safetensors"), load_weights(weights))
    assert main(["export", str(weights), str(tmp_path / "x.bin")]) == 1
    assert "say with --to which of" in capsys.readouterr().err
    assert main(["export", str(weights), str(tmp_path / "no" / "x.safetensors")]) == 1
    assert "cannot be written" in capsys.readouterr().err
    padded = tmp_path / "padded.safetensors"
    write_safetensors(files.small(0, conv10_pad=1), padded)
    assert (
        main(["export", str(padded), str(tmp_path / "y.safetensors"), "--to", "torchvision"]) == 0
    )
    assert "padding = (1, 1)" in capsys.readouterr().err


# --- streams ------------------------------------------------------------------------------------


class Counting:
    """A plan that notes how many images came at a time, and gives each its brightness as logit."""

    def __init__(self) -> None:
        self.batches: list[int] = []

    def predict(self, images: np.ndarray) -> np.ndarray:
        self.batches.append(len(images))
        bright = images.mean(axis=(1, 2, 3))
        return np.stack([-bright, bright, 0 * bright, 0 * bright], axis=1).astype("f4")


def test_a_stream_keeps_the_order_and_reads_little_ahead(weights, folder):
    paths = sorted(folder.glob("*/*.png"))
    asked = []

    def endless():
        while True:
            for path in paths:
                asked.append(path)
                yield path

    plan = Counting()
    results = classify(load_weights(weights), endless(), batch=4, plan=plan)
    seen = [next(results).path for _ in range(21)]
    assert seen == (paths * 3)[:21]
    assert plan.batches == [4] * 6
    assert len(asked) <= 24 + 3 * 4
    before = threading.active_count()
    results.close()
    assert threading.active_count() < before


def test_unreadable_files_leave_gaps_in_no_batch(weights, folder):
    paths = [*sorted(folder.glob("*/[0-9].png"))[:2], folder / "missing.png", folder]
    plan = Counting()
    results = list(classify(load_weights(weights), paths * 2, batch=4, plan=plan))
    assert [type(result) for result in results] == [Prediction, Prediction, Skipped, Skipped] * 2
    assert plan.batches == [2, 2]
    assert results[2].reason == "there is no such file"
    assert list(classify(load_weights(weights), [folder / "missing.png"], plan=plan)) != []
    assert plan.batches == [2, 2]


def test_the_same_file_twice_in_a_batch(weights, folder):
    path = next(folder.glob("*/0.png"))
    results = list(classify(load_weights(weights), [path] * 3, batch=8, plan=Counting()))
    assert len(results) == 3


def test_labelled_folders(weights, folder):
    known = load_weights(weights)
    scores = list(evaluate_folder(known, folder, batch=4, plan=Counting()))
    assert len(scores) == 8
    last = scores[-1]
    assert (last.images, len(last.skipped)) == (7, 1)
    assert last.among_five == 7  # four classes in all
    bright = [
        known.preprocess(open_image(p)).mean() > 0 for p in sorted(folder.glob("*/[0-9].png"))
    ]
    labels = [0] * 4 + [1] * 3
    assert last.first == sum(b == label for b, label in zip(bright, labels, strict=True))


def test_labels_from_wnids_and_a_map_never_from_order(weights, folder, tmp_path):
    known = load_weights(weights)
    wnids = tuple(f"n0000000{i}" for i in range(4))
    flat = tmp_path / "flat"
    flat.mkdir()
    for i, path in enumerate(sorted(folder.glob("*/[0-9].png"))):
        os.link(path, flat / f"n0000000{i % 4}_{i}.png")
    with_wnids = known.with_classes(known.classes, wnids)
    assert list(evaluate_folder(with_wnids, flat, plan=Counting()))[-1].images == 7
    os.link(path, flat / "unlabelled.png")
    with pytest.raises(DataError, match=r"unlabelled\.png: its class is not known"):
        list(evaluate_folder(with_wnids, flat, plan=Counting()))
    unnamed = known.with_classes(())
    for name in ("c", "d"):
        (folder / name).mkdir()
        os.link(path, folder / name / "x.png")
    with pytest.raises(DataError, match=r"no class is called c, .*--classes FILE .*--map FILE"):
        list(evaluate_folder(unnamed, folder, plan=Counting()))
    numbers = {"c": 2, "class_number_0": 0, "class_number_1": 1, "d": None}
    *_, last = evaluate_folder(unnamed, folder, plan=Counting(), named=numbers)
    assert (last.images, last.notes[0][:37]) == (
        8,
        "1 of classes that are left out: " + str(folder)[:5],
    )
    with pytest.raises(DataError, match="no images"):
        list(evaluate_folder(known, weights.parent, plan=Counting()))
    with pytest.raises(DataError, match="no such folder"):
        list(evaluate_folder(known, folder / "nowhere", plan=Counting()))


def test_evaluate_takes_others_weights(capsys, weights, folder):
    assert main(["evaluate", str(weights), "--data", str(folder), "--json"]) == 3
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert (found["images"], found["skipped"], found["top5"]) == (7, 1, 1.0)
    assert "broken.jpg" in err
    assert main(["evaluate", str(weights)]) == 1
    assert "--data FOLDER is needed" in capsys.readouterr().err
