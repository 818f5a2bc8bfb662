"""Files named in place of weights: the refusal begins with the likely mistake, and says what to do."""

import gzip
import io
import re
import tarfile

import numpy as np
import pytest
from torch_files import archive, legacy, tensor

from tinysqueeze.errors import DataError, FormatError
from tinysqueeze.network.models import squeezenet1_1
from tinysqueeze.network.params import flatten, initialise
from tinysqueeze.weights import load_weights
from tinysqueeze.weights.formats.names import to_theirs, torchvision_names

MODEL = squeezenet1_1(classes=2)
STATE = {
    name: np.ascontiguousarray(to_theirs(flatten(initialise(MODEL, 0))[path]))
    for path, name in torchvision_names(MODEL).items()
}


def checkpoint(prefix: str = "") -> tuple[dict, list[np.ndarray]]:
    """What a training loop saves, and its storages."""
    arrays = list(STATE.values())
    tensors = {f"{prefix}{name}": tensor(i, a.shape) for i, (name, a) in enumerate(STATE.items())}
    return {"epoch": 3, "arch": "squeezenet1_1", "state_dict": tensors}, [a.ravel() for a in arrays]


def tarred(data: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as made:
        entry = tarfile.TarInfo("net.pth")
        entry.size = len(data)
        made.addfile(entry, io.BytesIO(data))
    return out.getvalue()


@pytest.mark.parametrize("layout", [archive, legacy])
@pytest.mark.parametrize(
    "name", ["model_best.pth.tar", "last.ckpt", "pytorch_model.bin", "NET.PTH.TAR"]
)
def test_a_checkpoint_is_read_by_its_content(tmp_path, name, layout):
    (tmp_path / name).write_bytes(
        layout(*checkpoint("model." if name == "last.ckpt" else "module."))
    )
    weights = load_weights(tmp_path / name)
    assert weights.model.classes == 2
    found = weights.flat["conv1/weight"]
    np.testing.assert_array_equal(to_theirs(found), STATE["features.0.weight"])


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c9\nsize 12345\n"
MISTAKES = {
    "pointer.pth": (POINTER, "a Git LFS pointer in place of the file: `git lfs pull`"),
    "pointer.onnx": (POINTER, "a Git LFS pointer"),
    "pointer.safetensors": (POINTER, "a Git LFS pointer"),
    "page.caffemodel": (b"\n <!DOCTYPE html>\n<html>", "a web page in place of the file"),
    "model-00001-of-00003.safetensors": (b"", "one shard of several"),
    "pytorch_model-00002-of-00002.bin": (b"PK\x03\x04", "one shard of several"),
    "weights.ckpt": (b"\x89HDF\r\n\x1a\n" + bytes(99), "an HDF5 file, as Keras writes"),
    "net.bin": (bytes(99), "neither a file of PyTorch's nor safetensors"),
    "packed.tar": (tarred(b"x"), "an archive of files: unpack it"),
    "packed.pth": (gzip.compress(b"x"), "compressed by gzip: unpack it"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_the_likely_mistake_comes_first(tmp_path, name):
    data, message = MISTAKES[name]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(FormatError, match=re.escape(f"{tmp_path / name}: {message}")):
        load_weights(tmp_path / name)


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("zipped", [True, False])
def test_a_whole_module(tmp_path, zipped):
    torch = pytest.importorskip("torch")
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3))
    torch.save(module, tmp_path / "net.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(
        FormatError, match=r"net\.pth: a whole nn\.Module .*: save the state_dict alone"
    ):
        load_weights(tmp_path / "net.pth")


@pytest.mark.oracle
@pytest.mark.filterwarnings("ignore")
def test_a_torchscript_file(tmp_path):
    torch = pytest.importorskip("torch")
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3)).eval()
    torch.jit.save(torch.jit.trace(module, torch.zeros(1, 3, 8, 8)), tmp_path / "net.pt")
    with pytest.raises(FormatError, match=r"net\.pt: a TorchScript program.*: save the state_dict"):
        load_weights(tmp_path / "net.pt")


def test_a_device_is_no_file():
    with pytest.raises(DataError, match=r"/dev/zero: cannot be read \(a device, not a file\)"):
        load_weights("/dev/zero")
