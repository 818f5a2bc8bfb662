"""The command line: a table of commands, each a module that is imported only when called."""

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

from tinysqueeze.errors import UsageError, UserError
from tinysqueeze.version import __version__

COMMANDS = {  # name -> what it does; the code is the module of that name in this folder
    "train": "train a network, by default on data that needs no download",
    "evaluate": "accuracy of a trained network on a dataset",
    "predict": "what is in these pictures?",
    "summary": "a network's layers: shapes, parameters, multiply-adds, bytes",
    "gradcheck": "check every gradient against finite differences",
    "bench": "how fast is it, and how fast are others on this machine?",
    "export": "write weights for others: safetensors, torchvision, ONNX, C",
    "compress": "prune, share and code weights into a small file",
    "decompress": "the weights out of such a file",
    "inspect": "where every byte of a compressed file goes",
    "experiment": "re-run the paper's experiments at CIFAR size",
    "results": "finished runs as one table: time, accuracy and spread of each recipe",
    "lessons": "write the notebooks, for students or teachers; a class's results",
    "memory": "the least memory for inference, the boards it fits, what others take",
    "communication": "what distributed training has to send, measured and projected",
}


class _Help(argparse.ArgumentDefaultsHelpFormatter):
    """Defaults in the help text, where there is one to speak of."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return (
            action.help if action.default in (None, False, []) else super()._get_help_string(action)
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status: 0, 1 for an error, 2 for wrong usage."""
    argv = list(sys.argv[1:] if argv is None else argv)
    command = next((word for word in argv if not word.startswith("-")), None)
    parser = argparse.ArgumentParser(
        "tinysqueeze", description="SqueezeNet from scratch in NumPy and Numba."
    )
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
    try:
        args = parser.parse_args(argv)
        return args.run(args)
    except UserError as error:
        print(f"tinysqueeze: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    except MemoryError as error:
        print(f"tinysqueeze: not enough memory: {str(error) or 'ask for less'}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # `tinysqueeze summary ... | head` is not an error
        sys.stderr.close()
        return 0
    except KeyboardInterrupt:
        print("tinysqueeze: interrupted", file=sys.stderr)
        return 130
