"""A quantised graph as a program of jobs over maps of bytes.

A batch is one stage: each thread takes a few images through the whole network, in memory of its own, so
that no map leaves its cache and nobody waits. A single image is shared by all threads, a stage a node.
"""

from dataclasses import dataclass, field
from math import prod

import numpy as np

from tinysqueeze.compiled.int8.maps import Layout, fill, lay_out, tiles_of
from tinysqueeze.compiled.int8.products import INT32_MAX, Packed, pack
from tinysqueeze.compiled.layout import window_fields
from tinysqueeze.compiled.space import NONE, View, aligned, job, pixel_table
from tinysqueeze.devices.int8 import Int8Network
from tinysqueeze.devices.memory import window_of
from tinysqueeze.graph import Activate, Add, Conv, Copy, Mean, Node, Pool
from tinysqueeze.kernels import TARGET
from tinysqueeze.kernels.byte_maps import (
    byte_add,
    byte_at_least,
    byte_encode,
    byte_max_pool,
    byte_mean_pool,
    byte_rearrange,
    byte_table,
    byte_total,
)
from tinysqueeze.kernels.byte_products import (
    POOLED_ROWS,
    ROWS,
    byte_product,
    byte_sum,
    panel_starts,
)
from tinysqueeze.kernels.byte_winograd import (
    OUT,
    POSITIONS,
    SPARE,
    byte_winograd,
    byte_winograd_input,
)
from tinysqueeze.kernels.kernel import Job, Kernel
from tinysqueeze.kernels.team import Program, Stage, Team

CACHE = 460_000
"""Bytes of maps that a thread's chunk of images may take: a part of its second cache, which weights are
in as well."""
TOGETHER = 3
"""A chunk of so many images or more holds a multiple: then Winograd's tiles, of which small maps have 4,
come in whole tiles of registers. (Images of 32 pixels, 3 of them: 4 took 7 % longer, 6 took 2 %; of the
network of the recipe `fast`, 3 of them: 2 took 9 % longer.)"""


@dataclass
class Int8Program:
    """Logits of at most `batch` images; all memory is allocated."""

    network: Int8Network
    layout: Layout
    batch: int
    memory: tuple[np.ndarray, ...]
    packed: dict[int, Packed]
    logits: np.ndarray
    encode: Job
    program: Program

    @property
    def bytes(self) -> int:
        """All that it has allocated."""
        packed = sum(one.nbytes for one in self.packed.values())
        return sum(a.nbytes for a in self.memory) + self.logits.nbytes + packed

    def run(self, team: Team, images: np.ndarray) -> np.ndarray:
        """The int32 logits (N, classes) of images, float32 or encoded; a fresh array."""
        self.encode.set(x=images, are_bytes=images.dtype == np.uint8)
        team.run(self.program, len(images))
        places = self.layout.maps[self.network.graph.output].positions
        return self.logits[: len(images), places]


