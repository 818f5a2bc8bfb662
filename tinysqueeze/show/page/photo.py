"""A trained network on any photograph, as one HTML page: its layers, its compressed file, our WebAssembly."""

import gzip
import html
import io
import json
import os
import struct
from collections.abc import Sequence
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from tinysqueeze.data.images import open_image
from tinysqueeze.devices.c import geometry, mean_kind
from tinysqueeze.devices.c.packed import stamp
from tinysqueeze.devices.memory import deployed, window_of
from tinysqueeze.devices.wasm import engine
from tinysqueeze.errors import UserError
from tinysqueeze.graph import Activate, Add, Conv, Copy, Fold, Graph, Mean, Node, Pool
from tinysqueeze.network.params import shapes
from tinysqueeze.show.page.drawings import drawing
from tinysqueeze.show.page.html import page
from tinysqueeze.study.count import count
from tinysqueeze.weights.calibration import Pictures, calibration_images
from tinysqueeze.weights.compression import pipeline, sizing
from tinysqueeze.weights.compression.compress import ENOUGH, as_file, without_imagenets
from tinysqueeze.weights.compression.fileformat import SUFFIX, symbols_of, to_bytes
from tinysqueeze.weights.compression.pipeline import Progress
from tinysqueeze.weights.opening import Weights
from tinysqueeze.weights.trained import WeightSet, preprocess_fields

ROOM = 640_000  # bytes of weights that leave a page under 1 MB
LEAST_BITS = 4  # a weight, below which networks that were never retrained lose much
MOST_CHANNELS = 65536  # SCRATCH of engine.c
DRAWN = "a drawing of an airliner"
MOST_SYMBOLS = 4096  # TSQ_SYMBOLS of its decoder


def small_file(
    source: Weights,
    weights: WeightSet,
    photos: Pictures | None = None,
    say: Progress = lambda line: None,
) -> tuple[WeightSet, bytes]:
    """The bytes of a .tsq file that a page can hold, and its weights: those of `source`, if it is one.

    Other weights are stored without loss where that takes no more than ROOM bytes; else rounded to that,
    calibrated on `photos` (see `compress`), or to LEAST_BITS a weight, if that is more. `weights` are
    what `open_weights` made of `source`; `say` hears of it. Raises UserError.
    """
    file = as_file(source, weights)
    numbers = sum(array.size for array in weights.flat.values())
    room = max(ROOM, int(LEAST_BITS * numbers / 8))
    given = isinstance(source, str | os.PathLike) and Path(source).suffix.lower() == SUFFIX
    if given or len(file) <= room:
        return weights, file
    say(
        f"{len(file):,} bytes without loss: the page gets weights rounded to {room:,} bytes at most"
    )
    images = None if photos is None else calibration_images(weights, photos, ENOUGH)
    found = sizing.to_size(without_imagenets(weights), room, images)
    rounded = f"rounded for this page to {8 * room / numbers:.1f} bits a weight"
    how = "without photographs" if photos is None else "calibrated on photographs"
    params = pipeline.unpack(found).params
    return replace(weights, params=params).with_notes(f"{rounded}, {how}"), to_bytes(found)


def photo_page(
    weights: WeightSet, file: bytes, pictures: Sequence[str | os.PathLike[str]] = ()
) -> str:
    """The page: drop a photograph, see its best classes, where the network sees them, every map.

    file       the bytes of a .tsq file of these weights
    pictures   files to begin with, which come with the page (without any, a drawing of ours)

    Raises UserError for a network whose layers the page can't compute, or that takes no photographs;
    DataError for a picture that can't be opened.
    """
    title = f"{weights.model.name} on your photograph"
    layers = "\n".join(f"{row.path}: {row.kind}" for row in count(weights.model).rows)
    plain = (
        f"<h1>{html.escape(title)}</h1><p>{html.escape(str(weights))}</p><p>The network runs in this page, "
        f"as WebAssembly: that needs scripts. Its layers:</p><pre>{html.escape(layers)}</pre>"
    )
    return page(title, pack_photo(weights, file, pictures), plain, "photo_page.js", ["photo.css"])


