"""`tinysqueeze export`: weights for others."""

import argparse
import sys
from pathlib import Path

from tinysqueeze.cli.c_code import write_c
from tinysqueeze.cli.weights import NAMES, add_classes, find_weights
from tinysqueeze.errors import UserError
from tinysqueeze.weights import write_onnx, write_safetensors, write_torchvision

WRITERS = {
    "safetensors": write_safetensors,
    "torchvision": write_torchvision,
    "onnx": write_onnx,
}


def configure(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    parser.add_argument("weights", metavar="WEIGHTS", help=NAMES)
    parser.add_argument("out", type=Path, nargs="?", metavar="OUT", help="the file to write")
    parser.add_argument(
        "--to",
        choices=WRITERS,
        help="what to write (otherwise by OUT's suffix, .safetensors or .onnx); torchvision is "
        "safetensors with torchvision's names and layout, for load_state_dict",
    )
    parser.add_argument(
        "--c",
        type=Path,
        metavar="DIR",
        help="write plain C99 for inference into this folder instead",
    )
    parser.add_argument(
        "--int8",
        nargs="+",
        metavar="IMAGES",
        help="with --c: in integers, calibrated on these pictures, folders, or a dataset's name",
    )
    add_classes(parser)


def run(args: argparse.Namespace) -> int:
    """Write the file."""
    if args.c:
        return write_c(args.weights, args.c, args.int8, args.classes)
    if args.out is None or args.int8:
        raise UserError(
            "say which file to write, or with --c DIR which folder; --int8 goes with --c"
        )
    kind = args.to or args.out.suffix.removeprefix(".")
    if kind not in WRITERS:
        raise UserError(f"{args.out}: say with --to which of {', '.join(WRITERS)} to write")
    weights = find_weights(args.weights, args.classes)
    WRITERS[kind](weights, args.out)
    print(f"{args.out}: {args.out.stat().st_size:,} bytes")
    if kind == "torchvision" and weights.model.spec.get("conv10_pad"):
        print(
            "torchvision's class has no ring of zeros around conv10, as these weights expect: set "
            "model.classifier[1].padding = (1, 1) after loading",
            file=sys.stderr,
        )
    return 0
