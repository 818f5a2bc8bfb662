"""The plain engine, and the training loop that its first page shows."""

import textwrap
from functools import partial

import numpy as np
import pytest

from tinysqueeze.data import builtin
from tinysqueeze.network import stepwise
from tinysqueeze.network.models import squeezenet_cifar
from tinysqueeze.network.params import flatten
from tinysqueeze.network.stepwise import StepByStep

SMALL = {
    "input_size": 16,
    "stem_filters": 16,
    "base_e": 16,
    "incr_e": 16,
    "fires": 3,
    "pools": (1, 3),
}


def shown_loop() -> str:
    """The indented lines of the module's docstring."""
    lines = stepwise.__doc__.splitlines()
    return textwrap.dedent("\n".join(line for line in lines if line.startswith("    ")))


def test_the_loop_shown_is_seven_lines_and_trains():
    loop = shown_loop()
    assert len(loop.splitlines()) == 7
    shapes = builtin.render(256, seed=0).resized(16)
    x = shapes.images.astype(np.float32) / 255 - 0.5
    losses = []

    def batches(epoch):
        order = np.random.default_rng(epoch).permutation(len(x))
        for part in np.array_split(order, 8):
            yield x[part], shapes.labels[part]
            losses.append(scope["loss"])

    scope = vars(stepwise) | {
        "squeezenet_cifar": partial(squeezenet_cifar, **SMALL),
        "batches": batches,
    }
    exec(loop, scope)
    assert len(losses) == 80
    assert losses[0] == pytest.approx(np.log(10), abs=0.1)
    assert np.mean(losses[-8:]) < 0.8 * np.log(10)


def test_vectors_are_seen_by_name_and_the_views_are_no_copies(rng):
    step = StepByStep(squeezenet_cifar(norm=True, **SMALL))
    names = flatten(step.params)
    assert sum(array.size for array in names.values()) == step.vector.size
    step.vector[:] = rng.random(step.vector.size)
    again = flatten(step.views(step.vector))
    assert list(again) == list(names)
    assert all(np.array_equal(again[path], names[path]) for path in names)
    seen = np.concatenate([array.ravel() for array in names.values()])
    assert np.array_equal(np.sort(seen), np.sort(step.vector))  # each number once
