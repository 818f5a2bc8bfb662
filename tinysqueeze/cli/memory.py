"""`tinysqueeze memory`: the least memory a network's activations need, and what inference takes."""

import argparse

import numpy as np

from tinysqueeze.bench.resident import measure
from tinysqueeze.cli.models import add_changes, chosen_model
from tinysqueeze.cli.options import option
from tinysqueeze.cli.weights import NAMES
from tinysqueeze.compiled import compile as compile_plan
from tinysqueeze.devices import memory
from tinysqueeze.devices.c.boards import table as boards_table
from tinysqueeze.errors import UserError
from tinysqueeze.graph import GraphModel
from tinysqueeze.study.count import count

SIDES = ("ours", "ours-stepwise", "torch", "torch-nchw", "onnxruntime")


def configure(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--model", default="squeezenet1_0", metavar="M", help="which network")
    which.add_argument("--weights", metavar="W", help=f"the network of {NAMES}")
    add_changes(parser)
    option(parser, "--int8", "a byte a value instead of four")
    option(parser, "--compare", "measure what inference takes here, ours and others'")


def run(args: argparse.Namespace) -> int:
    """Print the plan, the boards, and if asked the measured growth."""
    model = chosen_model(args)
    if args.compare and isinstance(model, GraphModel):
        raise UserError(f"{model.name} was read as a graph: --compare measures SqueezeNets only")
    plan = memory.plan(model, 1 if args.int8 else 4)
    print(memory.table(plan))
    weights = count(model).parameters * plan.itemsize
    print(
        f"\nWith {weights:,} bytes of weights in flash:\n{boards_table(weights, plan.peak_bytes)}"
    )
    if args.compare:
        compiled = compile_plan(model, batch=1, training=False)
        compiled.predict(np.zeros((1, *model.input_shape), np.float32))
        print(
            "\nResident growth for one image, after imports and warm-up, in processes of their own:\n"
        )
        print(f"{'side':<16}{'ready, MB':>12}{'at most, MB':>14}")
        for name, growth in measure(model, SIDES).items():
            print(f"{name:<16}{growth.prepared / 1e6:>12.1f}{growth.peak / 1e6:>14.1f}")
        print(f"\nour compiled plan's own buffers: {compiled.peak_bytes:,} bytes")
        print(f"the C program's static memory:   {plan.peak_bytes:,} bytes, weights in flash")
    return 0
