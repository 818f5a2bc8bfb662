"""Does backward tell the truth? Finite differences against it, for a layer or a whole model.

A gradient says how the loss changes when one number changes a little; so change it a little and
see. In float64, (loss(v + h) - loss(v - h)) / 2h agrees with a right gradient to some eight digits.
Two things spoil that, and neither is a wrong gradient: float32, which rounds the difference away,
and kinks, where a ReLU or a max-pool switches between v - h and v + h. The check therefore works in
float64, watches which way every ReLU and max-pool went, retries with a smaller h, and draws another
place instead of one that stays on a kink. Where every place of an array is on a kink (a bias of 0
behind a layer whose ReLUs are all off: its sum is 0 exactly), all numbers are moved a little, for a
right gradient is right everywhere. What could not be compared even so is said, and is never "ok".
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from tinysqueeze.errors import UserError
from tinysqueeze.labels import check_labels
from tinysqueeze.network.layers import EVAL, Layer, Mode, Params, Shape
from tinysqueeze.network.loss import softmax_cross_entropy
from tinysqueeze.network.models import Model
from tinysqueeze.network.params import flatten, map_params, unflatten

STEPS = (1e-5, 1e-6, 1e-7)  # h, tried in turn where a larger one crosses a kink
TOLERANCE = 1e-6
REDRAWS = 3  # for each place wanted, so many others may be tried
NUDGES = (1e-3, 1e-2, 1e-1)  # how far all numbers are moved where a whole array is on kinks
NAMED = 3  # arrays that a summary names one by one


@dataclass(frozen=True)
class Check:
    """The verdict on one array: how far backward and finite differences are apart.

    path       the array
    error      the worst difference, relative to the array's largest gradient seen or to the smallest
               that finite differences can tell from 0 so exactly; infinite where a number is NaN
    index      of that worst place; `analytic` is what backward says there, `numeric` the difference
    checked    places compared
    flat       how many of these have no slope: backward and difference are 0 but for rounding
    skipped    places tried in vain: on a kink
    nudge      how far all numbers had been moved, see `NUDGES`; 0 is the point that was asked for
    why        what kept it from being compared at all, "" where it was
    """

    path: str
    error: float
    index: tuple[int, ...]
    analytic: float
    numeric: float
    checked: int
    skipped: int
    flat: int = 0
    nudge: float = 0.0
    why: str = ""

    @property
    def ok(self) -> bool:
        """Close enough, and something was checked at all. NaN is not close to anything."""
        return self.checked > 0 and self.error < TOLERANCE

    @property
    def verdict(self) -> str:
        """In a word."""
        if not self.checked:
            return "UNCHECKED"
        return "ok" if self.ok else "WRONG"

    def __str__(self) -> str:
        start = f"{self.verdict:<5} {self.path:<28}"
        if not self.checked:
            return f"{start} {self.why}"
        notes = [f"{self.skipped} on kinks"] if self.skipped else []
        notes += [f"{self.flat} without slope"] if self.flat else []
        notes += [f"all numbers moved by {self.nudge:g}"] if self.nudge else []
        return (
            f"{start} error {self.error:.1e} over {', '.join([str(self.checked), *notes])}; worst at "
            f"{self.index}: backward {self.analytic:+.9e}, finite difference {self.numeric:+.9e}"
        )


@dataclass(frozen=True)
class Summary:
    """All checks of one model in a line that says what was compared and what was not."""

    checks: tuple[Check, ...]

    @property
    def wrong(self) -> list[Check]:
        """Compared, and found wrong."""
        return [check for check in self.checks if check.checked and not check.ok]

    @property
    def unchecked(self) -> list[Check]:
        """Not compared at a single place."""
        return [check for check in self.checks if not check.checked]

    @property
    def flat(self) -> list[Check]:
        """Compared only where there is no slope: a gradient of 0 is all that was shown."""
        return [check for check in self.checks if check.checked and check.flat == check.checked]

    @property
    def places(self) -> int:
        """Compared, of all arrays."""
        return sum(check.checked for check in self.checks)

    @property
    def worst(self) -> Check | None:
        """The largest error that was found; a NaN is larger than any number."""
        compared = [check for check in self.checks if check.checked]
        return max(compared, key=lambda c: (np.isnan(c.error), c.error), default=None)

    @property
    def ok(self) -> bool:
        """Every array compared and right, and not all of them without any slope."""
        return self.verdict == "all right"

    @property
    def verdict(self) -> str:
        """In a few words, the worst news first."""
        if self.wrong:
            return "WRONG"
        if self.unchecked:
            return "NOT ALL CHECKED"
        return "all right" if len(self.flat) < len(self.checks) else "NOTHING SHOWN"

    def __str__(self) -> str:
        count, compared = len(self.checks), len(self.checks) - len(self.unchecked)
        parts = [f"{self.verdict}: {compared} of {count} arrays compared at {self.places} places"]
        if self.worst is not None:
            place = list(self.worst.index)
            parts[0] += f", worst error {self.worst.error:.1e} at {self.worst.path}{place}"
        parts += [f"{len(self.wrong)} wrong{_named(c.path for c in self.wrong)}"]
        reasons = (f"{check.path} ({check.why})" for check in self.unchecked)
        parts += [f"{len(self.unchecked)} not compared{_named(reasons)}"]
        if self.flat:
            parts += [f"{len(self.flat)} without slope{_named(c.path for c in self.flat)}"]
        return "; ".join(parts)


def _named(names: Iterable[str]) -> str:
    """The first few names, and how many more there are."""
    found = list(names)
    more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
    return f": {', '.join(found[:NAMED])}{more}" if found else ""


def summarise(checks: Iterable[Check]) -> Summary:
    """What `check_model` or `check_layer` yields, as one value; its `str` is one line."""
    return Summary(tuple(checks))


Switches = dict[str, np.ndarray]
Loss = Callable[[], tuple[float, Switches]]


class Slope(NamedTuple):
    """A central difference, how much of it may be rounding, and whose switches are in its way.

    Where there are any, it is NaN.
    """

    value: float
    rounding: float
    crossed: frozenset[str]


def compare(
    path: str,
    array: np.ndarray,
    gradient: np.ndarray,
    loss: Loss,
    places: np.ndarray,
    most: int | None = None,
) -> Check:
    """Check `gradient` at flat `places` of `array` (float64, of one shape), which `loss()` reads.

    They are tried in turn until `most` are compared, one of which has a slope if backward claims any
    in the array; all, if None. `loss` returns the loss and its switches (see `switches`). The array is
    nudged in place and put back, to the bit.
    """
    claims, (_, still) = gradient.reshape(-1), loss()
    broken = np.flatnonzero(~np.isfinite(claims))
    if broken.size:  # wrong, whatever the places were
        place = int(broken[0])
        at = _index(place, array.shape)
        return Check(path, np.inf, at, float(claims[place]), np.nan, len(broken), 0)
    steepest = np.abs(claims).max()
    found: dict[int, Slope] = {}
    crossed: set[str] = set()
    skipped, enough = 0, False
    for place in map(int, places):
        slope = _difference(array, place, float(claims[place]), loss, still)
        if slope.crossed:
            crossed |= slope.crossed
            skipped += 1
            continue
        found[place] = slope
        size = max(abs(claims[place]), abs(slope.value))
        enough |= size > slope.rounding or steepest <= slope.rounding
        if most is not None and len(found) >= most and enough:
            break
    if not found:
        names = ", ".join(sorted(crossed)[:NAMED])
        why = f"all of {skipped} places are on a kink of {names}, even with h = {STEPS[-1]:g}"
        return _unchecked(path, why, skipped)
    return _judge(path, array.shape, claims[list(found)], found, skipped)


def _unchecked(path: str, why: str, skipped: int = 0) -> Check:
    return Check(path, np.nan, (), np.nan, np.nan, 0, skipped, why=why)


def _judge(
    path: str, shape: Shape, analytic: np.ndarray, found: Mapping[int, Slope], skipped: int
) -> Check:
    """The worst of the places found. An error counts beside the largest gradient among them."""
    numeric = np.array([slope.value for slope in found.values()])
    rounding = np.array([slope.rounding for slope in found.values()])
    sizes = np.abs(np.concatenate([analytic, numeric]))
    largest = sizes[np.isfinite(sizes)].max(initial=0)
    with np.errstate(invalid="ignore"):  # of a loss that is no number
        error = np.abs(analytic - numeric) / np.maximum(largest, rounding / TOLERANCE)
    error[~np.isfinite(error)] = np.inf
    worst = int(error.argmax())
    return Check(
        path,
        float(error[worst]),
        _index(list(found)[worst], shape),
        float(analytic[worst]),
        float(numeric[worst]),
        len(found),
        skipped,
        int((np.maximum(np.abs(analytic), np.abs(numeric)) <= rounding).sum()),
    )


def _index(place: int, shape: Shape) -> tuple[int, ...]:
    return tuple(int(i) for i in np.unravel_index(place, shape))


def _difference(array: np.ndarray, place: int, claim: float, loss: Loss, still: Switches) -> Slope:
    """The central difference at one flat place, with the largest step that crosses no kink.

    Where it is off what backward claims, twice the step is tried too: so the part of the error that
    grows with the square of the step cancels out (Richardson 1911), and a wrong claim stays wrong.
    """
    for step in STEPS:
        slope = _central(array, place, step, loss, still)
        if slope.crossed:
            continue
        if abs(slope.value - claim) <= max(slope.rounding, TOLERANCE / 10 * abs(claim)):
            break
        wide = _central(array, place, 2 * step, loss, still)
        if not wide.crossed:
            return Slope((4 * slope.value - wide.value) / 3, 1.5 * slope.rounding, wide.crossed)
    return slope


def _central(array: np.ndarray, place: int, step: float, loss: Loss, still: Switches) -> Slope:
    """(loss(v + h) - loss(v - h)) / 2h for one number v, unless a ReLU or a max-pool switches."""
    value = float(array.flat[place])
    high, low = value + step * max(1, abs(value)), value - step * max(1, abs(value))
    try:
        array.flat[place] = high
        above, up = loss()
        array.flat[place] = low
        below, down = loss()
    finally:
        array.flat[place] = value
    crossed = _crossed(up, still) | _crossed(down, still)
    if crossed:
        return Slope(np.nan, np.nan, crossed)
    size = max(abs(above), abs(below), 1)  # its terms may be larger than their sum
    rounding = 32 * np.finfo(np.float64).eps * size / (high - low)
    return Slope((above - below) / (high - low), rounding, crossed)


def _crossed(now: Switches, still: Switches) -> frozenset[str]:
    """The layers of which something is switched otherwise than it was."""
    return frozenset(name for name in still if not np.array_equal(now[name], still[name]))


KINKS = {"y": "ReLU", "argmax": "max-pool", "piece": "hard-swish"}  # what they keep in the cache


def switches(cache: Mapping[str, Any]) -> Switches:
    """Which way every ReLU (on or off), hard-swish (which piece) and max-pool (which pixel) went."""
    found = {}
    for path, kept in flatten(cache).items():
        layer, _, name = path.rpartition("/")
        if name in KINKS:
            found[layer or f"the {KINKS[name]}"] = kept > 0 if name == "y" else kept
    return found


@dataclass(frozen=True)
class _Point:
    """Where a loss is differentiated: its numbers by path, backward's gradients, and the loss."""

    arrays: Mapping[str, np.ndarray]
    gradients: Mapping[str, np.ndarray]
    loss: Loss


