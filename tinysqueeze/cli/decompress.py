"""`tinysqueeze decompress`: the weights out of a .tsq file."""

import argparse
from pathlib import Path

from tinysqueeze.cli.options import option
from tinysqueeze.files import check_writable, write_atomically
from tinysqueeze.weights import write_safetensors
from tinysqueeze.weights.compression import fileformat, pipeline
from tinysqueeze.weights.compression.deep_compression import deep_compression_bytes


def configure(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    parser.add_argument("file", type=Path, metavar="FILE", help="a .tsq file")
    purpose = "to write: .safetensors, or .net, the SqueezeNet authors' own format"
    option(parser, "-o --out OUT", purpose, Path, required=True)


def run(args: argparse.Namespace) -> int:
    """Write the weights."""
    check_writable(args.out, (".safetensors", ".net"))
    compressed = fileformat.read(args.file)
    if args.out.suffix.lower() == ".net":
        write_atomically(args.out, deep_compression_bytes(compressed.tensors))
    else:
        write_safetensors(pipeline.unpack(compressed, str(args.file)), args.out)
    print(f"{args.out}: {args.out.stat().st_size:,} bytes")
    return 0
