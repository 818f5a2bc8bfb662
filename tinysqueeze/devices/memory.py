"""How little memory a network needs for its activations: buffers that share one arena, planned ahead.

Three ideas. Maps whose lives do not overlap share memory. A convolution that a pool follows is tiled:
only the few rows that the pool looks at exist at any time, in a ring. And a step may write over its
own source, row by row behind its reading, if its target starts far enough below (`lead`): ReLUs,
sums, squeeze layers and pools work in place, the first layers nearly so.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from tinysqueeze.errors import UserError
from tinysqueeze.lowering import Conv, Pool, Step, Steps, lower
from tinysqueeze.network.models import Model
from tinysqueeze.network.window import Window

SHUFFLES = 200  # orders of placing that are tried beside the good ones


@dataclass(frozen=True)
class Stage:
    """Steps that run together, row by row: convolutions side by side, perhaps a pool on their rows."""

    convs: tuple[Conv, ...] = ()
    last: Step | None = None  # the pool on their rows; without convolutions, any other step alone

    @property
    def steps(self) -> tuple[Step, ...]:
        """All of them, in order."""
        return (*self.convs, self.last) if self.last else self.convs

    @property
    def sources(self) -> tuple[int, ...]:
        """The maps read from the arena."""
        return self.steps[0].sources

    @property
    def target(self) -> int:
        """The map written to the arena."""
        return self.steps[-1].target

    @property
    def tiled(self) -> int | None:
        """The map that only exists as a ring of rows, if any."""
        return self.convs[0].target if self.convs and self.last else None


@dataclass(frozen=True)
class Buffer:
    """A piece of the arena: a map, or the ring of one stage. Sizes in bytes, lives in stages."""

    name: str
    size: int
    first: int  # the stage that writes it first
    last: int  # the last stage that reads it
    offset: int = 0


@dataclass(frozen=True)
class Plan:
    """Where everything lies. Bytes; one image; parameters not counted."""

    steps: Steps
    itemsize: int
    stages: tuple[Stage, ...]
    maps: dict[int, Buffer]
    rings: dict[int, Buffer]  # by stage
    scratch: int  # accumulators of one pixel, 4 bytes each
    output: int  # the logits, 4 bytes each
    lower_bound: int  # no placing of these buffers can need less arena

    @property
    def buffers(self) -> tuple[Buffer, ...]:
        """Maps and rings."""
        return (*self.maps.values(), *self.rings.values())

    @property
    def arena(self) -> int:
        """Bytes of the arena, the image included."""
        return max(buffer.offset + buffer.size for buffer in self.buffers)

    @property
    def peak_bytes(self) -> int:
        """All that inference needs: arena, accumulators, logits."""
        return self.arena + self.scratch + self.output

    @property
    def all_bytes(self) -> int:
        """What keeping every map (as training must) would take."""
        return sum(prod(self.steps.shapes[i]) for i in used(self.steps)) * self.itemsize


def used(steps: Steps) -> list[int]:
    """The maps that exist: the image, and every step's target."""
    return sorted({0} | {step.target for step in steps.steps})


def plan(model: Model | Steps, itemsize: int = 4, tiled: bool = True, overlap: bool = True) -> Plan:
    """Place every map of one image in one arena.

    itemsize    bytes a value: 4 for float32, 1 for int8
    tiled       run convolutions together with the pool that follows, over a ring of rows
    overlap     let a step write over its own source
    """
    if itemsize not in (1, 2, 4, 8):
        raise UserError(f"a value has 1, 2, 4 or 8 bytes, not {itemsize}")
    steps = lower(model) if isinstance(model, Model) else model
    stages = fuse(steps, tiled)
    maps = {
        value: Buffer(f"map {value}", prod(steps.shapes[value]) * itemsize, *life(stages, value))
        for value in used(steps)
        if value != steps.output and all(stage.tiled != value for stage in stages)
    }
    rings = {
        i: Buffer(
            f"ring of stage {i}",
            ring_rows(steps, stage) * row_size(steps, stage.tiled) * itemsize,
            i,
            i,
        )
        for i, stage in enumerate(stages)
        if stage.tiled is not None and ring_rows(steps, stage)
    }
    leads = handovers(steps, stages, maps, itemsize) if overlap else {}
    keys: list[tuple[str, int]] = [("map", i) for i in maps] + [("ring", i) for i in rings]
    buffers = [*maps.values(), *rings.values()]
    pairs = {
        (keys.index(("map", s)), keys.index(("map", t))): lead for (s, t), lead in leads.items()
    }
    offsets = arrange(buffers, pairs)
    placed = {
        key: Buffer(b.name, b.size, b.first, b.last, offset)
        for key, b, offset in zip(keys, buffers, offsets, strict=True)
    }
    return Plan(
        steps, itemsize, stages,
        {i: buffer for (kind, i), buffer in placed.items() if kind == "map"},
        {i: buffer for (kind, i), buffer in placed.items() if kind == "ring"},
        scratch=4 * max(steps.shapes[step.target][2] for step in steps.steps),
        output=4 * prod(steps.shapes[steps.output]),
        lower_bound=max(live_bytes(buffers, pairs, i) for i in range(len(stages))),
    )  # fmt: skip


