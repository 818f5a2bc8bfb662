"""Fetch one file from the first of several mirrors that has it, and go on where a download broke off.

pooch knows hashes and caches, but starts every download from nothing; `_Resume` teaches it to ask
for the rest only, so that neither Ctrl-C nor a lost connection costs what was already fetched.
"""

import os
from collections import deque
from pathlib import Path
from typing import Any

import pooch
import requests
from tqdm.auto import tqdm

from tinysqueeze.data.remote import Remote, cache_folder
from tinysqueeze.errors import DataError

CHUNK = 2**16  # bytes
TIMEOUT = (10, 30)  # seconds: to connect, and between two chunks
TRIES = 4  # of one mirror, as long as it breaks off


def fetch(remote: Remote, folder: Path | None = None, progress: bool = True) -> Path:
    """The file in `folder` (the cache), downloaded if it is not there with the right hash yet.

    What was fetched before an interruption is kept beside it as NAME.part and completed next time.
    Raises DataError where no mirror has it: lists what was tried, and how to do without a network.
    """
    folder = folder or cache_folder()
    failures: list[str] = []
    queue, again = deque(remote.mirrors), []
    while queue:
        url = queue.popleft()
        download = _Resume(remote, folder / f"{remote.name}.part", progress)
        try:
            return Path(
                pooch.retrieve(url, remote.sha256, remote.name, folder, downloader=download)
            )
        except (OSError, ValueError) as error:  # ValueError is pooch's word for a wrong hash
            failures.append(f"{url} ({_short(error)})")
            if not isinstance(error, OSError) and download.resumed and url not in again:
                again.append(url)  # the beginning, from elsewhere, may have been what was wrong
                queue.append(url)
    raise DataError(
        f"cannot download {remote.name}: {'; '.join(failures)}. "
        f"Without a network: put {remote.name} (hash {remote.sha256}) into {folder}, "
        f"or give its path instead"
    )


class _Resume:
    """A downloader for pooch that appends to a partial file and moves it into place when complete."""

    def __init__(self, remote: Remote, partial: Path, progress: bool) -> None:
        self.remote, self.partial, self.progress = remote, partial, progress
        self.resumed = False

    def __call__(self, url: str, output_file: str, pooch: Any) -> None:
        with tqdm(
            desc=f"{self.remote.name} from {url.split('/')[2]}",
            total=self.remote.size,
            unit="B",
            unit_scale=True,
            unit_divisor=1024,
            disable=not self.progress,
        ) as bar:
            for attempt in range(1, TRIES + 1):
                try:
                    self._append(url, bar)
                    break
                except requests.HTTPError:
                    raise  # the mirror has said no: asking again does not help
                except requests.RequestException:
                    if attempt == TRIES:
                        raise
        os.replace(self.partial, output_file)

    def _append(self, url: str, bar: Any) -> None:
        """Fetch what the partial file lacks. Raises requests' errors; what came is then kept."""
        have = self.partial.stat().st_size if self.partial.exists() else 0
        self.resumed = self.resumed or have > 0
        if have == self.remote.size:
            return  # stopped before it was moved into place; its hash will tell
        if have > self.remote.size:
            have = 0
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
        with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
            response.raise_for_status()
            if not response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
                have = 0  # this server only sends the whole
            bar.reset(self.remote.size)
            bar.update(have)
            with open(self.partial, "r+b" if have else "wb") as file:
                file.seek(have)
                for chunk in response.iter_content(CHUNK):
                    have += file.write(chunk)
                    bar.update(len(chunk))
                    if have > self.remote.size:
                        break
        if have > self.remote.size:
            self.partial.unlink()
            raise requests.HTTPError("sends more bytes than the file has")
        if have < self.remote.size:
            raise requests.ConnectionError(f"broke off after {have:,} bytes")


def _short(error: Exception) -> str:
    """The gist of an error in one line."""
    if isinstance(error, ValueError) and not isinstance(error, OSError):
        return "wrong hash"
    status = getattr(getattr(error, "response", None), "status_code", None)
    return f"HTTP {status}" if status else f"{type(error).__name__}: {str(error)[:100]}"
