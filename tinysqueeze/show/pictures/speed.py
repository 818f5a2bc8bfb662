"""The benchmark as pictures: bars for each workload; and how time grows with batch and image size."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle
from typing import Any

from matplotlib.axes import Axes

from tinysqueeze.errors import UserError
from tinysqueeze.show.pictures.style import (
    BLUE,
    GREEN,
    ORANGE,
    POOL,
    PURPLE,
    QUIET,
    RED,
    Picture,
    styled,
)


@styled
def speed_bars(data: Mapping[str, Any]) -> Picture:
    """Milliseconds at the largest number of threads, ours first, the others from fast to slow.

    Whiskers reach from the fastest round to the slowest.

    `data` is what `tinysqueeze bench --json` prints. Axes are cut where a bar would be more than
    eight times ours; such a bar has an open end and its number.
    """
    threads = max(data["threads"])
    rows = [row for row in data["rows"] if row["threads"] == threads]
    names = list(dict.fromkeys(row["workload"] for row in rows))
    most = max(sum(row["workload"] == name for row in rows) for name in names)
    picture = Picture(9, len(names) * (0.24 * most + 0.55) + 0.4, _alt(data, rows, threads))
    panels = picture.subplots(len(names), 1, squeeze=False)[:, 0]
    for axes, name in zip(panels, names, strict=True):
        mine = [row for row in rows if row["workload"] == name]
        mine.sort(key=lambda row: (not row["side"].startswith("ours"), row["ms"]["median"]))
        _panel(axes, data, mine)
    panels[-1].set_xlabel(f"milliseconds, {threads} thread{'s' * (threads > 1)}; less is better")
    return picture


def _panel(axes: Axes, data: Mapping[str, Any], rows: list[dict[str, Any]]) -> None:
    about = data["workloads"][rows[0]["workload"]]
    height, width, _ = about["input_shape"]
    times = [row["ms"]["median"] for row in rows]
    ours = next(row["ms"]["median"] for row in rows if row["side"] == "ours")
    end = min(max(times), 8 * ours) * 1.25
    for place, row in enumerate(rows):
        ms, times_ours = row["ms"], row["times_ours"]
        is_ours, is_cut = row["side"].startswith("ours"), ms["median"] > end
        length = min(ms["median"], end)
        axes.barh(place, length, height=0.68, color=BLUE if is_ours else POOL)
        number = f"{ms['median']:.3g} ms" if ms["median"] < 1000 else f"{ms['median'] / 1000:.3g} s"
        if row["side"] != "ours" and times_ours:
            number += f"  ×{times_ours['median']:.2f}"
        if is_cut:
            axes.plot([end * 0.9, end * 0.91], [place - 0.45, place + 0.45], color="white", lw=3)
            axes.text(end * 0.885, place, number, va="center", ha="right", fontsize=8)
            continue
        axes.plot([ms["least"], min(ms["most"], end)], [place, place], color=QUIET, lw=1.2)
        axes.text(max(length, min(ms["most"], end)), place, f"  {number}", va="center", fontsize=8)
    axes.set_yticks(range(len(rows)), [data["sides"][row["side"]] for row in rows])
    axes.invert_yaxis()
    axes.set_xlim(0, end)
    axes.tick_params(left=False)
    axes.spines["left"].set_visible(False)
    title = about["title"][0].upper() + about["title"][1:]
    axes.set_title(f"{title}, {about['batch']} × {height}×{width}", fontsize=9)


def _alt(data: Mapping[str, Any], rows: list[dict[str, Any]], threads: int) -> str:
    """Every number in words."""
    texts = []
    for name in dict.fromkeys(row["workload"] for row in rows):
        bars = ", ".join(
            f"{data['sides'][row['side']]} {row['ms']['median']:.3g}"
            for row in rows
            if row["workload"] == name
        )
        texts.append(f"{data['workloads'][name]['title']}: {bars}")
    return f"Milliseconds on {threads} threads. " + "; ".join(texts) + "."


@styled
def scaling_lines(data: Mapping[str, Any]) -> Picture:
    """Images a second against the batch, and against the image's size: a line a side, ours in blue.

    `data` is what `tinysqueeze bench --scaling --json` prints.
    """
    rows = data["scaling"]
    if not rows:
        raise UserError("nothing was measured that scales: it takes --scaling, and train or v10")
    names = list(dict.fromkeys(row["workload"] for row in rows))
    sides = list(dict.fromkeys(row["side"] for row in rows))
    picture = Picture(4.6 * len(names) + 0.4, 3.6, _scaling_alt(data))
    panels = picture.subplots(1, len(names), squeeze=False)[0]
    for axes, name in zip(panels, names, strict=True):
        for side, colour, marker in zip(
            sides, cycle((BLUE, RED, GREEN, PURPLE, ORANGE, QUIET)), cycle("os^Dv"), strict=False
        ):
            line = sorted(_rates(rows, name, side))
            axes.plot(
                *zip(*line, strict=True), color=colour, marker=marker, label=data["sides"][side]
            )
        ticks = sorted({place for side in sides for place, _ in _rates(rows, name, side)})
        axes.set_xscale("log", base=2)
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        axes.minorticks_off()
        axes.set_yscale("log")
        axes.set_xlabel(_varies(rows, name))
        axes.set_title(name)
        axes.grid(True)
    panels[0].set_ylabel("images a second")
    picture.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return picture


def _varies(rows: Sequence[Mapping[str, Any]], name: str) -> str:
    """What the workload was measured for several of: "batch" or "image size, pixels"."""
    batches = {row["batch"] for row in rows if row["workload"] == name}
    return "batch" if len(batches) > 1 else "image size, pixels"


def _rates(rows: Sequence[Mapping[str, Any]], name: str, side: str) -> Iterator[tuple[int, float]]:
    """(batch or size, images a second)."""
    field = "batch" if _varies(rows, name) == "batch" else "size"
    for row in rows:
        if (row["workload"], row["side"]) == (name, side):
            yield row[field], 1e3 * row["batch"] / row["ms"]["median"]


def _scaling_alt(data: Mapping[str, Any]) -> str:
    texts = [
        f"{row['workload']}, {data['sides'][row['side']]}, {row['batch']} of {row['size']} pixels: "
        f"{1e3 * row['batch'] / row['ms']['median']:,.0f}"
        for row in data["scaling"]
    ]
    return f"Images a second by batch and image size. {'; '.join(texts)}."
