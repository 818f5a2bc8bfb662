"""Steps laid out in a space: their convolutions with packed weights, and views of the maps."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tinysqueeze.compiled.convolution import Convolution, halo_of
from tinysqueeze.compiled.nodes import NodeRun
from tinysqueeze.compiled.sequence import Chunks, Sequence
from tinysqueeze.compiled.space import NONE, Halo, Space, View, job
from tinysqueeze.compiled.steps import ConvStep, JoinStep, Map, MeanStep, NodeStep, StepList
from tinysqueeze.compiled.weights import Weights, by_panels, strassen_pays, winograd_size
from tinysqueeze.kernels import TARGET
from tinysqueeze.kernels.head import pixel_mean
from tinysqueeze.kernels.kernel import Job, Kernel
from tinysqueeze.kernels.pointwise import add_map, copy_map
from tinysqueeze.kernels.pooling import max_pool
from tinysqueeze.network.window import Window
from tinysqueeze.processors import second_cache

CHUNK_PIXELS = 256
"""Pixels that a chunk should have: what so many of them need in one layer fits in the cache."""
STAYING = second_cache() // 2
"""Bytes of weights that stay in the cache beside the maps of a chunk."""
GROUP = 64
"""Filters that are worked on together, on the way back, where not all weights stay there."""
Arrays = Mapping[str, np.ndarray]


def chunk_size(size: Map, batch: int, threads: int, pixels: int = CHUNK_PIXELS) -> int:
    """Images in a chunk of so many pixels, for a layer whose result has this size."""
    return max(1, min(pixels // size.pixels, -(-batch // threads)))


def window_fields(window: Window) -> dict[str, int]:
    """A pool's window as its kernels want it."""
    names = ("kernel_high", "kernel_wide", "stride_high", "stride_wide", "pad_high", "pad_wide")
    return dict(zip(names, (*window.kernel, *window.stride, *window.pad), strict=True))


def extent(size: Map) -> dict[str, int]:
    """height, width and channels, as kernels want them."""
    return {"height": size.height, "width": size.width, "channels": size.padded}


@dataclass
class Layout:
    """Steps in a space, for batches of up to `batch` images.

    convs     of each step of convolutions, by its number
    nodes     what runs the nodes that no kernel does
    packing   packs the weights
    halos     zeros around maps, where somebody wants them
    buffers   where each map lies: inference and training choose
    chained   steps whose chunks go on to the next step at once, in training
    """

    steps: StepList
    space: Space
    params: Arrays
    batch: int
    convs: dict[int, list[Convolution]] = field(default_factory=dict)
    nodes: dict[int, NodeRun] = field(default_factory=dict)
    packing: Sequence = field(default_factory=Sequence)
    halos: dict[int, Halo] = field(default_factory=dict)
    buffers: dict[int, View] = field(default_factory=dict)
    chained: set[int] = field(default_factory=set)

    def halo(self, number: int) -> Halo:
        """The zeros that the readers of a map want around it."""
        return self.halos.get(number, NONE)

    def count(self, i: int) -> int:
        """Images in a chunk of step i, which convolves."""
        return self.convs[i][0].count

    def back(self, i: int) -> int:
        """The same on the way back."""
        return self.convs[i][0].back

    def step(self, i: int) -> ConvStep | None:
        """Step i, if there is one and it convolves."""
        steps = self.steps.steps
        step = steps[i] if 0 <= i < len(steps) else None
        return step if isinstance(step, ConvStep) else None


