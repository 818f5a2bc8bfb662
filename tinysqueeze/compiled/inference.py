"""Inference as one program: batch norm folded away, nothing kept that the backward pass would need.

A map's memory is free again as soon as its last reader is done, so a plan needs about as much as the
largest two neighbouring maps; squeezed maps exist only chunk by chunk, in scratch memory.
"""

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np

from tinysqueeze.compiled.layout import Layout, window_fields
from tinysqueeze.compiled.network import Arm, ConvStep, LayerStep, MeanStep, Network, Step
from tinysqueeze.compiled.sequence import Sequence
from tinysqueeze.compiled.steps import LayerRunner, read
from tinysqueeze.compiled.workspace import LINE, NONE, View, Workspace, job
from tinysqueeze.kernels.head import pixel_mean
from tinysqueeze.kernels.pointwise import hard_swish
from tinysqueeze.kernels.pooling import max_pool
from tinysqueeze.kernels.team import Team


class Inference(Layout):
    """The programs of inference: `refresh` packs the weights, `run` computes logits."""

    def __init__(
        self,
        network: Network,
        workspace: Workspace,
        params: dict[str, np.ndarray],
        batch: int,
        precision: str,
    ) -> None:
        self.folds: list[tuple[ConvStep, Arm, dict[str, np.ndarray]]] = []
        super().__init__(network, workspace, params, batch, precision)
        self.forward = Sequence(wait=True)
        places = self._arena(self._sizes())
        self.views = {i: self._view(i, places) for i in network.written}
        for i, step in enumerate(network.steps):
            self._step(i, step)
        if not workspace.measuring:
            self.packed, self.runnable = self.packing.programs(), self.forward.programs()

    def _weight_params(self, step: ConvStep, arm: Arm) -> dict[str, Any]:
        """The parameters themselves; where a norm follows, room for folded ones."""
        params = super()._weight_params(step, arm)
        if not step.norm:
            return params
        bias = np.empty(arm.filters, np.float32)
        folded = {"weight": np.empty_like(params["weight"]), "bias": bias}
        self.folds.append((step, arm, folded))
        return folded

    # --- maps -----------------------------------------------------------------------------------

    def _is_squeezed(self, number: int) -> bool:
        """Is this map only ever needed within a chunk: made and used by neighbouring steps?"""
        steps = self.network.steps
        for i, (step, following) in enumerate(pairwise(steps)):
            if not (isinstance(step, ConvStep) and isinstance(following, ConvStep)):
                continue
            if step.target == number == following.source:
                return (
                    len(self.network.readers(number)) == 1
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
            if i in self.network.written - {0, self.network.output}
            and not self._is_squeezed(i)
            and self._halo(i) == NONE
        }

    def _view(self, number: int, places: dict[int, int]) -> View:
        size, halo = self.network.maps[number], self._halo(number)
        if number == 0:
            return self._images()
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
        y = self.views[step.target]
        chunks = self.forward.chunks(self.convs[i][0].count)
        x = self._input(step, chunks)
        result = self.workspace.chunk("result", chunks.count, step.result) if step.pool else y
        self._convolve(i, step, x, result, step.floor, chunks)
        if step.hard_swish:
            size = step.result
            chunks.add(
                job(
                    hard_swish,
                    {"y": result},
                    height=size.height,
                    width=size.width,
                    channels=size.padded,
                )
            )
        if step.bypass is not None:
            self._add_bypass(step, result, chunks)
        if step.pool:
            chunks.add(
                job(
                    max_pool,
                    {"x": result, "y": y},
                    height=step.result.height,
                    width=step.result.width,
                    won=0,
                    won_unit=0,
                    out_height=y.height,
                    out_width=y.width,
                    channels=step.result.padded,
                    by_row=0,
                    remember=0,
                    **window_fields(step.pool),
                )
            )
        if not self._is_squeezed(step.target):
            self.forward.close()

    # --- run ------------------------------------------------------------------------------------

    def refresh(self, team: Team) -> None:
        """Packs the parameters as they are now."""
        for step, arm, folded in self.folds:
            assert step.norm
            path, layer = step.norm
            first = sum(a.filters for a in step.arms[: step.arms.index(arm)])
            mine = slice(first, first + arm.filters)
            weight, bias, mean, var = (
                self.params[f"{path}/{n}"][mine].astype(np.float64)
                for n in ("weight", "bias", "mean", "var")
            )
            scale = weight / np.sqrt(var + layer.eps)
            own = self.params.get(f"{arm.path}/bias", 0.0)
            folded["weight"][...] = self.params[f"{arm.path}/weight"] * scale
            folded["bias"][...] = (own - mean) * scale + bias
        self.packed.run(team, 1)

    def run(self, team: Team, images: np.ndarray) -> np.ndarray:
        """Logits of at most `batch` images, a fresh array (N, classes)."""
        self._set_images(images, 0)
        self.runnable.run(team, len(images))
        size, view = self.network.maps[self.network.output], self.views[self.network.output]
        return read(view, size, len(images)).reshape(len(images), -1)
