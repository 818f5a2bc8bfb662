"""A weight set, what every reader returns: network, parameters, preparation of the images."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

import numpy as np

from tinysqueeze.errors import FormatError, ShapeError, UserError
from tinysqueeze.files import parse_json
from tinysqueeze.graph import rebuild
from tinysqueeze.network.layers import Params
from tinysqueeze.network.models import MODELS, Model, squeezenet1_0, squeezenet1_1
from tinysqueeze.network.params import check_fit, flatten, shapes, trained_shapes, unflatten
from tinysqueeze.weights.preprocess import Preprocess

LARGEST = 1e6  # no trained weight comes near it; a flipped exponent bit goes far beyond
SAID, AS_YOU_SAY = "as the file says", "as you say"
ASSUMED = (
    "ASSUMED, since nothing says so: if they were trained otherwise, --preprocess caffe, torchvision or "
    "FILE, preprocess= in Python"
)
UNCHECKED = (
    "this format has no checksum and the file is not one whose SHA-256 is known: its structure and "
    "the range of its numbers were checked, a changed digit in a weight would go unseen"
)


@dataclass(frozen=True, eq=False)
class WeightSet:
    """Trained weights and all that is needed to use them.

    `params` is the nested dict that `model.forward` takes. `description` says in one line what was
    recognised, `notes` what the user should know about it. `classes` are the names of the logits
    ("" where unknown) and `wnids` their WordNet numbers, where the classes are ImageNet's. `known_by`
    says how we know `preprocess` ("the file says so"); it is "" where that is only assumed.
    """

    model: Model
    params: Params
    preprocess: Preprocess
    description: str
    notes: tuple[str, ...] = ()
    classes: tuple[str, ...] = ()
    wnids: tuple[str, ...] = ()
    known_by: str = ""

    def __post_init__(self) -> None:
        height, width, _ = self.model.input_shape
        if self.preprocess.crop != (height, width):
            raise ShapeError(
                f"the preprocessing crops to {self.preprocess.crop}, {self.model.name} takes "
                f"{(height, width)}"
            )
        for names in (self.classes, self.wnids):
            if names and len(names) != self.model.classes:
                raise FormatError(f"{len(names)} class names for {self.model.classes} classes")
            if any(not isinstance(name, str) for name in names):
                raise FormatError("a class whose name is no text")

    def __str__(self) -> str:
        """What was recognised, what to know about it, how it wants its images: a line each."""
        how = self.known_by or ASSUMED
        return "\n".join((self.description, *self.notes, f"images: {self.preprocess} ({how})"))

    @property
    def flat(self) -> dict[str, np.ndarray]:
        """The parameters by path: "fire2/squeeze/weight" -> (1, 1, 96, 16)."""
        return flatten(self.params)

    def class_name(self, index: int) -> str:
        """The name of a class, or "class 7" where it is not known."""
        return self.classes[index] if self.classes else f"class {index}"

    def with_notes(self, *notes: str) -> "WeightSet":
        """The same with more to tell."""
        return replace(self, notes=(*self.notes, *notes))

    def with_classes(self, classes: tuple[str, ...], wnids: tuple[str, ...] = ()) -> "WeightSet":
        """The same with names for its classes."""
        return replace(self, classes=classes, wnids=wnids)

    def with_preprocess(self, preprocess: Preprocess, known_by: str = AS_YOU_SAY) -> "WeightSet":
        """The same for images prepared otherwise, of the size that it crops to.

        Raises ShapeError for a network that can't have that size.
        """
        model = self.model
        if preprocess.crop != model.input_shape[:2]:
            size = preprocess.crop[0]
            if not has_sizes(model) or preprocess.crop != (size, size):
                raise ShapeError(
                    f"{model.name} takes images of {model.input_shape[:2]}, the preprocessing crops to "
                    f"{preprocess.crop}"
                )
            model = model.with_changes(input_size=size)
        return replace(self, model=model, preprocess=preprocess, known_by=known_by)

    def with_preset(self, preset: Preprocess) -> "WeightSet":
        """The same for images prepared as others do, at the size that is known of the network, if it is."""
        size = self.model.input_shape[0]
        keeps_size = self.known_by or not has_sizes(self.model)
        return self.with_preprocess(preset.with_size(size) if keeps_size else preset)

    def with_model(self, **changes: Any) -> "WeightSet":
        """The same parameters in a changed network: `with_model(conv10_pad=0, input_size=224)`.

        The crop follows the input size. Raises ShapeError where the parameters no longer fit.
        """
        model = self.model.with_changes(**changes)
        check_fit(model, self.params)
        size = model.input_shape[0]
        preprocess = self.preprocess
        if size != preprocess.crop[0]:
            preprocess = preprocess.with_size(size)
        return replace(self, model=model, preprocess=preprocess)


def has_sizes(model: Model) -> bool:
    """Whether the network can be built for images of another size; a graph can't."""
    return model.spec.get("name") in MODELS


