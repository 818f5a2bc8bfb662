"""A training step as programs: pack the weights, forward, loss, backward, join the gradients.

Threads work on separate images from beginning to end, and wait for each other only around batch norm
(whose statistics are everybody's) and before the gradients are joined. The gradient of a map lives
in one of a few buffers that are used again and again; what is only needed within a chunk lives in
scratch memory.
"""

from dataclasses import replace
from typing import Any

import numpy as np

from tinysqueeze.compiled.convolution import Convolution
from tinysqueeze.compiled.forward import ForwardPass
from tinysqueeze.compiled.layout import window_fields
from tinysqueeze.compiled.network import (
    ConvStep,
    DropStep,
    LayerStep,
    Map,
    MeanStep,
    Network,
    Step,
)
from tinysqueeze.compiled.sequence import Chunks, Runnable, Sequence
from tinysqueeze.compiled.weights import Gradients
from tinysqueeze.compiled.workspace import NONE, View, Workspace, job
from tinysqueeze.kernels import TARGET
from tinysqueeze.kernels.kernel import Job
from tinysqueeze.kernels.norm import norm_backward, norm_gradient_finish, norm_gradient_sums
from tinysqueeze.kernels.pointwise import add_map, copy_map, mask, mask_by_signs
from tinysqueeze.kernels.pooling import max_pool_backward
from tinysqueeze.kernels.products import clear
from tinysqueeze.kernels.team import Team
from tinysqueeze.network.ops.reference import label_shares


