"""An adaptive range coder for whole numbers near zero: what pruned, quantised weights are.

Huffman's codes cost at least one bit a symbol, yet four of five weights of conv10 are zero, which
tells 0.7 bits. A range coder spends fractions of bits, and one that learns the probabilities as it
goes needs no table in the file. Sources: Martin 1979, "Range encoding"; the binary form with a
carry is LZMA's (Pavlov); two learning speeds averaged are those of VVC (ITU-T H.266, 9.3.4.3).

A level v is told by binary decisions, each with its own adaptive probability:
  is it zero? negative? then the number n of bits of |v| in unary, then the bits below the leading
  one, of which the upper two are modelled and the rest, which is noise, is sent as it is.
"""

import numba as nb
import numpy as np
from numpy.typing import NDArray

from tinysqueeze.errors import FormatError

MAX_BITS = 15  # |level| < 2^15
LARGEST = (1 << MAX_BITS) - 1
MODELS = 2 + MAX_BITS + 2 * (MAX_BITS + 1)  # zero, sign, length so far, upper bits by length
TOP, HALF = 1 << 24, 1 << 15
EVEN = -1  # in place of a model: an even chance, from which nobody learns
# How far a probability moves towards what it sees, of 65536: 1/2, 1/3, ... down to 1/16 and 1/128.
RATES = np.stack([65536 // np.minimum(np.arange(2, 129), last) for last in (16, 128)], axis=1)


def encode_levels(levels: NDArray[np.integer]) -> bytes:
    """Any shape of integers, |level| < 2^15, in C order -> bytes. Raises ValueError beyond that."""
    flat = np.ascontiguousarray(levels, np.int32).reshape(-1)
    if flat.size and np.abs(flat).max() > LARGEST:
        raise ValueError(f"levels reach {np.abs(flat).max()}, the coder's largest is {LARGEST}")
    out = np.empty(flat.size * 5 + 16, np.uint8)  # a level takes at most 33 decisions, 5 bytes
    return out[: _encode(flat, out)].tobytes()


def decode_levels(data: bytes | NDArray[np.uint8], count: int) -> NDArray[np.int32]:
    """The reverse; `data` must be one whole stream of `count` levels. Raises FormatError if not."""
    levels = np.zeros(count, np.int32)
    source = np.frombuffer(data, np.uint8)
    if not _decode(source, levels):
        raise FormatError("a stream of weights does not end where it should: the file is damaged")
    return levels


@nb.njit(cache=True)
def _new_models():
    """The probabilities of a one (16 bits), fast and slow, and how often each was used."""
    return np.full((MODELS, 2), HALF, np.int32), np.zeros(MODELS, np.int32)


@nb.njit(cache=True)
def _probability(p, m):
    """Of a one, of 65536, kept away from 0 and 1."""
    return min(max((p[m, 0] + p[m, 1]) >> 1, 64), 65536 - 64)


@nb.njit(cache=True)
def _learn(p, seen, m, bit):
    """Move both estimates towards `bit`: quickly at first, like an average, then at their own pace."""
    target = 65535 if bit else 0
    p[m, 0] += ((target - p[m, 0]) * RATES[seen[m], 0]) >> 16
    p[m, 1] += ((target - p[m, 1]) * RATES[seen[m], 1]) >> 16
    seen[m] += seen[m] < len(RATES) - 1


@nb.njit(cache=True)
def _bits_of(magnitude):
    """How many bits a number has: 1 -> 1, 2 and 3 -> 2, 4 to 7 -> 3."""
    n = 0
    while magnitude >> n:
        n += 1
    return n


@nb.njit(cache=True)
def _shift_out(state, out):
    """Move the top byte of `low` out. A byte 255 waits, since a carry may still come.

    state: low, range, the byte that waits, how many wait, bytes written.
    """
    low = state[0]
    if low < 0xFF000000 or low > 0xFFFFFFFF:
        carry = low >> 32
        value = state[2]
        while state[3]:
            out[state[4]] = (value + carry) & 255
            state[4] += 1
            value = 255
            state[3] -= 1
        state[2] = (low >> 24) & 255
    state[3] += 1
    state[0] = (low & 0x00FFFFFF) << 8


@nb.njit(cache=True)
def _put(state, out, p, seen, m, bit):
    """Encode one decision with model m: a one gets the lower part of the range."""
    bound = state[1] >> 1 if m == EVEN else (state[1] >> 16) * _probability(p, m)
    if bit:
        state[1] = bound
    else:
        state[0] += bound
        state[1] -= bound
    if m != EVEN:
        _learn(p, seen, m, bit)
    while state[1] < TOP:
        state[1] <<= 8
        _shift_out(state, out)


@nb.njit(cache=True)
def _upper_model(n, j):
    """The model of the bit j + 1 places below the leading one of an n-bit magnitude."""
    return 2 + MAX_BITS + 2 * n + j if j < 2 else EVEN


@nb.njit(cache=True)
def _encode(levels, out):
    p, seen = _new_models()
    state = np.array([0, 0xFFFFFFFF, 0, 1, 0], np.int64)
    for level in levels:
        _put(state, out, p, seen, 0, level != 0)
        if level == 0:
            continue
        _put(state, out, p, seen, 1, level < 0)
        magnitude = abs(level)
        n = _bits_of(magnitude)
        for i in range(1, min(n + 1, MAX_BITS)):
            _put(state, out, p, seen, 1 + i, i < n)
        for j in range(n - 1):
            _put(state, out, p, seen, _upper_model(n, j), (magnitude >> (n - 2 - j)) & 1)
    least = state[4] + 1
    for _ in range(5):
        _shift_out(state, out)
    # The first byte is always 0; zeros at the end are what the decoder reads past it anyway.
    end = state[4]
    while end > least and out[end - 1] == 0:
        end -= 1
    out[: end - 1] = out[1:end].copy()
    return end - 1


@nb.njit(cache=True)
def _byte(data, at):
    """Past the end all is zero, since the coder drops zeros there."""
    return nb.int64(data[at]) if at < len(data) else 0


@nb.njit(cache=True)
def _get(code, width, at, data, p, seen, m):
    """Decode one decision: (bit, code, width, at); `code` lies in a range of `width`."""
    bound = width >> 1 if m == EVEN else (width >> 16) * _probability(p, m)
    bit = code < bound
    if bit:
        width = bound
    else:
        code -= bound
        width -= bound
    if m != EVEN:
        _learn(p, seen, m, bit)
    while width < TOP:
        width <<= 8
        code = code << 8 | _byte(data, at)
        at += 1
    return bit, code, width, at


@nb.njit(cache=True, nogil=True)
def _decode(data, levels):
    """Fill `levels`; False unless the stream ends with the data."""
    p, seen = _new_models()
    code, width, at = 0, 0xFFFFFFFF, 4
    for i in range(4):
        code = code << 8 | _byte(data, i)
    for i in range(len(levels)):
        bit, code, width, at = _get(code, width, at, data, p, seen, 0)
        if not bit:
            continue
        negative, code, width, at = _get(code, width, at, data, p, seen, 1)
        n = 1
        while n < MAX_BITS:
            bit, code, width, at = _get(code, width, at, data, p, seen, 1 + n)
            if not bit:
                break
            n += 1
        magnitude = 1
        for j in range(n - 1):
            bit, code, width, at = _get(code, width, at, data, p, seen, _upper_model(n, j))
            magnitude = magnitude << 1 | bit
        levels[i] = -magnitude if negative else magnitude
        if at > len(data) + 8:
            return False
    return len(data) <= at <= len(data) + 5
