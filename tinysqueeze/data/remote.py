"""What a file on the network is, and where it is kept here; `download` fetches it."""

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Remote:
    """A file on the network: its name here, its size in bytes, its hash, and where it lies.

    The hash is the SHA-256, or another one with its name before it: "md5:c58f...".
    """

    name: str
    size: int
    sha256: str
    mirrors: tuple[str, ...]


def cache_folder() -> Path:
    """Where downloads are kept: $TINYSQUEEZE_CACHE, or the system's folder for caches."""
    import pooch

    return Path(os.environ.get("TINYSQUEEZE_CACHE") or pooch.os_cache("tinysqueeze"))
