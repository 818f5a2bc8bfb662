"""Pictures of a planned arena: which map lies where, and for how long."""

from tinysqueeze.devices.memory import Arena
from tinysqueeze.show.pictures.style import BLUE, GREEN, INK, ORANGE, PURPLE, SKY, Picture, styled


@styled
def arena_map(plan: Arena, title: str) -> Picture:
    """Each map a rectangle: from left to right the stages it lives through, upwards its addresses.

    Rings, the few rows of a map that a pool looks at, are orange. A map that is written over its own
    source shares its addresses in the one stage where both live: there the darker shade shows.
    """
    largest = max(plan.buffers, key=lambda buffer: buffer.size)
    picture = Picture(
        8.6,
        3.6,
        f"{title}: {len(plan.buffers)} buffers over {len(plan.stages)} stages in an arena of "
        f"{plan.bytes:,} bytes; the largest has {largest.size:,} and lives from stage "
        f"{largest.first} to {largest.last}. Each on its own would take {plan.all_bytes:,}.",
    )
    axes = picture.add_subplot()
    rings = set(plan.rings.values())
    for i, buffer in enumerate(plan.buffers):
        colour = ORANGE if buffer in rings else (BLUE, GREEN, SKY, PURPLE)[i % 4]
        width, height = buffer.last - buffer.first + 1, buffer.size / 1000
        axes.bar(
            buffer.first, height, width, buffer.offset / 1000, align="edge", color=colour,
            alpha=0.62, edgecolor=INK, lw=0.6,
        )  # fmt: skip
        if buffer.size > plan.bytes / 14:
            axes.text(
                buffer.first + width / 2, buffer.offset / 1000 + height / 2,
                f"{buffer.size / 1000:,.0f}", ha="center", va="center", fontsize=6.5,
            )  # fmt: skip
    names = [_name(plan, i) for i in range(len(plan.stages))]
    axes.set_xticks([i + 0.5 for i in range(len(names))], names, rotation=90, fontsize=6.5)
    axes.set_xlim(0, len(names))
    axes.set_ylim(0, plan.bytes / 1000 * 1.04)
    axes.set_ylabel("address, kB")
    axes.set_title(f"{title}: {plan.bytes:,} bytes")
    return picture


def _name(plan: Arena, i: int) -> str:
    """A stage by its first node's path, "fire2/expand" for both arms of it."""
    first = plan.stages[i].nodes[0]
    return (first.path or first.what).replace("/expand1x1", "/expand")
