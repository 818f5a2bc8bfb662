"""Files: written whole or not at all, so that no crash costs the old one; JSON of bounded depth."""

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from tinysqueeze.errors import UserError

DEEPEST_JSON = 64


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
