"""Whatever is typed: no traceback, an exit status of 0, 1 or 2, and one line that says what is wrong."""

import os
import resource
import shutil
from pathlib import Path

import pytest
from command_lines import Said, furnish, generated

from tinysqueeze.data import download


@pytest.fixture
def place(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("TINYSQUEEZE_CACHE", str(tmp_path_factory.mktemp("cache")))

    def refused(*args, **kwargs):
        raise download.requests.ConnectionError("no network in tests")

    monkeypatch.setattr(download.requests, "get", refused)
    made = furnish(tmp_path_factory.mktemp("place"))
    monkeypatch.chdir(made.root / "empty")
    return made


def test_generated_command_lines(place, request):
    """`pytest tests/test_command_lines.py --lines 1000 -s` tries so many, and tells every fault."""
    count = request.config.getoption("--lines") or 60
    before = {path.name for path in place.root.iterdir()}
    faults, statuses = [], []
    for seed in range(count):
        said = Said(generated(place, seed))
        statuses.append(said.status)
        if said.fault:
            faults.append(f"seed {seed}: {said}")
        for path in place.root.iterdir():
            if path.name not in before:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    told = {status: statuses.count(status) for status in sorted(set(statuses))}
    print(f"{count} command lines, {len(faults)} faults; by exit status: {told}")
    assert not faults, "\n\n".join(faults[:40])
    assert os.path.exists("/dev/null")
    assert not os.path.isfile("/dev/null")


LISTED = [
    ["train", "--seed=-1"],
    ["train", "--seed", "nan"],
    ["train", "--threads", "9" * 30],
    ["train", "--threads", "0"],
    ["train", "--pad=-1"],
    ["train", "--lr", "nan"],
    ["train", "--from="],
    ["train", "--batch-size=--"],
    ["train", "--input-size", "9" * 30],
    ["train", "--set", "stem_filters=0"],
    ["compress", "w.net", "-o", "out.tsq", "--target-kb", "0"],
    ["compress", "w.net", "-o", "out.tsq", "--target-kb=-1"],
    ["compress", "w.net", "-o", "out.tsq", "--target-kb", "nan"],
    ["predict", ""],
    ["predict", "--weights=", "x.png"],
    ["predict", "x.png", "--top", "0"],
    ["evaluate", "w.net", "--batch-size", "0"],
    ["gradcheck", "--seed=-1"],
    ["summary", "--batch-size", "-3"],
    ["nothing"],
    [],
]


@pytest.mark.parametrize("argv", LISTED, ids=" ".join)
def test_a_wrong_value_is_one_line_and_status_2(argv):
    said = Said(argv)
    assert (said.status, said.fault) == (2, "")
    assert said.err.count("\n") == 1


ENDLESS = [
    ["decompress", "/dev/zero", "-o", "out.net"],
    ["inspect", "/dev/zero"],
    ["predict", "/dev/zero", "--weights", "W", "--classes", "/dev/zero"],
    ["predict", "/dev/zero", "--weights", "W", "--preprocess", "/dev/zero"],
    ["results", "--add", "-o", "/dev/zero"],
    ["bench", "--read", "/dev/zero"],
    ["predict", "/dev/zero", "--weights", "W"],
    ["train", "--data", "/dev/zero"],
    ["train", "--resume", "/dev/zero"],
    ["evaluate", "W", "--data", "/dev/zero"],
    ["page", "W", "--images", "/dev/zero", "-o", "out.html"],
    ["ladder", "--data", "/dev/zero"],
]


@pytest.mark.parametrize("argv", ENDLESS, ids=" ".join)
def test_a_device_is_not_read_to_its_end(place, argv):
    argv = [str(place.root / "net.safetensors") if word == "W" else word for word in argv]
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + (1 << 30), hard))
    try:
        said = Said(argv)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    assert (said.status, said.fault) == (1, "")
    assert "memory" not in said.err.lower()


ALLOWED = [
    ["summary", "squeezenet_cifar", "--set", "pools=1,2"],
    ["summary", "--set", "dropout=.3"],
]


@pytest.mark.parametrize("argv", ALLOWED, ids=" ".join)
def test_what_looks_odd_and_is_right(argv):
    assert (Said(argv).status, Said(argv).fault) == (0, "")


@pytest.mark.parametrize(
    "content", ["[1, 2]", "{}", '{"0": 1}', '{"0": [1]}', '{"0": "ab"', "{" * 9]
)
def test_a_list_of_classes_that_is_none(place, content):
    (place.root / "classes.json").write_text(content)
    argv = place.line("predict") + ["--classes", str(place.root / "classes.json")]
    said = Said(["predict", *argv])
    assert said.fault == ""
    assert said.status == 1
