"""The SqueezeNet authors' Deep Compression file: pruned weights as 8-bit codes and 4-bit gaps.

Han, Mao & Dally, "Deep Compression" (ICLR 2016), sections 2 and 3; SqueezeNet paper, section 4.2.
The file of github.com/songhan/SqueezeNet-Deep-Compression, little-endian, has no header and no
checksum: the number of stored entries of each of the 26 layers (uint32), then for each layer a
codebook of 256 float32, the biases (float32), a code a stored entry (uint8) and a gap a stored
entry (4 bits, low nibble first). The gap counts the zeros skipped since the last entry; where more
than 15 have to be skipped, an entry of code 0, whose value is 0.0, stands in between.
"""

from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from tinysqueeze.errors import FormatError
from tinysqueeze.network.models import Model
from tinysqueeze.network.params import shapes

CODEBOOK = 256
WIDEST_GAP = 15


@dataclass(frozen=True)
class SparseLayer:
    """One layer as it lies in the file. `shape` is (out, in, height, width)."""

    name: str
    shape: tuple[int, int, int, int]
    codebook: NDArray[np.float32]  # (256,), entry 0 is 0.0
    bias: NDArray[np.float32]  # (out,)
    codes: NDArray[np.uint8]  # (n,)
    gaps: NDArray[np.uint8]  # (n,), 0 to 15

    @property
    def positions(self) -> NDArray[np.int64]:
        """Where each stored entry sits in the flat weight."""
        return np.cumsum(self.gaps.astype(np.int64) + 1) - 1

    def weight(self) -> NDArray[np.float32]:
        """The whole weight, with the zeros between: (out, in, height, width)."""
        flat = np.zeros(prod(self.shape), np.float32)
        flat[self.positions] = self.codebook[self.codes]
        return flat.reshape(self.shape)


def layers_of(model: Model) -> dict[str, tuple[int, int, int, int]]:
    """The (out, in, height, width) of each of a model's convolutions, as `read_deep_compression` wants."""
    return {
        path.removesuffix("/weight"): (shape[3], shape[2], shape[0], shape[1])
        for path, shape in shapes(model).items()
        if path.endswith("/weight")
    }


def read_deep_compression(
    data: bytes, sizes: dict[str, tuple[int, int, int, int]]
) -> list[SparseLayer]:
    """Take the file apart; `sizes` are the layers' (out, in, height, width) in the file's order.

    Raises FormatError where the bytes cannot be such a file: they end early or late, an entry lies
    outside its layer, a filler is no filler, a number is not finite.
    """
    reader = _Reader(data)
    counts = reader.take("<u4", len(sizes))
    layers = []
    for (name, shape), count in zip(sizes.items(), counts.tolist(), strict=True):
        if not 1 <= count <= prod(shape):
            raise FormatError(f"{name}: {count} entries stored of {prod(shape)}: corrupt")
        codebook = reader.take("<f4", CODEBOOK)
        bias = reader.take("<f4", shape[0])
        codes = reader.take("u1", count)
        nibbles = reader.take("u1", (count + 1) // 2)
        gaps = np.stack([nibbles & 15, nibbles >> 4], axis=1).reshape(-1)
        if gaps[count:].any():
            raise FormatError(f"{name}: the last half byte is not empty: corrupt")
        layer = SparseLayer(name, shape, codebook, bias, codes, gaps[:count])
        _check(layer)
        layers.append(layer)
    if reader.left:
        raise FormatError(f"{reader.left} bytes are left after the last layer: not this network's")
    return layers


def _check(layer: SparseLayer) -> None:
    """What must hold of every layer that an encoder wrote."""
    if layer.codebook[0] != 0 or not np.isfinite(layer.codebook).all():
        raise FormatError(f"{layer.name}: the codebook is corrupt")
    if layer.positions[-1] >= prod(layer.shape):
        raise FormatError(f"{layer.name}: entries lie beyond the end of the layer: corrupt")
    if (layer.gaps[layer.codes == 0] != WIDEST_GAP).any():
        raise FormatError(f"{layer.name}: a zero is stored where none is needed: corrupt")


class _Reader:
    """Takes arrays off the front of some bytes."""

    def __init__(self, data: bytes):
        self.data = data
        self.at = 0

    @property
    def left(self) -> int:
        """How many bytes have not been taken."""
        return len(self.data) - self.at

    def take(self, dtype: str, count: int) -> np.ndarray:
        """The next `count` numbers. Raises FormatError where the bytes run out."""
        size = np.dtype(dtype).itemsize * count
        if size > self.left:
            raise FormatError("the file ends inside a layer: it is truncated, or another network's")
        array = np.frombuffer(self.data, dtype, count, self.at)
        self.at += size
        return array
