"""What the fuzzer knows of a format, and what several formats share: zip archives, pickles, arrays."""

import dataclasses
import hashlib
import io
import json
import random
import re
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import fuzzing
import numpy as np

Craft = Callable[[bytes, random.Random], bytes]


def no_edges(data: bytes) -> list[int]:
    return []


@dataclasses.dataclass
class Format:
    """How files of one format are made, spoilt and read. `read` returns what can be compared."""

    name: str
    file: str
    samples: list[bytes]
    read: Callable[[Path], Any]
    edges: Callable[[bytes], list[int]] = no_edges
    craft: Craft | None = None
    check: str = ""
    seconds: float = 10.0  # of a processor, that one file may take
    beside: dict[str, bytes] = dataclasses.field(default_factory=dict)

    def write(self, folder: Path, data: bytes) -> Path:
        """The file at its place, with what belongs beside it."""
        path = folder / self.file
        path.parent.mkdir(parents=True, exist_ok=True)
        for name, content in self.beside.items():
            if not (path.parent / name).exists():
                (path.parent / name).write_bytes(content)
        path.write_bytes(data)
        return path

    @cached_property
    def contents(self) -> list[Any]:
        """What the whole samples hold. Each is read twice: the same must be equal."""
        with tempfile.TemporaryDirectory() as folder:
            found = [self.read(self.write(Path(folder), data)) for data in self.samples]
            again = [self.read(self.write(Path(folder), data)) for data in self.samples]
        assert found == again, self.name
        return found


def print_of(value: Any) -> str:
    """A digest of anything that is read: arrays to the bit, all else as it is written."""
    sha = hashlib.sha256()

    def add(part: Any) -> None:
        if isinstance(part, np.ndarray):
            sha.update(f"{part.dtype}{part.shape}".encode() + np.ascontiguousarray(part).tobytes())
        elif isinstance(part, dict):
            for key, inner in sorted(part.items(), key=lambda item: repr(item[0])):
                add(key)
                add(inner)
        elif isinstance(part, list | tuple):
            sha.update(f"({len(part)}".encode())
            for inner in part:
                add(inner)
        else:
            sha.update(repr(part).encode())

    add(value)
    return sha.hexdigest()


def made(write: Callable[[Path], Any], name: str) -> bytes:
    """The bytes of a file that something writes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        write(path)
        return path.read_bytes()


# --- zip archives, and the pickles in them -----------------------------------------------------


def zip_edges(data: bytes) -> list[int]:
    """Where headers, names and contents begin."""
    found = [
        match.start() for match in re.finditer(rb"PK[\x01\x03\x05\x06\x07][\x02\x04\x06\x08]", data)
    ]
    return found + [at + 30 for at in found] + [len(data)]


def zip_parts(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def rezipped(data: bytes, rng: random.Random) -> bytes:
    """One entry damaged, missing, twice, huge, compressed or called otherwise; check sums fit."""
    parts = list(zip_parts(data).items())
    place = rng.randrange(len(parts))
    name, content = parts[place]
    match rng.randrange(6):
        case 0:
            name = rng.choice(
                ("x", "data.pkl", "../x", name.upper(), name + "x", "a/" * 200 + name)
            )
        case 1:
            parts.append((name, fuzzing.damaged(content, rng, [])))
        case 2 if rng.random() < 0.1:
            content = content[:128] + bytes(50_000_000)
        case _:
            content = fuzzing.damaged(content, rng, pickle_edges(content))
    parts[place] = (name, content)
    out = io.BytesIO()
    packed = rng.choice((zipfile.ZIP_STORED,) * 3 + (zipfile.ZIP_DEFLATED,))
    with zipfile.ZipFile(out, "w", packed) as made:
        for name, content in parts:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # a name twice
                made.writestr(zipfile.ZipInfo(name), content, packed)
    return out.getvalue()


def pickle_edges(data: bytes) -> list[int]:
    """Beside what a pickle's instructions are most often about."""
    return [match.start() for match in re.finditer(rb"[qXKcR(\x80\x8aQ]", data[:20_000])]


def odd_text(text: str, rng: random.Random) -> str:
    """JSON made odd, or any other text."""
    try:
        return json.dumps(fuzzing.odd_json(json.loads(text), rng))
    except ValueError:
        return rng.choice(("", "x", text[:-1], text.upper(), "[" * 100_000))


def odd_array(array: np.ndarray, rng: random.Random) -> np.ndarray:
    """Another shape, another type, or numbers that no training leaves."""
    match rng.randrange(4):
        case 0:
            return array.astype(rng.choice((np.float64, np.float16, np.int64, np.uint8)))
        case 1:
            return array.reshape(-1)[: rng.randrange(array.size + 1)].copy()
        case 2:
            return array.reshape(rng.choice(((-1,), (1, -1), (*array.shape, 1))))
    spoilt = array.copy().reshape(-1)
    spoilt[rng.randrange(max(spoilt.size, 1)) :][:1] = rng.choice((np.nan, np.inf, -1e30, 1e9))
    return spoilt.reshape(array.shape)
