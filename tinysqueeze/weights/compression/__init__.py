"""Small files: pruning, shared weights, entropy coding, our file format, calibration."""
