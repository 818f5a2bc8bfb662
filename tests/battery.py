"""Every engine on one network: logits, loss, gradients and moved statistics against float64.

    python tests/battery.py 2000            # networks 0 to 1999: a line for each that is wrong, a table
    python tests/battery.py 100 --first 700

The reference is the model itself in float64 with `ops.reference`. A ReLU, a hard-swish or a maximum
whose two sides lie within rounding of each other is decided by float32 as it comes, in any engine, and
a gradient then differs by up to 2 %: it is the exact gradient of the other side. So where an engine
does not agree at once, the reference decides the places that rounding may tip as the engine seems to
have done (`deciding.CLOSE` says how near they are, measured in float64; nothing else is ever touched),
and the engine must agree with *that* exact gradient within the same bound. A wrong gradient can't hide:
it would have to equal, in every array, the exact gradient of the same network with some of those few
decisions turned, all others being as they are.
"""

import argparse
import sys
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import networks
import numpy as np
from deciding import CLOSE, Decision, Truth, truth

from tinysqueeze.compiled import compile
from tinysqueeze.devices.int8 import quantise
from tinysqueeze.errors import UserError
from tinysqueeze.kernels import TARGET
from tinysqueeze.network.layers import Mode
from tinysqueeze.network.ops import fast, reference
from tinysqueeze.network.params import flatten, map_params
from tinysqueeze.network.stepwise import StepByStep

LIMIT = {"4x4": 1e-4, "2x2": 5e-5, "direct": 5e-5, "plain": 1e-4}
"""The most that an array of gradients may differ, by `apart`, in each precision; "plain" is step by step,
where NumPy adds up thousands of float32 one after the other for a bias."""
ROUNDINGS = {"4x4": 100, "2x2": 100, "direct": 100, "plain": 1000}
"""Where numbers cancel, more may be lost: so many times what one rounding of every sum does to them.
(A bias sums ten thousand pixels: kernels in vectors and by threads, NumPy one after the other.)"""
FORWARD = 1e-4
"""The most that logits, losses and moved statistics may differ."""
Grads = dict[str, np.ndarray]
Again = Callable[..., Truth]
"""The reference once more: with other decisions `turned`, or with `noise`."""


def sizes(right: Grads) -> dict[str, float]:
    """What an error in each array is relative to: its length, or a fiftieth of the longest's if larger."""
    lengths = {path: float(np.linalg.norm(a)) for path, a in right.items()}
    return {path: max(n, 0.02 * max(lengths.values()), 1e-30) for path, n in lengths.items()}


def apart(mine: Grads, right: Grads) -> tuple[float, str]:
    """The worst array's relative error, and its path; infinite where it is no number."""
    size = sizes(right)
    errors = {path: float(np.linalg.norm(mine[path] - a)) / size[path] for path, a in right.items()}
    path = max(errors, key=lambda p: errors[p] if errors[p] == errors[p] else np.inf)
    return (errors[path] if np.isfinite(errors[path]) else np.inf), path


@dataclass
class Verdict:
    """The worst error as a multiple of what is allowed, and how that was found."""

    error: float
    path: str
    turned: int = 0
    cancels: bool = False


def gradients(mine: Grads, precision: str, right: Truth, again: Again) -> Verdict:
    """Is this the exact gradient, but for rounding? Asked in the order: at once; with the open decisions as
    the engine took them; with the room that cancelling numbers need."""
    limit = LIMIT[precision]
    error, path = apart(mine, right.grads)
    if error <= limit or not np.isfinite(error):
        return Verdict(error / limit, path)
    turned = as_taken(mine, right, again)
    if turned:
        right = again(turned=turned)
        error, path = apart(mine, right.grads)
        if error <= limit:
            return Verdict(error / limit, path, len(turned))
    noisy = [again(noise=np.random.default_rng(k), follow=right.taken).grads for k in range(3)]
    worst, size = Verdict(0, "", len(turned), True), sizes(right.grads)
    for path, a in right.grads.items():
        room = max(np.linalg.norm(other[path] - a) for other in noisy) * ROUNDINGS[precision]
        error = np.linalg.norm(mine[path] - a) / max(limit * size[path], room)
        if error > worst.error:
            worst.error, worst.path = float(error), path
    return worst