def int8_program(network: Int8Network, batch: int, threads: int, shared: bool) -> Int8Program:
    """For batches; or `shared`, where all threads work on one image."""
    graph, layout = network.graph, lay_out(network.graph)
    stored = [i for i in layout.maps if i not in (network.wide, graph.output, *layout.pools)]
    most = CACHE // layout.places(stored, 1)[1]
    most = 1 if shared else max(1, min(most, -(-batch // threads)))
    images = most if most < TOGETHER else most - most % TOGETHER
    packed = {
        i: pack(network, layout, i, node, images)
        for i, node in enumerate(graph.nodes)
        if isinstance(node, Conv)
    }
    places, end = layout.places(stored, images)
    memory = aligned(end * (1 if shared else threads), np.uint8)
    views = {i: layout.view(i, memory[at:], 0 if shared else end) for i, at in places.items()}
    for number, view in views.items():
        if view.halo != NONE:
            fill(network, number, view, images)
    width = layout.maps[graph.output].padded
    logits = aligned((1 if shared else batch) * width, np.int32).reshape(-1, width)
    jobs = _Jobs(network, layout, views, packed, logits, images, threads, shared)
    encode = jobs.encode()
    for i, node in enumerate(graph.nodes):
        jobs.node(i, node)
    return Int8Program(
        network, layout, len(logits), (memory, jobs.v, jobs.m), packed, logits, encode,
        Program(jobs.stages),
    )  # fmt: skip


def tile_places(y: View, images: int, side: int) -> np.ndarray:
    """Where the pixels of each tile lie, int32 (images, rows and columns of tiles, side, side), flat.

    Those beyond the map are sent to the first one of their row or column, which is written after them.
    """

    def along(size: int, step: int) -> np.ndarray:
        first = np.arange(0, size, side)[:, None]
        places = first + np.arange(side)
        return np.where(places < size, places, first) * step

    rows = along(y.height, y.row)[:, None, :, None]
    columns = along(y.width, y.pixel)[None, :, None, :]
    image = y.next * np.arange(images).reshape(-1, 1, 1, 1, 1)
    return (image + rows + columns).astype(np.int32).ravel()


@dataclass
class _Jobs:
    """Appends the jobs of one node after the other."""

    network: Int8Network
    layout: Layout
    views: dict[int, View]
    packed: dict[int, Packed]
    logits: np.ndarray
    images: int
    threads: int
    shared: bool
    v: np.ndarray = field(init=False)  # Winograd's V of a chunk, for each thread or `shared`
    m: np.ndarray = field(init=False)  # its M of a block, for each thread
    stages: list[Stage] = field(default_factory=list)

    def __post_init__(self) -> None:
        tiles = [
            prod(tiles_of(self.layout, node)) * self.layout.pixel(node.source)
            for i, node in enumerate(self.layout.graph.nodes)
            if isinstance(node, Conv) and self.packed[i].tiled
        ]
        sets = 1 if self.shared else self.threads
        self.v = aligned(sets * self.images * POSITIONS * max(tiles, default=0), np.int16)
        self.m = aligned(self.threads * SPARE if tiles else 0, np.int32)

    def add(self, made: Job, units: int, wait: bool = True) -> None:
        """A stage of its own for one image, of so many units; or one more job for each chunk."""
        if self.shared:
            stage = Stage(units=units, chunk=-(-units // self.threads), wait=wait)
            self.stages.append(stage)
        elif not self.stages:
            self.stages.append(Stage(chunk=self.images))
        self.stages[-1].add(made)

    def zero(self, number: int) -> int:
        """The byte that means zero in a map."""
        return int(self.network.grids[number].zero[0])

    def encode(self) -> Job:
        """The first job: the images as bytes."""
        grid, y, width = self.network.grids[0], self.views[0], self.views[0].width
        tables = [
            np.tile(np.broadcast_to(table, y.pixel).astype(np.float64), width)
            for table in (grid.scale, grid.zero)
        ]
        made = job(
            byte_encode, {"y": y}, x=0, x_unit=y.height * width * y.pixel, are_bytes=0,
            size=width * y.pixel, scale=tables[0], zero=tables[1], height=y.height, by_row=self.shared,
        )  # fmt: skip
        self.add(made, y.height)
        return made

    def node(self, i: int, node: Node) -> None:
        """The jobs of node i."""
        if node.source == self.network.wide:
            return  # the convolutions before it have added up the logits
        match node:
            case Conv():
                self.convolve(i, node)
            case Mean() if node.target == self.network.graph.output:
                self.total(node)
            case Pool() if node.source in self.layout.pools:
                return  # the convolutions before it have pooled
            case Pool(average=False):
                self.pool(byte_max_pool, node)
            case Pool() | Mean():
                counts = isinstance(node, Mean) or node.counts_padding
                zero = self.zero(node.source)
                self.pool(byte_mean_pool, node, zero=zero, counts_padding=counts)
            case Add():
                self.sum(i, node)
            case Activate(kind="relu"):
                self.pixels(byte_at_least, node, lowest=self.zero(node.source))
            case Activate():
                self.pixels(byte_table, node, table=self.network.tables[i])
            case Copy():
                self.pixels(byte_at_least, node, lowest=0)

    # --- convolutions ----------------------------------------------------------------------------

    def convolve(self, i: int, node: Conv) -> None:
        """A convolution into its channels of the map, or into the logits."""
        if self.packed[i].tiled:
            self._in_tiles(node, self.packed[i])
            return
        packed, window, x = self.packed[i], node.window, self.views[node.source]
        height, width = self.layout.graph.size(node.target)[:2]
        relu, place = node.activation == "relu", self.layout.place(node)
        down, right = x.row * window.stride[0], x.pixel * window.stride[1]
        fields = {
            "x": x.moved(-window.pad[0], -window.pad[1]),
        }
        common = {
            "x_steps": packed.steps, "w": packed.weight, "depth": len(packed.steps),
            "vectors": packed.vectors, "bias": packed.bias, "scales": packed.scales,
        }  # fmt: skip
        table = pixel_table(self.images, x.next, height, width, down, right)
        panels = len(panel_starts(packed.vectors)) - 1
        if node.target == self.network.wide:
            made = job(
                byte_sum, fields, **common, x_rows=table, lowest=0 if relu else -INT32_MAX - 1,
                y=self.logits.ravel()[place:], y_unit=self.logits.shape[1], rows=height * width,
                by_panel=self.shared,
            )  # fmt: skip
            self.add(made, panels)
            return
        y = self.views[self.layout.written(node)].part(place, packed.vectors * TARGET.lanes)
        pooled = node.target in self.layout.pools
        y_table = pixel_table(self.images, y.next, y.height, y.width, y.row, y.pixel)
        if pooled:  # window by window
            windows = table[: self.images * height * width].reshape(
                -1, height // 2, 2, width // 2, 2
            )
            table = np.ascontiguousarray(windows.transpose(0, 1, 3, 2, 4).ravel())
        zero = self.zero(node.target)
        rows = height * width
        by_panel = (
            self.shared and panels % self.threads == 0 and packed.weight.size > rows * x.pixel
        )
        tile = max((POOLED_ROWS if pooled else ROWS)[: -(-packed.vectors // panels)])
        made = job(
            byte_product, fields | {"y": y}, **common, x_rows=table, y_rows=y_table, pooled=pooled,
            quick=packed.quick, zero=zero, lowest=zero if relu else 0, by_panel=by_panel,
            rows_per_unit=tile if self.shared else rows, rows_in_all=self.images * rows,
            by_row=self.shared and not by_panel,
        )  # fmt: skip
        self.add(made, panels if by_panel else -(-rows // tile), wait=not self._goes_on(i))

    def _in_tiles(self, node: Conv, packed: Packed) -> None:
        """A convolution by Winograd: its source as V, then all the rest."""
        x, pooled = self.views[node.source], node.target in self.layout.pools
        high, wide = tiles_of(self.layout, node)
        y = self.views[self.layout.written(node)].part(
            self.layout.place(node), packed.vectors * TARGET.lanes
        )
        v = {
            "v": self.v, "v_thread": 0 if self.shared else self.v.nbytes // self.threads,
            "v_tile": 2 * x.pixel, "v_position": 2 * x.pixel * self.images * high * wide,
        }  # fmt: skip
        corner = {"x": x.moved(-node.window.pad[0], -node.window.pad[1])}
        made = job(
            byte_winograd_input, corner, **v, channels=x.pixel, tiles_high=high, tiles_wide=wide,
            by_row=self.shared,
        )  # fmt: skip
        self.add(made, high)
        made = job(
            byte_winograd, {"y": y}, **v, steps=packed.steps, u=packed.weight, depth=len(packed.steps),
            vectors=packed.vectors, bias=packed.bias, scales=packed.scales,
            lowest=self.zero(node.target) if node.activation == "relu" else 0, m=self.m,
            m_thread=4 * SPARE, places=tile_places(y, self.images, OUT // 2 if pooled else OUT),
            tiles=high * wide, by_tile=self.shared, pooled=pooled,
        )  # fmt: skip
        self.add(made, high * wide)

    def _goes_on(self, i: int) -> bool:
        """Does the next node read the same map as node i? Then nobody need wait between them."""
        following = self.network.graph.nodes[i + 1 : i + 2]
        return bool(following) and following[0].sources == self.network.graph.nodes[i].sources

    # --- everything else -------------------------------------------------------------------------

    def pool(self, kernel: Kernel, node: Node, **more: int) -> None:
        """A pool, or a mean over all pixels."""
        x, y = self.views[node.source], self._target(node)
        made = job(
            kernel, {"x": x, "y": y}, height=x.height, width=x.width, out_height=y.height,
            out_width=y.width, channels=x.channels, by_row=self.shared,
            **window_fields(window_of(self.layout.graph, node)), **more,
        )  # fmt: skip
        self.add(made, y.height)

    def pixels(self, kernel: Kernel, node: Node, **more: int | np.ndarray) -> None:
        """What is done to each byte alone."""
        self._pixels(kernel, {"x": self.views[node.source], "y": self._target(node)}, **more)

    def _pixels(self, kernel: Kernel, views: dict[str, View], **more: int | np.ndarray) -> None:
        y = views["y"]
        size = {"height": y.height, "width": y.width, "channels": y.channels}
        self.add(job(kernel, views, **(size | {"by_row": self.shared} | more)), y.height)

    def _target(self, node: Node) -> View:
        """Where a node writes: as wide as what it reads, padding included."""
        padded = self.layout.maps[node.source].padded
        return self.views[node.target].part(self.layout.place(node), padded)

    def sum(self, i: int, node: Add) -> None:
        """Two maps; the second is brought into the layout of the first if it has another."""
        x, second, zero = self.views[node.source], self.views[node.second], self.zero(node.target)
        if i in self.layout.again:
            other, second = second, self.views[self.layout.again[i]]
            places = [self.layout.maps[n].positions.astype(np.int32) for n in node.sources]
            self._pixels(
                byte_rearrange, {"x": other, "y": second}, channels=len(places[0]),
                x_places=places[1], y_places=places[0],
            )  # fmt: skip
        add = self.network.adds[i]
        self._pixels(
            byte_add, {"x": x, "z": second, "y": self._target(node)}, shift=add.shift,
            x_zero=self.zero(node.source), z_zero=self.zero(node.second), first=add.first,
            second=add.second, zero=zero, lowest=zero if node.activation == "relu" else 0,
        )  # fmt: skip

    def total(self, node: Mean) -> None:
        """The sum over all pixels of a map of bytes, as logits."""
        x, zero = self.views[node.source], self.zero(node.source)
        made = job(
            byte_total, {"x": x}, height=x.height, width=x.width, channels=x.channels,
            less=x.height * x.width * zero, y=self.logits.ravel()[self.layout.place(node) :],
            y_unit=self.logits.shape[1], by_panel=self.shared,
        )  # fmt: skip
        self.add(made, x.channels // TARGET.lanes)
