"""Exercises of lessons 11, 13 and 14: a step of SGD, preprocessing, class activation maps, Winograd."""

import numpy as np

from tinysqueeze.show.lessons.exercise import Exercise
from tinysqueeze.training.schedule import Schedule


def momentum_step(
    weight: np.ndarray, velocity: np.ndarray, gradient: np.ndarray, lr: float, momentum: float
) -> tuple[np.ndarray, np.ndarray]:
    """velocity = momentum * velocity + gradient; weight -= lr * velocity. Returns both."""
    velocity = momentum * velocity + gradient
    return weight - lr * velocity, velocity


def caffe_pixels(image: np.ndarray) -> np.ndarray:
    """(H, W, 3) RGB, 0 to 255 -> BGR less (104, 117, 123)."""
    return image[:, :, ::-1].astype(np.float64) - (104, 117, 123)


def activation_map(features: np.ndarray, weight: np.ndarray, label: int) -> np.ndarray:
    """(H, W, C) and (C, classes) -> (H, W): where the class's score comes from."""
    return features @ weight[:, label]


TRAINING: dict[str, Exercise] = {
    "momentum": Exercise(
        "write step(weight, velocity, gradient, lr, momentum) -> new weight, new velocity",
        momentum_step,
        lambda rng: [
            (*rng.standard_normal((3, 4)), 0.1, 0.9),
            (*rng.standard_normal((3, 2, 2)), 0.5, 0.0),
        ],
        mistakes={
            "that goes up the hill": lambda w, v, g, lr, m: (w + lr * (m * v + g), m * v + g),
            "move by the *new* velocity": lambda w, v, g, lr, m: (w - lr * v, m * v + g),
        },
        why="The velocity remembers the gradients before, so that steps along a valley add up.",
    ),
    "polynomial": Exercise(
        "the paper's schedule falls in a straight line: lr at 3/4 of training, from 0.04?",
        lambda: Schedule(0.04, "polynomial", warmup=0).rate(0.75),
        mistakes={"that is after one quarter": 0.03},
        why="A quarter of the way is left, and so is a quarter of the rate.",
    ),
    "caffe-pixels": Exercise(
        "write prepare(image): RGB (H, W, 3) -> BGR less (104, 117, 123), as the authors' net wants it",
        caffe_pixels,
        lambda rng: [(rng.integers(0, 256, (3, 4, 3)).astype(np.uint8),)],
        mistakes={
            "red and blue change places first": lambda image: image - np.array([104.0, 117, 123]),
            "no scaling: Caffe keeps 0 to 255": lambda image: caffe_pixels(image) / 255,
            "the means are in BGR order too": lambda image: (
                image[:, :, ::-1].astype(float) - (123, 117, 104)
            ),
        },
        why="Channels change places, then the means go off in the same order, and nothing is "
        "scaled.",
    ),
    "activation-map": Exercise(
        "write cam(features, weight, label): (H, W, C), (C, classes) -> (H, W)",
        activation_map,
        lambda rng: [(rng.standard_normal((4, 5, 3)), rng.standard_normal((3, 6)), 2)],
        mistakes={
            "that is the score; keep the pixels apart": lambda features, weight, label: (
                features.mean(axis=(0, 1)) @ weight[:, label]
            )
        },
        why="The class score is the mean of this map, so the map says where the score comes from.",
    ),
    "winograd": Exercise(
        "F(2×2, 3×3) makes 4 outputs of a 3×3 filter with 16 multiplications: how many times fewer?",
        36 / 16,
        mistakes={"that is what the plain way needs": 36, "the other way round": 16 / 36},
        why="36 products by the plain way, 16 by the tile.",
    ),
    "amdahl": Exercise(
        "a kernel takes 80 % of the time and becomes 4 times as fast: how many times as fast is the whole?",
        1 / (0.2 + 0.8 / 4),
        tolerance=1e-3,
        mistakes={"the other 20 % stay as slow as they were": 4},
        why="0.2 of the time stays, 0.8 shrinks to a quarter: 0.2 + 0.2 of the old time.",
    ),
}
