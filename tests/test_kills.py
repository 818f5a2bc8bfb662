"""Processes ended at any moment, by kill -9, SIGINT and SIGTERM: outputs whole or absent, and said.

`pytest tests/test_kills.py -m slow --kills 100 -s` ends so many by each signal.
"""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tinysqueeze.cli import main
from tinysqueeze.errors import CheckpointError
from tinysqueeze.network.models import squeezenet_cifar
from tinysqueeze.network.params import initialise
from tinysqueeze.training import checkpoint
from tinysqueeze.weights import open_weights
from tinysqueeze.weights.exporting import export

SIGNALS = (signal.SIGKILL, signal.SIGINT, signal.SIGTERM)
SMALL = [
    "--set", "base_e=8", "--set", "incr_e=4", "--set", "stem_filters=6", "--set", "squeeze_ratio=0.25",
    "--set", "fires=3", "--set", "pools=[1,3]", "--batch-size", "16", "--epochs", "30",
]  # fmt: skip
SERVER = """
import json, os, signal, sys
warm, sys.argv = sys.argv[1], ["tinysqueeze"]
from tqdm import tqdm
from tinysqueeze.cli import main
tqdm.monitor_interval = 0  # no thread of its own, which a fork would not have
for argv in json.loads(warm):
    main(argv)
signal.signal(signal.SIGINT, signal.SIG_IGN)  # until a child can say that it came
for line in sys.stdin:
    argv, out = json.loads(line)
    child = os.fork()
    if not child:
        for stream, number in ((out, 1), (out + ".err", 2)):
            os.dup2(os.open(stream, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
        sys.argv = ["tinysqueeze", *argv]
        try:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            status = main()
            sys.stdout.flush()
        except BaseException as error:  # as Python itself would end
            sys.excepthook(*sys.exc_info())
            status = 130 if isinstance(error, KeyboardInterrupt) else 99
        os._exit(status)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
SAID = {
    "terminated; every file is whole, or as it was",
    "interrupted; every file is whole, or as it was",
    "interrupted while starting",
}


@dataclass
class Task:
    """A command line that writes `out`, what a whole one is, and how long all of it takes here."""

    argv: list[str]
    out: Path
    check: Callable[[Path], object]
    seconds: float = 0.0


class Server:
    """A process that has everything loaded, and forks for each command line: kills then fall on work."""

    def __init__(self, said: Path, warm: list[list[str]]) -> None:
        self.said = said
        self.process = subprocess.Popen(
            [sys.executable, "-c", SERVER, json.dumps(warm)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=os.environ | {"NUMBA_NUM_THREADS": "1"},
        )

    def run(
        self, argv: list[str], after: float | None = None, number: int = 0
    ) -> tuple[int, str, str]:
        """One command line, ended after so many seconds; its status and both outputs."""
        print(json.dumps([argv, str(self.said)]), file=self.process.stdin, flush=True)
        while not (line := self.process.stdout.readline().strip()).isdecimal():
            assert line or self.process.poll() is None  # what the warming up has printed
        if after is not None:
            time.sleep(after)
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(line), number)
        status = int(self.process.stdout.readline())
        return status, self.said.read_text(), Path(f"{self.said}.err").read_text()


def last_line(out: str, err: str) -> str:
    """What was said at the end, progress bars aside."""
    lines = [line for line in (out + err).replace("\r", "\n").splitlines() if line.strip()]
    told = [
        line for line in lines if line.startswith(("tinysqueeze: ", "stopped", "test accuracy"))
    ]
    return told[-1].removeprefix("tinysqueeze: ") if told else ""


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("killed")


@pytest.fixture(scope="module")
def tasks(folder, root) -> dict[str, Task]:
    weights, picture = root / "net.safetensors", root / "0.png"
    model = squeezenet_cifar(
        base_e=8, incr_e=4, stem_filters=6, squeeze_ratio=0.25, fires=3, pools=(1, 3), input_size=16,
        classes=2,
    )  # fmt: skip
    export((model, initialise(model, 0)), weights)
    Image.fromarray(np.full((16, 16, 3), 90, np.uint8)).save(picture)
    readable = open_weights

    def is_picture(path: Path) -> None:
        with Image.open(path) as image:
            image.load()

    train = ["train", "--data", str(folder), *SMALL, "--out", str(root / "run")]
    tsq, onnx, sheet = root / "out.tsq", root / "out.onnx", root / "sheet.png"
    predict = ["predict", *[str(picture)] * 50, "--weights", str(weights), "--out", str(sheet)]
    return {
        "train": Task(train, root / "run", lambda path: None),
        "compress": Task(["compress", str(weights), "-o", str(tsq), "--bits", "5"], tsq, readable),
        "export": Task(["export", str(weights), str(onnx)], onnx, readable),
        "predict": Task(predict, sheet, is_picture),
    }


def assert_whole_or_absent(task: Task) -> None:
    """The output, if it is there; and nothing beside it but what kill -9 may leave hidden."""
    if task.out.exists():
        task.check(task.out)
        task.out.unlink()


def assert_said(name: str, number: int, status: int, out: str, err: str) -> None:
    """A last line says what happened, and the status which signal it was."""
    said = f"{name}, signal {number}, status {status}: {last_line(out, err)!r}\n{err[-800:]}"
    if number == signal.SIGKILL:
        assert status in (-signal.SIGKILL, 0), said
        return
    assert "Traceback" not in err, said
    assert status in (0, 128 + number, -number), said
    line = last_line(out, err)
    if status == 0:
        return
    if number == signal.SIGTERM and status == -number:  # Python itself was still starting
        return
    assert line in SAID or line.startswith("stopped; go on with: tinysqueeze train"), said


def bits(folder: Path) -> dict[str, bytes]:
    """A run's arrays."""
    return {name: array.tobytes() for name, array in checkpoint.read(folder).arrays.items()}


