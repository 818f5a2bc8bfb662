"""safetensors, in and out: with our names and layout, or torchvision's, ready for torch."""

from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, deserialize

from tinysqueeze.errors import FormatError
from tinysqueeze.files import parse_json, to_safetensors, write_atomically
from tinysqueeze.weights.formats.names import renamed, to_ours, to_theirs, torchvision_names
from tinysqueeze.weights.formats.torchvision import from_torchvision
from tinysqueeze.weights.trained import UNCHECKED, WeightSet, from_metadata, model_of, to_metadata

DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}


def write_safetensors(weights: WeightSet, path: str | Path) -> None:
    """Our own file: paths as names, our layout; network, preprocessing and classes beside them."""
    metadata = {"format": "tinysqueeze"} | to_metadata(weights)
    write_atomically(path, to_safetensors(weights.flat, metadata))


def write_torchvision(weights: WeightSet, path: str | Path) -> None:
    """torchvision's names and layout: `load_state_dict(load_file(path), strict=True)` takes it.

    The numbers are the same to the bit, so the network still expects the images of
    `weights.preprocess`. Raises UserError for a network that torchvision's class cannot hold.
    """
    names = torchvision_names(weights.model)
    arrays = {names[path]: to_theirs(array) for path, array in weights.flat.items()}
    write_atomically(path, to_safetensors(arrays, {"format": "pt"} | to_metadata(weights)))


def read_safetensors(data: bytes) -> WeightSet:
    """Either of the above, or any SqueezeNet with torchvision's names. Raises FormatError."""
    arrays, metadata = _parse(data)
    if "sha256" not in metadata:
        if metadata.get("format") == "tinysqueeze":
            raise FormatError("the SHA-256 of its contents is missing: the file is damaged")
        return from_torchvision(arrays, "a safetensors file").with_notes(UNCHECKED)
    if metadata.get("format") == "tinysqueeze":
        return from_metadata(arrays, metadata)
    names = torchvision_names(model_of(metadata))
    ours = {path: to_ours(array) for path, array in renamed(arrays, names).items()}
    return from_metadata(ours, metadata)


def _parse(data: bytes) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The arrays by name, and the metadata."""
    try:
        entries = deserialize(data)
        size = int.from_bytes(data[:8], "little")  # the JSON header's length comes first
        metadata: dict[str, str] = parse_json(data[8 : 8 + size]).get("__metadata__") or {}
    except (SafetensorError, ValueError) as error:
        raise FormatError(f"truncated, corrupt, or not a safetensors file ({error})") from error
    return {name: _array(name, entry) for name, entry in entries}, metadata


def _array(name: str, entry: dict[str, Any]) -> np.ndarray:
    if entry["dtype"] not in DTYPES:
        raise FormatError(f"{name}: {entry['dtype']} instead of floating-point numbers")
    numbers = np.frombuffer(entry["data"], DTYPES[entry["dtype"]])
    if entry["dtype"] == "BF16":  # the upper half of a float32
        numbers = (numbers.astype(np.uint32) << 16).view(np.float32)
    return numbers.reshape(entry["shape"])
