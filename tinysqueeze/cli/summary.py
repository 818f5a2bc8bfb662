"""`tinysqueeze summary`: a network's layers as a table, with totals and the share of 1x1 and 3x3."""

import argparse
import json

import numpy as np

from tinysqueeze.cli import values
from tinysqueeze.cli.models import add_model, chosen_model
from tinysqueeze.cli.options import option
from tinysqueeze.compiled import compile as compile_plan
from tinysqueeze.graph import GraphModel
from tinysqueeze.network.models import Model
from tinysqueeze.study.count import FLOAT_BYTES, Row, Table, count

HEADER = ("Layer", "Kind", "Kernel", "Output", "Parameters", "Mult-adds", "Activation", "im2col")


def configure(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    add_model(parser, "squeezenet1_0")
    option(parser, "--batch-size N", "images at once", values.images, 1)
    option(parser, "--compiled", "how the compiled plan trains each layer")
    option(parser, "--json", "print JSON instead of a table")


def run(args: argparse.Namespace) -> int:
    """Print the table."""
    model = chosen_model(args)
    if args.compiled:
        print(_plan_text(model, args.batch_size))
        return 0
    table = count(model, batch=args.batch_size)
    print(json.dumps(table.as_dict(), indent=2) if args.json else text(table))
    return 0


def text(table: Table) -> str:
    """The table as torchinfo would lay it out."""
    h, w, c = table.input_shape
    weights = table.parameters * FLOAT_BYTES
    totals = [
        f"Input                {table.batch} x {h} x {w} x {c}",
        f"Parameters           {table.parameters:,} ({weights / 1e6:.2f} MB as float32)",
        f"  in 1x1 filters     {table.share(1):.1%}",
        f"  in 3x3 filters     {table.share(3):.1%}",
        f"Multiply-adds        {table.multiply_adds:,} ({table.multiply_adds / 1e9:.3f} G)",
        f"  in 1x1 filters     {table.share(1, 'multiply_adds'):.1%}",
        f"  in 3x3 filters     {table.share(3, 'multiply_adds'):.1%}",
        f"All activations      {_bytes(table.total('activation_bytes'))}",
        f"Largest im2col       {_bytes(max(row.im2col_bytes for row in table.rows))}",
    ]
    return _laid_out(table.model, [HEADER, *map(_cells, table.rows)], totals)


def _cells(row: Row) -> tuple[str, ...]:
    kernel = f"{row.kernel[0]}x{row.kernel[1]}" if row.kernel else ""
    out = " x ".join(map(str, row.out_shape))
    parameters = f"{row.parameters:,}" if row.parameters else "–"
    multiply_adds = f"{row.multiply_adds:,}" if row.multiply_adds else "–"
    patches = _bytes(row.im2col_bytes) if row.im2col_bytes else "–"
    counted = (parameters, multiply_adds, _bytes(row.activation_bytes), patches)
    return (row.path, row.kind, kernel, out, *counted)


def _plan_text(model: Model, batch: int) -> str:
    """The steps of the plan that trains the model: what is fused, what runs layer by layer.

    A graph does not train: its plan's buffers are those of inference.
    """
    plan = compile_plan(model, batch, training=not isinstance(model, GraphModel))
    if not plan.training:
        plan.predict(np.zeros((batch, *model.input_shape), np.float32))
    rows: list[tuple[str, ...]] = [("Layers", "As one step", "Run by", "Output")]
    for step in plan.steps:
        how = "kernels" if step.compiled else "its layer"
        rows.append((step.name, step.kind, how, " x ".join(map(str, step.out_shape))))
    slow = sum(not step.compiled for step in plan.steps)
    totals = [
        f"Steps                {len(plan.steps)}, of which {slow or 'none'} run layer by layer",
        f"Buffers              {_bytes(plan.peak_bytes)} for batches of {batch}",
        f"3x3 convolutions     {plan.precision}",
    ]
    return _laid_out(model.name, rows, totals)


def _laid_out(title: str, rows: list[tuple[str, ...]], totals: list[str]) -> str:
    """A table, its header first, names to the left and numbers to the right; and what is below."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    line = "─" * (sum(widths) + 2 * len(widths) - 2)

    def padded(cells: tuple[str, ...]) -> str:
        pairs = enumerate(zip(cells, widths, strict=True))
        return "  ".join(c.ljust(w) if i < 4 else c.rjust(w) for i, (c, w) in pairs)

    header, *body = map(padded, rows)
    return "\n".join([title, line, header, line, *body, line, *totals])


def _bytes(number: int) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if number >= size:
            return f"{number / size:.1f} {unit}"
    return f"{number} B"
