"""The reference in float64, with every decision that rounding may tip noted, and turned if asked."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import networks
import numpy as np

from tinysqueeze.network.layers import Mode
from tinysqueeze.network.loss import softmax_cross_entropy
from tinysqueeze.network.ops import reference
from tinysqueeze.network.params import flatten, map_params
from tinysqueeze.network.window import Window

CLOSE = {"4x4": 1e-5, "2x2": 3e-6, "direct": 2e-6, "plain": 2e-6}
"""How near its kink, relative to the largest number of the map, a decision counts as open."""
SUMS = ("conv2d", "conv2d_backward", "linear", "linear_backward")
TINY = np.finfo(np.float64).tiny

Decision = tuple[int, int]
"""(number of the call, place in its map): one ReLU, hard-swish or maximum."""


# --- the reference, deciding as told -------------------------------------------------------------


@dataclass
class Deciding:
    """The reference operations, which note every decision within `close` of its kink, and turn `turned`.

    Dropout takes its masks from `masks`, where that is given. `taken` are the decisions, call by call, and
    with `follow` those of an earlier run are taken again; with `noise` every number that an operation gives
    is off by a float32 rounding, at random.
    """

    close: float
    turned: frozenset[Decision] = frozenset()
    masks: Iterator[np.ndarray] | None = None
    noise: np.random.Generator | None = None
    follow: list[np.ndarray] | None = None
    taken: list[np.ndarray] = field(default_factory=list)
    open: list[Decision] = field(default_factory=list)

    def __getattr__(self, name: str) -> Any:
        operation = getattr(reference, name)
        if self.noise is None:
            return operation
        if name in SUMS:  # what a sum loses depends on its terms, not on what they come to
            return lambda *given: self._off(operation(*given), operation(*map(_magnitude, given)))
        return lambda *given: self._off(made := operation(*given), made)

    def _off(self, made: Any, size: Any) -> Any:
        """What an operation gave, each float64 number off by a float32 rounding of numbers so large."""
        if isinstance(made, tuple):
            return tuple(self._off(*pair) for pair in zip(made, size, strict=True))
        if self.noise is None or not isinstance(made, np.ndarray) or made.dtype != np.float64:
            return made
        return made + size * 2.0**-24 * self.noise.standard_normal(np.shape(size))

    def _decided(
        self, taken: np.ndarray, other: np.ndarray, gap: np.ndarray, size: float
    ) -> np.ndarray:
        """The decisions of a call, of which those are `other` that are turned; notes the open ones.

        gap says how far each is from its kink: 0 is no decision (two equal zeros behind a ReLU).
        """
        call = len(self.taken)
        if self.follow is not None:
            taken = self.follow[call]
        near = np.flatnonzero((gap > 0) & (gap < self.close * size))
        self.open += [(call, int(place)) for place in near]
        for place in (place for number, place in self.turned if number == call):
            taken.flat[place] = other.flat[place]
        self.taken.append(taken)
        return taken

    def relu(self, x: np.ndarray) -> np.ndarray:
        is_open = self._decided(x > 0, x <= 0, np.abs(x), np.abs(x).max(initial=0))
        y = np.where(is_open, np.maximum(x, TINY), np.where(np.isnan(x), x, 0))
        return self._off(y, y)

    def hard_swish(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        y, piece = reference.hard_swish(x)
        other = np.where(piece == 1, np.where(x < 0, 0, 2), 1).astype(piece.dtype)
        gap = np.minimum(np.abs(x + 3), np.abs(x - 3))
        return self._off(y, y), self._decided(piece, other, gap, np.abs(x).max(initial=0))

    def max_pool2d(self, x: np.ndarray, window: Window) -> tuple[np.ndarray, np.ndarray]:
        y, argmax = reference.max_pool2d(x, window)
        if window.area == 1:
            return y, argmax
        seen = reference.windows(x, window, fill=-np.inf)
        seen = seen.reshape(*seen.shape[:3], window.area, -1)
        second = np.argsort(seen, axis=3)[:, :, :, -2]
        beaten = np.take_along_axis(seen, second[:, :, :, None], axis=3)[:, :, :, 0]
        gap = np.where(np.isfinite(beaten), y - beaten, np.inf)
        size = np.abs(x).max(initial=0)
        return self._off(y, y), self._decided(argmax, second.astype(argmax.dtype), gap, size)

    def batch_norm(self, x: np.ndarray, weight: np.ndarray, *given: Any) -> np.ndarray:
        y = reference.batch_norm(x, weight, *given)
        _, mean, var, eps = given
        return y + self._off(np.zeros_like(mean), weight * mean / np.sqrt(var + eps))

    def batch_norm_backward(
        self, x: np.ndarray, weight: np.ndarray, mean: np.ndarray, var: np.ndarray, eps: float,
        dy: np.ndarray, batch_stats: bool,
    ) -> tuple[np.ndarray, ...]:  # fmt: skip
        made = reference.batch_norm_backward(x, weight, mean, var, eps, dy, batch_stats)
        if not batch_stats or self.noise is None:
            return made
        dx, dweight, dbias = made
        count, normal, over = (
            x.size // x.shape[-1],
            (x - mean) / np.sqrt(var + eps),
            tuple(range(x.ndim - 1)),
        )
        zero = np.zeros_like(mean)
        for term in (dy, dbias / count, normal * (dweight / count)):  # each with a rounded factor
            dx = dx + term * self._off(zero, weight / np.sqrt(var + eps))
        sums = (np.abs(dy * normal).sum(axis=over), np.abs(dy).sum(axis=over))
        return dx, self._off(dweight, sums[0]), self._off(dbias, sums[1])

    def dropout_mask(self, x: np.ndarray, rate: float, rng: np.random.Generator) -> np.ndarray:
        if self.masks is None:
            return reference.dropout_mask(x, rate, rng)
        return next(self.masks).astype(x.dtype)


def _magnitude(given: Any) -> Any:
    return np.abs(given) if isinstance(given, np.ndarray) else given


@dataclass
class Truth:
    """What float64 says of a training step."""

    logits: np.ndarray
    loss: float
    losses: np.ndarray
    grads: dict[str, np.ndarray]
    moved: dict[str, np.ndarray]
    open: list[Decision]
    taken: list[np.ndarray]


def truth(
    d: networks.Draw, seed: int, close: float,
    turned: frozenset[Decision] = frozenset(), masks: Callable[[], Any] | None = None,
    noise: np.random.Generator | None = None, follow: list[np.ndarray] | None = None,
) -> Truth:  # fmt: skip
    """A training step in float64; dropout draws from `seed`, or takes `masks()`."""
    ops = Deciding(close, turned, masks() if masks else None, noise, follow)
    mode = Mode(ops, np.random.default_rng(seed))  # type: ignore[arg-type]
    params = map_params(lambda a: a.astype(np.float64), d.params)
    logits, cache = d.model.forward(params, d.x.astype(np.float64), mode)
    loss, dlogits = softmax_cross_entropy(logits, d.labels, d.smoothing, mode)
    losses, _ = reference.cross_entropies(logits, d.labels, d.smoothing)
    _, grads = d.model.backward(params, cache, dlogits, mode)
    moved = flatten(d.model.moved_buffers(params, cache))
    return Truth(logits, loss, losses, flatten(grads), moved, ops.open, ops.taken)
