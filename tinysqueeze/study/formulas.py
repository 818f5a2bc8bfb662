"""Each layer's formula with the actual numbers filled in, for one number of y or of dx."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import singledispatch
from itertools import product

import numpy as np

from tinysqueeze.network import layers
from tinysqueeze.network.layers import Layer
from tinysqueeze.network.ops.reference import pool_divisor
from tinysqueeze.network.others import GroupedConv2D
from tinysqueeze.network.window import Window
from tinysqueeze.study.trace import Record, Sum

Place = tuple[int, ...]  # of one example: (row, column, channel), or (channel,)


@dataclass(frozen=True)
class Formula:
    """The rule in symbols, the same with numbers, and the value that the numbers give."""

    rule: str
    numbers: str
    value: float

    def __str__(self) -> str:
        return f"{self.rule}\n{self.numbers}"


def n(value: float) -> str:
    """A number in four digits, negative ones in brackets, so that sums can be read."""
    text = f"{value:.4g}"
    return f"({text})" if value < 0 else text


def _sum_of(
    terms: list[tuple[float, float]], extra: float | None = None, show: int = 3
) -> tuple[str, float]:
    """Products written out, the largest first; "+ 144 more" for those that have no room."""
    total = float(sum(a * b for a, b in terms)) + (extra or 0.0)
    largest = sorted(terms, key=lambda term: -abs(term[0] * term[1]))[:show]
    parts = [] if extra is None else [n(extra)]
    parts += [f"{n(a)}·{n(b)}" for a, b in largest]
    rest = terms_left(len(terms), len(largest))
    return f"= {' + '.join(parts) or '0'}{rest} = {total:.6g}", total


def terms_left(count: int, shown: int) -> str:
    """ " + 144 more terms", or nothing."""
    return f" + {count - shown:,} more terms" if count > shown else ""


@singledispatch
def forward_formula(layer: Layer, record: Record, example: int, at: Place) -> Formula:
    """How y[example][at] came about. Layers that are not known here just show the number."""
    value = float(record.y[example][at])
    return Formula(f"{type(layer).__name__}: y", f"= {value:.6g}", value)


@singledispatch
def backward_formula(layer: Layer, record: Record, example: int, at: Place) -> Formula:
    """How dx[example][at] came about, from dy."""
    assert record.dx is not None
    value = float(record.dx[example][at])
    return Formula(f"{type(layer).__name__}: dx", f"= {value:.6g}", value)


def _seen(x: np.ndarray, window: Window, row: int, column: int) -> Iterator[tuple[Place, Place]]:
    """The pixels of x (H, W, C) that the window at (row, column) sees: (place in it, pixel)."""
    (kh, kw), (sh, sw), (ph, pw) = window.kernel, window.stride, window.pad
    for a, b in product(range(kh), range(kw)):
        i, j = row * sh + a - ph, column * sw + b - pw
        if 0 <= i < x.shape[0] and 0 <= j < x.shape[1]:
            yield (a, b), (i, j)


def _seers(y: np.ndarray, window: Window, row: int, column: int) -> Iterator[tuple[Place, Place]]:
    """The windows, as pixels of y (OH, OW, F), that saw x's (row, column): (place in it, pixel)."""
    (kh, kw), (sh, sw), (ph, pw) = window.kernel, window.stride, window.pad
    for a, b in product(range(kh), range(kw)):
        (i, left), (j, over) = divmod(row + ph - a, sh), divmod(column + pw - b, sw)
        if not left and not over and 0 <= i < y.shape[0] and 0 <= j < y.shape[1]:
            yield (a, b), (i, j)


def _place(name: str, at: Place) -> str:
    return f"{name}[{', '.join(map(str, at))}]"


# ------------------------------------------------------------------------------------- convolution


@forward_formula.register
def _(layer: layers.Conv2D | GroupedConv2D, record: Record, example: int, at: Place) -> Formula:
    weight, x = record.params["weight"], record.x[example]
    row, column, f = at
    start = f // _part(layer) * weight.shape[2]  # the first channel of f's group
    terms = [
        (float(x[*pixel, start + c]), float(weight[*place, c, f]))
        for place, pixel in _seen(x, layer.window, row, column)
        for c in range(weight.shape[2])
    ]
    numbers, value = _sum_of(terms, float(record.params["bias"][f]) if layer.bias else None)
    rule = f"{_place('y', at)} = bias[{f}] + the sum over the window and the channels of x·weight"
    return Formula(rule, numbers, value)


