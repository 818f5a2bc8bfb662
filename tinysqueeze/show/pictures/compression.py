"""Pictures of small files: where the bytes go."""

from collections.abc import Sequence

from tinysqueeze.show.pictures.style import BLUE, GREEN, ORANGE, POOL, PURPLE, SKY, Picture, styled
from tinysqueeze.weights.compression.inspect import PARTS, Line

COLOURS = dict(zip(PARTS, (BLUE, SKY, ORANGE, GREEN, PURPLE, POOL), strict=True))


@styled
def byte_map(lines: Sequence[Line], title: str) -> Picture:
    """One bar a layer, its length the bytes in the file, split by what they are for.

    Beside each bar: bits for each parameter, and what share of the parameters is stored at all.
    """
    rows = _by_layer(lines)
    total = sum(sum(parts.values()) for _, parts, _ in rows)
    sums = {part: sum(parts.get(part, 0) for _, parts, _ in rows) for part in PARTS}
    texts = [f"{part} {size:,}" for part, size in sums.items() if size]
    largest = max(rows, key=lambda row: sum(row[1].values()))
    picture = Picture(
        8.6,
        0.23 * len(rows) + 1.2,
        f"{title}: {total:,} bytes: {', '.join(texts)}. The largest layer is {largest[0]} with "
        f"{sum(largest[1].values()):,}.",
    )
    axes = picture.add_subplot()
    widest = max(sum(parts.values()) for _, parts, _ in rows)
    for place, (_, parts, text) in enumerate(rows):
        left = 0
        for part in PARTS:
            size = parts.get(part, 0)
            axes.barh(place, size, left=left, color=COLOURS[part], height=0.72)
            left += size
        axes.text(left + widest * 0.008, place, text, va="center", fontsize=6.5)
    axes.set_yticks(range(len(rows)), [name for name, _, _ in rows], fontsize=7)
    axes.set(ylim=(len(rows) - 0.4, -0.6), xlim=(0, widest * 1.36))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value / 1000:g} kB")
    axes.tick_params(left=False)
    for part in PARTS:
        if sums[part]:
            axes.barh(0, 0, color=COLOURS[part], label=f"{part} {sums[part] / total:.1%}")
    picture.legend(loc="outside lower center", ncols=len(PARTS))
    axes.grid(axis="x")
    axes.set_title(f"{title}: {total:,} bytes")
    return picture


def _by_layer(lines: Sequence[Line]) -> list[tuple[str, dict[str, int], str]]:
    """Weight and bias of a layer in one row: (name, bytes by part, what to write beside it)."""
    rows: dict[str, list[Line]] = {}
    for line in lines:
        rows.setdefault(line.path.rpartition("/")[0] or "(file)", []).append(line)
    result = []
    for name, group in rows.items():
        parts = {part: sum(line.parts.get(part, 0) for line in group) for part in PARTS}
        most = max(group, key=lambda line: line.parameters)
        size = sum(parts.values())
        text = f"{size:,}"
        if most.parameters:
            bits = f"{most.bits_per_parameter:.2g} bits a weight"
            text += f"   {bits}, {most.stored / most.parameters:.0%} stored"
        result.append((name, parts, text))
    return result
