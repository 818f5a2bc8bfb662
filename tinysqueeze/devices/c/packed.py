"""The part of an exported program that gets its weights out of a .tsq file, where it runs."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod

from tinysqueeze.graph import Conv, Fold, Graph
from tinysqueeze.network.layers import Shape

TABLES = 3 * 4096  # bytes of tsq.c beside those that grow with TSQ_SYMBOLS


@dataclass(frozen=True)
class Packed:
    """A .tsq file for a graph, and what of its arrays goes where.

    file      its bytes
    shapes    its arrays in order, by path
    symbols   the entries of the decoder's tables (TSQ_SYMBOLS)
    """

    graph: Graph
    folds: Sequence[Fold]
    names: Mapping[str, str]  # path of a layer -> its name in C
    file: bytes
    shapes: Mapping[str, Shape]
    symbols: int

    @property
    def ram(self) -> int:
        """Bytes of the unpacked arrays and the decoder's tables."""
        return 4 * sum(self._sizes().values()) + TABLES + 6 * self.symbols

    def array(self, path: str) -> str:
        """An array's name in C: "fire2/expand1x1/weight" -> fire2_expand1x1_weight.

        Those of norms are numbered: the name of one that stands alone is its convolution's.
        """
        layer, _, kind = path.rpartition("/")
        norms = list(dict.fromkeys(fold.norm.path for fold in self.folds))
        return (
            f"norm_{norms.index(layer)}_{kind}" if layer in norms else f"{self.names[layer]}_{kind}"
        )

    def _sizes(self) -> dict[str, int]:
        """Every array in C: those of the file, and those that convolutions have besides."""
        sizes = {self.array(path): prod(shape) for path, shape in self.shapes.items()}
        for node in self.graph.nodes:
            if isinstance(node, Conv):
                name = self.names[node.path]
                sizes.setdefault(f"{name}_weight", node.filters)  # a norm alone: one a channel
                sizes.setdefault(f"{name}_bias", node.filters)
        return sizes

    def declarations(self) -> Iterator[str]:
        """All arrays, and the table of those in the file."""
        for name, size in self._sizes().items():
            yield f"static float {name}[{size}];"
        yield "\nstatic const tsq_array_t packed_arrays[] = {"
        for path, shape in self.shapes.items():
            yield f"    {{{self.array(path)}, {prod(shape)}}},"
        yield "};\n"

    def load(self, name: str) -> Iterator[str]:
        """The function that unpacks a file and folds the norms."""
        version, metadata = stamp(self.file)
        yield f"int {name}_load(const uint8_t *file, uint32_t size)\n{{"
        yield (
            f"    static const tsq_network_t network = {{packed_arrays, {len(self.shapes)}, {version}, "
            f"{metadata}u}};"
        )
        yield "    const int code = tsq_unpack(file, size, &network);\n    if (code)\n        return code;"
        sizes, filled = self._sizes(), {self.array(path) for path in self.shapes}
        for fold in self.folds:
            weight, bias = (f"{self.names[fold.path]}_{kind}" for kind in ("weight", "bias"))
            for array, value in ((weight, 1), (bias, 0)):
                if array not in filled:
                    yield f"    fill({array}, {value}, {sizes[array]});"
                    filled.add(array)
            first = f" + {fold.first}" if fold.first else ""
            arrays = ", ".join(
                self.array(f"{fold.norm.path}/{kind}") + first
                for kind in ("weight", "bias", "mean", "var")
            )
            rows = sizes[weight] // fold.filters
            norm = f"&(norm_t){{{arrays}, {fold.norm.eps!r}}}"
            yield f"    fold({norm}, {weight}, {bias}, {rows}, {fold.filters});"
        yield "    return TSQ_OK;\n}\n"


def stamp(file: bytes) -> tuple[int, int]:
    """Of a .tsq file's bytes the version and the CRC-32 of its metadata: what the decoder in C checks."""
    length = int.from_bytes(file[20:24], "little")
    return file[8], int.from_bytes(file[25 + length : 29 + length], "little")