def check_layer(
    layer: Layer,
    params: Params,
    x: np.ndarray,
    mode: Mode = EVAL,
    seed: int = 0,
    most: int | None = None,
    redraws: int = len(NUDGES),
) -> Iterator[Check]:
    """Check a layer's gradients of x and every parameter, against a random upstream gradient dy.

    The loss is sum(y * dy), so that dy is its gradient. x (N, ...) and params are copied to
    float64. `most` is how many places of each array are compared (all that are off a kink, if None).
    An array without any is tried again with all numbers moved, at most `redraws` times. In training
    mode every pass draws the same dropout masks.
    """

    @cache
    def drawn(shape: Shape) -> np.ndarray:
        return np.random.default_rng((seed, 1)).standard_normal(shape)  # not the stream of x

    def judge(y: np.ndarray) -> tuple[float, np.ndarray]:
        dy = drawn(y.shape)
        return float((y * dy).sum()), dy

    return _check_all(layer, judge, params, x, mode, seed, most, redraws)


def check_model(
    model: Model,
    params: Params,
    images: np.ndarray,
    labels: np.ndarray,
    mode: Mode = EVAL,
    smoothing: float = 0.0,
    seed: int = 0,
    most: int | None = 8,
    redraws: int = len(NUDGES),
) -> Iterator[Check]:
    """Check a whole model's gradients through the loss: the images' ("x") and every parameter's.

    images (N, H, W, C), labels as in `loss.softmax_cross_entropy`. `most` and `redraws` are those of
    `check_layer`. Yields a Check as each array is done; `summarise` makes one line of them.
    """
    labels = check_labels(labels, len(images), model.classes, model.name)

    def judge(logits: np.ndarray) -> tuple[float, np.ndarray]:
        return softmax_cross_entropy(logits, labels, smoothing, mode)

    return _check_all(model, judge, params, images, mode, seed, most, redraws)


