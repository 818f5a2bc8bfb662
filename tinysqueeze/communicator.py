"""Who trains together: alone here; `distributed` has the same over MPI."""

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


ALONE = Communicator()
