"""What is settled before the rest is imported: Ctrl-C while the program loads, and where caches lie."""

import os
import sys
from types import TracebackType

COMMAND = "tinysqueeze"


def is_command() -> bool:
    """Whether this process was started as the command `tinysqueeze`, or as `python -m tinysqueeze`."""
    started = os.path.splitext(os.path.basename(sys.argv[0] if sys.argv else ""))[0]
    return started == COMMAND or sys.orig_argv[1:3] == ["-m", COMMAND]


def _one_line(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Say that Ctrl-C came while modules were being imported, which nothing else can catch."""
    if issubclass(kind, KeyboardInterrupt):
        print(f"{COMMAND}: interrupted while starting", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


if is_command():
    sys.excepthook = _one_line

# From here on it takes a second, in which Ctrl-C may come.
from tinysqueeze.caches import find_caches  # noqa: E402

find_caches()
