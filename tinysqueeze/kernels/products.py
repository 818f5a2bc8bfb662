"""Convolutions as products of table rows and packed weights; their gradients; packing and unpacking.

Weights are used from a *packed* copy: panels of `TARGET.panel` output channels, each panel one
contiguous strip that the micro-kernel reads from beginning to end. Channels are padded with zeros
to whole vectors, in the packed weights and in the buffers between layers; so kernels never see an
odd number of channels, and the zeros never change a result. Packing takes tables as well: entry k
of `rows` says where row k is in the unpacked weights, -1 standing for a row of zeros.
"""

from typing import Any

from numba import float32

from tinysqueeze.kernels.kernel import kernel
from tinysqueeze.kernels.target import TARGET
from tinysqueeze.kernels.tile import (
    SUM,
    narrow_strip,
    narrow_sum,
    narrow_tile,
    short_tile,
    wide_strip,
    wide_sum,
    wide_tile,
)
from tinysqueeze.kernels.vectors import Emitter, Value, floats, floats_t, ints, procedure

LANES = TARGET.lanes
PANEL = TARGET.panel
TILE, STRIP = TARGET.tile_rows, TARGET.strip_rows
DEEP = 128
"""Steps whose weights, or for weight gradients dy, stay in the first cache while all rows are done."""


@procedure(floats_t, floats_t)
def copy_vector(e: Emitter, source: Value, target: Value) -> None:
    """Copies one vector."""
    e.store(e.load(source), target)


@procedure(floats_t)
def zero_vector(e: Emitter, target: Value) -> None:
    """Sets one vector to zero."""
    e.store(e.every(0), target)


@kernel("""
    x x_unit? x_thread x_batch? x_rows x_steps
    w w_batch? in_panels? depth vectors bias floor:f
    y y_unit? y_thread y_batch? y_rows add?
    batch rows_per_unit rows_beyond? rows_in_all by_panel? soon? soon_unit?
""")
def product(job: Any, first: int, count: int, thread: int) -> None:
    """y[row] = max(floor, bias + sum over k of x[row, k] * w[k]) for rows and steps from tables.

    A unit is `rows_per_unit` rows, usually the pixels of one image; or, if `by_panel`, one panel of
    output channels, for which all rows are done: that suits one image with many channels. `batch`
    repeats it all that many times, each `_batch` floats further (the positions of Winograd).
    `soon` is what a later job needs of memory, `soon_unit` floats a unit: it is asked for meanwhile.
    The arrays begin `unit * first + thread * thread_size` floats after their address. With `in_panels`
    the weights of a panel lie in the order in which they are read, one of the batch behind the other.
    Panels of a batch, which has no bias, take `DEEP` steps at most at a time.
    """
    x = job.x + 4 * (first * job.x_unit + thread * job.x_thread)
    y = job.y + 4 * (first * job.y_unit + thread * job.y_thread)
    rows = count * job.rows_per_unit + job.rows_beyond
    rows = min(rows, job.rows_in_all - first * job.rows_per_unit)
    begin, end = 0, (job.vectors * LANES + PANEL - 1) // PANEL
    if job.by_panel:
        rows, begin, end = job.rows_per_unit, first, first + count
    # So many tiles have a row less that none is nearly empty: 169 rows are 7 * 7 + 15 * 8.
    tiles = (rows + TILE - 1) // TILE
    spare = tiles * TILE - rows
    short = spare * (TILE - 1) if spare <= tiles else 0
    table = ints(job.x_rows)
    deep = DEEP if job.by_panel and job.batch > 1 else job.depth
    far = 1 if job.y_thread == 0 else 0  # not scratch
    soon = job.soon + 4 * first * job.soon_unit
    part = PANEL * job.depth // max(rows, 1)
    for n in range(job.batch):
        for panel in range(begin, end):
            column = panel * PANEL
            width = min(PANEL, job.vectors * LANES - column)
            w, following = job.w + 4 * (n * job.w_batch + column * job.depth), job.w_batch
            if job.in_panels:
                w = job.w + 4 * job.depth * (column * job.batch + n * width)
                following = job.depth * width
            xs = floats(x + 4 * n * job.x_batch)
            ys = floats(y + 4 * (n * job.y_batch + column))
            starts = floats(job.bias + 4 * column)
            wide = column + PANEL <= job.vectors * LANES
            begun = 0
            while begun < job.depth:
                depth, steps = min(deep, job.depth - begun), ints(job.x_steps + 4 * begun)
                add = job.add + begun
                after = following if begun + depth == job.depth else depth * width
                row = 0
                while row < rows:
                    tile = TILE - 1 if wide and row < short else TILE
                    if job.by_panel and job.batch > 1 and 2 * row < PANEL:
                        # Winograd by panels: the next position's weights lie far from these, so that
                        # the processor foresees nothing. The first tiles ask for a part of them each.
                        upcoming = floats(w + 4 * (after + 2 * row * depth))
                    elif job.batch > 1 and wide and not job.by_panel:
                        # The next panel's, a part a tile.
                        upcoming = floats(w + 4 * (PANEL * job.depth + row * part))
                    elif job.soon:
                        upcoming = floats(soon)
                        soon += 4 * TILE * PANEL
                    else:
                        below = table[min(row + tile, rows - 1)]
                        upcoming = floats(x + 4 * (n * job.x_batch + below))
                    row_table, place = ints(job.x_rows + 4 * row), ints(job.y_rows + 4 * row)
                    last = rows - row - 1
                    if not wide:
                        narrow_tile(xs, row_table, steps, last, floats(w), LANES, depth, ys, place,
                                    starts, add, job.floor, far, upcoming)  # fmt: skip
                    elif row < short:
                        short_tile(xs, row_table, steps, last, floats(w), PANEL, depth, ys, place,
                                   starts, add, job.floor, far, upcoming)  # fmt: skip
                    else:
                        wide_tile(xs, row_table, steps, last, floats(w), PANEL, depth, ys, place,
                                  starts, add, job.floor, far, upcoming)  # fmt: skip
                    row += tile
                begun += depth
                following -= depth * width
                w += 4 * depth * width


