"""The file format .tsq, versions 2 and 3, to the byte. All numbers little-endian.

    offset  bytes
    0       8    magic: 89 54 53 51 0D 0A 1A 0A ("\\x89TSQ\\r\\n\\x1a\\n"; PNG's idea)
    8       2    version: 2, or 3 where the network is a graph
    10      2    number of sections
    12      4    length of the whole file in bytes
    16      4    CRC-32 (zlib's) of the 16 bytes above
    20      ...  sections
    end-32  32   SHA-256 of everything before it

A section is 4 bytes length n, 1 byte kind, n bytes content, 4 bytes CRC-32 of all that. Section 0 is
of kind "M": the metadata, JSON, deflated (RFC 1950), whose "spec" rebuilds the network: a model's name
with its metaparameters, or since version 3 all nodes of a graph (`graph.spec`). Networks that have a
name are still written as version 2, to the bit as before. Then there is one section for each of the
network's arrays, in its order, whose shape the network tells:

    kind "D"  dense numbers: float32 each
    kind "H"  the same in float16
    kind "C"  a codebook: uint16 n, n float32, then levels
    kind "c"  the same with float16
    kind "S"  a grid: float32 step, then levels; weight = step * level

Levels are 1 byte coding, then up to the section's end:

    coding 0  a stream of `rans`, to the byte at its `encode_levels`; the weight in C order
    coding 1  the paper's: uint32 stored entries e, uint32 bytes of gaps g, int16 lowest level,
              uint16 alphabet a, 8 bytes code lengths of the 16 gaps, (a + 1) // 2 bytes code lengths
              of the levels, g bytes gaps, the rest the levels (`huffman`, `relative_index`)

In a codebook, level 0 is the weight 0.0; level -1 is the largest of the negative values, 1 the
smallest of the others, and so on outwards; the codebook itself may stand in any order.
"""

import hashlib
import json
import struct
import zlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from tinysqueeze.errors import FormatError, UserError
from tinysqueeze.files import content, parse_json, write_atomically
from tinysqueeze.graph import GraphModel, rebuild
from tinysqueeze.network.models import Model
from tinysqueeze.network.params import shapes
from tinysqueeze.processors import usable_processors
from tinysqueeze.weights.compression import huffman
from tinysqueeze.weights.compression.rans import decode_levels, encode_levels
from tinysqueeze.weights.compression.relative_index import from_gaps, to_gaps
from tinysqueeze.weights.compression.tensors import Dense, Levels, Shared, Stepped, Tensor

MAGIC = b"\x89TSQ\r\n\x1a\n"
VERSION, WITH_GRAPH = 2, 3
HEADER = struct.Struct("<8sHHI")
SECTION = struct.Struct("<Ic")
HUFFMAN = struct.Struct("<IIhH")
FRAME = SECTION.size + 4  # what a section costs beside its content
SUFFIX = ".tsq"
MOST_METADATA = 1 << 24
MOST_PARAMETERS = 1 << 28
MOST_A_BYTE = 256  # parameters: 99 of 100 pruned are some 60, rANS could be made to give 22,000
ANS, PAPER = 0, 1
CODINGS = {"ans": ANS, "huffman": PAPER}


@dataclass(frozen=True, eq=False)
class Compressed:
    """What a file holds: the network, its arrays by path, and further metadata (JSON-able)."""

    model: Model
    tensors: Mapping[str, Tensor]
    extra: Mapping[str, Any]

    def params(self) -> dict[str, np.ndarray]:
        """The arrays by path, float32."""
        return {path: tensor.values() for path, tensor in self.tensors.items()}


def to_bytes(compressed: Compressed, coding: str = "ans") -> bytes:
    """The file's bytes. `coding` is "ans" or "huffman", the paper's. Raises UserError."""
    missing = set(shapes(compressed.model)) ^ set(compressed.tensors)
    if missing:
        raise UserError(f"{compressed.model.name} and the arrays differ in {sorted(missing)[0]}")
    meta = {"spec": compressed.model.spec, **compressed.extra}
    sections = [_section(b"M", zlib.compress(json.dumps(meta).encode(), 9))]
    for path in shapes(compressed.model):
        sections.append(_section(*_content(compressed.tensors[path], CODINGS[coding])))
    size = HEADER.size + 4 + sum(map(len, sections)) + 32
    excess = _excess(compressed.model, size)
    if excess:
        raise UserError(excess)
    head = HEADER.pack(MAGIC, _version(compressed.model), len(sections), size)
    body = b"".join([head, _crc(head), *sections])
    return body + hashlib.sha256(body).digest()


def write(path: str | Path, compressed: Compressed, coding: str = "ans") -> int:
    """Write the file whole or not at all; returns its bytes. Raises UserError."""
    data = to_bytes(compressed, coding)
    write_atomically(path, data)
    return len(data)


