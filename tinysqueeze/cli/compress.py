"""`tinysqueeze compress`: a network into a small file."""

import argparse
import sys
from functools import partial
from pathlib import Path

from tinysqueeze.cli import values
from tinysqueeze.cli.compiling import compile_kernels
from tinysqueeze.cli.options import option
from tinysqueeze.cli.weights import NAMES, add_about
from tinysqueeze.weights import open_weights
from tinysqueeze.weights.compression import fileformat
from tinysqueeze.weights.compression.compress import ENOUGH, compress
from tinysqueeze.weights.compression.from_run import FINETUNED
from tinysqueeze.weights.compression.kept import Stopped


def configure(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    parser.description = (
        "Compress a network into a .tsq file. Without --bits or --target-kb no weight changes. With "
        "--bits, the paper's way: prune, share weights by k-means, code. With --target-kb, the best "
        "network of that size; --photos makes it much better. With --retrain, for a network trained here, "
        "the paper's whole pipeline: prune, retrain, share, fine-tune the shared values; or, with "
        "--target-kb, the best network of that size, trained on as it is stored."
    )
    parser.add_argument("weights", metavar="WEIGHTS", help=NAMES)
    add = partial(option, parser)
    add("-o --out FILE", "to write", Path, required=True)
    add("--bits N", "share weights by 2^N values a layer", values.whole())
    add("--prune X", "first set this fraction of each layer to zero", values.number())
    add("--target-kb N", "at most N * 1,000 bytes", values.number(above=True))
    add(
        "--photos FILE|FOLDER",
        f"photographs: with half of them (at most {ENOUGH}, evenly chosen) it is calibrated, without "
        "labels; by the others it is judged. Or a dataset (cifar10, or where its batches lie): its "
        "training images calibrate, its test images judge",
        nargs="+",
    )
    add(
        "--retrain N",
        "train a run folder for N epochs: pruned (--prune 0.7 if not given, of all layers "
        "together; without --bits as few as a validation part of the training images allows), or with "
        "--target-kb its rounded weights, first calibrated with training images, taught by the network "
        "as it was",
        values.whole(),
    )
    add(
        "--finetune N",
        f"then epochs for the shared values ({FINETUNED} if not given)",
        values.whole(0),
    )
    add("--data DATA", "to retrain on (otherwise as trained)")
    add("--threads N", "processor threads to retrain with (otherwise all)", values.threads)
    parser.add_argument(
        "--coding",
        choices=fileformat.CODINGS,
        default="ans",
        help="how numbers become bits: asymmetric numeral systems, or the paper's Huffman codes with "
        "relative indices",
    )
    add_about(parser)


def run(args: argparse.Namespace) -> int:
    """Write the file and say how small it is."""
    if args.retrain is not None:
        compile_kernels()
    try:
        size = compress(
            args.weights, args.out, target_kb=args.target_kb, photos=args.photos, bits=args.bits,
            prune=args.prune, retrain=args.retrain, finetune=args.finetune, data=args.data,
            threads=args.threads, coding=args.coding, classes=args.classes, preprocess=args.preprocess,
            say=_say if args.retrain is not None or args.photos else _say_aside,
        )  # fmt: skip
    except Stopped as stopped:
        print(stopped)
        return 128 + stopped.by
    weights = open_weights(args.out, download=False)
    plain = 4 * sum(array.size for array in weights.flat.values())
    print(f"{args.out}: {size:,} bytes, {plain / size:.1f} times smaller than 32-bit numbers")
    return 0


def _say(line: str) -> None:
    print(line, flush=True)


def _say_aside(line: str) -> None:
    print(line, file=sys.stderr)
