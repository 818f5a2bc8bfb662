"""`tinysqueeze results`: finished run folders as rows of one CSV file, and the table they make."""

import argparse
from pathlib import Path

from tinysqueeze.cli.options import option
from tinysqueeze.files import check_writable
from tinysqueeze.paper.results import markdown, read_results, read_run, write_results


def configure(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    parser.add_argument(
        "runs", nargs="*", type=Path, metavar="RUN", help="run folders of `tinysqueeze train`"
    )
    option(parser, "-o --out FILE", "the CSV file (otherwise only the table)", Path)
    option(parser, "--add", "keep the rows that the file holds already")


def run(args: argparse.Namespace) -> int:
    """Print the table; with --out write the rows."""
    if args.out:
        check_writable(args.out, makes_folder=True)
    found = [read_run(folder) for folder in args.runs]
    if args.add and args.out and args.out.exists():
        new = {(r.recipe, r.engine, r.seed) for r in found}
        kept = [r for r in read_results(args.out) if (r.recipe, r.engine, r.seed) not in new]
        found = [*kept, *found]
    if args.out:
        write_results(args.out, found)
    print(markdown(found))
    return 0
