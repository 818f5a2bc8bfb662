"""Writes a network as plain C99: constants, two static buffers and a handful of loops.

The memory planner lays out the arena; `kernels.c` beside this file holds the loops, `float32.c` and
`int8.c` the arithmetic they do. What is written compiles without a warning and needs no library.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from tinysqueeze.devices.int8 import Int8Network, check
from tinysqueeze.devices.memory import Plan, Stage, plan
from tinysqueeze.errors import UserError
from tinysqueeze.files import write_atomically
from tinysqueeze.lowering import Add, Conv, Pool, Rectify, Step, Steps, Swish, lower, weights
from tinysqueeze.network.models import Model

HERE = Path(__file__).parent
NUMBERS_A_LINE = 12


@dataclass(frozen=True)
class Exported:
    """What was written, and what it needs on a board, in bytes (code comes on top: some 3 kB)."""

    files: tuple[Path, ...]
    flash: int
    ram: int
    plan: Plan


def export_float32(
    model: Model, params: Mapping[str, Any], directory: str | Path, input_note: str = ""
) -> Exported:
    """Write NAME.h, NAME.c, NAME_weights.h and example.c in float32.

    input_note   a line for the header: what the values of the image are

    Raises UserError for a network that cannot be exported.
    """
    steps = lower(model)
    check(steps)
    arrays = {
        i: weights(steps, s, params) for i, s in enumerate(steps.steps) if isinstance(s, Conv)
    }
    constants = {
        f"{identifier(steps, i)}_{part}": ("float", array)
        for i, pair in arrays.items()
        for part, array in zip(("weight", "bias"), pair, strict=True)
    }
    return _Writer(
        steps, constants, None, input_note or "float32, as the network was trained"
    ).write(Path(directory))


def export_int8(network: Int8Network, directory: str | Path, input_note: str = "") -> Exported:
    """The same in integers: its logits are those of `network.integers`, bit for bit."""
    constants: dict[str, tuple[str, np.ndarray]] = {}
    for i, conv in network.convs.items():
        name = identifier(network.steps, i)
        constants |= {
            f"{name}_weight": ("int8_t", conv.weight),
            f"{name}_bias": ("int32_t", conv.bias),
            f"{name}_multiplier": ("int32_t", conv.multiplier),
            f"{name}_shift": ("uint8_t", conv.shift),
        }
    for i, table in network.tables.items():
        constants[f"{identifier(network.steps, i)}_table"] = ("uint8_t", table)
    for value in sorted({conv.source for conv in network.steps.steps if isinstance(conv, Conv)}):
        constants[f"zero_{value}"] = ("uint8_t", network.grids[value].zero)
    zero = ", ".join(str(z) for z in network.grids[0].zero)
    scale = ", ".join(f"{s:.6g}" for s in np.unique(network.grids[0].scale))
    note = input_note or f"bytes q that stand for {scale} * (q - {zero})"
    return _Writer(network.steps, constants, network, note).write(Path(directory))


def identifier(steps: Steps, position: int) -> str:
    """A step's name in C: "fire2/expand1x1" -> fire2_expand1x1."""
    path = getattr(steps.steps[position], "path", "")
    return re.sub(r"\W", "_", path) if path else f"step{position}"


