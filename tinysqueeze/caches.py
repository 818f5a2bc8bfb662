"""Where caches may lie when neither the package's folder nor the user's own can be written.

So it is in many a container: the package belongs to root, and the user has no home. Compiled kernels
and Matplotlib's list of fonts then go to a private temporary folder, or nowhere; it is said once.
"""

import functools
import logging
import os
import stat
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from numba.core.caching import FunctionCache, _CacheLocator, _SourceFileBackedLocatorMixin

PACKAGE = Path(__file__).parent
LOG = logging.getLogger("tinysqueeze")
SAVE = FunctionCache.save_overload


def find_caches() -> None:
    """Let Numba and Matplotlib fall back to the private folder; nothing changes where they need not."""
    if FunctionCache.save_overload is SAVE:
        FunctionCache.save_overload = _save_where_there_is_room
    locators = FunctionCache._impl_class._locator_classes
    if PrivateCache not in locators:
        locators.append(PrivateCache)  # the last one asked, after NUMBA_CACHE_DIR and the user's
    if not os.environ.get("MPLCONFIGDIR") and not _is_writable(_matplotlibs_folder()):
        folder = private_folder()
        if folder is not None:
            os.environ["MPLCONFIGDIR"] = str(folder / "matplotlib")


class PrivateCache(_SourceFileBackedLocatorMixin, _CacheLocator):
    """Numba's word for a place where compiled functions are kept: ours, for our own functions."""

    def __init__(self, function: Callable[..., Any], file: str, folder: Path) -> None:
        self._py_file, self._lineno = file, function.__code__.co_firstlineno
        self._folder = folder / "numba" / self.get_suitable_cache_subpath(file)

    def get_cache_path(self) -> str:
        """The folder of this function's file."""
        return str(self._folder)

    @classmethod
    def from_function(cls, py_func: Callable[..., Any], py_file: str) -> Self | None:
        """The place for a function of this package, None for any other's."""
        if not Path(py_file).is_relative_to(PACKAGE):
            return None
        folder = private_folder()
        if folder is None:
            _say_once(
                "compiled kernels cannot be kept, since no folder can be written: each start "
                "compiles anew; set NUMBA_CACHE_DIR to a folder that can be written"
            )
            FunctionCache.save_overload = _forget
            return cls(py_func, py_file, PACKAGE)
        _say_once(
            f"compiled kernels are kept in {folder}, since neither {PACKAGE} nor the user's folder for "
            "caches can be written; NUMBA_CACHE_DIR chooses another"
        )
        return cls(py_func, py_file, folder)


@functools.cache
def private_folder() -> Path | None:
    """A temporary folder that this user alone can read or write; None where there can be none.

    It has a fixed name, so that the next start finds it. What lies in it is run as code, so a folder of
    that name that is another's, or open to others, is left alone, and a fresh one made.
    """
    user = os.getuid() if hasattr(os, "getuid") else 0  # on Windows the temporary folder is private
    try:
        folder = Path(tempfile.gettempdir()) / f"tinysqueeze-{user}"
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
        open_to_others = sys.platform != "win32" and found.st_mode & 0o077
        if not stat.S_ISDIR(found.st_mode) or open_to_others or found.st_uid not in (user, 0):
            return Path(tempfile.mkdtemp(prefix="tinysqueeze-"))
        return folder if _is_writable(folder) else None
    except FileExistsError:  # a file has that name
        return Path(tempfile.mkdtemp(prefix="tinysqueeze-"))
    except OSError:
        return None


def _matplotlibs_folder() -> Path | None:
    """Where Matplotlib keeps its list of fonts on its own account."""
    try:
        if sys.platform.startswith(("linux", "freebsd")):
            home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
            return Path(home) / "matplotlib"
        return Path.home() / ".matplotlib"
    except RuntimeError:  # a user without a home
        return None


def _is_writable(folder: Path | None) -> bool:
    """Whether files can be written there; makes the folder, as those who want it would."""
    if folder is None:
        return False
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        return False
    return True


@functools.cache
def _say_once(line: str) -> None:
    LOG.warning("tinysqueeze: %s", line)


def _save_where_there_is_room(cache: FunctionCache, signature: Any, result: Any) -> None:
    """Keep a compiled function; a full disk costs the next start's time, not this command."""
    try:
        SAVE(cache, signature, result)
    except OSError as error:
        _say_once(
            f"compiled kernels could not be kept ({error.strerror}): the next start compiles anew"
        )


def _forget(cache: FunctionCache, signature: Any, result: Any) -> None:
    """In place of saving a compiled function where it cannot be saved."""
