"""The least versions that we ask for: none with a known advisory, none that was never released."""

import re
import tomllib
from itertools import chain
from pathlib import Path

import pytest

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]

# The first version without the advisories that were known when the floor was last looked at, in
# November 2026, and one of them. Whoever learns of another one adds it here and raises the floor.
SAFE = {
    "requests": ("2.33.0", "CVE-2026-25645; before that CVE-2024-47081 in 2.32.4"),
    "pillow": (
        "13.0.0",
        "CVE-2026-96639: stale memory after a change of mode, in pictures of anyone",
    ),
    "tqdm": ("4.66.3", "CVE-2024-34062: code in an argument of its command"),
    "onnx": ("1.21.0", "CVE-2026-27489: external data through a link; before that 1.17"),
    "jupyterlab": ("4.6.2", "GHSA-whvh-wf3x-g77j; before that CVE-2024-43805 in 4.2.5"),
    "torch": ("2.11.0", "CVE-2026-4538; before that CVE-2025-32434 in 2.6"),
    "pytest": ("9.0.3", "CVE-2025-71176: a temporary folder that others may foresee"),
}
# Tried by installing exactly the floors of all but torch, jax and the documentation; these failed.
TRIED = {
    "numpy": ("2.0", "the BLAS in 1.26 (OpenBLAS 0.3.23) waits for ever in a forked process"),
    "matplotlib": ("3.10.8", "earlier ones fail on a deprecation warning of pyparsing"),
    "mpich": ("4.3.1", "there is no 4.3.0 on PyPI"),
    "mpi4py": ("4.1", "4.0 has to be compiled, which needs an MPI to compile with"),
}
FLOOR = re.compile(r"([A-Za-z0-9_-]+)\s*[>=]=\s*([0-9.]+)")


def floors() -> dict[str, str]:
    """The floor of every dependency, extras included."""
    groups = PROJECT["optional-dependencies"].values()
    every = [*PROJECT["dependencies"], *chain.from_iterable(groups)]
    found = [FLOOR.match(one) for one in every]
    assert all(found), "every dependency has a floor"
    return {match[1].lower(): match[2] for match in found if match}


def number(version: str) -> list[int]:
    """ "3.10" -> [3, 10, 0]."""
    parts = [int(part) for part in version.split(".")]
    return parts + [0] * (3 - len(parts))


@pytest.mark.parametrize("name", [*SAFE, *TRIED])
def test_no_floor_lies_below_what_is_known(name):
    least, why = (SAFE | TRIED)[name]
    assert number(floors()[name]) >= number(least), why