def lay_out(
    steps: StepList,
    space: Space,
    params: Arrays,
    batch: int,
    precision: str,
    grads: Arrays | None = None,
    one_by_one: bool = False,
) -> Layout:
    """Everything but the buffers; with `grads` for training, `one_by_one` for `single`."""
    layout = Layout(steps, space, params, batch)
    pack, transform = layout.packing.each(), layout.packing.each()
    for i, step in enumerate(steps.steps):
        if isinstance(step, NodeStep):
            layout.nodes[i] = NodeRun(steps, step, params, grads)
        if not isinstance(step, ConvStep):
            continue
        layout.convs[i] = _convolutions(layout, i, step, precision, grads is not None, one_by_one)
        for conv in layout.convs[i]:
            halo = halo_of(conv.arm, conv.m, steps.maps[step.source], step.result)
            layout.halos[step.source] = layout.halo(step.source).around(halo)
            conv.weights.pack(pack, transform, conv.bias)
    if grads is not None:
        layout.chained = _chained(layout)
    return layout


def _chained(layout: Layout) -> set[int]:
    """Steps whose map only the next one reads, chunk by chunk, while all their weights stay in the cache.

    The map between the two is then read from the cache, and its gradient never leaves it. A squeeze goes on
    to its expands in any case.
    """
    found, weights = set(), 0
    for i, step in layout.steps.convs():
        before, after = layout.step(i - 1), layout.step(i + 1)
        own = _weights(layout, i)
        if after and _is_squeeze(step) and _goes_on(layout, i, step, after):
            own += _weights(layout, i + 1)
        goes_on = before is not None and _goes_on(layout, i - 1, before, step)
        if goes_on and _is_squeeze(before):
            found.add(i - 1)  # its weights count already
        elif goes_on and weights + own <= STAYING:
            found.add(i - 1)
            weights += own
        else:
            weights = own
    return found


def _weights(layout: Layout, i: int) -> int:
    """Bytes of a step's packed weights."""
    return sum(4 * conv.weights.floats for conv in layout.convs[i])


def _goes_on(layout: Layout, i: int, step: ConvStep, following: ConvStep) -> bool:
    """Does step i write what only the following one reads, and in the same chunks?"""
    return (
        following.source == step.target and len(layout.steps.readers(step.target)) == 1
        and step.norm is None and step.bypass is None
        and layout.count(i) == layout.count(i + 1) and layout.back(i) == layout.back(i + 1)
    )  # fmt: skip


def _is_squeeze(step: ConvStep | None) -> bool:
    """A single 1x1 convolution."""
    return (
        step is not None and len(step.arms) == 1
        and step.arms[0].window.is_pointwise and not step.pool
    )  # fmt: skip


