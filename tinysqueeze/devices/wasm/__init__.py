"""The WebAssembly that pages run: the exported C's layers and decoder, compiled once.

`engine.wasm` comes with the package, so that nobody needs a compiler to make a page; after a change of
the C, `python -m tinysqueeze.devices.wasm` writes it anew. It knows no network: a page tells it layer by
layer what to do, with the tables that an exported program holds as constants.
"""

from pathlib import Path

HERE = Path(__file__).parent
BINARY = HERE / "engine.wasm"


def engine() -> bytes:
    """The module's bytes."""
    return BINARY.read_bytes()
