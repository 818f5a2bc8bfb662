"""Convolution in Numba, to be read: a tile of patches that stays in the cache, and one product.

`reference` writes down every patch of the batch, many times the image, and reads it back for the
product. Here a few dozen patches are written, used while they are still in the cache, and written
over by the next. Everything is plain loops; what makes them fast is said where they stand. The next
rung, without patches and with the registers filled by hand, is in `kernels`.
"""

from collections.abc import Callable
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from numba import config, njit

from tinysqueeze.errors import ShapeError
from tinysqueeze.network.ops import reference
from tinysqueeze.network.window import Window
from tinysqueeze.processors import default_threads, workers

Result = TypeVar("Result")

TILE = 64  # patches at a time, a multiple of four: with 32 to 96 the CIFAR network is as fast
PARTS, WORTH = 8, 2**25  # at most so many parts of a batch, each of so many multiply-adds or more


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


@njit(cache=True)
def _aligned(array: np.ndarray) -> np.ndarray:
    """A copy in memory of Numba's own, which begins where a vector of numbers may be loaded at once.

    NumPy's need not: its vectors lie across two lines of the cache, and the product takes a fifth longer.
    """
    copy: np.ndarray = array.copy()
    return copy


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
    """Copy what the window sees of x at the places from `first` on: patches (P, KH, KW*C)."""
    kh, kw = window[:2]
    c = patches.shape[2] // kw
    patches[:] = 0  # as the padding is
    for p in range(len(patches)):
        image, top, left = _corner(first + p, oh, ow, window)
        start, stop = max(left, 0), max(min(left + kw, x.shape[2] // c), 0)
        for ky in range(max(-top, 0), min(kh, x.shape[1] - top)):
            seen = x[image, top + ky, start * c : stop * c]
            patch = patches[p, ky, (start - left) * c :]
            for i in range(len(seen)):
                patch[i] = seen[i]


@njit(cache=True, nogil=True)
def fold(
    patches: np.ndarray, dx: np.ndarray, first: int, oh: int, ow: int, window: Geometry
) -> None:
    """The gradient of `unfold`: add each patch to the numbers of dx (N, H, W*C) it was copied from."""
    kh, kw = window[:2]
    c = patches.shape[2] // kw
    for p in range(len(patches)):
        image, top, left = _corner(first + p, oh, ow, window)
        start, stop = max(left, 0), max(min(left + kw, dx.shape[2] // c), 0)
        for ky in range(max(-top, 0), min(kh, dx.shape[1] - top)):
            seen = dx[image, top + ky, start * c : stop * c]
            patch = patches[p, ky, (start - left) * c :]
            for i in range(len(seen)):
                seen[i] += patch[i]


# ------------------------------------------------------------------------------------- the product


@njit(cache=True, nogil=True, fastmath={"contract"})
def add_product(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> None:
    """c += a @ b, by rows: (M, N) += (M, K) @ (K, N).

    The inner loop runs along the rows of b and c, whole vectors at a time. With four rows of each, 16
    multiply-adds share the eight numbers loaded and the four stored; with one, memory sets the pace.
    `contract` lets a product and its sum be one instruction; the order of the sum stays as written.
    """
    m, k = a.shape[0] // 4 * 4, a.shape[1] // 4 * 4
    for i in range(0, m, 4):
        c0, c1, c2, c3 = c[i], c[i + 1], c[i + 2], c[i + 3]
        for j in range(0, k, 4):
            b0, b1, b2, b3 = b[j], b[j + 1], b[j + 2], b[j + 3]
            a00, a01, a02, a03 = a[i, j], a[i, j + 1], a[i, j + 2], a[i, j + 3]
            a10, a11, a12, a13 = a[i + 1, j], a[i + 1, j + 1], a[i + 1, j + 2], a[i + 1, j + 3]
            a20, a21, a22, a23 = a[i + 2, j], a[i + 2, j + 1], a[i + 2, j + 2], a[i + 2, j + 3]
            a30, a31, a32, a33 = a[i + 3, j], a[i + 3, j + 1], a[i + 3, j + 2], a[i + 3, j + 3]
            for n in range(len(b0)):
                p, q, r, s = b0[n], b1[n], b2[n], b3[n]
                c0[n] = c0[n] + a00 * p + a01 * q + a02 * r + a03 * s
                c1[n] = c1[n] + a10 * p + a11 * q + a12 * r + a13 * s
                c2[n] = c2[n] + a20 * p + a21 * q + a22 * r + a23 * s
                c3[n] = c3[n] + a30 * p + a31 * q + a32 * r + a33 * s
    for i in range(a.shape[0]):  # the rows of c, and of b, that four does not divide
        for j in range(k if i < m else 0, a.shape[1]):
            for n in range(b.shape[1]):
                c[i, n] += a[i, j] * b[j, n]


# ---------------------------------------------------------------------------- forward and backward


@njit(cache=True, nogil=True)
def convolve(
    x: np.ndarray, weight: np.ndarray, bias: np.ndarray, y: np.ndarray,
    first: int, last: int, oh: int, ow: int, window: Geometry,
) -> None:  # fmt: skip
    """Rows `first` to `last` of y (N*OH*OW, F). x (N, H, W*C), weight (KH*KW*C, F)."""
    (area, filters), kh = weight.shape, window[0]
    tile, sums = np.empty((TILE, area), x.dtype), np.empty((TILE, filters), x.dtype)
    for start in range(first, last, TILE):
        size = min(TILE, last - start)
        unfold(x, tile[:size].reshape(size, kh, area // kh), start, oh, ow, window)
        sums[:] = bias
        add_product(tile[:size], weight, sums)
        y[start : start + size] = sums[:size]


@njit(cache=True, nogil=True)
def convolve_backward(
    x: np.ndarray, turned: np.ndarray, dy: np.ndarray, dx: np.ndarray,
    first: int, last: int, oh: int, ow: int, window: Geometry,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """dweight (KH*KW*C, F), dbias (F,) of images `first` to `last`, whose dx (zeros) is added to.

    x, dx (N, H, W*C); dy (N*OH*OW, F); turned is the weight's transpose, (F, KH*KW*C).
    """
    (filters, area), kh = turned.shape, window[0]
    tile, dtile = np.empty((TILE, area), x.dtype), np.empty((TILE, area), x.dtype)
    dsums = np.empty((TILE, filters), x.dtype)
    dweight, dbias = np.zeros((area, filters), x.dtype), np.zeros(filters, x.dtype)
    for start in range(first * oh * ow, last * oh * ow, TILE):
        size = min(TILE, last * oh * ow - start)
        dsums[:size] = dy[start : start + size]
        for p in range(size):
            dbias += dsums[p]
        unfold(x, tile[:size].reshape(size, kh, area // kh), start, oh, ow, window)
        add_product(tile[:size].T, dsums, dweight)
        dtile[:] = 0
        add_product(dsums[:size], turned, dtile)
        fold(dtile[:size].reshape(size, kh, area // kh), dx, start, oh, ow, window)
    return dweight, dbias


def _in_parts(work: Callable[[int, int], Result], count: int, multiply_adds: int) -> list[Result]:
    """What work(first, last) returns for each part of `count` things, the parts side by side.

    Where it is cut depends on the task, not on the threads: so the results are the same to the bit.
    """
    parts = max(1, min(PARTS, count, multiply_adds // WORTH))
    edges = [count * part // parts for part in range(parts + 1)]
    run = map if parts == 1 else workers(default_threads()).map
    return list(run(work, edges[:-1], edges[1:]))


def _by_product(window: Window) -> bool:
    """Is it the reference's turn? Where one product is all there is, and where Numba may not compile.

    A 1x1 window's patches are the pixels themselves, so a tile saves nothing, and BLAS knows the
    processor better than plain loops: they reached half to nine tenths of its speed, by layer.
    """
    return window.is_pointwise or bool(config.DISABLE_JIT)


def _expect(name: str, array: np.ndarray, shape: tuple[int, ...], window: Window) -> None:
    if array.shape != shape:
        raise ShapeError(
            f"conv2d: expected {name} {shape}, got {array.shape}; "
            f"a weight is (KH, KW, C, F) and the window is {window}"
        )


def conv2d(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, window: Window) -> np.ndarray:
    """Convolution by a tile of patches at a time: sums (TILE, F) = patches @ weight + bias.

    A 1x1 window has no need of patches; it is left to the reference's one product.
    """
    if _by_product(window):
        return reference.conv2d(x, weight, bias, window)
    (n, h, w, c), f = x.shape, weight.shape[3]
    oh, ow = window.out_size(h, w)
    _expect("weight", weight, (*window.kernel, c, f), window)
    dtype = np.result_type(x, weight, bias)
    flat = kernel_input(x, dtype).reshape(n, h, w * c)
    matrix = _aligned(kernel_input(weight, dtype).reshape(-1, f))
    added = kernel_input(np.broadcast_to(bias, f), dtype)
    y = np.empty((n * oh * ow, f), dtype)

    def part(first: int, last: int) -> None:
        convolve(flat, matrix, added, y, first, last, oh, ow, window_numbers(window))

    _in_parts(part, len(y), len(y) * weight.size)
    return y.reshape(n, oh, ow, f)


def conv2d_backward(
    x: np.ndarray, weight: np.ndarray, window: Window, dy: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """dx, dweight, dbias. Tile by tile: dpatches = dy @ weight.T, dweight += patches.T @ dy."""
    if _by_product(window):
        return reference.conv2d_backward(x, weight, window, dy)
    (n, h, w, c), f = x.shape, weight.shape[3]
    oh, ow = window.out_size(h, w)
    _expect("weight", weight, (*window.kernel, c, f), window)
    _expect("dy", dy, (n, oh, ow, f), window)
    dtype = np.result_type(x, weight, dy)
    flat = kernel_input(x, dtype).reshape(n, h, w * c)
    turned = _aligned(kernel_input(weight.reshape(-1, f).T, dtype))
    rows = kernel_input(dy, dtype).reshape(-1, f)
    dx = np.zeros(flat.shape, dtype)

    def part(first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
        numbers = window_numbers(window)
        return convolve_backward(flat, turned, rows, dx, first, last, oh, ow, numbers)

    (dweight, dbias), *others = _in_parts(part, n, len(rows) * weight.size)
    for more_weight, more_bias in others:
        dweight += more_weight
        dbias += more_bias
    return dx.reshape(x.shape), dweight.reshape(weight.shape), dbias
