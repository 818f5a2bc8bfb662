"""Threads default to the processors that may really be used: affinity, control groups, and what is said."""

import os
import subprocess
import sys

import pytest

from tinysqueeze import processors
from tinysqueeze.compiled import compile as compile_plan
from tinysqueeze.kernels.team import Team
from tinysqueeze.network.models import squeezenet_cifar
from tinysqueeze.training.mpi import threads_a_rank

GROUPS = {  # own groups, files below the root -> processors' worth of time
    "none": ("0::/\n", {}, None),
    "version 2, in a container": ("0::/\n", {"cpu.max": "200000 100000\n"}, 2.0),
    "version 2, no limit": ("0::/\n", {"cpu.max": "max 100000\n"}, None),
    "version 2, nested": (
        "0::/a/b\n",
        {"a/cpu.max": "150000 100000\n", "a/b/cpu.max": "max 100000\n", "cpu.max": "9 1\n"},
        1.5,
    ),
    "version 2, the host's path": ("0::/docker/4f\n", {"cpu.max": "50000 100000\n"}, 0.5),
    "version 1": (
        "4:memory:/\n3:cpu,cpuacct:/docker/4f\n",
        {"cpu,cpuacct/cpu.cfs_quota_us": "300000\n", "cpu,cpuacct/cpu.cfs_period_us": "100000\n"},
        3.0,
    ),
    "version 1, linked": (
        "3:cpuacct,cpu:/\n",
        {"cpu/cpu.cfs_quota_us": "100000\n", "cpu/cpu.cfs_period_us": "100000\n"},
        1.0,
    ),
    "version 1, no limit": (
        "3:cpu:/\n",
        {"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"},
        None,
    ),
    "damaged": ("0::/\n", {"cpu.max": "x y z\n"}, None),
    "another controller's": ("5:cpuset:/\n", {"cpuset/cpu.cfs_quota_us": "1\n"}, None),
}


@pytest.mark.parametrize("name", GROUPS)
def test_the_quota_of_control_groups(tmp_path, name):
    own, files, expected = GROUPS[name]
    (tmp_path / "own").write_text(own)
    for file, text in files.items():
        path = tmp_path / "root" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert processors.quota(tmp_path / "root", tmp_path / "own") == expected


@pytest.mark.parametrize(
    ("allowed", "granted", "expected"),
    [(8, None, 8), (8, 2.0, 2), (8, 1.5, 2), (8, 0.1, 1), (1, 4.0, 1)],
)
def test_threads_default_to_the_smallest_of_both(monkeypatch, allowed, granted, expected):
    monkeypatch.setattr(processors, "allowed_processors", lambda: list(range(allowed)))
    monkeypatch.setattr(processors, "quota", lambda: granted)
    monkeypatch.delenv("NUMBA_NUM_THREADS", raising=False)
    assert processors.usable_processors() == processors.default_threads() == expected
    assert Team().threads == compile_plan(squeezenet_cifar(), 1).threads == expected
    monkeypatch.setenv("MPI_LOCALNRANKS", "2")
    assert threads_a_rank() == max(1, expected // 2)


def test_what_is_said_counts(monkeypatch):
    monkeypatch.setenv("NUMBA_NUM_THREADS", "3")
    assert processors.default_threads() == 3
    assert Team(2).threads == 2


def test_the_second_cache_is_as_large_as_linux_says(tmp_path):
    assert processors.second_cache(tmp_path / "nowhere") == 1 << 20
    kinds = (("1", "Data", "48K"), ("1", "Instruction", "32K"), ("2", "Unified", "2048K"))
    for number, told in enumerate(kinds):
        (tmp_path / f"index{number}").mkdir()
        for name, text in zip(("level", "type", "size"), told, strict=True):
            (tmp_path / f"index{number}" / name).write_text(text + "\n")
    assert processors.second_cache(tmp_path) == 2 << 20
    (tmp_path / "index2" / "size").write_text("unknown\n")
    assert processors.second_cache(tmp_path) == 1 << 20


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="only Linux can confine a process")
def test_a_process_confined_to_one_processor_has_one_thread():
    program = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "from tinysqueeze.kernels.team import Team; print(Team().threads)"
    )
    environment = {k: v for k, v in os.environ.items() if k != "NUMBA_NUM_THREADS"}
    command = [sys.executable, "-c", program]
    assert subprocess.run(command, env=environment, capture_output=True).stdout.split() == [b"1"]
