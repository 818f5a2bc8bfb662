"""Small real files of each format for the tests of `pretrained`, written by hand where it matters."""

import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from tinysqueeze.network.models import Model, squeezenet1_0, squeezenet1_1
from tinysqueeze.network.params import initialise, shapes
from tinysqueeze.weights import CAFFE, TORCHVISION, WeightSet
from tinysqueeze.weights.formats.names import to_theirs
from tinysqueeze.weights.trained import describe


def weight_set(model: Model, seed: int = 0, caffe: bool = False) -> WeightSet:
    """Random weights with small random biases, so that every array counts in the output."""
    rng = np.random.default_rng(seed)
    params = initialise(model, seed)
    _perturb(params, rng)
    preprocess = (CAFFE if caffe else TORCHVISION).with_size(model.input_shape[0])
    classes = tuple(f"class number {i}" for i in range(model.classes))
    return WeightSet(
        model,
        params,
        preprocess,
        describe(model, "a test"),
        classes=classes,
        known_by="as the test says",
    )


def _perturb(tree: Mapping, rng: np.random.Generator) -> None:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            _perturb(value, rng)
        else:
            noise = rng.uniform(0.05, 0.3, value.shape)
            value += (noise if name in ("bias", "mean", "var") else noise * 0.01).astype("f4")


def small(version: int = 1, classes: int = 3, **changes) -> WeightSet:
    """SqueezeNet v1.0 or v1.1 with few classes and a small input."""
    make = squeezenet1_1 if version else squeezenet1_0
    return weight_set(make(classes=classes, input_size=64, **changes))


def varint(number: int) -> bytes:
    """A protocol buffer's variable-length number."""
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def field(number: int, value: int | bytes) -> bytes:
    """One field of a protocol buffer: a number as a varint, bytes with their length."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def caffemodel(weights: WeightSet, v1: bool = False, packed: bool = True) -> bytes:
    """A .caffemodel of these weights: V2 layers with shapes, or V1 layers with four sides."""
    layer_field, name_field, blobs_field, conv_field = (2, 4, 6, 10) if v1 else (100, 1, 7, 106)
    out = field(1, b"SqueezeNet") + field(layer_field, field(name_field, b"data"))
    for path in dict.fromkeys(path.rpartition("/")[0] for path in shapes(weights.model)):
        name = path.replace("/squeeze", "/squeeze1x1")
        layer = field(name_field, name.encode())
        for part in ("weight", "bias"):
            layer += field(blobs_field, blob(weights.flat[f"{path}/{part}"], v1, packed))
        pad = int("expand3x3" in path or (path == "conv10" and v1))
        if pad:
            layer += field(conv_field, field(1, 7) + field(3, pad if v1 else varint(pad)))
        out += field(layer_field, layer)
    return out


def blob(array: np.ndarray, v1: bool, packed: bool = True) -> bytes:
    """A BlobProto: the shape, the numbers, and a `diff` that readers must pass over."""
    theirs = to_theirs(array)
    if v1:
        sides = (1,) * (4 - theirs.ndim) + theirs.shape
        shape = b"".join(field(i, side) for i, side in enumerate(sides, 1))
    else:
        shape = field(7, field(1, b"".join(map(varint, theirs.shape))))
    raw = theirs.astype("<f4").tobytes()
    if packed:
        return shape + field(5, raw) + field(6, b"\0\0\0\0")
    singles = (varint(5 << 3 | 5) + raw[i : i + 4] for i in range(0, len(raw), 4))
    return shape + b"".join(singles)


def deep_compression(layers: Mapping[str, tuple[int, ...]], seed: int = 0) -> bytes:
    """A file in the authors' format for layers of these shapes (out, in, height, width)."""
    rng = np.random.default_rng(seed)
    counts, bodies = [], []
    for shape in layers.values():
        codes, gaps = _codes_and_gaps(rng, int(np.prod(shape)))
        codebook = np.concatenate([[0], rng.normal(size=255)]).astype("<f4")
        nibbles = np.append(gaps, 0)[: (len(gaps) + 1) // 2 * 2].reshape(-1, 2)
        packed = (nibbles[:, 0] | nibbles[:, 1] << 4).astype(np.uint8)
        bias = rng.normal(size=shape[0]).astype("<f4")
        counts.append(len(codes))
        bodies += [codebook.tobytes(), bias.tobytes(), codes.tobytes(), packed.tobytes()]
    return struct.pack(f"<{len(counts)}I", *counts) + b"".join(bodies)


def _codes_and_gaps(rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Entries for a layer of `size` weights: some values, and a filler now and then."""
    codes, gaps, at = [], [], -1
    while True:
        gap = int(rng.integers(0, 16))
        if at + gap + 1 >= size:
            return np.array(codes, np.uint8), np.array(gaps, np.uint8)
        codes.append(0 if gap == 15 and rng.random() < 0.5 else int(rng.integers(1, 256)))
        gaps.append(gap)
        at += gap + 1


def same(a: WeightSet, b: WeightSet) -> bool:
    """Equal to the bit, path by path, for the same network."""
    return (
        a.model.spec == b.model.spec
        and a.flat.keys() == b.flat.keys()
        and all(np.array_equal(a.flat[path], b.flat[path]) for path in a.flat)
    )


def write(path: Path, data: bytes) -> Path:
    """Write bytes, return the path."""
    path.write_bytes(data)
    return path
