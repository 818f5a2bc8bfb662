"""From single runs to medians, ratios and shares: pure functions of the measured data."""

from collections.abc import Iterable, Sequence
from statistics import median
from typing import Any

Run = dict[str, Any]
Data = dict[str, Any]


def spread(values: Iterable[float]) -> dict[str, float]:
    """{"median", "least", "most"}."""
    values = list(values)
    return {"median": median(values), "least": min(values), "most": max(values)}


def ratio(ours: Sequence[Run], theirs: Sequence[Run], key: str = "ms") -> dict[str, float] | None:
    """How many times as much they need: the ratio of medians; least and most are of single rounds.

    Only rounds that both took part in make the spread. None where nothing can be compared.
    """
    if not ours or not theirs or any(run.get(key) is None for run in (*ours, *theirs)):
        return None
    by_round = {run["round"]: run[key] for run in ours}
    pairs = [run[key] / by_round[run["round"]] for run in theirs if run["round"] in by_round]
    whole = median(run[key] for run in theirs) / median(by_round.values())
    return {"median": whole, "least": min(pairs), "most": max(pairs)} if pairs else None


def select(data: Data, part: str = "rounds", **wanted: Any) -> list[Run]:
    """The runs of a part with these values: select(data, workload="train", side="ours")."""
    return [
        run
        for run in data["runs"]
        if run["part"] == part and all(run[key] == value for key, value in wanted.items())
    ]


def places(data: Data, part: str = "rounds") -> list[tuple[str, str, int]]:
    """(workload, side, threads), each once: ours before the others, in the order of measuring."""
    found = {(r["workload"], r["side"], r["threads"]): 0 for r in select(data, part)}
    workloads = list(dict.fromkeys(place[0] for place in found))
    sides = sorted({place[1] for place in found}, key=list(data["sides"]).index)
    return sorted(found, key=lambda p: (workloads.index(p[0]), -p[2], sides.index(p[1])))


def rows(data: Data) -> list[dict[str, Any]]:
    """A row for each (workload, side, threads) of the rounds, with everything derived from them."""
    return [_row(data, *place) for place in places(data)]


CALM = 1.15
"""So much longer than the shortest seen may reading the first cache take, for a core to be ours alone."""


def undisturbed(data: Data) -> Data:
    """The same data from those blocks of the rounds only in which nobody else used our cores.

    A block counts where reading the first cache took about as little as ever, before it and after it,
    whatever the block itself took. A run's "ms" is then the median of those blocks, and its "blocks" are
    only those; a run without any is left out.
    """
    timed = [run for run in select(data) if run.get("blocks")]
    if not timed:
        return data | {"runs": []}
    limit = CALM * min(block["cache_s"] for run in timed for block in run["blocks"])
    runs = []
    for run in timed:
        calm = [block for block in run["blocks"] if block["cache_s"] <= limit]
        if calm:
            ms = [block["ms"] for block in calm]
            runs.append(run | {"ms": median(ms), "fastest_ms": min(ms), "blocks": calm})
    return data | {"runs": runs}


def _row(data: Data, workload: str, side: str, threads: int) -> dict[str, Any]:
    runs = select(data, workload=workload, side=side, threads=threads)
    ours = select(data, workload=workload, side="ours", threads=threads)
    about = data["workloads"][workload]
    ms = spread(run["ms"] for run in runs)
    gflops = about["flops"]["direct"] / ms["median"] / 1e6
    precision = data.get("precisions", {}).get(side, "float32")
    peak = data["peaks"].get(precision, {}).get(str(threads), {}).get("registers")
    needed = about["flops"].get(ALGORITHM.get(side, ""))
    first = {key: median(run[key] for run in runs) for key in ("import_s", "prepare_s", "first_s")}
    return {
        "workload": workload,
        "side": side,
        "threads": threads,
        "precision": precision,
        "processor": data["machine"]["processor"],
        "top1": _top1(data, workload, side),
        "ms": ms,
        "images_per_second": 1e3 * about["batch"] / ms["median"],
        "gflops": gflops,
        "share_of_peak": gflops / peak if peak else None,
        "share_of_floor": needed / peak / ms["median"] / 1e6 if peak and needed else None,
        "times_ours": ratio(ours, runs),
        "fastest_ms": min(run["fastest_ms"] for run in runs),
        "blocks": sum(len(run.get("blocks", ())) for run in runs),
        "memory": _bytes(runs, "peak_bytes"),
        "memory_over_imports": _over_imports(runs),
        "memory_times_ours": ratio(ours, runs, "peak_bytes"),
        **first,
    }


def _top1(data: Data, workload: str, side: str) -> float | None:
    """The accuracy of a side in fewer bits, and of ours in float32; None where nobody has measured it."""
    known = data.get("accuracy", ())
    places = {(one["workload"], one["side"]): one["top1"] for one in known}
    return places.get((workload, side))


ALGORITHM = {"ours": "4x4", "ours-2x2": "2x2", "ours-direct": "direct", "ours-int8": "direct"}


def _bytes(runs: Sequence[Run], key: str) -> float | None:
    values = [run[key] for run in runs if run.get(key) is not None]
    return median(values) if values else None


def _over_imports(runs: Sequence[Run]) -> float | None:
    whole, base = _bytes(runs, "peak_bytes"), _bytes(runs, "base_bytes")
    return None if whole is None or base is None else whole - base


def speedups(data: Data) -> list[dict[str, Any]]:
    """For each workload and side that ran with several thread counts: 1 thread's time over n's."""
    found = []
    for workload, side, threads in places(data):
        single = select(data, workload=workload, side=side, threads=1)
        many = select(data, workload=workload, side=side, threads=threads)
        times = ratio(many, single) if threads > 1 else None
        if times:
            found.append({"workload": workload, "side": side, "threads": threads, "speedup": times})
    return found


def startup(data: Data) -> list[dict[str, Any]]:
    """Seconds from nothing to the first step: cold (an empty cache) and warm, for ours."""
    return [
        {key: run[key] for key in ("part", "workload", "side", "import_s", "prepare_s", "first_s")}
        for part in ("cold", "warm")
        for run in select(data, part)
    ]


def scaling(data: Data) -> list[dict[str, Any]]:
    """Milliseconds by batch and image size."""
    found = []
    for workload, side, threads in places(data, "scaling"):
        runs = select(data, "scaling", workload=workload, side=side, threads=threads)
        about = data["workloads"][workload]
        found.append(
            {
                "workload": workload.partition("-")[0],
                "side": side,
                "batch": about["batch"],
                "size": about["input_shape"][0],
                "ms": spread(run["ms"] for run in runs),
                "gflops": about["flops"]["direct"] / median(run["ms"] for run in runs) / 1e6,
            }
        )
    return found


def complete(data: Data) -> Data:
    """The measured data with everything derived from it, as `bench --json` prints it."""
    return data | {
        "rows": rows(data),
        "undisturbed": rows(undisturbed(data)),
        "speedups": speedups(data),
        "startup": startup(data),
        "scaling": scaling(data),
    }