def pack_photo(
    weights: WeightSet, file: bytes, pictures: Sequence[str | os.PathLike[str]] = ()
) -> bytes:
    """What that page holds: gzip of uint32 length of the header, header, module, file, pictures.
    Raises UserError for a network whose layers the page can't compute, or that takes no photographs.
    """
    model = weights.model
    if len(model.input_shape) != 3 or model.input_shape[2] != 3:
        raise UserError(
            f"{model.name} takes images of {model.input_shape}, photographs have three channels"
        )
    graph, folds = deployed(model)
    if max(shape[-1] for shape in graph.shapes) > MOST_CHANNELS:
        raise UserError(f"a page's layers have up to {MOST_CHANNELS:,} channels")
    if symbols_of(file) > MOST_SYMBOLS:
        raise UserError(
            f"a codebook of {symbols_of(file):,} values: a page's decoder takes {MOST_SYMBOLS:,}"
        )
    blobs = [engine(), file, *(_picture(path) for path in pictures)]
    if not pictures:
        blobs.append(_drawn(weights.model.input_shape[0]))
    header = {
        "name": model.name,
        "about": [weights.description, *weights.notes],
        "images": f"{weights.preprocess} ({weights.known_by or 'assumed'})",
        "preprocess": preprocess_fields(weights),
        "classes": weights.classes,
        "parameters": sum(prod(shape) for shape in shapes(model).values()),
        "sizes": [len(blob) for blob in blobs],
        "examples": [Path(path).name for path in pictures] or [DRAWN],
        **_network(graph, folds, set(shapes(model))),
        "stamp": stamp(file),
        "arrays": [[path, prod(shape)] for path, shape in shapes(model).items()],
    }
    text = json.dumps(header, separators=(",", ":")).encode()
    return gzip.compress(struct.pack("<I", len(text)) + text + b"".join(blobs), 9, mtime=0)


def _picture(path: str | os.PathLike[str]) -> bytes:
    """A picture's file as it is. Raises DataError where it is none."""
    open_image(path)
    return Path(path).read_bytes()


def _drawn(side: int) -> bytes:
    """A drawing to begin with, as PNG."""
    out = io.BytesIO()
    drawing("airplane", side).save(out, "PNG")
    return out.getvalue()


def _network(graph: Graph, folds: Sequence[Fold], stored: set[str]) -> dict[str, Any]:
    """The graph for engine.js: maps, nodes, arrays that are not in the file, norms to fold."""
    alone = {
        fold.path for fold in folds if fold.path == fold.norm.path
    }  # then the arrays are its own
    made: dict[str, tuple[int, int]] = {}  # "+fire2/squeeze/bias" -> (numbers, value of each)
    nodes = []
    places: dict[str, dict[str, Any]] = {}
    for node in graph.nodes:
        fields = _node(graph, node)
        if isinstance(node, Conv):
            for kind, value in (("weight", 1), ("bias", 0)):
                path = f"{node.path}/{kind}"
                if path not in stored or node.path in alone:
                    path = f"+{path}"
                    made[path] = (node.filters, value)
                fields[kind] = path
            places[node.path] = {
                name: fields[name] for name in ("weight", "bias", "rows", "filters")
            }
        nodes.append(fields)
    norms = [
        {"norm": fold.norm.path, "first": fold.first, "eps": fold.norm.eps, **places[fold.path]}
        for fold in folds
    ]
    return {
        "shapes": graph.shapes, "output": graph.output, "places": _places(graph), "nodes": nodes,
        "made": [[path, *how] for path, how in made.items()], "folds": norms,
    }  # fmt: skip


def _node(graph: Graph, node: Node) -> dict[str, Any]:
    """A node as JSON: what it reads and writes, and its settings."""
    common = {"path": node.path, "what": node.what, "sources": node.sources, "target": node.target}
    match node:
        case Conv():
            at = geometry(graph, node)
            rows = at[3] * at[4] * at[2] // node.groups
            relu = int(node.activation == "relu")
            how = {"geometry": at, "rows": rows, "filters": node.filters, "groups": node.groups}
            return common | {"kind": "conv", "relu": relu} | how
        case Pool() | Copy():  # a copy is a pool of one pixel
            how = {"geometry": geometry(graph, node), "mean": mean_kind(node)}
            return common | {"kind": "pool"} | how
        case Mean():
            return common | {"kind": "mean"}
        case Add():
            return common | {"kind": "sum", "relu": int(node.activation == "relu")}
        case Activate():
            return common | {"kind": "relu" if node.kind == "relu" else "swish"}
    raise UserError(f"{node.path}: a page can't compute a {node.what}")


def _places(graph: Graph) -> list[tuple[float, ...] | None]:
    """Where each map lies on the image, in pixels: top, left, height, width.

    A place of a map stands for the middle of the window of pixels that it sees (`inside.extent`).
    """
    jumps, middles = {0: np.ones(2)}, {0: np.full(2, 0.5)}
    for node in graph.nodes:
        window, source = window_of(graph, node), node.source
        jumps[node.target] = jumps[source] * window.stride
        middles[node.target] = (
            middles[source] + ((np.array(window.kernel) - 1) / 2 - window.pad) * jumps[source]
        )
    found: list[tuple[float, ...] | None] = []
    for value, shape in enumerate(graph.shapes):
        if len(shape) != 3 or value not in jumps:
            found.append(None)
            continue
        corner = middles[value] - jumps[value] / 2
        found.append((*corner.tolist(), *(jumps[value] * shape[:2]).tolist()))
    return found
