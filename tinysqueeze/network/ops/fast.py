"""The same operations as `reference`, faster: Numba kernels where NumPy has no single call.

A kernel is a few plain loops that fill arrays its wrapper made; it never checks, or changes an
input. Channels are the innermost loop, since they lie side by side in memory. Convolution, in a file
of its own, leaves its products to BLAS, and so do 1x1 convolution and `linear`, as in `reference`.
"""

import numpy as np
from numba import njit

from tinysqueeze.network.ops.convolution import (
    Geometry,
    conv2d,
    conv2d_backward,
    fold,
    kernel_input,
    window_numbers,
)

# These need no second version. NumPy copies windows at the speed of memory, plain matrix products are
# BLAS's, and NumPy's exp and log use vector instructions that Numba's would not.
from tinysqueeze.network.ops.reference import (
    cross_entropies,
    dropout_mask,
    global_avg_pool2d,
    global_avg_pool2d_backward,
    hard_swish,
    hard_swish_backward,
    im2col,
    label_shares,
    linear,
    linear_backward,
    pool_divisor,
    relu,
    softmax,
    softmax_backward,
    softmax_cross_entropy,
    windows,
)
from tinysqueeze.network.window import Window

__all__ = [
    "avg_pool2d", "avg_pool2d_backward", "batch_norm", "batch_norm_backward", "channel_moments",
    "col2im", "conv2d", "conv2d_backward", "cross_entropies", "dropout_mask", "fold_windows",
    "global_avg_pool2d", "global_avg_pool2d_backward", "hard_swish", "hard_swish_backward",
    "im2col", "label_shares", "linear", "linear_backward", "max_pool2d", "max_pool2d_backward",
    "pool_divisor", "relu", "relu_backward", "softmax", "softmax_backward",
    "softmax_cross_entropy", "windows",
]  # fmt: skip


# --------------------------------------------------------------------------- windows over an image


def fold_windows(dwindows: np.ndarray, x_shape: tuple[int, ...], window: Window) -> np.ndarray:
    """The gradient of `windows`: each pixel collects from every window that saw it. (N, H, W, C)."""
    n, h, w, c = x_shape
    oh, ow, kh, kw = dwindows.shape[1:5]
    dx = np.zeros((n, h, w * c), dwindows.dtype)
    patches = kernel_input(dwindows).reshape(n * oh * ow, kh * kw * c)
    fold(patches, dx, 0, oh, ow, window_numbers(window))
    return dx.reshape(x_shape)


def col2im(patches: np.ndarray, x_shape: tuple[int, ...], window: Window) -> np.ndarray:
    """The gradient of `im2col`: add each row back to the pixels it was copied from. (N, H, W, C)."""
    n, h, w, c = x_shape
    oh, ow = window.out_size(h, w)
    return fold_windows(patches.reshape(n, oh, ow, *window.kernel, c), x_shape, window)


# -------------------------------------------------------------------------------------------- ReLU


@njit(cache=True, nogil=True)
def _where_positive(y: np.ndarray, dy: np.ndarray, dx: np.ndarray) -> None:
    """dx = dy where y > 0, else 0; all flat."""
    for i in range(dx.size):
        dx[i] = dy[i] if y[i] > 0 else dx.dtype.type(0)


def relu_backward(y: np.ndarray, dy: np.ndarray) -> np.ndarray:
    """dy where the output was positive, else 0 (at the kink itself: 0)."""
    dx = np.empty(dy.shape, dy.dtype)
    _where_positive(kernel_input(y).reshape(-1), kernel_input(dy).reshape(-1), dx.reshape(-1))
    return dx


# ----------------------------------------------------------------------------------------- pooling


