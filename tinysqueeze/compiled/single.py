"""Inference of one image at a time, which all threads share: for large images, and for batch 1.

Each step is cut by rows of the image where the image is large, and by panels of output channels
where the weights are: then each thread reads only its part of the weights. Threads wait for each
other between stages, since a 3x3 convolution looks at its neighbours' rows.
"""

from dataclasses import dataclass, replace

from tinysqueeze.compiled.bands import TILES, Bands, bands_of, by_rows
from tinysqueeze.compiled.convolution import Convolution
from tinysqueeze.compiled.cuts import panels_product, rows_product, winograd_jobs
from tinysqueeze.compiled.inference import passing_maps
from tinysqueeze.compiled.layout import Layout, mean, padded_images, pool_job
from tinysqueeze.compiled.phases import phases_job
from tinysqueeze.compiled.sequence import Sequence
from tinysqueeze.compiled.space import NONE, View, job
from tinysqueeze.compiled.steps import (
    ConvStep,
    JoinStep,
    Map,
    MeanStep,
    NodeStep,
    PhaseStep,
    StepList,
)
from tinysqueeze.kernels import TARGET
from tinysqueeze.kernels.kernel import Job, Kernel
from tinysqueeze.kernels.pointwise import add_map, carry, copy_map
from tinysqueeze.kernels.team import Stage


def rows_of(view: View) -> View:
    """An image seen as many images of one row."""
    return replace(view, unit=view.row, next=view.row, height=1)


