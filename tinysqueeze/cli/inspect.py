"""`tinysqueeze inspect`: where every byte of a compressed file goes."""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from tinysqueeze.cli.options import option
from tinysqueeze.errors import FormatError, UserError
from tinysqueeze.files import PICTURES, check_writable, content
from tinysqueeze.weights.compression.inspect import PARTS, Line, inspect


def configure(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    parser.add_argument("file", type=Path, metavar="FILE", help="a .tsq file")
    option(parser, "--out PICTURE", "draw it (.png, .svg, .pdf)", Path)
    option(parser, "--json", "print JSON instead of a table")


def run(args: argparse.Namespace) -> int:
    """Print a line for each array, and draw."""
    if args.out:
        check_writable(args.out, PICTURES)
    try:
        lines = inspect(content(args.file))
    except OSError as error:
        raise UserError(f"{args.file}: cannot be read ({error.strerror or error})") from error
    except FormatError as error:
        raise FormatError(f"{args.file}: {error}") from error
    print(json.dumps([asdict(line) for line in lines]) if args.json else _table(lines))
    if args.out:
        from tinysqueeze.show.pictures.compression import byte_map

        byte_map(lines, args.file.name).save(str(args.out))
    return 0


def _table(lines: list[Line]) -> str:
    """Columns: what, parameters, how many are stored, values, bytes, bits a parameter, by part."""
    total = Line(
        "all",
        sum(line.parameters for line in lines),
        sum(line.stored for line in lines),
        0,
        {part: sum(line.parts.get(part, 0) for line in lines) for part in PARTS},
    )
    head = f"{'':26}{'parameters':>11}{'stored':>8}{'values':>8}{'bytes':>9}{'bits':>7}"
    text = [head + "".join(f"{part:>10}" for part in PARTS)]
    for line in (*lines, total):
        stored = f"{line.stored / line.parameters:.0%}" if line.parameters else ""
        bits = f"{line.bits_per_parameter:.2f}" if line.parameters else ""
        text.append(
            f"{line.path or '(file)':26}{line.parameters:>11,}{stored:>8}"
            f"{line.different or '':>8}{line.bytes:>9,}{bits:>7}"
            + "".join(f"{line.parts.get(part, 0) or '':>10}" for part in PARTS)
        )
    return "\n".join(text)
