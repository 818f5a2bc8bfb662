"""Weights ready to use, from whatever a user names: a file, a run folder, a published name, a training."""

import hashlib
import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from tinysqueeze.data import Normalise
from tinysqueeze.data.download import fetch
from tinysqueeze.errors import DataError, FormatError, UserError
from tinysqueeze.files import content, reason
from tinysqueeze.network.layers import Params
from tinysqueeze.network.models import Model, squeezenet1_0
from tinysqueeze.network.params import check_fit, flatten, shapes, unflatten
from tinysqueeze.training import checkpoint
from tinysqueeze.training.train import TrainingRun
from tinysqueeze.weights.class_names import named
from tinysqueeze.weights.compression import fileformat, pipeline
from tinysqueeze.weights.formats.caffe_file import read_caffemodel
from tinysqueeze.weights.formats.deep_compression import layers_of, read_deep_compression
from tinysqueeze.weights.formats.mistakes import refuse_likely_mistake
from tinysqueeze.weights.formats.names import caffe_path, renamed, to_ours
from tinysqueeze.weights.formats.onnx_file import read_onnx
from tinysqueeze.weights.formats.safetensors_file import read_safetensors
from tinysqueeze.weights.formats.torch_file import read_torch
from tinysqueeze.weights.formats.torchvision import from_torchvision, state_dict_of
from tinysqueeze.weights.plausible import doubt
from tinysqueeze.weights.preprocess import CAFFE, PRESETS, Preprocess, read_preprocess
from tinysqueeze.weights.sources import SOURCES, known_source
from tinysqueeze.weights.trained import (
    UNCHECKED,
    WeightSet,
    describe,
    fitting,
    recognise,
)

HASH_IN_NAME = re.compile(
    r"squeezenet1_[01]-([0-9a-f]{8})\.pth?"
)  # the first digits of the SHA-256


Source = str | os.PathLike[str]
Weights = WeightSet | TrainingRun | tuple[Model, Params] | Source

AS_BYTES = Normalise((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))  # pixels from 0 to 1, nothing else


def open_weights(
    source: Weights,
    classes: Source | None = None,
    *,
    preprocess: Preprocess | Source | None = None,
    download: bool = True,
) -> WeightSet:
    """Trained weights, ready to use: the network, its parameters, how it wants its images, its classes.

    source     a file of any format we read (`load_weights`, and .tsq), a run folder or a checkpoint of
               `train`, a name of SOURCES (downloaded once); or what is in memory: the run that
               `train` returned, (model, params), which takes pixels from 0 to 1, or a WeightSet
    classes    a file with the classes' names, a line each (otherwise the weights' own; for 1,000
               classes those of ImageNet, looked for beside the file)
    preprocess how the images are to be prepared: "caffe", "torchvision", a file (`read_preprocess`) or a
               Preprocess; otherwise as the weights say, or as files of their kind usually want it, and
               then a note warns where a cheap sign speaks against it (`plausible`)
    download   whether the names of ImageNet's classes may be fetched, once, where there are none

    Raises FormatError where a file is truncated, damaged or holds something else, CheckpointError for a
    folder without a whole checkpoint, DataError where nothing of that name is found or it can't be
    fetched, ShapeError where parameters are not the model's.
    """
    found = _opened(source, download)
    if preprocess is not None:
        found = _prepared_as(found, preprocess)  # a wrong word is refused before names are fetched
    if classes is not None or isinstance(source, str | os.PathLike):
        beside = source if isinstance(source, str | os.PathLike) else None
        found = named(found, classes, beside, download)
    if preprocess is None and (found.known_by or isinstance(source, WeightSet | tuple)):
        return found  # known, or told of already
    why = doubt(found)
    return found.with_notes(why) if why else found