@njit(cache=True, nogil=True)
def _max_pool(x: np.ndarray, y: np.ndarray, argmax: np.ndarray, geometry: Geometry) -> None:
    """y starts at -inf, argmax at 0. NaN beats every number, and the first of equals wins."""
    kh, kw, sh, sw, ph, pw = geometry
    for i, oy, ox, ky, kx in np.ndindex((*y.shape[:3], kh, kw)):
        iy, ix = oy * sh + ky - ph, ox * sw + kx - pw
        if 0 <= iy < x.shape[1] and 0 <= ix < x.shape[2]:
            for c in range(x.shape[3]):
                value, best = x[i, iy, ix, c], y[i, oy, ox, c]
                if value > best or (value != value and best == best):
                    y[i, oy, ox, c] = value
                    argmax[i, oy, ox, c] = ky * kw + kx


def max_pool2d(x: np.ndarray, window: Window) -> tuple[np.ndarray, np.ndarray]:
    """The largest value that each window sees, and where in the window (0 .. KH*KW-1, first wins).

    Returns y (N, OH, OW, C) and argmax of the same shape, uint16.
    """
    y = np.full((len(x), *window.out_size(*x.shape[1:3]), x.shape[3]), -np.inf, x.dtype)
    argmax = np.zeros(y.shape, np.uint16)
    _max_pool(kernel_input(x), y, argmax, window_numbers(window))
    return y, argmax


@njit(cache=True, nogil=True)
def _max_pool_backward(
    argmax: np.ndarray, dy: np.ndarray, dx: np.ndarray, geometry: Geometry
) -> None:
    """Add each dy to the pixel of dx (zeros at first) that won; a win of the padding is lost."""
    _kh, kw, sh, sw, ph, pw = geometry
    for i, oy, ox in np.ndindex(dy.shape[:3]):
        for c in range(dy.shape[3]):
            ky, kx = divmod(np.int64(argmax[i, oy, ox, c]), kw)
            iy, ix = oy * sh + ky - ph, ox * sw + kx - pw
            if 0 <= iy < dx.shape[1] and 0 <= ix < dx.shape[2]:
                dx[i, iy, ix, c] += dy[i, oy, ox, c]


def max_pool2d_backward(
    argmax: np.ndarray, x_shape: tuple[int, ...], window: Window, dy: np.ndarray
) -> np.ndarray:
    """Each dy goes to the one pixel that was largest. Returns dx (N, H, W, C)."""
    dx = np.zeros(x_shape, dy.dtype)
    _max_pool_backward(kernel_input(argmax), kernel_input(dy), dx, window_numbers(window))
    return dx


@njit(cache=True, nogil=True)
def _sum_pool(x: np.ndarray, y: np.ndarray, geometry: Geometry) -> None:
    """Add to y (zeros at first) all that its windows see of x."""
    kh, kw, sh, sw, ph, pw = geometry
    for i, oy, ox, ky, kx in np.ndindex((*y.shape[:3], kh, kw)):
        iy, ix = oy * sh + ky - ph, ox * sw + kx - pw
        if 0 <= iy < x.shape[1] and 0 <= ix < x.shape[2]:
            for c in range(x.shape[3]):
                y[i, oy, ox, c] += x[i, iy, ix, c]


def avg_pool2d(x: np.ndarray, window: Window) -> np.ndarray:
    """The mean of what each window sees: (N, H, W, C) -> (N, OH, OW, C)."""
    y = np.zeros((len(x), *window.out_size(*x.shape[1:3]), x.shape[3]), x.dtype)
    _sum_pool(kernel_input(x), y, window_numbers(window))
    y /= pool_divisor(x.shape, window).astype(x.dtype)
    return y


def avg_pool2d_backward(x_shape: tuple[int, ...], window: Window, dy: np.ndarray) -> np.ndarray:
    """Each dy is shared equally among the pixels of its window. Returns dx (N, H, W, C)."""
    share = (dy / pool_divisor(x_shape, window).astype(dy.dtype))[:, :, :, None, None]
    seen = (*dy.shape[:3], *window.kernel, dy.shape[3])
    return fold_windows(np.broadcast_to(share, seen), x_shape, window)


