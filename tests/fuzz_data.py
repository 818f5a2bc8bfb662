"""The formats of data, pictures, tables and texts: whole samples and crafted others."""

import contextlib
import gzip
import io
import json
import os
import random
import struct
import tarfile
import tempfile
import zlib
from pathlib import Path

import fuzzing
import numpy as np
import pickle_fuzz
from fuzz_format import Format, made, odd_text, pickle_edges, print_of, rezipped, zip_edges
from fuzz_weights import little
from PIL import Image

from tinysqueeze.data import Dataset, cifar10, load
from tinysqueeze.data.images import look, open_image
from tinysqueeze.errors import UserError
from tinysqueeze.paper.experiments.runs import read_rows
from tinysqueeze.paper.results import (
    Result,
    load_answers,
    markdown,
    read_results,
    read_run,
    save_answers,
    write_results,
)
from tinysqueeze.weights import CAFFE, labels_under, read_class_names, read_map
from tinysqueeze.weights.preprocess import read_preprocess

# --- CIFAR-10 ----------------------------------------------------------------------------------


def batches() -> dict[str, bytes]:
    from test_data_cifar10 import py2_batch, py2_meta

    rng = np.random.default_rng(0)
    found = {
        name: py2_batch(rng.integers(0, 256, (2, 3072), np.uint8), rng.integers(0, 10, 2))
        for name in (*cifar10.BATCHES["train"], *cifar10.BATCHES["test"])
    }
    return found | {"batches.meta": py2_meta()}


def images_of(dataset: Dataset) -> str:
    return print_of([dataset.images, dataset.labels, dataset.classes])


def cifar_file(name: str) -> Format:
    def craft(data: bytes, rng: random.Random) -> bytes:
        return pickle_fuzz.Grammar(rng.randrange(1 << 40), False).pickle()

    return Format(
        f"cifar-{name}", f"{cifar10.FOLDER}/{name}", [batches()[name]],
        lambda path: images_of(load(path.parent, "test")), pickle_edges, craft, beside=batches(),
    )  # fmt: skip


def tarred(members: list[tuple[str, bytes]], level: int = 9) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return gzip.compress(out.getvalue(), level, mtime=0)


def bomb(head: bytes, megabytes: int) -> bytes:
    """A small gzip file of so many zeros, made a piece at a time."""
    packer = zlib.compressobj(1, wbits=31)
    parts = [packer.compress(head), *(packer.compress(bytes(1 << 20)) for _ in range(megabytes))]
    return b"".join([*parts, packer.flush()])


def retarred(data: bytes, rng: random.Random) -> bytes:
    """The tar inside damaged, its parts in another order, or huge; gzip's check sum fits."""
    inner = gzip.decompress(data)
    match rng.randrange(4):
        case 0 if rng.random() < 0.03:
            return bomb(inner[:512], 600)
        case 0 | 1:
            members = [(f"{cifar10.FOLDER}/{name}", content) for name, content in batches().items()]
            place = rng.randrange(len(members))
            name, content = members[place]
            members[place] = (name, fuzzing.damaged(content, rng, pickle_edges(content)))
            rng.shuffle(members)
            return tarred(members, 1)
    heads = [at for at in range(0, len(inner), 512) if inner[at + 257 : at + 262] == b"ustar"]
    spoilt = bytearray(
        fuzzing.damaged(inner, rng, [at + n for at in heads for n in (0, 100, 124, 156)])
    )
    for at in heads:  # with check sums of headers that fit
        head = spoilt[at : at + 512]
        if len(head) == 512:
            head[148:156] = b" " * 8
            spoilt[at + 148 : at + 156] = b"%06o\0 " % (sum(head) % 8**6)
    return gzip.compress(bytes(spoilt), 1, mtime=0)


