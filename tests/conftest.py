"""What all tests share: a seeded generator and the way to the real data, if it is there."""

import os
from pathlib import Path

import matplotlib
import numpy as np
import pytest

matplotlib.use("Agg")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data beside the checkout; it is never part of the project."""
    place = os.environ.get("TINYSQUEEZE_SHARED", Path(__file__).parents[2] / "shared" / "data")
    if not Path(place).is_dir():
        pytest.skip(f"no real data at {place} (set TINYSQUEEZE_SHARED to its folder)")
    return Path(place)
