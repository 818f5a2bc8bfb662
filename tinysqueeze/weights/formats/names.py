"""What torchvision and Caffe call our layers, and how their arrays lie."""

from collections.abc import Iterable, Mapping

import numpy as np

from tinysqueeze.errors import FormatError, UserError
from tinysqueeze.graph import GraphModel, lower, without_dropout
from tinysqueeze.network.models import Model, squeezenet1_0, squeezenet1_1
from tinysqueeze.network.params import shapes

TORCHVISIONS = (squeezenet1_0, squeezenet1_1)
SIZE = 224


def to_ours(array: np.ndarray) -> np.ndarray:
    """A convolution's weight (out, in, height, width) -> (height, width, in, out); else as it is.

    A view: nothing is copied before it is known to fit (`weights.fitting`).
    """
    return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array


def to_theirs(array: np.ndarray) -> np.ndarray:
    """The reverse of `to_ours`."""
    return np.ascontiguousarray(array.transpose(3, 2, 0, 1)) if array.ndim == 4 else array


def torchvision_names(model: Model) -> dict[str, str]:
    """Our path -> the key in the state dict of torchvision's SqueezeNet, v1.0 or v1.1.

    torchvision counts the steps before the classifier: features.0 is conv1, features.3 fire2.
    Raises UserError for a network that torchvision's class cannot hold: it would take the arrays of
    some that differ only in what has none, an activation, and compute something else. The authors' ring
    of zeros around conv10 may stay: whoever loads the arrays can set it there (`export` says how).
    """
    if isinstance(model, GraphModel):
        raise UserError(
            f"torchvision's SqueezeNet has no place for {model.name}, which was read as a graph: export "
            "it to ONNX, C or our own safetensors"
        )
    ours = without_dropout(lower(model.at(SIZE))).nodes
    same = {"input_channels": model.input_shape[2], "conv10_pad": model.spec.get("conv10_pad", 0)}
    versions = (make(model.classes, **same) for make in TORCHVISIONS)
    theirs = [without_dropout(lower(version)).nodes for version in versions]
    if ours not in theirs:
        own = next((node for node in ours if not any(node in t for t in theirs)), ours[-1])
        raise UserError(
            f"torchvision's SqueezeNet has no place for {own.path} ({own.what}) of {model.name}: it "
            "holds v1.0 and v1.1 as they are, with any number of classes"
        )
    steps = [name for name, _ in model.steps]
    names = {}
    for path in shapes(model):
        step, *inner, leaf = path.split("/")
        place = "classifier.1" if step == "conv10" else f"features.{steps.index(step)}"
        names[path] = ".".join([place, *inner, leaf])
    return names


def without_prefix(keys: Iterable[str]) -> dict[str, str]:
    """torchvision's key -> the key as it is in the file, where a wrapper may have put a prefix.

    DataParallel saves "module.features.0.weight", a Lightning module "model.features.0.weight".
    """
    keys = list(keys)
    first = next((key for key in keys if key.endswith("features.0.weight")), None)
    if first is None:
        raise FormatError("no features.0.weight: not a SqueezeNet with torchvision's names")
    prefix = first.removesuffix("features.0.weight")
    return {key.removeprefix(prefix): key for key in keys}


def caffe_path(name: str) -> str:
    """Caffe's layer -> our path: "fire2/squeeze1x1" is our "fire2/squeeze".

    A fine-tuned head usually has a new name ("conv10_pets"); it is conv10 all the same.
    """
    if name.startswith("conv10"):
        return "conv10"
    return name.replace("squeeze1x1", "squeeze")


def renamed(arrays: Mapping[str, np.ndarray], names: Mapping[str, str]) -> dict[str, np.ndarray]:
    """{new: arrays[old]} for (new, old) in names. Raises FormatError unless each array has one."""
    missing = sorted(set(names.values()) - set(arrays))
    if missing:
        raise FormatError(f"the array {missing[0]} is missing")
    extra = sorted(set(arrays) - set(names.values()))
    if extra:
        raise FormatError(f"the array {extra[0]} has no place in this network")
    return {new: arrays[old] for new, old in names.items()}
