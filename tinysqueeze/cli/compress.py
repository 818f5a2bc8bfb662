"""`tinysqueeze compress`: a network into a small file."""

import argparse
import sys
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from tinysqueeze.cli import compress_trained
from tinysqueeze.cli.weights import NAMES, add_classes, find_weights
from tinysqueeze.errors import DataError, UserError
from tinysqueeze.weights import WeightSet, find_images, open_image
from tinysqueeze.weights.compression import fileformat, pipeline
from tinysqueeze.weights.compression.deep_compression import deep_compression_tensors
from tinysqueeze.weights.compression.fileformat import Compressed

IMAGENET = 1000  # classes, whose names are found without the file
ENOUGH = 100  # photographs to calibrate with


def configure(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    parser.description = (
        "Compress a network into a .tsq file. Without --bits or --target-kb no weight changes. With "
        "--bits, the paper's way: prune, share weights by k-means, code. With --target-kb, the best "
        "network of that size; --photos makes it much better. With --retrain, for a network trained here, "
        "the paper's whole pipeline: prune, retrain, share, fine-tune the shared values."
    )
    parser.add_argument("weights", metavar="WEIGHTS", help=NAMES)
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="FILE", help="to write")
    parser.add_argument("--bits", type=int, metavar="N", help="share weights by 2^N values a layer")
    parser.add_argument(
        "--prune", type=float, metavar="X", help="first set this fraction of each layer to zero"
    )
    parser.add_argument("--target-kb", type=float, metavar="N", help="at most N * 1,000 bytes")
    parser.add_argument(
        "--photos",
        nargs="+",
        metavar="FILE|FOLDER",
        help=f"photographs, without labels, to calibrate with (at most {ENOUGH}, evenly chosen)",
    )
    parser.add_argument(
        "--retrain",
        type=int,
        metavar="N",
        help="train a pruned run folder for N epochs (--prune 0.7 if not given, of all layers "
        "together; without --bits as few as a validation part of the training images allows)",
    )
    parser.add_argument(
        "--finetune", type=int, default=2, metavar="N", help="then epochs for the shared values"
    )
    parser.add_argument("--data", help="to retrain on (otherwise as trained)")
    parser.add_argument(
        "--threads", type=int, metavar="N", help="processor threads to retrain with (otherwise all)"
    )
    parser.add_argument(
        "--coding",
        choices=fileformat.CODINGS,
        default="ans",
        help="how numbers become bits: asymmetric numeral systems, or the paper's Huffman codes with "
        "relative indices",
    )
    add_classes(parser)


def run(args: argparse.Namespace) -> int:
    """Write the file and say how small it is."""
    if args.target_kb is not None and (args.bits is not None or args.prune is not None):
        raise UserError("--target-kb chooses bits and pruning itself: leave out --bits and --prune")
    if args.target_kb is not None and args.retrain is not None:
        raise UserError("--retrain shares weights by --bits: leave out --target-kb")
    if args.prune is not None and args.bits is None and args.retrain is None:
        raise UserError("--prune needs --bits: how many bits are to be left of what is not pruned?")
    if args.photos and args.target_kb is None:
        raise UserError("--photos needs --target-kb: the size to which the network is calibrated")
    if args.retrain is not None:
        return _retrained(args)
    weights = find_weights(args.weights, args.classes)
    if weights.model.classes == IMAGENET and not args.classes:
        weights = weights.with_classes(())  # 10 kB that every reader has
    _write(args, _compressed(args, weights))
    return 0


def _retrained(args: argparse.Namespace) -> int:
    try:
        found = compress_trained.compress(args)
    except compress_trained.Stopped as stopped:
        return 128 + stopped.by
    _write(args, found)
    compress_trained.kept_at(args.out).unlink(missing_ok=True)
    return 0


def _write(args: argparse.Namespace, found: Compressed) -> None:
    size = fileformat.write(args.out, found, args.coding)
    plain = 4 * sum(prod(tensor.shape) for tensor in found.tensors.values())
    print(f"{args.out}: {size:,} bytes, {plain / size:.1f} times smaller than 32-bit numbers")


def _compressed(args: argparse.Namespace, weights: WeightSet) -> Compressed:
    if args.target_kb is not None:
        photos = _photos(args.photos, weights) if args.photos else None
        target = int(args.target_kb * 1000)
        return pipeline.to_size(weights, target, photos, lambda what: print(what, file=sys.stderr))
    if args.bits is not None:
        return pipeline.shared(weights, args.bits, args.prune or 0.0)
    if Path(args.weights).suffix == ".net":  # with its codebooks' order, to write it again
        data = Path(args.weights).read_bytes()
        return pipeline.pack(weights, deep_compression_tensors(data, weights.model))
    return pipeline.lossless(weights)


def _photos(places: list[str], weights: WeightSet) -> NDArray[np.float32]:
    """(N, H, W, 3), prepared for the network. Raises DataError where there is none."""
    paths = list(find_images(places))
    if not paths:
        raise DataError(f"no images in {', '.join(places)}")
    chosen = np.linspace(0, len(paths) - 1, min(ENOUGH, len(paths))).round().astype(int)
    return np.stack(
        [
            weights.preprocess(open_image(paths[i]))
            for i in tqdm(chosen, "reading photographs", unit="", disable=None)
        ]
    )
