"""Round weights to a grid so that the layer's output, not the weight, changes least for the bits spent.

Four ideas, each a few lines:
- *Error feedback.* Round one input's weights, then let the inputs that are not yet rounded make up
  for the error, as least squares says they best can: Hassibi & Stork 1993 (Optimal Brain Surgeon),
  in the form of Frantar et al. 2023 (GPTQ, section 3.3), which does all inputs with one Cholesky
  factor of the inverse of H, the second moment of the layer's input.
- *Rate and distortion.* Of the grid's neighbours and zero, take the one whose error plus
  price * bits is smallest (Wiegand & Schwarz 2011, "Source coding", section 4; DeepCABAC, Wiedemann et al.
  2020). Pruning is what happens where zero wins.
- *Polishing.* The feedback decides early weights before it knows the late ones. So afterwards single
  levels are moved wherever that lowers error plus price * bits, all others as they are, until none is
  left (coordinate descent, as Nair & Suggala 2024, "CDQuant", does on top of GPTQ).
- *One price for the whole network.* The best allocation has the same exchange rate of error for
  bits everywhere, so that layers, once their errors are measured in one unit, need no other tuning.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import numba as nb
import numpy as np
from numpy.typing import NDArray

from tinysqueeze.processors import usable_processors

Matrix = NDArray[np.float64]

LARGEST = 511  # the largest level considered
DAMPING = 0.01  # of H's mean diagonal: Frantar et al. 2023, section 3.3, step 3
STEPS = (0.6, 0.75, 0.95)  # grids tried, of the step that theory suggests for fine rounding
ROUNDS = 3  # of rounding and counting what the levels then cost
POLISHES = 2  # of moving single levels, counting between them
SWEEPS = 8  # over a filter's levels, at most


@dataclass(frozen=True, eq=False)
class Rounded:
    """A layer on its grid: levels (D, F), the step, the weighted error, the bits by entropy."""

    levels: NDArray[np.int32]
    step: float
    error: float
    bits: float


def feedback_factor(moment: Matrix) -> Matrix:
    """(D, D) second moment H of the inputs -> upper triangular U with UᵀU = (H + damping)⁻¹.

    Row i of U, divided by U[i, i], says how inputs i + 1, i + 2, ... take over an error of input i;
    1 / U[i, i]² is what a squared error of input i costs after they have.
    """
    return _factor(damped(moment))


def damped(moment: Matrix) -> Matrix:
    """H with a little more on its diagonal, so that it can be inverted."""
    return moment + DAMPING * max(np.trace(moment) / len(moment), 1e-12) * np.eye(len(moment))


def _factor(moment: Matrix) -> Matrix:
    inverse = np.linalg.inv(moment)
    return np.ascontiguousarray(np.linalg.cholesky((inverse + inverse.T) / 2).T)


def bit_costs(levels: NDArray[np.integer]) -> NDArray[np.float64]:
    """(2 * LARGEST + 1,) bits of each level -LARGEST .. LARGEST, from how often they occur.

    Signs are taken as equally likely, and a thin exponential tail gives unseen levels a price.
    """
    counts = np.bincount(levels.reshape(-1) + LARGEST, minlength=2 * LARGEST + 1).astype(float)
    counts = (counts + counts[::-1]) / 2
    magnitudes = np.abs(np.arange(-LARGEST, LARGEST + 1))
    mean = max(float(np.abs(levels[levels != 0]).mean()) if levels.any() else 1.0, 1.0)
    tail = np.exp(-magnitudes / mean)
    counts += 4 * tail / tail.sum()
    return -np.log2(counts / counts.sum())


def round_to_price(
    weight: Matrix, moment: Matrix, price: float, steps: tuple[float, ...] = STEPS
) -> Rounded:
    """Round a weight matrix (D, F) so that error + price * bits is small.

    The error is half the mean squared change of the output, tr(EᵀHE) / 2; `price` is in that unit a
    bit. Inputs that matter most are rounded first, when most others are left to make up for them.
    What differs by less than float32 counts as equal, so that the last bits of sums decide nothing.
    """
    order = np.argsort(-np.diag(moment).astype(np.float32), kind="stable")
    moment = damped(moment[np.ix_(order, order)])
    factor = _factor(moment)
    rows = np.ascontiguousarray(weight[order].T, np.float64)  # (F, D)
    suggested = suggested_step(price, stiffness(factor))
    largest = max(float(np.abs(weight).max()), 1e-30)  # beyond four times that, all would be zero
    tries = [min(max(scale * suggested, largest / LARGEST), 4 * largest) for scale in steps]
    best = min(
        (_rounded(rows, moment, factor, step, price) for step in sorted(set(tries))),
        key=lambda found: np.float32(found.error + price * found.bits),  # if equal, the finest
    )
    levels = np.empty_like(best.levels.T)
    levels[order] = best.levels.T
    return Rounded(levels, best.step, best.error, best.bits)


def stiffness(factor: Matrix) -> float:
    """What a squared error of an input costs, the geometric mean over the inputs."""
    return float(np.exp(-2 * np.mean(np.log(np.diag(factor)))))


def suggested_step(price: float, stiffness: float) -> float:
    """The step at which a bit less costs `price`: d error / d bit = -(ln 2 / 12) step² stiffness.

    That is the slope of half the error step² / 12 of fine uniform rounding.
    """
    return float(np.sqrt(12 / np.log(2) * price / stiffness))


def _rounded(rows: Matrix, moment: Matrix, factor: Matrix, step: float, price: float) -> Rounded:
    """With one step: (F, D) levels. The first costs are those of plain rounding."""
    levels = np.clip(np.rint(rows / step), -LARGEST, LARGEST).astype(np.int32)
    error = np.zeros(len(rows))
    threads = usable_processors()
    edges = np.linspace(0, len(rows), threads + 1).astype(int).tolist()
    with ThreadPoolExecutor(threads) as pool:
        for number in range(ROUNDS + POLISHES):
            costs = bit_costs(levels)
            if number < ROUNDS:
                work = partial(_round_rows, rows.copy(), factor)
            else:
                change = levels * step - rows
                work = partial(_polish_rows, change, change @ moment, moment)
            running = [
                pool.submit(work, step, price, costs, levels, error, *part)
                for part in pairwise(edges)
            ]
            for part in running:
                part.result()
    bits = float(bit_costs(levels)[levels + LARGEST].sum())
    return Rounded(levels, step, float(error.sum()), bits)


@nb.njit(cache=True, nogil=True)
def _round_rows(
    rows: Matrix, factor: Matrix, step: float, price: float, costs: np.ndarray, levels: np.ndarray,
    error: np.ndarray, start: int, stop: int,
) -> None:  # fmt: skip
    """Each filter on its own: input by input, nearest levels or zero, errors handed on."""
    for f in range(start, stop):
        w = rows[f]
        error[f] = 0.0
        for i in range(len(w)):
            scaled = w[i] / step
            stiffness = 0.5 * (step / factor[i, i]) ** 2
            low = int(np.floor(scaled))
            chosen, least = 0, stiffness * scaled**2 + price * costs[LARGEST]
            for level in (low, low + 1):
                if abs(level) <= LARGEST:
                    cost = stiffness * (scaled - level) ** 2 + price * costs[level + LARGEST]
                    if cost < least:
                        chosen, least = level, cost
            levels[f, i] = chosen
            error[f] += stiffness * (scaled - chosen) ** 2
            handed = (scaled - chosen) * step / factor[i, i]
            for j in range(i + 1, len(w)):
                w[j] -= handed * factor[i, j]


@nb.njit(cache=True, nogil=True)
def _polish_rows(
    changes: Matrix, slopes: Matrix, moment: Matrix, step: float, price: float, costs: np.ndarray,
    levels: np.ndarray, error: np.ndarray, start: int, stop: int,
) -> None:  # fmt: skip
    """Each filter on its own: move one level where that helps, all others as they are, until none does."""
    for f in range(start, stop):
        change, slope = changes[f], slopes[f]
        for _ in range(SWEEPS):
            moved = False
            for i in range(len(change)):
                now, curvature = levels[f, i], moment[i, i]
                low = int(np.floor(now - slope[i] / (curvature * step)))
                chosen, least = now, -1e-9 * price  # what gains less is no gain
                for level in (low, low + 1, 0):
                    if abs(level) <= LARGEST:
                        by = (level - now) * step
                        cost = by * (slope[i] + 0.5 * curvature * by)
                        cost += price * (costs[level + LARGEST] - costs[now + LARGEST])
                        if cost < least:
                            chosen, least = level, cost
                if chosen != now:
                    by = (chosen - now) * step
                    levels[f, i] = chosen
                    change[i] += by
                    slope += by * moment[i]
                    moved = True
            if not moved:
                break
        error[f] = 0.5 * np.sum(change * slope)
