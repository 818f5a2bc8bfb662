"""Inference of one image at a time, which all threads share: for large images, and for batch 1.

Each step is cut by rows of the image where the image is large, and by panels of output channels
where the weights are: then each thread reads only its part of the weights. Threads wait for each
other between stages, since a 3x3 convolution looks at its neighbours' rows.
"""

from dataclasses import dataclass, replace

import numpy as np

from tinysqueeze.compiled.bands import TILES, Bands, bands_of, by_rows
from tinysqueeze.compiled.convolution import Convolution
from tinysqueeze.compiled.cuts import rows_product, winograd_jobs
from tinysqueeze.compiled.forward import extent
from tinysqueeze.compiled.inference import passing_maps
from tinysqueeze.compiled.layout import Layout, padded_images, window_fields
from tinysqueeze.compiled.sequence import Sequence
from tinysqueeze.compiled.space import NONE, View, job
from tinysqueeze.compiled.steps import ConvStep, JoinStep, Map, MeanStep, NodeStep, Steps
from tinysqueeze.kernels import TARGET
from tinysqueeze.kernels.head import pixel_mean
from tinysqueeze.kernels.kernel import Job
from tinysqueeze.kernels.pointwise import add_map, carry, copy_map
from tinysqueeze.kernels.pooling import max_pool
from tinysqueeze.kernels.team import Split, Stage


def rows_of(view: View) -> View:
    """An image seen as many images of one row."""
    return replace(view, unit=view.row, next=view.row, height=1)


def can_share(steps: Steps) -> bool:
    """Do the kernels that share an image have all that these steps need?"""
    return all(step.activation != "hard-swish" for _, step in steps.convs())


def single(layout: Layout) -> Sequence:
    """The logits of one image."""
    shared = _Single(layout, Sequence())
    for i, convs in layout.steps.convs():
        if bands := shared.bands(i, convs):
            for conv in layout.convs[i]:
                halo = layout.halo(convs.source).around(bands.halo(conv))
                layout.halos[convs.source] = halo
    layout.buffers = passing_maps(layout, {})
    for i, step in enumerate(layout.steps.steps):
        match step:
            case ConvStep():
                shared.convolution(i, step)
            case MeanStep():
                shared.mean(i, step)
            case JoinStep():
                shared.join(step)
            case NodeStep():
                shared.sequence.call(layout.nodes[i].forward(layout.buffers))
    return shared.sequence


