"""Asymmetric numeral systems for whole numbers near zero: what pruned, quantised weights are.

Huffman's codes cost at least one bit a symbol, yet four of five weights of conv10 are zero, which
tells 0.7 bits. Here a message is one number x, and a symbol of probability f / 4096 makes it
4096 / f times larger: fractions of bits. Decoding takes one look into a table and one product.
Sources: Duda 2013, arXiv:1311.2540, section 3 (the range variant, rANS); Giesen 2014,
arXiv:1402.3392 (two numbers that take turns, so that the processor need not wait for either).

A level v becomes a token, which is coded so, and plain bits, which are noise and kept as they are.
The token of |v| is m = |v| below 8; else it tells the number n of bits and the two below the leading
one, m = 4 (n - 2) + those two, and the n - 3 lowest bits are plain (JPEG XL, ISO/IEC 18181-1, calls
that hybrid integers). With the sign it is 2 m - 1 for what is positive, 2 m for what is not.
"""

import struct

import numba as nb
import numpy as np
from numpy.typing import NDArray

from tinysqueeze.errors import FormatError

MAX_BITS = 15  # |level| < 2^15
LARGEST = (1 << MAX_BITS) - 1
TOKENS = 8 * (MAX_BITS - 1)
SHARE_BITS = 12  # tokens' probabilities are whole 4096ths
WHOLE = 1 << SHARE_BITS
START = 1 << 16  # a state stays in 2^16 .. 2^32, by 16 bits moved out or in
HEAD = struct.Struct("<BI")  # number of tokens, bytes of plain bits
LEVELS_A_BYTE = 8 * 2840  # no token's share exceeds 4095, so a level takes 1 / 2839 bits at least


def encode_levels(levels: NDArray[np.integer]) -> bytes:
    """Any shape of integers, |level| < 2^15, in C order -> bytes. Raises ValueError beyond that.

    1 byte number of tokens t, uint32 bytes of plain bits p, t shares of 4096 (one byte below 128,
    else two: the low seven bits with the top bit set, then the rest), p bytes plain bits, first
    bit lowest; then uint16 each: two states, the first's low half first, and what comes in.
    """
    flat = np.ascontiguousarray(levels, np.int32).reshape(-1)
    if flat.size and np.abs(flat).max() > LARGEST:
        raise ValueError(f"levels reach {np.abs(flat).max()}, the coder's largest is {LARGEST}")
    tokens = np.empty(flat.size, np.uint8)
    plain = np.empty(2 * flat.size + 8, np.uint8)  # 12 bits a level at most
    plain_bytes = _split(flat, tokens, plain)
    shares = shares_of(np.bincount(tokens, minlength=2))
    words = np.empty(flat.size + 4, np.uint16)
    first = _push(tokens, shares, np.cumsum(shares) - shares, words)
    table = b"".join(
        bytes([share]) if share < 128 else bytes([128 | share & 127, share >> 7])
        for share in shares.tolist()
    )
    head = HEAD.pack(len(shares), plain_bytes)
    return head + table + plain[:plain_bytes].tobytes() + words[first:].astype("<u2").tobytes()


