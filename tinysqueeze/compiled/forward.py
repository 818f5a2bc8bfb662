"""The forward pass of a training step: as inference, but it keeps what the backward pass will need.

Kept are every map that somebody reads, the number of the pixel that won in each pooling window (one
byte), where ReLU was open below a bypass (one byte), and the convolutions' results before a batch
norm. Maps between a convolution and its pool exist only chunk by chunk.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from tinysqueeze.compiled.layout import Layout, window_fields
from tinysqueeze.compiled.network import ConvStep, DropStep, LayerStep, MeanStep, Network, Step
from tinysqueeze.compiled.sequence import Chunks, Sequence
from tinysqueeze.compiled.steps import LayerRunner
from tinysqueeze.compiled.workspace import View, Workspace, job
from tinysqueeze.kernels import TARGET
from tinysqueeze.kernels.head import pixel_mean, softmax_cross_entropy
from tinysqueeze.kernels.kernel import Job
from tinysqueeze.kernels.norm import norm_apply, norm_finish, norm_moments
from tinysqueeze.kernels.pointwise import dropout, remember_signs
from tinysqueeze.kernels.pooling import max_pool


class ForwardPass(Layout):
    """Forward and loss. `count_jobs` need the number of images, `drop_jobs` a seed, with each run."""

    trains = True

    def __init__(
        self,
        network: Network,
        workspace: Workspace,
        params: dict[str, np.ndarray],
        grads: dict[str, np.ndarray],
        batch: int,
        precision: str,
    ) -> None:
        super().__init__(network, workspace, params, batch, precision)
        self.grads, self.forward = grads, Sequence()
        self.count_jobs: list[Job] = []
        self.drop_jobs: list[tuple[int, Job]] = []
        self.views = {i: self._map_view(i) for i in network.written}
        for i, step in enumerate(network.steps):
            self._forward(i, step)
        self._loss()

    # --- maps -----------------------------------------------------------------------------------

    def _map_view(self, number: int) -> View:
        if number == 0:
            return self._images()
        size = self.network.maps[number]
        return self.workspace.buffer(f"map {number}", self.batch, size, self._halo(number))

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
        y = self.views[step.target]
        chunks = self.forward.chunks(self.convs[i][0].count)
        x = self._input(step, chunks)
        result = self.workspace.chunk("result", chunks.count, step.result) if step.pool else y
        if step.norm:
            self._convolve(i, step, x, self._before_norm(i, step), -np.inf, chunks)
            chunks = self._norm_forward(i, step, result)
        else:
            self._convolve(i, step, x, result, step.floor, chunks)
            if step.bypass is not None and step.relu:
                chunks.add(self._remember_signs(step, result))
        if step.bypass is not None and not step.norm:
            self._add_bypass(step, result, chunks)
        if step.pool and not step.pools_norm:
            chunks.add(self._pool(step, result, y))
        if not (self._is_squeeze(i) or self._is_norm_beside(i, i + 1)):
            self.forward.close()

    def _is_norm_beside(self, i: int, other: int) -> bool:
        """Does step i, after its batch norm, hand chunks on to a convolution that takes them as they are?

        Between the two a map is still in the cache. Without a norm, chunks end with each Fire: more
        would not fit.
        """
        if not 0 <= other < len(self.network.steps):
            return False
        step, beside = self.network.steps[i], self.network.steps[other]
        return (
            isinstance(step, ConvStep) and isinstance(beside, ConvStep)
            and step.norm is not None and self.convs[i][0].count == self.convs[other][0].count
        )  # fmt: skip

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
        """The convolutions' result, kept for the batch norm's backward pass."""
        return self.workspace.buffer(f"before norm {i}", self.batch, step.result)

    def _pool(self, step: ConvStep, result: View, y: View, **norm: Any) -> Job:
        assert step.pool
        return job(
            max_pool, {"x": result, "y": y}, height=step.result.height, width=step.result.width,
            won=self._won(step), won_unit=self._won_unit(step), out_height=y.height,
            out_width=y.width, channels=step.result.padded, by_row=0, remember=1,
            **window_fields(step.pool), **norm,
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

    def _remember_signs(self, step: ConvStep, result: View) -> Job:
        size = step.result
        return job(
            remember_signs, {"y": result}, signs=self._signs(step),
            signs_unit=size.pixels * size.padded, height=size.height, width=size.width,
            channels=size.padded,
        )  # fmt: skip

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

    def _norm_segments(self, step: ConvStep) -> Iterator[tuple[int, slice]]:
        """(first padded place, slice of the unpadded arrays) for each segment of the channels."""
        place = start = 0
        for segment in step.result.segments:
            yield place, slice(start, start + segment)
            start += segment
            place += TARGET.padded(segment)

    def _norm_forward(self, i: int, step: ConvStep, result: View) -> Chunks:
        """Statistics of the whole batch, then y = x * scale + shift, activated; returns the open stage."""
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
        known: dict[str, Any] = {"scale": arrays["scale"], "shift": arrays["shift"]}
        known |= step.bend
        if step.pools_norm:
            y, chosen = self.views[step.target], self._chosen(step).array
            chunks.add(self._pool(step, z, y, normed=1, chosen=chosen, **known))
            return chunks
        around = {"around": self.views[step.bypass]} if step.bypass is not None else {}
        made = job(
            norm_apply, {"y": result} | around, x=z.array, x_next=z.next, adds=bool(around),
            height=size.height, width=size.width, channels=padded, **known,
        )  # fmt: skip
        chunks.add(made)
        return chunks

    def _chosen(self, step: ConvStep) -> View:
        """What the largest number of each pooling window was before norm and activation."""
        return self.workspace.buffer(
            f"chosen {step.target}", self.batch, self.network.maps[step.target]
        )

    # --- loss -----------------------------------------------------------------------------------

    def _loss(self) -> None:
        """Softmax cross-entropy, whose gradient begins the backward pass."""
        logits = self.views[self.network.output]
        size = self.network.maps[self.network.output]
        self.shares = self.workspace.array("shares of labels", self.batch * size.channels)
        self.losses = self.workspace.array("losses", self.batch)
        self.hits = self.workspace.array("hits", self.batch, np.int32)
        d = self.workspace.buffer("gradient of logits", self.batch, size)
        self.loss_job = softmax_cross_entropy.job(
            logits=logits.array, stride=logits.unit, classes=size.channels, shares=self.shares,
            dlogits=d.array, losses=self.losses, hits=self.hits, smoothing=0, scale=0,
        )  # fmt: skip
        self.forward.chunks(self.batch).add(self.loss_job)
        self.gradient_of: dict[int, View] = {self.network.output: d}
