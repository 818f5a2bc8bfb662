"""The arithmetic of a CNN, twice: `reference` (plain NumPy, to be read) and `fast` (Numba), same names.

The convolution of `fast` has a file of its own, `convolution`.

The letters, fixed once for the whole package:

    N images, H x W pixels, C channels in, F filters (channels out), KH x KW kernel, OH x OW output
    x (N, H, W, C)    y (N, OH, OW, F)    weight (KH, KW, C, F)    bias (F,)
    patches (N*OH*OW, KH*KW*C)            dname = d loss / d name, of name's shape

Channels come last, so that a 1x1 convolution *is* `x.reshape(-1, C) @ weight`. Operations take and
return arrays (float32 or float64), never change their inputs, and keep no state. One test body
holds both modules to each other, to finite differences and to an independent oracle.
"""

from tinysqueeze.network.ops import fast, reference

__all__ = ["fast", "reference"]
