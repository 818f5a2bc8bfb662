"""The backward pass of a training step: from the gradient of the logits to those of all weights.

Threads work on separate images from beginning to end, and wait for each other only around batch norm
(whose statistics are everybody's) and before the gradients are joined. The gradient of a map lives
in one of a few buffers that are used again and again; what is only needed within a chunk lives in
scratch memory.
"""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from tinysqueeze.compiled.convolution import Convolution
from tinysqueeze.compiled.forward import (
    chosen,
    drop,
    finish_norm,
    is_norm_beside,
    largest,
    norm_arrays,
    norm_sums,
    signs,
    unbent,
)
from tinysqueeze.compiled.layout import Arrays, Layout, extent, map_job, source_of, window_fields
from tinysqueeze.compiled.sequence import Chunks, Sequence
from tinysqueeze.compiled.space import NONE, Space, View, job
from tinysqueeze.compiled.steps import ConvStep, DropStep, JoinStep, MeanStep, NodeStep
from tinysqueeze.compiled.weights import Gradients, Sums
from tinysqueeze.kernels import TARGET
from tinysqueeze.kernels.kernel import Job
from tinysqueeze.kernels.norm import norm_backward, norm_gradient_finish, norm_gradient_sums
from tinysqueeze.kernels.pointwise import (
    add_map,
    copy_map,
    hard_swish_backward,
    mask,
    mask_by_signs,
)
from tinysqueeze.kernels.pooling import max_pool_backward
from tinysqueeze.kernels.products import clear
from tinysqueeze.kernels.team import Stage


def backward(layout: Layout, grads: Arrays, d: View) -> tuple[Sequence, Sequence]:
    """Fills `grads` from d, the gradient of the logits: first what clears the threads' sums; the work."""
    work, joining = Sequence(), Sequence()
    back = _Backward(
        layout, grads, work, MapGradients(layout, work, {layout.steps.output: d}),
        Gradients(layout.space), joining.each(),
    )  # fmt: skip
    for i, step in reversed(list(enumerate(layout.steps.steps))):
        match step:
            case ConvStep():
                back.convolution(i, step)
            case DropStep():
                drop(step, back.maps.of[step.source], layout.batch, work)
            case MeanStep():
                back.mean(step)
            case JoinStep():
                back.join(i, step)
            case NodeStep():
                back.node(i, step)
    work.extend(joining)
    return _cleared(layout.space, back.sums), work


def _cleared(space: Space, sums: Gradients) -> Sequence:
    """The threads' sums at the beginning: zeros."""
    array, stride = space.scratch("gradients", sums.size)
    start = Sequence()
    vectors = sums.size // TARGET.lanes
    start.own().add(clear.job(x=array, x_thread=stride, vectors=vectors))
    return start


@dataclass
class MapGradients:
    """The gradients of maps, as far as they are known, in buffers that are used again and again."""

    layout: Layout
    sequence: Sequence
    of: dict[int, View]
    held: dict[int, int] = field(default_factory=dict)  # map -> its gradient's buffer
    free: list[int] = field(default_factory=list)  # buffers that nobody needs at the moment
    used: list[int] = field(default_factory=list)  # and those that will be free after this stage
    image_size: dict[int, int] = field(default_factory=dict)  # buffer -> floats, when last used

    def new(self, number: int) -> View:
        """A buffer for the gradient of a map, one that is free or a new one.

        Where images were of another size the last time, a thread's images now lie where another
        thread's may still be read: then everybody waits before this stage.
        """
        buffer = self.free.pop() if self.free else len(self.image_size)
        self.held[number] = buffer
        layout = self.layout
        size, halo = layout.steps.maps[number], layout.halo(number)
        view = layout.space.buffer(f"gradient {buffer}", layout.batch, size, halo)
        if self.image_size.get(buffer, view.unit) != view.unit:
            self.sequence.wait_before()
        self.image_size[buffer] = view.unit
        self.of[number] = view
        return view

    def hand_over(self, number: int, to: int) -> None:
        """The gradient of a map is that of another as well, and its buffer now belongs to that."""
        self.held[to] = self.held.pop(number)

    def towards(self, number: int) -> tuple[View, bool]:
        """Where the gradient of a map goes, and whether something is there to be added to."""
        known = self.of.get(number)
        return (self.new(number), False) if known is None else (known, True)

    def release(self, number: int) -> None:
        """The gradient of a map will have been used when this stage is over."""
        if number in self.held:
            self.used.append(self.held.pop(number))

    def close(self) -> None:
        """The stage at hand is complete."""
        self.sequence.close()
        self.free += self.used
        self.used = []