def cifar_archive() -> Format:
    whole = tarred([(f"{cifar10.FOLDER}/{name}", content) for name, content in batches().items()])
    return Format(
        "cifar-archive", "cifar-10-python.tar.gz", [whole], lambda path: images_of(load(path, "test")),
        lambda data: [0, 2, 3, 4, 8, 9, 10, len(data) - 8, len(data) - 4], retarred, "gzip's CRC-32",
    )  # fmt: skip


# --- what networks answered --------------------------------------------------------------------


def answers() -> Format:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (30, 8, 8, 3), np.uint8)
    arrays = rng.normal(size=(30, 3)), np.arange(30) % 3, images, ("a", "b", "c")
    whole = made(lambda path: save_answers(path, *arrays), "answers.npz")

    def read(path: Path) -> str:
        return print_of(vars(load_answers(path)))

    return Format("answers-npz", "answers.npz", [whole], read, zip_edges, rezipped, "CRC-32")


# --- pictures ----------------------------------------------------------------------------------


def picture(kind: str, mode: str = "RGB", **options) -> bytes:
    rng = np.random.default_rng(0)
    smooth = np.cumsum(rng.integers(-3, 4, (24, 32, 3)), axis=1) + 120
    exif = Image.Exif()
    exif[0x0112] = 6
    out = io.BytesIO()
    image = Image.fromarray(smooth.astype(np.uint8))
    if mode == "I;16":
        image = Image.fromarray(smooth[..., 0].astype(np.uint16) * 257)
    else:
        image = image.quantize(16) if mode == "P" else image.convert(mode)
    if kind in ("png", "jpeg", "webp", "tiff"):
        options["exif"] = exif
    image.save(out, kind, **options)
    return out.getvalue()


def opened(path: Path) -> str:
    image = open_image(path)
    return print_of([np.asarray(image), CAFFE(image)])


def png_edges(data: bytes) -> list[int]:
    at, found = 8, [0, 8]
    while at + 12 <= len(data):
        (size,) = struct.unpack(">I", data[at : at + 4])
        found += [at, at + 4, at + 8, at + 8 + size]
        at += 12 + size
    return found


