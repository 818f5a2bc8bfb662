"""The forward pass of a training step: as inference, but it keeps what the backward pass will need.

Kept are every map that somebody reads, the number of the largest pixel in each pooling window (one
byte), where ReLU was open below a bypass (one byte), and the convolutions' results before a batch
norm or a hard-swish. Maps between a convolution and its pool exist only chunk by chunk.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from tinysqueeze.compiled.layout import (
    Layout,
    add_bypass,
    convolve,
    extent,
    image_view,
    join,
    mean,
    pool_job,
    source_of,
)
from tinysqueeze.compiled.phases import phases_job
from tinysqueeze.compiled.sequence import Chunks, Given, Sequence
from tinysqueeze.compiled.space import Space, View, job
from tinysqueeze.compiled.steps import (
    ConvStep,
    DropStep,
    JoinStep,
    Map,
    MeanStep,
    NodeStep,
    PhaseStep,
    StepList,
)
from tinysqueeze.kernels import TARGET
from tinysqueeze.kernels.head import softmax_cross_entropy
from tinysqueeze.kernels.norm import norm_apply, norm_finish, norm_moments
from tinysqueeze.kernels.pointwise import dropout, hard_swish, remember_signs


def kept_maps(layout: Layout) -> dict[int, View]:
    """A buffer for every map, which outlives the forward pass."""
    steps = layout.steps
    maps = {
        n: layout.space.buffer(f"map {n}", layout.batch, steps.maps[n], layout.halo(n))
        for n in sorted(steps.written - {0})
    }
    return maps | {0: image_view(steps.maps[0])}


def forward(layout: Layout) -> Sequence:
    """Every step's map, up to the logits."""
    return each_step(layout, Sequence(), _convolution)


def each_step(
    layout: Layout,
    sequence: Sequence,
    convolution: Callable[[Layout, int, ConvStep, Sequence], None],
) -> Sequence:
    """Appends every step to a sequence, those that convolve by `convolution`."""
    for i, step in enumerate(layout.steps.steps):
        match step:
            case ConvStep():
                convolution(layout, i, step, sequence)
            case DropStep():
                drop(step, layout.buffers[step.source], layout.batch, sequence)
            case MeanStep():
                sequence.chunks(layout.batch).add(mean(layout, step))
            case JoinStep():
                join(layout, step, sequence)
            case PhaseStep():
                x, y = (layout.buffers[n] for n in (step.source, step.target))
                sequence.chunks(layout.batch).add(phases_job(layout, step, x, y))
                sequence.close()
            case NodeStep():
                sequence.call(layout.nodes[i].forward(layout.buffers))
    return sequence


def _convolution(layout: Layout, i: int, step: ConvStep, sequence: Sequence) -> None:
    y = layout.buffers[step.target]
    chunks = sequence.chunks(layout.count(i))
    x = source_of(layout, step, chunks)
    result = layout.space.chunk("result", chunks.count, step.result) if step.pool else y
    if step.norm:
        convolve(layout, i, x, unbent(layout, i, step), chunks)
        chunks = _norm(layout, i, step, result, sequence)
    else:
        first = unbent(layout, i, step) if step.bends else result
        convolve(layout, i, x, first, chunks)
        if step.bends:
            chunks.add(job(hard_swish, {"x": first, "y": result}, **extent(step.result)))
        if step.bypass is not None:
            if step.activation and not step.bends:
                noted = signs(layout, step) | extent(step.result)
                chunks.add(job(remember_signs, {"y": result}, **noted))
            add_bypass(layout, step.bypass, result, chunks)
    if step.pool and not step.pools_norm:
        chunks.add(pool_job(step, result, y, remember=1, **largest(layout, step)))
    if not (i in layout.chained or is_norm_beside(layout, i, i + 1)):
        sequence.close()


