"""Files: whole or not at all, so that no crash costs the old one; the same bytes for the same content."""

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

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
