"""Who trains together: alone here; `distributed` has the same over MPI."""

from types import TracebackType
from typing import Any, Self

import numpy as np


class Communicator:
    """The one process there is. Subclasses join several: rank 0 speaks and saves for all."""

    rank: int = 0
    ranks: int = 1

    def mean(self, vector: np.ndarray) -> None:
        """Replace a vector by its mean over all ranks, in place (the gradients, each step)."""

    def total(self, numbers: np.ndarray) -> np.ndarray:
        """The sum of a few float64 numbers over all ranks (the loss, the hits)."""
        return numbers

    def largest(self, number: int) -> int:
        """The largest of one number over all ranks (has anybody been told to stop?)."""
        return number

    def everybody(self, value: Any) -> list[Any]:
        """What each rank says, in the order of the ranks; values are plain Python."""
        return [value]

    def lines(self) -> list[str]:
        """What communication has cost so far, to be printed."""
        return []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Subclasses let no rank wait for one that has failed."""


ALONE = Communicator()
