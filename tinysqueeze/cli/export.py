"""`tinysqueeze export`: weights for others."""

import argparse
import sys
from pathlib import Path

from tinysqueeze.cli.options import option
from tinysqueeze.cli.weights import NAMES, add_about, find_weights
from tinysqueeze.devices.c.boards import table
from tinysqueeze.errors import UserError
from tinysqueeze.files import check_folder, check_writable
from tinysqueeze.weights import WeightSet
from tinysqueeze.weights.compression.compress import as_file
from tinysqueeze.weights.exporting import KINDS, export, export_c, kind_of


def configure(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    parser.add_argument("weights", metavar="WEIGHTS", help=NAMES)
    parser.add_argument(
        "out", type=Path, nargs="?", metavar="OUT", help="the file, or the folder, to write"
    )
    parser.add_argument(
        "--to",
        choices=KINDS,
        help="what to write (otherwise by OUT's suffix, .safetensors or .onnx; a folder gets C); torchvision "
        "is safetensors with torchvision's names and layout, for load_state_dict",
    )
    option(parser, "--c DIR", "write plain C99 for inference into this folder instead", Path)
    option(
        parser,
        "--int8 IMAGES",
        "with --c: in integers, calibrated on these pictures, folders, or a dataset's name",
        nargs="+",
    )
    option(
        parser,
        "--packed",
        "with --c: the weights stay in a .tsq file beside the program, which unpacks it where it runs "
        "(a .tsq as it is, others without loss)",
    )
    add_about(parser)


def run(args: argparse.Namespace) -> int:
    """Write the file, or the folder of C."""
    if not args.c and (args.out is None or args.int8 or args.packed):
        raise UserError(
            "say which file to write, or with --c DIR which folder; --int8 and --packed go with --c"
        )
    kind = "c" if args.c else kind_of(args.out, args.to)
    check_folder(args.c or args.out) if kind == "c" else check_writable(args.out)
    weights = find_weights(args.weights, args.classes, args.preprocess)
    if kind == "c":
        file = as_file(args.weights, weights) if args.packed else None
        return _write_c(weights, args.c or args.out, args.int8, file)
    export(weights, args.out, kind)
    print(f"{args.out}: {args.out.stat().st_size:,} bytes")
    if kind == "torchvision" and weights.model.spec.get("conv10_pad"):
        print(
            "torchvision's class has no ring of zeros around conv10, as these weights expect: set "
            "model.classifier[1].padding = (1, 1) after loading",
            file=sys.stderr,
        )
    return 0


def _write_c(
    weights: WeightSet, directory: Path, int8: list[str] | None, packed: bytes | None
) -> int:
    """Write the program and say what it needs."""
    exported = export_c(weights, directory, int8, packed)
    print(f"{directory}: {', '.join(file.name for file in exported.files)}")
    print(f"flash {exported.flash:,} bytes of constants, RAM {exported.ram:,} bytes\n")
    print(table(exported.flash, exported.ram))
    return 0
