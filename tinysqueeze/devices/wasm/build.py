"""Compiles engine.c into engine.wasm, with the `ziglang` wheel or a clang that has wasm-ld beside it."""

import importlib.util
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tinysqueeze.devices.wasm import HERE
from tinysqueeze.errors import UserError

SOURCE = HERE / "engine.c"
FLAGS = (
    "-std=c99", "-O3", "-msimd128", "-Wall", "-Wextra", "-Werror", "-nostdlib", "-fno-builtin",
    "-Wl,--no-entry", "-Wl,--strip-all", "-Wl,--export=__heap_base",
)  # fmt: skip


def compiler() -> list[str]:
    """The command that compiles C for wasm32. Raises UserError where there is none."""
    if importlib.util.find_spec("ziglang"):
        return [sys.executable, "-m", "ziglang", "cc", "-target", "wasm32-freestanding"]
    if shutil.which("clang") and shutil.which("wasm-ld"):
        return ["clang", "--target=wasm32"]
    raise UserError("no compiler for WebAssembly: pip install 'tinysqueeze[web]', or clang and lld")


def build() -> bytes:
    """The module's bytes, the same each time with the same compiler. Raises UserError."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "engine.wasm"
        command = [*compiler(), *FLAGS, str(SOURCE), "-o", str(out)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise UserError(f"engine.c does not compile: {done.stderr[-2000:]}")
        return out.read_bytes()
