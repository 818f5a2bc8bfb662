"""Command lines as nobody should type them: every command and option of the parsers, with odd values."""

import argparse
import contextlib
import io
import random
import traceback
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from tinysqueeze.cli import COMMANDS, _parser, main
from tinysqueeze.network.models import squeezenet_cifar
from tinysqueeze.network.params import initialise
from tinysqueeze.weights.compression.compress import compress
from tinysqueeze.weights.exporting import export

TINY = dict(base_e=8, incr_e=4, stem_filters=6, squeeze_ratio=0.25, fires=3, pools=(1, 3))
SET = [
    "--set", "base_e=8", "--set", "incr_e=4", "--set", "stem_filters=6", "--set", "squeeze_ratio=0.25",
    "--set", "fires=3", "--set", "pools=[1,3]",
]  # fmt: skip

ODD = (
    "0", "-1", "-0.0", "nan", "inf", "-inf", "1e309", "-1e309", "1e-320", "9" * 30, "9" * 5000, "0.5",
    "1e3", "0x10", "1_0", "٣", "²", "1,2", "", " ", "-", "--", "=", "%s%n{}", "true", "none", "null",
    "[]", "{}", "[1", '{"a":', "[" * 500, "é", "日本", "\udcff", "n" * 300, "n" * 5000, "a\nb", "\x1b[31m",
    "~", "*", "builtin", "cifar10", "squeezenet1_1",
)  # fmt: skip
SHORT = ["--epochs", "1", "--batch-size", "16"]
SETS = (
    "fires",
    "pools",
    "squeeze_ratio",
    "stem_filters",
    "dropout",
    "bypass",
    "norm",
    "no_such",
    "",
)
LONG = {  # what a large number makes long, though it is right
    "--epochs", "--retrain", "--finetune", "--rounds", "--seconds", "--minutes", "--places", "--ranks",
    "--seeds", "--images",
}  # fmt: skip
ONLY_REFUSED = (
    "bench",
    "communication",
    "experiment",
    "ladder",
)  # which take minutes where nothing is wrong
SUFFIXES = (
    ".png",
    ".pth",
    ".pt",
    ".safetensors",
    ".onnx",
    ".net",
    ".caffemodel",
    ".tsq",
    ".json",
    ".csv",
)


@dataclass(frozen=True)
class Place:
    """A folder of tiny things to work on, and of wrong ones."""

    root: Path

    @property
    def paths(self) -> list[str]:
        """Names of everything there, of what is not there, and of devices."""
        found = [str(path) for path in sorted(self.root.iterdir())]
        return [
            *found,
            str(self.root / "missing"),
            str(self.root / "file/inside"),
            "/dev/null",
            "/dev/full",
        ]

    def line(self, command: str) -> list[str]:
        """One that is right and takes a second at most; `ONLY_REFUSED` are refused in the end.

        So is a command that has none here yet.
        """
        r = self.root
        return {
            "train": ["--data", f"{r}/data", "--out", f"{r}/new", *SHORT, *SET],
            "evaluate": [f"{r}/run", "--data", f"{r}/data"],
            "predict": [f"{r}/0.png", "--weights", f"{r}/net.safetensors"],
            "summary": ["squeezenet_cifar", *SET],
            "gradcheck": [
                "squeezenet_cifar",
                "--places",
                "1",
                "--input-size",
                "8",
                *SET[:-1],
                "pools=[1]",
            ],
            "bench": ["--quick", "--against", "nobody"],
            "export": [f"{r}/net.safetensors", f"{r}/out.onnx"],
            "compress": [f"{r}/net.safetensors", "-o", f"{r}/out.tsq"],
            "decompress": [f"{r}/net.tsq", "-o", f"{r}/out.safetensors"],
            "inspect": [f"{r}/net.tsq"],
            "experiment": ["squeeze-ratio", "--data", f"{r}/missing"],
            "ladder": ["--data", f"{r}/missing"],
            "lessons": [f"{r}/file"],
            "page": [f"{r}/net.safetensors", "--out", f"{r}/out.html"],
            "results": [f"{r}/run"],
            "memory": ["--model", "squeezenet_cifar", *SET],
            "communication": ["--networks", "nobody"],
        }.get(command, [f"{r}/missing"])