@kernel("""
    x x_unit? x_thread x_batch? x_rows x_steps rows neighbours
    d d_unit? d_thread d_batch? d_step vectors zeros
    y y_thread y_batch? y_rows batch pixels
""")
def weight_gradient(job: Any, first: int, count: int, thread: int) -> None:
    """y[row] += sum over pixels of x[row + pixel] * d[pixel]: this thread's share of dweight.

    The same micro-kernel with the roles changed: rows are the weights of one output channel (their
    table says where the weight's input is, as seen from a pixel), steps are the pixels: `DEEP` at most
    at a time. Where rows come in groups of `STRIP` neighbours, a simpler micro-kernel does.
    """
    x = job.x + 4 * (first * job.x_unit + thread * job.x_thread)
    d = job.d + 4 * (first * job.d_unit + thread * job.d_thread)
    y = job.y + 4 * thread * job.y_thread
    pixels = count * job.pixels
    nothing, starts = floats(job.zeros), ints(job.x_rows)
    no_floor = float32(-1e38) * float32(1e38)
    size = job.vectors * LANES
    parts = (pixels + DEEP - 1) // DEEP
    deep = (pixels + parts - 1) // parts
    for n in range(job.batch):
        for part in range(parts):
            begin = part * deep
            depth, steps = min(deep, pixels - begin), ints(job.x_steps + 4 * begin)
            for column in range(0, size, PANEL):
                xs = floats(x + 4 * n * job.x_batch)
                ds = floats(d + 4 * (n * job.d_batch + begin * job.d_step + column))
                ys = floats(y + 4 * (n * job.y_batch + column))
                wide = column + PANEL <= size
                for row in range(0, job.rows if job.neighbours else 0, STRIP if wide else LANES):
                    place = x + 4 * (n * job.x_batch + starts[row])
                    out = floats(y + 4 * (n * job.y_batch + column + row * size))
                    if wide:
                        wide_strip(floats(place), steps, ds, job.d_step, depth, out, size)
                    else:
                        narrow_strip(floats(place), steps, ds, job.d_step, depth, out, size)
                for row in range(job.rows if job.neighbours else 0, job.rows, SUM):
                    rows, outs = ints(job.x_rows + 4 * row), ints(job.y_rows + 4 * row)
                    last = job.rows - row - 1
                    if wide:
                        wide_sum(xs, rows, steps, last, ds, job.d_step, depth, ys, outs,
                                 nothing, 1, no_floor, 0, nothing)  # fmt: skip
                    else:
                        narrow_sum(xs, rows, steps, last, ds, job.d_step, depth, ys, outs,
                                   nothing, 1, no_floor, 0, nothing)  # fmt: skip


@kernel("source rows columns solid vectors target row_count")
def pack(job: Any, first: int, count: int, thread: int) -> None:
    """target[n][panel][k][:] = source[rows[n][k] + columns[:]], zeros where a table says -1.

    Units are rows, those of n = 1 after those of n = 0 and so on. `columns` has an entry for each
    padded output channel; `solid` says that they simply are 0, 1, 2, ... without padding.
    """
    rows, columns = ints(job.rows), ints(job.columns)
    size = job.row_count * job.vectors * LANES
    for unit in range(first, first + count):
        n, k = unit // job.row_count, unit % job.row_count
        row = rows[unit]
        source = floats(job.source + 4 * row)
        for begin in range(0, job.vectors * LANES, PANEL):
            width = min(PANEL, job.vectors * LANES - begin)
            place = job.target + 4 * (n * size + begin * job.row_count + k * width)
            target = floats(place)
            if job.solid and row >= 0:
                for lane in range(0, width, LANES):
                    copy_vector(
                        floats(job.source + 4 * (row + begin + lane)),
                        floats(place + 4 * lane),
                    )
            else:
                for lane in range(width):
                    column = columns[begin + lane]
                    target[lane] = source[column] if row >= 0 and column >= 0 else float32(0)


@kernel("source source_thread source_row threads rows row_count columns target")
def unpack(job: Any, first: int, count: int, thread: int) -> None:
    """target[rows[k] + j] = the sum over threads of source[thread][k][j], for j < columns.

    Units are rows; threads are added in their order. Rows at -1 are padding and left out.
    """
    rows = ints(job.rows)
    for k in range(first, first + count):
        if rows[k] >= 0:
            out = floats(job.target + 4 * rows[k])
            one = floats(job.source + 4 * k * job.source_row)
            for j in range(job.columns):
                out[j] = one[j]
            for t in range(1, job.threads):
                other = floats(job.source + 4 * (k * job.source_row + t * job.source_thread))
                for j in range(job.columns):
                    out[j] += other[j]


@kernel("x x_unit? x_thread x_next? vectors")
def clear(job: Any, first: int, count: int, thread: int) -> None:
    """Sets the first vectors of each unit to zero."""
    x = job.x + 4 * (first * job.x_unit + thread * job.x_thread)
    for n in range(count):
        for v in range(job.vectors):
            zero_vector(floats(x + 4 * (n * job.x_next + v * LANES)))