def can_share(steps: StepList) -> bool:
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
            case PhaseStep():
                shared.phases(step)
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
        stage.add(*jobs)
        self.sequence.add(stage)

    def _panel_stage(self, channels: int, *jobs: Job, wait: bool = True) -> None:
        """A unit is a panel of so many channels."""
        self._stage(-(-channels // TARGET.panel), 1, *jobs, wait=wait)

    def _share(self, units: int) -> int:
        """The units that each thread gets."""
        return max(1, -(-units // self.layout.space.threads))

    # --- steps without weights ------------------------------------------------------------------

    def mean(self, i: int, step: MeanStep) -> None:
        """The mean of all pixels, by panels of channels; unless the convolution before has done it."""
        writer = self.layout.step(i - 1)
        if writer is None or not self._is_head(i - 1):
            x = replace(self.layout.buffers[step.source], unit=0)  # units are panels, not images
            self._panel_stage(x.channels, mean(self.layout, step, x))

    def join(self, step: JoinStep) -> None:
        """Copies the first map into its channels of the target, and adds the others, by rows."""
        y = self.layout.buffers[step.target].part(step.place, step.channels)
        kernels = zip((copy_map, add_map), step.reads, strict=False)
        jobs = [self._rows_job(kernel, self.layout.buffers[n], y) for kernel, n in kernels]
        self._stage(y.height, self._share(y.height), *jobs)

    def phases(self, step: PhaseStep) -> None:
        """The image in phases, by rows."""
        x, y = (self.layout.buffers[n] for n in (step.source, step.target))
        made = phases_job(self.layout, step, x, replace(y, unit=y.row), by_row=True)
        self._stage(y.height, self._share(y.height), made)

    def _rows_job(self, kernel: Kernel, x: View, y: View) -> Job:
        """copy_map or add_map of some rows."""
        views = {"x": rows_of(x), "y": rows_of(y)}
        return job(kernel, views, height=1, width=x.width, channels=x.channels)

    # --- convolutions ---------------------------------------------------------------------------

    def convolution(self, i: int, step: ConvStep) -> None:
        """By rows, by panels, in bands or with the mean behind it: whichever suits."""
        x, y, convs = self._source(step), self.layout.buffers[step.target], self.layout.convs[i]
        if self._is_head(i):
            self._head(i, step, x)
            return
        if bands := self.bands(i, step):
            self._banded(step, bands, x, y, convs)
            return
        if self._shares_panels(step, convs):
            self._paneled(step, x, y, convs)
            return
        result = y
        if step.pool:
            result = self.layout.space.buffer("before pool", 1, step.result)
        for conv in convs:
            by = self._winograd if conv.m else self._product
            by(conv, x, conv.part(result), conv is convs[-1])
        if step.bypass is not None:
            add = self._rows_job(add_map, self.layout.buffers[step.bypass], result)
            self._stage(result.height, self._share(result.height), add)
        if step.pool:
            pool = self._pool_job(step, result, y, step.pool.stride[0] * result.row)
            self._stage(y.height, self._share(y.height), pool)

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
        self._stage(size.height, self._share(size.height), copy)
        return image

    def _product(self, conv: Convolution, x: View, y: View, wait: bool) -> None:
        """A convolution done directly, by rows or by panels: whichever needs fewer bytes a thread."""
        size, weights = conv.result, conv.weights
        if weights.rows * weights.filters > size.pixels * (x.channels + weights.filters):
            self._panel_stage(weights.filters, panels_product(conv, x, y), wait=wait)
        else:
            height = self._share(size.height)
            self._stage(size.height, height, rows_product(conv, x, y, height), wait=wait)

    # --- convolution and pool together ----------------------------------------------------------

    def bands(self, i: int, step: ConvStep) -> Bands | None:
        """How the map before a pool is cut, if it is."""
        height = self.layout.steps.maps[step.target].height
        return bands_of(step, self.layout.convs[i], height, self.layout.space.threads)

    def _banded(
        self, step: ConvStep, bands: Bands, x: View, y: View, convs: list[Convolution]
    ) -> None:
        """Makes a few rows of the map in scratch, pools them while they are in the cache, and so on."""
        share = self._share(bands.units)
        chunk = -(-share // -(-share // bands.limit))
        size = Map(chunk * bands.rows + bands.over, step.result.width, step.result.segments)
        band = self.layout.space.chunk("band", 1, size)
        first: list[Job] = []
        jobs: list[Job] = []
        for conv in convs:
            part, rows, over = conv.part(band), bands.rows, bands.over
            if conv.m:
                per = rows // conv.m
                below, further = x.moved(over, 0), part.moved(over, 0)
                first += winograd_jobs(conv, x, part, 1, False, apart=share * per)
                jobs += winograd_jobs(conv, below, further, chunk, False, apart=per, per=per)
            else:
                all_rows = share * rows
                first.append(rows_product(conv, x, part, over, all_rows, beyond=over - all_rows))
                jobs.append(rows_product(conv, x, part, chunk * rows, rows, skip=over))
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

    def _panel(self, step: ConvStep, panels: int = 1) -> View:
        """A thread's scratch for so many panels of a step's result."""
        size = Map(step.result.height, step.result.width, (panels * TARGET.panel,))
        return self.layout.space.chunk("panel", 1, size)

    def _paneled(self, step: ConvStep, x: View, y: View, convs: list[Convolution]) -> None:
        """Makes a panel of the map in scratch, and pools it; no thread needs what another has made."""
        panel = self._panel(step)
        for conv in convs:
            pool = self._pool_job(step, panel, conv.part(y), 0)
            pool.set(by_row=0, y_unit=TARGET.panel, channels=TARGET.panel)
            last = conv is convs[-1]
            if conv.m:
                self._winograd_panels(conv, x, panel, last, pool)
            else:
                made = panels_product(conv, x, panel)
                self._panel_stage(conv.weights.filters, made, pool, wait=last)

    def _pool_job(self, step: ConvStep, x: View, y: View, unit: int, rows: int = 1) -> Job:
        return pool_job(step, replace(x, unit=unit), replace(y, unit=rows * y.row), by_row=rows)

    # --- Winograd -------------------------------------------------------------------------------

    def _winograd(self, conv: Convolution, x: View, y: View, wait: bool) -> None:
        """By rows of tiles if there are enough of them for each thread; else by panels."""
        if not by_rows(conv, self.layout.space.threads):
            self._winograd_panels(conv, x, y, wait)
            return
        high, wide = conv.tiles
        chunk = min(self._share(high), max(1, TILES // wide))
        jobs = winograd_jobs(conv, x, y, chunk, by_panel=False)
        self._stage(high, chunk, *jobs, wait=wait)

    def _winograd_panels(
        self, conv: Convolution, x: View, y: View, wait: bool, *after: Job
    ) -> None:
        """By panels of output channels, with further jobs for each.

        Every thread needs all of V, and makes it for itself: that takes less time than to wait for
        the other half, and to fetch it from another processor's cache.
        """
        high = conv.tiles[0]
        tiles, products, output = winograd_jobs(conv, x, y, high, by_panel=True)
        self.sequence.own().add(tiles, units=high)
        self._panel_stage(conv.weights.filters, products, output, *after, wait=wait)

    # --- the end --------------------------------------------------------------------------------

    def _is_head(self, i: int) -> bool:
        """Is only the mean of this step wanted, and is it no Winograd?"""
        return self.layout.steps.is_head(i) and not self.layout.convs[i][0].m

    def _head(self, i: int, step: ConvStep, source: View) -> None:
        """Convolution and mean together, panel by panel."""
        conv, after = self.layout.convs[i][0], self.layout.steps.steps[i + 1]
        assert isinstance(after, MeanStep)
        panels = 2 if conv.weights.halves else 1
        scratch = self._panel(step, panels)
        # the mean reads the panels where the product wrote them, at the beginning
        x = replace(scratch, unit=-panels * TARGET.panel)
        summed = mean(self.layout, after, x, panels)
        if conv.weights.halves:
            sums, *made = conv.strassen(source, scratch)
            self.sequence.own().add(sums, units=conv.half)
        else:
            made = [panels_product(conv, source, scratch)]
        self._panel_stage(-(-conv.weights.filters // panels), *made, summed)