def removed(folder: Path) -> None:
    for path in folder.iterdir() if folder.exists() else ():
        path.unlink()


@pytest.mark.slow
def test_killed_at_random_moments(tasks, root, request):
    count = request.config.getoption("--kills") or 4
    rng, ends = random.Random(0), {}
    server = Server(root / "said", [task.argv for task in tasks.values()])
    server.run(["summary", "squeezenet_cifar"])
    removed(tasks["train"].out)
    for task in tasks.values():
        started = time.perf_counter()
        status, out, err = server.run(task.argv)
        assert status == 0, err
        task.seconds = time.perf_counter() - started
    whole = bits(tasks["train"].out)
    for kill in range(count):
        for number in SIGNALS:
            name = list(tasks)[kill % len(tasks)]
            task = tasks[name]
            removed(task.out) if name == "train" else task.out.unlink(missing_ok=True)
            status, out, err = server.run(task.argv, rng.uniform(0, task.seconds), number)
            assert_said(name, number, status, out, err)
            if status == 0:  # it was done before: the machine has become faster
                task.seconds *= 0.9
            ends[f"{name} {status}"] = ends.get(f"{name} {status}", 0) + 1
            if name != "train":
                assert_whole_or_absent(task)
                continue
            resumed = (task.out / checkpoint.NAME).exists()
            again = ["train", "--resume", str(task.out)] if resumed else task.argv
            assert server.run(again)[0] == 0
            assert bits(task.out) == whole
            ends[f"train, resumed {resumed}"] = ends.get(f"train, resumed {resumed}", 0) + 1
        if kill % 5 == 4:
            print(f"{kill + 1} kills by each: {dict(sorted(ends.items()))}", flush=True)
    server.process.communicate(timeout=60)
    print(f"{count} kills by each of {len(SIGNALS)} signals: {dict(sorted(ends.items()))}")


def test_a_file_half_written_is_not_taken_for_whole(tasks):
    """What the checks above would find: each output, cut short, is refused."""
    pytest.importorskip("onnx")
    assert main(tasks["compress"].argv) == main(tasks["export"].argv) == 0
    for name in ("compress", "export"):
        task = tasks[name]
        data = task.out.read_bytes()
        task.out.write_bytes(data[: len(data) // 2])
        with pytest.raises(Exception, match=r"."):
            assert_whole_or_absent(task)
        task.out.unlink()
    with pytest.raises(CheckpointError):
        checkpoint.read(tasks["train"].out / "nothing")
