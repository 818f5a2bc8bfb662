"""What is wrong with this network, by name: dead ReLUs, exploding or vanishing numbers, chance level."""

from dataclasses import dataclass
from math import log

import numpy as np

from tinysqueeze.network.layers import EVAL, Mode, Params, ReLU
from tinysqueeze.network.models import Model
from tinysqueeze.network.params import flatten
from tinysqueeze.study.trace import Record, Trace, trace

DEAD = 0.99  # share of a layer's ReLU outputs that are zero for all images
LARGE, SMALL = 1e3, 1e-6  # deviation of a layer's output
WILD = 1.0  # gradient norm over weight norm: one plain step of rate 1 would replace the weights


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong: where, what, and what usually cures it."""

    path: str
    problem: str
    cure: str

    def __str__(self) -> str:
        return f"{self.path}: {self.problem}; {self.cure}"


def diagnose(
    model: Model, params: Params, images: np.ndarray, labels: np.ndarray, mode: Mode = EVAL
) -> list[Finding]:
    """Everything suspicious about one step on a batch, in the order of the forward pass.

    images (N, H, W, C) float, labels (N,). An empty list means that nothing was found.
    """
    with np.errstate(all="ignore"):  # broken networks are what this is for
        seen = trace(model, params, images, labels, mode=mode)
        found = [f for path, record in seen.records.items() if path for f in _layer(path, record)]
        return found + _gradients(params, seen) + _predictions(seen, labels)


def first_broken(
    model: Model, params: Params, images: np.ndarray, labels: np.ndarray, mode: Mode = EVAL
) -> str:
    """Names the first parameter or layer whose numbers are no longer finite."""
    for path, array in flatten(params).items():
        if not np.isfinite(array).all():
            return f"{path} is not finite"
    with np.errstate(all="ignore"):
        seen = trace(model, params, images, labels, mode=mode)
    for path, record in seen.records.items():
        if path and not np.isfinite(record.y).all():
            return f"{path} is the first layer whose output is not finite"
    for path, array in flatten(seen.grads).items():
        if not np.isfinite(array).all():
            return f"the gradient of {path} is not finite"
    return "the loss itself overflows: the logits are too large"


def _layer(path: str, record: Record) -> list[Finding]:
    y = record.y
    if not np.isfinite(y).all():
        share = 1 - np.isfinite(y).mean()
        cure = "lower the learning rate or add batch norm"
        return [Finding(path, f"{share:.0%} of its outputs are not finite", cure)]
    if isinstance(record.layer, ReLU):
        zero = float((y <= 0).mean())
        if zero >= DEAD:
            cure = "lower the learning rate, or start again; after the last layer, use final_relu=False"
            return [Finding(path, f"{zero:.0%} of its ReLUs are zero", cure)]
        return []
    deviation = float(y.std())
    if record.layer.param_shapes(record.x.shape[1:]) and deviation > LARGE:
        cure = "lower the learning rate or add batch norm"
        return [Finding(path, f"its outputs explode (deviation {deviation:.1e})", cure)]
    return []


def _gradients(params: Params, seen: Trace) -> list[Finding]:
    found = []
    weights = flatten(params)
    for path, grad in flatten(seen.grads).items():
        if not path.endswith("weight"):
            continue
        size, weight = float(np.linalg.norm(grad)), float(np.linalg.norm(weights[path]))
        if size == 0:
            found.append(
                Finding(path, "its gradient is zero", "nothing above it lets a gradient through")
            )
        elif size > WILD * weight > 0:
            problem = f"its gradient is {size / weight:.1f} times as long as the weights"
            found.append(Finding(path, problem, "lower the learning rate or warm it up"))
    return found


def _predictions(seen: Trace, labels: np.ndarray) -> list[Finding]:
    classes = seen.logits.shape[1]
    deviation = float(seen.logits.std(axis=0).mean())
    at_chance = seen.loss is not None and abs(seen.loss - log(classes)) < 1e-3
    if at_chance and deviation < SMALL:
        problem = f"every image gets the same scores, so the loss sits at ln({classes}) = {log(classes):.3f}"
        return [Finding("logits", problem, "the network is silent: lower the rate and start again")]
    return []
