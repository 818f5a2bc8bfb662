"""How weights want their images: said to be known or assumed, to be changed, and doubted by a sign."""

import json
import os
from dataclasses import replace

import numpy as np
import pytest
import weight_files as files
from PIL import Image
from torch_files import archive, tensor

import tinysqueeze as ts
from tinysqueeze.cli import main
from tinysqueeze.errors import DataError, FormatError, ShapeError, UserError
from tinysqueeze.network.models import squeezenet1_0
from tinysqueeze.weights import CAFFE, TORCHVISION, Preprocess, load_weights, write_safetensors
from tinysqueeze.weights.formats.names import to_theirs, torchvision_names
from tinysqueeze.weights.plausible import doubt, pictures


def as_torchvision(weights, path):
    """The same arrays under torchvision's names, without a word about their images."""
    names = torchvision_names(weights.model)
    arrays = [to_theirs(array) for array in weights.flat.values()]
    state = {
        names[path]: tensor(i, array.shape)
        for i, (path, array) in enumerate(zip(weights.flat, arrays, strict=True))
    }
    path.write_bytes(archive(state, [array.ravel() for array in arrays]))
    return path


@pytest.fixture
def unsaid(tmp_path):
    """Weights of four classes in a file that tells nothing of its images."""
    return as_torchvision(files.small(0, classes=4), tmp_path / "net.pth")


def test_what_is_assumed_is_said_and_stays_so_through_our_own_files(unsaid, tmp_path):
    found = ts.open_weights(unsaid)
    assert found.known_by == ""
    assert "(ASSUMED, since nothing says so" in str(found).splitlines()[-1]
    for name in ("net.safetensors", "net.tsq", "net.onnx"):
        if name.endswith("onnx"):
            pytest.importorskip("onnx")
        path = tmp_path / name
        ts.compress(found, path, progress=False) if name.endswith("tsq") else ts.export(found, path)
        again = load_weights(path)
        assert (again.known_by, again.preprocess) == ("", found.preprocess)
        said = ts.open_weights(path, preprocess="caffe")
        ts.compress(said, path, progress=False) if name.endswith("tsq") else ts.export(said, path)
        assert load_weights(path).known_by == "as the file says"
        assert load_weights(path).preprocess == CAFFE


def test_presets_take_their_own_size_unless_the_networks_is_known(unsaid, tmp_path):
    assert ts.open_weights(unsaid, preprocess="caffe").model.input_shape == (227, 227, 3)
    write_safetensors(files.small(classes=4), tmp_path / "net.safetensors")  # of 64 pixels
    found = ts.open_weights(tmp_path / "net.safetensors", preprocess="caffe")
    assert found.preprocess == CAFFE.with_size(64)
    assert found.known_by == "as you say"


def test_a_file_says_how_images_are_prepared(unsaid, tmp_path):
    path = tmp_path / "how.json"
    path.write_text('{"crop": [160, 160], "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}')
    found = ts.open_weights(unsaid, preprocess=path)
    wanted = Preprocess((160, 160), (160, 160), mean=(0.5,) * 3, std=(0.5,) * 3)
    assert (found.preprocess, found.model.input_shape) == (wanted, (160, 160, 3))
    assert ts.open_weights(unsaid, preprocess=wanted).preprocess == wanted
    for text, says in (
        ("[]", 'expected JSON with "crop"'),
        ('{"crop": [224, 224], "means": 3}', "no such field: means"),
        ('{"crop": [224, 224], "std": [0, 1, 1]}', "no zero"),
        ("{", "not JSON"),
    ):
        path.write_text(text)
        with pytest.raises(FormatError, match=rf"how\.json: .*{says}"):
            ts.open_weights(unsaid, preprocess=path)
    with pytest.raises(DataError, match="caffee: neither one of caffe, torchvision nor a file"):
        ts.open_weights(unsaid, preprocess="caffee")
    with pytest.raises(ShapeError, match="crops to"):
        ts.open_weights(unsaid, preprocess=replace(wanted, crop=(160, 100)))


def test_every_command_takes_it(unsaid, tmp_path, capsys):
    Image.fromarray(pictures(1, 64)[0]).save(tmp_path / "x.png")
    out, how = tmp_path / "out.safetensors", ["--preprocess", "caffe"]
    assert main(["export", str(unsaid), str(out), *how]) == 0
    assert load_weights(out).preprocess == CAFFE
    assert main(["compress", str(unsaid), "-o", str(tmp_path / "out.tsq"), *how]) == 0
    assert load_weights(tmp_path / "out.tsq").preprocess == CAFFE
    assert main(["predict", str(tmp_path / "x.png"), "--weights", str(unsaid), *how]) == 0
    assert capsys.readouterr().err.count("subtract (104, 117, 123) (as you say)") == 3
    with pytest.raises(UserError, match="a run folder knows"):
        ts.compress(str(tmp_path), tmp_path / "x.tsq", retrain=1, preprocess="caffe")


def test_classes_without_names_name_the_option(unsaid, capsys, tmp_path):
    Image.fromarray(pictures(1, 64)[0]).save(tmp_path / "x.png")
    assert main(["predict", str(tmp_path / "x.png"), "--weights", str(unsaid)]) == 0
    out, err = capsys.readouterr()
    assert "class 3" in out
    assert "the classes have no names: give --classes FILE" in err


# --- the sign ------------------------------------------------------------------------------------


def trained_like(scale: float):
    """Weights whose biases are of a size with what images of this scale make of conv1."""
    weights = files.weight_set(squeezenet1_0(classes=20, input_size=64), seed=3)
    flat = weights.flat
    images = TORCHVISION.scaled(pictures(4, 64))
    assert 0.8 < images.std() < 1.6
    for path, array in flat.items():
        if path.endswith("bias") and not path.startswith("conv10"):
            array[...] = np.random.default_rng(1).normal(size=array.shape)
    flat["conv10/weight"][...] *= 20
    flat["conv1/weight"][...] /= scale
    return replace(weights, known_by="")


@pytest.mark.parametrize(
    ("scale", "right", "wrong"), [(1, TORCHVISION, CAFFE), (57, CAFFE, TORCHVISION)]
)
def test_images_of_another_scale_are_doubted(scale, right, wrong):
    weights = trained_like(scale)
    assert doubt(weights.with_preprocess(right.with_size(64))) == ""
    says = doubt(weights.with_preprocess(wrong.with_size(64)))
    assert ("hardly depend" if wrong is TORCHVISION else "absurdly large") in says
    assert f"--preprocess {'caffe' if right is CAFFE else 'torchvision'}" in says


def test_the_authors_weights_under_torchvisions_names(shared_data, tmp_path, capsys):
    authors = load_weights(shared_data / "compressed_SqueezeNet.net")
    assert ts.open_weights(authors).known_by == "as these weights were trained"
    path = as_torchvision(authors, tmp_path / "net.pth")
    os.symlink(shared_data / "imagenet_classes.txt", tmp_path / "imagenet_classes.txt")
    for how, doubted, top1 in (((), True, 0.1), (("--preprocess", "caffe"), False, 0.675)):
        images = str(shared_data / "imagenet200")
        assert main(["evaluate", str(path), "--data", images, "--json", *how]) == 0
        out, err = capsys.readouterr()
        assert ("WARNING" in err, "try --preprocess caffe" in err) == (doubted, doubted)
        found = json.loads(out)
        assert found["top1"] <= top1 if doubted else found["top1"] == top1