def read(path: str | Path) -> Compressed:
    """Read a file. Raises FormatError where it is not whole, UserError where it cannot be read."""
    try:
        data = content(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error})") from error
    try:
        return from_bytes(data)
    except FormatError as error:
        raise FormatError(f"{path}: {error}") from error


def from_bytes(data: bytes) -> Compressed:
    """The reverse of `to_bytes`. Raises FormatError for anything but an intact file.

    Nothing is believed before its checksum was; sizes come from the network, which is checked first.
    """
    parts = sections(data)
    model, extra = _metadata(parts[0], len(data))
    if _version(model) != HEADER.unpack_from(data)[1]:
        raise FormatError("a graph in a file of a version that has none, or the other way round")
    expected = shapes(model)
    if len(parts) != len(expected) + 1:
        raise FormatError(f"{len(parts) - 1} arrays, {model.name} has {len(expected)}")

    def tensor(item: tuple[tuple[str, tuple[int, ...]], tuple[bytes, bytes]]) -> Tensor:
        (path, shape), (kind, content) = item
        try:
            return _tensor(kind, content, shape)
        except (FormatError, struct.error, IndexError, ValueError) as error:
            raise FormatError(f"{path}: {error}") from error

    items = list(zip(expected.items(), parts[1:], strict=True))
    # The decoders are compiled and run side by side; the longest begin, so that none ends alone.
    with ThreadPoolExecutor(usable_processors()) as pool:
        running = {
            item[0][0]: pool.submit(tensor, item)
            for item in sorted(items, key=lambda item: -len(item[1][1]))
        }
    return Compressed(model, {path: running[path].result() for path in expected}, extra)


def sections(data: bytes) -> list[tuple[bytes, bytes]]:
    """The (kind, content) of every section, with all checksums checked. Raises FormatError."""
    if data[: len(MAGIC)] != MAGIC:
        raise FormatError("not a .tsq file: it does not begin as one")
    if len(data) < HEADER.size + 4 + 32:
        raise FormatError("the file ends inside its header")
    _, version, count, size = HEADER.unpack_from(data)
    if _crc(data[: HEADER.size]) != data[HEADER.size : HEADER.size + 4]:
        raise FormatError("the header is damaged (its CRC-32 differs)")
    if version not in (VERSION, WITH_GRAPH):
        raise FormatError(
            f"version {version} of the format; this program reads {VERSION} and {WITH_GRAPH}"
        )
    if size != len(data):
        raise FormatError(f"{len(data):,} bytes of {size:,}: it was cut off or joined to another")
    found, at, end = [], HEADER.size + 4, len(data) - 32
    for number in range(count):
        if at + FRAME > end:
            raise FormatError(f"section {number} of {count} lies beyond the end")
        length, kind = SECTION.unpack_from(data, at)
        stop = at + SECTION.size + length
        if stop + 4 > end:
            raise FormatError(f"section {number} of {count} lies beyond the end")
        if _crc(data[at:stop]) != data[stop : stop + 4]:
            raise FormatError(f"section {number} of {count} is damaged (its CRC-32 differs)")
        found.append((kind, data[at + SECTION.size : stop]))
        at = stop + 4
    if at != end or not found:
        raise FormatError("the sections do not fill the file")
    if hashlib.sha256(data[:end]).digest() != data[end:]:
        raise FormatError("the file is damaged (its SHA-256 differs)")
    return found


def symbols_of(data: bytes) -> int:
    """The most values of a codebook, or symbols of a Huffman code, in a file: a decoder's tables."""
    most = 0
    for kind, body in sections(data):
        if kind in b"CcS":
            count = 0 if kind == b"S" else int.from_bytes(body[:2], "little")
            at = 4 if kind == b"S" else 2 + count * (2 if kind == b"c" else 4)
            alphabet = HUFFMAN.unpack_from(body, at + 1)[3] if body[at] == PAPER else 0
            most = max(most, count, alphabet)
    return most


def _version(model: Model) -> int:
    return WITH_GRAPH if isinstance(model, GraphModel) else VERSION


def _crc(data: bytes) -> bytes:
    return struct.pack("<I", zlib.crc32(data))


def _section(kind: bytes, content: bytes) -> bytes:
    framed = SECTION.pack(len(content), kind) + content
    return framed + _crc(framed)


def _metadata(section: tuple[bytes, bytes], size: int) -> tuple[Model, dict[str, Any]]:
    kind, content = section
    if kind != b"M":
        raise FormatError("the first section is not the metadata")
    try:
        inflate = zlib.decompressobj()
        text = inflate.decompress(content, MOST_METADATA)
        if not inflate.eof or inflate.unused_data:
            raise FormatError("its deflated metadata do not end where they should")
        meta = parse_json(text)
        model = rebuild(meta.pop("spec"))
        excess = _excess(model, size)
    except FormatError:
        raise
    except (zlib.error, ValueError, TypeError, LookupError, AttributeError, UserError) as error:
        raise FormatError(f"the network it is for cannot be built: {error}") from error
    if excess:
        raise FormatError(excess)
    return model, meta