class TrainingStep(ForwardPass):
    """The programs of one training step, in a workspace. `run` does a step up to the gradients."""

    def __init__(
        self,
        network: Network,
        workspace: Workspace,
        params: dict[str, np.ndarray],
        grads: dict[str, np.ndarray],
        batch: int,
        precision: str,
    ) -> None:
        super().__init__(network, workspace, params, grads, batch, precision)
        self.gradients = Gradients(workspace)
        self.backward, self.joining = Sequence(), Sequence()
        self.join_stage = self.joining.each()
        self.free: list[int] = []  # gradient buffers that nobody needs at the moment
        self.used: list[int] = []  # and those that will be free after the stage at hand
        self.held: dict[int, int] = {}  # map -> its gradient's buffer
        self.image_size: dict[int, int] = {}  # buffer -> floats of an image when last used
        self.loss_share = 1.0  # of a pixel in the logits
        for i in reversed(range(len(network.steps))):
            self._backward(i, network.steps[i])
        self._finish()

    # --- backward -------------------------------------------------------------------------------

    def _new_gradient(self, number: int) -> View:
        """A buffer for the gradient of a map, one that is free or a new one.

        Where images were of another size the last time, a thread's images now lie where another
        thread's may still be read: then everybody waits before this stage.
        """
        buffer = self.free.pop() if self.free else len(self.image_size)
        self.held[number] = buffer
        size, halo = self.network.maps[number], self._halo(number)
        view = self.workspace.buffer(f"gradient {buffer}", self.batch, size, halo)
        if self.image_size.get(buffer, view.unit) != view.unit:
            self.backward.wait_before()
        self.image_size[buffer] = view.unit
        self.gradient_of[number] = view
        return view

    def _release(self, number: int) -> None:
        """The gradient of a map will have been used when this stage is over."""
        if number in self.held:
            self.used.append(self.held.pop(number))

    def _close_backward(self) -> None:
        """The stage at hand is complete."""
        self.backward.close()
        self.free += self.used
        self.used = []

    def _backward(self, i: int, step: Step) -> None:
        match step:
            case ConvStep():
                self._conv_backward(i, step)
            case DropStep():
                self._drop(self.backward, step, self.gradient_of[step.source])
            case MeanStep():
                self._mean_backward(i, step)
            case LayerStep():
                d = self.gradient_of.pop(step.target)
                dx = add = None
                if step.source:
                    add = step.source in self.gradient_of
                    dx = self.gradient_of.get(step.source) or self._new_gradient(step.source)
                runner = next(r for r in self.layers if r.step is step)
                self.backward.call(runner.backward(d, dx, bool(add)))
                self._release(step.target)
                self._close_backward()

    def _mean_backward(self, i: int, step: MeanStep) -> None:
        """Each pixel gets the same share: dlogits seen with strides of 0, or copied out."""
        d = self.gradient_of.pop(step.target)
        x = self.views[step.source]
        self.loss_share = 1 / (x.height * x.width)
        spread = replace(d, row=0, pixel=0, height=x.height, width=x.width)
        writer = self.network.steps[i - 1]
        if isinstance(writer, ConvStep) and not writer.pool and writer.bypass is None:
            self.gradient_of[step.source] = spread
            return
        dx = self._new_gradient(step.source)
        copy = job(copy_map, {"x": spread, "y": dx}, height=x.height, width=x.width,
                   channels=x.channels)  # fmt: skip
        self.backward.chunks(self.batch).add(copy)

    def _conv_backward(self, i: int, step: ConvStep) -> None:
        d, convs = self.gradient_of.pop(step.target), self.convs[i]
        chunks = self.backward.chunks(convs[0].count)
        around = self._bypass_gradient(step, d, chunks)
        if step.norm:
            self._norm_backward_sums(i, step, d if around is None else around, chunks)
            chunks = self.backward.chunks(convs[0].count)
            if around is not None:  # once more: scratch does not outlive its chunk
                around = self._unpooled(step, d, chunks)
            dense = self._norm_backward(i, step, d if around is None else around, chunks)
        else:
            dense = self._relu_backward(
                step, d if around is None else around, chunks, around is not None
            )
        x = self._input(step, chunks)
        dx, add = self._dx(i, step, chunks)
        for number, conv in sorted(enumerate(convs), key=lambda numbered: bool(numbered[1].m)):
            part = dense.part(conv.arm.offset, conv.weights.filters)
            self._arm_backward(conv, x, part, dx, add, chunks, number)
            self._join_bias(conv, step, conv.arm.offset)
            add = True
        self._release(step.target)
        if not (i and (self._is_squeeze(i - 1) or self._is_norm_beside(i - 1, i))):
            self._close_backward()

    def _arm_backward(self, conv, x, d, dx, add, chunks: Chunks, number: int) -> None:
        made = conv.backward(x, d, dx, add, self.gradients, number)
        self._note_images(made.jobs, x)
        for one in made.before:
            chunks.before.add(one)
        chunks.add(*made.jobs)
        for one in made.after:
            chunks.after.add(one)
        conv.weights.gradient(
            made.sums, x.pixel, self.grads[f"{conv.arm.path}/weight"], self.join_stage
        )

    def _dx(self, i: int, step: ConvStep, chunks: Chunks) -> tuple[View | None, bool]:
        """Where the gradient to the source goes, and whether something is there already."""
        if not step.source:
            return None, False
        if step.source in self.gradient_of:
            return self.gradient_of[step.source], True
        if i and self._is_squeeze(i - 1):
            size = self.network.maps[step.source]
            halo = self._halo(step.source)
            dx = self.workspace.chunk("gradient of squeezed", chunks.count, size, halo)
            self.gradient_of[step.source] = dx
        else:
            dx = self._new_gradient(step.source)
        only_adds = all(conv.m for conv in self.convs[i])
        if only_adds:
            whole = dx.whole()
            chunks.add(job(clear, {"x": whole}, vectors=whole.channels // TARGET.lanes))
        return dx, only_adds

    def _total(self, step: ConvStep) -> tuple[np.ndarray, int]:
        """The threads' sums for the biases of all arms of a step."""
        self.bias_sums = self.gradients.reserve(step.result.padded)
        return self.bias_sums

    def _join_bias(self, conv: Convolution, step: ConvStep, offset: int) -> None:
        if conv.arm.bias:
            sums, stride = self.bias_sums
            bias = self.grads[f"{conv.arm.path}/bias"]
            conv.weights.bias_gradient((sums[offset:], stride), bias, self.join_stage)

    def _dense(self, name: str, chunks: Chunks, size: Map) -> View:
        return self.workspace.chunk(name, chunks.count, size)

    def _unpool(self, step: ConvStep, d: View, to: View, **norm: Any) -> Job:
        assert step.pool
        target = self.network.maps[step.target]
        return job(
            max_pool_backward, {"d": d, "dx": to}, won=self._won(step),
            won_unit=self._won_unit(step), out_height=target.height, out_width=target.width,
            height=step.result.height, width=step.result.width, channels=step.result.padded,
            **window_fields(step.pool), **norm,
        )  # fmt: skip

    def _unpooled(self, step: ConvStep, d: View, chunks: Chunks) -> View:
        """d as the gradient of the map before the pool."""
        if not step.pool:
            return d
        to = self._dense("unpooled", chunks, step.result)
        chunks.add(self._unpool(step, d, to))
        return to

    def _bypass_gradient(self, step: ConvStep, d: View, chunks: Chunks) -> View | None:
        """The gradient of the sum, if there is a bypass, handed on to the map that is added."""
        if step.bypass is None:
            return None
        known = self.gradient_of.get(step.bypass)
        if (
            known is None
            and not step.pool
            and self._halo(step.bypass) == NONE
            and step.target in self.held
        ):
            self.held[step.bypass] = self.held.pop(step.target)
            self.gradient_of[step.bypass] = d
            return d
        around = self._unpooled(step, d, chunks)
        to = known or self._new_gradient(step.bypass)
        kernel = add_map if known else copy_map
        chunks.add(
            job(
                kernel,
                {"x": around, "y": to},
                height=to.height,
                width=to.width,
                channels=to.channels,
            )
        )
        return around

    def _mask_job(self, d: View, y: View, z: View, total, size: Map, floor: float) -> Job:
        return job(
            mask, {"d": d, "y": y, "z": z}, height=size.height, width=size.width,
            channels=size.padded, total=total[0], total_thread=total[1], floor=floor,
        )  # fmt: skip

    def _relu_backward(self, step: ConvStep, d: View, chunks: Chunks, unpooled: bool) -> View:
        """d through ReLU and pool, dense, for the arms; the biases' gradients are summed on the way."""
        dense, total = self._dense("dense gradient", chunks, step.result), self._total(step)
        size = step.result
        if unpooled and step.relu:
            chunks.add(
                job(
                    mask_by_signs,
                    {"d": d, "z": dense},
                    signs=self._signs(step),
                    signs_unit=size.pixels * size.padded,
                    total=total[0],
                    total_thread=total[1],
                    height=size.height,
                    width=size.width,
                    channels=size.padded,
                )
            )
        elif step.pool and not unpooled:
            # the largest of a window is positive exactly if what it came from is
            target = self.network.maps[step.target]
            masked = self._dense("masked", chunks, target)
            y = self.views[step.target]
            chunks.add(self._mask_job(d, y, masked, total, target, step.floor))
            chunks.add(self._unpool(step, masked, dense))
        else:
            y = d if unpooled else self.views[step.target]
            chunks.add(
                self._mask_job(d, y, dense, total, size, -np.inf if unpooled else step.floor)
            )
        return dense

    def _norm_backward_sums(self, i: int, step: ConvStep, d: View, chunks: Chunks) -> None:
        """dweight and dbias of the norm, and what dx needs of the whole batch.

        Below a pool dy is zero but for the pixels that won, which `_chosen` has side by side.
        """
        assert step.norm
        path, _ = step.norm
        arrays, size, padded = self._norm_arrays(i, step), step.result, step.result.padded
        z = self._chosen(step) if step.pools_norm else self._before_norm(i, step)
        sums = self.workspace.array("norm sums", 2 * self.batch * padded)
        known = {n: arrays[n] for n in ("scale", "shift", "mean", "inverse")}
        made = job(
            norm_gradient_sums, {"d": d}, x=z.array, x_next=z.next, height=z.height,
            width=z.width, channels=padded, sums=sums, **step.bend, **known,
        )  # fmt: skip
        chunks.add(made)
        self._close_backward()
        stage = self.backward.each()
        for place, part in self._norm_segments(step):
            made = norm_gradient_finish.job(
                sums=sums, images=0, pixels=size.pixels, channels=padded, places=place,
                dweight=self.grads[f"{path}/weight"][part], dbias=self.grads[f"{path}/bias"][part],
                mean=arrays["mean"], inverse=arrays["inverse"], scale=arrays["scale"],
                a=arrays["a"], b=arrays["b"], c=arrays["c"],
            )  # fmt: skip
            self.count_jobs.append(made)
            stage.add(made, part.stop - part.start)

    def _norm_backward(self, i: int, step: ConvStep, d: View, chunks: Chunks) -> View:
        """d through the pool, activation and batch norm, dense.

        The convolutions' biases move all numbers of a channel alike, which the norm takes out again:
        their gradients are 0, and so `_total` is left as it is.
        """
        dense, size = self._dense("dense gradient", chunks, step.result), step.result
        self._total(step)
        z, arrays = self._before_norm(i, step), self._norm_arrays(i, step)
        known: dict[str, Any] = {n: arrays[n] for n in ("scale", "shift", "a", "b", "c")}
        known |= {"x": z.array, "x_next": z.next, **step.bend}
        if step.pools_norm:
            chunks.add(self._unpool(step, d, dense, normed=1, **known))
            return dense
        made = job(
            norm_backward, {"d": d, "z": dense}, height=size.height, width=size.width,
            channels=size.padded, **known,
        )  # fmt: skip
        chunks.add(made)
        return dense

    # --- run ------------------------------------------------------------------------------------

    def _finish(self) -> None:
        """One run from beginning to end."""
        sums, stride = self.gradients.reserve(0)
        sums = self.workspace.scratch("gradients", self.gradients.size)[0]
        start = Sequence()
        start.own().add(
            clear.job(
                x=sums,
                x_unit=0,
                x_thread=stride,
                x_next=0,
                vectors=self.gradients.size // TARGET.lanes,
            )
        )
        whole = Sequence()
        for part in (start, self.packing, self.forward, self.backward, self.joining):
            whole.extend(part)
        self.runnable: Runnable = whole.programs() if not self.workspace.measuring else Runnable([])

    def run(
        self, team: Team, images: np.ndarray, labels: np.ndarray, smoothing: float, seed: int
    ) -> tuple[float, int]:
        """Mean loss, and how many were right; fills the gradients."""
        n = len(images)
        shares = label_shares(labels, self.network.maps[self.network.output].channels)
        self.shares[: shares.size] = shares.ravel()
        self.loss_job.set(smoothing=smoothing, scale=self.loss_share / n)
        self._set_images(images, seed)
        for one in self.count_jobs:
            one.set(images=n)
        for number, one in self.drop_jobs:
            one.set(seed=_mixed(seed, number))
        self.runnable.run(team, n)
        return float(self.losses[:n].sum(dtype=np.float64) / n), int(self.hits[:n].sum())


def _mixed(seed: int, number: int) -> int:
    """A seed for each dropout layer from the seed of the step."""
    mixed = int(np.random.SeedSequence([seed, number]).generate_state(1, np.uint64)[0])
    return mixed - 2**63
