"""Exercises of lessons 00 to 07: convolution, its backward, gradient checks, pooling, the loss."""

from collections.abc import Callable
from typing import Any

import numpy as np

from tinysqueeze.network.models import squeezenet1_0, squeezenet_cifar
from tinysqueeze.network.ops import reference
from tinysqueeze.network.window import Window
from tinysqueeze.show.lessons.exercise import Case, Exercise
from tinysqueeze.study.count import count

Rng = np.random.Generator


def row(path: str, size: int = 227) -> Any:
    """A row of the count of SqueezeNet v1.0."""
    return next(r for r in count(squeezenet1_0(input_size=size)).rows if r.path == path)


def central(f: Callable[[float], float], value: float) -> float:
    """The central difference with h = 1e-5."""
    return (f(value + 1e-5) - f(value - 1e-5)) / 2e-5


def convolve(x: np.ndarray, weight: np.ndarray, stride: int) -> np.ndarray:
    """One channel, one filter: (H, W) and (KH, KW) -> (OH, OW)."""
    window = Window.of(weight.shape, stride)
    zero = np.zeros(1, x.dtype)
    return reference.conv2d(x[None, ..., None], weight[..., None, None], zero, window)[0, :, :, 0]


def patches(x: np.ndarray, size: int) -> np.ndarray:
    """(H, W, C) -> (OH*OW, size*size*C), stride 1, no padding."""
    return reference.im2col(x[None], Window.of(size))


def same_columns(got: np.ndarray, want: np.ndarray) -> bool:
    """The same columns in any order: the weight's rows would only have to follow."""
    if got.shape != want.shape:
        return False
    ours, theirs = (a[:, np.lexsort(a)] for a in (want, got))
    return bool(np.allclose(ours, theirs))


def scatter_add(rows: np.ndarray, length: int) -> np.ndarray:
    """col2im on a line: (places, K) -> (length,), stride 1."""
    folded = reference.col2im(rows, (1, 1, length, 1), Window.of((1, rows.shape[1])))
    return folded[0, 0, :, 0]


def _last_wins(rows: np.ndarray, length: int) -> np.ndarray:
    line = np.zeros(length)
    for place, values in enumerate(rows):
        line[place : place + len(values)] = values
    return line


def gradient(f: Callable[[np.ndarray], float], x: np.ndarray) -> np.ndarray:
    """The central difference at every element of x."""
    slopes = np.zeros_like(x)
    for at in np.ndindex(x.shape):
        step = np.zeros_like(x)
        step[at] = 1e-5
        slopes[at] = (f(x + step) - f(x - step)) / 2e-5
    return slopes


def pool(x: np.ndarray, size: int) -> np.ndarray:
    """(H, W) -> (H / size, W / size): the largest of each tile."""
    return reference.max_pool2d(x[None, ..., None], Window.of(size, size))[0][0, :, :, 0]


