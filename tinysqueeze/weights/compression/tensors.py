"""The ways a compressed file keeps an array: as numbers, as codes of a codebook, as steps of a grid."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Levels = NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Dense:
    """Every number as it is, in 32 bits or rounded to 16 (`half`): biases, batch norm."""

    array: NDArray[np.float32]
    half: bool = False

    def values(self) -> NDArray[np.float32]:
        """The array that the network computes with."""
        return self.array.astype(np.float16).astype(np.float32) if self.half else self.array


@dataclass(frozen=True, eq=False)
class Shared:
    """Codes (any shape) into a codebook: code 0 is the weight 0.0, code i is codebook[i - 1].

    The codebook (n,) may stand in any order, as the authors' does. What is coded are *levels*: the
    rank of a code's value counted away from zero, so that a level is small where its weight is.
    """

    codes: Levels
    codebook: NDArray[np.float32]
    half: bool = False  # the codebook in 16 bits

    def table(self) -> NDArray[np.float32]:
        """The codebook as it is after storing."""
        return self.codebook.astype(np.float16).astype(np.float32) if self.half else self.codebook

    def values(self) -> NDArray[np.float32]:
        """The weight: (KH, KW, C, F) or (C, F) float32."""
        return np.concatenate([np.zeros(1, np.float32), self.table()])[self.codes]

    def level_of_code(self) -> Levels:
        """(n + 1,) code -> level: 0 -> 0, the largest weight -> n positive, and so on."""
        order = np.argsort(self.table(), kind="stable")
        negative = int((self.table() < 0).sum())
        ranks = np.arange(len(order), dtype=np.int32) - negative
        levels = np.zeros(len(order) + 1, np.int32)
        levels[1 + order] = np.where(ranks < 0, ranks, ranks + 1)
        return levels

    def levels(self) -> Levels:
        """What the entropy coder gets, in the weight's shape."""
        return self.level_of_code()[self.codes]


@dataclass(frozen=True, eq=False)
class Stepped:
    """Whole multiples of one step: weight = step * level. No codebook, and the best for few bits."""

    steps: Levels
    step: float

    def values(self) -> NDArray[np.float32]:
        """The weight, float32."""
        return self.steps.astype(np.float32) * np.float32(self.step)

    def levels(self) -> Levels:
        """The multiples themselves."""
        return self.steps


Tensor = Dense | Shared | Stepped


def exactly(array: NDArray[np.float32]) -> Tensor:
    """The same numbers to the bit: shared where at most 255 different weights occur, else dense."""
    different = np.unique(array)
    if array.ndim < 2 or len(different) > 256:
        return Dense(array)
    codebook = different[different != 0]
    codes = np.zeros(array.shape, np.int32)
    codes[array != 0] = 1 + np.searchsorted(codebook, array[array != 0])
    return Shared(codes, codebook)
