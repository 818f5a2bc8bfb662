"""Caffe's .caffemodel: the few fields of its protocol buffer that hold weights, read by hand.

A protocol buffer is a list of fields, each a number and a wire type packed in a varint, then a
value: a varint (0), 8 bytes (1), a length and that many bytes (2), or 4 bytes (5). Field numbers
are those of caffe.proto: https://github.com/BVLC/caffe/blob/master/src/caffe/proto/caffe.proto.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import prod

import numpy as np

from tinysqueeze.errors import FormatError

VARINT, EIGHT_BYTES, BYTES, FOUR_BYTES = 0, 1, 2, 5
Value = int | bytes
MOST_DIMENSIONS = 32  # Caffe's own limit

# NetParameter's field of layers -> the fields of such a layer: name, blobs, convolution.
LAYER_FIELDS = {100: (1, 7, 106), 2: (4, 6, 10)}  # LayerParameter; V1LayerParameter, before 2014


@dataclass
class CaffeLayer:
    """A layer that has weights: blobs in Caffe's order, (out, in, height, width) and (out,)."""

    name: str
    blobs: list[np.ndarray]
    pad: int = 0


def read_caffemodel(data: bytes) -> list[CaffeLayer]:
    """The layers with weights, in the file's order. Raises FormatError."""
    layers = []
    for number, value in _fields(data):
        if number in LAYER_FIELDS and isinstance(value, bytes):
            layer = _layer(value, *LAYER_FIELDS[number])
            if layer.blobs:
                layers.append(layer)
    if not layers:
        raise FormatError("no layer with weights: truncated, or not a .caffemodel")
    return layers


def _layer(data: bytes, name_field: int, blobs_field: int, convolution_field: int) -> CaffeLayer:
    layer = CaffeLayer("", [])
    for number, value in _fields(data):
        if not isinstance(value, bytes):
            continue
        if number == name_field:
            layer.name = value.decode("utf-8", errors="replace")
        elif number == blobs_field:
            layer.blobs.append(_blob(value))
        elif number == convolution_field:
            layer.pad = max(_integers(value, number=3), default=0)  # ConvolutionParameter.pad
    return layer


@dataclass
class _Blob:
    """The parts of a BlobProto, as they come."""

    sides: dict[int, int] = field(default_factory=dict)  # num, channels, height, width (old files)
    shape: tuple[int, ...] | None = None
    floats: list[bytes] = field(default_factory=list)
    doubles: list[bytes] = field(default_factory=list)


def _blob(data: bytes) -> np.ndarray:
    blob = _Blob()
    for number, value in _fields(data):
        if isinstance(value, int):
            if number <= 4:
                blob.sides[number] = value
        elif number == 5:
            blob.floats.append(value)
        elif number == 8:
            blob.doubles.append(value)
        elif number == 7:
            blob.shape = tuple(_integers(value, number=1))  # BlobShape.dim
    raw = b"".join(blob.floats or blob.doubles)
    item = 4 if blob.floats else 8
    if len(raw) % item:
        raise FormatError("a blob does not hold a whole count of numbers: corrupt")
    numbers = np.frombuffer(raw, f"<f{item}").astype(np.float32)
    shape = blob.shape or tuple(blob.sides.get(side, 1) for side in (1, 2, 3, 4))
    if len(shape) > MOST_DIMENSIONS:
        raise FormatError(f"a blob of {len(shape):,} dimensions: corrupt")
    if prod(shape) != numbers.size:
        raise FormatError(f"a blob of shape {shape} holds {numbers.size} numbers: corrupt")
    return numbers.reshape(shape)


def _integers(data: bytes, number: int) -> list[int]:
    """The integers of a repeated field, packed or not."""
    found: list[int] = []
    for at, value in _fields(data):
        if at != number:
            continue
        if isinstance(value, int):
            found.append(value)
            continue
        position = 0
        while position < len(value):
            integer, position = _varint(value, position)
            found.append(integer)
    return found


def _fields(data: bytes) -> Iterator[tuple[int, Value]]:
    """(field number, value) one after another; 4- and 8-byte values come as their bytes."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, kind = key >> 3, key & 7
        if kind == VARINT:
            value, at = _varint(data, at)
            yield number, value
            continue
        if kind == BYTES:
            size, at = _varint(data, at)
        elif kind in (FOUR_BYTES, EIGHT_BYTES):
            size = 4 if kind == FOUR_BYTES else 8
        else:
            raise FormatError(
                f"wire type {kind} of a protocol buffer: corrupt, or not a .caffemodel"
            )
        if number == 0 or at + size > len(data):
            raise FormatError("a field reaches beyond its end: truncated, or not a .caffemodel")
        yield number, data[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number in groups of seven bits, the lowest first -> (number, position after it)."""
    number = shift = 0
    while at < len(data) and shift < 70:
        byte = data[at]
        number |= (byte & 127) << shift
        at += 1
        shift += 7
        if byte < 128:
            return number, at
    raise FormatError("a number does not end: truncated, or not a .caffemodel")
