"""No damaged or crafted file crashes a reader, hangs it, fills the memory or is silently wrong.

`TINYSQUEEZE_FUZZ=10000 pytest tests/test_fuzzing.py` tries as many of each format; few by default.
"""

import os
import subprocess
import sys

import pytest
from fuzz_formats import FORMATS, LARGE, TRAPS
from fuzzing import fuzz

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")
SEED = int(os.environ.get("TINYSQUEEZE_FUZZ_SEED", "0"))
COUNT = int(os.environ.get("TINYSQUEEZE_FUZZ", "40"))
ONNX = ("onnx-ours", "onnx-foreign")
SMALL = tuple(name for name in FORMATS if name not in (*LARGE, *ONNX))


@pytest.mark.parametrize("names", [SMALL, ONNX, LARGE], ids=["small", "onnx", "large"])
def test_nothing_gets_through(names):
    if names == ONNX:
        pytest.importorskip("onnx")
    count = max(COUNT // 4, 10) if names == LARGE else COUNT
    counts, wrong = fuzz(list(names), SEED, count)
    assert not wrong, "\n".join(map(str, wrong))
    assert counts.total() == count * len(names)
    assert counts["refused"] > counts.total() / 5
    assert counts["read"] > counts.total() / 100


@pytest.mark.parametrize("trap", TRAPS)
def test_the_fuzzer_sees_every_kind_of_fault(trap):
    counts, wrong = fuzz([trap], 0, 6)
    says = {"hang": "hang", "death": "died: -6", "wrong": "silently wrong"}.get(trap, trap)
    assert {what for _, _, what, _ in wrong} == {says}
    assert counts.keys() == {says, "read"} - ({"read"} if trap == "wrong" else set())
    assert counts.total() == 6


def test_a_number_gives_the_same_file_in_another_process():
    names = ("png", "checkpoint", "cifar-archive", "safetensors-ours", "tsq")
    program = (
        "import fuzzing, fuzz_formats, hashlib, sys\n"
        "kinds = [fuzz_formats.FORMATS[name]() for name in sys.argv[1:]]\n"
        "files = [fuzzing.case(kind, 1, number)[0] for kind in kinds for number in range(20)]\n"
        "print(hashlib.sha256(b'|'.join(files)).hexdigest(), len(set(files)))"
    )
    path = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    said = [
        subprocess.run(
            [sys.executable, "-c", program, *names], env=path, capture_output=True
        ).stdout
        for _ in range(2)
    ]
    assert said[0] == said[1]
    assert int(said[0].split()[1]) > 80
