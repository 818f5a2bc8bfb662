"""The SqueezeNet authors' own file, written bit for bit: codebooks, codes and 4-bit gaps, no Huffman.

The format is described where it is read, in `formats/deep_compression.py`; no encoder for it was
ever published. Given the authors' codebooks and codes, the bytes are those of their file.
"""

from collections.abc import Mapping

import numpy as np

from tinysqueeze.errors import UserError
from tinysqueeze.network.models import Model
from tinysqueeze.weights.compression.huffman import pack_lengths
from tinysqueeze.weights.compression.relative_index import from_gaps, to_gaps
from tinysqueeze.weights.compression.tensors import Dense, Shared, Tensor
from tinysqueeze.weights.formats.deep_compression import layers_of, read_deep_compression

CODEBOOK = 256


def deep_compression_bytes(tensors: Mapping[str, Tensor]) -> bytes:
    """A network in the authors' format: `tensors` by path, in the network's order.

    Raises UserError for what the format cannot hold: anything but convolutions with a bias, or
    weights that are not shared by at most 255 values (compress with --bits 8 or fewer, not to a
    --target-kb, to get those).
    """
    paths = [path for path in tensors if path.endswith("/weight")]
    counts, layers = [], []
    for path in paths:
        weight, bias = tensors[path], tensors.get(path.replace("/weight", "/bias"))
        if bias is None or weight.values().ndim != 4 or len(tensors) != 2 * len(paths):
            raise UserError(f"{path}: the authors' format holds convolutions with a bias, only")
        if not isinstance(weight, Shared) or len(weight.codebook) >= CODEBOOK:
            raise UserError(f"{path}: the authors' format holds weights shared by up to 255 values")
        codebook = np.zeros(CODEBOOK, "<f4")
        codebook[1 : 1 + len(weight.codebook)] = weight.table()
        in_their_order = weight.codes.transpose(3, 2, 0, 1).reshape(-1)  # out, in, height, width
        gaps, codes = to_gaps(in_their_order)
        counts.append(len(codes))
        layers += [
            codebook.tobytes(),
            bias.values().astype("<f4").tobytes(),
            codes.astype(np.uint8).tobytes(),
            pack_lengths(gaps),
        ]
    return np.array(counts, "<u4").tobytes() + b"".join(layers)


def deep_compression_tensors(data: bytes, model: Model) -> dict[str, Tensor]:
    """The reverse: the authors' own codebooks, in their order, and codes. Raises FormatError."""
    tensors: dict[str, Tensor] = {}
    for layer in read_deep_compression(data, layers_of(model)):
        flat = from_gaps(layer.gaps, layer.codes, int(np.prod(layer.shape)))
        codes = np.ascontiguousarray(flat.reshape(layer.shape).transpose(2, 3, 1, 0))
        tensors[f"{layer.name}/weight"] = Shared(codes, layer.codebook[1:].copy())
        tensors[f"{layer.name}/bias"] = Dense(layer.bias)
    return tensors