def fuse(steps: Steps, tiled: bool = True) -> tuple[Stage, ...]:
    """Group the steps: the arms of an expand layer, and the pool after a convolution."""
    return tuple(_fused(steps, tiled))


def _fused(steps: Steps, tiled: bool) -> Iterator[Stage]:
    rest = list(steps.steps)
    while rest:
        group: list[Conv] = []
        while rest and isinstance(rest[0], Conv) and (
            not group or (rest[0].source, rest[0].target) == (group[0].source, group[0].target)
        ):  # fmt: skip
            group.append(rest.pop(0))  # type: ignore[arg-type]
        follower = rest[0] if rest else None
        if not group:
            yield Stage(last=rest.pop(0))
        elif tiled and isinstance(follower, Pool) and _can_tile(steps, group, follower):
            yield Stage(tuple(group), rest.pop(0))
        else:
            yield Stage(tuple(group))


def _can_tile(steps: Steps, group: list[Conv], pool: Pool) -> bool:
    """True where the pool, and it alone, reads what the group, and it alone, writes."""
    value = group[0].target
    alone = steps.readers(value) == (pool,) and len(steps.writers(value)) == len(group)
    final = pool.target == steps.output or not is_global(steps, pool)
    return pool.source == value and pool.target != value and pool.offset == 0 and alone and final


def is_global(steps: Steps, pool: Pool) -> bool:
    """A pool whose window is the whole map; tiled, it adds up each pixel as it comes."""
    return pool.average and pool.window.kernel == steps.shapes[pool.source][:2]


def ring_rows(steps: Steps, stage: Stage) -> int:
    """How many rows of the tiled map must exist at a time: as many as the pool's window is high.

    None at the end of a network, where each pixel is added to the logits as it comes.
    """
    assert isinstance(stage.last, Pool)
    return 0 if is_global(steps, stage.last) else stage.last.window.kernel[0]


def row_size(steps: Steps, value: int | None) -> int:
    """Values in one row of a map."""
    assert value is not None
    return prod(steps.shapes[value][1:])


def life(stages: Sequence[Stage], value: int) -> tuple[int, int]:
    """The first stage that writes a map (the image: 0) and the last that reads or writes it."""
    writes = [i for i, stage in enumerate(stages) if stage.target == value]
    reads = [i for i, stage in enumerate(stages) if value in stage.sources]
    return (min(writes) if value else 0), max(writes + reads)


# ------------------------------------------------------------------------ writing over one's source


def handovers(
    steps: Steps, stages: Sequence[Stage], maps: dict[int, Buffer], itemsize: int
) -> dict[tuple[int, int], int]:
    """(source, target) -> lead in bytes, wherever a source dies in the stage that bears the target."""
    leads = {}
    for i, stage in enumerate(stages):
        for source in stage.sources:
            born_here = stage.target in maps and maps[stage.target].first == i
            if born_here and maps[source].last == i:
                leads[source, stage.target] = lead(steps, stage) * itemsize
    return leads


def lead(steps: Steps, stage: Stage) -> int:
    """How far below its source, in values, the target must start to be written over it.

    The k-th unit (a row, or a pixel where each pixel depends on one pixel alone) may be written once
    nothing of the source at or below its end is needed any more.
    """
    if in_place(steps, stage):
        return 0
    row_in, row_out = row_size(steps, stage.sources[0]), row_size(steps, stage.target)
    rows = steps.shapes[stage.target][0]
    needed = [needed_row(steps, stage, k) for k in range(rows)]
    ends = [(k + 1) * row_out - row * row_in for k, row in enumerate(needed) if row is not None]
    return max(ends, default=-row_in * steps.shapes[stage.sources[0]][0])


def in_place(steps: Steps, stage: Stage) -> bool:
    """Every pixel is written at or below the pixel read last: no lead at all."""
    if not stage.convs:
        return not isinstance(stage.last, Pool) or stage.last.window.pad == (0, 0)
    if stage.last or len(stage.convs) > 1:
        return False
    narrower = steps.shapes[stage.target][2] <= steps.shapes[stage.sources[0]][2]
    return stage.convs[0].window.is_pointwise and narrower