@dataclass
class _Single:
    """Appends stages to a sequence, step by step."""

    layout: Layout
    sequence: Sequence

    # --- stages ---------------------------------------------------------------------------------

    def _stage(self, units: int, chunk: int, *jobs: Job, wait: bool = True) -> None:
        stage = Stage(units=units, chunk=chunk, wait=wait)
        for one in jobs:
            stage.add(one)
        self.sequence.add(stage)

    def _share(self, units: int) -> int:
        """The units that each thread gets."""
        return max(1, -(-units // self.layout.space.threads))

    # --- steps without weights ------------------------------------------------------------------

    def mean(self, i: int, step: MeanStep) -> None:
        """The mean of all pixels, by panels of channels; unless the convolution before has done it."""
        writer = self.layout.step(i - 1)
        if writer is None or not self._is_head(i - 1, writer):
            x = self.layout.buffers[step.source]
            self._stage(-(-x.channels // TARGET.panel), 1, self._mean(step, x))

    def _mean(self, step: MeanStep, x: View) -> Job:
        """The mean over pixels of some panels of channels."""
        y = self.layout.buffers[step.target]
        return job(
            pixel_mean, {"x": x}, **extent(self.layout.steps.maps[step.source]),
            y=y.array[y.start :], y_unit=0, by_panel=1,
        )  # fmt: skip

    def join(self, step: JoinStep) -> None:
        """Copies the first map into its channels of the target, and adds the others, by rows."""
        y = self.layout.buffers[step.target].part(step.place, step.channels)
        jobs = []
        for kernel, number in zip((copy_map, add_map), step.reads, strict=False):
            made = self._rows_job(kernel, self.layout.buffers[number], y)
            if number == 0:
                self.sequence.reads_images([made])
            jobs.append(made)
        self._stage(y.height, self._share(y.height), *jobs)

    def _rows_job(self, kernel, x: View, y: View) -> Job:
        """copy_map or add_map of some rows."""
        views = {"x": rows_of(x), "y": rows_of(y)}
        return job(kernel, views, height=1, width=x.width, channels=x.channels)

    # --- convolutions ---------------------------------------------------------------------------

    def convolution(self, i: int, step: ConvStep) -> None:
        """By rows, by panels, in bands or with the mean behind it: whichever suits."""
        x, y = self._source(step), self.layout.buffers[step.target]
        bias, convs = self.layout.biases[i], self.layout.convs[i]
        if self._is_head(i, step):
            self._head(i, step, x, bias)
            return
        if bands := self.bands(i, step):
            self._banded(step, bands, x, y, bias, convs)
            return
        if self._shares_panels(step, convs):
            self._paneled(step, x, y, bias, convs)
            return
        result = y
        if step.pool:
            result = self.layout.space.buffer("before pool", 1, step.result)
        for conv in convs:
            part = result.part(conv.arm.offset, conv.weights.filters)
            own = bias[conv.arm.offset :]
            last = conv is convs[-1]
            if conv.m:
                self._winograd(conv, x, part, own, step.low, last)
            else:
                self._product(conv, x, part, own, step.low, last)
        if step.bypass is not None:
            add = self._rows_job(add_map, self.layout.buffers[step.bypass], result)
            self._stage(result.height, self._share(result.height), add)
        if step.pool:
            self._pool(step, result, y)

    def _source(self, step: ConvStep) -> View:
        """What a step reads; the image copied into padding if it needs it."""
        view = self.layout.buffers[step.source]
        if step.source or self.layout.halo(0) == NONE:
            return view
        size = self.layout.steps.maps[0]
        image = replace(padded_images(self.layout, 1), thread=0)
        x, y = rows_of(view.as_rows()), rows_of(image.as_rows())
        copy = job(
            copy_map, {"x": x, "y": y}, height=1, width=1, channels=size.width * size.channels
        )
        self.sequence.reads_images([copy])
        self._stage(size.height, self._share(size.height), copy)
        return image

    def _product(self, conv, x: View, y: View, bias: np.ndarray, low: float, wait: bool) -> None:
        """A convolution done directly, by rows or by panels: whichever needs fewer bytes a thread."""
        size, weights = conv.result, conv.weights
        by_panel = weights.rows * weights.filters > size.pixels * (x.channels + weights.filters)
        height = size.height if by_panel else self._share(size.height)
        made = self._product_job(conv, x, y, bias, low, height, by_panel=by_panel)
        if by_panel:
            self._stage(-(-weights.filters // TARGET.panel), 1, made, wait=wait)
        else:
            self._stage(size.height, height, made, wait=wait)

    def _product_job(self, conv: Convolution, x: View, *given, **cut) -> Job:
        """`rows_product`, which may read the image itself."""
        made = rows_product(conv, x, *given, **cut)
        if x is self.layout.buffers[0]:
            self.sequence.reads_images([made])
        return made

    # --- convolution and pool together ----------------------------------------------------------

    def bands(self, i: int, step: ConvStep) -> Bands | None:
        """How the map before a pool is cut, if it is."""
        height = self.layout.steps.maps[step.target].height
        return bands_of(step, self.layout.convs[i], height, self.layout.space.threads)

    def _banded(
        self, step: ConvStep, bands: Bands, x: View, y: View, bias: np.ndarray,
        convs: list[Convolution],
    ) -> None:  # fmt: skip
        """Makes a few rows of the map in scratch, pools them while they are in the cache, and so on."""
        share = self._share(bands.units)
        chunk = -(-share // -(-share // bands.limit))
        size = Map(chunk * bands.rows + bands.over, step.result.width, step.result.segments)
        band = self.layout.space.chunk("band", 1, size)
        first: list[Job] = []
        jobs: list[Job] = []
        for conv in convs:
            part = band.part(conv.arm.offset, conv.weights.filters)
            given = (bias[conv.arm.offset :], step.low)
            if conv.m:
                first += winograd_jobs(conv, x, part, *given, 1, False, apart=share)
                below = (x.moved(bands.over, 0), part.moved(bands.over, 0))
                jobs += winograd_jobs(conv, *below, *given, chunk, False)
            else:
                rows, over = share * bands.rows, bands.over
                first.append(
                    self._product_job(conv, x, part, *given, over, rows=rows, beyond=over - rows)
                )
                rows = bands.rows
                jobs.append(
                    self._product_job(conv, x, part, *given, chunk * rows, rows=rows, skip=over)
                )
        if bands.over:  # a thread's first band begins with rows that nobody carried there
            self._stage(-(-bands.units // share), 1, *first, wait=False)
        jobs.append(self._pool_job(step, band, y, 0, bands.pooled))
        if bands.over:
            last = band.moved(chunk * bands.rows, 0)
            vectors = bands.over * band.row // TARGET.lanes
            jobs.append(job(carry, {"x": last, "y": band}, vectors=vectors))
        self._stage(bands.units, chunk, *jobs)

    def _shares_panels(self, step: ConvStep, convs: list[Convolution]) -> bool:
        """Can each thread make and pool as many whole panels as the others?"""
        even = TARGET.panel * self.layout.space.threads
        return (
            step.pool is not None and step.bypass is None
            and all(conv.weights.filters % even == 0 for conv in convs)
        )  # fmt: skip

    def _paneled(
        self, step: ConvStep, x: View, y: View, bias: np.ndarray, convs: list[Convolution]
    ) -> None:
        """Makes a panel of the map in scratch, and pools it; no thread needs what another has made."""
        size = step.result
        panel = self.layout.space.chunk("panel", 1, Map(size.height, size.width, (TARGET.panel,)))
        for conv in convs:
            part = y.part(conv.arm.offset, conv.weights.filters)
            pool = self._pool_job(step, panel, part, 0)
            pool.set(by_row=0, y_unit=TARGET.panel, channels=TARGET.panel)
            given = (conv, x, panel, bias[conv.arm.offset :], step.low)
            if conv.m:
                self._winograd_panels(*given, conv is convs[-1], pool)
            else:
                made = self._product_job(*given, size.height, by_panel=True)
                panels = conv.weights.filters // TARGET.panel
                self._stage(panels, 1, made, pool, wait=conv is convs[-1])

    def _pool_job(self, step: ConvStep, x: View, y: View, unit: int, rows: int = 1) -> Job:
        assert step.pool
        return job(
            max_pool, {"x": replace(x, unit=unit), "y": replace(y, unit=rows * y.row)},
            out_height=y.height, out_width=y.width, argmax=0, argmax_unit=0, by_row=rows,
            remember=0, **extent(step.result), **window_fields(step.pool),
        )  # fmt: skip

    def _pool(self, step: ConvStep, x: View, y: View) -> None:
        assert step.pool
        made = self._pool_job(step, x, y, step.pool.stride[0] * x.row)
        self._stage(y.height, self._share(y.height), made)

    # --- Winograd -------------------------------------------------------------------------------

    def _winograd(self, conv, x: View, y: View, bias, low: float, wait: bool) -> None:
        """By rows of tiles if there are enough of them for each thread; else by panels."""
        if not by_rows(conv, self.layout.space.threads):
            self._winograd_panels(conv, x, y, bias, low, wait)
            return
        high, wide = conv.tiles
        chunk = min(self._share(high), max(1, TILES // wide))
        jobs = winograd_jobs(conv, x, y, bias, low, chunk, by_panel=False)
        self._stage(high, chunk, *jobs, wait=wait)

    def _winograd_panels(
        self, conv, x: View, y: View, bias, low: float, wait: bool, *after: Job
    ) -> None:
        """By panels of output channels, with further jobs for each.

        Every thread needs all of V, and makes it for itself: that takes less time than to wait for
        the other half, and to fetch it from another processor's cache.
        """
        high = conv.tiles[0]
        tiles, products, output = winograd_jobs(conv, x, y, bias, low, high, by_panel=True)
        own = Stage(Split.OWN, wait=False)
        own.add(tiles, high)
        self.sequence.add(own)
        panels = -(-conv.weights.filters // TARGET.panel)
        self._stage(panels, 1, products, output, *after, wait=wait)

    # --- the end --------------------------------------------------------------------------------

    def _is_head(self, i: int, step: ConvStep) -> bool:
        """The last convolution, of which only the mean is wanted?"""
        steps = self.layout.steps
        readers = steps.readers(step.target)
        return (
            len(readers) == 1 and readers[0] is steps.steps[i + 1]
            and isinstance(readers[0], MeanStep)
            and len(step.arms) == 1 and not self.layout.convs[i][0].m
            and not step.pool and step.bypass is None
        )  # fmt: skip

    def _head(self, i: int, step: ConvStep, x: View, bias: np.ndarray) -> None:
        """Convolution and mean together, panel by panel."""
        conv, mean = self.layout.convs[i][0], self.layout.steps.steps[i + 1]
        assert isinstance(mean, MeanStep)
        size = step.result
        panel = self.layout.space.chunk("panel", 1, Map(size.height, size.width, (TARGET.panel,)))
        made = self._product_job(conv, x, panel, bias, step.low, size.height, by_panel=True)
        # reads the panel where the product wrote it, at its beginning
        summed = self._mean(mean, replace(panel, unit=-TARGET.panel))
        self._stage(-(-conv.weights.filters // TARGET.panel), 1, made, summed)
