"""Every operation and its gradient in plain NumPy, written to be read; `fast` does the same faster."""

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from tinysqueeze.labels import check_labels, check_smoothing
from tinysqueeze.network.window import Window

# --------------------------------------------------------------------------- windows over an image


def windows(x: np.ndarray, window: Window, fill: float = 0.0) -> np.ndarray:
    """Every place of the window as one array: (N, OH, OW, KH, KW, C). Padding holds `fill`."""
    oh, ow = window.out_size(*x.shape[1:3])
    (kh, kw), (sh, sw), (ph, pw) = window.kernel, window.stride, window.pad
    bottom = max((oh - 1) * sh + kh - ph - x.shape[1], 0)  # with ceil this may differ from ph
    right = max((ow - 1) * sw + kw - pw - x.shape[2], 0)
    padded = np.pad(x, ((0, 0), (ph, bottom), (pw, right), (0, 0)), constant_values=fill)
    every = sliding_window_view(padded, (kh, kw), axis=(1, 2))  # (N, ., ., C, KH, KW), a view
    return every[:, : oh * sh : sh, : ow * sw : sw].transpose(0, 1, 2, 4, 5, 3)


def fold_windows(dwindows: np.ndarray, x_shape: tuple[int, ...], window: Window) -> np.ndarray:
    """The gradient of `windows`: each pixel collects from every window that saw it. (N, H, W, C)."""
    n, h, w, c = x_shape
    oh, ow, kh, kw = dwindows.shape[1:5]
    (sh, sw), (ph, pw) = window.stride, window.pad
    padded = np.zeros((n, max(h + ph, 0) + oh * sh + kh, w + pw + ow * sw + kw, c), dwindows.dtype)
    for i in range(kh):
        for j in range(kw):
            padded[:, i : i + oh * sh : sh, j : j + ow * sw : sw] += dwindows[:, :, :, i, j]
    return padded[:, ph : ph + h, pw : pw + w]


def im2col(x: np.ndarray, window: Window) -> np.ndarray:
    """Each patch that the window sees as a row: (N, H, W, C) -> (N*OH*OW, KH*KW*C)."""
    return windows(x, window).reshape(-1, window.area * x.shape[3])


def col2im(patches: np.ndarray, x_shape: tuple[int, ...], window: Window) -> np.ndarray:
    """The gradient of `im2col`: add each row back to the pixels it was copied from. (N, H, W, C)."""
    n, h, w, c = x_shape
    oh, ow = window.out_size(h, w)
    return fold_windows(patches.reshape(n, oh, ow, *window.kernel, c), x_shape, window)


# ------------------------------------------------------------------------------------- convolution


def conv2d(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, window: Window) -> np.ndarray:
    """Convolution as one matrix product: patches (N*OH*OW, KH*KW*C) @ weight (KH*KW*C, F) + bias.

    A 1x1 window needs no patches: each pixel's channels already are a row, so it is a fully
    connected layer along the channels and nothing is copied.
    """
    rows = x.reshape(-1, x.shape[3]) if window.is_pointwise else im2col(x, window)
    y = rows @ weight.reshape(-1, weight.shape[3]) + bias
    return y.reshape(x.shape[0], *window.out_size(*x.shape[1:3]), weight.shape[3])