def is_norm_beside(layout: Layout, i: int, other: int) -> bool:
    """Does step i, after its batch norm, hand chunks on to a convolution that takes them as they are?

    Between the two a map is still in the cache. Without a norm, `Layout.chained` decides.
    """
    step, beside = layout.step(i), layout.step(other)
    return (
        step is not None and beside is not None
        and step.norm is not None and layout.count(i) == layout.count(other)
        and layout.back(i) == layout.back(other)
    )  # fmt: skip


# --- what is kept ------------------------------------------------------------------------------


def unbent(layout: Layout, i: int, step: ConvStep) -> View:
    """The convolutions' result, kept for the backward pass of a batch norm or a hard-swish."""
    return layout.space.buffer(f"unbent {i}", layout.batch, step.result)


def largest(layout: Layout, step: ConvStep) -> dict[str, Any]:
    """Which pixel of each window was the largest: the argument of the pool's kernels."""
    target = layout.steps.maps[step.target]
    unit = target.pixels * target.padded
    array = layout.space.array(f"argmax {step.target}", layout.batch * unit, np.uint8)
    return {"argmax": array, "argmax_unit": unit}


def signs(layout: Layout, step: ConvStep) -> dict[str, Any]:
    """Where ReLU was open, below a bypass: the argument of the kernels."""
    unit = step.result.pixels * step.result.padded
    array = layout.space.array(f"signs {step.target}", layout.batch * unit, np.uint8)
    return {"signs": array, "signs_unit": unit}


def chosen(layout: Layout, step: ConvStep) -> View:
    """What the largest number of each pooling window was before norm and activation."""
    target = layout.steps.maps[step.target]
    return layout.space.buffer(f"chosen {step.target}", layout.batch, target)


# --- dropout -----------------------------------------------------------------------------------


def drop(step: DropStep, view: View, batch: int, sequence: Sequence) -> None:
    """Dropout of a map or of its gradient, in place; rows of both lie alike."""
    made = dropout.job(
        x=view.array, size=view.next, seed=0, threshold=round(step.rate * 2**32),
        scale=1 / (1 - step.rate),
    )  # fmt: skip
    sequence.before_run(lambda given: made.set(seed=drop_seed(given.seed, step)))
    sequence.chunks(batch).add(made)
    sequence.close()


def drop_seed(seed: int, step: DropStep) -> int:
    """A seed for each dropout from the seed of the training step, an int64."""
    state = np.random.SeedSequence([seed, step.number]).generate_state(1, np.uint64)
    return int(state[0]) - 2**63


def drop_mask(step: DropStep, view: View, size: Map, seed: int, images: int) -> np.ndarray:
    """What `kernels.pointwise.dropout` multiplies a map by, worked out once more in NumPy.

    (N, H, W, C) float32.
    """
    n, i, j, _ = np.ogrid[:images, : size.height, : size.width, :1]
    place = n * view.next + i * view.row + j * view.pixel + size.positions + view.start
    mixed = drop_seed(seed, step)
    bits = place.astype(np.uint32)
    for half in (mixed & 0xFFFFFFFF, (mixed >> 32) & 0xFFFFFFFF):
        bits ^= np.uint32(half)
        bits = (bits ^ (bits >> np.uint32(16))) * np.uint32(0x7FEB352D)
        bits = (bits ^ (bits >> np.uint32(15))) * np.uint32(0x846CA68B)
        bits ^= bits >> np.uint32(16)
    kept = bits >= np.uint32(round(step.rate * 2**32))
    return kept * np.float32(1 / (1 - step.rate))


# --- batch norm --------------------------------------------------------------------------------


def norm_arrays(layout: Layout, i: int, step: ConvStep, names: str) -> dict[str, np.ndarray]:
    """Numbers for each channel that the norm's kernels hand to each other."""
    size = step.result.padded
    return {n: layout.space.array(f"norm {i} {n}", size) for n in names.split()}


def norm_sums(space: Space, batch: int, size: Map) -> np.ndarray:
    """Two numbers for each image and channel."""
    return space.array("norm sums", 2 * batch * size.padded)


def segments(size: Map) -> Iterator[tuple[int, slice]]:
    """(first padded place, slice of the unpadded arrays) for each segment of the channels."""
    place = start = 0
    for segment in size.segments:
        yield place, slice(start, start + segment)
        start += segment
        place += TARGET.padded(segment)