@backward_formula.register
def _(layer: layers.Conv2D | GroupedConv2D, record: Record, example: int, at: Place) -> Formula:
    weight, dy = record.params["weight"], record.down[example]
    row, column, channel = at
    group, c = divmod(channel, weight.shape[2])
    part = _part(layer)
    windows = list(_seers(dy, layer.window, row, column))
    terms = [
        (float(dy[*pixel, f]), float(weight[*place, c, f]))
        for place, pixel in windows
        for f in range(group * part, (group + 1) * part)
    ]
    numbers, value = _sum_of(terms)
    rule = (
        f"{_place('dx', at)} = the sum of dy·weight over the filters and the {len(windows)} "
        f"window{'s' * (len(windows) != 1)} that saw this pixel"
    )
    return Formula(rule, numbers, value)


def _part(layer: layers.Conv2D | GroupedConv2D) -> int:
    """How many filters see the same channels: all, or those of a group."""
    return layer.filters // (layer.groups if isinstance(layer, GroupedConv2D) else 1)


@forward_formula.register
def _(layer: layers.Linear, record: Record, example: int, at: Place) -> Formula:
    (f,) = at
    pairs = zip(record.x[example], record.params["weight"][:, f], strict=True)
    terms = [(float(a), float(b)) for a, b in pairs]
    numbers, value = _sum_of(terms, float(record.params["bias"][f]) if layer.bias else None)
    return Formula(f"y[{f}] = bias[{f}] + the sum over the inputs of x·weight", numbers, value)


@backward_formula.register
def _(layer: layers.Linear, record: Record, example: int, at: Place) -> Formula:
    (c,) = at
    pairs = zip(record.down[example], record.params["weight"][c], strict=True)
    numbers, value = _sum_of([(float(a), float(b)) for a, b in pairs])
    return Formula(f"dx[{c}] = the sum over the outputs of dy·weight", numbers, value)


# ------------------------------------------------------------------------ ReLU, hard-swish, dropout


@forward_formula.register
def _(layer: layers.ReLU, record: Record, example: int, at: Place) -> Formula:
    x = float(record.x[example][at])
    value = max(x, 0.0)
    return Formula(f"{_place('y', at)} = max(x, 0)", f"= max({x:.6g}, 0) = {value:.6g}", value)


@backward_formula.register
def _(layer: layers.ReLU, record: Record, example: int, at: Place) -> Formula:
    y, dy = float(record.y[example][at]), float(record.down[example][at])
    value = dy if y > 0 else 0.0
    why = f"y = {y:.4g} > 0: it was open" if y > 0 else "y = 0: it was shut"
    rule = f"{_place('dx', at)} = dy where y > 0, else 0"
    return Formula(rule, f"{why}, so dx = {value:.6g} (dy = {dy:.6g})", value)


@forward_formula.register
def _(layer: layers.HardSwish, record: Record, example: int, at: Place) -> Formula:
    x = float(record.x[example][at])
    value = x * min(max(x / 6 + 0.5, 0.0), 1.0)
    rule = f"{_place('y', at)} = x · (x / 6 + 1/2, from 0 to 1)"
    return Formula(rule, f"x = {x:.6g}, so y = {value:.6g}", value)


@backward_formula.register
def _(layer: layers.HardSwish, record: Record, example: int, at: Place) -> Formula:
    x, dy = float(record.x[example][at]), float(record.down[example][at])
    slope = 0.0 if x <= -3 else 1.0 if x >= 3 else x / 3 + 0.5
    rule = f"{_place('dx', at)} = dy · slope: 0 up to -3, 1 from 3 on, x / 3 + 1/2 between"
    numbers = f"x = {x:.4g}: the slope is {slope:.6g}, so dx = {dy * slope:.6g} (dy = {dy:.6g})"
    return Formula(rule, numbers, dy * slope)


@forward_formula.register
def _(layer: layers.Dropout, record: Record, example: int, at: Place) -> Formula:
    return _masked("y", record, float(record.x[example][at]), example, at)


