"""`tinysqueeze bench`: training and inference, timed against other libraries on this machine."""

import argparse
import json
from functools import partial
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from tinysqueeze.bench import Settings, complete, measure, text
from tinysqueeze.bench.peers import SIDES, chosen
from tinysqueeze.bench.runner import workloads_named
from tinysqueeze.bench.workloads import USUAL, WORKLOADS
from tinysqueeze.cli import values
from tinysqueeze.cli.output import draw
from tinysqueeze.errors import UsageError, UserError
from tinysqueeze.files import check_writable, content, parse_json
from tinysqueeze.processors import usable_processors
from tinysqueeze.show.pictures.speed import scaling_lines, speed_bars


def configure(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    parser.add_argument(
        "--against",
        metavar="SIDE,...",
        help=f"whom to compare with: {', '.join(SIDES)} (otherwise the usual ones installed)",
    )
    parser.add_argument(
        "--workload",
        metavar="W,...",
        help=f"what to run: {', '.join(WORKLOADS)} (otherwise {', '.join(USUAL)})",
    )
    parser.add_argument(
        "--rounds", type=values.whole(), default=5, metavar="N", help="turns each side gets"
    )
    parser.add_argument(
        "--seconds",
        type=values.number(least=0),
        default=1.0,
        metavar="S",
        help="time a turn, after warming up",
    )
    parser.add_argument(
        "--threads", metavar="N,...", help="threads for every side (otherwise all, and ours with 1)"
    )
    parser.add_argument(
        "--startup", action="store_true", help="also the first start, with an empty kernel cache"
    )
    parser.add_argument(
        "--scaling",
        nargs="?",
        const="",
        metavar="FILE",
        help="also how time grows with batch and image size; drawn there (.png, .svg, .pdf)",
    )
    parser.add_argument(
        "--stages",
        action="store_true",
        help="also where our time goes: by kind of work, and waiting",
    )
    parser.add_argument(
        "--weights",
        metavar="FILE|NAME",
        help="whose accuracy in fewer bits is told, on the --photographs, where a workload has its network",
    )
    parser.add_argument(
        "--photographs",
        metavar="DIR",
        help="labelled photographs for the --weights, in a folder a class or named by wnid",
    )
    parser.add_argument(
        "--quick", action="store_true", help="tiny networks, one short round: does it all work?"
    )
    parser.add_argument(
        "--read", type=Path, metavar="FILE", help="show this file of --json instead"
    )
    parser.add_argument(
        "--plot", type=Path, metavar="FILE", help="draw the times (.png, .svg, .pdf)"
    )
    parser.add_argument("--json", action="store_true", help="print JSON with every single run")


def run(args: argparse.Namespace) -> int:
    """Measure, print, and draw."""
    pictures = ((args.plot, speed_bars), (args.scaling and Path(args.scaling), scaling_lines))
    wanted = {path: draw_it for path, draw_it in pictures if path}
    for path in wanted:
        check_writable(path, picture=True)
    data = _read(args.read) if args.read else _measure(args)
    print(json.dumps(data, indent=1) if args.json else text(data))
    return draw({path: partial(draw_it, data) for path, draw_it in wanted.items()}) if wanted else 0


def _read(path: Path) -> dict[str, Any]:
    try:
        data = parse_json(content(path))
        return complete(data)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not a file of `tinysqueeze bench --json` ({error})") from error


def _measure(args: argparse.Namespace) -> dict[str, Any]:
    settings = _settings(args)
    with tqdm(disable=None, leave=False, unit="process") as bar:

        def report(done: int, total: int, what: str) -> None:
            bar.total, bar.n = total, done
            bar.set_description(what)

        return complete(measure(settings, report))


def _settings(args: argparse.Namespace) -> Settings:
    if bool(args.weights) != bool(args.photographs):
        raise UsageError("--weights and --photographs go together: whose accuracy, and on what")
    threads = _counts(args.threads) if args.threads else (usable_processors(),)
    return Settings(
        workloads=workloads_named(_names(args.workload), args.quick),
        sides=tuple(chosen(_names(args.against))),
        rounds=1 if args.quick else args.rounds,
        seconds=0.05 if args.quick else args.seconds,
        threads=threads,
        own_threads=() if args.threads else (1,),
        startup=args.startup,
        scaling=args.scaling is not None,
        stages=args.stages,
        weights=args.weights,
        photographs=args.photographs,
        quick=args.quick,
    )


def _names(text: str | None) -> list[str] | None:
    return text.split(",") if text else None


def _counts(text: str) -> tuple[int, ...]:
    words = text.split(",")
    if not all(word.isdecimal() and 1 <= int(word) <= usable_processors() for word in words):
        raise UserError(f"--threads takes numbers from 1 to {usable_processors()}, not {text!r}")
    return tuple(int(word) for word in words)
