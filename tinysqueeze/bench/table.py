"""The report as Markdown that also reads well in a terminal: tables padded with spaces."""

from collections.abc import Sequence
from typing import Any

from tinysqueeze.bench.peak import OVER_PEAK
from tinysqueeze.bench.peers import SIDES
from tinysqueeze.bench.report import CALM, Data
from tinysqueeze.bench.stages import KINDS

DASH = "–"


def text(data: Data) -> str:
    """All of it. `data` is what `report.complete` returns."""
    parts = [_heading(data), _headline(data, data["rows"]), _undisturbed(data), *_details(data)]
    parts += [_checks(data), _stages(data), _speedups(data), _startup(data), _scaling(data)]
    return "\n\n".join(part for part in parts if part)


def table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first column to the left, the others to the right."""
    every = [header, *lines]
    widths = [max(3, *(len(line[i]) for line in every)) for i in range(len(header))]

    def row(cells: Sequence[str]) -> str:
        first, *rest = zip(cells, widths, strict=True)
        padded = [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in rest)]
        return f"| {' | '.join(padded)} |"

    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join([row(header), f"| {' | '.join(rule)} |", *(row(line) for line in lines)])


def _heading(data: Data) -> str:
    where = data["machine"]
    versions = ", ".join(f"{name} {number}" for name, number in data["versions"].items())
    return (
        f"{where['processor']}, {where['processors']} processors, vectors of {where['lanes']} floats. "
        f"{_peaks(data)}\n{versions}.\n"
        f"{data['rounds']} rounds, each side in a process of its own, taking turns; medians, in "
        "brackets the range of single processes; × is their time divided by ours."
    )


def _peaks(data: Data) -> str:
    """What the shares are shares of, and whether a product was faster than it can be."""
    known = [
        (f"{precision}, {threads} thread{'s' * (threads != '1')}", one["registers"], one["product"])
        for precision, by_threads in data["peaks"].items()
        for threads, one in by_threads.items()
    ]
    if not known:
        return "Measured peak: unknown."
    each = "; ".join(
        f"{name} {peak:,.0f} GOP/s, of which the product of convolutions reaches {product / peak:.0%}"
        for name, peak, product in known
    )
    text = (
        "Peak, the most operations of multiply-adds in registers alone, every thread's best millisecond "
        f"between the runs: {each}."
    )
    wrong = [name for name, peak, product in known if product > OVER_PEAK * peak]
    if wrong:
        text += f" **Measured too low for {' and '.join(wrong)}: shares of it say nothing.**"
    return text


def _headline(data: Data, rows: Sequence[dict[str, Any]]) -> str:
    """One column a workload, one line a side, at the largest number of threads."""
    threads = max(data["threads"])
    names = list(dict.fromkeys(row["workload"] for row in data["rows"]))
    cells = {
        (row["side"], row["workload"]): _time_and_ratio(row)
        for row in rows
        if row["threads"] == threads
    }
    sides = [side for side in data["sides"] if any(key[0] == side for key in cells)]
    about = data["workloads"]
    header = [
        f"ms, {threads} thread{'s' * (threads > 1)}",
        *(f"{about[n]['title']}, {_images(about[n])}" for n in names),
    ]
    lines = [
        [data["sides"][side], *(cells.get((side, name), DASH) for name in names)] for side in sides
    ]
    return table(header, lines)


def _undisturbed(data: Data) -> str:
    """The headline again, of those parts of the runs in which the cores were this process's alone."""
    counted, every = (sum(row["blocks"] for row in data[key]) for key in ("undisturbed", "rows"))
    if counted == every:
        return ""
    text = (
        f"In {every - counted:,} of {every:,} tenths of a second a core read its first cache more than "
        f"{CALM - 1:.0%} slower than it can, just before or just after: somebody else, perhaps another "
        "machine on the same processor, used it too. "
    )
    if not counted:
        return f"{text}None was undisturbed."
    shares = ", ".join(
        f"{row['workload']} {_percent(row['share_of_floor'])}"
        for row in data["undisturbed"]
        if row["side"] == "ours" and row["threads"] == max(data["threads"])
    )
    return f"{text}Without those (floor/time of ours: {shares}):\n\n{_headline(data, data['undisturbed'])}"


def _images(about: dict[str, Any]) -> str:
    height, width, _ = about["input_shape"]
    return f"{about['batch']} × {height}×{width}"


def _time_and_ratio(row: dict[str, Any]) -> str:
    ms, times = _spread(row["ms"]), row["times_ours"]
    return ms if row["side"] == "ours" or not times else f"{ms} ×{_range(times)}"


def _spread(ms: dict[str, float]) -> str:
    """The median, and from the fastest to the slowest process."""
    if ms["least"] == ms["most"]:
        return _ms(ms["median"])
    return f"{_ms(ms['median'])} ({_ms(ms['least'])}–{_ms(ms['most'])})"


def _ms(value: float) -> str:
    return f"{value:.3g}" if value < 100 else f"{value:,.0f}"


