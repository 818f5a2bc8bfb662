"""Huffman coding: frequent symbols get short codes (Huffman 1952; Deep Compression, section 4).

The codes are canonical: they follow from their lengths alone, so that the file holds no tree, only
four bits a symbol (Schwartz & Kallick 1964).
"""

import heapq

import numba as nb
import numpy as np
from numpy.typing import NDArray

from tinysqueeze.errors import FormatError

LONGEST = 15  # so that a length fits in four bits


def code_lengths(counts: NDArray[np.integer]) -> NDArray[np.uint8]:
    """How many bits each symbol gets, 0 where it never occurs, at most 15.

    The two rarest trees are joined until one is left; a symbol's length is its depth. Where a code
    would be longer than 15 bits, the counts are flattened (halved, rounded up) and it is tried again.
    """
    counts = np.asarray(counts, np.int64)
    symbols = np.flatnonzero(counts)
    lengths = np.zeros(len(counts), np.uint8)
    if len(symbols) == 1:
        lengths[symbols] = 1
    if len(symbols) < 2:
        return lengths
    heap = [(int(counts[symbol]), int(symbol), [int(symbol)]) for symbol in symbols]
    heapq.heapify(heap)
    depth = np.zeros(len(counts), np.int64)
    while len(heap) > 1:
        first, second = heapq.heappop(heap), heapq.heappop(heap)
        members = first[2] + second[2]
        depth[members] += 1
        heapq.heappush(heap, (first[0] + second[0], min(first[1], second[1]), members))
    if depth.max() > LONGEST:
        return code_lengths((counts + 1) // 2)
    return depth.astype(np.uint8)


def canonical_codes(lengths: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """The code of each symbol: counted upwards through the lengths, symbols in order within each.

    Raises FormatError where no such code exists (more short codes than a binary tree has places).
    """
    codes = np.zeros(len(lengths), np.uint32)
    code = 0
    for length in range(1, LONGEST + 1):
        code <<= 1
        for symbol in np.flatnonzero(lengths == length):
            codes[symbol] = code
            code += 1
        if code > 1 << length:
            raise FormatError(f"no prefix code has so many codes of up to {length} bits")
    return codes


def encode(symbols: NDArray[np.integer], lengths: NDArray[np.uint8]) -> bytes:
    """The symbols' codes one after another, first bit first; the last byte is filled with zeros."""
    symbols = np.ascontiguousarray(symbols).reshape(-1)
    bits = int(lengths[symbols].astype(np.int64).sum())
    out = np.zeros((bits + 7) // 8, np.uint8)
    _write(symbols, canonical_codes(lengths), lengths, out)
    return out.tobytes()


def decode(
    data: bytes | NDArray[np.uint8], lengths: NDArray[np.uint8], count: int
) -> NDArray[np.integer]:
    """The reverse of `encode`: `count` symbols. Raises FormatError unless they fill `data` exactly.

    A table tells symbol and length at once from as many bits as the longest code has.
    """
    canonical_codes(lengths)  # raises where these are no code's lengths
    longest = int(lengths.max(initial=1))
    order = np.lexsort((np.arange(len(lengths)), lengths))
    order = order[lengths[order] > 0]  # as their codes stand in order, each beginning some entries
    entries = 1 << (longest - lengths[order].astype(np.int64))
    table = np.zeros((1 << longest, 2), np.uint16)  # symbol, length; 0 where no code begins so
    filled = np.stack([order, lengths[order]], axis=1).repeat(entries, axis=0)
    table[: len(filled)] = filled
    symbols: NDArray[np.integer] = np.zeros(count, np.uint8 if len(lengths) <= 256 else np.uint16)
    if not _read(np.frombuffer(data, np.uint8), table, longest, symbols):
        raise FormatError("a Huffman stream does not end where it should: the file is damaged")
    return symbols


def pack_lengths(lengths: NDArray[np.uint8]) -> bytes:
    """A table as it stands in a file: 4 bits a symbol (or a gap), the low half of a byte first."""
    even = np.concatenate([lengths, np.zeros(len(lengths) % 2, np.uint8)])
    return (even[0::2] | even[1::2] << 4).tobytes()


def unpack_lengths(data: bytes, count: int) -> NDArray[np.uint8]:
    """The reverse of `pack_lengths`, for an alphabet of `count` symbols. Raises FormatError."""
    packed = np.frombuffer(data, np.uint8)
    if len(packed) != (count + 1) // 2:
        raise FormatError(f"{len(packed)} bytes are no table of {count} code lengths")
    lengths = np.stack([packed & 15, packed >> 4], axis=1).reshape(-1)
    if lengths[count:].any():
        raise FormatError("the last half byte of a table of code lengths is not empty")
    return lengths[:count]


@nb.njit(cache=True)
def _write(symbols: np.ndarray, codes: np.ndarray, lengths: np.ndarray, out: np.ndarray) -> None:
    at = 0  # in bits
    for symbol in symbols:
        for i in range(lengths[symbol] - 1, -1, -1):
            out[at >> 3] |= ((codes[symbol] >> i) & 1) << (7 - (at & 7))
            at += 1


@nb.njit(cache=True, nogil=True)
def _read(data: np.ndarray, table: np.ndarray, longest: int, symbols: np.ndarray) -> bool:
    window, held, at = 0, 0, 0  # `held` bits of `window` are still to be read
    total = 8 * len(data)
    used = 0
    for i in range(len(symbols)):
        while held < longest:
            window = (window << 8) | (data[at] if at < len(data) else 0)
            at += 1
            held += 8
        peek = (window >> (held - longest)) & ((1 << longest) - 1)
        length = table[peek, 1]
        used += length
        if length == 0 or used > total:
            return False
        symbols[i] = table[peek, 0]
        held -= length
        window &= (1 << held) - 1
    return total - used < 8 and window == 0
