"""Where every byte of a compressed file goes, layer by layer."""

import struct
from dataclasses import dataclass

from tinysqueeze.network.params import shapes
from tinysqueeze.weights.compression import fileformat
from tinysqueeze.weights.compression.fileformat import FRAME, HUFFMAN, PAPER
from tinysqueeze.weights.compression.rans import read_shares
from tinysqueeze.weights.compression.tensors import Dense

PARTS = ("weights", "positions", "tables", "biases", "metadata", "frame")


@dataclass(frozen=True)
class Line:
    """One section of a file, or its header ("") and checksums.

    `parts` are bytes by what they are for (PARTS): coded weights, positions where those are coded
    apart, tables (codebooks, steps, code lengths or shares), biases and other dense numbers, metadata, frame.
    """

    path: str
    parameters: int
    stored: int  # parameters that are not zero
    different: int  # different values among them
    parts: dict[str, int]

    @property
    def bytes(self) -> int:
        """All of it."""
        return sum(self.parts.values())

    @property
    def bits_per_parameter(self) -> float:
        """Bits of the file for each parameter, zeros included."""
        return 8 * self.bytes / self.parameters if self.parameters else 0.0


def inspect(data: bytes) -> list[Line]:
    """A line for the header and the metadata, then one for each array. They add up to the file.

    Raises FormatError where the file is not intact.
    """
    compressed = fileformat.from_bytes(data)
    (_, meta), *sections = fileformat.sections(data)
    frame = len(data) - sum(len(content) + FRAME for _, content in sections) - len(meta)
    lines = [Line("", 0, 0, 0, {"metadata": len(meta), "frame": frame})]
    for path, (kind, content) in zip(shapes(compressed.model), sections, strict=True):
        tensor = compressed.tensors[path]
        values = tensor.values()
        stored = values[values != 0]
        parts = {"frame": FRAME} | (
            {"biases": len(content)} if isinstance(tensor, Dense) else _coded_parts(kind, content)
        )
        different = len(set(stored.reshape(-1).tolist()))
        lines.append(Line(path, values.size, stored.size, different, parts))
    return lines


def _coded_parts(kind: bytes, content: bytes) -> dict[str, int]:
    """Bytes of the tables, the positions and the weights of a coded layer."""
    table = 4
    if kind != b"S":
        (count,) = struct.unpack_from("<H", content)
        table = 2 + count * (4 if kind == b"C" else 2)
    coding, rest = content[table], len(content) - table - 1
    if coding != PAPER:
        _, shares = read_shares(content[table + 1 :])
        return {"tables": table + 1 + shares, "weights": rest - shares}
    _, gap_bytes, _, alphabet = HUFFMAN.unpack_from(content, table + 1)
    tables = HUFFMAN.size + 8 + (alphabet + 1) // 2
    return {
        "tables": table + 1 + tables,
        "positions": gap_bytes,
        "weights": rest - tables - gap_bytes,
    }
