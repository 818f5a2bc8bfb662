"""How maps of bytes are laid out: channels in whole vectors, and the byte that means zero around them."""

from dataclasses import dataclass

import numpy as np

from tinysqueeze.compiled.space import NONE, Halo, View, aligned
from tinysqueeze.compiled.steps import Map
from tinysqueeze.devices.int8 import Int8Network
from tinysqueeze.graph import Add, Conv, Graph, Node

SLACK = 64
"""Bytes that may be read beyond the end of a map: the last four channels need not all exist."""


@dataclass(frozen=True)
class Layout:
    """The maps of a graph: what their pixels hold, and the padding that convolutions want around them.

    again   by the position of a sum whose second map has another layout than its first: the number of
            one more map, for the second in the layout of the first
    """

    graph: Graph
    maps: dict[int, Map]
    halos: dict[int, Halo]
    again: dict[int, int]

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
        return int(self.maps[node.target].positions[node.offset])

    def view(self, number: int, images: int, threads: int) -> View:
        """Memory for a map of so many images for each thread; of one image for all where threads is 0."""
        size, halo, row = self.maps[number], self.halos[number], self.row(number)
        thread = -(-(images * self.image(number) + SLACK) // 64) * 64
        array = aligned(max(threads, 1) * thread, np.uint8)
        start = halo.top * row + halo.left * self.pixel(number)
        return View(
            array, start, 0, thread if threads else 0, self.image(number), row, self.pixel(number),
            size.height, size.width, size.padded, halo,
        )  # fmt: skip


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
    return Layout(graph, maps, halos, again)


def _halo(graph: Graph, node: Conv) -> Halo:
    """The padding that a convolution reads, and what its last windows see beyond it."""
    window, (height, width, _) = node.window, graph.size(node.source)
    sides = zip(
        graph.size(node.target)[:2], window.stride, window.kernel, window.pad, (height, width),
        strict=True,
    )  # fmt: skip
    ends = [
        max(0, (out - 1) * step + kernel - pad - size) for out, step, kernel, pad, size in sides
    ]
    return Halo(window.pad[0], window.pad[1], *ends)


def fill(network: Int8Network, number: int, view: View) -> None:
    """The byte that means zero into all of a map, so that it stays in the padding."""
    rows = len(view.array) // view.thread if view.thread else 1
    memory = view.array.reshape(rows, -1)
    count = (memory.shape[1] - SLACK) // view.next
    pixels = memory[:, : count * view.next].reshape(rows, -1, view.pixel)
    pixels[...] = np.broadcast_to(network.grids[number].zero, (view.pixel,)).astype(np.uint8)
