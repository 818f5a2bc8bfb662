"""The windows of ONNX's convolutions and pools: strides and pads as attributes, in all their spellings."""

from tinysqueeze.errors import ShapeError
from tinysqueeze.network.window import Window
from tinysqueeze.weights.formats.onnx_graph import Op, Sides


def window_of(
    op: Op, kernel: Sides, size: Sides, pool: bool, around: Sides = (0, 0)
) -> tuple[Window, bool]:
    """The window that takes the places that the file says; and whether its padding is even.

    A window that hangs over the edge is written as `ceil_mode`, or as more padding at the bottom and
    right than at the top and left; `Window.ceil` is both. Where the same places come out, what is
    beyond the image counts alike: nothing in a max-pool, zeros in a convolution. The zeros that a Pad put
    `around` the image of `size` become the window's padding.
    """
    stride = sides(op, "strides", (1, 1))
    if sides(op, "dilations", (1, 1)) != (1, 1):
        raise op.refused("dilations other than 1 are not understood")
    whole = (size[0] + 2 * around[0], size[1] + 2 * around[1])
    ceil = pool and bool(op.take("ceil_mode", 0))
    pads = tuple(op.take("pads", (0, 0, 0, 0)))
    auto = op.take("auto_pad", b"NOTSET")
    if auto in (b"SAME_UPPER", b"SAME_LOWER"):
        pads = _same(kernel, stride, whole, auto == b"SAME_UPPER")
    elif auto not in (b"NOTSET", b"VALID"):
        raise op.refused(f"auto_pad = {auto!r}")
    if len(pads) != 4 or min(pads) < 0 or max(pads) > 255 or max(stride) > 255 or min(stride) < 1:
        raise op.refused(f"pads {pads} with strides {stride}")
    begin, end = pads[:2], pads[2:]
    if pool and any(pad >= side for pad, side in zip(pads, (*kernel, *kernel), strict=True)):
        raise op.refused(f"pads {pads} around a kernel of {kernel}: windows of nothing but padding")
    if begin == end:
        window = Window(kernel, stride, (begin[0], begin[1]), ceil)
        if around == (0, 0):
            return window, True
        out = window.out_size(*whole)
    else:
        height, width = (
            (n + b + e - k + (s - 1) * ceil) // s + 1
            for n, b, e, k, s in zip(whole, begin, end, kernel, stride, strict=True)
        )
        out = height, width
    pad = (begin[0] + around[0], begin[1] + around[1])
    for hanging in (False, True) if pool else (False,):
        window = Window(kernel, stride, pad, hanging)
        try:
            if window.out_size(*size) == out:
                return window, begin == end
        except ShapeError:  # without `ceil` no window fits at all
            continue
    raise op.refused(
        f"pads {pads} that differ at opposite sides", "pad the image evenly, or with ceil_mode"
    )


def sides(op: Op, name: str, default: Sides) -> Sides:
    """An attribute of two numbers: height and width."""
    found = tuple(op.take(name, default))
    if len(found) != 2:
        raise op.refused(f"{name} = {found}: two numbers are expected, height and width")
    return found[0], found[1]


def _same(kernel: Sides, stride: Sides, size: Sides, upper: bool) -> tuple[int, ...]:
    """The padding that leaves ceil(size / stride) pixels; an odd one at the end, or the beginning."""
    totals = [
        max((-(-n // s) - 1) * s + k - n, 0) for n, s, k in zip(size, stride, kernel, strict=True)
    ]
    less, more = [t // 2 for t in totals], [t - t // 2 for t in totals]
    return (*less, *more) if upper else (*more, *less)
