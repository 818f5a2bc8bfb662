"""Exercises of lessons 16, 17 and 18: entropy, gaps, seconds; rings and means; maps and bytes."""

from itertools import pairwise

import numpy as np

from tinysqueeze.show.lessons.exercise import Exercise
from tinysqueeze.training.mpi import ring_bytes


def entropy(counts: np.ndarray) -> float:
    """Bits a symbol, on average, that no code can go below (Shannon 1948); zero counts cost nothing."""
    share = np.asarray(counts)[np.asarray(counts) > 0] / np.sum(counts)
    return float(-(share * np.log2(share)).sum())


def gaps(flat: np.ndarray) -> np.ndarray:
    """The zeros skipped before each weight that is not zero."""
    return np.diff(np.flatnonzero(flat), prepend=-1) - 1


def whole_mean(gradients: list[np.ndarray], images: list[int]) -> np.ndarray:
    """The gradient of all workers' images from each worker's mean and its number of images."""
    return np.average(np.stack(gradients), axis=0, weights=images)


def chain_peak(sizes: list[int]) -> int:
    """Layer i reads map i and writes map i + 1: the bytes that must be there at once."""
    return max(a + b for a, b in pairwise(sizes))


def to_bytes(x: np.ndarray, scale: float, zero: int) -> np.ndarray:
    """The nearest q in 0 .. 255 with x = scale * (q - zero)."""
    return np.clip(np.rint(x / scale) + zero, 0, 255)


SMALL: dict[str, Exercise] = {
    "entropy": Exercise(
        "write entropy(counts) -> bits a symbol that no code can go below",
        entropy,
        lambda rng: [([8, 4, 2, 2],), ([5, 0, 5],), (rng.integers(1, 100, 12).tolist(),)],
        mistakes={
            "that is a code of equal lengths": lambda counts: np.log2(len(counts)),
            "that is of the whole message; bits a symbol are asked": lambda counts: (
                entropy(counts) * np.sum(counts)
            ),
        },
        why="Shannon's limit: a symbol of share p costs at least −log2 p bits, however "
        "clever the code.",
    ),
    "gaps": Exercise(
        "write gaps(flat) -> the zeros before each weight that is not zero",
        gaps,
        lambda rng: [(np.array([0, 3, 0, 0, 7, 1]),), (rng.integers(-1, 2, 30),)],
        mistakes={
            "those are places; gaps are counted from the last": lambda flat: np.flatnonzero(flat),
            "count the zeros in between, and those before the first weight": lambda flat: np.diff(
                np.flatnonzero(flat), prepend=0
            ),
        },
        why="Most weights are zero, so counting the zeros in between takes fewer bits than "
        "places do.",
    ),
    "sending": Exercise(
        "AlexNet has 240 MB: how many seconds does it take at 10 Mbit/s?",
        240e6 * 8 / 10e6,
        mistakes={"a byte has 8 bits": 24},
        why="1,920 million bits at 10 million a second.",
    ),
    "ring-bytes": Exercise(
        "write sent(size, workers) -> bytes each worker sends in a ring all-reduce of size bytes",
        ring_bytes,
        lambda rng: [(4_993_696, 2), (1000, 4), (1024, 1), (6000, 3)],
        mistakes={
            "that is the first half of it": lambda size, workers: (workers - 1) / workers * size,
            "each step sends one part of the vector, not all of it": lambda size, workers: (
                2 * (workers - 1) * size
            ),
        },
        why="Each of workers − 1 steps sends one part of the vector, once to add up and once "
        "to hand out.",
    ),
    "whole-mean": Exercise(
        "write whole(gradients, images): workers' mean gradients and image counts -> that of all images",
        whole_mean,
        lambda rng: [
            ([np.array([1.0, 2.0]), np.array([3.0, 6.0])], [1, 3]),
            (list(rng.standard_normal((3, 2, 2))), [4, 4, 2]),
        ],
        mistakes={
            "right only where all have as many images: weigh them": lambda gradients, images: (
                np.mean(np.stack(gradients), axis=0)
            )
        },
        why="A mean over unequal parts weighs each by its images.",
    ),
    "ring-messages": Exercise(
        "how many messages, one after the other, does a ring of 1,024 workers need for one all-reduce?",
        2 * 1023,
        mistakes={"that brings the sums together; they must go round again": 1023},
        why="1,023 steps bring the sums together, and as many hand them round.",
    ),
    "chain-peak": Exercise(
        "write peak(sizes): layer i reads map i, writes map i + 1 -> bytes needed with buffers reused",
        chain_peak,
        lambda rng: [([4, 8, 2, 6],), ([5, 1],), (rng.integers(1, 99, 9).tolist(),)],
        mistakes={
            "a map that no layer will read any more can make room": lambda sizes: sum(sizes),
            "a layer needs its source and its target at once": lambda sizes: max(sizes),
        },
        why="Only the map being read and the one being written must be there; the rest is "
        "free again.",
    ),
    "to-bytes": Exercise(
        "write encode(x, scale, zero) -> the nearest whole q in 0 .. 255 with x = scale * (q - zero)",
        to_bytes,
        lambda rng: [(np.array([-1.0, 0, 0.26, 9]), 0.1, 5), (rng.standard_normal(20), 0.02, 128)],
        mistakes={
            "what lies outside 0 .. 255 becomes the nearest of the two": lambda x, scale, zero: (
                np.rint(x / scale) + zero
            ),
            "the nearest, not the one below": lambda x, scale, zero: np.clip(
                np.floor(x / scale) + zero, 0, 255
            ),
        },
        why="Nearest step of the grid, and what lies outside is brought to its edge.",
    ),
}
