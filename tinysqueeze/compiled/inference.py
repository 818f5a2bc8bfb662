"""Inference as one program: batch norm folded away, nothing kept that the backward pass would need.

A map's memory is free again as soon as its last reader is done, so a plan needs about as much as the
largest two neighbouring maps; squeezed maps exist only chunk by chunk, in scratch memory.
"""

from dataclasses import replace

from typing import Any

import numpy as np

from tinysqueeze.compiled.convolution import Convolution, halo_of
from tinysqueeze.compiled.network import (
    Arm,
    ConvStep,
    LayerStep,
    Map,
    MeanStep,
    Network,
    Step,
)
from tinysqueeze.compiled.sequence import Chunks, Sequence
from tinysqueeze.compiled.steps import LayerRunner
from tinysqueeze.compiled.training import chunk_size, window_fields
from tinysqueeze.compiled.weights import Weights, winograd_size
from tinysqueeze.compiled.workspace import LINE, NONE, Halo, View, Workspace, job
from tinysqueeze.kernels.head import pixel_mean
from tinysqueeze.kernels.kernel import Job
from tinysqueeze.kernels.pointwise import add_map, copy_map
from tinysqueeze.kernels.pooling import max_pool
from tinysqueeze.kernels.team import Team


class Inference:
    """The programs of inference: `refresh` packs the weights, `run` computes logits."""

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
        self.packing, self.forward = Sequence(), Sequence(wait=True)
        self.pack_stage, self.transform_stage = self.packing.each(), self.packing.each()
        self.image_jobs: list[Job] = []
        self.layers: list[LayerRunner] = []
        self.folds: list[tuple[ConvStep, Arm, dict[str, np.ndarray]]] = []
        self.convs = {
            i: self._convolutions(step)
            for i, step in enumerate(network.steps)
            if isinstance(step, ConvStep)
        }
        places = self._arena(self._sizes())
        self.views = {i: self._view(i, places) for i in network.written}
        for i, step in enumerate(network.steps):
            self._step(i, step)
        if not workspace.measuring:
            self.packed, self.runnable = self.packing.programs(), self.forward.programs()

    # --- maps -----------------------------------------------------------------------------------

    def _convolutions(self, step: ConvStep) -> list[Convolution]:
        count = chunk_size(step.result, self.batch, self.workspace.threads)
        made = []
        for arm in (*step.arms, *([step.shortcut] if step.shortcut else [])):
            number = step.bypass if arm is step.shortcut else step.source
            assert number is not None
            source = self.network.maps[number]
            m = winograd_size(arm, number, step.result, self.precision)
            params: dict[str, Any] = {
                n: self.params.get(f"{arm.path}/{n}") for n in ("weight", "bias")
            }
            if step.norm and arm is not step.shortcut:
                params = {"weight": np.empty_like(params["weight"]), "bias": np.empty(arm.filters, np.float32)}
                self.folds.append((step, arm, params))
            weights = Weights(self.workspace, arm, source, m, params)
            positions = np.arange(source.channels) if number == 0 else source.positions
            made.append(Convolution(self.workspace, arm, weights, step.result, positions, count))
        return made

    def _halo(self, number: int) -> Halo:
        halo = NONE
        for i, step in enumerate(self.network.steps):
            if isinstance(step, ConvStep) and step.source == number:
                for conv in self.convs[i]:
                    if conv.arm is not step.shortcut:
                        source = self.network.maps[number]
                        halo = halo.around(halo_of(conv.arm, conv.m, source, step.result))
        return halo

    def _is_squeezed(self, number: int) -> bool:
        """Is this map only ever needed within a chunk: made and used by neighbouring steps?"""
        steps = self.network.steps
        for i, (step, following) in enumerate(zip(steps, steps[1:], strict=False)):
            if step.target == number and isinstance(step, ConvStep) and isinstance(following, ConvStep):
                return (
                    following.source == number
                    and len(self.network.readers(number)) == 1
                    and self.convs[i][0].count == self.convs[i + 1][0].count
                    and following.result.pixels == step.result.pixels
                    and number != self.network.output
                )
        return False

    def _sizes(self) -> dict[int, int]:
        """Floats of each map that shares the arena: no padding, no chunk's, not the logits."""
        return {
            i: self.batch * size.pixels * size.padded
            for i, size in enumerate(self.network.maps)
            if i in self.network.written - {0, self.network.output} and not self._is_squeezed(i) and self._halo(i) == NONE
        }

    def _view(self, number: int, places: dict[int, int]) -> View:
        size, halo = self.network.maps[number], self._halo(number)
        if number == 0:
            row = size.width * size.channels
            image = size.height * row
            return View(np.empty(0, np.float32), 0, image, 0, image, row, size.channels,
                        size.height, size.width, size.channels)  # fmt: skip
        if self._is_squeezed(number):
            i = next(i for i, step in enumerate(self.network.steps) if step.target == number)
            # two neighbours of the same size must not share their memory; the halo stays zero
            name = f"squeezed {size} {halo} {i % 2}"
            return self.workspace.chunk(name, self.convs[i][0].count, size, halo)
        if number not in places:
            return self.workspace.buffer(f"map {number}", self.batch, size, halo)
        end = places[number] + self.batch * size.pixels * size.padded
        self.workspace.array("maps", end)
        view = self.workspace.buffer("maps", self.batch, size)
        return replace(view, start=places[number])

    def _arena(self, sizes: dict[int, int]) -> dict[int, int]:
        """A place in one arena for each map, so that maps that live at the same time do not overlap.

        Time is counted in stages, between which the threads wait for each other. The largest first,
        each as low as it fits: for a chain of maps that is as good as it gets.
        """
        stage = 0
        born: dict[int, int] = {}
        dies: dict[int, int] = {}
        for step in self.network.steps:
            born.setdefault(step.target, stage)
            for number in (step.source, getattr(step, "bypass", None), step.target):
                if number:
                    dies[number] = stage
            stage += not self._is_squeezed(step.target)
        places: dict[int, int] = {}
        for number in sorted(sizes, key=lambda n: -sizes[n]):
            taken = sorted(
                (places[other], places[other] + sizes[other])
                for other in places
                if born[other] <= dies[number] and born[number] <= dies[other]
            )
            place = 0
            for start, end in taken:
                if place + sizes[number] <= start:
                    break
                place = max(place, end)
            places[number] = -(-place // LINE) * LINE
        return places

    # --- steps ----------------------------------------------------------------------------------

    def _step(self, i: int, step: Step) -> None:
        match step:
            case ConvStep():
                self._conv(i, step)
            case MeanStep():
                x, y = self.views[step.source], self.views[step.target]
                made = job(
                    pixel_mean, {"x": x}, height=x.height, width=x.width, channels=x.channels,
                    y=y.array[y.start :], y_unit=y.unit, by_panel=0,
                )  # fmt: skip
                self.forward.chunks(self.batch).add(made)
            case LayerStep():
                runner = LayerRunner(self.network, step, self.params, training=False)
                self.layers.append(runner)
                self.forward.call(runner.forward(self.views))

    def _conv(self, i: int, step: ConvStep) -> None:
        convs, y = self.convs[i], self.views[step.target]
        chunks = self.forward.chunks(convs[0].count)
        x = self._input(step, chunks)
        bias = self.workspace.array(f"{step.name} bias", step.result.padded)
        result = self.workspace.chunk("result", chunks.count, step.result) if step.pool else y
        for conv in convs:
            if conv.arm is step.shortcut:
                continue
            conv.weights.pack(self.pack_stage, self.transform_stage, bias[conv.arm.offset :])
            part = result.part(conv.arm.offset, conv.weights.filters)
            jobs = conv.forward(x, part, bias[conv.arm.offset :], step.floor)
            if x is self.views[0]:
                self.image_jobs += jobs
            chunks.add(*jobs)
        if step.bypass is not None:
            self._bypass(step, convs[-1], result, chunks)
        if step.pool:
            chunks.add(
                job(
                    max_pool, {"x": result, "y": y}, height=step.result.height,
                    width=step.result.width, won=0, won_unit=0, out_height=y.height,
                    out_width=y.width, channels=step.result.padded, by_row=0, remember=0,
                    **window_fields(step.pool),
                )  # fmt: skip
            )
        if not self._is_squeezed(step.target):
            self.forward.close()

    def _bypass(self, step: ConvStep, conv: Convolution, result: View, chunks: Chunks) -> None:
        assert step.bypass is not None
        around = self.views[step.bypass]
        if step.shortcut:
            bias = self.workspace.array(f"{step.shortcut.path} bias", step.result.padded)
            conv.weights.pack(self.pack_stage, self.transform_stage, bias)
            chunks.add(*conv.forward(around, result, bias, -np.inf, add=True))
            return
        chunks.add(
            job(add_map, {"x": around, "y": result}, height=result.height, width=result.width,
                channels=result.channels)  # fmt: skip
        )

    def _input(self, step: ConvStep, chunks: Chunks) -> View:
        view, halo = self.views[step.source], self._halo(step.source)
        if step.source or halo == NONE:
            return view
        size = self.network.maps[0]
        padded = padded_images(self.workspace, chunks.count, size, halo)
        copy = job(copy_map, {"x": view.as_rows(), "y": padded.as_rows()}, height=size.height,
                   width=1, channels=size.width * size.channels)  # fmt: skip
        self.image_jobs.append(copy)
        chunks.add(copy)
        return padded

    # --- run ------------------------------------------------------------------------------------

    def refresh(self, team: Team) -> None:
        """Packs the parameters as they are now."""
        for step, arm, folded in self.folds:
            assert step.norm
            path, layer = step.norm
            first = sum(a.filters for a in step.arms[: step.arms.index(arm)])
            mine = slice(first, first + arm.filters)
            weight, bias, mean, var = (
                self.params[f"{path}/{n}"][mine].astype(np.float64) for n in ("weight", "bias", "mean", "var")
            )
            scale = weight / np.sqrt(var + layer.eps)
            own = self.params.get(f"{arm.path}/bias", 0.0)
            folded["weight"][...] = self.params[f"{arm.path}/weight"] * scale
            folded["bias"][...] = (own - mean) * scale + bias
        self.packed.run(team, 1)

    def run(self, team: Team, images: np.ndarray) -> np.ndarray:
        """Logits of at most `batch` images, a fresh array (N, classes)."""
        for one in self.image_jobs:
            one.set(x=images)
        for runner in self.layers:
            runner.begin(images, 0)
        self.runnable.run(team, len(images))
        size, view = self.network.maps[self.network.output], self.views[self.network.output]
        from tinysqueeze.compiled.steps import read

        return read(view, size, len(images)).reshape(len(images), -1)


def padded_images(workspace: Workspace, count: int, size: Map, halo: Halo) -> View:
    """Scratch for padded images, whose channels are not padded."""
    pixel = size.channels
    row = (size.width + halo.left + halo.right) * pixel
    image = (size.height + halo.top + halo.bottom) * row
    array, thread = workspace.scratch("padded images", count * image)
    start = halo.top * row + halo.left * pixel
    return View(array, start, 0, thread, image, row, pixel, size.height, size.width, pixel, halo)
