"""The face, `import tinysqueeze as ts`: each function gives what its command gives, errors say the remedy."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import weight_files as files
from PIL import Image
from safetensors import safe_open

import tinysqueeze as ts
from tinysqueeze import weights as room
from tinysqueeze.cli import main
from tinysqueeze.errors import CheckpointError, DataError, FormatError, ShapeError
from tinysqueeze.training.train import TrainingRun
from tinysqueeze.weights import Prediction, Skipped, WeightSet

TINY = {"base_e": 8, "incr_e": 8, "stem_filters": 8, "fires": 2, "pools": (1,)}


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A little network with four named classes, as a file."""
    path = tmp_path_factory.mktemp("weights") / "net.safetensors"
    room.write_safetensors(files.small(classes=4), path)
    return path


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five pictures of several sizes in two folders, and a file that is none."""
    folder, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for i in range(5):
        place = folder / f"class_number_{i % 2}"
        place.mkdir(exist_ok=True)
        pixels = rng.integers(0, 256, (40 + i, 50, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(place / f"{i}.png")
    (folder / "class_number_0" / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> TrainingRun:
    """A network that `ts.train` trained for an epoch, on images of two classes, and its folder."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (60, 16, 16, 3)).astype(np.uint8)
    dataset = ts.data.Dataset(images, np.arange(60) % 2, ("left", "right"), "noise")
    out = tmp_path_factory.mktemp("run")
    spec = {"name": "squeezenet_cifar", **TINY}
    return ts.train(spec, dataset, epochs=1, batch_size=20, out=out, progress=False)


def test_every_name_of_the_face_is_there_and_documented() -> None:
    for name in ts.__all__:
        found = getattr(ts, name)
        assert name in dir(ts)
        if callable(found):
            assert found.__doc__, name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        ts.nothing  # noqa: B018


def test_importing_the_face_brings_only_what_training_needs() -> None:
    program = "import sys, tinysqueeze; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    late = {
        "requests",
        "PIL",
        "tqdm",
        "tarfile",
        "tinysqueeze.weights",
        "tinysqueeze.compiled.int8",
    }
    assert done.returncode == 0
    assert late.isdisjoint(done.stdout.split())


# --- open ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["safetensors", "onnx", "tsq", "caffemodel"])
def test_any_file_opens_ready_to_use(tmp_path: Path, suffix: str) -> None:
    weights, path = files.small(classes=4, version=0), tmp_path / f"net.{suffix}"
    if suffix == "onnx":
        pytest.importorskip("onnx", reason="reading ONNX is an extra")
    if suffix == "caffemodel":
        path.write_bytes(files.caffemodel(weights))
    elif suffix == "tsq":
        assert ts.compress(weights, path, progress=False) == path.stat().st_size
    else:
        assert ts.export(weights, path) == (path,)
    found = ts.open_weights(path)
    assert found.flat.keys() == weights.flat.keys()
    assert all(np.array_equal(found.flat[p], weights.flat[p]) for p in found.flat)
    if suffix != "caffemodel":  # which keeps neither
        assert found.classes == weights.classes
        assert found.preprocess == weights.preprocess
    assert room.open is ts.open_weights


def test_a_date_in_the_name_of_our_own_small_file_is_no_checksum(tmp_path: Path) -> None:
    ts.compress(files.small(), tmp_path / "net-20261127.tsq")
    assert ts.open_weights(tmp_path / "net-20261127.tsq").model.classes == 3


def test_a_training_opens_from_memory_from_its_folder_and_from_its_file(
    trained: TrainingRun,
) -> None:
    assert trained.folder is not None
    here = ts.open_weights(trained)
    for source in (trained.folder.path, trained.folder.path / ts.checkpoint.NAME):
        found = ts.open_weights(source)
        assert files.same(found, here)
        assert found.preprocess == here.preprocess
        assert found.classes == ("left", "right")


def test_a_model_and_its_parameters_take_pixels_from_0_to_1(tmp_path: Path) -> None:
    model = ts.squeezenet_cifar(classes=2, **TINY)
    params = ts.initialise(model, 1)
    names = tmp_path / "names.txt"
    names.write_text("cat\ndog\n")
    found = ts.open_weights((model, params), names)
    assert found.classes == ("cat", "dog")
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3)).astype(np.uint8)
    np.testing.assert_array_equal(
        found.preprocess(Image.fromarray(pixels)), pixels.astype(np.float32) / np.float32(255)
    )
    assert ts.open_weights(found) is found
    assert "2 classes" in str(found).splitlines()[0]
    assert str(found).splitlines()[-1].startswith("images: ")


