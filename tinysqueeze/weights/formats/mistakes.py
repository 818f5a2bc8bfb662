"""Files that are often named by mistake in place of weights, told by their name or their first bytes."""

import re
import zipfile
from io import BytesIO

from tinysqueeze.errors import FormatError

SHARD = re.compile(r"-\d{3,6}-of-\d{3,6}$")
SAVE = "save the state_dict alone: torch.save(model.state_dict(), path)"
BEGINNINGS = {
    b"version https://git-lfs.github.com/spec/": "a Git LFS pointer in place of the file: `git lfs pull` "
    "fetches the file itself",
    b"<!doctype html": "a web page in place of the file: download the raw file",
    b"<html": "a web page in place of the file: download the raw file",
    b"\x89hdf\r\n\x1a\n": "an HDF5 file, as Keras writes: export the network to ONNX, which is read",
    b"\x1f\x8b\x08": "compressed by gzip: unpack it first",
}
TAR = slice(257, 262)  # where b"ustar" says that it is an archive


def refuse_likely_mistake(stem: str, data: bytes) -> None:
    """Raises FormatError, which says what the file seems to be, and what to do."""
    if SHARD.search(stem):
        raise FormatError(
            "one shard of several, which hold the rest of the network: load them all into one state_dict "
            "and save that"
        )
    first = data[:64].lstrip().lower()
    for beginning, what in BEGINNINGS.items():
        if first.startswith(beginning):
            raise FormatError(what)
    if data[TAR] == b"ustar":
        raise FormatError("an archive of files: unpack it and name the file inside")
    names = _entries(data)
    if any(name.endswith("/constants.pkl") for name in names):
        raise FormatError(
            "a TorchScript program, and not its parameters alone: save the state_dict, "
            "torch.save(torch.jit.load(path).state_dict(), new_path)"
        )
    pickled = _pickled(data)
    if b"_parameters" in pickled and b"_modules" in pickled:
        raise FormatError(
            f"a whole nn.Module with its code's names, and not its parameters alone: {SAVE}"
        )


def _entries(data: bytes) -> list[str]:
    """The names in a zip archive; none where it is no (whole) archive."""
    if data[:4] != b"PK\x03\x04":
        return []
    try:
        with zipfile.ZipFile(BytesIO(data)) as archive:
            return archive.namelist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError):
        return []


def _pickled(data: bytes) -> bytes:
    """The pickle that PyTorch's file begins with: in an archive the first entry, which is not packed."""
    head = data[: 1 << 20]
    return head if head[:1] == b"\x80" or b"data.pkl" in head[:200] else b""
