"""Writes a network as plain C99: constants, two static buffers and a handful of loops.

The memory planner lays out the arena; `kernels.c` beside this file holds the loops, `float32.c` and
`int8.c` the arithmetic they do. What is written compiles without a warning and needs no library. The
weights are constants, or unpacked where it runs from a .tsq file, by `tsq.c`.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from tinysqueeze.devices.c.packed import Packed
from tinysqueeze.devices.int8 import Int8Network, check
from tinysqueeze.devices.memory import Arena, Stage, deployed, plan, window_of
from tinysqueeze.errors import UserError
from tinysqueeze.files import write_together
from tinysqueeze.graph import Activate, Add, Conv, Graph, Mean, Node, Pool, folded_params
from tinysqueeze.network.models import Model
from tinysqueeze.network.params import flatten, shapes

HERE = Path(__file__).parent
NUMBERS_A_LINE = 12
DECODER = ("tsq.c", "tsq.h", "tsq_checksums.h")
SYMBOLS = 4096  # of the decoder's tables, where a file needs no more


@dataclass(frozen=True)
class Exported:
    """What was written, and what it needs on a board, in bytes (code comes on top: some 3 kB)."""

    files: tuple[Path, ...]
    flash: int
    ram: int
    plan: Arena


def export_float32(
    model: Model, params: Mapping[str, Any], directory: str | Path, input_note: str = ""
) -> Exported:
    """Write NAME.h, NAME.c, NAME_kernels.h, NAME_weights.h and example.c in float32.

    input_note   a line for the header: what the values of the image are

    Raises UserError for a network that cannot be exported.
    """
    graph, folds = deployed(model)
    check(graph)
    flat, names = flatten(folded_params(folds, params)), identifiers(graph)
    constants: dict[str, tuple[str, np.ndarray]] = {}
    for node, name in zip(graph.nodes, names, strict=True):
        if isinstance(node, Conv):
            bias = flat[f"{node.path}/bias"] if node.bias else np.zeros(node.filters)
            constants[f"{name}_weight"] = ("float", flat[f"{node.path}/weight"].astype(np.float32))
            constants[f"{name}_bias"] = ("float", bias.astype(np.float32))
    note = input_note or "float32, as the network was trained"
    return _Writer(graph, constants, None, note).write(Path(directory))


def export_packed(
    model: Model, file: bytes, directory: str | Path, symbols: int, input_note: str = ""
) -> Exported:
    """The same in float32, with the weights in NAME.tsq, beside the decoder: tsq.c, tsq.h.

    file      the bytes of a .tsq file of this model; NAME_load() takes any whose metadata are the same
    symbols   the most values of a codebook or symbols of a Huffman code in it

    Raises UserError for a network that cannot be exported.
    """
    graph, folds = deployed(model)
    check(graph)
    names = dict(zip((n.path for n in graph.nodes), identifiers(graph), strict=True))
    packed = Packed(graph, folds, names, file, shapes(model), max(symbols, SYMBOLS))
    note = input_note or "float32, as the network was trained"
    return _Writer(graph, {}, None, note, packed).write(Path(directory))


def export_int8(network: Int8Network, directory: str | Path, input_note: str = "") -> Exported:
    """The same in integers: its logits are those of `network.integers`, bit for bit."""
    constants: dict[str, tuple[str, np.ndarray]] = {}
    names = identifiers(network.graph)
    for i, conv in network.convs.items():
        constants |= {
            f"{names[i]}_weight": ("int8_t", conv.weight),
            f"{names[i]}_bias": ("int32_t", conv.bias),
            f"{names[i]}_multiplier": ("int32_t", conv.multiplier),
            f"{names[i]}_shift": ("uint8_t", conv.shift),
        }
    for i, table in network.tables.items():
        constants[f"{names[i]}_table"] = ("uint8_t", table)
    for value in sorted({conv.source for conv in network.graph.nodes if isinstance(conv, Conv)}):
        constants[f"zero_{value}"] = ("uint8_t", network.grids[value].zero)
    zero = ", ".join(str(z) for z in network.grids[0].zero)
    scale = ", ".join(f"{s:.6g}" for s in np.unique(network.grids[0].scale))
    note = input_note or f"bytes q that stand for {scale} * (q - {zero})"
    return _Writer(network.graph, constants, network, note).write(Path(directory))


def identifiers(graph: Graph) -> list[str]:
    """The nodes' names in C: "fire2/expand1x1" -> fire2_expand1x1; numbered where two are alike."""
    names = [re.sub(r"\W", "_", node.path) for node in graph.nodes]
    return [
        f"{name}_node{i}" if names.count(name) > 1 or not name else name
        for i, name in enumerate(names)
    ]