def furnish(root: Path) -> Place:
    """Make that folder."""
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (20, 20, 3), dtype=np.uint8)).save(root / "0.png")
    for name in ("train", "test"):
        for label in ("dark", "light"):
            folder = root / "data" / name / label
            folder.mkdir(parents=True)
            for i in range(20):
                pixels = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.png")
    model = squeezenet_cifar(**TINY, input_size=16, classes=2)
    weights = model, initialise(model, 0)
    export(weights, root / "net.safetensors")
    compress(weights, root / "net.tsq")
    (root / "file").write_text("text\n")
    (root / "empty").mkdir()
    for suffix in SUFFIXES:
        (root / f"noise{suffix}").write_bytes(rng.bytes(300))
        (root / f"nothing{suffix}").write_bytes(b"")
        (root / f"folder{suffix}").mkdir()
    place = Place(root)
    argv = ["train", *place.line("train")]
    argv[argv.index("--out") + 1] = str(root / "run")
    said = Said(argv)
    assert said.status == 0, said
    return place


class Said:
    """One command line, called, and what came of it; `fault` says what is wrong with that."""

    def __init__(self, argv: list[str]) -> None:
        self.argv, self.status, self.fault = argv, -1, ""
        out, err = io.StringIO(), io.StringIO()
        try:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                self.status = main(argv)
        except SystemExit as stop:
            self.status = stop.code if isinstance(stop.code, int) else -1
        except BaseException:
            self.fault = traceback.format_exc()
        self.out, self.err = out.getvalue(), err.getvalue()
        self.fault = self.fault or self._fault()

    def __repr__(self) -> str:
        words = [
            word if len(word) < 80 else f"{word[:20]}... ({len(word):,})" for word in self.argv
        ]
        return f"{words} -> {self.status}\n{self.fault}\n{self.err[-1500:]}"

    def _fault(self) -> str:
        skipped = self.status == 3 and self.argv[0] in ("predict", "evaluate")
        if self.status not in (0, 1, 2) and not skipped:
            return f"exit status {self.status}"
        lines = [line for line in self.err.splitlines() if line.startswith("tinysqueeze: ")]
        if self.status in (1, 2) and len(lines) != 1 and "could not be drawn" not in self.err:
            gradients_are_wrong = self.argv[0] == "gradcheck" and "WRONG" in self.out
            return "" if gradients_are_wrong else f"{len(lines)} lines say what is wrong"
        if "Traceback" in self.err + self.out:
            return "a traceback"
        return "" if all(len(line) < 2100 for line in lines) else "an endless line"


def options(command: str) -> list[argparse.Action]:
    """All arguments of a command, from its parser."""
    parsers = next(
        action
        for action in _parser(command)._actions
        if isinstance(action, argparse._SubParsersAction)
    )
    return [action for action in parsers.choices[command]._actions if action.dest != "help"]


def generated(place: Place, seed: int) -> list[str]:
    """One command line: a right one, with one to three of its arguments made odd."""
    rng = random.Random(seed)
    command = rng.choice(sorted(COMMANDS))
    argv = list(place.line(command))
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        action = rng.choice(options(command))
        value = _value(rng, place, action)
        if not action.option_strings:
            count = next((i for i, word in enumerate(argv) if word.startswith("-")), len(argv))
            at = rng.randrange(count) if count else 0
            argv[at : at + (count > 0)] = [value]
        elif action.nargs == 0 or isinstance(action, argparse.BooleanOptionalAction):
            argv.append(rng.choice(action.option_strings))
        else:
            name = rng.choice(action.option_strings)
            argv += [f"{name}={value}"] if rng.random() < 0.5 else [name, value]
    if rng.random() < 0.05:
        argv.pop(rng.randrange(len(argv)))
    return [command, *argv] if rng.random() > 0.03 else [rng.choice(ODD), *argv]


def _value(rng: random.Random, place: Place, action: argparse.Action) -> str:
    if "--set" in action.option_strings:
        return f"{rng.choice(SETS)}={rng.choice(ODD)}"
    kinds = [ODD, place.paths, *([list(map(str, action.choices))] if action.choices else [])]
    while True:
        value = rng.choice(rng.choice(kinds))
        if not LONG & set(action.option_strings) or not _is_more_than(value, 2):
            return value


def _is_more_than(text: str, most: float) -> bool:
    try:
        return float(text) > most
    except ValueError:
        return False
