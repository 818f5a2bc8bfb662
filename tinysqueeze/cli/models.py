"""How every command lets a model be named and changed: `--model NAME --set bypass=simple`."""

import argparse
import json
from typing import Any

from tinysqueeze.errors import UserError
from tinysqueeze.network.models import MODELS, Model, build


def add_changes(parser: argparse.ArgumentParser) -> None:
    """The options --classes, --input-size and --set."""
    parser.add_argument(
        "--classes", type=int, metavar="N", help="number of classes (the model's own)"
    )
    parser.add_argument(
        "--input-size", type=int, metavar="N", help="image side in pixels (the model's own)"
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="change a metaparameter, e.g. bypass=simple norm=true squeeze_ratio=0.25 pools=[1,3,5]",
    )


def add_model(parser: argparse.ArgumentParser, default: str) -> None:
    """The positional MODEL, and its changes."""
    known = ", ".join(MODELS)
    parser.add_argument(
        "model", nargs="?", default=default, metavar="MODEL", help=f"one of {known}"
    )
    add_changes(parser)


def changes(args: argparse.Namespace) -> dict[str, Any]:
    """What --classes, --input-size and --set ask for. Raises UserError for what isn't NAME=VALUE."""
    wanted: dict[str, Any] = {}
    for item in args.set:
        name, equals, text = item.partition("=")
        if not equals:
            raise UserError(f"--set takes NAME=VALUE, not {item!r}")
        try:
            wanted[name] = json.loads(text)
        except ValueError:
            wanted[name] = text
    chosen = {"classes": args.classes, "input_size": args.input_size}
    return wanted | {name: value for name, value in chosen.items() if value is not None}


def chosen_model(args: argparse.Namespace, **defaults: Any) -> Model:
    """The model that the arguments name, with their changes on top of `defaults`."""
    return build(args.model, **defaults | changes(args))