def rechunked(data: bytes, rng: random.Random) -> bytes:
    """A chunk of a PNG damaged, its CRC repaired."""
    edges = png_edges(data)[2:]
    place = rng.randrange(len(edges) // 4)
    at, _, start, stop = edges[4 * place : 4 * place + 4]
    body = data[at + 4 : start] + fuzzing.damaged(data[start:stop], rng, [0, 4, 8, 9, 10])
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    return data[:at] + chunk + data[stop + 4 :]


def png() -> Format:
    whole = [picture("png", mode) for mode in ("RGB", "P", "LA", "I;16", "1")]
    return Format("png", "x.png", whole, opened, png_edges, rechunked)


def other_pictures() -> Format:
    more = Image.new("RGB", (9, 9))
    whole = [
        picture("jpeg"), picture("jpeg", "CMYK"), picture("gif", "P"), picture("webp", lossless=True),
        picture("webp", "RGBA"), picture("bmp"), picture("tiff"), picture("tiff", "CMYK"),
        picture("tiff", "I;16"), picture("tiff", compression="tiff_lzw"), picture("ppm"),
        picture("gif", "P", save_all=True, append_images=[more]), picture("ico"), picture("tga"),
        picture("jpeg2000"), picture("pcx"), picture("sgi"),
    ]  # fmt: skip
    return Format("pictures", "x.jpg", whole, opened, lambda data: list(range(0, 64, 2)))


# --- texts and tables --------------------------------------------------------------------------


def text(name: str, file: str, samples: list, read) -> Format:
    """JSON or lines, without check sums: whatever is in range is what the user sees."""
    whole = [(s if isinstance(s, str) else json.dumps(s)).encode() for s in samples]

    def craft(data: bytes, rng: random.Random) -> bytes:
        return odd_text(data.decode(), rng).encode("utf-8", "replace")

    return Format(name, file, whole, lambda path: print_of(read(path)), craft=craft)


SUMMARY = {"recipe_name": None, "engine": "compiled", "seed": 0, "parameters": 1, "multiply_adds": 2,
           "recipe": {"epochs": 3}, "lanes": 8, "wall_seconds": 60.0, "test_accuracy": 0.5}  # fmt: skip
ROWS = (
    "point,x,seed,parameters,multiply_adds,accuracy,seconds,epochs,lr,images,split\n"
    "0.125,0.125,0,1000,2000,0.7,12.5,6,0.14,50000,test\n"
)


def results() -> Format:
    row = Result("fast", "compiled", 0, 10, 20, 3, 8, 1.5, 0.9)
    whole = made(lambda path: write_results(path, [row]), "results.csv").decode()
    return text("results-csv", "results.csv", [whole], lambda path: markdown(read_results(path)))


TEXTS = {
    "class-names": lambda: text(
        "class-names", "names.txt",
        ["n01440764 tench\nn01443537 goldfish, Carassius\nshark\n", "a\nb\n",
         {"0": ["n01440764", "tench"], "1": ["n01443537", "goldfish"]}], read_class_names,
    ),
    "preprocess": lambda: text(
        "preprocess", "how.json", [CAFFE.to_json(), {"crop": [32, 32]}],
        lambda path: str(read_preprocess(path)),
    ),
    "map": lambda: text("map", "map.json", [{"a": "b", "c": 3, "d": None}], read_map),
    "summary-json": lambda: text(
        "summary-json", "summary.json", [SUMMARY], lambda path: markdown([read_run(path.parent)])
    ),
    "results-csv": results,
    "experiment-csv": lambda: text("experiment-csv", "rows.csv", [ROWS], read_rows),
}  # fmt: skip


# --- folders -----------------------------------------------------------------------------------


def folders() -> Format:
    """Odd names, links, empty and unreadable files, in folders of classes: a file lists what to make."""
    names = ["a/0.png", "a/1.png", "b/0.png", "b/1.png", "b/c/2.png", "notes.txt", "a/.hidden.png"]

    def craft(data: bytes, rng: random.Random) -> bytes:
        odd = ("..png", ".ipynb_checkpoints/0.png", "a/._0.png", "e\u0301/0.JPG", "train/a/0.png",
               "train/b/0.png", "test/a/0.png", "val/b/0.jpeg", "b/0.png/deep.png", "d" * 200 + "/x.png",
               "link:a/loop", "link:.", "empty:a/e.png", "pipe:b/p.png", "dir:z", "text:a/t.png",
               "\x1b[2J/0.png", "c/0.webp", "Thumbs.db", "wide:b/w.png")  # fmt: skip
        chosen = rng.sample(names, rng.randrange(len(names) + 1)) + rng.sample(
            odd, rng.randrange(8)
        )
        return json.dumps(chosen).encode()

    return Format("folders", "list.json", [json.dumps(names).encode()], made_folder, craft=craft)


def made_folder(path: Path) -> str:
    """Make what the list says, and read it as data and as pictures to classify."""
    whole = picture("png")
    with tempfile.TemporaryDirectory() as place:
        root = Path(place) / "data"
        root.mkdir()
        try:
            entries = [str(one) for one in json.loads(path.read_text())]
        except ValueError:
            entries = []
        for entry in entries:
            how, _, name = entry.rpartition(":")
            target = root / name.replace("\0", "")
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                if how == "link":
                    target.parent.joinpath("link").symlink_to(root)
                elif how == "pipe":
                    os.mkfifo(target)
                elif how == "dir":
                    target.mkdir()
                elif target.resolve().is_relative_to(root):
                    content = {"empty": b"", "text": b"x", "wide": picture("png", "L")[:99]}
                    target.write_bytes(content.get(how, whole))
            except (OSError, ValueError):
                continue
        found = look([root])
        str(found.left_out)
        with contextlib.suppress(UserError):
            labels_under(root, CLASSES)
        return print_of([load(root, "test").classes, len(found.pictures)])


CLASSES = little().with_classes(("a", "b", "c"))
