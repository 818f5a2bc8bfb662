"""What is printed and written where that is hard: full disks, readers that leave, encodings, signals."""

import io
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tinysqueeze.cli import main
from tinysqueeze.cli.output import Lasting
from tinysqueeze.errors import UserError
from tinysqueeze.files import check_folder, check_writable, write_atomically
from tinysqueeze.network.models import squeezenet_cifar
from tinysqueeze.network.params import initialise
from tinysqueeze.show.pictures import style
from tinysqueeze.show.pictures.style import Picture
from tinysqueeze.training import checkpoint
from tinysqueeze.weights.exporting import export

SMALL = [
    "--set", "base_e=8", "--set", "incr_e=4", "--set", "stem_filters=6", "--set", "squeeze_ratio=0.25",
    "--set", "fires=3", "--set", "pools=[1,3]", "--batch-size", "16",
]  # fmt: skip
TINY = dict(base_e=8, incr_e=4, stem_filters=6, squeeze_ratio=0.25, fires=3, pools=(1, 3))


def command(*argv: object, **more: object) -> subprocess.Popen[str]:
    """The program itself, as from a shell."""
    environment = os.environ | dict(more.pop("environment", {}))
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | more
    argv = [sys.executable, "-m", "tinysqueeze", *map(str, argv)]
    return subprocess.Popen(argv, env=environment, text=True, errors="replace", **streams)