@dataclass(frozen=True)
class _Writer:
    steps: Steps
    constants: dict[str, tuple[str, np.ndarray]]  # name -> (type in C, numbers)
    network: Int8Network | None
    input_note: str

    @property
    def name(self) -> str:
        return re.sub(r"\W", "_", self.steps.name) + ("_int8" if self.network else "")

    def write(self, directory: Path) -> Exported:
        """Write the four files."""
        placed = plan(self.steps, itemsize=1 if self.network else 4)
        flash = sum(_bytes(kind) * array.size for kind, array in self.constants.values())
        words = self.words(placed, flash)
        texts = {
            f"{self.name}.h": _filled(HERE / "header.h", words),
            f"{self.name}_weights.h": "\n".join(self.declarations()),
            f"{self.name}.c": "\n".join(self.source(placed)),
            "example.c": _filled(HERE / "example.c", words),
        }
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{directory}: cannot make this folder ({error.strerror})") from None
        for file, text in texts.items():
            write_atomically(directory / file, text.encode())
        files = tuple(directory / file for file in texts)
        return Exported(files, flash, placed.peak_bytes, placed)

    def words(self, placed: Plan, flash: int) -> dict[str, str]:
        """What stands for each @WORD@ of the templates."""
        height, width, channels = self.steps.shapes[0]
        network = self.network
        return {
            "MODEL": self.steps.name,
            "KIND": "int8" if network else "float32",
            "NAME": self.name,
            "MACRO": self.name.upper(),
            "VALUE": "uint8_t" if network else "float",
            "LOGIT": "int32_t" if network else "float",
            "LOGIT_SCALE": repr(network.logit_scale) if network else "1.0",
            "INPUT_NOTE": self.input_note,
            "INPUT": str(height * width * channels),
            "HEIGHT": str(height),
            "WIDTH": str(width),
            "CHANNELS": str(channels),
            "CLASSES": str(self.steps.shapes[self.steps.output][2]),
            "FLASH": str(flash),
            "RAM": str(placed.peak_bytes),
            "ARENA": str(placed.arena),
            "SCRATCH": str(placed.scratch),
            "OUTPUT": str(placed.output),
        }

    def declarations(self) -> Iterator[str]:
        """The constants, as C."""
        yield f"/* The constants of {self.name}. */\n"
        for name, (kind, array) in self.constants.items():
            yield f"static const {kind} {name}[{array.size}] = {{"
            texts = _numbers(kind, array)
            for start in range(0, len(texts), NUMBERS_A_LINE):
                yield ", ".join(texts[start : start + NUMBERS_A_LINE]) + ","
            yield "};\n"

    def source(self, placed: Plan) -> Iterator[str]:
        """The program: arithmetic, loops, the layers as tables, and the list of stages."""
        yield f"/* {self.name}: written by tinysqueeze; see {self.name}.h. */\n"
        yield f'#include "{self.name}.h"\n\n#include "{self.name}_weights.h"\n'
        yield f"#define SCRATCH {placed.scratch // 4} /* the most channels of any map */\n"
        yield (HERE / ("int8.c" if self.network else "float32.c")).read_text()
        yield (HERE / "kernels.c").read_text()
        yield "/* -------------------------------------------------------------- the network */\n"
        for i, stage in enumerate(placed.stages):
            yield from self.tables(i, stage)
        yield f"static value_t arena[{placed.arena // placed.itemsize}];"
        yield f"static logit_t logits[{placed.output // 4}];\n"
        at = placed.maps[0].offset // placed.itemsize
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
                position = self.steps.steps.index(conv)
                name = identifier(self.steps, position)
                yield (
                    f"    {{{self.geometry(conv)}, {conv.filters}, {conv.groups}, {name}_weight, "
                    f"{name}_bias, {self.finish(conv, name)}}},"
                )
            yield "};"
        if isinstance(stage.last, Pool) and not self.ends(stage):
            mean = int(stage.last.average)
            yield (
                f"static const pool_t pool_{number} = "
                f"{{{self.geometry(stage.last)}, {mean}, {self.zero(stage.last.source)}}};"
            )
        if isinstance(stage.last, Add):
            yield f"static const addition_t addition_{number} = {self.addition(stage.last)};"

    def geometry(self, step: Conv | Pool) -> str:
        """A geometry_t."""
        window = step.window
        numbers = (
            *self.steps.shapes[step.source], *window.kernel, *window.stride, *window.pad,
            *self.steps.shapes[step.target], step.offset,
        )  # fmt: skip
        return "{" + ", ".join(str(number) for number in numbers) + "}"

    def finish(self, conv: Conv, name: str) -> str:
        """A finish_t."""
        if self.network is None:
            return f"{{{int(conv.relu)}}}"
        by_channel = int(len(self.network.grids[conv.source].zero) > 1)
        if conv.target == self.network.wide:
            zero_out, lowest = 0, 0 if conv.relu else -1
        else:
            zero_out = self.zero(conv.target)
            lowest = zero_out if conv.relu else 0
        return (
            f"{{{name}_multiplier, {name}_shift, zero_{conv.source}, {by_channel}, "
            f"{zero_out}, {lowest}}}"
        )

    def addition(self, step: Add) -> str:
        """An addition_t."""
        if self.network is None:
            return f"{{{int(step.relu)}}}"
        add = self.network.adds[self.steps.steps.index(step)]
        zeros = [self.zero(value) for value in (step.first, step.second, step.target)]
        numbers = (add.first, add.second, add.shift, *zeros, zeros[2] if step.relu else 0)
        return "{" + ", ".join(str(number) for number in numbers) + "}"

    def zero(self, value: int) -> int:
        """The byte that stands for 0 in a map."""
        return int(self.network.grids[value].zero[0]) if self.network else 0

    def ends(self, stage: Stage) -> bool:
        """True for the stage that gives the logits."""
        return stage.target == self.steps.output

    def call(self, placed: Plan, number: int, stage: Stage) -> str:
        """The line that runs a stage."""
        x, *more = (f"arena + {placed.maps[s].offset // placed.itemsize}" for s in stage.sources)
        shape = self.steps.shapes[stage.sources[0]]
        if self.ends(stage):
            if not stage.convs:
                zero = self.zero(stage.sources[0])
                return f"run_mean({x}, {shape[0] * shape[1]}, {shape[2]}, {zero}, logits);"
            if stage.last:
                return f"run_convs_mean(convs_{number}, {len(stage.convs)}, {x}, logits);"
            return f"run_logits(convs_{number}, {x}, logits);"
        y = f"arena + {placed.maps[stage.target].offset // placed.itemsize}"
        convs = f"convs_{number}, {len(stage.convs)}"
        if stage.convs and stage.last:
            ring = f"arena + {placed.rings[number].offset // placed.itemsize}"
            return f"run_convs_pool({convs}, &pool_{number}, {x}, {ring}, {y});"
        if stage.convs:
            return f"run_convs({convs}, {x}, {y});"
        return self.plain_call(number, stage.last, x, more, y, prod(shape))

    def plain_call(
        self, number: int, step: Step | None, x: str, more: list[str], y: str, count: int
    ) -> str:
        """The same for a stage without a convolution."""
        match step:
            case Add():
                return f"run_add(&addition_{number}, {x}, {more[0]}, {y}, {count});"
            case Rectify():
                return f"run_rectify({x}, {y}, {self.zero(step.source)}, {count});"
            case Swish():
                table = f"{identifier(self.steps, self.steps.steps.index(step))}_table"
                return f"run_swish({x}, {y}, {table if self.network else 0}, {count});"
        return f"run_pool(&pool_{number}, {x}, {y});"


def _filled(template: Path, words: Mapping[str, str]) -> str:
    return re.sub(r"@(\w+?)@", lambda match: words[match[1]], template.read_text())


def _bytes(kind: str) -> int:
    return {"float": 4, "int32_t": 4}.get(kind, 1)


def _numbers(kind: str, array: np.ndarray) -> list[str]:
    """Numbers as C reads them back exactly: the shortest decimals that do, for floats."""
    if kind != "float":
        return [str(number) for number in array.ravel().tolist()]
    return [text if text != "0.0f" else "0" for text in (f"{x!s}f" for x in array.ravel())]
