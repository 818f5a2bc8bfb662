"""How every command lets a model be named and changed: `--model NAME --set bypass=simple`."""

import argparse
from pathlib import Path
from typing import Any

from tinysqueeze.cli import values
from tinysqueeze.cli.options import option
from tinysqueeze.cli.weights import NAMES, find_weights
from tinysqueeze.errors import UsageError, UserError
from tinysqueeze.network.models import METAPARAMETERS, MODELS, Model, build
from tinysqueeze.ranges import from_text, said


def add_changes(parser: argparse.ArgumentParser) -> None:
    """The options --classes, --input-size and --set, each checked as it is read."""
    for name, meaning in (("classes", "number of classes"), ("input_size", "image side in pixels")):
        purpose = f"{meaning}, {said(METAPARAMETERS[name])} (the model's own)"
        spelling = f"--{name.replace('_', '-')} N"
        option(parser, spelling, purpose, values.of(METAPARAMETERS[name]))
    option(
        parser,
        "--set NAME=VALUE",
        "change a metaparameter, e.g. bypass=simple norm=true squeeze_ratio=0.25 pools=1,3,5",
        _change,
        [],
        action="append",
    )


def _change(item: str) -> tuple[str, Any]:
    """ "fires=3" -> ("fires", 3). Raises UsageError."""
    name, equals, text = item.partition("=")
    if not equals:
        raise UsageError(f"--set takes NAME=VALUE, not {item!r}")
    try:
        return name, from_text("--set", METAPARAMETERS, name, text)
    except UserError as error:
        raise UsageError(str(error)) from None


def add_model(parser: argparse.ArgumentParser, default: str) -> None:
    """The positional MODEL, and its changes; or else --weights."""
    known = ", ".join(MODELS)
    which = parser.add_mutually_exclusive_group()
    which.add_argument("model", nargs="?", default=default, metavar="MODEL", help=f"one of {known}")
    which.add_argument("--weights", metavar="W", help=f"the network of {NAMES}")
    add_changes(parser)


def changes(args: argparse.Namespace) -> dict[str, Any]:
    """What --classes, --input-size and --set ask for."""
    chosen = {"classes": args.classes, "input_size": args.input_size}
    return dict(args.set) | {name: value for name, value in chosen.items() if value is not None}


def chosen_model(args: argparse.Namespace) -> Model:
    """The model that the arguments name, with their changes; or the network of `--weights`, as it is."""
    if not args.weights:
        if Path(args.model).is_file():
            raise UserError(f"{args.model} is a file, no model's name: say --weights {args.model}")
        return build(args.model, **changes(args))
    if changes(args):
        raise UserError(
            "--weights has a network of its own: leave out --classes, --input-size, --set"
        )
    return find_weights(args.weights).model