def needed_row(steps: Steps, stage: Stage, k: int) -> int | None:
    """The first row of the source still needed while row k of the target is written (None: none)."""

    def first(window: Window, row: int) -> int:
        return max(row * window.stride[0] - window.pad[0], 0)

    if not stage.convs:
        assert isinstance(stage.last, Pool)
        return first(stage.last.window, k)
    row = k
    if isinstance(stage.last, Pool):  # the next row that the ring will take in
        window = stage.last.window
        row = k * window.stride[0] - window.pad[0] + window.kernel[0]
        if row >= steps.shapes[stage.convs[0].target][0]:
            return None
    return min(first(conv.window, row) for conv in stage.convs)


# ------------------------------------------------------------------------------------------ placing

Pairs = dict[tuple[int, int], int]  # positions of (source, target) -> lead in bytes


def arrange(buffers: Sequence[Buffer], pairs: Pairs) -> list[int]:
    """An offset for each buffer, the best of many orders of putting each as low as it fits.

    The largest first is nearly always best (Pisarchyk & Lee 2020, "Efficient memory management for
    deep neural net inference"); seeded shuffles see to the rest.
    """
    count = len(buffers)
    orders = [
        sorted(range(count), key=lambda i: -buffers[i].size),
        sorted(range(count), key=lambda i: buffers[i].first),
        sorted(range(count), key=lambda i: -buffers[i].last),
    ]
    rng = np.random.default_rng(0)
    orders += [rng.permutation(count).tolist() for _ in range(SHUFFLES)]
    found = [lowest_fit(buffers, pairs, order) for order in orders]
    return min(found, key=lambda offsets: _end(buffers, offsets))


def _end(buffers: Sequence[Buffer], offsets: Sequence[int]) -> int:
    return max(offset + buffer.size for offset, buffer in zip(offsets, buffers, strict=True))


def lowest_fit(buffers: Sequence[Buffer], pairs: Pairs, order: Sequence[int]) -> list[int]:
    """One buffer after another, each at the lowest offset that the ones before leave it."""
    offsets: dict[int, int] = {}
    for i in order:
        barred = sorted(
            span for j, at in offsets.items() if (span := _barred(buffers, pairs, i, j, at))
        )
        offset = 0
        for low, high in barred:
            if low < offset < high:
                offset = high
        offsets[i] = offset
    return [offsets[i] for i in range(len(buffers))]


def _barred(
    buffers: Sequence[Buffer], pairs: Pairs, i: int, j: int, at: int
) -> tuple[int, int] | None:
    """The open span of offsets that buffer i may not take, given buffer j at `at`; None: no matter."""
    one, other = buffers[i], buffers[j]
    if one.last < other.first or other.last < one.first:
        return None
    if (j, i) in pairs:  # i is written over j: far enough below, or clear above
        return _span(at - min(pairs[j, i], one.size), at + other.size)
    if (i, j) in pairs:  # j is written over i
        return _span(at - one.size, at + min(pairs[i, j], other.size))
    return at - one.size, at + other.size


def _span(low: int, high: int) -> tuple[int, int] | None:
    return (low, high) if low < high else None


def live_bytes(buffers: Sequence[Buffer], pairs: Pairs, stage: int) -> int:
    """What must exist during a stage at the least, with a source and its target overlapping."""
    live = [i for i, b in enumerate(buffers) if b.first <= stage <= b.last]
    total = sum(buffers[i].size for i in live)
    savings = [0]
    for (s, t), lead_bytes in pairs.items():
        if s in live and t in live:
            apart = buffers[s].size + buffers[t].size
            savings.append(apart - min(apart, max(buffers[t].size, lead_bytes + buffers[s].size)))
    return total - max(savings)


def table(plan: Plan) -> str:
    """Where the memory goes, stage by stage, as text."""
    lines = [f"{'stage':<44}{'map':>16}{'bytes live':>14}"]
    for i, stage in enumerate(plan.stages):
        names = [getattr(step, "path", "") or type(step).__name__.lower() for step in stage.steps]
        live = sum(b.size for b in plan.buffers if b.first <= i <= b.last)
        shape = "x".join(str(side) for side in plan.steps.shapes[stage.target])
        lines.append(f"{', '.join(names):<44}{shape:>16}{live:>14,}")
    lines.append(
        f"arena {plan.arena:,} bytes (every map on its own: {plan.all_bytes:,}), sums "
        f"{plan.scratch:,}, logits {plan.output:,}: {plan.peak_bytes:,} in all"
    )
    return "\n".join(lines)
