"""Inference as one program: nothing is kept that the backward pass would need.

A map's memory is free again as soon as its last reader is done, so a plan needs about as much as the
largest two neighbouring maps; squeezed maps exist only chunk by chunk, in scratch memory.
"""

from dataclasses import replace

from tinysqueeze.compiled.forward import each_step
from tinysqueeze.compiled.layout import (
    Layout,
    add_bypass,
    convolve,
    extent,
    image_view,
    pool_job,
    source_of,
)
from tinysqueeze.compiled.sequence import Sequence
from tinysqueeze.compiled.space import LINE, NONE, View, job
from tinysqueeze.compiled.steps import ConvStep
from tinysqueeze.devices.memory import Buffer, lowest_fit
from tinysqueeze.kernels.pointwise import hard_swish

# --- maps ----------------------------------------------------------------------------------------


def squeezed_maps(layout: Layout) -> dict[int, int]:
    """Maps that are only needed within a chunk, made and used by neighbouring steps; and the first."""
    found = {}
    for i, step in layout.steps.convs():
        following = layout.step(i + 1)
        if (
            following is not None and following.source == step.target
            and len(layout.steps.readers(step.target)) == 1
            and layout.count(i) == layout.count(i + 1)
            and following.result.pixels == step.result.pixels
            and step.target != layout.steps.output
        ):  # fmt: skip
            found[step.target] = i
    return found


def passing_maps(layout: Layout, squeezed: dict[int, int]) -> dict[int, View]:
    """A place for every map, used again for others when its last reader is done."""
    steps, space = layout.steps, layout.space
    views = {0: image_view(steps.maps[0])}
    sizes = {
        n: layout.batch * steps.maps[n].pixels * steps.maps[n].padded
        for n in sorted(steps.written - {0, steps.output} - set(squeezed))
        if layout.halo(n) == NONE
    }
    places = arena(layout, sizes, squeezed)
    for n in sorted(steps.written - {0}):
        size, halo = steps.maps[n], layout.halo(n)
        if n in squeezed:
            # two neighbours of the same size must not share their memory; the halo stays zero
            name, i = f"squeezed {size} {halo} {squeezed[n] % 2}", squeezed[n]
            views[n] = space.chunk(name, layout.count(i), size, halo)
        elif n in places:
            space.array("maps", places[n] + sizes[n])
            views[n] = replace(space.buffer("maps", layout.batch, size), start=places[n])
        else:
            views[n] = space.buffer(f"map {n}", layout.batch, size, halo)
    return views


def arena(layout: Layout, sizes: dict[int, int], squeezed: dict[int, int]) -> dict[int, int]:
    """A place in one arena for each map, so that maps that live at the same time do not overlap.

    Time is counted in stages, between which the threads wait for each other. The largest first,
    each as low as it fits: for a chain of maps that is as good as it gets.
    """
    stage = 0
    born: dict[int, int] = {}
    dies: dict[int, int] = {}
    for step in layout.steps.steps:
        born.setdefault(step.target, stage)
        dies |= dict.fromkeys((*step.reads, step.target), stage)
        stage += step.target not in squeezed
    numbers = sorted(sizes, key=lambda n: -sizes[n])
    buffers = [Buffer(f"map {n}", -(-sizes[n] // LINE) * LINE, born[n], dies[n]) for n in numbers]
    return dict(zip(numbers, lowest_fit(buffers, {}, range(len(buffers))), strict=True))


# --- steps ---------------------------------------------------------------------------------------


def inference(layout: Layout) -> Sequence:
    """The logits of a batch."""
    squeezed = squeezed_maps(layout)
    layout.buffers = passing_maps(layout, squeezed)

    def convolution(layout: Layout, i: int, step: ConvStep, sequence: Sequence) -> None:
        _convolution(layout, i, step, sequence)
        if step.target not in squeezed:
            sequence.close()

    return each_step(layout, Sequence(wait=True), convolution)


def _convolution(layout: Layout, i: int, step: ConvStep, sequence: Sequence) -> None:
    y = layout.buffers[step.target]
    chunks = sequence.chunks(layout.count(i))
    x = source_of(layout, step, chunks)
    result = layout.space.chunk("result", chunks.count, step.result) if step.pool else y
    convolve(layout, i, x, result, chunks)
    if step.activation == "hard-swish":
        chunks.add(job(hard_swish, {"x": result, "y": result}, **extent(step.result)))
    if step.bypass is not None:
        add_bypass(layout, step.bypass, result, chunks)
    if step.pool:
        chunks.add(pool_job(step, result, y))
