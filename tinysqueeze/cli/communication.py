"""`tinysqueeze communication`: what distributed training has to send, measured and projected."""

import argparse
from pathlib import Path

from tinysqueeze.cli import values
from tinysqueeze.files import check_writable
from tinysqueeze.paper.scaling import LINKS, NETWORKS, WORKERS, Demand, demands, efficiency
from tinysqueeze.show.pictures.scaling import scaling_efficiency


def configure(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), metavar="M", help="which")
    parser.add_argument(
        "--batch", type=values.images, default=32, metavar="N", help="images a worker"
    )
    parser.add_argument(
        "--ranks",
        type=values.whole(1, values.MOST_THREADS),
        default=2,
        metavar="R",
        help="ranks to measure with",
    )
    parser.add_argument(
        "--figure", type=Path, metavar="FILE", help="draw scaling efficiency (.png)"
    )
    parser.add_argument(
        "--faster",
        type=values.number(above=0),
        default=1.0,
        metavar="X",
        help="as if workers computed X times as fast",
    )


def run(args: argparse.Namespace) -> int:
    """Measure, print, draw."""
    if args.figure:
        check_writable(args.figure, picture=True)
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