@backward_formula.register
def _(layer: layers.Dropout, record: Record, example: int, at: Place) -> Formula:
    return _masked("dx", record, float(record.down[example][at]), example, at)


def _masked(name: str, record: Record, through: float, example: int, at: Place) -> Formula:
    source, mask = {"y": "x", "dx": "dy"}[name], record.cache["mask"]
    if mask is None:
        return Formula(f"{_place(name, at)} = {source}: idle", f"= {through:.6g}", through)
    value = through * float(mask[example][at])
    numbers = f"= {n(through)}·{n(float(mask[example][at]))} = {value:.6g}"
    return Formula(f"{_place(name, at)} = {source}·mask", numbers, value)


# ------------------------------------------------------------------------------------------ pooling


@forward_formula.register
def _(layer: layers.MaxPool2D, record: Record, example: int, at: Place) -> Formula:
    x, (row, column, c) = record.x[example], at
    seen = [float(x[*pixel, c]) for _, pixel in _seen(x, layer.window, row, column)]
    listed = ", ".join(f"{v:.4g}" for v in seen)
    rule = f"{_place('y', at)} = the largest of the window"
    return Formula(rule, f"= max({listed}) = {max(seen):.6g}", max(seen))


@backward_formula.register
def _(layer: layers.MaxPool2D, record: Record, example: int, at: Place) -> Formula:
    dy, winner = record.down[example], record.cache["argmax"][example]
    row, column, c = at
    windows = list(_seers(dy, layer.window, row, column))
    width = layer.window.kernel[1]
    won = [float(dy[*p, c]) for (a, b), p in windows if winner[*p, c] == a * width + b]
    value = float(sum(won))
    numbers = f"it won {len(won)} of {len(windows)}: " + (" + ".join(map(n, won)) or "nothing")
    rule = f"{_place('dx', at)} = the sum of dy of the windows that this pixel won"
    return Formula(rule, f"{numbers}, so dx = {value:.6g}", value)


@forward_formula.register
def _(layer: layers.AvgPool2D, record: Record, example: int, at: Place) -> Formula:
    x, (row, column, c) = record.x[example], at
    seen = [float(x[*pixel, c]) for _, pixel in _seen(x, layer.window, row, column)]
    area = int(pool_divisor(record.x.shape, layer.window)[row, column, 0])
    value = sum(seen) / area
    listed = " + ".join(map(n, seen))
    rule = f"{_place('y', at)} = the mean of the window"
    return Formula(rule, f"= ({listed}) / {area} = {value:.6g}", value)


@backward_formula.register
def _(layer: layers.AvgPool2D, record: Record, example: int, at: Place) -> Formula:
    dy, (row, column, c) = record.down[example], at
    areas = pool_divisor(record.x.shape, layer.window)
    windows = [pixel for _, pixel in _seers(dy, layer.window, row, column)]
    numbers, value = _sum_of([(float(dy[*p, c]), 1 / float(areas[*p, 0])) for p in windows])
    rule = f"{_place('dx', at)} = the sum of dy·(1/area) of the windows that saw this pixel"
    return Formula(rule, numbers, value)


@forward_formula.register
def _(layer: layers.GlobalAvgPool2D, record: Record, example: int, at: Place) -> Formula:
    seen = record.x[example][:, :, at[0]]
    value = float(seen.mean(dtype=np.float64))
    numbers = f"= {float(seen.sum()):.6g} / ({seen.shape[0]}·{seen.shape[1]}) = {value:.6g}"
    return Formula(f"y[{at[0]}] = the mean of channel {at[0]} over all pixels", numbers, value)


@backward_formula.register
def _(layer: layers.GlobalAvgPool2D, record: Record, example: int, at: Place) -> Formula:
    dy, (height, width) = float(record.down[example][at[2]]), record.x.shape[1:3]
    value = dy / (height * width)
    rule = f"{_place('dx', at)} = dy[{at[2]}] / (H·W): every pixel gets an equal share"
    return Formula(rule, f"= {n(dy)} / ({height}·{width}) = {value:.6g}", value)


