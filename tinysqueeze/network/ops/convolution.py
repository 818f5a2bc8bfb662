"""Convolution by a tile of patches at a time: two loops in Numba, around products that BLAS makes.

`reference` writes down every patch of the batch, many times the image, and reads them all back for the
product. Here a tile of them is written, multiplied while it is in the cache, and written over by the
next. On the way back a tile's gradients are added to the image at once, where `reference` goes over
the whole of it nine times. What is left is nearly all products, and plain loops reached six tenths
of BLAS's speed in those. So on one thread `reference` takes 1.06 to 1.9 times as long, there and back, for
the 3x3 convolutions of the CIFAR network in batches of 64: 1.2 times in the middle. The next rung, without
patches and with the registers filled by hand, is in `kernels`.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from numba import config, njit

from tinysqueeze.errors import ShapeError
from tinysqueeze.network.ops import reference
from tinysqueeze.network.window import Window

TILE = 2**19
"""Numbers in a tile, 2 MB of float32: few enough for the cache, enough for a product at full speed."""

# ------------------------------------------------------------------------------ what kernels take


def kernel_input(array: np.ndarray, dtype: npt.DTypeLike | None = None) -> np.ndarray:
    """A contiguous, read-only view (a copy only if it must be): the one kind that kernels take.

    Numba compiles a kernel anew for each kind of argument, and a read-only array is a kind of its
    own. So every input is made one, which also holds the kernels to their promise.
    """
    view = np.ascontiguousarray(array, dtype).view()
    view.flags.writeable = False
    return view


Geometry = tuple[int, ...]
"""KH, KW, SH, SW, PH, PW: a window as the kernels take it."""


def window_numbers(window: Window) -> Geometry:
    """A window as the kernels take it."""
    return *window.kernel, *window.stride, *window.pad


# ------------------------------------------------------------------- patches of images (N, H, W*C)
#
# A row of pixels is one line of numbers here, since those that a window sees lie side by side in it.
# Places of the window are counted through the whole batch: 0 .. N*OH*OW - 1.


@njit(cache=True, nogil=True)
def _corner(place: int, oh: int, ow: int, window: Geometry) -> tuple[int, int, int]:
    """The image, and its row and column under the window's first corner: negative in the padding."""
    _, _, sh, sw, ph, pw = window
    image, rest = divmod(place, oh * ow)
    oy, ox = divmod(rest, ow)
    return image, oy * sh - ph, ox * sw - pw


@njit(cache=True, nogil=True)
def unfold(
    x: np.ndarray, patches: np.ndarray, first: int, oh: int, ow: int, window: Geometry
) -> None:
    """Copy what the window sees of x at the places from `first` on: patches (P, KH*KW*C)."""
    kh, kw = window[:2]
    c = patches.shape[1] // (kh * kw)
    patches[:] = 0  # as the padding is
    for p in range(len(patches)):
        image, top, left = _corner(first + p, oh, ow, window)
        start, stop = max(left, 0), max(min(left + kw, x.shape[2] // c), 0)
        for ky in range(max(-top, 0), min(kh, x.shape[1] - top)):
            seen = x[image, top + ky, start * c : stop * c]
            patch = patches[p, (ky * kw + start - left) * c :]
            for i in range(len(seen)):
                patch[i] = seen[i]


@njit(cache=True, nogil=True)
def fold(
    patches: np.ndarray, dx: np.ndarray, first: int, oh: int, ow: int, window: Geometry
) -> None:
    """The gradient of `unfold`: add each patch to the numbers of dx (N, H, W*C) it was copied from."""
    kh, kw = window[:2]
    c = patches.shape[1] // (kh * kw)
    for p in range(len(patches)):
        image, top, left = _corner(first + p, oh, ow, window)
        start, stop = max(left, 0), max(min(left + kw, dx.shape[2] // c), 0)
        for ky in range(max(-top, 0), min(kh, dx.shape[1] - top)):
            seen = dx[image, top + ky, start * c : stop * c]
            patch = patches[p, (ky * kw + start - left) * c :]
            for i in range(len(seen)):
                seen[i] += patch[i]


# ---------------------------------------------------------------------------- forward and backward


def tiles(x: np.ndarray, window: Window) -> Iterator[tuple[slice, np.ndarray]]:
    """Tile by tile: which places of the window, a slice of them all, and their patches (P, KH*KW*C).

    All tiles share their memory: the next one is written over it, and so may be what is made of this.
    """
    n, h, w, c = x.shape
    oh, ow = window.out_size(h, w)
    places, area = n * oh * ow, window.area * c
    size = TILE // area + 1
    tile, lines = np.empty((min(size, places), area), x.dtype), x.reshape(n, h, w * c)
    for first in range(0, places, size):
        patches = tile[: places - first]
        unfold(lines, patches, first, oh, ow, window_numbers(window))
        yield slice(first, first + size), patches


def _for_reference(window: Window) -> bool:
    """Is it the reference's turn? Where one product is all there is, and where Numba may not compile.

    A 1x1 window's patches are the pixels themselves, so a tile saves nothing.
    """
    return window.is_pointwise or bool(config.DISABLE_JIT)


def _expect(name: str, array: np.ndarray, shape: tuple[int, ...], window: Window) -> None:
    if array.shape != shape:
        raise ShapeError(
            f"conv2d: expected {name} {shape}, got {array.shape}; "
            f"a weight is (KH, KW, C, F) and the window is {window}"
        )


def conv2d(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, window: Window) -> np.ndarray:
    """Convolution tile by tile: y (P, F) = patches (P, KH*KW*C) @ weight (KH*KW*C, F) + bias.

    The same to the bit every time, like BLAS's products: with another number of threads they may differ.
    """
    if _for_reference(window):
        return reference.conv2d(x, weight, bias, window)
    (n, h, w, c), f = x.shape, weight.shape[3]
    _expect("weight", weight, (*window.kernel, c, f), window)
    dtype = np.result_type(x, weight, bias)
    matrix, added = kernel_input(weight, dtype).reshape(-1, f), np.broadcast_to(bias, f)
    y = np.empty((n, *window.out_size(h, w), f), dtype)
    rows = y.reshape(-1, f)
    for places, patches in tiles(kernel_input(x, dtype), window):
        np.matmul(patches, matrix, out=rows[places])
        rows[places] += added
    return y


def conv2d_backward(
    x: np.ndarray, weight: np.ndarray, window: Window, dy: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """dx, dweight, dbias. Tile by tile: dweight += patches.T @ dy, and dpatches = dy @ weight.T."""
    if _for_reference(window):
        return reference.conv2d_backward(x, weight, window, dy)
    (n, h, w, c), f = x.shape, weight.shape[3]
    oh, ow = window.out_size(h, w)
    _expect("weight", weight, (*window.kernel, c, f), window)
    _expect("dy", dy, (n, oh, ow, f), window)
    dtype = np.result_type(x, weight, dy)
    matrix, rows = (kernel_input(a, dtype).reshape(-1, f) for a in (weight, dy))
    dx, dweight = np.zeros((n, h, w * c), dtype), np.zeros(matrix.shape, dtype)
    for places, patches in tiles(kernel_input(x, dtype), window):
        dweight += patches.T @ rows[places]
        dpatches = np.matmul(rows[places], matrix.T, out=patches)  # over the patches, now done with
        fold(kernel_input(dpatches), dx, places.start, oh, ow, window_numbers(window))
    return dx.reshape(x.shape), dweight.reshape(weight.shape), rows.sum(axis=0)