def spoken(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Exit status and both outputs; none of them is a traceback."""
    out, err = process.communicate(timeout=240)
    assert "Traceback" not in (out or "") + (err or "")
    assert "Exception ignored" not in (err or "")
    return process.returncode, out or "", err or ""


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "net.safetensors"
    model = squeezenet_cifar(**TINY, input_size=16, classes=2)
    export((model, initialise(model, 0)), path)
    return path


# --- files: whole or not at all, and asked before the work ------------------------------------


def test_a_link_stays_one_and_a_device_is_never_replaced(tmp_path):
    (tmp_path / "real").write_bytes(b"old")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    write_atomically(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"new"
    os.mkfifo(tmp_path / "pipe")
    reader = subprocess.Popen(["cat", tmp_path / "pipe"], stdout=subprocess.PIPE)
    check_writable(tmp_path / "pipe")
    write_atomically(tmp_path / "pipe", b"through")
    assert reader.communicate(timeout=60)[0] == b"through"
    assert (tmp_path / "pipe").is_fifo()


@pytest.mark.parametrize("name", ["n" * 300, "a\0b", ".", "", "no/such/folder", "file/inside"])
def test_a_name_that_cannot_be_written_is_found_before_the_work(tmp_path, name):
    (tmp_path / "file").write_text("")
    for act in (check_writable, lambda path: write_atomically(path, b"")):
        with pytest.raises(UserError, match="cannot be written"):
            act(tmp_path / name if name else "")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_folder_that_cannot_be_made_is_found_before_the_work(tmp_path):
    (tmp_path / "file").write_text("")
    check_folder(tmp_path / "new" / "below")
    assert not (tmp_path / "new").exists()
    for place in (tmp_path / "file", tmp_path / "file" / "below", tmp_path / ("n" * 300)):
        with pytest.raises(UserError, match="cannot be written to"):
            check_folder(place)


def test_a_picture_is_whole_or_not_there(tmp_path, monkeypatch):
    path = tmp_path / "drawn.png"
    Picture(1, 1, "first").save(path)
    before = path.read_bytes()
    monkeypatch.setattr(style, "write_atomically", _full)
    with pytest.raises(UserError, match="No space"):
        Picture(2, 2, "second").save(path)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["drawn.png"]


def _full(path: object, data: bytes) -> None:
    raise UserError(f"{path}: cannot be written (No space left on device)")


OUTPUTS = {  # a command line whose OUT is where nothing can be written: a file in a folder's place
    "train": ["train", "--out", "OUT"],
    "predict": ["predict", "x.png", "--out", "OUT"],
    "evaluate --plot": ["evaluate", "W", "--plot", "OUT"],
    "evaluate --answers": ["evaluate", "W", "--answers", "OUT"],
    "export": ["export", "W", "OUT"],
    "export --c": ["export", "W", "--c", "OUT"],
    "compress": ["compress", "W", "-o", "OUT"],
    "decompress": ["decompress", "W", "-o", "OUT"],
    "inspect": ["inspect", "W", "--out", "OUT"],
    "bench": ["bench", "--quick", "--plot", "OUT"],
    "bench --scaling": ["bench", "--quick", "--scaling", "OUT"],
    "communication": ["communication", "--figure", "OUT"],
    "experiment": ["experiment", "squeeze-ratio", "--out", "OUT"],
    "ladder": ["ladder", "-o", "OUT"],
    "page": ["page", "W", "-o", "OUT"],
    "lessons": ["lessons", "--results", "W", "-o", "OUT"],
    "results": ["results", "-o", "OUT"],
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_an_output_that_cannot_be_written_is_found_before_the_work(tmp_path, capsys, name):
    (tmp_path / "file").write_text("")
    out = str(
        tmp_path / "file" / "out.png" if "export" not in name else tmp_path / "file" / "o.onnx"
    )
    assert main([word.replace("OUT", out) for word in OUTPUTS[name]]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "cannot be written" in line
    assert str(tmp_path / "file") in line


@pytest.mark.parametrize("ending", [".tsq", ".csv", ".png", ".safetensors"])
def test_a_folder_in_the_place_of_a_file_is_found_before_the_work(tmp_path, capsys, ending):
    commands = {
        ".tsq": ["compress"], ".csv": ["results", "evaluate --answers"], ".png": ["predict"],
        ".safetensors": ["export", "decompress"],
    }[ending]  # fmt: skip
    (tmp_path / ("out" + ending)).mkdir()
    for name in commands:
        out = str(tmp_path / ("out" + ending))
        assert main([word.replace("OUT", out) for word in OUTPUTS[name]]) == 1
        assert "cannot be written (it is a folder)" in capsys.readouterr().err
    assert not list((tmp_path / ("out" + ending)).iterdir())


@pytest.mark.parametrize("command", ["compress", "decompress", "inspect", "predict"])
def test_nothing_is_written_over_a_file_of_another_kind(tmp_path, capsys, command):
    notes = tmp_path / "notes.txt"
    notes.write_text("mine")
    assert main([word.replace("OUT", str(notes)) for word in OUTPUTS[command]]) == 1
    assert "notes.txt: cannot be written (its name must end in ." in capsys.readouterr().err
    assert notes.read_text() == "mine"


def test_training_on_a_full_disk_says_the_accuracy_first(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("tinysqueeze.show.pictures.style.write_atomically", _full)
    out = tmp_path / "run"
    assert main(["train", "--data", str(folder), "--out", str(out), "--epochs", "1", *SMALL]) == 1
    said = capsys.readouterr()
    assert "test accuracy" in said.out
    assert said.err.count("could not be drawn") == 3
    assert {p.name for p in out.iterdir()} == {checkpoint.NAME, "history.csv", "summary.json"}
    monkeypatch.setattr("tinysqueeze.training.run_folder.write_atomically", _full)
    assert main(["train", "--resume", str(out)]) == 1
    said = capsys.readouterr()
    assert "test accuracy" in said.out
    assert said.err.splitlines()[-1].endswith("cannot be written (No space left on device)")
    assert main(["evaluate", str(out), "--plot", str(tmp_path / "plots")]) == 1
    said = capsys.readouterr()
    assert "top-1" in said.out
    assert said.err.count("could not be drawn") == 4


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="no limit of a file's size")
def test_a_disk_that_is_really_full_costs_no_file(weights, tmp_path):
    """A file may grow to 1,000 bytes: the network needs more and ends in one line, kernels are not kept."""
    files, kernels = tmp_path / "files", tmp_path / "kernels"
    files.mkdir()
    (files / "small.tsq").write_bytes(b"old")

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000, 1_000))

    argv = ["compress", weights, "-o", files / "small.tsq"]
    cold = {"NUMBA_CACHE_DIR": str(kernels)}
    status, _, err = spoken(command(*argv, preexec_fn=limit, environment=cold))
    assert status == 1
    assert err.count("compiled kernels could not be kept (File too large)") == 1
    assert "cannot be written (File too large)" in err.splitlines()[-1]
    assert [(p.name, p.read_bytes()) for p in files.iterdir()] == [("small.tsq", b"old")]


@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="no limit of a file's size")
@pytest.mark.parametrize("what", ["c", "lessons"])
def test_files_that_belong_together_are_all_written_or_none(weights, tmp_path, what):
    """Of several the first fit and a later one does not: no header beside old weights, no empty table."""
    out = tmp_path / "out"
    out.mkdir()
    argv = {"c": ["export", weights, "--c", out], "lessons": ["lessons", out]}[what]

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, 2_000))

    status, _, err = spoken(command(*argv, preexec_fn=limit))
    assert status == 1
    assert err.splitlines()[-1].startswith(f"tinysqueeze: {out}")
    assert err.endswith("cannot be written (File too large)\n")
    assert [path for path in out.rglob("*") if path.is_file()] == []


def test_what_cannot_be_read_is_not_called_corrupt(tmp_path, capsys):
    (tmp_path / "run" / checkpoint.NAME).mkdir(
        parents=True
    )  # root may read any file, but no folder
    (tmp_path / "net.safetensors").mkdir()
    long = str(tmp_path / ("n" * 300))
    for argv in (
        ["evaluate", str(tmp_path / "run"), "--data", "builtin"],
        ["train", "--resume", str(tmp_path / "run")],
        ["export", str(tmp_path / "net.tsq"), "out.onnx"],
        ["predict", long, "--weights", long],
        ["export", f"{long}.onnx", str(tmp_path / "out.onnx")],
        ["train", "--resume", long],
        ["inspect", str(tmp_path)],
    ):
        assert main(argv) == 1, argv
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("tinysqueeze: ")
        assert "corrupt" not in line


# --- streams ----------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "latin-1", "utf-8"])
def test_an_encoding_without_our_letters(encoding):
    status, out, err = spoken(
        command("summary", "squeezenet_cifar", environment={"PYTHONIOENCODING": encoding})
    )
    assert (status, err) == (0, "")
    lines = out.encode(errors="replace").decode("ascii", "replace").splitlines()
    assert len(lines) > 20
    if encoding != "utf-8":
        assert set(out.splitlines()[1]) == {"-"}


def test_a_full_device_is_one_line():
    with open("/dev/full", "w") as full:
        status, _, err = spoken(command("summary", "squeezenet_cifar", stdout=full))
    assert (status, err) == (1, "tinysqueeze: the output: No space left on device\n")


def test_no_output_at_all():
    status, _, _ = spoken(command("summary", "squeezenet_cifar", preexec_fn=_close))
    assert status == 0


def _close() -> None:
    os.close(1)
    os.close(2)


def test_a_reader_that_leaves_ends_a_mere_listing():
    read, write = os.pipe()
    os.close(read)
    process = command("summary", "squeezenet_cifar", stdout=write)
    os.close(write)
    assert spoken(process) == (0, "", "")


def test_a_training_goes_on_when_its_reader_leaves(folder, tmp_path):
    """`tinysqueeze train | head -1`: all that it leaves is there, and status 0 says so."""
    out = tmp_path / "run"
    argv = ["train", "--data", folder, "--out", out, "--epochs", "2", *SMALL]
    read, write = os.pipe()
    os.close(read)
    process = command(*argv, stdout=write)
    os.close(write)
    status, _, err = spoken(process)
    assert status == 0
    assert "no more is printed (its reader has left); going on" in err
    assert {"history.csv", "summary.json", "predictions.png"} <= {p.name for p in out.iterdir()}


def test_a_command_that_leaves_files_outlasts_a_full_output(weights, tmp_path):
    with open("/dev/full", "w") as full:
        process = command("compress", weights, "-o", tmp_path / "small.tsq", stdout=full)
        status, _, err = spoken(process)
    assert status == 1
    assert "no more is printed (No space left on device)" in err
    assert (tmp_path / "small.tsq").stat().st_size > 1000


def test_lasting_passes_on_what_can_be_written():
    stream = io.StringIO()
    lasting = Lasting(stream)
    assert lasting.write("words") == 5
    lasting.flush()
    assert (stream.getvalue(), lasting.trouble, lasting.isatty()) == ("words", None, False)


# --- signals, and without a compiler ------------------------------------------------------------


STARTING = """
import sys
sys.argv = ["tinysqueeze", "gradcheck", "squeezenet1_0"]
print("begun", flush=True)
from tinysqueeze.cli import main
sys.exit(main())
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("seconds", [0.2, 0.5])
def test_a_signal_while_starting_is_one_line(number, seconds):
    process = subprocess.Popen(
        [sys.executable, "-c", STARTING],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "begun\n"
    time.sleep(seconds)
    process.send_signal(number)
    status, out, err = spoken(process)
    assert status in (-number, 128 + number)
    assert out == ""
    assert len(err.splitlines()) <= 1
    if number == signal.SIGINT:
        assert "interrupted" in err


def test_ctrl_c_in_an_import_from_c_is_one_line():
    """There it comes to be told first, and then as an ImportError."""
    code = (
        "import sys\nsys.argv = ['tinysqueeze']\nimport tinysqueeze.starting\n"
        "sys.excepthook(KeyboardInterrupt, KeyboardInterrupt(), None)\n"
        "raise ImportError('numpy._core.multiarray failed to import')"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
    status, _, err = spoken(process)
    assert status in (-signal.SIGINT, 128 + signal.SIGINT)
    assert err == "tinysqueeze: interrupted while starting\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_training_saves_and_says_so(folder, tmp_path, number):
    out = tmp_path / "run"
    process = command("train", "--data", folder, "--out", out, "--epochs", "5000", *SMALL)
    until = time.monotonic() + 120
    while not (out / checkpoint.NAME).exists():
        assert time.monotonic() < until
        time.sleep(0.02)
    process.send_signal(number)
    status, said, _ = spoken(process)
    assert status == 128 + number
    assert said.splitlines()[-1] == f"stopped; go on with: tinysqueeze train --resume {out}"
    assert checkpoint.read(out).meta["counters"]["epoch"] >= 1


def test_a_signal_while_predicting_is_said(weights, tmp_path):
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(tmp_path / "0.png")
    picture = [tmp_path / "0.png"] * 3000
    process = command("predict", *picture, "--weights", weights)
    process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    status, _, err = spoken(process)
    assert status == 143
    assert err.splitlines()[-1] == "tinysqueeze: terminated; every file is whole, or as it was"


STRUCK = """
import os, signal, sys, time
sys.argv = ["tinysqueeze"]
import tinysqueeze.cli as cli

def strike():
    os.kill(os.getpid(), int(sys.argv[1]))
    time.sleep(0.01)

class Falls:
    def __del__(self):
        strike()

def destructor():
    Falls()
    time.sleep(60)

def cleanup():  # as of a lock that the signal found half taken
    try:
        strike()
    finally:
        raise RuntimeError("cannot release un-acquired lock")

cli._run = lambda argv: PLACE()
sys.argv = ["tinysqueeze", "NUMBER"]
sys.exit(cli.main())
"""


@pytest.mark.parametrize("place", ["destructor", "cleanup"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_within_a_destructor_or_a_cleanup_is_not_lost(number, place):
    program = STRUCK.replace("NUMBER", str(int(number))).replace("PLACE", place)
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    status, _, err = spoken(process)
    assert status == 128 + number
    assert err.splitlines()[-1].endswith("; every file is whole, or as it was")


def test_predict_without_a_compiler(weights, tmp_path):
    Image.fromarray(np.full((20, 20, 3), 90, np.uint8)).save(tmp_path / "0.png")
    argv = ["predict", tmp_path / "0.png", "--weights", weights, "--json"]
    plain, compiled = (
        spoken(command(*argv, environment={"NUMBA_DISABLE_JIT": off})) for off in ("1", "0")
    )
    assert plain[0] == compiled[0] == 0
    assert plain[1].count("probability") == compiled[1].count("probability") == 2
