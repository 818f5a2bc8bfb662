"""Every format that the project reads, by name.

`check` of a format says what its check sum covers, and is empty where it has none. Then a changed number
goes unseen: the readers of weights say so (`UNCHECKED`), CIFAR-10's batches are compared with the MD5s
of the official ones, and texts show what they hold. A PNG has sums that Pillow does not all check.
"""

import itertools
import os
from pathlib import Path

import fuzz_data as data
import fuzz_weights as weights
from fuzz_format import Format, made
from torch_files import archive, legacy

from tinysqueeze.weights import write_safetensors, write_torchvision

FORMATS = {
    "pth-zip": lambda: weights.pth(archive, "pth-zip", "CRC-32 of each entry"),
    "pth-legacy": lambda: weights.pth(legacy, "pth-legacy", ""),
    "cifar-batch": lambda: data.cifar_file("test_batch"),
    "cifar-meta": lambda: data.cifar_file("batches.meta"),
    "cifar-archive": data.cifar_archive,
    "answers-npz": data.answers,
    "safetensors-ours": lambda: weights.safetensors(
        "safetensors-ours",
        [made(lambda p, w=w: write_safetensors(w, p), "x") for w in (weights.little(), weights.graph())],
        weights.ours_again,
    ),
    "safetensors-torchvision": lambda: weights.safetensors(
        "safetensors-torchvision",
        [made(lambda p: write_torchvision(weights.files.small(1, 2), p), "x")], weights.theirs_again,
    ),
    "safetensors-foreign": lambda: weights.safetensors(
        "safetensors-foreign", [weights.foreign()], lambda arrays, metadata: metadata, ""
    ),
    "checkpoint": weights.checkpoints,
    "tsq": weights.tsq,
    "onnx-ours": weights.onnx_ours,
    "onnx-foreign": weights.onnx_foreign,
    "caffemodel": weights.caffemodel,
    "net": weights.net,
    "png": data.png,
    "pictures": data.other_pictures,
    **data.TEXTS,
    "folders": data.folders,
}  # fmt: skip

LARGE = (
    "pth-zip",
    "pth-legacy",
    "safetensors-torchvision",
    "safetensors-foreign",
    "caffemodel",
    "net",
)
"""Whose files hold a SqueezeNet of full size, and take longer."""


def trap(name: str, **options) -> Format:
    """A reader with a fault, for the test of the fuzzer: it shows in some files only."""

    def read(path: Path) -> bytes:
        found = path.read_bytes()
        if len(found) >= 10:
            return found
        match name:
            case "hang":
                for _ in itertools.count():
                    pass
            case "death":
                os.abort()
            case "memory":
                bytes(3 << 30)
            case "crash":
                raise IndexError("what no reader raises")
        return found

    return Format(name, "x", [b"0123456789"], read, **options)


TRAPS = {
    "hang": lambda: trap("hang", seconds=0.2),
    "death": lambda: trap("death"),
    "memory": lambda: trap("memory"),
    "crash": lambda: trap("crash"),
    "wrong": lambda: trap("wrong", check="a sum that it never looks at"),
}