@forward_formula.register
def _(layer: layers.Flatten, record: Record, example: int, at: Place) -> Formula:
    value = float(record.y[example][at])
    place = tuple(int(i) for i in np.unravel_index(at[0], record.x.shape[1:]))
    return Formula(f"y[{at[0]}] = {_place('x', place)}: only the shape", f"= {value:.6g}", value)


# ------------------------------------------------------------------------------- where a bypass ends


@forward_formula.register
def _(layer: Sum, record: Record, example: int, at: Place) -> Formula:
    through, around = (float(a[example][at]) for a in (record.x, record.cache["around"]))
    rule = f"{_place('y', at)} = what came through + what came around"
    return Formula(rule, f"= {n(through)} + {n(around)} = {through + around:.6g}", through + around)


@backward_formula.register
def _(layer: Sum, record: Record, example: int, at: Place) -> Formula:
    dy = float(record.down[example][at])
    return Formula(f"{_place('dx', at)} = dy, through and around alike", f"= {dy:.6g}", dy)


# -------------------------------------------------------------------------- batch norm and softmax


@forward_formula.register
def _(layer: layers.BatchNorm, record: Record, example: int, at: Place) -> Formula:
    c, cache, params = at[-1], record.cache, record.params
    x, mean, var = (float(v) for v in (record.x[example][at], cache["mean"][c], cache["var"][c]))
    weight, bias = float(params["weight"][c]), float(params["bias"][c])
    value = weight * (x - mean) / np.sqrt(var + layer.eps) + bias
    numbers = f"= {n(weight)}·({n(x)} − {n(mean)}) / √({var:.4g} + {layer.eps:g}) + {n(bias)} = {value:.6g}"
    rule = f"{_place('y', at)} = weight·(x − mean) / √(var + eps) + bias"
    return Formula(rule, numbers, float(value))


@backward_formula.register
def _(layer: layers.BatchNorm, record: Record, example: int, at: Place) -> Formula:
    c, cache = at[-1], record.cache
    dys = record.down[..., c].astype(np.float64)
    spread = float(np.sqrt(float(cache["var"][c]) + layer.eps))
    weight, dy = float(record.params["weight"][c]), float(dys[example][at[:-1]])
    if not cache["batch_stats"]:
        value = dy * weight / spread
        rule = f"{_place('dx', at)} = dy·weight / √(var + eps)"
        return Formula(rule, f"= {n(dy)}·{n(weight)} / {spread:.4g} = {value:.6g}", value)
    normal = (record.x[..., c].astype(np.float64) - float(cache["mean"][c])) / spread
    shift, stretch = float(dys.mean()), float((dys * normal).mean())
    here = float(normal[example][at[:-1]])
    value = (dy - shift - here * stretch) * weight / spread
    numbers = f"= ({n(dy)} − {n(shift)} − {n(here)}·{n(stretch)})·{n(weight)} / {spread:.4g} = {value:.6g}"
    rule = f"{_place('dx', at)} = (dy − mean(dy) − x̂·mean(dy·x̂))·weight / √(var + eps)"
    return Formula(rule, numbers, value)


@forward_formula.register
def _(layer: layers.Softmax, record: Record, example: int, at: Place) -> Formula:
    x = record.x[example].astype(np.float64)[at[:-1]]
    powers = np.exp(x - x.max())
    value = float(powers[at[-1]] / powers.sum())
    numbers = f"= exp({x[at[-1]]:.4g} − {x.max():.4g}) / {powers.sum():.4g} = {value:.6g}"
    return Formula(f"{_place('y', at)} = exp(x − max) / the sum of all such", numbers, value)


@backward_formula.register
def _(layer: layers.Softmax, record: Record, example: int, at: Place) -> Formula:
    y, dy = (a[example].astype(np.float64)[at[:-1]] for a in (record.y, record.down))
    mean = float((y * dy).sum())
    value = float(y[at[-1]] * (dy[at[-1]] - mean))
    numbers = f"= {n(y[at[-1]])}·({n(dy[at[-1]])} − {n(mean)}) = {value:.6g}"
    return Formula(f"{_place('dx', at)} = y·(dy − the sum of y·dy)", numbers, value)


def by(*sizes: int) -> str:
    """(55, 55, 96) -> "55×55×96"."""
    return "×".join(str(size) for size in sizes)