@dataclass
class _Backward:
    """What the steps of the backward pass write to: jobs, gradients of maps, sums of the threads."""

    layout: Layout
    grads: Arrays
    work: Sequence
    maps: MapGradients
    sums: Gradients
    joining: Stage
    masked: dict[int, Sums] = field(default_factory=dict)  # map -> sums for biases, on the way
    last: list[Job] = field(default_factory=list)  # of the step at hand, when dx is complete

    # --- steps without weights ------------------------------------------------------------------

    def node(self, i: int, step: NodeStep) -> None:
        """By its layer."""
        d = self.maps.of[step.target]
        towards = [self.maps.towards(number) for number in step.reads if number]
        self.work.call(self.layout.nodes[i].backward(d, towards))
        self._done(i, step.target)

    def join(self, i: int, step: JoinStep) -> None:
        """Every map that was read gets the gradient of its channels."""
        part = self.maps.of[step.target].part(step.place, step.channels)
        for number in step.reads:
            if number:
                self._hand_on(part, number, self.work.chunks(self.layout.batch))
        self._done(i, step.target)

    def _done(self, i: int, target: int) -> None:
        """The step needs the gradient of its map no more; nor does anybody, if it was the first writer."""
        if i == next(k for k, s in enumerate(self.layout.steps.steps) if s.target == target):
            del self.maps.of[target]
            self.maps.release(target)
        self.maps.close()

    def _hand_on(self, d: View, number: int, chunks: Chunks) -> None:
        """d is copied to, or added to, the gradient of a map."""
        to, add = self.maps.towards(number)
        chunks.add(map_job(add_map if add else copy_map, d, to))

    def mean(self, step: MeanStep) -> None:
        """Each pixel gets the same share: dlogits seen with strides of 0, or copied out."""
        d, x = self.maps.of.pop(step.target), self.layout.buffers[step.source]
        spread = replace(d, row=0, pixel=0, height=x.height, width=x.width)
        steps = self.layout.steps
        writer = next(s for s in steps.steps if s.target == step.source)
        plain = isinstance(writer, ConvStep) and not writer.pool and writer.bypass is None
        if plain and len(steps.readers(step.source)) == 1:
            self.maps.of[step.source] = spread
        else:
            self._hand_on(spread, step.source, self.work.chunks(self.layout.batch))
            self.maps.close()

    # --- convolutions ---------------------------------------------------------------------------

    def convolution(self, i: int, step: ConvStep) -> None:
        """Through pool, bypass, activation and norm; then to the weights and to the source."""
        d, convs = self.maps.of.pop(step.target), self.layout.convs[i]
        chunks = self.work.chunks(self.layout.back(i))
        around = self._bypass(step, d, chunks)
        before = d if around is None else around
        masked = self.masked.pop(step.target, None)
        totals = masked or self._bias_sums(step)
        if step.norm:
            self._norm_sums(i, step, before, chunks)
            chunks = self.work.chunks(self.layout.back(i))
            if around is not None:  # once more: scratch does not outlive its chunk
                before = self._unpooled(step, d, chunks)
            dense = self._norm(i, step, before, chunks)
        elif masked is not None:
            dense = self._unpooled(step, d, chunks)
        else:
            dense = self._activation(i, step, before, chunks, totals, around is not None)
        x = source_of(self.layout, step, chunks)
        dx, add = self._dx(i, step, chunks)
        for conv in sorted(convs, key=lambda conv: bool(conv.m)):
            self._arm(conv, x, conv.part(dense), dx, add, chunks)
            if conv.arm.bias:
                own = totals[0][conv.arm.offset :], totals[1]
                conv.weights.bias_gradient(own, self.grads[f"{conv.arm.path}/bias"], self.joining)
            add = True
        if dx is not None:
            self._mask_source(step, dx, chunks)
        chunks.add(*self.last)
        self.last.clear()
        self.maps.release(step.target)
        if not (i - 1 in self.layout.chained or is_norm_beside(self.layout, i - 1, i)):
            self.maps.close()

    def _arm(
        self, conv: Convolution, x: View, d: View, dx: View | None, add: bool, chunks: Chunks
    ) -> None:
        made = conv.backward(x, d, dx, add, self.sums, len(chunks.before.jobs))
        chunks.before.add(*made.before)
        chunks.add(*made.jobs)
        self.last.extend(made.last)
        chunks.after.add(*made.after)
        weight = self.grads[f"{conv.arm.path}/weight"]
        conv.weights.gradient(made.sums, x.pixel, weight, self.joining)

    def _dx(self, i: int, step: ConvStep, chunks: Chunks) -> tuple[View | None, bool]:
        """Where the gradient to the source goes, and whether something is there already."""
        if not step.source:
            return None, False
        if step.source not in self.maps.of and i - 1 in self.layout.chained:
            layout = self.layout
            size, halo = layout.steps.maps[step.source], layout.halo(step.source)
            # what the next step reads of it must not lie where it writes: they take turns
            dx = layout.space.chunk(f"gradient between {i % 2}", chunks.count, size, halo)
            self.maps.of[step.source], add = dx, False
        else:
            dx, add = self.maps.towards(step.source)
        only_adds = all(conv.m for conv in self.layout.convs[i])
        if only_adds and not add:
            whole = dx.whole()
            chunks.add(job(clear, {"x": whole}, vectors=whole.channels // TARGET.lanes))
        return dx, add or only_adds

    # --- what follows the convolutions ----------------------------------------------------------

    def _dense(self, name: str, chunks: Chunks, step: ConvStep) -> View:
        return self.layout.space.chunk(name, chunks.count, step.result)

    def _unpool(self, step: ConvStep, d: View, to: View, **norm: Any) -> Job:
        assert step.pool
        target = self.layout.steps.maps[step.target]
        return job(
            max_pool_backward, {"d": d, "dx": to}, out_height=target.height,
            out_width=target.width, **extent(step.result), **largest(self.layout, step),
            **window_fields(step.pool), **norm,
        )  # fmt: skip

    def _unpooled(self, step: ConvStep, d: View, chunks: Chunks) -> View:
        """d as the gradient of the map before the pool."""
        if not step.pool:
            return d
        to = self._dense("unpooled", chunks, step)
        chunks.add(self._unpool(step, d, to))
        return to

    def _bypass(self, step: ConvStep, d: View, chunks: Chunks) -> View | None:
        """The gradient of the sum, if there is a bypass, handed on to the map that is added.

        Where that has none yet, and lies as this one's, it gets the buffer itself.
        """
        if step.bypass is None:
            return None
        alike = d.halo == self.layout.halo(step.bypass)
        first = step.bypass not in self.maps.of
        if first and alike and not step.pool and step.target in self.maps.held:
            self.maps.hand_over(step.target, step.bypass)
            self.maps.of[step.bypass] = d
            return d
        around = self._unpooled(step, d, chunks)
        self._hand_on(around, step.bypass, chunks)
        return around

    def _mask(self, d: View, y: View, z: View, totals: Sums, low: float) -> Job:
        """z = d where y is above `low`, summed up for the biases."""
        return job(
            mask, {"d": d, "y": y, "z": z}, height=z.height, width=z.width, channels=z.channels,
            total=totals[0], total_thread=totals[1], floor=low,
        )  # fmt: skip

    def _bias_sums(self, step: ConvStep) -> Sums:
        """Room for the sums for the biases of all arms, and for those of a row."""
        return self.sums.reserve(2 * step.result.padded)

    def _mask_source(self, step: ConvStep, dx: View, chunks: Chunks) -> None:
        """If dx is all that a map gets, it is masked at once: map and dx are in the cache."""
        number, steps = step.source, self.layout.steps
        own_memory = number in self.maps.held or dx.unit == 0
        complete = steps.readers(number)[0] is step and own_memory
        writers = [s for s in steps.steps if s.target == number]
        match writers:
            case [ConvStep(norm=None, bypass=None) as own] if complete and dx.halo == NONE:
                if not own.bends:
                    totals = self.masked[number] = self._bias_sums(own)
                    y = self.layout.buffers[number]
                    chunks.add(self._mask(dx, y, dx, totals, own.low))

    def _activation(
        self, i: int, step: ConvStep, d: View, chunks: Chunks, totals: Sums,
        unpooled: bool,
    ) -> View:  # fmt: skip
        """d through ReLU and pool, dense, for the arms; the biases' gradients are summed on the way."""
        dense = self._dense("dense gradient", chunks, step)
        y = self.layout.buffers[step.target]
        if step.bends:
            before = {"d": d if unpooled else self._unpooled(step, d, chunks)}
            before |= {"x": unbent(self.layout, i, step), "z": dense}
            made = job(
                hard_swish_backward, before, total=totals[0], total_thread=totals[1],
                **extent(step.result),
            )  # fmt: skip
            chunks.add(made)
        elif unpooled and step.activation:
            made = job(
                mask_by_signs, {"d": d, "z": dense}, total=totals[0], total_thread=totals[1],
                **extent(step.result), **signs(self.layout, step),
            )  # fmt: skip
            chunks.add(made)
        elif unpooled:
            chunks.add(self._mask(d, d, dense, totals, -np.inf))
        elif step.pool:  # the largest of a window is positive exactly if what it came from is
            target = self.layout.steps.maps[step.target]
            masked = self.layout.space.chunk("masked", chunks.count, target)
            chunks.add(self._mask(d, y, masked, totals, step.low))
            chunks.add(self._unpool(step, masked, dense))
        else:
            chunks.add(self._mask(d, y, dense, totals, step.low))
        return dense

    def _norm_sums(self, i: int, step: ConvStep, d: View, chunks: Chunks) -> None:
        """dweight and dbias of the norm, and what dx needs of the whole batch.

        Below a pool dy is zero but for each window's largest pixel, which `chosen` has side by side.
        """
        assert step.norm
        layout, size = self.layout, step.result
        known = norm_arrays(layout, i, step, "scale mean inverse")
        z = chosen(layout, step) if step.pools_norm else unbent(layout, i, step)
        sums = norm_sums(layout.space, layout.batch, size)
        made = job(
            norm_gradient_sums, {"d": d}, x=z.array, x_next=z.next, height=z.height,
            width=z.width, channels=size.padded, sums=sums, **step.bounds, **known,
            **norm_arrays(layout, i, step, "shift"),
        )  # fmt: skip
        chunks.add(made)
        self.maps.close()
        own = {f"d{n}": self.grads[f"{step.norm.path}/{n}"] for n in ("weight", "bias")}
        known |= norm_arrays(layout, i, step, "a b c")
        finish_norm(norm_gradient_finish, step, own, known | {"sums": sums}, self.work)

    def _norm(self, i: int, step: ConvStep, d: View, chunks: Chunks) -> View:
        """d through the pool, activation and batch norm, dense.

        The convolutions' biases move all numbers of a channel alike, which the norm takes out again:
        their gradients are 0, and so nothing is summed for them.
        """
        dense, z = self._dense("dense gradient", chunks, step), unbent(self.layout, i, step)
        known: dict[str, Any] = dict(norm_arrays(self.layout, i, step, "scale shift a b c"))
        known |= {"x": z.array, "x_next": z.next, **step.bounds}
        if step.pools_norm:
            chunks.add(self._unpool(step, d, dense, normed=1, **known))
        else:
            made = job(norm_backward, {"d": d, "z": dense}, **extent(step.result), **known)
            chunks.add(made)
        return dense
