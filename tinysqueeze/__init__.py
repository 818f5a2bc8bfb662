"""tinysqueeze: SqueezeNet from scratch in NumPy and Numba, to read, step through and train."""

__version__ = "0.1.0"