def finish_norm(
    kernel: Any, step: ConvStep, own: dict[str, np.ndarray], known: dict[str, Any],
    sequence: Sequence,
) -> None:  # fmt: skip
    """A kernel that joins the images' sums, channel by channel; `own` arrays have no padding."""
    stage = sequence.each()

    def setting(given: Given) -> None:
        for made, _ in stage.jobs:
            made.set(images=len(given.images))

    sequence.before_run(setting)
    for place, part in segments(step.result):
        made = kernel.job(
            images=0, pixels=step.result.pixels, channels=step.result.padded, places=place,
            **{name: array[part] for name, array in own.items()}, **known,
        )  # fmt: skip
        stage.add(made, units=part.stop - part.start)


def _norm(layout: Layout, i: int, step: ConvStep, result: View, sequence: Sequence) -> Chunks:
    """Statistics of the whole batch, then y = x * scale + shift, activated; returns the open stage."""
    norm, z, size = step.norm, unbent(layout, i, step), step.result
    assert norm
    moments = norm_sums(layout.space, layout.batch, size)
    sequence.chunks(layout.count(i)).add(
        norm_moments.job(
            x=z.array, x_next=z.next, pixels=size.pixels, channels=size.padded, moments=moments
        )
    )
    own = {n: layout.params[f"{norm.path}/{n}"] for n in ("weight", "bias", "mean", "var")}
    arrays = norm_arrays(layout, i, step, "scale shift mean inverse")
    known: dict[str, Any] = {"scale": arrays["scale"], "shift": arrays["shift"]}
    finish_norm(
        norm_finish, step, own,
        known | {"moments": moments, "mean_out": arrays["mean"], "inverse": arrays["inverse"],
                 "eps": norm.eps, "momentum": norm.momentum},
        sequence,
    )  # fmt: skip
    chunks = sequence.chunks(layout.count(i))
    known |= step.bounds
    if step.pools_norm:
        known |= {"normed": 1, "remember": 1, "chosen": chosen(layout, step).array}
        known |= largest(layout, step)
        chunks.add(pool_job(step, z, layout.buffers[step.target], **known))
        return chunks
    around = {"around": layout.buffers[step.bypass]} if step.bypass is not None else {}
    made = job(
        norm_apply, {"y": result} | around, x=z.array, x_next=z.next, adds=bool(around),
        **extent(size), **known,
    )  # fmt: skip
    chunks.add(made)
    return chunks


# --- loss --------------------------------------------------------------------------------------


def loss(layout: Layout, sequence: Sequence) -> tuple[np.ndarray, np.ndarray, View]:
    """Appends softmax cross-entropy: losses and hits (batch,), and the gradient of the logits."""
    steps, space, batch = layout.steps, layout.space, layout.batch
    logits, size = layout.buffers[steps.output], steps.maps[steps.output]
    shares = space.array("shares of labels", batch * size.channels)
    losses, hits = space.array("losses", batch), space.array("hits", batch, np.int32)
    d = space.buffer("gradient of logits", batch, size)
    made = softmax_cross_entropy.job(
        logits=logits.array, stride=logits.unit, classes=size.channels, shares=shares,
        dlogits=d.array, losses=losses, hits=hits, smoothing=0, scale=0,
    )  # fmt: skip
    pixels = mean_pixels(steps)

    def setting(given: Given) -> None:
        assert given.shares is not None
        shares[: given.shares.size] = given.shares.ravel()
        made.set(smoothing=given.smoothing, scale=1 / pixels / len(given.images))

    sequence.before_run(setting)
    sequence.chunks(batch).add(made)
    return losses, hits, d


def mean_pixels(steps: StepList) -> int:
    """Pixels whose mean the logits are, each of which gets an equal share of their gradient."""
    for step in steps.steps:
        if isinstance(step, MeanStep):
            return steps.maps[step.source].pixels
    return 1
