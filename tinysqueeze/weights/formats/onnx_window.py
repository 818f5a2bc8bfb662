"""The windows of ONNX's convolutions and pools: strides and pads as attributes, in all their spellings."""

from tinysqueeze.errors import ShapeError
from tinysqueeze.network.window import Window
from tinysqueeze.weights.formats.onnx_graph import Op


def window_of(
    op: Op, kernel: tuple[int, int], size: tuple[int, int], pool: bool
) -> tuple[Window, bool]:
    """The window that takes the places that the file says; and whether its padding is even.

    A window that hangs over the edge is written as `ceil_mode`, or as more padding at the bottom and
    right than at the top and left; `Window.ceil` is both. Where the same places come out, what is
    beyond the image counts alike: nothing in a max-pool, zeros in a convolution.
    """
    stride = sides(op, "strides", (1, 1))
    if sides(op, "dilations", (1, 1)) != (1, 1):
        raise op.refused("dilations other than 1 are not understood")
    ceil = pool and bool(op.take("ceil_mode", 0))
    pads = tuple(op.take("pads", (0, 0, 0, 0)))
    auto = op.take("auto_pad", b"NOTSET")
    if auto in (b"SAME_UPPER", b"SAME_LOWER"):
        pads = _same(kernel, stride, size, auto == b"SAME_UPPER")
    elif auto not in (b"NOTSET", b"VALID"):
        raise op.refused(f"auto_pad = {auto!r}")
    if len(pads) != 4 or min(pads) < 0 or max(pads) > 255 or max(stride) > 255 or min(stride) < 1:
        raise op.refused(f"pads {pads} with strides {stride}")
    begin, end = pads[:2], pads[2:]
    if pool and any(pad >= side for pad, side in zip(pads, (*kernel, *kernel), strict=True)):
        raise op.refused(f"pads {pads} around a kernel of {kernel}: windows of nothing but padding")
    if begin == end:
        return Window(kernel, stride, (begin[0], begin[1]), ceil), True
    out = tuple(
        (n + b + e - k + (s - 1) * ceil) // s + 1
        for n, b, e, k, s in zip(size, begin, end, kernel, stride, strict=True)
    )
    for hanging in (False, True) if pool else (False,):
        window = Window(kernel, stride, (begin[0], begin[1]), hanging)
        try:
            if window.out_size(*size) == out:
                return window, False
        except ShapeError:  # without `ceil` no window fits at all
            continue
    raise op.refused(
        f"pads {pads} that differ at opposite sides", "pad the image evenly, or with ceil_mode"
    )


def sides(op: Op, name: str, default: tuple[int, int]) -> tuple[int, int]:
    """An attribute of two numbers: height and width."""
    found = tuple(op.take(name, default))
    if len(found) != 2:
        raise op.refused(f"{name} = {found}: two numbers are expected, height and width")
    return found[0], found[1]


def _same(
    kernel: tuple[int, int], stride: tuple[int, int], size: tuple[int, int], upper: bool
) -> tuple[int, ...]:
    """The padding that leaves ceil(size / stride) pixels; an odd one at the end, or the beginning."""
    totals = [
        max((-(-n // s) - 1) * s + k - n, 0) for n, s, k in zip(size, stride, kernel, strict=True)
    ]
    less, more = [t // 2 for t in totals], [t - t // 2 for t in totals]
    return (*less, *more) if upper else (*more, *less)
