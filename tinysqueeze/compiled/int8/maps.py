"""How maps of bytes are laid out: channels in whole vectors, and the byte that means zero around them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tinysqueeze.compiled.space import NONE, Halo, View
from tinysqueeze.compiled.steps import Map
from tinysqueeze.devices.int8 import Int8Network
from tinysqueeze.devices.memory import Buffer, lowest_fit
from tinysqueeze.graph import Add, Conv, Graph, Node, Pool
from tinysqueeze.kernels.byte_winograd import OUT

SLACK = 4
"""Bytes that may be read beyond the end of a map: the last four channels need not all exist."""
LINE = 64
"""Bytes in a cache line, at which every map begins."""


@dataclass(frozen=True)
class Layout:
    """The maps of a graph: what their pixels hold, and the padding that convolutions want around them.

    again   by the position of a sum whose second map has another layout than its first: the number of
            one more map, for the second in the layout of the first
    pools   by a map that its convolutions pool at once: the node that does not have to. Such a map is
            never stored
    """

    graph: Graph
    maps: dict[int, Map]
    halos: dict[int, Halo]
    again: dict[int, int]
    pools: dict[int, Pool]

    def written(self, node: Node) -> int:
        """The map in memory that a node writes to."""
        pool = self.pools.get(node.target)
        return node.target if pool is None else pool.target

    def pixel(self, number: int) -> int:
        """Bytes of a pixel. The image's channels are not padded: a row of a patch is one run of bytes."""
        return self.maps[number].padded if number else self.graph.size(0)[2]

    def row(self, number: int) -> int:
        """Bytes of a row, its padding included."""
        halo = self.halos[number]
        return (halo.left + self.maps[number].width + halo.right) * self.pixel(number)

    def image(self, number: int) -> int:
        """Bytes of an image, its padding included."""
        halo = self.halos[number]
        return (halo.top + self.maps[number].height + halo.bottom) * self.row(number)

    def place(self, node: Node) -> int:
        """Where in a pixel of its target a node begins to write."""
        place = int(self.maps[node.target].positions[node.offset])
        pool = self.pools.get(node.target)
        return place if pool is None else place + self.place(pool)

    def view(self, number: int, array: np.ndarray, thread: int) -> View:
        """A map in memory that begins with its padding; `thread` bytes on, another thread's."""
        size, halo, row = self.maps[number], self.halos[number], self.row(number)
        start = halo.top * row + halo.left * self.pixel(number)
        return View(
            array, start, 0, thread, self.image(number), row, self.pixel(number),
            size.height, size.width, size.padded, halo,
        )  # fmt: skip

    def places(self, stored: Sequence[int], images: int) -> tuple[dict[int, int], int]:
        """Where each map of so many images begins, and the bytes of all.

        Maps that do not live at the same time share memory: less of it stays in a nearer cache. Those
        with padding keep theirs, which is written once.
        """
        graph, last = self.graph, len(self.graph.nodes)
        born = dict.fromkeys(stored, 0)
        dies = dict.fromkeys(stored, last)
        for number in stored:
            if number < len(graph.shapes) and self.halos[number] == NONE:
                uses = [
                    i
                    for i, node in enumerate(graph.nodes)
                    if number in (self.written(node), *node.sources)
                ]
                born[number], dies[number] = (uses[0] if number else 0), uses[-1]
        sizes = [-(-(images * self.image(number) + SLACK) // LINE) * LINE for number in stored]
        buffers = [
            Buffer(str(number), size, born[number], dies[number])
            for number, size in zip(stored, sizes, strict=True)
        ]
        order = sorted(range(len(stored)), key=lambda i: -sizes[i])
        offsets = lowest_fit(buffers, {}, order)
        end = max(offset + size for offset, size in zip(offsets, sizes, strict=True))
        return dict(zip(stored, offsets, strict=True)), end


def lay_out(graph: Graph) -> Layout:
    """Each node's channels begin at a whole vector; what only moves bytes keeps its source's layout."""
    height, width, channels = graph.size(0)
    maps, halos = {0: Map(height, width, (channels,))}, {0: NONE}
    for node in graph.nodes:
        halos.setdefault(node.target, NONE)
        if isinstance(node, Conv):
            halos[node.source] = halos[node.source].around(_halo(graph, node))
        if node.target not in maps and node is graph.writers(node.target)[-1]:
            parts = sorted(graph.writers(node.target), key=lambda writer: writer.offset)
            segments = [
                (part.filters,) if isinstance(part, Conv) else maps[part.source].segments
                for part in parts
            ]
            maps[node.target] = Map.of(*graph.size(node.target)[:2], sum(segments, ()))
    again: dict[int, int] = {}
    for i, node in enumerate(graph.nodes):
        if isinstance(node, Add) and maps[node.second].segments != maps[node.source].segments:
            again[i] = len(maps)
            maps[again[i]], halos[again[i]] = maps[node.source], NONE
    return Layout(graph, maps, halos, again, pooled_at_once(graph))


def pooled_at_once(graph: Graph) -> dict[int, Pool]:
    """By its map, each max-pool of 2x2 pixels that nobody else reads, and that only convolutions wrote."""
    return {
        pool.source: pool
        for pool in graph.nodes
        if isinstance(pool, Pool) and not pool.average and pool.source != graph.output
        and (pool.window.kernel, pool.window.stride, pool.window.pad) == ((2, 2), (2, 2), (0, 0))
        and not any(side % 2 for side in graph.size(pool.source)[:2])
        and len(graph.readers(pool.source)) == 1
        and all(isinstance(writer, Conv) for writer in graph.writers(pool.source))
        and graph.writers(pool.source)
    }  # fmt: skip


def in_tiles(node: Conv) -> bool:
    """May it be done by Winograd's tiles? (The image has too few channels.)"""
    window = node.window
    return node.source > 0 and (window.kernel, window.stride) == ((3, 3), (1, 1))


def tiles_of(layout: Layout, node: Conv) -> tuple[int, int]:
    """Rows and columns of tiles that cover a convolution's results."""
    height, width, _ = layout.graph.size(node.target)
    return -(-height // OUT), -(-width // OUT)


def _halo(graph: Graph, node: Conv) -> Halo:
    """The padding that a convolution reads, and what its last windows, or tiles, see beyond it."""
    window, (height, width, _) = node.window, graph.size(node.source)
    whole = OUT if in_tiles(node) else 1
    sides = zip(
        graph.size(node.target)[:2], window.stride, window.kernel, window.pad, (height, width),
        strict=True,
    )  # fmt: skip
    ends = [
        max(0, (-(-out // whole) * whole - 1) * step + kernel - pad - size)
        for out, step, kernel, pad, size in sides
    ]
    return Halo(window.pad[0], window.pad[1], *ends)


def fill(network: Int8Network, number: int, view: View, images: int) -> None:
    """The byte that means zero into all of a map, so that it stays in the padding."""
    zero = np.broadcast_to(network.grids[number].zero, view.pixel).astype(np.uint8)
    for start in range(0, len(view.array), view.thread or len(view.array)):
        view.array[start : start + images * view.next].reshape(-1, view.pixel)[...] = zero