def test_what_cannot_be_opened_says_what_can(tmp_path: Path, net: Path) -> None:
    model = ts.squeezenet_cifar(classes=2, **TINY)
    with pytest.raises(
        DataError, match=r"nowhere\.net: no such file, nor a name of weights \(squeeze"
    ):
        ts.open_weights("nowhere.net")
    with pytest.raises(FormatError, match=r"weights end in \.net, .*\.tsq, not in \.txt"):
        ts.open_weights(files.write(tmp_path / "net.txt", b""))
    with pytest.raises(CheckpointError, match=r"no such checkpoint; `tinysqueeze train --out DIR`"):
        ts.open_weights(tmp_path)
    with pytest.raises(ts.UserError, match=r"or \(model, params\), not Model"):
        ts.open_weights(model)  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match="conv1"):
        ts.open_weights((model, {}))
    with pytest.raises(FormatError, match="1 class names for 4 classes"):
        ts.open_weights(net, files.write(tmp_path / "names.txt", b"cat"))


# --- classify -----------------------------------------------------------------------------------


def test_classify_gives_what_predict_prints(
    net: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", str(photos), "--weights", str(net), "--json"]) == 3
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    found = ts.classify(net, photos)
    assert len(rows) == len(found) == 6
    for row, one in zip(rows, found, strict=True):
        assert row["image"] == str(one.path)
        if isinstance(one, Skipped):
            assert row["error"] == one.reason
            continue
        guesses = one.best(4)
        assert [best["name"] for best in row["top"]] == [guess.name for guess in guesses]
        assert [best["score"] for best in row["top"]] == [round(g.score, 5) for g in guesses]


def test_a_picture_is_the_same_as_file_image_and_array(net: Path, photos: Path) -> None:
    weights, path = ts.open_weights(net), photos / "class_number_1" / "1.png"
    image = room.open_image(path)
    ready = weights.preprocess(image)
    several = [path, image, np.asarray(image), ready]
    found = ts.classify(weights, several)
    assert [one.path for one in found] == [path, None, None, None]
    want = weights.model.forward(weights.params, ready[None])[0][0]
    for one in (*found, *ts.classify(weights, np.stack([ready] * 2), batch=1)):
        assert isinstance(one, Prediction)
        assert one.logits.shape == (4,)
        np.testing.assert_allclose(one.logits, want, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("pictures", "error", "says"),
    [
        (np.zeros((64, 64, 3)), ShapeError, r"float32 \(64, 64, 3\), ready for .*; not float64"),
        (np.zeros((2, 8, 8, 3), np.float32), ShapeError, r"uint8 \(height, width, 3\)"),
        (
            np.zeros((64, 64), np.uint8),
            ShapeError,
            r"\(H, W, C\) or \(N, H, W, C\), not \(64, 64\)",
        ),
        ("nowhere.png", DataError, "none of the 1 files .* nowhere.png: there is no such file"),
        ([], DataError, "none of the 0 files"),
    ],
)
def test_pictures_that_do_not_fit(net: Path, pictures, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        ts.classify(net, pictures)
    with pytest.raises(ts.UserError, match="batch is 1 or more"):
        ts.classify(net, pictures, batch=0)


# --- compress -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "asked"),
    [
        ([], {}),
        (["--bits", "3", "--prune", "0.5"], {"bits": 3, "prune": 0.5}),
        (["--target-kb", "3", "--coding", "huffman"], {"target_kb": 3, "coding": "huffman"}),
        (["--target-kb", "3", "--photos", "PHOTOS"], {"target_kb": 3, "photos": "PHOTOS"}),
    ],
    ids=["lossless", "shared", "to size", "calibrated"],
)
def test_compress_writes_the_commands_bytes(
    options: list[str], asked: dict, tmp_path: Path, photos: Path
) -> None:
    model = ts.squeezenet_cifar(classes=2, norm=True, **TINY)
    weights = ts.open_weights((model, ts.initialise(model, 1)))
    source = tmp_path / "net.safetensors"
    ts.export(weights, source)
    places = sorted(map(str, photos.glob("*/*.png")))
    words = [word for o in options for word in (places if o == "PHOTOS" else [o])]
    asked = {name: places if value == "PHOTOS" else value for name, value in asked.items()}
    assert main(["compress", str(source), "-o", str(tmp_path / "command.tsq"), *words]) == 0
    size = ts.compress(weights, tmp_path / "face.tsq", progress=False, **asked)
    assert (tmp_path / "face.tsq").read_bytes() == (tmp_path / "command.tsq").read_bytes()
    assert size == (tmp_path / "face.tsq").stat().st_size


def test_names_of_imagenet_alone_are_left_out(tmp_path: Path) -> None:
    names, wnids = (tuple(f"{kind}{i:08}" for i in range(1000)) for kind in ("name", "n"))
    model = ts.squeezenet_cifar(classes=1000, **TINY)
    weights = ts.open_weights((model, ts.initialise(model))).with_classes(names)
    ts.compress(weights, tmp_path / "own.tsq")
    assert ts.open_weights(tmp_path / "own.tsq", download=False).classes == names
    ts.compress(weights.with_classes(names, wnids), tmp_path / "net.tsq")
    assert ts.open_weights(tmp_path / "net.tsq", download=False).classes == ()


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"prune": 0.5}, "prune needs bits"),
        ({"bits": 4, "target_kb": 3}, "leave out bits and prune"),
        ({"retrain": 1, "target_kb": 3}, "retraining needs a run folder"),
        ({"retrain": 1, "photos": "x"}, "leave out photos"),
        ({"finetune": 1, "bits": 4}, "leave it out, or say retrain"),
        ({"photos": "x"}, "photos need a target size"),
        ({"coding": "zip"}, "coding is ans or huffman, not 'zip'"),
        ({"retrain": 1}, "retraining needs a run folder"),
        ({"bits": 99}, "bits must be 1 to 12"),
        ({"target_kb": 3, "photos": []}, "no images in"),
    ],
)
def test_options_that_do_not_go_together(asked: dict, says: str, tmp_path: Path) -> None:
    with pytest.raises(ts.UserError, match=says):
        ts.compress(files.small(), tmp_path / "net.tsq", **asked)
    assert not (tmp_path / "net.tsq").exists()


