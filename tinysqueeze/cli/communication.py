"""`tinysqueeze communication`: what distributed training has to send, measured and projected."""

import argparse
from functools import partial
from pathlib import Path

from tinysqueeze.cli import values
from tinysqueeze.cli.options import option
from tinysqueeze.files import PICTURES, check_writable
from tinysqueeze.paper.scaling import LINKS, NETWORKS, WORKERS, Demand, demands, efficiency
from tinysqueeze.show.pictures.scaling import scaling_efficiency


def configure(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    add = partial(option, parser)
    add("--networks M", "which", default=list(NETWORKS), nargs="+")
    add("--batch N", "images a worker", values.images, 32)
    add("--ranks R", "ranks to measure with", values.whole(1, values.MOST_THREADS), 2)
    add("--figure FILE", "draw scaling efficiency (.png)", Path)
    add("--faster X", "as if workers computed X times as fast", values.number(above=True), 1.0)


def run(args: argparse.Namespace) -> int:
    """Measure, print, draw."""
    if args.figure:
        check_writable(args.figure, PICTURES)
    found = demands(args.networks, args.batch, args.ranks, args.faster)
    print(
        f"A step of {args.batch} images, and an all-reduce of its gradients between {args.ranks} ranks, "
        f"on this machine{_if_faster(args.faster)}:\n"
    )
    for line in measured(found):
        print(line)
    print("\nProjected scaling efficiency without overlap (ring all-reduce, float32):\n")
    for line in projected(found):
        print(line)
    if args.figure:
        scaling_efficiency(found, args.batch, args.faster).save(str(args.figure))
        print(f"\n{args.figure}: drawn")
    return 0


def _if_faster(faster: float) -> str:
    return "" if faster == 1 else f", computing as if {faster:g} times as fast"


def measured(found: list[Demand]) -> list[str]:
    """The measured table."""
    lines = [f"{'network':<20}{'MB a step':>10}{'compute s':>11}{'all-reduce ms':>15}{'share':>8}"]
    for demand in found:
        share = demand.all_reduce / (demand.compute + demand.all_reduce)
        lines.append(
            f"{demand.network:<20}{demand.size / 1e6:>10,.1f}{demand.compute:>11,.3f}"
            f"{1e3 * demand.all_reduce:>15,.2f}{share:>8.1%}"
        )
    return lines


def projected(found: list[Demand]) -> list[str]:
    """The projected table: a line for each network and link."""
    shown = WORKERS[::3]
    lines = [f"{'network':<20}{'Gbit/s':>8}" + "".join(f"{w:>9,}" for w in shown) + "  workers"]
    for demand in found:
        for link in LINKS:
            shares = (efficiency(demand.compute, demand.size, w, link) for w in shown)
            lines.append(
                f"{demand.network:<20}{link.gigabits:>8g}" + "".join(f"{s:>9.1%}" for s in shares)
            )
    return lines
