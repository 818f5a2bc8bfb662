"""`tinysqueeze lessons`: the notebooks to work in, for students or teachers, and a class's results."""

import argparse
import csv
import io
from pathlib import Path

from tinysqueeze.cli.options import option
from tinysqueeze.errors import UsageError
from tinysqueeze.files import check_writable, write_atomically
from tinysqueeze.show.lessons.editions import class_results, write_lessons


def configure(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    parser.add_argument("folder", nargs="?", type=Path, help="where the notebooks are written")
    parser.add_argument(
        "--edition", choices=["student", "teacher"], default="student",
        help="student: without the solutions; teacher: with them, in cells of their own",
    )  # fmt: skip
    option(parser, "--force", "overwrite notebooks that are there")
    option(
        parser,
        "--results FOLDER",
        "instead: what the checks said in a class's saved notebooks, a folder for each student",
        Path,
    )
    option(parser, "-o --out FILE", "the class's results as CSV as well", Path)


def run(args: argparse.Namespace) -> int:
    """Write the lessons, or print a class's table."""
    if args.out:
        check_writable(args.out)
    if (args.folder is None) == (args.results is None):
        raise UsageError(
            "name a folder to write the lessons to, or --results FOLDER to read a class's"
        )
    if args.results:
        return _table(args.results, args.out)
    if args.out:
        raise UsageError("--out goes with --results")
    written = write_lessons(args.folder, args.edition, args.force)
    print(f"{len(written)} lessons, {args.edition} edition, in {args.folder}")
    print(f"Begin with: jupyter lab {written[0]}   (pip install 'tinysqueeze[notebook]')")
    return 0


def _table(place: Path, out: Path | None) -> int:
    results = class_results(place)
    names = sorted({name for of_one in results.values() for name in of_one})
    width = max(map(len, (*results, "student")))
    print(f"{'student':<{width}}  right  wrong  open  of {len(names)}")
    for student, of_one in results.items():
        said = [of_one.get(name, "") for name in names]
        right, wrong = said.count("right"), said.count("wrong")
        print(f"{student:<{width}}  {right:>5}  {wrong:>5}  {len(names) - right - wrong:>4}")
    hard = sorted(names, key=lambda name: sum(r.get(name) == "right" for r in results.values()))
    print("Fewest right: " + ", ".join(hard[:5]))
    if out:
        text = io.StringIO()
        rows = csv.writer(text, lineterminator="\n")
        rows.writerow(["student", *names])
        rows.writerows(
            [student, *(r.get(name, "") for name in names)] for student, r in results.items()
        )
        write_atomically(out, text.getvalue().encode())
        print(f"wrote {out}")
    return 0
