"""`tinysqueeze bench`: training and inference, timed against other libraries on this machine."""

import argparse
import json
from functools import partial
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from tinysqueeze.bench import Settings, complete, measure, text
from tinysqueeze.bench.peers import SIDES, chosen
from tinysqueeze.bench.runner import SCALES, workloads_named
from tinysqueeze.bench.workloads import USUAL, WORKLOADS
from tinysqueeze.cli import values
from tinysqueeze.cli.options import option
from tinysqueeze.cli.output import draw
from tinysqueeze.errors import UsageError, UserError
from tinysqueeze.files import PICTURES, check_writable, content, parse_json
from tinysqueeze.processors import usable_processors
from tinysqueeze.show.pictures.speed import scaling_lines, speed_bars


def configure(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    add = partial(option, parser)
    sides, workloads = ", ".join(SIDES), ", ".join(WORKLOADS)
    add("--against SIDE,...", f"whom to compare with: {sides} (otherwise the usual ones installed)")
    usual = ", ".join(USUAL)
    add("--workload W,...", f"what to run: {workloads} (otherwise {usual})")
    add("--rounds N", "turns each side gets", values.whole(), 5)
    add("--seconds S", "time a turn, after warming up", values.number(), 1.0)
    add("--threads N,...", "threads for every side (otherwise all, and ours with 1)")
    add("--startup", "also the first start, with an empty kernel cache")
    drawn = "also how time grows with batch and image size; drawn there (.png, .svg, .pdf)"
    add("--scaling FILE", drawn, nargs="?", const="")
    add("--stages", "also where our time goes: by kind of work, and waiting")
    add(
        "--weights FILE|NAME",
        "whose accuracy in fewer bits is told, on the --photographs, where a workload has its network",
    )
    add(
        "--photographs DIR",
        "labelled photographs for the --weights, in a folder a class or named by wnid",
    )
    add("--quick", "tiny networks, one short round: does it all work?")
    add("--read FILE", "show this file of --json instead", Path)
    add("--plot FILE", "draw the times (.png, .svg, .pdf)", Path)
    add("--json", "print JSON with every single run")


def run(args: argparse.Namespace) -> int:
    """Measure, print, and draw."""
    pictures = ((args.plot, speed_bars), (args.scaling and Path(args.scaling), scaling_lines))
    wanted = {path: draw_it for path, draw_it in pictures if path}
    for path in wanted:
        check_writable(path, PICTURES)
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
    workloads = workloads_named(_names(args.workload), args.quick)
    if args.scaling and not any(workload.name in SCALES for workload in workloads):
        raise UsageError(f"--scaling draws {' and '.join(SCALES)}: --workload names neither")
    threads = _counts(args.threads) if args.threads else (usable_processors(),)
    return Settings(
        workloads=workloads,
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
