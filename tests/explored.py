"""Steps to open as an explorer's page, and what its tests do there."""

from typing import Any

import numpy as np
from test_stepper import EVERY_LAYER, POOLED

from tinysqueeze.network.layers import Layer, Mode
from tinysqueeze.network.models import squeezenet_cifar
from tinysqueeze.network.ops import reference
from tinysqueeze.network.params import flatten, unflatten
from tinysqueeze.show.page import Look
from tinysqueeze.study.stepper import Steps

SMALL = squeezenet_cifar(
    norm=True, bypass="complex", stem_filters=8, fires=3, freq=1, pools=(1, 3), base_e=16, incr_e=8,
    squeeze_ratio=0.25, input_size=16, activation="hard-swish", linear_squeeze=True,
)  # fmt: skip
NETWORKS = {"every layer": EVERY_LAYER, "pooled": POOLED, "squeezenet": SMALL}
LOOK = Look(tuple("abcdefghij"), (0.5,) * 3, (0.25,) * 3)


def steps_of(
    network: Layer,
    training: bool,
    rng: np.random.Generator,
    ops: Any = reference,
    shape: tuple[int, int, int] = (9, 8, 3),
) -> Steps:
    """A step in float32 on two images, with parameters at random, batch norm's buffers too."""
    shape = (16, 16, 3) if network is SMALL else shape
    images = rng.standard_normal((2, *shape), np.float32)
    shapes = flatten(network.param_shapes(shape))
    params = {p: rng.standard_normal(s, np.float32) / np.sqrt(s[-1]) for p, s in shapes.items()}
    buffers = flatten(network.buffer_shapes(shape))
    params |= {p: rng.uniform(0.5, 1, s).astype(np.float32) for p, s in buffers.items()}
    mode = Mode(ops, np.random.default_rng(5)) if training else Mode(ops)
    return Steps(network, unflatten(params), images, np.array([1, 3]), mode)


def go(run, path: str, direction: str) -> None:
    """To a stop, by the console."""
    find = "([path, way]) => path === given[0] && way === given[1]"
    run(f"explorer.set({{ stop: explorer.stops.findIndex({find}) }})", path, direction)


def number(text: str) -> float:
    return float(text.replace("−", "-"))


PRINTED = """
const [tell] = arguments;
const wanted = Number(document.querySelector('.ts-terms').getAttribute('aria-rowcount')) - 1;
const look = () => {
  const rows = [...document.querySelectorAll('.ts-terms tbody tr')];
  if (rows.length < wanted) return setTimeout(look, 20);
  tell(rows.map((row) =>
    [...row.querySelectorAll('b')].map((b) => b.textContent).concat(row.cells[3].textContent)));
};
look();
"""


def printed_sum(browser) -> np.float32:
    """Add up what the table of terms prints, when all of it is there."""
    total = 0.0
    for *factors, product in browser.execute_async_script(PRINTED):
        total += np.prod([number(f) for f in factors]) if factors else number(product)
    return np.float32(total)