def as_taken(mine: Grads, right: Truth, again: Again) -> frozenset[Decision]:
    """The open decisions that the engine seems to have taken the other way.

    One after the other, that which brings the reference nearest to the engine, until none does.
    """
    paths, few = sorted(right.grads), right.open[:40]
    flat = {d: again(turned=frozenset([d])).grads for d in few}
    off = np.concatenate([(mine[p] - right.grads[p]).ravel() for p in paths])
    moves = {
        d: np.concatenate([(g[p] - right.grads[p]).ravel() for p in paths]) for d, g in flat.items()
    }
    turned: frozenset[Decision] = frozenset()
    while few:
        left = {d: off + moves[d] if d in turned else off - moves[d] for d in few}
        best = min(few, key=lambda d: float(np.linalg.norm(left[d])))
        if np.linalg.norm(left[best]) >= np.linalg.norm(off) * (1 - 1e-3):
            break
        off, turned = left[best], turned ^ {best}
    return turned


# --- trials ------------------------------------------------------------------------------------


@dataclass
class Tally:
    """What was tried: the worst error and the count by (engine, precision); what is wrong; refusals."""

    worst: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    tried: dict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    turned: Counter[str] = field(default_factory=Counter)
    cancelled: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)

    def judge(
        self, d: networks.Draw, engine: str, what: str, error: float, limit: float, path: str = ""
    ) -> None:
        """Notes an error, and complains if it is beyond the limit."""
        self.tried[engine].add(d.seed)
        self.worst[f"{engine}: {what}"] = max(self.worst[f"{engine}: {what}"], error)
        if not error <= limit:
            self.wrong.append(f"{engine}: {what} {path} off by {error:.2e}; {d}")

    def table(self) -> str:
        """Worst errors, a line each; then the refusals."""
        lines = [f"{name:45} {error:.1e}" for name, error in sorted(self.worst.items())]
        lines += [f"tried {name:39} {len(seeds)}" for name, seeds in sorted(self.tried.items())]
        lines += [
            f"turned decisions {name:28} {count}" for name, count in sorted(self.turned.items())
        ]
        lines += [
            f"with numbers that cancel {name:20} {count}"
            for name, count in sorted(self.cancelled.items())
        ]
        lines += [f"refused: {reason:36} {count}" for reason, count in self.refused.most_common()]
        return "\n".join([*lines, f"{len(self.wrong)} wrong"])


def difference(mine: np.ndarray, right: np.ndarray) -> float:
    """The largest difference relative to the largest number (of at least 0.1)."""
    if mine.shape != right.shape:
        return np.inf
    return float(np.abs(mine - right).max(initial=0) / max(np.abs(right).max(initial=0), 0.1))


SEED = 5  # of dropout


def trial(d: networks.Draw, tally: Tally) -> None:
    """Training and inference of every engine that runs everywhere."""
    tally.refused.update(d.refused)
    right = truth(d, SEED, CLOSE["plain"])
    for name, ops in (("reference ops", reference), ("fast ops", fast)):
        engine = StepByStep(d.model, d.params, ops)
        training(d, tally, f"step by step, {name}", "plain", engine, right,
                 lambda **ways: truth(d, SEED, CLOSE["plain"], **ways))  # fmt: skip
    plan = compile(d.model, d.batch, precision=d.precision, threads=d.threads, params=d.params)

    def again(**ways: Any) -> Truth:
        return truth(
            d, SEED, CLOSE[d.precision], masks=lambda: plan.dropout_masks(SEED, len(d.x)), **ways
        )

    training(d, tally, f"compiled, {d.precision}", d.precision, plan, again(), again)
    evaluated = map_params(lambda a: a.astype(np.float64), d.params)
    logits, _ = d.model.forward(evaluated, d.x.astype(np.float64), Mode(reference))
    for batch in (d.batch, 1):
        plan = compile(
            d.model,
            batch,
            training=False,
            precision=d.precision,
            threads=d.threads,
            params=d.params,
        )
        name = f"inference {'one by one' if batch == 1 else 'in batches'}, {d.precision}"
        tally.judge(d, name, "logits", difference(plan.predict(d.x), logits), FORWARD)
    integers(d, tally)