# ------------------------------------------------------------------------------ batch normalisation


@njit(cache=True, nogil=True)
def _moments(rows: np.ndarray, mean: np.ndarray, var: np.ndarray) -> None:
    """Mean and variance of each column of rows (M, C); mean and var are zeros (C,) in float64."""
    m, channels = rows.shape
    for i in range(m):
        for c in range(channels):
            mean[c] += rows[i, c]
    mean /= m
    for i in range(m):
        for c in range(channels):
            var[c] += (rows[i, c] - mean[c]) ** 2
    var /= m


def channel_moments(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and (biased) variance of each channel over all other axes: (C,), (C,), summed in float64."""
    mean, var = np.zeros((2, x.shape[-1]))
    _moments(kernel_input(x).reshape(-1, x.shape[-1]), mean, var)
    return mean.astype(x.dtype), var.astype(x.dtype)


@njit(cache=True, nogil=True)
def _scale_and_shift(
    rows: np.ndarray, mean: np.ndarray, scale: np.ndarray, bias: np.ndarray, y: np.ndarray
) -> None:
    """y = (rows - mean) * scale + bias, column by column."""
    for i in range(rows.shape[0]):
        for c in range(rows.shape[1]):
            y[i, c] = (rows[i, c] - mean[c]) * scale[c] + bias[c]


def batch_norm(
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray,
    mean: np.ndarray,
    var: np.ndarray,
    eps: float,
) -> np.ndarray:
    """weight * (x - mean) / sqrt(var + eps) + bias, channel by channel (Ioffe & Szegedy 2015, Alg. 1)."""
    scale = weight / np.sqrt(var + x.dtype.type(eps))
    y = np.empty(x.shape, x.dtype)
    channels = x.shape[-1]
    m, s, b = (kernel_input(a) for a in (mean, scale, bias))
    _scale_and_shift(kernel_input(x).reshape(-1, channels), m, s, b, y.reshape(-1, channels))
    return y


@njit(cache=True, nogil=True)
def _norm_sums(
    rows: np.ndarray, dy: np.ndarray, mean: np.ndarray, dweight: np.ndarray, dbias: np.ndarray
) -> None:
    """dbias = sum of dy, dweight = sum of dy * (rows - mean), by column; both float64, zeros first."""
    for i in range(rows.shape[0]):
        for c in range(rows.shape[1]):
            dbias[c] += dy[i, c]
            dweight[c] += dy[i, c] * (rows[i, c] - mean[c])


def batch_norm_backward(
    x: np.ndarray,
    weight: np.ndarray,
    mean: np.ndarray,
    var: np.ndarray,
    eps: float,
    dy: np.ndarray,
    batch_stats: bool,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """dx, dweight (C,), dbias (C,).

    With `batch_stats` mean and var came from x itself (training), so that dx also flows through
    them: the part of dy that only shifts or stretches the whole batch is taken out.
    """
    channels = x.shape[-1]
    rows, drows = (kernel_input(a).reshape(-1, channels) for a in (x, dy))
    dweight, dbias = np.zeros((2, channels))
    _norm_sums(rows, drows, kernel_input(mean), dweight, dbias)
    scale = 1 / np.sqrt(var + x.dtype.type(eps))
    dweight *= scale
    dx = drows
    if batch_stats:  # dy - mean of dy - normal * mean of dy * normal, in one pass over x
        shift, slope = dbias / len(rows), dweight * scale / len(rows)
        dx = np.empty(rows.shape, x.dtype)
        m, s, b = (kernel_input(a.astype(x.dtype)) for a in (mean, -slope, -shift))
        _scale_and_shift(rows, m, s, b, dx)
        dx += drows
    dx = dx * (weight * scale)
    return dx.reshape(x.shape), dweight.astype(x.dtype), dbias.astype(x.dtype)
