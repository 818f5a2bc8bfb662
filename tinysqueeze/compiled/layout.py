"""What training and inference have in common: the convolutions of a network, and what they read."""

from typing import Any

import numpy as np

from tinysqueeze.compiled.convolution import Convolution, halo_of
from tinysqueeze.compiled.network import Arm, ConvStep, Map, Network
from tinysqueeze.compiled.sequence import Chunks, Sequence
from tinysqueeze.compiled.steps import LayerRunner
from tinysqueeze.compiled.weights import Weights, winograd_size
from tinysqueeze.compiled.workspace import NONE, Halo, View, Workspace, job
from tinysqueeze.kernels.kernel import Job
from tinysqueeze.kernels.pointwise import add_map, copy_map
from tinysqueeze.network.window import Window

CHUNK_PIXELS = 256
"""Pixels that a chunk should have: what so many of them need in one layer fits in the cache."""


def chunk_size(size: Map, batch: int, threads: int) -> int:
    """Images in a chunk, for a layer whose result has this size."""
    return max(1, min(CHUNK_PIXELS // size.pixels, -(-batch // threads)))


def window_fields(window: Window) -> dict[str, int]:
    """A pool's window as its kernels want it."""
    names = ("kernel_high", "kernel_wide", "stride_high", "stride_wide", "pad_high", "pad_wide")
    return dict(zip(names, (*window.kernel, *window.stride, *window.pad), strict=True))


class Layout:
    """A network in a workspace: its convolutions, the jobs that pack their weights, the image.

    `image_jobs` read the images where the caller has them, so they get their address with each run.
    """

    trains = False

    def __init__(
        self,
        network: Network,
        workspace: Workspace,
        params: dict[str, np.ndarray],
        batch: int,
        precision: str,
    ) -> None:
        self.network, self.workspace, self.batch = network, workspace, batch
        self.params, self.precision = params, precision
        self.packing = Sequence()
        self.pack_stage, self.transform_stage = self.packing.each(), self.packing.each()
        self.image_jobs: list[Job] = []
        self.layers: list[LayerRunner] = []
        self.views: dict[int, View] = {}
        self.convs = {
            i: self._convolutions(step)
            for i, step in enumerate(network.steps)
            if isinstance(step, ConvStep)
        }

    def _convolutions(self, step: ConvStep) -> list[Convolution]:
        """The arms of a step."""
        count = chunk_size(step.result, self.batch, self.workspace.threads)
        made = []
        source = self.network.maps[step.source]
        positions = np.arange(source.channels) if step.source == 0 else source.positions
        for arm in step.arms:
            m = winograd_size(arm, step.source, step.result, self.precision)
            weights = Weights(
                self.workspace, arm, source, m, self._weight_params(step, arm),
                needs_dx=self.trains and step.source != 0,
            )  # fmt: skip
            made.append(Convolution(self.workspace, arm, weights, step.result, positions, count))
        return made

    def _weight_params(self, step: ConvStep, arm: Arm) -> dict[str, Any]:
        """The weight and bias that a convolution works with."""
        return {name: self.params.get(f"{arm.path}/{name}") for name in ("weight", "bias")}

    def _halo(self, number: int) -> Halo:
        """The zeros that the readers of a map want around it."""
        halo = NONE
        for i, step in enumerate(self.network.steps):
            if isinstance(step, ConvStep) and step.source == number:
                source = self.network.maps[number]
                for conv in self.convs[i]:
                    halo = halo.around(halo_of(conv.arm, conv.m, source, step.result))
        return halo

    def _images(self) -> View:
        """Map 0: the caller's images, whose channels are not padded."""
        size = self.network.maps[0]
        row = size.width * size.channels
        image = size.height * row
        return View(
            np.empty(0, np.float32), 0, image, 0, image, row, size.channels,
            size.height, size.width, size.channels,
        )  # fmt: skip

    def _padded_images(self, count: int) -> View:
        """Scratch for images with the zeros around them that the first convolution wants."""
        size, halo = self.network.maps[0], self._halo(0)
        pixel = size.channels
        row = (size.width + halo.left + halo.right) * pixel
        image = (size.height + halo.top + halo.bottom) * row
        array, thread = self.workspace.scratch("padded images", count * image)
        start = halo.top * row + halo.left * pixel
        return View(
            array, start, 0, thread, image, row, pixel, size.height, size.width, pixel, halo
        )

    def _input(self, step: ConvStep, chunks: Chunks) -> View:
        """What the convolutions of a step read; images are copied into padding if they need it."""
        view = self.views[step.source]
        if step.source or self._halo(0) == NONE:
            return view
        size, padded = self.network.maps[0], self._padded_images(chunks.count)
        copy = job(
            copy_map, {"x": view.as_rows(), "y": padded.as_rows()},
            height=size.height, width=1, channels=size.width * size.channels,
        )  # fmt: skip
        self.image_jobs.append(copy)
        chunks.add(copy)
        return padded

    def _note_images(self, jobs: list[Job], x: View) -> None:
        """Remembers jobs that read the images themselves."""
        if x is self.views[0]:
            self.image_jobs += jobs

    def _bias(self, name: str, size: Map) -> np.ndarray:
        """Room for the padded biases of a step."""
        return self.workspace.array(f"{name} bias", size.padded)

    def _convolve(
        self, i: int, step: ConvStep, x: View, target: View, floor: float, chunks: Chunks
    ) -> None:
        """Packs the weights of a step's arms, and convolves chunk by chunk."""
        bias = self._bias(step.name, step.result)
        for conv in self.convs[i]:
            own = bias[conv.arm.offset :]
            conv.weights.pack(self.pack_stage, self.transform_stage, own)
            part = target.part(conv.arm.offset, conv.weights.filters)
            jobs = conv.forward(x, part, own, floor)
            self._note_images(jobs, x)
            chunks.add(*jobs)

    def _add_bypass(self, step: ConvStep, result: View, chunks: Chunks) -> None:
        """result += the map that the bypass brings."""
        assert step.bypass is not None
        around = self.views[step.bypass]
        if around.halo == NONE and result.halo == NONE:
            around, result = around.as_rows(), result.as_rows()
        chunks.add(
            job(
                add_map,
                {"x": around, "y": result},
                height=around.height,
                width=around.width,
                channels=around.channels,
            )
        )

    def _set_images(self, images: np.ndarray, seed: int) -> None:
        """Before a run: where the images are, and the seed of anything random."""
        for one in self.image_jobs:
            one.set(x=images)
        for runner in self.layers:
            runner.begin(images, seed)
