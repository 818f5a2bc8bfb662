"""The end of the network: the mean over all pixels, and softmax with cross-entropy."""

from math import exp, log
from typing import Any

from numba import float32, types

from tinysqueeze.kernels.kernel import kernel
from tinysqueeze.kernels.target import TARGET
from tinysqueeze.kernels.vectors import Emitter, Value, floats, floats_t, ints, procedure

int_t = types.int64
PANEL = TARGET.panel


@procedure(floats_t, int_t, int_t, int_t, int_t, int_t, floats_t, types.float32)
def _mean(
    e: Emitter, x: Value, x_row: Value, x_pixel: Value, height: Value, width: Value,
    channels: Value, y: Value, share: Value,
) -> None:  # fmt: skip
    """y = share * the sum over height x width pixels."""
    b = e.builder

    def some_channels(c: Value) -> None:
        def row(i: Value, total: list[Value]) -> list[Value]:
            start = e.at(x, b.add(c, b.mul(i, x_row)))

            def pixel(j: Value, total: list[Value]) -> list[Value]:
                return [b.fadd(total[0], e.load(start, b.mul(j, x_pixel)))]

            return e.loop(e.int(0), width, pixel, total)

        total = e.loop(e.int(0), height, row, [e.every(0)])[0]
        e.store(b.fmul(total, e.splat(share)), y, c)

    e.each_vector(channels, some_channels)


@kernel("x x_unit x_thread x_next x_row x_pixel height width channels y y_unit by_panel")
def pixel_mean(job: Any, first: int, count: int, thread: int) -> None:
    """y[n] = the mean of image n's pixels, channel by channel: global average pooling.

    Units are images; or, `by_panel`, so many panels of channels of one image.
    """
    images, channels, column = count, job.channels, 0
    if job.by_panel:
        column = first * job.by_panel * PANEL
        images, channels = 1, min(count * job.by_panel * PANEL, job.channels - column)
    x = job.x + 4 * (column + first * job.x_unit + thread * job.x_thread)
    share = float32(1.0 / (job.height * job.width))
    for n in range(images):
        _mean(
            floats(x + 4 * n * job.x_next), job.x_row, job.x_pixel, job.height, job.width,
            channels, floats(job.y + 4 * ((first + n) * job.y_unit + column)), share,
        )  # fmt: skip


@kernel("logits stride classes shares dlogits losses hits smoothing:f scale:f")
def softmax_cross_entropy(job: Any, first: int, count: int, thread: int) -> None:
    """losses[n] = -sum of target * log(softmax(logits[n])); dlogits = (softmax - target) * scale.

    The target is 1 - smoothing of the label's shares, (N, classes), plus smoothing / classes for each
    class; hits[n] is 1 where the largest logit is the largest share's.
    """
    losses, hits = floats(job.losses), ints(job.hits)
    classes = job.classes
    even, rest = job.smoothing / classes, 1.0 - job.smoothing
    for n in range(first, first + count):
        z = floats(job.logits + 4 * n * job.stride)
        d = floats(job.dlogits + 4 * n * job.stride)
        shares = floats(job.shares + 4 * n * classes)
        best, right = 0, 0
        for c in range(1, classes):
            best = c if z[c] > z[best] else best
            right = c if shares[c] > shares[right] else right
        hits[n] = 1 if best == right else 0
        largest, total, meant = z[best], 0.0, 0.0
        for c in range(classes):
            away = z[c] - largest
            d[c] = exp(away)
            total += d[c]
            meant += (even + rest * shares[c]) * away
        losses[n] = float32(log(total) - meant)
        for c in range(classes):
            d[c] = float32((d[c] / total - (even + rest * shares[c])) * job.scale)
