"""Compiled kernels and fonts find a place, or none, where package and home cannot be written."""

import ctypes
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

import tinysqueeze
from tinysqueeze import caches

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="folders are locked Linux's way")
PACKAGE = Path(tinysqueeze.__file__).parent

COMPILE = """
import numpy as np
import tinysqueeze as ts
from tinysqueeze.network.ops import convolution
from tinysqueeze.kernels.optimiser import ema_update
convolution.fold(np.ones((1, 1)), np.zeros((1, 1, 1)), 0, 1, 1, (1, 1, 1, 1, 0, 0))
ema_update(np.zeros(8, np.float32), np.ones(8, np.float32), 0.5, 1)
import tinysqueeze.show.pictures
print("imported", "matplotlib.font_manager" in __import__("sys").modules)
"""


def without_roots_privilege() -> None:
    """Root may write everywhere; a program that has lost this capability may not."""
    drop, override = 24, 1  # PR_CAPBSET_DROP, CAP_DAC_OVERRIDE
    ctypes.CDLL(None).prctl(drop, override, 0, 0, 0)


@pytest.fixture
def locked(tmp_path):
    """The package and a home, read-only; unlocked again so that it can be removed."""
    place = tmp_path / "locked"
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(PACKAGE, place / "site" / "tinysqueeze", ignore=ignore)
    (place / "home").mkdir()
    folders = [place, *(path for path in place.rglob("*") if path.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    yield place
    for folder in folders:
        folder.chmod(0o755)


def run(locked: Path, program: str, **more: str) -> subprocess.CompletedProcess[str]:
    kept = ("PATH", "LD_LIBRARY_PATH", "LANG")
    environment = {name: os.environ[name] for name in kept if name in os.environ}
    environment |= {"PYTHONPATH": str(locked / "site"), "HOME": str(locked / "home")}
    done = subprocess.run(
        [sys.executable, "-B", "-c", program],
        env=environment | more,
        cwd=locked,
        capture_output=True,
        text=True,
        preexec_fn=without_roots_privilege,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("imported")
    return done


def test_read_only_package_without_a_home_keeps_kernels_in_a_private_folder(locked, tmp_path):
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    done = run(locked, COMPILE, TMPDIR=str(temporary))
    (private,) = temporary.glob("tinysqueeze-*")
    assert stat.S_IMODE(private.stat().st_mode) == 0o700
    kept = {path: path.stat().st_mtime_ns for path in private.rglob("*.nbc")}
    assert {path.name.split("-")[0] for path in kept} >= {"convolution.fold", "optimiser.ema"}
    assert (private / "matplotlib").is_dir()
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"tinysqueeze: compiled kernels are kept in {private}, since neither ")
    run(locked, COMPILE, TMPDIR=str(temporary))
    assert {path: path.stat().st_mtime_ns for path in private.rglob("*.nbc")} == kept


def test_numbas_own_choice_is_honoured_in_silence(locked, tmp_path):
    chosen, fonts = tmp_path / "chosen", tmp_path / "fonts"
    chosen.mkdir()
    done = run(locked, COMPILE, NUMBA_CACHE_DIR=str(chosen), MPLCONFIGDIR=str(fonts))
    assert done.stderr == ""
    assert list(chosen.rglob("*.nbc"))
    assert fonts.is_dir()


def test_nowhere_to_write_at_all_means_no_cache(locked):
    nowhere = "import tempfile; tempfile.gettempdir = lambda: '/proc'\n"
    done = run(locked, nowhere + COMPILE.replace("import tinysqueeze.show.pictures", ""))
    (line,) = done.stderr.splitlines()
    assert line.startswith("tinysqueeze: compiled kernels cannot be kept, since no folder can")


@pytest.fixture
def asked_anew(tmp_path, monkeypatch):
    """`private_folder` below this temporary folder."""
    monkeypatch.setattr(caches.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(caches.tempfile, "tempdir", str(tmp_path))
    caches.private_folder.cache_clear()
    yield tmp_path / f"tinysqueeze-{os.getuid()}"
    caches.private_folder.cache_clear()


@pytest.mark.parametrize("what", ["open to others", "a link", "a file"])
def test_a_folder_of_that_name_that_is_not_private_is_left_alone(asked_anew, tmp_path, what):
    if what == "open to others":
        asked_anew.mkdir()
        asked_anew.chmod(0o777)
    elif what == "a link":
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        asked_anew.symlink_to(tmp_path / "elsewhere")
    else:
        asked_anew.write_text("")
    found = caches.private_folder()
    assert found not in (None, asked_anew)
    assert stat.S_IMODE(found.lstat().st_mode) == 0o700
    assert not list(found.iterdir())


def test_the_private_folder_is_found_again(asked_anew):
    assert caches.private_folder() == asked_anew
    caches.private_folder.cache_clear()
    assert caches.private_folder() == asked_anew
