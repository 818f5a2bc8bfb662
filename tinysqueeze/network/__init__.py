"""The evening: what a convolutional network is, forward and backward.

In the order: window, ops.reference, layers, compose, loss, models, params, stepwise.
"""