def decode_levels(data: bytes, count: int) -> NDArray[np.int32]:
    """The reverse; `data` must be one whole stream of `count` levels. Raises FormatError if not."""
    if count > LEVELS_A_BYTE * (len(data) + 1):
        raise FormatError("its stream is too short for its shape")
    _, plain_bytes = HEAD.unpack_from(data)
    shares, at = read_shares(data)
    words = data[at + plain_bytes :]
    if len(words) < 8 or len(words) % 2:
        raise FormatError("a stream of weights is cut off: the file is damaged")
    levels = np.empty(count, np.int32)
    plain = np.frombuffer(data[at : at + plain_bytes] + bytes(8), np.uint8)
    # What each of the 4096 slots says: its token's share, the place in it, the level, plain bits.
    token = np.repeat(np.arange(len(shares)), shares)
    place = np.arange(WHOLE) - (np.cumsum(shares) - shares)[token]
    magnitude = (token + 1) // 2
    spare = np.maximum(magnitude // 4 - 1, 0)
    level = (magnitude - 4 * spare << spare) * np.where(token % 2, 1, -1)
    slots = np.stack([shares[token], place, level, spare], axis=1).astype(np.int32)
    if not _pop(np.frombuffer(words, "<u2"), plain, slots, levels):
        raise FormatError("a stream of weights does not end where it should: the file is damaged")
    return levels


def shares_of(counts: NDArray[np.integer]) -> NDArray[np.int64]:
    """How often each token occurs -> shares that add up to 4096: at least 1 where it does.

    The commonest token gives or takes what rounding left. No token gets all.
    """
    counts = np.asarray(counts, np.int64)
    shares = np.rint(counts * (WHOLE / max(counts.sum(), 1))).astype(np.int64)
    shares = np.maximum(shares, counts > 0)
    if np.count_nonzero(counts) < 2:
        shares[0 if np.argmax(counts) else 1] = 1
    shares[np.argmax(counts)] += WHOLE - shares.sum()
    return shares


def read_shares(data: bytes) -> tuple[NDArray[np.int64], int]:
    """The tokens' shares, and where in the stream they end. Raises FormatError, IndexError."""
    shares, at = np.zeros(data[0], np.int64), HEAD.size
    for token in range(len(shares)):
        shares[token] = data[at] & 127
        at += 1
        if data[at - 1] & 128:
            shares[token] += data[at] << 7
            at += 1
    if len(shares) > TOKENS or shares.sum() != WHOLE or shares.max() == WHOLE:
        raise FormatError("its table of shares is none")
    return shares, at


@nb.njit(cache=True)
def _split(levels: np.ndarray, tokens: np.ndarray, plain: np.ndarray) -> int:
    """Levels into tokens and plain bits; returns the bytes of those."""
    window, held, at = 0, 0, 0  # `held` bits of `window` are not written yet
    for i in range(len(levels)):
        magnitude = abs(levels[i])
        spare = 0
        while magnitude >> spare >= 8:
            spare += 1
        m = 4 * spare + (magnitude >> spare)
        tokens[i] = 2 * m - 1 if levels[i] > 0 else 2 * m
        window |= (magnitude & ((1 << spare) - 1)) << held
        held += spare
        while held >= 8:
            plain[at] = window & 255
            window >>= 8
            held -= 8
            at += 1
    if held:
        plain[at] = window
        at += 1
    return at


@nb.njit(cache=True)
def _push(tokens: np.ndarray, shares: np.ndarray, starts: np.ndarray, words: np.ndarray) -> int:
    """Encode from the last token to the first, words from the back; returns where they begin.

    A state takes in a token by x -> 4096 (x // share) + start + x % share.
    """
    state, other = START, START
    at = len(words)
    for i in range(len(tokens) - 1, -1, -1):
        state, other = other, state
        share = shares[tokens[i]]
        if state >= share << (32 - SHARE_BITS):  # it would leave 32 bits
            at -= 1
            words[at] = state & 0xFFFF
            state >>= 16
        state = (state // share << SHARE_BITS) + starts[tokens[i]] + state % share
    for x in (other, state):
        at -= 2
        words[at], words[at + 1] = x & 0xFFFF, x >> 16
    return at


@nb.njit(cache=True, nogil=True)
def _pop(words: np.ndarray, plain: np.ndarray, slots: np.ndarray, levels: np.ndarray) -> bool:
    """Fill `levels`; False unless both states end as they began and all has been used."""
    state = nb.int64(words[0]) | nb.int64(words[1]) << 16
    other = nb.int64(words[2]) | nb.int64(words[3]) << 16
    at, bit, last = 4, 0, 8 * (len(plain) - 8)
    for i in range(len(levels)):
        slot = slots[state & (WHOLE - 1)]
        state = slot[0] * (state >> SHARE_BITS) + slot[1]
        if state < START:
            if at == len(words):
                return False
            state = state << 16 | words[at]
            at += 1
        state, other = other, state
        level, spare = slot[2], slot[3]
        if spare:
            first = bit >> 3
            window = nb.int64(plain[first]) | nb.int64(plain[first + 1]) << 8
            window |= nb.int64(plain[first + 2]) << 16
            low = window >> (bit & 7) & ((1 << spare) - 1)
            bit += spare
            if bit > last:
                return False
            level += low if level > 0 else -low
        levels[i] = level
    if state != START or other != START or at != len(words) or last - bit >= 8:
        return False
    return bit == last or plain[bit >> 3] >> (bit & 7) == 0
