"""A training step as programs: pack the weights, forward, loss, backward, join the gradients.

Threads work on separate images from beginning to end, and wait for each other only around batch norm
(whose statistics are everybody's) and before the gradients are joined. The gradient of a map lives
in one of a few buffers that are used again and again; what is only needed within a chunk lives in
scratch memory.
"""

from dataclasses import replace

import numpy as np

from tinysqueeze.compiled.convolution import Convolution, halo_of
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
from tinysqueeze.compiled.steps import LayerRunner
from tinysqueeze.compiled.weights import Gradients, Weights, winograd_size
from tinysqueeze.compiled.workspace import NONE, Halo, View, Workspace, job
from tinysqueeze.kernels import TARGET
from tinysqueeze.kernels.head import pixel_mean, softmax_cross_entropy
from tinysqueeze.kernels.kernel import Job
from tinysqueeze.kernels.norm import (
    norm_apply,
    norm_backward,
    norm_finish,
    norm_gradient_finish,
    norm_gradient_sums,
    norm_moments,
)
from tinysqueeze.kernels.pointwise import (
    add_map,
    copy_map,
    dropout,
    mask,
    mask_by_signs,
    remember_signs,
)
from tinysqueeze.kernels.pooling import max_pool, max_pool_backward
from tinysqueeze.kernels.products import clear
from tinysqueeze.kernels.team import Team
from tinysqueeze.window import Window

CHUNK_PIXELS = 256
"""Pixels that a chunk should have: what a few dozen of them need in one layer fits in the cache."""