def geometry(graph: Graph, node: Node) -> tuple[int, ...]:
    """The numbers of a geometry_t: of the source, the window, the target."""
    window = window_of(graph, node)
    return (
        *graph.size(node.source), *window.kernel, *window.stride, *window.pad,
        *graph.size(node.target), node.offset,
    )  # fmt: skip


@dataclass(frozen=True)
class _Writer:
    graph: Graph
    constants: dict[str, tuple[str, np.ndarray]]  # name -> (type in C, numbers)
    network: Int8Network | None
    input_note: str
    packed: Packed | None = None

    @property
    def name(self) -> str:
        return re.sub(r"\W", "_", self.graph.name) + ("_int8" if self.network else "")

    def write(self, directory: Path) -> Exported:
        """Write the files."""
        placed = plan(self.graph, itemsize=1 if self.network else 4)
        packed = self.packed
        flash = sum(_bytes(kind) * array.size for kind, array in self.constants.values())
        flash, more = (len(packed.file), packed.ram) if packed else (flash, 0)
        words = self.words(placed, flash, more)
        example = "example_packed.c" if packed else "example.c"
        texts = {
            f"{self.name}.h": _filled(HERE / "header.h", words),
            f"{self.name}_weights.h": "\n".join(self.declarations()),
            f"{self.name}_kernels.h": "\n".join(self.kernels(placed)),
            f"{self.name}.c": "\n".join(self.source(placed)),
            "example.c": _filled(HERE / example, words),
        }
        contents = {file: text.encode() for file, text in texts.items()}
        if packed:
            table = f"#define TSQ_SYMBOLS {packed.symbols}"
            for file in DECODER:
                text = (HERE / file).read_text().replace(f"#define TSQ_SYMBOLS {SYMBOLS}", table)
                contents[file] = text.encode()
            contents[f"{self.name}.tsq"] = packed.file
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{directory}: cannot make this folder ({error.strerror})") from None
        files = {directory / file: content for file, content in contents.items()}
        write_together(files)
        return Exported(tuple(files), flash, placed.peak_bytes + more, placed)

    def words(self, placed: Arena, flash: int, more: int) -> dict[str, str]:
        """What stands for each @WORD@ of the templates."""
        height, width, channels = self.graph.size(0)
        network = self.network
        return {
            "MODEL": self.graph.name,
            "KIND": "int8" if network else "float32",
            "NAME": self.name,
            "MACRO": self.name.upper(),
            "VALUE": "uint8_t" if network else "float",
            "LOGIT": "int32_t" if network else "float",
            "LOGIT_SCALE": repr(network.logit_scale) if network else "1.0",
            "INPUT_NOTE": self.input_note,
            "FIRST": FIRST.format(name=self.name) if self.packed else "",
            "LOAD": LOAD.format(name=self.name) if self.packed else "",
            "CONSTANTS": "a file with the weights" if self.packed else "constants",
            "STACK": "2,000" if self.packed else "a few hundred",
            "UNPACKED": f", unpacked weights and the decoder's tables {more}" if more else "",
            "INPUT": str(height * width * channels),
            "HEIGHT": str(height),
            "WIDTH": str(width),
            "CHANNELS": str(channels),
            "CLASSES": str(self.graph.shapes[self.graph.output][-1]),
            "FLASH": str(flash),
            "RAM": str(placed.peak_bytes + more),
            "ARENA": str(placed.bytes),
            "SCRATCH": str(placed.scratch),
            "OUTPUT": str(placed.output),
        }

    def declarations(self) -> Iterator[str]:
        """The constants, as C."""
        yield f"/* The {'weights' if self.packed else 'constants'} of {self.name}. */\n"
        if self.packed:
            yield from self.packed.declarations()
        for name, (kind, array) in self.constants.items():
            yield f"static const {kind} {name}[{array.size}] = {{"
            texts = _numbers(kind, array)
            for start in range(0, len(texts), NUMBERS_A_LINE):
                yield ", ".join(texts[start : start + NUMBERS_A_LINE]) + ","
            yield "};\n"

    def kernels(self, placed: Arena) -> Iterator[str]:
        """Arithmetic and loops: in a header, where no compiler minds those that go unused."""
        yield f"/* What the layers of {self.name} do. */\n"
        yield f"#define SCRATCH {placed.scratch // 4} /* the most channels of any map */\n"
        yield (HERE / ("int8.c" if self.network else "float32.c")).read_text()
        yield (HERE / "kernels.c").read_text()
        if self.packed:
            yield (HERE / "unpacked.c").read_text()

    def source(self, placed: Arena) -> Iterator[str]:
        """The program: the layers as tables, and the list of stages."""
        yield f"/* {self.name}: written by tinysqueeze; see {self.name}.h. */\n"
        decoder = '#include "tsq.h"\n' if self.packed else ""
        yield f'#include "{self.name}.h"\n\n{decoder}#include "{self.name}_kernels.h"'
        yield f'#include "{self.name}_weights.h"\n'
        for i, stage in enumerate(placed.stages):
            yield from self.tables(i, stage)
        yield f"static value_t arena[{placed.bytes // placed.itemsize}];"
        yield f"static logit_t logits[{placed.output // 4}];\n"
        at = placed.maps[0].offset // placed.itemsize
        if self.packed:
            yield from self.packed.load(self.name)
        yield f"value_t *{self.name}_input(void)\n{{\n    return arena + {at};\n}}\n"
        yield f"const logit_t *{self.name}_run(void)\n{{"
        for i, stage in enumerate(placed.stages):
            yield f"    {self.call(placed, i, stage)}"
        yield "    return logits;\n}"

    def tables(self, number: int, stage: Stage) -> Iterator[str]:
        """A stage's layers as constants."""
        if stage.convs:
            yield f"static const conv_t convs_{number}[] = {{"
            for conv in stage.convs:
                name = self.named(conv)
                yield (
                    f"    {{{self.geometry(conv)}, {conv.filters}, {conv.groups}, {name}_weight, "
                    f"{name}_bias, {self.finish(conv, name)}}},"
                )
            yield "};"
        if isinstance(stage.last, Add):
            yield f"static const addition_t addition_{number} = {self.addition(stage.last)};"
        elif stage.last and not isinstance(stage.last, Activate) and not self.ends(stage):
            numbers = f"{mean_kind(stage.last)}, {self.zero(stage.last.source)}"
            yield f"static const pool_t pool_{number} = {{{self.geometry(stage.last)}, {numbers}}};"

    def named(self, node: Node) -> str:
        """A node's name in C."""
        return identifiers(self.graph)[self.graph.nodes.index(node)]

    def geometry(self, node: Node) -> str:
        """A geometry_t."""
        return "{" + ", ".join(str(number) for number in geometry(self.graph, node)) + "}"

    def finish(self, conv: Conv, name: str) -> str:
        """A finish_t."""
        relu = conv.activation == "relu"
        if self.network is None:
            return f"{{{int(relu)}}}"
        by_channel = int(len(self.network.grids[conv.source].zero) > 1)
        if conv.target == self.network.wide:
            zero_out, lowest = 0, 0 if relu else -1
        else:
            zero_out = self.zero(conv.target)
            lowest = zero_out if relu else 0
        return (
            f"{{{name}_multiplier, {name}_shift, zero_{conv.source}, {by_channel}, "
            f"{zero_out}, {lowest}}}"
        )

    def addition(self, node: Add) -> str:
        """An addition_t."""
        relu = node.activation == "relu"
        if self.network is None:
            return f"{{{int(relu)}}}"
        add = self.network.adds[self.graph.nodes.index(node)]
        zeros = [self.zero(value) for value in (*node.sources, node.target)]
        numbers = (add.first, add.second, add.shift, *zeros, zeros[2] if relu else 0)
        return "{" + ", ".join(str(number) for number in numbers) + "}"

    def zero(self, value: int) -> int:
        """The byte that stands for 0 in a map."""
        return int(self.network.grids[value].zero[0]) if self.network else 0

    def ends(self, stage: Stage) -> bool:
        """True for the stage that gives the logits."""
        return stage.target == self.graph.output

    def call(self, placed: Arena, number: int, stage: Stage) -> str:
        """The line that runs a stage."""
        x, *more = (f"arena + {placed.maps[s].offset // placed.itemsize}" for s in stage.sources)
        size = self.graph.size(stage.sources[0])
        convs = f"convs_{number}, {len(stage.convs)}"
        if self.ends(stage):
            if not stage.convs:
                zero = self.zero(stage.sources[0])
                return f"run_mean({x}, {size[0] * size[1]}, {size[2]}, {zero}, logits);"
            return f"{'run_convs_mean' if stage.last else 'run_logits'}({convs}, {x}, logits);"
        y = f"arena + {placed.maps[stage.target].offset // placed.itemsize}"
        if stage.convs and stage.last:
            ring = f"arena + {placed.rings[number].offset // placed.itemsize}"
            return f"run_convs_pool({convs}, &pool_{number}, {x}, {ring}, {y});"
        match stage.last:
            case None:
                return f"run_convs({convs}, {x}, {y});"
            case Add():
                return f"run_add(&addition_{number}, {x}, {more[0]}, {y}, {prod(size)});"
            case Activate(kind="relu"):
                return f"run_rectify({x}, {y}, {self.zero(stage.sources[0])}, {prod(size)});"
            case Activate():
                table = f"{self.named(stage.last)}_table" if self.network else 0
                return f"run_swish({x}, {y}, {table}, {prod(size)});"
        return f"run_pool(&pool_{number}, {x}, {y});"


FIRST = """First {name}_load() unpacks the weights out of the bytes of {name}.tsq, or of another file
 * for the same network, and returns 0, or a code of tsq.h that says why not.
 *
 * """
LOAD = "int {name}_load(const uint8_t *file, uint32_t size);\n"


def mean_kind(node: Node) -> int:
    """What a pool_t says of a node: 0 for the maximum, 1 for an average, 2 for one without padding."""
    if isinstance(node, Pool) and node.average:
        return 1 if node.counts_padding else 2
    return int(isinstance(node, Mean))


def _filled(template: Path, words: Mapping[str, str]) -> str:
    return re.sub(r"@(\w+?)@", lambda match: words[match[1]], template.read_text())


def _bytes(kind: str) -> int:
    return {"float": 4, "int32_t": 4}.get(kind, 1)


def _numbers(kind: str, array: np.ndarray) -> list[str]:
    """Numbers as C reads them back exactly: the shortest decimals that do, for floats."""
    if kind != "float":
        return [str(number) for number in array.ravel().tolist()]
    return [text if text != "0.0f" else "0" for text in (f"{x!s}f" for x in array.ravel())]
