"""The command line: a table of commands, each a module that is imported only when called."""

import argparse
import re
import signal
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from importlib import import_module
from types import FrameType
from typing import NoReturn, TextIO, cast

from tinysqueeze.cli.output import Lasting, silence, speak_anywhere
from tinysqueeze.errors import UsageError, UserError
from tinysqueeze.files import reason
from tinysqueeze.version import __version__

COMMANDS = {  # name -> what it does; the code is the module of that name in this folder
    "train": "train a network, by default on data that needs no download",
    "evaluate": "accuracy of a trained network on a dataset",
    "predict": "what is in these pictures?",
    "summary": "a network's layers: shapes, parameters, multiply-adds, bytes",
    "gradcheck": "check every gradient against finite differences",
    "bench": "how fast is it, and how fast are others on this machine?",
    "page": "a training step as one HTML file, to be explored in any browser",
    "export": "write weights for others: safetensors, torchvision, ONNX, C",
    "compress": "prune, share and code weights into a small file",
    "decompress": "the weights out of such a file",
    "inspect": "where every byte of a compressed file goes",
    "experiment": "re-run the paper's experiments at CIFAR size",
    "ladder": "from a published training to ours, one change after the other",
    "results": "finished runs as one table: time, accuracy and spread of each recipe",
    "lessons": "write the notebooks, for students or teachers; a class's results",
    "memory": "the least memory for inference, the boards it fits, what others take",
    "communication": "what distributed training has to send, measured and projected",
}

EMPTY = re.compile(
    r"--[a-z0-9-]+=(\s*|--)"
)  # "--from="; of "--bits=--" argparse makes an empty list
LEAVE_FILES = ("train", "experiment", "ladder")
FILES = ("out", "plot", "answers", "figure", "c")  # and whatever is given one of these


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    """Defaults in the help text, where there is one to speak of."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return (
            action.help if action.default in (None, False, []) else super()._get_help_string(action)
        )


class _Parser(argparse.ArgumentParser):
    """One whose complaint is one line."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; `{self.prog} --help` says more")


class Terminated(KeyboardInterrupt):
    """A polite kill, SIGTERM."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0, 1 for an error, 2 for wrong usage.

    130 after Ctrl-C, 143 after SIGTERM; where both may come when the command is done, they are ignored.
    """
    speak_anywhere()
    if argv is not None:
        return _guarded(argv)
    signal.signal(signal.SIGTERM, _terminate)
    status = _guarded(sys.argv[1:])
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    return status


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    raise Terminated


def _guarded(argv: Sequence[str]) -> int:
    """Run it, and say in one line what went wrong."""
    try:
        status = _run(argv)
        sys.stdout.flush()
        return status
    except UserError as error:
        return _fail(str(error), 2 if isinstance(error, UsageError) else 1)
    except MemoryError as error:
        return _fail(f"not enough memory: {str(error) or 'ask for less'}", 1)
    except BrokenPipeError:  # `tinysqueeze summary | head` is not an error
        silence(sys.stdout)
        return 0
    except OSError as error:
        if error.filename is None:
            silence(sys.stdout)
        where = "the output" if error.filename is None else error.filename
        return _fail(f"{where}: {reason(error)}", 1)
    except KeyboardInterrupt as stop:
        return _stopped(stop)
    except Exception as error:
        behind = _signal_behind(error)
        if behind is None:
            raise
        return _stopped(behind)


def _signal_behind(error: BaseException) -> KeyboardInterrupt | None:
    """The signal that tore a library's cleanup: a lock half taken is released with a RuntimeError."""
    behind: BaseException | None = error
    while behind is not None and not isinstance(behind, KeyboardInterrupt):
        behind = behind.__context__
    return behind


def _stopped(stop: KeyboardInterrupt) -> int:
    terminated = isinstance(stop, Terminated)
    word = "terminated" if terminated else "interrupted"
    return _fail(f"{word}; every file is whole, or as it was", 143 if terminated else 130)


def _fail(line: str, status: int) -> int:
    print(f"tinysqueeze: {UserError(line)}", file=sys.stderr)  # which bounds its length
    return status


def _run(argv: Sequence[str]) -> int:
    """Parse and call; a command that leaves files outlasts its output."""
    if any(not word.strip() or EMPTY.fullmatch(word) for word in argv):
        raise UsageError("an empty word was given, where a name or a value belongs")
    command = next((word for word in argv if not word.startswith("-")), None)
    args = _parser(command).parse_args(argv)
    if command not in LEAVE_FILES and not any(getattr(args, name, None) for name in FILES):
        return args.run(args)
    lasting = Lasting(sys.stdout)
    with redirect_stdout(cast(TextIO, lasting)):
        status = args.run(args)
        lasting.flush()
    full = lasting.trouble is not None and not isinstance(lasting.trouble, BrokenPipeError)
    return status or int(full)


def _parser(command: str | None) -> argparse.ArgumentParser:
    """All commands, with the options of one."""
    parser = _Parser("tinysqueeze", description="SqueezeNet from scratch in NumPy and Numba.")
    parser.add_argument("--version", action="version", version=f"tinysqueeze {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for name, purpose in COMMANDS.items():
        sub = commands.add_parser(
            name,
            help=purpose,
            description=purpose[0].upper() + purpose[1:] + ".",
            formatter_class=_Help,
        )
        if name == command:
            module = import_module(f"tinysqueeze.cli.{name}")
            module.configure(sub)
            sub.set_defaults(run=module.run)
    return parser