def _excess(model: Model, size: int) -> str:
    """What is wrong where a file of `size` bytes can't hold the network; "" where it can."""
    total = sum(prod(shape) for shape in shapes(model).values())
    if total <= min(MOST_PARAMETERS, MOST_A_BYTE * size):
        return ""
    return f"a network of {total:,} parameters: more than this format holds in {size:,} bytes"


def _content(tensor: Tensor, coding: int) -> tuple[bytes, bytes]:
    """(kind, content) of an array's section."""
    match tensor:
        case Dense():
            kind, dtype = (b"H", "<f2") if tensor.half else (b"D", "<f4")
            return kind, tensor.array.astype(dtype).tobytes()
        case Shared():
            kind, dtype = (b"c", "<f2") if tensor.half else (b"C", "<f4")
            table = (
                struct.pack("<H", len(tensor.codebook)) + tensor.codebook.astype(dtype).tobytes()
            )
            return kind, table + _coded(tensor.levels(), coding)
        case Stepped():
            return b"S", struct.pack("<f", tensor.step) + _coded(tensor.levels(), coding)


def _coded(levels: Levels, coding: int) -> bytes:
    """Levels as they stand in a section."""
    if coding == ANS:
        return bytes([ANS]) + encode_levels(levels)
    gaps, stored = to_gaps(levels.reshape(-1))
    lowest = int(stored.min(initial=0))
    symbols = stored - lowest
    gap_lengths = huffman.code_lengths(np.bincount(gaps, minlength=16))
    lengths = huffman.code_lengths(np.bincount(symbols, minlength=1))
    gap_stream = huffman.encode(gaps, gap_lengths)
    return b"".join(
        [
            bytes([PAPER]),
            HUFFMAN.pack(len(stored), len(gap_stream), lowest, len(lengths)),
            huffman.pack_lengths(gap_lengths),
            huffman.pack_lengths(lengths),
            gap_stream,
            huffman.encode(symbols, lengths),
        ]
    )


def _tensor(kind: bytes, content: bytes, shape: tuple[int, ...]) -> Tensor:
    """The array out of its section's content. Raises FormatError, or struct.error where too short."""
    if kind in (b"D", b"H"):
        array = np.frombuffer(content, "<f4" if kind == b"D" else "<f2").astype(np.float32)
        if array.size != prod(shape) or not np.isfinite(array).all():
            raise FormatError("its numbers are too few, too many or not finite")
        return Dense(array.reshape(shape), half=kind == b"H")
    if kind == b"S":
        (step,) = struct.unpack_from("<f", content)
        if not np.isfinite(step):
            raise FormatError("its step is not a number")
        return Stepped(_levels(content[4:], shape), step)
    if kind not in (b"C", b"c"):
        raise FormatError(f"its section is of an unknown kind {kind!r}")
    half = kind == b"c"
    (count,) = struct.unpack_from("<H", content)
    size = 2 if half else 4
    codebook = np.frombuffer(content, "<f2" if half else "<f4", count, 2).astype(np.float32)
    if not np.isfinite(codebook).all():
        raise FormatError("its codebook is not finite")
    levels = _levels(content[2 + size * count :], shape)
    ranks = Shared(levels, codebook, half).level_of_code()
    lowest = ranks.min()
    levels -= lowest
    if levels.view(np.uint32).max(initial=0) >= len(ranks):  # or negative, as a signed number
        raise FormatError("a level lies outside its codebook")
    code_of_level = np.zeros(len(ranks), np.int32)
    code_of_level[ranks - lowest] = np.arange(len(ranks))
    return Shared(code_of_level[levels], codebook, half)


def _levels(content: bytes, shape: tuple[int, ...]) -> Levels:
    """The reverse of `_coded`."""
    count = prod(shape)
    if content[0] == ANS:
        return decode_levels(content[1:], count).reshape(shape)
    if content[0] != PAPER:
        raise FormatError(f"coding {content[0]} is unknown")
    entries, gap_bytes, lowest, alphabet = HUFFMAN.unpack_from(content, 1)
    if entries > count:
        raise FormatError(f"{entries} entries stored of {count}")
    at = 1 + HUFFMAN.size
    gap_lengths = huffman.unpack_lengths(content[at : at + 8], 16)
    at += 8
    lengths = huffman.unpack_lengths(content[at : at + (alphabet + 1) // 2], alphabet)
    at += (alphabet + 1) // 2
    if gap_bytes > len(content) - at:
        raise FormatError(f"{gap_bytes} bytes of gaps where {len(content) - at} are left")
    gaps = huffman.decode(content[at : at + gap_bytes], gap_lengths, entries)
    stored = huffman.decode(content[at + gap_bytes :], lengths, entries).astype(np.int32) + lowest
    return from_gaps(gaps, stored, count).reshape(shape)
