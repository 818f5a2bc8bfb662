"""What Numba compiles: the fast half of the project, from the register tile up to whole programs.

Read in this order: `target` (the machine's vectors), `vectors` (how vector instructions are written
in Python), `tile` (the micro-kernel: the one inner loop that matters), `kernel` (how a function
becomes one of many with the same signature), `team` (programs, stages, chunks and threads); then the
kernels themselves: `products`, `winograd`, `pooling`, `pointwise`, `norm`, `head`, `optimiser`.
Integers have their own: `integers` (the vocabulary), `byte_tile` (the micro-kernel), `byte_products`
and `byte_maps`.
"""

from tinysqueeze.kernels.kernel import KERNELS, is_cached, warm_up
from tinysqueeze.kernels.target import TARGET

__all__ = ["KERNELS", "TARGET", "is_cached", "warm_up"]