def _is_grouped(layout: Layout, i: int, precision: str) -> bool:
    """Does step i go back in chunks twice as large, and its filters group by group?

    That is for Winograd weights that do not stay in the cache: they come from far half as often then. The
    tiles of such a chunk do stay, with the weights of a group. A squeeze goes with its expands.
    """
    step, following = layout.step(i), layout.step(i + 1)
    assert step
    if _is_squeeze(step) and following and following.source == step.target:
        return _is_grouped(layout, i + 1, precision)
    size, source, weights, tiles = step.result, layout.steps.maps[step.source].padded, 0, 0
    for arm in step.arms:
        if m := winograd_size(arm, step.source, size, precision):
            position = 4 * (m + arm.window.kernel[0] - 1) ** 2
            weights += position * source * TARGET.padded(arm.filters)
            images = max(1, 2 * CHUNK_PIXELS // size.pixels)
            count = images * -(-size.height // m) * -(-size.width // m)
            tiles = max(tiles, position * count * (2 * source + GROUP))
    return weights > STAYING > tiles


def _convolutions(
    layout: Layout, i: int, step: ConvStep, precision: str, training: bool, one_by_one: bool
) -> list[Convolution]:
    """The arms of a step."""
    space, source = layout.space, layout.steps.maps[step.source]
    grouped = training and _is_grouped(layout, i, precision)
    count, back = (
        chunk_size(step.result, layout.batch, space.threads, pixels)
        for pixels in (CHUNK_PIXELS, CHUNK_PIXELS * (1 + grouped))
    )
    positions = source.positions if step.source else np.arange(source.channels)
    bias = space.array(f"{step.name} bias", step.result.padded + 2 * TARGET.panel)  # whole panels
    made = []
    for arm in step.arms:
        m = winograd_size(arm, step.source, step.result, precision)
        own = {name: layout.params.get(f"{arm.path}/{name}") for name in ("weight", "bias")}
        needs_dx = training and step.source != 0
        in_panels = one_by_one and by_panels(m, step.result)
        halves = one_by_one and precision == "4x4" and layout.steps.is_head(i)
        halves = halves and strassen_pays(arm.window, source, arm.filters)
        weights = Weights(space, arm, source, m, own, needs_dx, in_panels, halves, GROUP * grouped)
        conv = Convolution(
            space, arm, weights, step.result, positions, count, back, bias[arm.offset :], step.low
        )
        made.append(conv)
    return made


def image_view(size: Map) -> View:
    """Map 0: the caller's images, whose channels are not padded."""
    return View.of(size, pixel=size.channels)


def padded_images(layout: Layout, count: int) -> View:
    """Scratch for images with the zeros around them that the first convolution wants."""
    size = layout.steps.maps[0]
    return layout.space.chunk("padded images", count, size, layout.halo(0), size.channels)


# --- jobs that inference and training share ------------------------------------------------------


def source_of(layout: Layout, step: ConvStep, chunks: Chunks) -> View:
    """What the convolutions of a step read; images are copied into padding if they need it."""
    view = layout.buffers[step.source]
    if step.source or layout.halo(0) == NONE:
        return view
    size, padded = layout.steps.maps[0], padded_images(layout, chunks.count)
    copy = job(
        copy_map, {"x": view.as_rows(), "y": padded.as_rows()},
        height=size.height, width=1, channels=size.width * size.channels,
    )  # fmt: skip
    chunks.add(copy)
    return padded


def convolve(layout: Layout, i: int, x: View, target: View, chunks: Chunks) -> None:
    """All arms of step i, chunk by chunk."""
    for conv in layout.convs[i]:
        chunks.add(*conv.forward(x, conv.part(target)))


def add_bypass(layout: Layout, number: int, result: View, chunks: Chunks) -> None:
    """result += the map that the bypass brings."""
    around = layout.buffers[number]
    if around.halo == NONE and result.halo == NONE:
        around, result = around.as_rows(), result.as_rows()
    chunks.add(map_job(add_map, around, result))


def map_job(kernel: Kernel, x: View, y: View) -> Job:
    """copy_map or add_map of all pixels."""
    size = {"height": x.height, "width": x.width, "channels": x.channels}
    return job(kernel, {"x": x, "y": y}, **size)


def join(layout: Layout, step: JoinStep, sequence: Sequence) -> None:
    """Copies the first map into its channels of the target, and adds the others."""
    y = layout.buffers[step.target].part(step.place, step.channels)
    for kernel, number in zip((copy_map, add_map), step.reads, strict=False):
        sequence.chunks(layout.batch).add(map_job(kernel, layout.buffers[number], y))
    sequence.close()


def pool_job(step: ConvStep, x: View, y: View, **more: Any) -> Job:
    """The max-pool at a step's end, from the map before it."""
    assert step.pool
    return job(
        max_pool, {"x": x, "y": y}, out_height=y.height, out_width=y.width,
        **extent(step.result), **window_fields(step.pool), **more,
    )  # fmt: skip


def mean(layout: Layout, step: MeanStep, x: View | None = None, panels: int = 1) -> Job:
    """The mean of all pixels of an image; of so many panels of channels a unit where `x` is given."""
    y = layout.buffers[step.target]
    return job(
        pixel_mean, {"x": x or layout.buffers[step.source]},
        **extent(layout.steps.maps[step.source]), y=y.array[y.start :],
        y_unit=0 if x else y.unit, by_panel=panels if x else 0,
    )  # fmt: skip