def _again(mode: Mode) -> Mode:
    """The same mode from its beginning: a pass draws the masks that the one before drew."""
    return Mode(mode.ops, deepcopy(mode.rng))


Judge = Callable[[np.ndarray], tuple[float, np.ndarray]]  # of y: the loss, and dy


def _point(layer: Layer, judge: Judge, params: Params, x: np.ndarray, mode: Mode) -> _Point:
    """Forward and backward once; the loss goes forward again, whenever it is asked for."""

    def loss() -> tuple[float, Switches]:
        y, cache = layer.forward(params, x, _again(mode))
        return judge(y)[0], switches(cache)

    y, cache = layer.forward(params, x, _again(mode))
    dx, grads = layer.backward(params, cache, judge(y)[1], _again(mode))
    return _Point({"x": x} | flatten(params), {"x": dx} | flatten(grads), loss)


def _check_all(
    layer: Layer,
    judge: Judge,
    params: Params,
    x: np.ndarray,
    mode: Mode,
    seed: int,
    most: int | None,
    redraws: int,
) -> Iterator[Check]:
    """x and every trained array, each at the first point that has a place off all kinks."""
    if most is not None and most < 1:
        raise UserError(f"at least 1 place of each array must be compared, not {most}")
    rng, trained = np.random.default_rng(seed), list(flatten(layer.param_shapes(x.shape[1:])))
    params, x = map_params(_float64, params), _float64(x)
    points = [_point(layer, judge, params, x, mode)]
    for path in ("x", *trained):
        skipped = 0
        for number, nudge in enumerate((0.0, *NUDGES[:redraws])):
            if number == len(points):
                moved = _moved(params, x, trained, nudge, seed)
                points.append(_point(layer, judge, *moved, mode))
            check = _check_one(path, points[number], rng, most)
            skipped += check.skipped
            if check.checked or not check.skipped:
                break
        yield replace(check, skipped=skipped, nudge=nudge if check.checked else 0.0)


