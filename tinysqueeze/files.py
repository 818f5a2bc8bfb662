"""Write a file whole or not at all, so that a crash or a full disk never costs the old one."""

import os
import tempfile
from pathlib import Path

from tinysqueeze.errors import UserError


def write_atomically(path: str | Path, data: bytes) -> None:
    """Write beside the target, then rename: a full disk or a crash leaves the old file as it was.

    Raises UserError naming the file where it cannot be written.
    """
    path = Path(path)
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with open(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(name, 0o666 & ~_umask())
            os.replace(name, path)
        except BaseException:
            os.unlink(name)
            raise
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror or error})") from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