def dlogits(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The gradient of the mean softmax cross-entropy."""
    return reference.softmax_cross_entropy(logits, labels)[1]


def _sizes(rng: Rng) -> list[Case]:
    return [(227, 7, 2, 0), (32, 3, 1, 1), (55, 4, 2, 0), (6, 6, 1, 0), (10, 2, 3, 1)]


def _images(rng: Rng) -> list[Case]:
    return [
        (rng.standard_normal((5, 6)), rng.standard_normal((3, 3)), 1),
        (rng.standard_normal((7, 8)), rng.standard_normal((3, 2)), 2),
        (rng.standard_normal((4, 4)), rng.standard_normal((1, 1)), 3),
    ]


OPERATIONS: dict[str, Exercise] = {
    "one-number": Exercise(
        "what do the weights (1, 0, −1 in each row) make of the rows 1 2 0, 3 1 1, 2 2 2?",
        3,
        mistakes={"the right column counts as negative": 9, "multiply by the weights first": 14},
        why="The left column adds up to 6, the right one to 3, and the middle one counts for nothing.",
    ),
    "first-map": Exercise(
        "how high and wide is the map that a 5×5 filter makes of 96×96 pixels?",
        np.array([92, 92]),
        mistakes={"count the places, not the steps between them": np.array([91, 91])},
        why="The window starts at pixels 0 to 91 of each side: 96 − 5 + 1 places.",
    ),
    "relu": Exercise(
        "write relu(x) for an array of any shape",
        lambda x: np.maximum(x, 0),
        lambda rng: [(rng.standard_normal(6),), (rng.standard_normal((2, 3, 2)),)],
        mistakes={
            "what is negative becomes 0, not positive": np.abs,
            "that is its slope; keep the positive numbers themselves": lambda x: (x > 0) * 1.0,
        },
        why="Positive numbers stay, the others become 0.",
    ),
    "first-parameters": Exercise(
        "how many parameters has squeezenet_cifar with 100 classes?",
        lambda: count(squeezenet_cifar(classes=100)).parameters,
        mistakes={"that is with 10 classes": lambda: count(squeezenet_cifar()).parameters},
        why="Only conv10 grows: each further class is one more filter of 512 weights and a bias.",
    ),
    "first-shape": Exercise(
        "what shape (H, W, C) leaves fire5 of squeezenet1_0 for a 227×227 image?",
        lambda: np.array((*row("fire5/squeeze").out_shape[:2], 256)),
        why="conv1 halves 227 to 111, the pools make 55 and 27 of it; fire5's two expand "
        "layers give 128 channels each.",
    ),
    "first-difference": Exercise(
        "write difference(f, v): the central difference of f at v, with h = 1e-5",
        central,
        lambda rng: [(np.sin, 0.3), (np.exp, 1.0), (np.square, -2.0)],
        tolerance=1e-7,
        mistakes={
            "the two places are 2h apart, not h": lambda f, v: 2 * central(f, v),
            "that is one-sided; go h to both sides, the error is far smaller": lambda f, v: (
                (f(v + 1e-5) - f(v)) / 1e-5
            ),
        },
        why="The errors of first order on either side cancel, so the error falls with h squared.",
    ),
    "output-size": Exercise(
        "write out_size(size, kernel, stride, pad): how many places a window takes along one side",
        lambda size, kernel, stride, pad: Window.of(kernel, stride, pad).out_size(size, size)[0],
        _sizes,
        mistakes={
            "count the fence posts, not the gaps": lambda s, k, t, p: (s + 2 * p - k) // t,
            "padding goes on both sides": lambda s, k, t, p: (s + p - k) // t + 1,
            "a window that does not fit is left out": lambda s, k, t, p: (s + 2 * p - k) / t + 1,
        },
        why="A window fits at the start, and once more for each stride that is left: "
        "floor((size + 2·pad − kernel) / stride) + 1.",
    ),
    "convolve": Exercise(
        "write convolve(x, weight, stride) for one channel and one filter: (H, W), (KH, KW) -> (OH, OW)",
        convolve,
        _images,
        mistakes={
            "your kernel is turned round: networks slide it as it stands (mathematicians call "
            "that correlation)": lambda x, weight, stride: convolve(x, weight[::-1, ::-1], stride)
        },
        why="At each place the window's numbers are multiplied by the weights and added up: "
        "nothing else happens.",
    ),
    "conv1-multiply-adds": Exercise(
        "how many multiply-adds has conv1 of squeezenet1_0 at 227×227?",
        lambda: row("conv1").multiply_adds,
        mistakes={"those are its parameters; each is used often": lambda: row("conv1").parameters},
        why="Each of 111 × 111 × 96 outputs costs one filter's 7 × 7 × 3 products.",
    ),
    "patches": Exercise(
        "write patches(x, size): each size×size window of x (H, W, C) as a row, stride 1, no padding",
        patches,
        lambda rng: [(rng.standard_normal((4, 5, 2)), 3), (rng.standard_normal((3, 3, 1)), 1)],
        accepts=same_columns,
        mistakes={
            "that is the transpose: one *row* for each window": lambda x, size: patches(x, size).T
        },
        why="Row i is what the window sees at place i, so that a filter is a column it is "
        "multiplied by.",
    ),
    "patches-matmul": Exercise(
        "write convolve_patches(rows, weight): (P, KH*KW*C) and (KH, KW, C, F) -> (P, F)",
        lambda rows, weight: rows @ weight.reshape(-1, weight.shape[3]),
        lambda rng: [(rng.standard_normal((6, 18)), rng.standard_normal((3, 3, 2, 4)))],
        why="A filter's weights, read in the order of a patch, are one column: the "
        "convolution is one product.",
    ),
    "patches-bytes": Exercise(
        "how many bytes are conv1's patches for one 227×227 image in float32 (squeezenet1_0)?",
        lambda: row("conv1").im2col_bytes,
        mistakes={"a float32 has four bytes": lambda: row("conv1").im2col_bytes // 4},
        why="111 × 111 places of 7 × 7 × 3 numbers of four bytes: many times the image itself.",
    ),
    "overlap": Exercise(
        "a 3×3 window with stride 2: the most windows that see one pixel?",
        4,
        mistakes={"that is with stride 1": 9},
        why="With stride 2, two windows at most cover a pixel along each side, and 2 × 2 are four.",
    ),
    "scatter-add": Exercise(
        "write fold(rows, length): add row i of (places, K) to a line, starting at position i",
        scatter_add,
        lambda rng: [(rng.standard_normal((4, 3)), 6), (rng.standard_normal((5, 1)), 5)],
        mistakes={
            "windows overlap, and a pixel collects from all of them: += where you have =": _last_wins
        },
        why="A number that several windows saw moved each of their outputs, so all their "
        "gradients add up.",
    ),
    "dweight": Exercise(
        "write dweight(rows, dy): (P, K) and (P, F) -> (K, F), when y = rows @ weight",
        lambda rows, dy: rows.T @ dy,
        lambda rng: [(rng.standard_normal((7, 4)), rng.standard_normal((7, 3)))],
        why="A weight meets every place, so its gradient is a sum over places: that is what "
        "rows.T @ dy adds up.",
    ),
    "gradient": Exercise(
        "write gradient(f, x): the central difference at every element, h = 1e-5; x stays as it is",
        gradient,
        lambda rng: [
            (lambda x: float((x**3).sum()), rng.standard_normal((2, 3))),
            (lambda x: float(np.sin(x).prod()), rng.standard_normal(4)),
        ],
        tolerance=1e-6,
        why="One number at a time moves and comes back: slow, but it needs no calculus, so "
        "it can judge one that does.",
    ),
    "kink": Exercise(
        "what does the central difference of max(x, 0) give at x = 0 exactly?",
        0.5,
        mistakes={"that is what backward says there": 0, "that is the slope on the right": 1},
        why="It averages the slopes 0 on the left and 1 on the right; backward has to choose "
        "one. Check away from kinks.",
    ),
    "which-gradient": Exercise(
        'col2im crops the padding at the wrong corner: which gradient is wrong, "dx", "dweight" or "dbias"?',
        "dx",
        why="Forward and the weight's gradient read patches and never fold them back; only "
        "dx does.",
    ),
    "one-by-one": Exercise(
        "write pointwise(x, weight): a 1×1 convolution, (N, H, W, C) and (C, F) -> (N, H, W, F)",
        lambda x, weight: x @ weight,
        lambda rng: [(rng.standard_normal((2, 3, 4, 5)), rng.standard_normal((5, 6)))],
        why="A pixel's channels are a row already, so there is nothing to unfold: each row "
        "times the weights.",
    ),
    "nine-times": Exercise(
        "how many weights (no biases) have 128 filters of 3×3 over 64 channels?",
        9 * 64 * 128,
        mistakes={"without the biases": 9 * 64 * 128 + 128, "those are 1×1 filters": 64 * 128},
        why="Each filter has 3 × 3 weights a channel where a 1×1 has one.",
    ),
    "receptive-field": Exercise(
        "three 3×3 convolutions of stride 1 one after another: how many pixels a side does one output see?",
        7,
        mistakes={"each adds one pixel on either side": 9, "each adds, none multiplies": 27},
        why="The first sees 3 pixels, and each one after it sees one more on either side: 3, 5, 7.",
    ),
    "max-pool": Exercise(
        "write max_pool(x, size): the largest of each size×size tile of (H, W)",
        pool,
        lambda rng: [(rng.standard_normal((4, 6)), 2), (-np.abs(rng.standard_normal((6, 3))), 3)],
        why="Each tile keeps its largest number; on the way back only that one gets the gradient.",
    ),
    "ceil": Exercise(
        "a 3×3 pool of stride 2 over 110 pixels, in ceil mode as in Caffe: how many outputs a side?",
        lambda: Window.of(3, 2, ceil=True).out_size(110, 110)[0],
        mistakes={"that is in floor mode; one more window hangs over the edge": 54},
        why="The last window hangs over the edge and is kept: (110 − 3) / 2 rounded up, and one.",
    ),
    "average-share": Exercise(
        "a 3×3 average-pool of stride 3, dy = 18 at one output: what dx does each of its pixels get?",
        2,
        mistakes={"that is max-pool's way, and only for the winner": 18},
        why="All nine took the same part in the mean, so each gets a ninth.",
    ),
    "softmax": Exercise(
        "write softmax(x) for (N, classes); scores may be as large as 1000",
        reference.softmax,
        lambda rng: [
            (rng.standard_normal((3, 5)),),
            (np.array([[1000.0, 1001.0, 999.0], [-1000.0, 0.0, 0.0]]),),
        ],
        mistakes={
            "each row is an example and has to sum to 1 on its own": lambda x: (
                np.exp(x) / np.exp(x).sum()
            ),
            "exp overflows on large scores; softmax does not change when all scores move alike": lambda x: (
                np.exp(x) / np.exp(x).sum(axis=1, keepdims=True)
            ),
        },
        why="Less its largest score, no row can overflow, and the shares stay the same.",
    ),
    "even-loss": Exercise(
        "what is the loss of a network that gives all of 1,000 classes the same chance?",
        lambda: np.log(1000),
        mistakes={"that is with 10 classes": lambda: np.log(10), "that is log10; take ln": 3},
        why="The right class has the chance 1/1,000, and the loss is −ln of it. Start "
        "training near it, or look for a mistake.",
    ),
    "dlogits": Exercise(
        "write dlogits(logits, labels): the gradient of the mean softmax cross-entropy",
        dlogits,
        lambda rng: [(rng.standard_normal((4, 3)), np.array([0, 2, 1, 2]))],
        mistakes={
            "the loss is the *mean* over the batch": lambda logits, labels: (
                dlogits(logits, labels) * len(logits)
            ),
            "and where are the labels?": lambda logits, labels: reference.softmax(logits),
        },
        why="Softmax and logarithm together have a gradient as simple as can be: (chances − "
        "labels) / batch.",
    ),
}
