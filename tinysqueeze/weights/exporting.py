"""Weights for others: safetensors, torchvision, ONNX, or C99, each whole or not at all."""

import os
from pathlib import Path

from tinysqueeze.devices.c import Exported, export_float32, export_int8
from tinysqueeze.errors import UserError
from tinysqueeze.files import check_folder, check_writable
from tinysqueeze.weights.calibration import Pictures, quantised
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
) -> tuple[Path, ...]:
    """Write trained weights for other programs, as `tinysqueeze export` does; returns the files written.

    weights   whatever `open_weights` takes: a file, a run folder, a finished training, (model, params)
    path      the file; for C the folder, which a path without a suffix is
    to        what to write: "safetensors" (ours), "torchvision" (safetensors with torchvision's names and
              layout (F, C, K, K), for `load_state_dict`), "onnx" (input (N, C, H, W) float32) or "c"
              (C99, images (H, W, C)); otherwise by the suffix, .safetensors or .onnx
    int8      for C: in 8-bit integers, calibrated on these pictures or dataset (`calibration_images`)

    torchvision's class knows no padding around conv10: after loading weights that have it (the authors'
    v1.0), set `model.classifier[1].padding = (1, 1)`. Raises UserError where the kind is not known, the
    network has a layer that the format cannot hold, or the file cannot be written.
    """
    kind = kind_of(path, to)
    check_folder(path) if kind == "c" else check_writable(path)
    if kind == "c":
        return export_c(open_weights(weights), path, int8).files
    if int8 is not None:
        raise UserError(f"{path}: int8 goes with C alone: say to='c', or leave int8 out")
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
    weights: WeightSet, directory: str | os.PathLike[str], int8: Pictures | None = None
) -> Exported:
    """C99 for inference into a folder, and what it needs on a board; see `export`."""
    if int8 is None:
        note = f"float32, prepared thus: {weights.preprocess}."
        return export_float32(weights.model, weights.params, Path(directory), note)
    order = weights.preprocess.channels
    note = f"the photograph's own bytes, channels in {order} order."
    return export_int8(quantised(weights, int8), Path(directory), note)