def _opened(source: Weights, download: bool) -> WeightSet:
    match source:
        case WeightSet():
            return source
        case TrainingRun():
            training = source.training
            return _trained_here(
                source.model, source.params, training.normalise, training.classes, "in memory"
            )
        case (Model() as model, params):
            check_fit(model, params)
            flat = {p: np.ascontiguousarray(a, np.float32) for p, a in flatten(params).items()}
            found = _trained_here(model, unflatten(flat), AS_BYTES, (), "in memory")
            return replace(found, known_by="")
        case str() | os.PathLike():
            try:
                is_run = checkpoint.is_checkpoint(source)
            except (OSError, ValueError) as error:  # too long for a name, or with a NUL
                raise UserError(f"{os.fspath(source)[:40]!r}: {reason(error)}") from None
            return _from_checkpoint(source) if is_run else load_weights(source)
    raise UserError(
        f"weights are a file, a run folder, a name ({', '.join(SOURCES)}), a finished training or "
        f"(model, params), not {type(source).__name__}"
    )


def _prepared_as(weights: WeightSet, preprocess: Preprocess | Source) -> WeightSet:
    """With images prepared as the user says. Raises FormatError, DataError, ShapeError."""
    if isinstance(preprocess, Preprocess):
        return weights.with_preprocess(preprocess)
    if str(preprocess) in PRESETS:
        return weights.with_preset(PRESETS[str(preprocess)])
    return weights.with_preprocess(read_preprocess(preprocess))


def _from_checkpoint(source: Source) -> WeightSet:
    """A network that we trained, with the preparation of its images. Raises CheckpointError."""
    saved = checkpoint.read(Path(source))
    found = _trained_here(saved.model, saved.params, saved.normalise, saved.classes, str(source))
    return found.with_notes(*saved.notes)


def _trained_here(
    model: Model, params: Params, normalise: Normalise, classes: tuple[str, ...], where: str
) -> WeightSet:
    height, width, _ = model.input_shape
    preprocess = Preprocess(
        resize=min(height, width),
        crop=(height, width),
        mean=(normalise.mean[0], normalise.mean[1], normalise.mean[2]),
        std=(normalise.std[0], normalise.std[1], normalise.std[2]),
    )
    description = describe(model, f"trained here, {where}")
    return WeightSet(
        model, params, preprocess, description, classes=classes, known_by="as it was trained"
    )


def source_file(source: Source) -> Path:
    """The file itself: that of a published name is fetched once, any other source is its path."""
    return fetch(SOURCES[str(source)].file) if str(source) in SOURCES else Path(source)


def load_weights(source: str | os.PathLike[str]) -> WeightSet:
    """Weights from a file as they stand in it, or by a name of SOURCES, which is downloaded once.

    The suffix tells the format: .net (the authors' Deep Compression file), .caffemodel, .pth, .pt,
    .safetensors, .onnx (anyone's), .tsq (`compress`); .pth.tar, .ckpt and .bin are PyTorch's or
    safetensors, by their content. Raises FormatError where the file is truncated, damaged or holds
    something else, DataError where it is missing or cannot be downloaded.
    """
    path = source_file(source)
    try:
        data = content(path)
    except FileNotFoundError as error:
        names = ", ".join(SOURCES)
        raise DataError(f"{path}: no such file, nor a name of weights ({names})") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
    suffix = path.suffix.lower()
    if suffix not in READERS:
        known = ", ".join(READERS)
        raise FormatError(f"{path}: weights end in {known}, not in {path.suffix or 'nothing'}")
    try:
        refuse_likely_mistake(path.stem, data)
        _check_name(path.name, data)
        weights = READERS[suffix](data)
    except FormatError as error:
        raise FormatError(f"{path}: {error}") from error
    return _vouched(weights, data)


def _check_name(name: str, data: bytes) -> None:
    """torchvision's files carry the first eight digits of their SHA-256 in their name.

    Other files don't: there such digits may be a date.
    """
    found = HASH_IN_NAME.fullmatch(name)
    if found and not hashlib.sha256(data).hexdigest().startswith(found[1]):
        raise FormatError(
            f"its SHA-256 does not start with {found[1]}, as its name, torchvision's, promises; load it "
            "anew, or rename it if it is another file"
        )


