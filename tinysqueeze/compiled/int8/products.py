"""The integers of a convolution as its kernel wants them: packed weights, biases, scales, tables."""

from dataclasses import dataclass, replace
from itertools import pairwise
from math import prod

import numpy as np
from numpy.typing import NDArray

from tinysqueeze.compiled.int8.maps import Layout, in_tiles, tiles_of
from tinysqueeze.compiled.space import aligned
from tinysqueeze.devices.int8 import Int8Conv, Int8Network
from tinysqueeze.graph import Conv
from tinysqueeze.kernels import TARGET
from tinysqueeze.kernels.byte_products import panel_starts
from tinysqueeze.kernels.byte_tile import SHIFT_LEAST, SHIFT_MOST, is_interleaved
from tinysqueeze.kernels.byte_winograd import CENTRE, MOST, POSITIONS, SIXES, UNIT, G

INT32_MAX = (1 << 31) - 1
TILE_COST, WEIGHT_COST = 240, 4
"""What a tile's results take besides products, and, in tiles, what it takes to load the weights."""


@dataclass(frozen=True, eq=False)
class Packed:
    """A convolution ready for `byte_product`, `byte_sum` or `byte_winograd`.

    steps    where four bytes of a patch begin, seen from its first, int32 (depth,)
    weight   int8, panel by panel (depth, vectors, LANES, 4): 0 for bytes that are none of its channels
    bias     int32 (F,), padded to vectors; what the source's zero adds to a sum is taken off here
    scales   the table of `byte_tile`; `quick` says that it was made for `quick`

    The filters of each panel stand in the order that its tile wants, in all three.

    `tiled`, for `byte_winograd`: steps are those of two numbers of 16 bits; weight is U, int16, panel by
    panel (POSITIONS, depth, vectors, LANES, 2); bias (POSITIONS, F).
    """

    steps: NDArray[np.int32]
    weight: NDArray[np.int8] | NDArray[np.int16]
    bias: NDArray[np.int32]
    scales: NDArray[np.uint8]
    quick: bool
    vectors: int
    tiled: bool = False

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return sum(a.nbytes for a in (self.steps, self.weight, self.bias, self.scales))


def pack(network: Int8Network, layout: Layout, i: int, node: Conv, images: int) -> Packed:
    """Pack node i, which is done for so many images at a time."""
    conv = network.convs[i]
    weight = dense(conv.weight, node.groups)
    vectors = TARGET.padded(weight.shape[3]) // TARGET.lanes
    is_wide = node.target == network.wide
    zero = 0 if is_wide else int(network.grids[node.target].zero[0])
    bias = np.zeros(vectors * TARGET.lanes, np.int64)
    from_zero = np.broadcast_to(network.grids[node.source].zero, weight.shape[2])
    bias[: node.filters] = conv.bias - from_zero @ weight.sum(axis=(0, 1), dtype=np.int64)
    if not is_wide and pays_in_tiles(layout, node, images) and fits(conv, MOST):
        higher = replace(conv, shift=conv.shift + SIXES)
        if is_quick(higher):
            return _pack_tiled(layout, node, weight, bias, higher, zero)
    steps, fours, lanes = patch(layout, node)
    packed = np.zeros((len(steps), 4, vectors * TARGET.lanes), np.int8)
    packed[fours, lanes, : node.filters] = weight.reshape(-1, node.filters)
    order = np.arange(vectors * TARGET.lanes) if is_wide else filter_order(vectors)
    quick = not is_wide and is_quick(conv)
    return Packed(
        steps, strips(packed[:, :, order]), _copied(wrapped(bias[order])),
        scale_table(conv, order, zero if quick else None), quick, vectors,
    )  # fmt: skip


def _pack_tiled(
    layout: Layout, node: Conv, weight: NDArray[np.int8], bias: NDArray[np.int64], conv: Int8Conv,
    zero: int,
) -> Packed:  # fmt: skip
    """For `byte_winograd`: U = G weight Gᵀ."""
    u = np.einsum("ia,abcf,jb->ijcf", G, weight.astype(np.int64), G)
    packed = np.zeros((POSITIONS, layout.pixel(node.source), len(bias)), np.int16)
    packed[:, layout.maps[node.source].positions, : node.filters] = u.reshape(
        POSITIONS, -1, node.filters
    )
    biases = np.zeros((POSITIONS, len(bias)), np.int32)
    biases[CENTRE] = wrapped(bias * UNIT)
    steps = np.arange(0, 2 * packed.shape[1], 4, dtype=np.int32)
    return Packed(
        steps, strips(packed.reshape(POSITIONS, -1, 2, len(bias))), _copied(biases.ravel()),
        scale_table(conv, np.arange(len(bias)), zero), True, len(bias) // TARGET.lanes, True,
    )  # fmt: skip


def pays_in_tiles(layout: Layout, node: Conv, images: int) -> bool:
    """Is `byte_winograd` faster for so many images at a time? By counting what a vector of filters takes."""
    height, width, _ = layout.graph.size(node.target)
    tiles = images * prod(tiles_of(layout, node))
    channels = layout.pixel(node.source)
    in_a_lane = 4 if TARGET.dot == "vnni" else 2  # without it bytes are widened to 16 bits as well
    direct = images * height * width * node.window.area * channels // in_a_lane
    tiled = (tiles + WEIGHT_COST) * POSITIONS * channels // 2 + tiles * TILE_COST
    return in_tiles(node) and tiled < direct


