"""A state dict of torchvision's SqueezeNet, however it was stored, as a weight set."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from tinysqueeze.errors import FormatError
from tinysqueeze.network.models import squeezenet1_0, squeezenet1_1
from tinysqueeze.weights.formats.names import renamed, to_ours, torchvision_names, without_prefix
from tinysqueeze.weights.preprocess import TORCHVISION
from tinysqueeze.weights.trained import WeightSet, describe, fitting, recognise, rounding_notes

# Under which key a checkpoint of a training loop keeps the weights.
CHECKPOINT_KEYS = ("state_dict", "model_state_dict", "model_state", "model", "net", "weights")


def state_dict_of(saved: Any) -> dict[str, np.ndarray]:
    """The arrays of a state dict, or of a whole checkpoint around one. Raises FormatError."""
    if not isinstance(saved, Mapping):
        raise FormatError(f"a {type(saved).__name__} instead of a state dict")
    for key in CHECKPOINT_KEYS:
        if isinstance(saved.get(key), Mapping):
            saved = saved[key]
            break
    arrays = {
        name: value
        for name, value in saved.items()
        if isinstance(name, str) and isinstance(value, np.ndarray)
    }
    if not arrays:
        raise FormatError("it holds no tensors by name: save model.state_dict()")
    return arrays


def from_torchvision(arrays: Mapping[str, np.ndarray], source: str) -> WeightSet:
    """torchvision's names and layout, (out, in, height, width). Raises FormatError."""
    stored = without_prefix(arrays)
    first = arrays[stored["features.0.weight"]]
    make = squeezenet1_0 if first.shape[-1:] == (7,) else squeezenet1_1
    names = {path: stored.get(name, name) for path, name in torchvision_names(make()).items()}
    ours = {path: to_ours(array) for path, array in renamed(arrays, names).items()}
    model = recognise(ours, input_size=TORCHVISION.crop[0])
    return WeightSet(
        model,
        fitting(model, ours),
        TORCHVISION,
        describe(model, f"torchvision's names, from {source}"),
        notes=rounding_notes(ours),
    )
