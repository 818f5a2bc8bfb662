"""The evening: what a convolutional network is, forward and backward.

In the order: window, ops.reference, layers, compose, loss, models, params, stepwise, where the loop
of training stands in seven lines. `others` are the networks to compare with.
"""

from tinysqueeze.network import others

__all__ = ["others"]  # imported here, so that `build` knows its networks