def _vouched(weights: WeightSet, data: bytes) -> WeightSet:
    """With a note that this is a published file, to the bit, in place of one that nobody knows."""
    source = known_source(data)
    if source is None:
        return weights
    algorithm = source.file.sha256.rpartition(":")[0].upper() or "SHA-256"
    rest = tuple(note for note in weights.notes if note != UNCHECKED)
    return replace(
        weights,
        notes=(f"to the bit (by its {algorithm}) {source.what}", *rest),
        known_by="as these weights were trained",
    )


def _read_net(data: bytes) -> WeightSet:
    """The authors' file; conv10 gets the ring of zeros that it has in their prototxt."""
    model = squeezenet1_0(input_size=CAFFE.crop[0], conv10_pad=1)
    layers = read_deep_compression(data, layers_of(model))
    flat = {}
    for layer in layers:
        flat[f"{layer.name}/weight"] = to_ours(layer.weight())
        flat[f"{layer.name}/bias"] = layer.bias
    stored = sum(layer.codes.size for layer in layers)
    total = sum(weight.size for weight in flat.values())
    source = f"a Deep Compression file, {stored:,} of {total:,} parameters stored"
    return WeightSet(
        model, fitting(model, flat), CAFFE, describe(model, source), notes=(UNCHECKED,)
    )


def _read_caffemodel(data: bytes) -> WeightSet:
    """Caffe's file; conv10's padding is read from it (1 in the authors' v1.0, 0 in their v1.1)."""
    flat = {}
    pad = 0
    for layer in read_caffemodel(data):
        path = caffe_path(layer.name)
        if len(layer.blobs) != 2:
            raise FormatError(f"{layer.name}: {len(layer.blobs)} blobs instead of weight and bias")
        flat[f"{path}/weight"] = to_ours(layer.blobs[0])
        flat[f"{path}/bias"] = layer.blobs[1].reshape(-1)
        if path == "conv10":
            pad = layer.pad
    if pad not in (0, 1):
        raise FormatError(f"conv10 is padded by {pad}, which no SqueezeNet is: the file is damaged")
    model = recognise(flat, input_size=CAFFE.crop[0], conv10_pad=pad)
    source = "a .caffemodel" + (", conv10 padded" if pad else "")
    return WeightSet(
        model,
        fitting(model, renamed(flat, {path: path for path in shapes(model)})),
        CAFFE,
        describe(model, source),
        notes=(UNCHECKED,),
    )


def _read_pth(data: bytes) -> WeightSet:
    """PyTorch's; an archive checks itself by CRC-32, the legacy layout does not."""
    weights = from_torchvision(state_dict_of(read_torch(data)), "a PyTorch file")
    return weights if data[:2] == b"PK" else weights.with_notes(UNCHECKED)


def _read_by_content(data: bytes) -> WeightSet:
    """Under a name that says little: a file of PyTorch's, or safetensors. Raises FormatError."""
    if data[:2] == b"PK" or data[:1] == b"\x80":
        return _read_pth(data)
    if data[8:9] == b"{":
        return read_safetensors(data)
    raise FormatError("neither a file of PyTorch's nor safetensors, by its first bytes")


READERS: dict[str, Callable[[bytes], WeightSet]] = {
    ".net": _read_net,
    ".caffemodel": _read_caffemodel,
    ".pth": _read_pth,
    ".pt": _read_pth,
    ".safetensors": read_safetensors,
    ".tar": _read_by_content,
    ".ckpt": _read_by_content,
    ".bin": _read_by_content,
    ".onnx": read_onnx,
    fileformat.SUFFIX: lambda data: pipeline.unpack(fileformat.from_bytes(data)),
}