def _check_one(path: str, at: _Point, rng: np.random.Generator, most: int | None) -> Check:
    array, gradient = at.arrays[path], at.gradients.get(path)
    if gradient is None or gradient.shape != array.shape:
        given = "no gradient" if gradient is None else f"a gradient of shape {gradient.shape}"
        return _unchecked(path, f"backward gives {given}, the array is {array.shape}")
    if not array.size:
        return _unchecked(path, "it is empty")
    return compare(path, array, gradient, at.loss, _places(gradient, rng, most), most)


def _places(gradient: np.ndarray, rng: np.random.Generator, most: int | None) -> np.ndarray:
    """Flat places to try, in order: `most` by chance, then others, such as have a gradient if any."""
    if most is None or gradient.size <= most * (1 + REDRAWS):
        return rng.permutation(gradient.size)
    first = rng.choice(gradient.size, most, replace=False)
    sloping = np.flatnonzero(gradient)
    pool = sloping if sloping.size else np.arange(gradient.size)
    others = rng.choice(pool, min(len(pool), most * REDRAWS), replace=False)
    return np.concatenate([first, others[~np.isin(others, first)]])


def _moved(
    params: Params, x: np.ndarray, trained: list[str], nudge: float, seed: int
) -> tuple[Params, np.ndarray]:
    """Parameters and x, each moved at random by `nudge` of its size (of 1 where it is 0)."""
    rng = np.random.default_rng((seed, 2))

    def move(array: np.ndarray) -> np.ndarray:
        size = float(np.sqrt(np.square(array).mean())) or 1.0
        return array + nudge * size * rng.standard_normal(array.shape)

    flat = flatten(params)
    return unflatten(flat | {path: move(flat[path]) for path in trained}), move(x)


def _float64(array: np.ndarray) -> np.ndarray:
    return np.array(array, dtype=np.float64)
