"""What is settled before the rest is imported: Ctrl-C at any moment, and where caches lie."""

import os
import signal
import sys
from types import FrameType, TracebackType

COMMAND = "tinysqueeze"
SOON = 0.02  # seconds
interrupted = False


def is_command() -> bool:
    """Whether this process was started as the command `tinysqueeze`, or as `python -m tinysqueeze`."""
    started = os.path.splitext(os.path.basename(sys.argv[0] if sys.argv else ""))[0]
    return started == COMMAND or ("-m", COMMAND) in zip(
        sys.orig_argv, sys.orig_argv[1:], strict=False
    )


def _one_line(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Say that Ctrl-C came while modules were being imported, which nothing else can catch.

    A module in C that imports NumPy says it at once and goes on with an ImportError, which is no news then.
    """
    global interrupted
    if issubclass(kind, KeyboardInterrupt):
        interrupted = True
        print(f"{COMMAND}: interrupted while starting", file=sys.stderr)
    elif interrupted:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.raise_signal(signal.SIGINT)
    else:
        sys.__excepthook__(kind, error, trace)


def _once_more(dropped: "sys.UnraisableHookArgs") -> None:
    """Ctrl-C that fell into a destructor, where Python drops every exception, comes again a moment later."""
    kind = dropped.exc_type
    if not issubclass(kind, KeyboardInterrupt) or not hasattr(signal, "setitimer"):
        sys.__unraisablehook__(dropped)
        return

    def again(number: int, frame: FrameType | None) -> None:
        raise kind

    signal.signal(signal.SIGALRM, again)
    signal.setitimer(signal.ITIMER_REAL, SOON)


if is_command():
    sys.excepthook, sys.unraisablehook = _one_line, _once_more

# From here on it takes a second, in which Ctrl-C may come.
from tinysqueeze.caches import find_caches  # noqa: E402

find_caches()
