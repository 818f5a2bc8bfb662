"""Where the stored weights lie: the gap to the last one in a few bits (Deep Compression, section 3.1)."""

import numpy as np
from numpy.typing import NDArray


def to_gaps(
    flat: NDArray[np.integer], bits: int = 4
) -> tuple[NDArray[np.uint8], NDArray[np.integer]]:
    """The zeros skipped before each stored entry, and the entries: (n,) gaps, (n,) codes.

    `flat` is a layer in any order of its weights, 0 where pruned. Where more than 2^bits - 1 zeros
    follow each other, an entry of code 0 is stored in between, which is the weight zero itself.
    """
    widest = (1 << bits) - 1
    positions = np.flatnonzero(flat)
    skipped = np.diff(positions, prepend=-1) - 1
    fillers = skipped // (widest + 1)
    entries = np.arange(len(positions)) + np.cumsum(fillers)  # where each lands among the fillers
    gaps = np.full(len(positions) + fillers.sum(), widest, np.uint8)
    codes = np.zeros(len(gaps), flat.dtype)
    gaps[entries] = skipped % (widest + 1)
    codes[entries] = flat[positions]
    return gaps, codes


def from_gaps(
    gaps: NDArray[np.integer], codes: NDArray[np.integer], size: int
) -> NDArray[np.int32]:
    """The reverse: (size,) with the codes in their places. Raises IndexError beyond the end."""
    flat = np.zeros(size, np.int32)
    flat[np.cumsum(gaps.astype(np.int64) + 1) - 1] = codes
    return flat