def recognise(flat: Mapping[str, np.ndarray], **changes: Any) -> Model:
    """The SqueezeNet that arrays of these shapes belong to: v1.0 or v1.1, any number of classes.

    `changes` are what the shapes do not tell (input_size, conv10_pad). Raises FormatError.
    """
    first = tuple(flat["conv1/weight"].shape) if "conv1/weight" in flat else None
    last = flat.get("conv10/weight")
    makers = {(7, 7, 3, 96): squeezenet1_0, (3, 3, 3, 64): squeezenet1_1}
    if first not in makers or last is None or last.ndim != 4:
        raise FormatError(
            f"neither SqueezeNet v1.0 (conv1 7×7, 3 to 96 channels) nor v1.1 (3×3, 3 to 64): "
            f"conv1's weight (height, width, in, out) is {first or 'missing'}"
            + ("" if last is not None else ", conv10's is missing")
        )
    try:
        model = makers[first](classes=last.shape[-1], **changes)
    except UserError as error:
        raise FormatError(str(error)) from error
    fitting(model, flat)
    return model


def fitting(model: Model, flat: Mapping[str, np.ndarray]) -> Params:
    """The arrays as the model's parameters, float32, after the checks that every reader makes.

    Raises FormatError where a shape differs, a number is not finite or absurdly large, a variance negative.
    """
    try:
        check_fit(model, unflatten(flat))
    except ShapeError as error:
        raise FormatError(str(error)) from error
    for path, array in flat.items():
        if array.dtype.kind != "f":
            raise FormatError(f"{path}: {array.dtype} instead of floating-point numbers")
        largest = float(np.abs(array).max(initial=0))
        if not largest < LARGEST:  # also where it is not a number
            raise FormatError(f"{path}: a weight of {largest:g}: the file is damaged")
        if path.endswith("/var") and array.min(initial=0) < 0:
            raise FormatError(f"{path}: a negative variance: the file is damaged")
    return unflatten({path: np.ascontiguousarray(flat[path], np.float32) for path in shapes(model)})


def rounding_notes(flat: Mapping[str, np.ndarray]) -> tuple[str, ...]:
    """What happened to the numbers on their way to float32."""
    kinds = sorted({str(array.dtype) for array in flat.values()} - {"float32"})
    return tuple(f"its {kind} numbers were converted to float32" for kind in kinds)


def describe(model: Model, source: str) -> str:
    """One line: "SqueezeNet v1.0, 1,248,424 parameters, 1000 classes: <source>"."""
    names = {"squeezenet1_0": "SqueezeNet v1.0", "squeezenet1_1": "SqueezeNet v1.1"}
    count = sum(int(np.prod(shape)) for shape in trained_shapes(model).values())
    name = names.get(model.spec.get("name", ""), model.name)  # a graph may be called anything
    return f"{name}, {count:,} parameters, {model.classes} classes: {source}"


def digest(flat: Mapping[str, np.ndarray], texts: Mapping[str, str]) -> str:
    """SHA-256 over names, shapes, bits and texts: what our own files carry to prove themselves."""
    total = sha256()
    for name, text in sorted(texts.items()):
        total.update(f"{name}={text}\n".encode())
    for path, array in sorted(flat.items()):
        total.update(f"{path} {array.dtype.str} {array.shape}\n".encode())
        total.update(np.ascontiguousarray(array).tobytes())
    return total.hexdigest()


def preprocess_fields(weights: WeightSet) -> dict[str, Any]:
    """What our own files keep of the preparation: what was assumed stays so."""
    return weights.preprocess.to_json() | ({} if weights.known_by else {"assumed": True})


def preprocess_of(fields: Any) -> dict[str, Any]:
    """The reverse: `preprocess` and `known_by` of a weight set. Raises FormatError."""
    if not isinstance(fields, Mapping):
        raise FormatError("the preparation of the images is missing")
    known_by = "" if fields.get("assumed") is True else SAID
    return {"preprocess": Preprocess.from_json(fields), "known_by": known_by}


def names_of(found: Any) -> tuple[str, ...]:
    """The names of classes, from JSON. Raises FormatError."""
    if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
        raise FormatError("the names of the classes are no list of texts")
    return tuple(found)


def to_metadata(weights: WeightSet) -> dict[str, str]:
    """What our own files carry beside the arrays, with the digest of both."""
    texts = {
        "spec": json.dumps(weights.model.spec),
        "preprocess": json.dumps(preprocess_fields(weights)),
        "classes": json.dumps(weights.classes),
        "wnids": json.dumps(weights.wnids),
    }
    return texts | {"sha256": digest(weights.flat, texts)}


def from_metadata(flat: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> WeightSet:
    """The reverse: arrays by our paths and layout, with their metadata. Raises FormatError."""
    texts = {name: metadata.get(name, "") for name in ("spec", "preprocess", "classes", "wnids")}
    if digest(flat, texts) != metadata.get("sha256"):
        raise FormatError("the contents do not match the SHA-256 inside: the file is damaged")
    model = model_of(metadata)
    try:
        return WeightSet(
            model,
            fitting(model, flat),
            description=describe(model, "saved by tinysqueeze"),
            **preprocess_of(parse_json(texts["preprocess"])),
            classes=names_of(parse_json(texts["classes"])),
            wnids=names_of(parse_json(texts["wnids"])),
        )
    except (ValueError, TypeError) as error:
        raise FormatError(f"its metadata cannot be read: {error}") from error


def model_of(metadata: Mapping[str, str]) -> Model:
    """The network that the metadata describe. Raises FormatError."""
    try:
        return rebuild(parse_json(metadata["spec"]))
    except (KeyError, ValueError, TypeError, UserError) as error:
        raise FormatError(f"the network it is for cannot be built: {error}") from error
