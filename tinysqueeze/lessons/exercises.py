"""The exercises of all lessons: what is asked, and the library's own function that knows the answer."""

import numpy as np

from tinysqueeze.count import count
from tinysqueeze.lessons.checking import Exercise
from tinysqueeze.models import squeezenet1_0, squeezenet_cifar

Cases = list[tuple[object, ...]]


def _difference_cases(rng: np.random.Generator) -> Cases:
    return [(np.sin, 0.3), (np.exp, 1.0), (np.square, -2.0)]


def _central(f, value):
    return (f(value + 1e-5) - f(value - 1e-5)) / 2e-5


EXERCISES: dict[str, Exercise] = {
    "first-parameters": Exercise(
        "how many parameters has squeezenet_cifar with 100 classes?",
        lambda: count(squeezenet_cifar(classes=100)).parameters,
        mistakes=(
            (lambda: count(squeezenet_cifar()).parameters, "that is the one with 10 classes"),
        ),
    ),
    "first-shape": Exercise(
        "what shape leaves fire5 of squeezenet1_0 for a 227×227 image? (H, W, C)",
        lambda: next(
            np.array((*row.out_shape[:2], 256))
            for row in count(squeezenet1_0(input_size=227)).rows
            if row.path == "fire5/squeeze"
        ),
    ),
    "first-difference": Exercise(
        "write difference(f, v): the central difference of f at v, with h = 1e-5",
        _central,
        _difference_cases,
        tolerance=1e-7,
        mistakes=(
            (
                lambda f, v: (f(v + 1e-5) - f(v - 1e-5)) / 1e-5,
                "the two places are 2h apart, not h",
            ),
            (
                lambda f, v: (f(v + 1e-5) - f(v)) / 1e-5,
                "that is the one-sided difference; go h to both sides, its error is far smaller",
            ),
        ),
    ),
}
