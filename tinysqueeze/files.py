"""Files: whole or not at all, so that no crash costs the old one; the same bytes for the same content."""

import errno
import json
import os
import stat
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from tinysqueeze.errors import UserError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

DEEPEST_JSON = 64
SHORT = 40  # letters of a name, so that one beside it is not too long
PICTURES = (".png", ".svg", ".pdf")


def parse_json(text: str | bytes) -> Any:
    """`json.loads` for what comes from outside.

    Raises ValueError, as for any other fault, where it is nested deeper than what follows can take.
    """
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError(f"its JSON is nested more than {DEEPEST_JSON} deep") from None
    level = [value]
    for _ in range(DEEPEST_JSON + 1):
        level = [v for v in level if isinstance(v, dict | list)]
        if not level:
            return value
        level = [child for v in level for child in (v.values() if isinstance(v, dict) else v)]
    raise ValueError(f"its JSON is nested more than {DEEPEST_JSON} deep")


def to_safetensors(arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> bytes:
    """A safetensors file of the same bytes each time: the library writes metadata in any order."""
    data = save(dict(arrays), dict(metadata))
    start = 8 + int.from_bytes(
        data[:8], "little"
    )  # of the numbers: the header's length comes first
    header = json.loads(data[8:start])
    header["__metadata__"] = dict(sorted(metadata.items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # so that the numbers are aligned
    return len(text).to_bytes(8, "little") + text + data[start:]


def write_atomically(path: str | Path, data: bytes) -> None:
    """Write beside the target, then rename: a full disk or a crash leaves the old file as it was.

    A link stays one, and what it leads to is written; a device or a pipe is written as it is. Raises
    UserError naming the file where it cannot be written.
    """
    write_together({Path(path): data})


def write_together(contents: Mapping[Path, bytes]) -> None:
    """Write files that belong together, each as by `write_atomically`: none is renamed before all lie there.

    So a full disk leaves no mixture of old and new. Raises UserError naming the file at fault.
    """
    ready: dict[str, Path] = {}
    path = Path()
    try:
        for path, data in contents.items():
            if _is_special(path):
                path.write_bytes(data)
                continue
            target = Path(os.path.realpath(path))
            handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name[:SHORT]}.")
            ready[name] = target
            with open(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(name, 0o666 & ~_umask())
        for name, path in list(ready.items()):
            os.replace(name, path)
            del ready[name]
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        raise UserError(f"{path}: cannot be written ({reason(error)})") from error
    finally:
        for name in ready:
            os.unlink(name)


def content(path: str | os.PathLike[str]) -> bytes:
    """The bytes of a file or a pipe. Raises OSError, also for a device, which may never end."""
    mode = os.stat(path).st_mode
    if stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
        raise OSError(errno.EINVAL, "a device, not a file", str(path))
    return Path(path).read_bytes()


def check_writable(
    path: str | os.PathLike[str], endings: Sequence[str] = (), makes_folder: bool = False
) -> None:
    """Find out before the work whether a file of this name can be written in its folder, which exists.

    `endings` are those that its name may have, so that nothing is written over a file of another kind;
    with `makes_folder` the folder may be made later. Raises UserError naming the file and the reason.
    """
    path = Path(path)
    if endings and path.suffix.lower() not in endings:
        known = ", ".join(endings)
        raise UserError(f"{path}: cannot be written (its name must end in {known})")
    try:
        if path.is_dir() or not path.name:
            raise IsADirectoryError("it is a folder")
        if makes_folder:
            check_folder(path.parent)
        elif not _is_special(path):
            tempfile.TemporaryFile(dir=Path(os.path.realpath(path)).parent).close()
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be written ({reason(error)})") from None


def check_folder(path: str | os.PathLike[str]) -> None:
    """Find out whether files can be written in this folder, which may be made later.

    Raises UserError naming the folder and the reason.
    """
    path = Path(path)
    try:
        there = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
        tempfile.TemporaryFile(dir=there).close()
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be written to ({reason(error)})") from None


@contextmanager
def held_alone(folder: Path) -> Iterator[bool]:
    """Hold a folder (made if it isn't there) against other processes; False while another holds it.

    Lasts as long as the block or the process, whatever ends it. Where a system has no such locks, nobody
    is kept out.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if fcntl is None:
        yield True
        return
    held, place = True, os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            held = False
        except OSError:  # some network file systems
            pass
        yield held
    finally:
        os.close(place)


def reason(error: Exception) -> str:
    """Why a file could not be read or written, without its name."""
    return getattr(error, "strerror", None) or str(error)


def _is_special(path: Path) -> bool:
    """A device or a pipe: there is no beside to write to, and it must not be replaced."""
    return path.exists() and not path.is_file() and not path.is_dir()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