def conv2d_backward(
    x: np.ndarray, weight: np.ndarray, window: Window, dy: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """dx, dweight, dbias. With y = rows @ weight + bias: drows = dy @ weight.T, dweight = rows.T @ dy."""
    rows = x.reshape(-1, x.shape[3]) if window.is_pointwise else im2col(x, window)
    dy = dy.reshape(-1, weight.shape[3])
    drows = dy @ weight.reshape(-1, weight.shape[3]).T
    dx = drows.reshape(x.shape) if window.is_pointwise else col2im(drows, x.shape, window)
    return dx, (rows.T @ dy).reshape(weight.shape), dy.sum(axis=0)


def linear(x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """Fully connected: (N, C) @ (C, F) + (F,) -> (N, F)."""
    return x @ weight + bias


def linear_backward(
    x: np.ndarray, weight: np.ndarray, dy: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """dx (N, C), dweight (C, F), dbias (F,)."""
    return dy @ weight.T, x.T @ dy, dy.sum(axis=0)


# ------------------------------------------------------------------- ReLU, hard-swish and dropout


def relu(x: np.ndarray) -> np.ndarray:
    """max(x, 0), element by element; NaN stays NaN, so that a broken step is seen."""
    return np.maximum(x, 0)


def relu_backward(y: np.ndarray, dy: np.ndarray) -> np.ndarray:
    """dy where the output was positive, else 0 (at the kink itself: 0)."""
    return np.where(y > 0, dy, 0)


def hard_swish(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """x * (x / 6 + 1/2, kept from 0 to 1), element by element; and which piece x is on.

    Pieces, int8 of x's shape: 0 where the result is 0 (x <= -3), 2 where it is x (x >= 3), 1 in between
    (Howard et al., Searching for MobileNetV3, 2019, section 5.2).
    """
    piece = ((x > -3).astype(np.int8) + (x >= 3)).astype(np.int8)
    return x * np.clip(x / 6 + 0.5, 0, 1), piece


def hard_swish_backward(x: np.ndarray, piece: np.ndarray, dy: np.ndarray) -> np.ndarray:
    """dy times the slope, by piece: 0, x / 3 + 1/2 or 1."""
    return np.choose(piece, (np.zeros_like(dy), dy * (x / 3 + 0.5), dy))


def dropout_mask(x: np.ndarray, rate: float, rng: np.random.Generator) -> np.ndarray:
    """0 with probability `rate`, else 1 / (1 - rate), so that the mean stays what it was."""
    keep = rng.random(x.shape, dtype=np.float32) >= rate
    return keep.astype(x.dtype) / x.dtype.type(1 - rate)


# ----------------------------------------------------------------------------------------- pooling


def max_pool2d(x: np.ndarray, window: Window) -> tuple[np.ndarray, np.ndarray]:
    """The largest value that each window sees, and where in the window (0 .. KH*KW-1, first wins).

    Returns y (N, OH, OW, C) and argmax of the same shape, uint16.
    """
    seen = windows(x, window, fill=-np.inf)
    seen = seen.reshape(*seen.shape[:3], window.area, -1)  # (N, OH, OW, KH*KW, C)
    argmax = seen.argmax(axis=3)
    y = np.take_along_axis(seen, argmax[:, :, :, None], axis=3)[:, :, :, 0]
    return y, argmax.astype(np.uint16)


def max_pool2d_backward(
    argmax: np.ndarray, x_shape: tuple[int, ...], window: Window, dy: np.ndarray
) -> np.ndarray:
    """Each dy goes to the one pixel that was largest. Returns dx (N, H, W, C)."""
    dseen = np.zeros((*dy.shape[:3], window.area, dy.shape[3]), dy.dtype)
    np.put_along_axis(dseen, argmax[:, :, :, None].astype(np.intp), dy[:, :, :, None], axis=3)
    return fold_windows(dseen.reshape(*dy.shape[:3], *window.kernel, -1), x_shape, window)


def pool_divisor(x_shape: tuple[int, ...], window: Window) -> np.ndarray:
    """How many pixels each average is over: (OH, OW, 1). Padding counts, overhang (ceil) does not.

    This is the rule of Caffe, and of PyTorch with `count_include_pad`.
    """
    sides = []
    for i, size in enumerate(window.out_size(*x_shape[1:3])):
        start = np.arange(size) * window.stride[i] - window.pad[i]
        sides.append(np.minimum(start + window.kernel[i], x_shape[1 + i] + window.pad[i]) - start)
    return (sides[0][:, None] * sides[1])[:, :, None]


def avg_pool2d(x: np.ndarray, window: Window) -> np.ndarray:
    """The mean of what each window sees: (N, H, W, C) -> (N, OH, OW, C)."""
    total = windows(x, window).sum(axis=(3, 4))
    return total / pool_divisor(x.shape, window).astype(x.dtype)


def avg_pool2d_backward(x_shape: tuple[int, ...], window: Window, dy: np.ndarray) -> np.ndarray:
    """Each dy is shared equally among the pixels of its window. Returns dx (N, H, W, C)."""
    share = dy / pool_divisor(x_shape, window).astype(dy.dtype)
    (n, oh, ow, c), (kh, kw) = dy.shape, window.kernel
    dseen = np.broadcast_to(share[:, :, :, None, None], (n, oh, ow, kh, kw, c))
    return fold_windows(dseen, x_shape, window)


def global_avg_pool2d(x: np.ndarray) -> np.ndarray:
    """The mean over all pixels: (N, H, W, C) -> (N, C)."""
    return x.mean(axis=(1, 2))


def global_avg_pool2d_backward(x_shape: tuple[int, ...], dy: np.ndarray) -> np.ndarray:
    """Each pixel gets dy / (H*W). Returns dx (N, H, W, C)."""
    share = dy / dy.dtype.type(x_shape[1] * x_shape[2])
    return np.broadcast_to(share[:, None, None, :], x_shape).copy()


# ------------------------------------------------------------------------------ batch normalisation


def channel_moments(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and (biased) variance of each channel over all other axes: (C,), (C,), summed in float64."""
    rows = x.reshape(-1, x.shape[-1])
    mean = rows.mean(axis=0, dtype=np.float64)
    var = np.square(rows - mean).mean(axis=0)
    return mean.astype(x.dtype), var.astype(x.dtype)


def batch_norm(
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray,
    mean: np.ndarray,
    var: np.ndarray,
    eps: float,
) -> np.ndarray:
    """weight * (x - mean) / sqrt(var + eps) + bias, channel by channel (Ioffe & Szegedy 2015, Alg. 1)."""
    return weight * ((x - mean) / np.sqrt(var + x.dtype.type(eps))) + bias


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
    over = tuple(range(x.ndim - 1))
    scale = 1 / np.sqrt(var + x.dtype.type(eps))
    normal = (x - mean) * scale
    dweight, dbias = (dy * normal).sum(axis=over), dy.sum(axis=over)
    if batch_stats:
        count = x.dtype.type(x.size // x.shape[-1])
        dy = dy - dbias / count - normal * (dweight / count)
    return dy * (weight * scale), dweight, dbias


# ------------------------------------------------------------------------------------ softmax, loss


def softmax(x: np.ndarray) -> np.ndarray:
    """exp(x) / sum(exp(x)) over the last axis; subtracting the maximum first keeps exp in range."""
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def softmax_backward(y: np.ndarray, dy: np.ndarray) -> np.ndarray:
    """dx = y * (dy - sum(dy * y)) over the last axis."""
    return y * (dy - (dy * y).sum(axis=-1, keepdims=True))


def softmax_cross_entropy(
    logits: np.ndarray, labels: np.ndarray, smoothing: float = 0.0
) -> tuple[float, np.ndarray]:
    """The mean of the images' cross-entropies, and its gradient to the logits, of their shape and dtype.

    logits (N, classes), labels, smoothing: as in `cross_entropies`.
    """
    losses, dlogits = cross_entropies(logits, labels, smoothing)
    return float(losses.mean(dtype=np.float64)), dlogits / logits.dtype.type(len(logits))


def label_shares(labels: np.ndarray, classes: int, dtype: npt.DTypeLike = np.float32) -> np.ndarray:
    """(N, classes): how much each class is an image's label.

    labels (N,) integers, one class an image; or already (N, classes) shares, each row's sum 1, as
    for an image with a patch of another. Raises ShapeError for anything else.
    """
    labels = check_labels(labels, None, classes)
    if labels.ndim == 2:
        return labels.astype(dtype)
    shares = np.zeros((len(labels), classes), dtype)
    shares[np.arange(len(labels)), labels] = 1
    return shares


def cross_entropies(
    logits: np.ndarray, labels: np.ndarray, smoothing: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """-sum(target * log softmax(logits)) of each image, (N,), and its gradient, softmax - target.

    logits (N, classes), labels as in `label_shares`. The target is 1 for the label and 0 elsewhere, or
    the label's shares; smoothing moves that share of it evenly to all classes (Szegedy et al. 2016,
    section 7). Raises ShapeError for labels that do not fit, or a smoothing that is no share.
    """
    classes, smoothing = logits.shape[1], check_smoothing(smoothing)
    labels = check_labels(labels, len(logits), classes)
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    target = smoothing / classes + (1 - smoothing) * label_shares(labels, classes, logits.dtype)
    return -(target * log_p).sum(axis=1), np.exp(log_p) - target
