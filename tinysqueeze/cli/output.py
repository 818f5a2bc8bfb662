"""What a command prints and draws, wherever that goes: any encoding, a full disk, a reader that has left."""

import codecs
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from tinysqueeze.errors import UserError
from tinysqueeze.files import reason

PLAIN = {
    "─": "-",
    "–": "-",
    "—": "-",
    "×": "x",
    "²": "2",
    "→": "->",
    "≥": ">=",
    "≤": "<=",
    "µ": "u",
}


def _in_plain_letters(error: UnicodeError) -> tuple[str, int]:
    """What an encoding has no letter for, in one that all have: a codecs error handler."""
    assert isinstance(error, UnicodeEncodeError)
    return "".join(PLAIN.get(c, "?") for c in error.object[error.start : error.end]), error.end


codecs.register_error("tinysqueeze", _in_plain_letters)


class Lasting:
    """Standard output for a command that leaves files: where it fails, the command goes on in silence.

    `trouble` is then the error: a reader that has left (`| head`), a full disk.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.trouble: OSError | None = None

    def write(self, text: str) -> int:
        """Like a file's, but it never fails."""
        with self._lasting():
            self.stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Like a file's, but it never fails."""
        with self._lasting():
            self.stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    @contextmanager
    def _lasting(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.trouble = error
            silence(self.stream)
            gone = "its reader has left" if isinstance(error, BrokenPipeError) else reason(error)
            print(f"tinysqueeze: no more is printed ({gone}); going on", file=sys.stderr)


def silence(stream: TextIO) -> None:
    """Lead what is still to be written, also by Python as it ends, to nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def speak_anywhere() -> None:
    """Have both outputs take every letter, line by line; where there is none, nowhere is one."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 (as long as the process)
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="tinysqueeze", line_buffering=True)


def draw(pictures: Mapping[Path, Callable[[], Any]]) -> int:
    """Draw each picture into its file; one that fails is a line. Returns the exit status, 0 or 1."""
    status = 0
    for path, picture in pictures.items():
        try:
            picture().save(str(path))
        except (UserError, ValueError, OSError, MemoryError) as error:
            text = str(error) or type(error).__name__
            print(f"tinysqueeze: {path.name} could not be drawn: {text}", file=sys.stderr)
            status = 1
    return status
