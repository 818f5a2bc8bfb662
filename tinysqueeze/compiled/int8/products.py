"""The integers of a convolution as its kernel wants them: packed weights, biases, scales, tables."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from tinysqueeze.compiled.int8.maps import Layout
from tinysqueeze.compiled.space import aligned
from tinysqueeze.devices.int8 import Int8Conv, Int8Network
from tinysqueeze.graph import Conv
from tinysqueeze.kernels import TARGET
from tinysqueeze.kernels.byte_products import panel_starts
from tinysqueeze.kernels.byte_tile import SHIFT_LEAST, SHIFT_MOST, is_interleaved

INT32_MAX = (1 << 31) - 1


@dataclass(frozen=True, eq=False)
class Packed:
    """A convolution ready for `byte_product` or `byte_sum`.

    steps    where four bytes of a patch begin, seen from its first, int32 (depth,)
    weight   int8, panel by panel (depth, vectors, LANES, 4): 0 for bytes that are none of its channels
    bias     int32 (F,), padded to vectors; what the source's zero adds to a sum is taken off here

    The filters of each panel stand in the order that its tile wants, in all three.
    scales   the table of `byte_tile`; `quick` says that it was made for `quick`
    """

    steps: NDArray[np.int32]
    weight: NDArray[np.int8]
    bias: NDArray[np.int32]
    scales: NDArray[np.uint8]
    quick: bool
    vectors: int

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        return sum(a.nbytes for a in (self.steps, self.weight, self.bias, self.scales))


def pack(network: Int8Network, layout: Layout, i: int, node: Conv) -> Packed:
    """Pack node i."""
    conv, zero = network.convs[i], network.grids[node.source].zero
    weight = dense(conv.weight, node.groups)
    channels, filters = weight.shape[2:]
    steps, fours, lanes = patch(layout, node)
    vectors = TARGET.padded(filters) // TARGET.lanes
    packed = np.zeros((len(steps), 4, vectors * TARGET.lanes), np.int8)
    packed[fours, lanes, :filters] = weight.reshape(-1, filters)
    from_zero = np.broadcast_to(zero, channels) @ weight.sum(axis=(0, 1), dtype=np.int64)
    bias = np.zeros(vectors * TARGET.lanes, np.int32)
    bias[:filters] = (conv.bias - from_zero).astype(np.int32)  # wraps around, as the sums do
    is_wide = node.target == network.wide
    order = np.arange(vectors * TARGET.lanes) if is_wide else filter_order(vectors)
    packed = packed[:, :, order].transpose(0, 2, 1)
    strips = [
        packed[:, start * TARGET.lanes : stop * TARGET.lanes].ravel()
        for start, stop in pairwise(panel_starts(vectors))
    ]
    zero_out = 0 if is_wide else int(network.grids[node.target].zero[0])
    quick = not is_wide and is_quick(conv)
    scales = scale_table(conv, order, zero_out if quick else None)
    return Packed(
        steps, _copied(np.concatenate(strips)), _copied(bias[order]), scales, quick, vectors
    )


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


def fits(conv: Int8Conv) -> bool:
    """Can no sum leave the range of int32, whatever the bytes?"""
    sums = np.abs(conv.weight.astype(np.int64)).sum(axis=(0, 1, 2)) * 255
    return bool((sums + np.abs(conv.bias.astype(np.int64)) <= INT32_MAX).all())


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