def integers(d: networks.Draw, tally: Tally) -> None:
    """The network in integers: compiled, the same bits as node by node, and the same a second time."""
    try:
        network = quantise(d.model, d.params, d.x)
    except UserError as error:
        tally.refused[f"int8: {str(error).partition(': ')[2] or error}"] += 1
        return
    codes, logits = network.encode(d.x), network.logits(d.x)
    expected = network.integers(codes)
    for batch in (d.batch, 1):
        plan = compile(network, batch, precision="int8", threads=d.threads)
        name = f"inference {'one by one' if batch == 1 else 'in batches'}, int8"
        same = np.array_equal(plan.integers(codes), expected)
        same &= np.array_equal(plan.predict(d.x), logits)
        same &= np.array_equal(plan.integers(codes[::-1]), expected[::-1])
        tally.judge(d, name, "logits, bit for bit", 0 if same else np.inf, 0)


def training(
    d: networks.Draw, tally: Tally, name: str, precision: str, engine: Any, right: Truth,
    again: Again,
) -> None:  # fmt: skip
    """One training step of an engine, whole; and once more after a step of other images, of a full batch.

    The second time it must be the same to the bit: nothing of another step is left behind.
    """
    before = engine.vector.copy()
    loss, count = engine.loss_and_grads(d.x, d.labels, d.smoothing, seed=SEED)
    after, whole = engine.vector.copy(), engine.grad_vector.copy()
    grads = {path: a.copy() for path, a in flatten(engine.grads).items() if path in right.grads}
    verdict, limit = gradients(grads, precision, right, again), LIMIT[precision]
    tally.turned[name] += bool(verdict.turned)
    tally.cancelled[name] += verdict.cancels
    kind = "gradients that cancel" if verdict.cancels else "gradients"
    tally.judge(d, name, kind, verdict.error * limit, limit, verdict.path)
    tally.judge(d, name, "loss", abs(loss - right.loss) / max(right.loss, 0.1), FORWARD)
    tally.judge(d, name, "losses", difference(engine.losses, right.losses), FORWARD)
    margin = np.sort(right.logits, axis=1)[:, -2:] if right.logits.shape[1] > 1 else None
    if margin is None or (np.diff(margin) > 1e-3 * np.abs(margin).max()).all():
        best = d.labels if d.labels.ndim == 1 else d.labels.argmax(axis=1)
        hits = int((right.logits.argmax(axis=1) == best).sum())
        tally.judge(d, name, "count of right answers", abs(count - hits), 0)
    params = flatten(engine.params)
    for path, value in right.moved.items():
        tally.judge(d, name, "moved statistics", difference(params[path], value), FORWARD)
    idle = [a for path, a in flatten(engine.grads).items() if path not in right.grads]
    tally.judge(d, name, "gradients of statistics", sum(np.count_nonzero(a) for a in idle), 0)
    others = (np.resize(a[::-1], (d.batch, *a.shape[1:])) for a in (d.x, d.labels))
    engine.loss_and_grads(*others, seed=SEED + 1)
    engine.vector[...] = before
    engine.loss_and_grads(d.x, d.labels, d.smoothing, seed=SEED)
    same = np.array_equal(engine.vector, after, equal_nan=True)
    same &= np.array_equal(engine.grad_vector, whole, equal_nan=True)
    tally.judge(d, name, "a second run of the same step", 0 if same else np.inf, 0)


def main() -> None:
    """Runs a number of networks and prints what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("count", type=int)
    parser.add_argument("--first", type=int, default=0)
    arguments = parser.parse_args()
    tally, told = Tally(), 0
    print(f"vectors of {TARGET.lanes} floats")
    for seed in range(arguments.first, arguments.first + arguments.count):
        d = networks.draw(seed)
        try:
            trial(d, tally)
        except Exception as error:
            tally.wrong.append(f"{type(error).__name__}: {error}; {d}")
        for line in tally.wrong[told:]:
            print(line, flush=True)
        told = len(tally.wrong)
    print(tally.table())
    sys.exit(bool(tally.wrong))


if __name__ == "__main__":
    main()
