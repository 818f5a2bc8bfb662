"""Folders of labelled pictures are matched with a network's classes by name, never by their order."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

import tinysqueeze as ts
from tinysqueeze.cli import main
from tinysqueeze.errors import DataError, FormatError
from tinysqueeze.weights.labelled import Classes, read_map

COLOURS = {"blue": (30, 40, 200), "green": (30, 200, 40), "red": (200, 40, 30)}


def paint(folder, names, count=10, seed=0):
    """Plain pictures of a colour a class, with some noise; `names` maps colours to folders."""
    rng = np.random.default_rng(seed)
    for colour, name in names.items():
        (folder / name).mkdir(parents=True)
        for i in range(count):
            noise = rng.integers(-30, 30, (16, 16, 3)) + np.array(COLOURS[colour])
            Image.fromarray(noise.astype(np.uint8)).save(folder / name / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run folder that tells three colours apart, and the pictures it was trained on."""
    root = tmp_path_factory.mktemp("colours")
    pictures = paint(root / "pictures", {name: name for name in COLOURS}, 40)
    small = {"base_e": 8, "incr_e": 8, "fires": 2, "pools": (1,), "stem_filters": 8}
    run = ts.train(
        small, pictures, epochs=6, batch_size=16, lr=0.1, out=root / "run", progress=False
    )
    assert run.accuracy == 1
    return root / "run", pictures


def score(capsys, run, folder, *options):
    assert main(["evaluate", str(run), "--data", str(folder), "--json", *options]) == 0
    out, err = capsys.readouterr()
    return json.loads(out), err


def test_the_same_pictures_in_folders_of_other_case_and_order(run, tmp_path, capsys):
    here = paint(tmp_path / "x", {"red": "Red", "green": "green_", "blue": "z BLUE"}, seed=1)
    assert main(["evaluate", str(run[0]), "--data", str(here)]) == 1
    says = capsys.readouterr().err
    assert "no class is called green_, z BLUE; there are blue, green, red. --map FILE" not in says
    assert "no class is called z BLUE; there are blue, green, red. --map FILE" in says
    (tmp_path / "x" / "z BLUE").rename(tmp_path / "x" / "BLUE")
    found, _ = score(capsys, run[0], here)
    assert (found["top1"], found["images"]) == (1, 30)  # all of it, not a fifth


def test_a_map_says_what_names_do_not(run, tmp_path, capsys):
    here = paint(tmp_path / "x", {"red": "rouge", "green": "vert", "blue": "autre"}, seed=2)
    (tmp_path / "map.json").write_text('{"rouge": "RED", "vert": 1, "autre": null}')
    found, err = score(capsys, run[0], here, "--map", str(tmp_path / "map.json"))
    assert (found["top1"], found["images"]) == (1, 20)
    assert found["class_accuracy"] == {"blue": None, "green": 1, "red": 1}
    assert "10 images of classes that are left out" in err
    (tmp_path / "map.json").write_text('{"rouge": 3, "vert": 1, "autre": null}')
    arguments = ["evaluate", str(run[0]), "--data", str(here), "--map", str(tmp_path / "map.json")]
    assert main(arguments) == 1
    assert "no class is called rouge" in capsys.readouterr().err


def test_its_own_folder_is_scored_by_the_fifth_held_out(run, capsys):
    found, _ = score(capsys, run[0], run[1])
    assert found["images"] == 24
    assert main(["evaluate", str(run[0]), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["images"] == 24


def test_a_folder_may_lack_classes_and_a_dataset_of_others_is_refused(run, tmp_path, capsys):
    here = paint(tmp_path / "x", {"red": "red"}, seed=3)
    found, _ = score(capsys, run[0], here)
    assert (found["top1"], found["images"]) == (1, 10)
    assert main(["evaluate", str(run[0]), "--data", "builtin"]) == 1
    assert "no class is called disc, ring, square" in capsys.readouterr().err


def test_others_weights_are_scored_by_the_same_names(run, tmp_path, capsys):
    """The same network as a file from elsewhere, photographs of any size."""
    ts.export(str(run[0]), tmp_path / "net.safetensors")
    here = paint(tmp_path / "x", {"red": "Red", "green": "GREEN", "blue": "blue"}, seed=4)
    shutil.copytree(here, tmp_path / "y" / "test")
    shutil.copytree(here, tmp_path / "y" / "train")
    for folder, said in ((here, "x"), (tmp_path / "y", "y")):
        found, _ = score(capsys, tmp_path / "net.safetensors", folder)
        assert (found["top1"], found["images"]) == (1, 30), said
    (here / "Red").rename(here / "rouge")
    assert main(["evaluate", str(tmp_path / "net.safetensors"), "--data", str(here)]) == 1
    assert "no class is called rouge; there are blue, green, red" in capsys.readouterr().err
    (tmp_path / "map.json").write_text('{"rouge": "red"}')
    found, _ = score(
        capsys, tmp_path / "net.safetensors", here, "--map", str(tmp_path / "map.json")
    )
    assert found["top1"] == 1


def test_names_wnids_and_synonyms():
    names = ("tench, Tinca tinca", "crane", "crane", "great_white  shark")
    wnids = ("n01440764", "n02012849", "n03126707", "n01484850")
    classes = Classes(4, names, wnids)
    asked = ["Tench", "n03126707_crane", "n02012849", "Great White Shark", "tench, tinca TINCA"]
    assert list(classes.numbers(asked).values()) == [0, 2, 1, 3, 0]
    with pytest.raises(DataError, match="no class is called crane, 3"):  # two are; names win
        classes.numbers(["tench", "crane", "3"])
    assert Classes(12).numbers(["class 7", "11"]) == {"class 7": 7, "11": 11}
    with pytest.raises(DataError, match="no class is called 12, -1"):
        Classes(12).numbers(["3", "12", "-1"])


@pytest.mark.parametrize(
    "text", ["", "[]", '{"a": true}', '{"a": 1.5}', '{"a": ["b"]}', "[" * 200_000]
)
def test_odd_maps_are_refused(tmp_path, text):
    (tmp_path / "map.json").write_text(text)
    with pytest.raises(FormatError, match=r"map\.json"):
        read_map(tmp_path / "map.json")
    with pytest.raises(DataError, match="cannot be read"):
        read_map(tmp_path)
