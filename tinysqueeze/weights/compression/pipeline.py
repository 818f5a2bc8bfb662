"""From a network to a small file: without loss, or as in the paper (`sizing`: to a size).

    small = shared(weights, bits=5, prune=0.6)   # a Compressed
    fileformat.write("squeezenet.tsq", small)
    unpack(fileformat.read("squeezenet.tsq"))    # a WeightSet again

What a file costs to send is in `sending_times`.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinysqueeze.errors import UserError
from tinysqueeze.graph import Norm, lower, normalised
from tinysqueeze.network.models import Model
from tinysqueeze.weights.compression.fileformat import Compressed
from tinysqueeze.weights.compression.kmeans import share
from tinysqueeze.weights.compression.prune import mask
from tinysqueeze.weights.compression.tensors import Dense, Shared, Stepped, Tensor, exactly
from tinysqueeze.weights.trained import (
    WeightSet,
    describe,
    fitting,
    names_of,
    preprocess_fields,
    preprocess_of,
)

Progress = Callable[[str], None]
MOST_BITS = 12  # of k-means: 4,096 values
LARGEST_HALF = float(np.finfo(np.float16).max)


def pack(weights: WeightSet, tensors: Mapping[str, Tensor]) -> Compressed:
    """With what it takes to use the network: the preparation of its images, the names of classes."""
    extra: dict[str, Any] = {"preprocess": preprocess_fields(weights)}
    if weights.classes:
        extra["classes"] = list(weights.classes)
    if weights.wnids:
        extra["wnids"] = list(weights.wnids)
    return Compressed(weights.model, tensors, extra)


def unpack(compressed: Compressed, source: str = "a .tsq file") -> WeightSet:
    """The network to run, its weights as float32. Raises FormatError where the metadata lack."""
    extra = compressed.extra
    return WeightSet(
        compressed.model,
        fitting(compressed.model, compressed.params()),
        description=describe(compressed.model, source),
        **preprocess_of(extra.get("preprocess")),
        classes=names_of(extra.get("classes", [])),
        wnids=names_of(extra.get("wnids", [])),
    )


def lossless(weights: WeightSet) -> Compressed:
    """The same weights to the bit; layers with up to 255 different weights are stored as codes."""
    return pack(weights, {path: exactly(array) for path, array in weights.flat.items()})


def is_rounded(path: str, array: NDArray[np.float32]) -> bool:
    """Weights of convolutions and linear layers are; biases and batch norms are few and stay."""
    return path.endswith("/weight") and array.ndim > 1


def merged_norms(model: Model, flat: Mapping[str, NDArray[np.float32]]) -> dict[str, Tensor]:
    """Every batch norm's arrays (`flat`, by path) as the same function in 4 bytes a channel.

    One that is no longer trained is scale * x + shift: its mean and variance go into its weight and
    bias, 16 bits each, and what stays behind, mean 0 and variance 1, costs a few bytes.
    """
    found: dict[str, Tensor] = {}
    for node in lower(model).nodes:
        if isinstance(node, Norm):
            path, names = node.path, ("weight", "bias", "mean", "var")
            arrays = {name: flat[f"{path}/{name}"] for name in names}
            scale, shift = normalised(1.0, 0.0, arrays, node.eps)
            for name, merged in (("weight", scale), ("bias", shift)):
                fits = bool(
                    np.abs(merged).max() <= LARGEST_HALF
                )  # a silent channel's scale may not
                found[f"{path}/{name}"] = Dense(merged.astype(np.float32), half=fits)
            found[f"{path}/mean"] = Stepped(np.zeros(scale.shape, np.int32), 1.0)
            found[f"{path}/var"] = Stepped(np.ones(scale.shape, np.int32), 1.0 - node.eps)
    return found


def check_finite(weights: WeightSet) -> None:
    """Raises UserError for numbers that no shared value is near to."""
    for path, array in weights.flat.items():
        if not np.isfinite(array).all():
            raise UserError(
                f"{path} holds numbers that are not finite, which share no values: compress without bits and "
                "size, or train it again"
            )


def shared(weights: WeightSet, bits: int, prune: float = 0.0) -> Compressed:
    """The paper's pipeline: prune the smallest fraction of each layer, share the rest by k-means.

    2^bits values a layer, zero one of them; the rest in 16 bits. Raises UserError.
    """
    if not 1 <= bits <= MOST_BITS or not 0 <= prune < 1:
        raise UserError(f"bits must be 1 to {MOST_BITS} and prune at least 0 and less than 1")
    check_finite(weights)
    pruned = {
        path: array * mask(array, prune) if is_rounded(path, array) else array
        for path, array in weights.flat.items()
    }
    tensors = {
        path: replace(tensor, half=isinstance(tensor, Shared) or path.endswith("/bias"))
        for path, tensor in shared_tensors(pruned, bits).items()
    }
    return pack(weights, tensors)


def shared_tensors(flat: Mapping[str, NDArray[np.float32]], bits: int) -> dict[str, Shared | Dense]:
    """Every layer's weights shared by 2^bits values, zero one of them; all else as it is."""
    tensors: dict[str, Shared | Dense] = {}
    for path, array in flat.items():
        tensors[path] = Dense(array)
        if is_rounded(path, array):
            codebook, codes = share(array, bits)
            tensors[path] = Shared(codes, np.trim_zeros(codebook[1:], "b"))
    return tensors


NETWORKS_TO_SEND = {  # bytes as published: the paper's Table 2, and the authors' files
    "AlexNet, 32 bits": 240_000_000,
    "SqueezeNet, 32 bits": 4_800_000,
    "SqueezeNet, Deep Compression, as released": 675_763,
    "SqueezeNet, Deep Compression, 6 bits (paper)": 470_000,
}
MEGABITS = (1, 10, 100)


def sending_times(ours: Mapping[str, int]) -> list[dict[str, Any]]:
    """Rows for a table: name, bytes, and seconds to send it at 1, 10 and 100 Mbit/s.

    `ours` are names and sizes in bytes that are put below the published ones. Pure transfer time, no
    protocol overhead.
    """
    return [
        {"name": name, "bytes": size}
        | {f"seconds at {rate} Mbit/s": 8 * size / (rate * 1e6) for rate in MEGABITS}
        for name, size in (NETWORKS_TO_SEND | dict(ours)).items()
    ]