def chunk_size(size: Map, batch: int, threads: int) -> int:
    """Images in a chunk, for a layer whose result has this size."""
    return max(1, min(CHUNK_PIXELS // size.pixels, -(-batch // threads)))


def window_fields(window: Window) -> dict[str, int]:
    """A pool's window as its kernels want it."""
    names = ("kernel_high", "kernel_wide", "stride_high", "stride_wide", "pad_high", "pad_wide")
    return dict(zip(names, (*window.kernel, *window.stride, *window.pad), strict=True))


class TrainingStep:
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
        self.network, self.workspace, self.batch = network, workspace, batch
        self.params, self.grads, self.precision = params, grads, precision
        self.gradients = Gradients(workspace)
        self.packing, self.forward, self.backward = Sequence(), Sequence(), Sequence()
        self.joining = Sequence()
        self.pack_stage, self.transform_stage = self.packing.each(), self.packing.each()
        self.join_stage = self.joining.each()
        self.free: list[int] = []  # gradient buffers that nobody needs at the moment
        self.used: list[int] = []  # and those that will be free after the stage at hand
        self.held: dict[int, int] = {}  # map -> its gradient's buffer
        self.image_size: dict[int, int] = {}  # buffer -> floats of an image when last used
        self.image_jobs: list[Job] = []
        self.count_jobs: list[Job] = []
        self.drop_jobs: list[tuple[int, Job]] = []
        self.layers: list[LayerRunner] = []
        self.convs = {
            i: self._convolutions(step)
            for i, step in enumerate(network.steps)
            if isinstance(step, ConvStep)
        }
        self.views = {i: self._map_view(i) for i in network.written}
        self.gradient_of: dict[int, View] = {}
        for i, step in enumerate(network.steps):
            self._forward(i, step)
        self._loss()
        for i in reversed(range(len(network.steps))):
            self._backward(i, network.steps[i])
        self._finish()

    # --- maps -----------------------------------------------------------------------------------

    def _convolutions(self, step: ConvStep) -> list[Convolution]:
        """The arms of a step, and last its shortcut if it has one."""
        count = chunk_size(step.result, self.batch, self.workspace.threads)
        made = []
        for arm in (*step.arms, *([step.shortcut] if step.shortcut else [])):
            number = step.bypass if arm is step.shortcut else step.source
            assert number is not None
            source = self.network.maps[number]
            m = winograd_size(arm, number, step.result, self.precision)
            params = {n: self.params.get(f"{arm.path}/{n}") for n in ("weight", "bias")}
            weights = Weights(self.workspace, arm, source, m, params, needs_dx=number != 0)
            positions = np.arange(source.channels) if number == 0 else source.positions
            made.append(
                Convolution(self.workspace, arm, weights, step.result, positions, count)
            )
        return made

    def _halo(self, number: int) -> Halo:
        """The zeros that the readers of a map want around it."""
        halo = NONE
        for i, step in enumerate(self.network.steps):
            if isinstance(step, ConvStep) and step.source == number:
                for conv in self.convs[i]:
                    if conv.arm is not step.shortcut:
                        source = self.network.maps[number]
                        halo = halo.around(halo_of(conv.arm, conv.m, source, step.result))
        return halo

    def _map_view(self, number: int) -> View:
        size = self.network.maps[number]
        if number:
            return self.workspace.buffer(f"map {number}", self.batch, size, self._halo(number))
        row = size.width * size.channels
        image = size.height * row
        return View(
            np.empty(0, np.float32), 0, image, 0, image, row, size.channels,
            size.height, size.width, size.channels,
        )  # fmt: skip

    def _input(self, i: int, step: ConvStep, chunks: Chunks) -> View:
        """What the convolutions of a step read; the images are copied into padding if they need it."""
        view = self.views[step.source]
        halo = self._halo(step.source)
        if step.source or halo == NONE:
            return view
        size = self.network.maps[0]
        flat = Map(size.height, size.width, (size.channels,))
        padded = self._image_chunk(chunks.count, flat, halo)
        copy = job(
            copy_map, {"x": view.as_rows(), "y": padded.as_rows()},
            height=size.height, width=1, channels=size.width * size.channels,
        )  # fmt: skip
        self.image_jobs.append(copy)
        chunks.add(copy)
        return padded

    def _image_chunk(self, count: int, size: Map, halo: Halo) -> View:
        """Scratch for padded images, whose channels are not padded."""
        pixel = size.channels
        row = (size.width + halo.left + halo.right) * pixel
        image = (size.height + halo.top + halo.bottom) * row
        array, thread = self.workspace.scratch("padded images", count * image)
        start = halo.top * row + halo.left * pixel
        return View(array, start, 0, thread, image, row, pixel, size.height, size.width, pixel, halo)

    # --- forward --------------------------------------------------------------------------------

    def _forward(self, i: int, step: Step) -> None:
        match step:
            case ConvStep():
                self._conv_forward(i, step)
            case DropStep():
                self._drop(self.forward, step, self.views[step.source])
            case MeanStep():
                self.forward.chunks(self.batch).add(self._mean(step))
            case LayerStep():
                runner = LayerRunner(self.network, step, self.params, self.grads)
                self.layers.append(runner)
                self.forward.call(runner.forward(self.views))

    def _conv_forward(self, i: int, step: ConvStep) -> None:
        convs, y = self.convs[i], self.views[step.target]
        chunks = self.forward.chunks(convs[0].count)
        x = self._input(i, step, chunks)
        bias = self.workspace.array(f"{step.name} bias", step.result.padded)
        for conv in convs:
            if conv.arm is not step.shortcut:
                conv.weights.pack(self.pack_stage, self.transform_stage, bias[conv.arm.offset :])
        before = self._before_norm(i, step)
        result = self.workspace.chunk("result", chunks.count, step.result) if step.pool else y
        target, floor = (before, -np.inf) if step.norm else (result, step.floor)
        for conv in convs:
            if conv.arm is not step.shortcut:
                part = target.part(conv.arm.offset, conv.weights.filters)
                jobs = conv.forward(x, part, bias[conv.arm.offset :], floor)
                self._note_images(jobs, x)
                chunks.add(*jobs)
        if step.norm:
            chunks = self._norm_forward(i, step, result)
        if step.bypass is not None:
            self._bypass_forward(i, step, result, chunks)
        if step.pool:
            chunks.add(self._pool(step, result, y))
        if not self._is_squeeze(i):
            self.forward.close()

    def _note_images(self, jobs: list[Job], x: View) -> None:
        """Jobs that read the images themselves get their address with each run."""
        if x is self.views[0]:
            self.image_jobs += jobs

    def _is_squeeze(self, i: int) -> bool:
        """Do the next step's convolutions read what this one has just written, chunk by chunk?"""
        steps = self.network.steps
        step, following = steps[i], steps[i + 1] if i + 1 < len(steps) else None
        return (
            isinstance(step, ConvStep) and isinstance(following, ConvStep)
            and step.source != 0 and following.source == step.target
            and len(self.network.readers(step.target)) == 1
            and not (step.norm or step.pool or step.bypass is not None)
            and len(step.arms) == 1 and step.arms[0].window.is_pointwise
            and self.convs[i][0].count == self.convs[i + 1][0].count
        )  # fmt: skip

    def _before_norm(self, i: int, step: ConvStep) -> View:
        """The convolutions' result where a batch norm follows; kept for the backward pass."""
        if not step.norm:
            return self.views[step.target]
        return self.workspace.buffer(f"before norm {i}", self.batch, step.result)

    def _pool(self, step: ConvStep, result: View, y: View) -> Job:
        assert step.pool
        return job(
            max_pool, {"x": result, "y": y}, height=step.result.height, width=step.result.width,
            won=self._won(step), won_unit=self._won_unit(step), out_height=y.height,
            out_width=y.width, channels=step.result.padded, by_row=0, remember=1,
            **window_fields(step.pool),
        )  # fmt: skip

    def _won(self, step: ConvStep) -> np.ndarray:
        """Which pixel of each window won."""
        size = self.batch * self._won_unit(step)
        return self.workspace.array(f"winners {step.target}", size, np.uint8)

    def _won_unit(self, step: ConvStep) -> int:
        target = self.network.maps[step.target]
        return target.pixels * target.padded

    def _signs(self, step: ConvStep) -> np.ndarray:
        """Where ReLU was open, below a bypass."""
        size = self.batch * step.result.pixels * step.result.padded
        return self.workspace.array(f"signs {step.target}", size, np.uint8)

    def _bypass_forward(self, i: int, step: ConvStep, result: View, chunks: Chunks) -> None:
        assert step.bypass is not None
        around, size = self.views[step.bypass], step.result
        if step.relu and not step.norm:
            chunks.add(
                job(
                    remember_signs, {"y": result}, signs=self._signs(step),
                    signs_unit=size.pixels * size.padded, height=size.height, width=size.width,
                    channels=size.padded,
                )  # fmt: skip
            )
        if step.shortcut:
            conv = self.convs[i][-1]
            bias = self.workspace.array(f"{step.shortcut.path} bias", size.padded)
            conv.weights.pack(self.pack_stage, self.transform_stage, bias)
            chunks.add(*conv.forward(around, result, bias, -np.inf, add=True))
        else:
            a, b = around, result
            if around.halo == NONE and result.halo == NONE:
                a, b = around.as_rows(), result.as_rows()
            chunks.add(
                job(add_map, {"x": a, "y": b}, height=a.height, width=a.width, channels=a.channels)
            )

    def _drop(self, sequence: Sequence, step: DropStep, view: View) -> None:
        """Dropout of a map or of its gradient, in place; rows of both lie alike."""
        made = dropout.job(
            x=view.array, size=view.next, seed=0, threshold=round(step.rate * 2**32),
            scale=1 / (1 - step.rate),
        )  # fmt: skip
        self.drop_jobs.append((step.number, made))
        sequence.chunks(self.batch).add(made)
        sequence.close()

    def _mean(self, step: MeanStep) -> Job:
        x, y = self.views[step.source], self.views[step.target]
        return job(
            pixel_mean, {"x": x}, height=x.height, width=x.width, channels=x.channels,
            y=y.array, y_unit=y.unit, by_panel=0,
        )  # fmt: skip

    # --- batch norm -----------------------------------------------------------------------------

    def _norm_arrays(self, i: int, step: ConvStep) -> dict[str, np.ndarray]:
        """Numbers for each channel that the norm's kernels hand to each other."""
        names = ("scale", "shift", "mean", "inverse", "a", "b", "c")
        size = step.result.padded
        return {n: self.workspace.array(f"norm {i} {n}", size) for n in names}

    def _norm_segments(self, step: ConvStep):
        """(first padded place, slice of the unpadded arrays) for each segment of the channels."""
        place = start = 0
        for segment in step.result.segments:
            yield place, slice(start, start + segment)
            start += segment
            place += TARGET.padded(segment)

    def _norm_forward(self, i: int, step: ConvStep, result: View) -> Chunks:
        """Statistics of the whole batch, then y = x * scale + shift with ReLU; returns the open stage."""
        assert step.norm
        path, layer = step.norm
        z, arrays = self._before_norm(i, step), self._norm_arrays(i, step)
        size, padded = step.result, step.result.padded
        moments = self.workspace.array("norm sums", 2 * self.batch * padded)
        count = self.convs[i][0].count
        self.forward.chunks(count).add(
            norm_moments.job(
                x=z.array, x_next=z.next, pixels=size.pixels, channels=padded, moments=moments
            )
        )
        stage = self.forward.each()
        for place, part in self._norm_segments(step):
            own = {n: self.params[f"{path}/{n}"][part] for n in ("weight", "bias", "mean", "var")}
            made = norm_finish.job(
                moments=moments, images=0, pixels=size.pixels, channels=padded, places=place,
                mean_out=arrays["mean"], inverse=arrays["inverse"], scale=arrays["scale"],
                shift=arrays["shift"], eps=layer.eps, momentum=layer.momentum, **own,
            )  # fmt: skip
            self.count_jobs.append(made)
            stage.add(made, part.stop - part.start)
        chunks = self.forward.chunks(count)
        chunks.add(
            job(
                norm_apply, {"y": result}, x=z.array, x_next=z.next, height=size.height,
                width=size.width, channels=padded, scale=arrays["scale"], shift=arrays["shift"],
                floor=step.floor,
            )  # fmt: skip
        )
        return chunks

    def _norm_backward_sums(self, i: int, step: ConvStep, d: View, chunks: Chunks) -> None:
        """dweight and dbias of the norm, and what dx needs of the whole batch."""
        assert step.norm
        path, _ = step.norm
        z, arrays = self._before_norm(i, step), self._norm_arrays(i, step)
        size, padded = step.result, step.result.padded
        sums = self.workspace.array("norm sums", 2 * self.batch * padded)
        known = {n: arrays[n] for n in ("scale", "shift", "mean", "inverse")}
        chunks.add(
            job(
                norm_gradient_sums, {"d": d}, x=z.array, x_next=z.next, height=size.height,
                width=size.width, channels=padded, floor=step.floor, sums=sums, **known,
            )  # fmt: skip
        )
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

    # --- loss -----------------------------------------------------------------------------------

    def _loss(self) -> None:
        """Softmax cross-entropy, whose gradient begins the backward pass."""
        logits = self.views[self.network.output]
        size = self.network.maps[self.network.output]
        self.labels = self.workspace.array("labels", self.batch, np.int32)
        self.losses = self.workspace.array("losses", self.batch)
        self.hits = self.workspace.array("hits", self.batch, np.int32)
        d = self.workspace.buffer("gradient of logits", self.batch, size)
        self.loss_job = softmax_cross_entropy.job(
            logits=logits.array, stride=logits.unit, classes=size.channels, labels=self.labels,
            dlogits=d.array, losses=self.losses, hits=self.hits, smoothing=0, scale=0,
        )  # fmt: skip
        self.forward.chunks(self.batch).add(self.loss_job)
        self.loss_share = 1.0
        self.gradient_of[self.network.output] = d

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
            whole = self._unpooled(step, d, chunks) if around is None else around
            self._norm_backward_sums(i, step, whole, chunks)
            chunks = self.backward.chunks(convs[0].count)
            whole = self._unpooled(step, d, chunks)  # once more: scratch does not outlive its chunk
            around = None if around is None else whole
            dense = self._norm_backward(i, step, whole, chunks)
        else:
            dense = self._relu_backward(step, d if around is None else around, chunks, around is not None)
        x = self._input(i, step, chunks)
        dx, add = self._dx(i, step, chunks)
        for number, conv in enumerate(convs):
            if conv.arm is step.shortcut:
                continue
            part = dense.part(conv.arm.offset, conv.weights.filters)
            self._arm_backward(conv, x, part, dx, add, chunks, number)
            self._join_bias(conv, step, conv.arm.offset)
            add = True
        if around is not None and step.shortcut:
            self._shortcut_backward(step, convs[-1], around, chunks)
        self._release(step.target)
        if not (i and self._is_squeeze(i - 1)):
            self._close_backward()

    def _arm_backward(self, conv, x, d, dx, add, chunks: Chunks, number: int) -> None:
        made = conv.backward(x, d, dx, add, self.gradients, number)
        self._note_images(made.jobs, x)
        for one in made.before:
            chunks.before.add(one)
        chunks.add(*made.jobs)
        for one in made.after:
            chunks.after.add(one)
        conv.weights.gradient(made.sums, x.pixel, self.grads[f"{conv.arm.path}/weight"], self.join_stage)

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
        winograd = any(conv.m for conv in self.convs[i] if conv.arm is not step.shortcut)
        if winograd:
            whole = dx.whole()
            chunks.add(job(clear, {"x": whole}, vectors=whole.channels // TARGET.lanes))
        return dx, winograd

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

    def _unpool(self, step: ConvStep, d: View, to: View) -> Job:
        assert step.pool
        target = self.network.maps[step.target]
        return job(
            max_pool_backward, {"d": d, "dx": to}, won=self._won(step),
            won_unit=self._won_unit(step), out_height=target.height, out_width=target.width,
            height=step.result.height, width=step.result.width, channels=step.result.padded,
            **window_fields(step.pool),
        )  # fmt: skip

    def _unpooled(self, step: ConvStep, d: View, chunks: Chunks) -> View:
        """d as the gradient of the map before the pool."""
        if not step.pool:
            return d
        to = self._dense("unpooled", chunks, step.result)
        chunks.add(self._unpool(step, d, to))
        return to

    def _bypass_gradient(self, step: ConvStep, d: View, chunks: Chunks) -> View | None:
        """The gradient of the sum, if there is a bypass; a simple one hands it on to its map."""
        if step.bypass is None:
            return None
        if step.shortcut:
            return self._unpooled(step, d, chunks)
        known = self.gradient_of.get(step.bypass)
        if known is None and not step.pool and self._halo(step.bypass) == NONE and step.target in self.held:
            self.held[step.bypass] = self.held.pop(step.target)
            self.gradient_of[step.bypass] = d
            return d
        around = self._unpooled(step, d, chunks)
        to = known or self._new_gradient(step.bypass)
        kernel = add_map if known else copy_map
        chunks.add(
            job(kernel, {"x": around, "y": to}, height=to.height, width=to.width,
                channels=to.channels)  # fmt: skip
        )
        return around

    def _shortcut_backward(self, step, conv: Convolution, d: View, chunks: Chunks) -> None:
        """The complex bypass: a 1x1 convolution of the map at its beginning."""
        size = step.result
        total, stride = self.gradients.reserve(size.padded)
        dense = self._dense("shortcut gradient", chunks, size)
        chunks.add(self._mask_job(d, d, dense, (total, stride), size, -np.inf))
        known = step.bypass in self.gradient_of
        dx = self.gradient_of[step.bypass] if known else self._new_gradient(step.bypass)
        self._arm_backward(conv, self.views[step.bypass], dense, dx, known, chunks, 9)
        if conv.arm.bias:
            bias = self.grads[f"{conv.arm.path}/bias"]
            conv.weights.bias_gradient((total, stride), bias, self.join_stage)

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
                    mask_by_signs, {"d": d, "z": dense}, signs=self._signs(step),
                    signs_unit=size.pixels * size.padded, total=total[0], total_thread=total[1],
                    pixels=size.pixels, channels=size.padded,
                )  # fmt: skip
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
            chunks.add(self._mask_job(d, y, dense, total, size, -np.inf if unpooled else step.floor))
        return dense

    def _norm_backward(self, i: int, step: ConvStep, d: View, chunks: Chunks) -> View:
        """d through ReLU and batch norm, dense."""
        dense, total = self._dense("dense gradient", chunks, step.result), self._total(step)
        z, arrays = self._before_norm(i, step), self._norm_arrays(i, step)
        known = {n: arrays[n] for n in ("scale", "shift", "a", "b", "c")}
        chunks.add(
            job(
                norm_backward, {"d": d, "z": dense}, x=z.array, x_next=z.next,
                height=step.result.height, width=step.result.width, channels=step.result.padded,
                floor=step.floor, total=total[0], total_thread=total[1], **known,
            )  # fmt: skip
        )
        return dense

    # --- run ------------------------------------------------------------------------------------

    def _finish(self) -> None:
        """One run from beginning to end."""
        sums, stride = self.gradients.reserve(0)
        sums = self.workspace.scratch("gradients", self.gradients.size)[0]
        start = Sequence()
        start.own().add(
            clear.job(x=sums, x_unit=0, x_thread=stride, x_next=0,
                      vectors=self.gradients.size // TARGET.lanes)  # fmt: skip
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
        self.labels[:n] = labels
        self.loss_job.set(smoothing=smoothing, scale=self.loss_share / n)
        for one in self.image_jobs:
            one.set(x=images)
        for one in self.count_jobs:
            one.set(images=n)
        for number, one in self.drop_jobs:
            one.set(seed=_mixed(seed, number))
        for runner in self.layers:
            runner.begin(images, seed)
        self.runnable.run(team, n)
        return float(self.losses[:n].sum(dtype=np.float64) / n), int(self.hits[:n].sum())


def _mixed(seed: int, number: int) -> int:
    """A seed for each dropout layer from the seed of the step."""
    mixed = int(np.random.SeedSequence([seed, number]).generate_state(1, np.uint64)[0])
    return mixed - 2**63