# --- export -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "to"),
    [("net.safetensors", None), ("net.safetensors", "torchvision"), ("net.onnx", None)],
)
def test_export_writes_the_commands_bytes(
    name: str, to: str | None, tmp_path: Path, net: Path
) -> None:
    if name.endswith("onnx"):
        pytest.importorskip("onnx", reason="writing ONNX is an extra")
    (tmp_path / "command").mkdir()
    option = ["--to", to] if to else []
    assert main(["export", str(net), str(tmp_path / "command" / name), *option]) == 0
    assert ts.export(net, tmp_path / name, to) == (tmp_path / name,)
    face, command = (tmp_path / name), (tmp_path / "command" / name)
    if name.endswith("onnx"):
        assert face.read_bytes() == command.read_bytes()
        return
    ours, theirs = (
        safe_open(face, "numpy"),
        safe_open(command, "numpy"),
    )  # whose header has no order
    assert ours.metadata() == theirs.metadata()
    assert sorted(ours.keys()) == sorted(theirs.keys())
    for key in ours.keys():  # noqa: SIM118
        assert np.array_equal(ours.get_tensor(key), theirs.get_tensor(key))


@pytest.mark.parametrize("int8", [None, "PHOTOS"])
def test_a_path_without_a_suffix_is_a_folder_of_c(
    int8: str | None, tmp_path: Path, photos: Path
) -> None:
    model = ts.squeezenet_cifar(classes=2, **TINY)
    weights = ts.open_weights((model, ts.initialise(model, 1)))
    ts.export(weights, tmp_path / "net.safetensors")
    places = sorted(map(str, photos.glob("*/*.png")))
    command = ["export", str(tmp_path / "net.safetensors"), "--c", str(tmp_path / "command")]
    assert main([*command, *(["--int8", *places] if int8 else [])]) == 0
    written = ts.export(weights, tmp_path / "face", int8=places if int8 else None)
    assert {file.name for file in written} == {f.name for f in (tmp_path / "command").iterdir()}
    for file in written:
        assert file.read_bytes() == (tmp_path / "command" / file.name).read_bytes()


def test_what_cannot_be_exported(tmp_path: Path, net: Path) -> None:
    with pytest.raises(
        ts.UserError, match=r"which of safetensors, torchvision, onnx, c to write \(to= in Python"
    ):
        ts.export(net, tmp_path / "net.bin")
    with pytest.raises(ts.UserError, match="int8 and packed go with C alone"):
        ts.export(net, tmp_path / "net.safetensors", int8="builtin")
    assert list(tmp_path.iterdir()) == []


def test_the_whole_way_from_training_to_export(trained: TrainingRun, tmp_path: Path) -> None:
    """What `train` returned goes straight into every other function of the face."""
    pixels = np.random.default_rng(1).integers(0, 256, (3, 16, 16, 3)).astype(np.uint8)
    first = ts.classify(trained, pixels)
    ts.export(trained, tmp_path / "net.safetensors")
    ts.compress(trained, tmp_path / "net.tsq")
    for source in ("net.safetensors", "net.tsq"):
        again = ts.classify(tmp_path / source, pixels)
        for one, other in zip(first, again, strict=True):
            assert isinstance(one, Prediction)
            assert isinstance(other, Prediction)
            np.testing.assert_array_equal(one.logits, other.logits)
            assert other.best(1)[0].name in ("left", "right")
    assert isinstance(ts.open_weights(trained), WeightSet)
