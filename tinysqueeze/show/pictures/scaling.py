"""How training scales with workers, for small networks and large ones."""

from collections.abc import Sequence

from matplotlib.ticker import PercentFormatter

from tinysqueeze.paper.scaling import LINKS, WORKERS, Demand, efficiency
from tinysqueeze.show.pictures.style import BLUE, GREEN, PURPLE, QUIET, RED, Picture, styled


@styled
def scaling_efficiency(found: Sequence[Demand], batch: int, faster: float = 1.0) -> Picture:
    """Share of the time spent computing against workers, a panel a network speed.

    Lines are without overlap of computing and sending; the band reaches up to perfect overlap.
    `faster` is what `scaling.demands` was told.
    """
    picture = Picture(10, 3.8, _alt(found))
    panels = picture.subplots(1, len(LINKS), sharey=True)
    for axes, link in zip(panels, LINKS, strict=True):
        for demand, colour, marker in zip(
            found, (BLUE, RED, QUIET, GREEN, PURPLE), "os^Dv", strict=False
        ):
            low, high = (
                [efficiency(demand.compute, demand.size, w, link, overlap) for w in WORKERS]
                for overlap in (False, True)
            )
            name = f"{demand.network}, {demand.size / 1e6:,.0f} MB a step"
            axes.plot(WORKERS, low, color=colour, marker=marker, ms=4, label=name)
            axes.fill_between(WORKERS, low, high, color=colour, alpha=0.12, lw=0)
        axes.set_xscale("log", base=2)
        axes.set_xticks(WORKERS[::3], [f"{w:,}" for w in WORKERS[::3]])
        axes.set(ylim=(0, 1.03), xlabel="workers")
        axes.yaxis.set_major_formatter(PercentFormatter(1))
        axes.grid(True)
        axes.set_title(f"{link.gigabits:g} Gbit/s, {1e6 * link.latency:g} µs a message")
    panels[0].set_ylabel("scaling efficiency")
    picture.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=5)
    picture.suptitle(
        f"Projected by the ring's cost model from this machine's step of {batch} images a worker"
        + ("" if faster == 1 else f", as if {faster:g} times as fast"),
        x=0.01,
        ha="left",
    )
    return picture


def _alt(found: Sequence[Demand]) -> str:
    slowest, most = LINKS[0], WORKERS[-1]
    kept = ", ".join(
        f"{d.network} keeps {efficiency(d.compute, d.size, most, slowest):.0%}" for d in found
    )
    return (
        f"Scaling efficiency for 2 to {most:,} workers on three networks. At {slowest.gigabits:g} Gbit/s "
        f"and {most:,} workers {kept}; on faster networks all come closer to 100 %."
    )