def _range(found: dict[str, float]) -> str:
    return f"{found['median']:.2f} [{found['least']:.2f}–{found['most']:.2f}]"


def _details(data: Data) -> list[str]:
    """For each workload a table of everything else."""
    names = list(dict.fromkeys(row["workload"] for row in data["rows"]))
    return [_detail(data, name) for name in names]


def _detail(data: Data, name: str) -> str:
    about = data["workloads"][name]
    floors = ", ".join(f"{kind} {value / 1e9:.3g}" for kind, value in about["flops"].items())
    caption = f"**{name}**: {about['title']}, {_images(about)}; GFLOP by algorithm: {floors}."
    header = [
        "", "threads", "precision", "top-1", "ms", "images/s", "GFLOP/s", "of peak", "floor/time",
        "memory MB", "over imports", "import s", "first step s",
    ]  # fmt: skip
    lines = []
    for row in data["rows"]:
        if row["workload"] != name:
            continue
        lines.append(
            [
                data["sides"][row["side"]],
                str(row["threads"]),
                row["precision"],
                _percent(row["top1"], 1),
                _spread(row["ms"]),
                f"{row['images_per_second']:,.0f}",
                f"{row['gflops']:,.0f}",
                _percent(row["share_of_peak"]),
                _percent(row["share_of_floor"]),
                _megabytes(row["memory"]),
                _megabytes(row["memory_over_imports"]),
                f"{row['import_s']:.2f}",
                f"{row['prepare_s'] + row['first_s']:.2f}",
            ]
        )
    if by_layer := about.get("by_layer"):
        caption += f" Ours runs layer by layer: {by_layer}."
    known = [one for one in data.get("accuracy", ()) if one["workload"] == name]
    caption += "".join(f" Top-1: {source}." for source in {one["source"] for one in known})
    failed = ", ".join(one["side"] for one in known if one["top1"] is None)
    caption += f" {failed} fails at that network." if failed else ""
    return f"{caption}\n\n{table(header, lines)}"


def _percent(share: float | None, digits: int = 0) -> str:
    return DASH if share is None else f"{share:.{digits}%}"


def _megabytes(size: float | None) -> str:
    return DASH if size is None else f"{size / 1e6:,.0f}"


def _checks(data: Data) -> str:
    found = [check for check in data["checks"] if check["side"] != "ours-stepwise"]
    if not found:
        return ""
    few = [check for check in found if _in_few_bits(check["side"])]
    whole = [check for check in found if check not in few]
    text = (
        "Before timing, the logits of all sides were compared with those of our layers run one by "
        f"one, for training after two steps: the largest difference is {_worst(whole)}"
    )
    return f"{text}; in fewer bits {_worst(few)}." if few else f"{text}."


def _in_few_bits(side: str) -> bool:
    return side in SIDES and SIDES[side].in_few_bits


def _worst(checks: Sequence[dict[str, Any]]) -> str:
    worst = max(checks, key=lambda check: check["difference"])
    difference, side, name = (worst[key] for key in ("difference", "side", "workload"))
    return f"{difference:.1e} of the largest logit ({side}, {name})"


def _stages(data: Data) -> str:
    """One column a workload and precision, one line a kind of work."""
    found = data.get("stages", ())
    columns = list(dict.fromkeys((one["workload"], one["precision"]) for one in found))
    cells = {
        (one["stage"], one["workload"], one["precision"]): f"{_ms(one['ms'])} ({one['share']:.0%})"
        for one in found
    }
    lines = [
        [kind, *(cells.get((kind, *column), DASH) for column in columns)]
        for kind in KINDS
        if any((kind, *column) in cells for column in columns)
    ]
    header = ["ms of a step by kind of work", *(" ".join(column) for column in columns)]
    return table(header, lines) if lines else ""


def _speedups(data: Data) -> str:
    lines = [
        [row["workload"], data["sides"][row["side"]], str(row["threads"]), _range(row["speedup"])]
        for row in data["speedups"]
    ]
    return table(["times as fast as 1 thread", "", "threads", "×"], lines) if lines else ""


def _startup(data: Data) -> str:
    lines = [
        [
            f"{row['part']} ({row['workload']})",
            *(f"{row[key]:.2f}" for key in ("import_s", "prepare_s", "first_s")),
        ]
        for row in data["startup"]
    ]
    return table(["start-up, seconds", "import", "plan", "first step"], lines) if lines else ""


def _scaling(data: Data) -> str:
    found = data["scaling"]
    sides = list(dict.fromkeys(row["side"] for row in found))
    sizes = list(dict.fromkeys((row["workload"], row["batch"], row["size"]) for row in found))
    cells = {
        (row["workload"], row["batch"], row["size"], row["side"]): _ms(row["ms"]["median"])
        for row in found
    }
    lines = [
        [
            f"{name}, {batch} × {size}×{size}",
            *(cells.get((name, batch, size, s), DASH) for s in sides),
        ]
        for name, batch, size in sizes
    ]
    return table(["ms by size", *(data["sides"][s] for s in sides)], lines) if lines else ""