def wrapped(numbers: NDArray[np.int64]) -> NDArray[np.int32]:
    """As sums in 32 bits wrap around."""
    return numbers.astype(np.int32)


def strips(packed: np.ndarray) -> np.ndarray:
    """Weights (..., numbers in a lane, filters) as one strip for each panel, (..., filters, numbers)."""
    starts = panel_starts(packed.shape[-1] // TARGET.lanes)
    panels = [
        packed[..., start * TARGET.lanes : stop * TARGET.lanes].swapaxes(-1, -2).ravel()
        for start, stop in pairwise(starts)
    ]
    return _copied(np.concatenate(panels))


def filter_order(vectors: int) -> np.ndarray:
    """Which filter stands in each lane, panel by panel: see `integers.packed`."""
    orders = []
    for start, stop in pairwise(panel_starts(vectors)):
        order = np.arange(start * TARGET.lanes, stop * TARGET.lanes)
        if is_interleaved(stop - start):
            order = order.reshape(4, 4, 4).transpose(1, 0, 2).ravel()  # quarter, vector, lane
        orders.append(order)
    return np.concatenate(orders)


def dense(weight: NDArray[np.int8], groups: int) -> NDArray[np.int8]:
    """weight (KH, KW, C / groups, F) as (KH, KW, C, F): 0 where a filter does not see a channel."""
    high, wide, channels, filters = weight.shape
    if groups == 1:
        return weight
    full = np.zeros((high, wide, groups, channels, groups, filters // groups), np.int8)
    parts = weight.reshape(high, wide, channels, groups, -1)
    for g in range(groups):
        full[:, :, g, :, g] = parts[:, :, :, g]
    return full.reshape(high, wide, groups * channels, filters)


def patch(layout: Layout, node: Conv) -> tuple[NDArray[np.int32], np.ndarray, np.ndarray]:
    """How a patch is cut into fours of neighbouring bytes.

    Where each four begins, int32; and of each number of the patch (kernel row, column, channel) its four
    and its lane in it. A row of the kernel is one run of bytes, in which fours may cross from a pixel to
    the next: 7 pixels of 3 channels are 6 fours, not 7.
    """
    (high, wide), number = node.window.kernel, node.source
    places = layout.maps[number].positions
    run = (np.arange(wide)[:, None] * layout.pixel(number) + places).ravel()
    starts: list[int] = []
    for place in run.tolist():
        if not starts or place >= starts[-1] + 4:
            starts.append(place)
    fours = np.searchsorted(starts, run, side="right") - 1
    lanes = run - np.array(starts)[fours]
    rows = np.arange(high)[:, None]
    steps = (rows * layout.row(number) + np.array(starts)).astype(np.int32).ravel()
    return steps, (rows * len(starts) + fours).ravel(), np.tile(lanes, high)


def fits(conv: Int8Conv, most: int = INT32_MAX + 1) -> bool:
    """Is each sum smaller, whatever the bytes?"""
    sums = np.abs(conv.weight.astype(np.int64)).sum(axis=(0, 1, 2)) * 255
    return bool((sums + np.abs(conv.bias.astype(np.int64)) < most).all())


def is_quick(conv: Int8Conv) -> bool:
    """Do all shifts suit `byte_tile.quick`? (A multiplier of 0 suits any.)"""
    shift = conv.shift[conv.multiplier != 0]
    return bool(((shift >= SHIFT_LEAST) & (shift <= SHIFT_MOST)).all())


def scale_table(conv: Int8Conv, order: np.ndarray, quick_zero: int | None) -> NDArray[np.uint8]:
    """Multiplier, half and shift as `byte_tile` reads them; with a zero for `quick`, else for `exact`."""
    filters, vectors = len(conv.shift), len(order) // TARGET.lanes
    multiplier, shift = np.zeros(len(order), np.int32), np.full(len(order), SHIFT_LEAST, np.int64)
    multiplier[:filters] = conv.multiplier
    shift[:filters] = np.where(conv.multiplier != 0, conv.shift, SHIFT_LEAST)
    multiplier, shift = multiplier[order], shift[order]
    half, multipliers = np.int64(1) << (shift - 1), multiplier.astype(np.int64)
    if quick_zero is None:
        tables = [a[first::2] for first in (0, 1) for a in (multipliers, half, shift)]
    else:
        half += np.int64(quick_zero) << shift
        ints = [(a.astype(np.int32)) for a in (half >> 32, shift - 32)]
        unused = np.zeros(2 * len(order), np.int32)
        tables = [multipliers[0::2], multipliers[1::2], *ints, unused]
    rows = [np.ascontiguousarray(table).view(np.uint8).reshape(vectors, -1) for table in tables]
    return _copied(np.concatenate(rows, axis=1).ravel())


def _copied(array: np.ndarray) -> np.ndarray:
    """A copy that begins at a cache line."""
    copy = aligned(array.size, array.dtype)
    copy[...] = array
    return copy
