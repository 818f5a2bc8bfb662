"""`python -m tinysqueeze.devices.wasm`: compiles engine.c into engine.wasm."""

from tinysqueeze.devices.wasm import BINARY
from tinysqueeze.devices.wasm.build import build

BINARY.write_bytes(build())
print(f"{BINARY}: {BINARY.stat().st_size:,} bytes")
