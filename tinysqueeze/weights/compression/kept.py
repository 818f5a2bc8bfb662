"""What is kept of a compression that was stopped, beside the file it is for: the same call goes on."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import safe_open

from tinysqueeze.errors import UserError
from tinysqueeze.files import parse_json, to_safetensors, write_atomically
from tinysqueeze.training.checkpoint import digest
from tinysqueeze.weights.compression.calibrate import Layer
from tinysqueeze.weights.compression.fileformat import from_bytes, to_bytes
from tinysqueeze.weights.compression.rounding import Rounded
from tinysqueeze.weights.compression.sizing import Sizing
from tinysqueeze.weights.compression.tensors import Dense, Stepped
from tinysqueeze.weights.trained import WeightSet

FORMAT = "tinysqueeze-sizing-1"


class Stopped(Exception):
    """Ctrl-C or a kill during a compression, which is saved; `by` is the signal's number."""

    def __init__(self, by: int, kept: Path) -> None:
        super().__init__(f"stopped, saved in {kept}; the same command goes on")
        self.by = by


def kept_at(out: Path, doing: str) -> Path:
    """Where it is: out.tsq -> out.retraining.safetensors, for instance."""
    return out.with_suffix(f".{doing}.safetensors")


def origin(
    weights: WeightSet, target: int, images: NDArray[np.float32] | None, coding: str
) -> dict[str, Any]:
    """What a search began from: another one must not go on with it."""
    sha = hashlib.sha256(json.dumps(weights.model.spec, sort_keys=True).encode())
    for path, array in sorted(weights.flat.items()):
        sha.update(path.encode() + np.ascontiguousarray(array).tobytes())
    seen = None if images is None else hashlib.sha256(images.tobytes()).hexdigest()
    return {"weights": sha.hexdigest(), "target": target, "images": seen, "coding": coding}


def save(path: Path, sizing: Sizing, begun: dict[str, Any]) -> None:
    """Write it whole or not at all. Raises UserError where it can't be."""
    arrays: dict[str, NDArray[Any]] = {}
    for name, layer in sizing.layers.items():
        grid = layer.grid
        arrays[f"levels/{name}"] = np.ascontiguousarray(grid.levels, np.int16)
        arrays[f"grid/{name}"] = np.array([grid.step, grid.error, grid.bits])
        if isinstance(layer.bias, Stepped):
            arrays[f"bias-levels/{name}"] = layer.bias.steps
            arrays[f"bias-step/{name}"] = np.array(layer.bias.step)
        elif layer.bias is not None:
            arrays[f"bias/{name}"] = layer.bias.array
    if sizing.best is not None:
        arrays["best"] = np.frombuffer(to_bytes(sizing.best), np.uint8)
    text = json.dumps(
        {
            "begun": begun,
            "order": list(sizing.layers),
            "bytes": sizing.bytes,
            **{name: getattr(sizing, name) for name in ("units", "stiffness", "tries")},
        }
    )
    metadata = {"format": FORMAT, "state": text, "sha256": digest(arrays, text)}
    write_atomically(path, to_safetensors(arrays, metadata))


def read(path: Path, begun: dict[str, Any]) -> Sizing:
    """The reverse; a fresh one where there is no such file.

    Raises UserError where the file is damaged, or of a search that began otherwise.
    """
    if not path.exists():
        return Sizing()
    try:
        with safe_open(path, "numpy") as file:
            header = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        whole = header["format"] == FORMAT and header["sha256"] == digest(arrays, header["state"])
        state = parse_json(header["state"])
    except Exception:  # what is damaged can fail in any way at all
        whole = False
    if not whole:
        raise UserError(f"{path} is no compression that was stopped, or damaged: delete it")
    if state["begun"] != begun:
        raise UserError(
            f"{path} is a compression of another network, to another size or with other pictures; delete "
            "it, or write to another file"
        )
    return Sizing(
        units=state["units"],
        stiffness=state["stiffness"],
        tries=[(price, size) for price, size in state["tries"]],
        layers={name: _layer(name, arrays) for name in state["order"]},
        best=from_bytes(arrays["best"].tobytes()) if "best" in arrays else None,
        bytes=state["bytes"],
    )


def _layer(name: str, arrays: dict[str, NDArray[Any]]) -> Layer:
    step, error, bits = arrays[f"grid/{name}"].tolist()
    levels = arrays[f"levels/{name}"].astype(np.int32)
    bias: Dense | Stepped | None = None
    if f"bias-levels/{name}" in arrays:
        bias = Stepped(arrays[f"bias-levels/{name}"], float(arrays[f"bias-step/{name}"]))
    elif f"bias/{name}" in arrays:
        bias = Dense(arrays[f"bias/{name}"], half=True)
    return Layer(Rounded(levels, step, error, bits), bias)
