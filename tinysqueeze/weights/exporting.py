"""Weights for others: safetensors, torchvision, ONNX, or C99, each whole or not at all."""

import os
from pathlib import Path

from tinysqueeze.devices.c import Exported, export_float32, export_int8, export_packed
from tinysqueeze.errors import UserError
from tinysqueeze.files import check_folder, check_writable
from tinysqueeze.weights.calibration import Pictures, quantised
from tinysqueeze.weights.compression import fileformat
from tinysqueeze.weights.compression.compress import as_file
from tinysqueeze.weights.formats.onnx_file import write_onnx
from tinysqueeze.weights.formats.safetensors_file import write_safetensors, write_torchvision
from tinysqueeze.weights.opening import Weights, open_weights
from tinysqueeze.weights.trained import WeightSet

WRITERS = {"safetensors": write_safetensors, "torchvision": write_torchvision, "onnx": write_onnx}
KINDS = (*WRITERS, "c")


def export(
    weights: Weights,
    path: str | os.PathLike[str],
    to: str | None = None,
    *,
    int8: Pictures | None = None,
    packed: bool = False,
) -> tuple[Path, ...]:
    """Write trained weights for other programs, as `tinysqueeze export` does; returns the files written.

    weights   whatever `open_weights` takes: a file, a run folder, a finished training, (model, params)
    path      the file; for C the folder, which a path without a suffix is
    to        what to write: "safetensors" (ours), "torchvision" (safetensors with torchvision's names and
              layout (F, C, K, K), for `load_state_dict`), "onnx" (input (N, C, H, W) float32) or "c"
              (C99, images (H, W, C)); otherwise by the suffix, .safetensors or .onnx
    int8      for C: in 8-bit integers, calibrated on these pictures or dataset (`calibration_images`)
    packed    for C: the weights stay in a .tsq file (one as it is, others without loss), which the program
              unpacks where it runs; it can then be sent another of the same network

    torchvision's class knows no padding around conv10: after loading weights that have it (the authors'
    v1.0), set `model.classifier[1].padding = (1, 1)`. Raises UserError where the kind is not known, the
    network has a layer that the format cannot hold, or the file cannot be written.
    """
    kind = kind_of(path, to)
    check_folder(path) if kind == "c" else check_writable(path)
    if kind == "c":
        known = open_weights(weights)
        return export_c(known, path, int8, as_file(weights, known) if packed else None).files
    if int8 is not None or packed:
        raise UserError(f"{path}: int8 and packed go with C alone: say to='c', or leave them out")
    WRITERS[kind](open_weights(weights), Path(path))
    return (Path(path),)


def kind_of(path: str | os.PathLike[str], to: str | None = None) -> str:
    """What to write: one of KINDS. Raises UserError."""
    suffix = Path(path).suffix.removeprefix(".")
    kind = to or suffix or "c"
    if kind not in KINDS:
        raise UserError(
            f"{path}: say with --to which of {', '.join(KINDS)} to write (to= in Python)"
        )
    return kind


def export_c(
    weights: WeightSet,
    directory: str | os.PathLike[str],
    int8: Pictures | None = None,
    packed: bytes | None = None,
) -> Exported:
    """C99 for inference into a folder, and what it needs on a board; see `export`.

    `packed` are the bytes of the .tsq file that the program unpacks. Raises UserError.
    """
    note = f"float32, prepared thus: {weights.preprocess}."
    if packed is not None:
        if int8 is not None:
            raise UserError("what is packed is float32: leave out int8, or packed")
        symbols = fileformat.symbols_of(packed)
        return export_packed(weights.model, packed, Path(directory), symbols, note)
    if int8 is None:
        return export_float32(weights.model, weights.params, Path(directory), note)
    order = weights.preprocess.channels
    note = f"the photograph's own bytes, channels in {order} order."
    return export_int8(quantised(weights, int8), Path(directory), note)
