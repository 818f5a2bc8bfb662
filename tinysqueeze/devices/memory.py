"""How little memory a network needs for its activations: buffers that share one arena, planned ahead.

Three ideas. Maps whose lives do not overlap share memory. A convolution that a pool follows is tiled:
only the few rows that the pool looks at exist at any time, in a ring. And a node may write over its
own source, row by row behind its reading, if its target starts far enough below (`lead`): ReLUs,
sums, squeeze layers and pools work in place, the first layers nearly so.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np

from tinysqueeze.errors import UserError
from tinysqueeze.graph.form import Conv, Graph, Mean, Node, Other, Pool
from tinysqueeze.graph.lowering import lower
from tinysqueeze.graph.passes import (
    Fold,
    fuse,
    merge_norms,
    with_copies,
    with_means,
    without_dropout,
    without_flatten,
)
from tinysqueeze.network.models import Model
from tinysqueeze.network.window import Window

SHUFFLES = 200  # orders of placing that are tried beside the good ones


def deployed(model: Model) -> tuple[Graph, tuple[Fold, ...]]:
    """What a device runs: convolutions with their ReLUs, pools, sums; and the norms to fold into them.

    Only convolutions, pools and copies write a part of a map. Raises UserError for a layer that there
    is no code for.
    """
    graph = with_means(without_flatten(without_dropout(lower(model))))
    for node in graph.nodes:
        if isinstance(node, Other):
            raise UserError(
                f"{node.path}: a {type(node.layer).__name__} cannot be planned, quantised or exported "
                "to C; end the network at its logits"
            )
    graph, folds = merge_norms(graph, alone=True)
    return with_copies(fuse(graph, ("relu",)), (Conv, Pool)), folds


@dataclass(frozen=True)
class Stage:
    """Nodes that run together, row by row: convolutions side by side, perhaps a pool on their rows."""

    convs: tuple[Conv, ...] = ()
    last: Node | None = None  # the pool on their rows; without convolutions, any other node alone

    @property
    def nodes(self) -> tuple[Node, ...]:
        """All of them, in order."""
        return (*self.convs, self.last) if self.last else self.convs

    @property
    def sources(self) -> tuple[int, ...]:
        """The maps read from the arena."""
        return self.nodes[0].sources

    @property
    def target(self) -> int:
        """The map written to the arena."""
        return self.nodes[-1].target

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
class Arena:
    """Where everything lies. Bytes; one image; parameters not counted."""

    graph: Graph
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
    def bytes(self) -> int:
        """All that it spans, the image included."""
        return max(buffer.offset + buffer.size for buffer in self.buffers)

    @property
    def peak_bytes(self) -> int:
        """All that inference needs: arena, accumulators, logits."""
        return self.bytes + self.scratch + self.output

    @property
    def all_bytes(self) -> int:
        """What keeping every map (as training must) would take."""
        return sum(map(prod, self.graph.shapes)) * self.itemsize


def plan(
    model: Model | Graph, itemsize: int = 4, tiled: bool = True, overlap: bool = True
) -> Arena:
    """Place every map of one image in one arena.

    model       or the graph that `deployed` made of it
    itemsize    bytes a value: 4 for float32, 1 for int8
    tiled       run convolutions together with the pool that follows, over a ring of rows
    overlap     let a node write over its own source
    """
    if itemsize not in (1, 2, 4, 8):
        raise UserError(f"a value has 1, 2, 4 or 8 bytes, not {itemsize}")
    graph = deployed(model)[0] if isinstance(model, Model) else model
    stages = stages_of(graph, tiled)
    maps = {
        value: Buffer(f"map {value}", prod(shape) * itemsize, *life(stages, value))
        for value, shape in enumerate(graph.shapes)
        if value != graph.output and all(stage.tiled != value for stage in stages)
    }
    rings = {
        i: Buffer(f"ring of stage {i}", rows * row_size(graph, stage.tiled) * itemsize, i, i)
        for i, stage in enumerate(stages)
        if stage.tiled is not None and (rows := ring_rows(stage))
    }
    leads = handovers(graph, stages, maps, itemsize) if overlap else {}
    buffers, numbers = [*maps.values(), *rings.values()], list(maps)
    pairs = {(numbers.index(s), numbers.index(t)): lead for (s, t), lead in leads.items()}
    offsets = arrange(buffers, pairs)
    placed = [replace(b, offset=offset) for b, offset in zip(buffers, offsets, strict=True)]
    return Arena(
        graph, itemsize, stages, dict(zip(maps, placed, strict=False)),
        dict(zip(rings, placed[len(maps) :], strict=True)),
        scratch=4 * max(graph.size(node.target)[2] for node in graph.nodes),
        output=4 * prod(graph.shapes[graph.output]),
        lower_bound=max(live_bytes(buffers, pairs, i) for i in range(len(stages))),
    )  # fmt: skip


def stages_of(graph: Graph, tiled: bool = True) -> tuple[Stage, ...]:
    """Group the nodes: the arms of an expand layer, and the pool after a convolution."""
    return tuple(_grouped(graph, tiled))


def _grouped(graph: Graph, tiled: bool) -> Iterator[Stage]:
    rest = list(graph.nodes)
    while rest:
        group: list[Conv] = []
        while rest and isinstance(rest[0], Conv) and (
            not group or (rest[0].source, rest[0].target) == (group[0].source, group[0].target)
        ):  # fmt: skip
            group.append(rest.pop(0))  # type: ignore[arg-type]
        if not group:
            yield Stage(last=rest.pop(0))
        elif tiled and rest and _can_tile(graph, group, rest[0]):
            yield Stage(tuple(group), rest.pop(0))
        else:
            yield Stage(tuple(group))


def _can_tile(graph: Graph, group: list[Conv], pool: Node) -> bool:
    """True for a pool that alone reads what the group alone writes.

    A mean is only tiled at the end of a network, where each pixel is added to the logits as it comes.
    """
    value = group[0].target
    alone = graph.readers(value) == (pool,) and len(graph.writers(value)) == len(group)
    if isinstance(pool, Mean):
        return alone and pool.target == graph.output
    return isinstance(pool, Pool) and alone and pool.offset == 0


def ring_rows(stage: Stage) -> int:
    """How many rows of the tiled map must exist at a time: as many as the pool's window is high.

    None before a mean.
    """
    return stage.last.window.kernel[0] if isinstance(stage.last, Pool) else 0


def row_size(graph: Graph, value: int | None) -> int:
    """Values in one row of a map."""
    assert value is not None
    return prod(graph.size(value)[1:])


def life(stages: Sequence[Stage], value: int) -> tuple[int, int]:
    """The first stage that writes a map (the image: 0) and the last that reads or writes it."""
    writes = [i for i, stage in enumerate(stages) if stage.target == value]
    reads = [i for i, stage in enumerate(stages) if value in stage.sources]
    return (min(writes) if value else 0), max(writes + reads)


# ------------------------------------------------------------------------ writing over one's source


def handovers(
    graph: Graph, stages: Sequence[Stage], maps: dict[int, Buffer], itemsize: int
) -> dict[tuple[int, int], int]:
    """(source, target) -> lead in bytes, wherever a source dies in the stage that bears the target."""
    leads = {}
    for i, stage in enumerate(stages):
        for source in stage.sources:
            born_here = stage.target in maps and maps[stage.target].first == i
            if born_here and maps[source].last == i:
                leads[source, stage.target] = lead(graph, stage) * itemsize
    return leads


def lead(graph: Graph, stage: Stage) -> int:
    """How far below its source, in values, the target must start to be written over it.

    The k-th unit (a row, or a pixel where each pixel depends on one pixel alone) may be written once
    nothing of the source at or below its end is needed any more.
    """
    if in_place(graph, stage):
        return 0
    row_in, row_out = row_size(graph, stage.sources[0]), row_size(graph, stage.target)
    rows = graph.size(stage.target)[0]
    needed = [needed_row(graph, stage, k) for k in range(rows)]
    ends = [(k + 1) * row_out - row * row_in for k, row in enumerate(needed) if row is not None]
    return max(ends, default=-row_in * graph.size(stage.sources[0])[0])


def in_place(graph: Graph, stage: Stage) -> bool:
    """Every pixel is written at or below the pixel read last: no lead at all."""
    if len(stage.nodes) > 1:
        return False
    node = stage.nodes[0]
    narrower = graph.size(node.target)[2] <= graph.size(node.source)[2]
    if isinstance(node, Conv):
        return node.window.is_pointwise and narrower
    return narrower and window_of(graph, node).pad == (0, 0)


def window_of(graph: Graph, node: Node) -> Window:
    """What a node looks at for one pixel of its target."""
    if isinstance(node, Conv | Pool):
        return node.window
    return Window.of(graph.size(node.source)[:2] if isinstance(node, Mean) else 1)


def needed_row(graph: Graph, stage: Stage, k: int) -> int | None:
    """The first row of the source still needed while row k of the target is written (None: none)."""

    def first(window: Window, row: int) -> int:
        return max(row * window.stride[0] - window.pad[0], 0)

    row, readers = k, stage.nodes
    if stage.convs and stage.last:  # the next row that the ring will take in
        window, readers = window_of(graph, stage.last), stage.convs
        row = k * window.stride[0] - window.pad[0] + window.kernel[0]
        if row >= graph.size(stage.convs[0].target)[0]:
            return None
    return min(first(window_of(graph, node), row) for node in readers)


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


def table(plan: Arena) -> str:
    """Where the memory goes, stage by stage, as text."""
    lines = [f"{'stage':<44}{'map':>16}{'bytes live':>14}"]
    for i, stage in enumerate(plan.stages):
        names = [node.path or node.what for node in stage.nodes]
        live = sum(b.size for b in plan.buffers if b.first <= i <= b.last)
        shape = "x".join(map(str, plan.graph.size(stage.target)))
        lines.append(f"{', '.join(names):<44}{shape:>16}{live:>14,}")
    lines.append(
        f"arena {plan.bytes:,} bytes (every map on its own: {plan.all_bytes:,}), sums "
        f"{plan.scratch:,}, logits {plan.output:,}: {plan.peak_bytes:,} in all"
    )
    return "\n".join(lines)
