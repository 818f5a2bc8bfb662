"""The formats of weights and checkpoints: whole samples, where their parts begin, crafted others."""

import dataclasses
import json
import random
import re
import struct
import zlib
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import fuzzing
import numpy as np
import pickle_fuzz
import weight_files as files
from fuzz_format import (
    Craft,
    Format,
    made,
    odd_array,
    odd_text,
    pickle_edges,
    print_of,
    rezipped,
    zip_edges,
)
from safetensors.numpy import load as tensors_of
from torch_files import archive, tensor

import tinysqueeze as ts
from tinysqueeze.data import Dataset
from tinysqueeze.files import to_safetensors
from tinysqueeze.graph import lower, model_of
from tinysqueeze.network.models import squeezenet1_0, squeezenet_cifar
from tinysqueeze.network.params import shapes
from tinysqueeze.training import checkpoint
from tinysqueeze.training.engine import stepwise_engine
from tinysqueeze.training.loop import run
from tinysqueeze.training.optimisers import SGD
from tinysqueeze.training.recipe import HardImages, Recipe
from tinysqueeze.training.state import begin
from tinysqueeze.weights import load_weights
from tinysqueeze.weights.compression import fileformat
from tinysqueeze.weights.formats.names import to_ours, to_theirs, torchvision_names
from tinysqueeze.weights.formats.torch_file import read_torch
from tinysqueeze.weights.trained import digest

LARGE = 200_000  # bytes


def weights_in(path: Path) -> str:
    """Whatever `open_weights` makes of it."""
    if path.stat().st_size < LARGE:
        found = ts.open_weights(path, download=False)
        str(found)
    else:  # whose images' preparation takes a second to doubt
        found = load_weights(path)
    return print_of([found.model.spec, found.flat, found.preprocess, found.classes, found.wnids])


def little() -> Any:
    """A network of a few thousand numbers that our own formats hold."""
    model = squeezenet_cifar(
        classes=3, input_size=16, base_e=8, incr_e=8, fires=2, pools=(1,), stem_filters=8, norm=True
    )
    return files.weight_set(model)


def graph() -> Any:
    """A network that no metaparameters rebuild: all its nodes stand in the file."""
    weights = little()
    return dataclasses.replace(weights, model=model_of(lower(weights.model)))


def state_of(weights: Any) -> tuple[dict, list[np.ndarray]]:
    """torchvision's names, as `torch_files` takes them."""
    names = torchvision_names(weights.model)
    arrays = [to_theirs(array) for array in weights.flat.values()]
    state = {
        names[p]: tensor(i, a.shape) for i, (p, a) in enumerate(zip(names, arrays, strict=True))
    }
    return state, [array.ravel() for array in arrays]


def torch_in(path: Path) -> str:
    """A state dict, as it is before a network is looked for (and may be nested without end)."""
    data = path.read_bytes()
    if len(data) > LARGE:
        return weights_in(path)
    saved = read_torch(data)
    return print_of([pickle_fuzz.arrays_in(saved), len(saved)])


SMALL_STATE = ({"w": tensor(0, (2, 3, 4)), "b": [tensor(1, (5,)), {"step": 3}]},
               [np.arange(24), np.arange(5)])  # fmt: skip


def pth(layout: Callable, name: str, check: str) -> Format:
    def craft(data: bytes, rng: random.Random) -> bytes:
        if layout is archive and rng.random() < 0.5:
            return rezipped(data, rng)
        grammar = pickle_fuzz.Grammar(rng.randrange(1 << 40), True)
        return layout(grammar.pickle(), pickle_fuzz.NUMBERS)

    whole = [layout(*SMALL_STATE)] * 3 + [layout(*state_of(files.small(1, 2)))]
    edges = zip_edges if layout is archive else pickle_edges
    return Format(name, "net.pth", whole, torch_in, edges, craft, check)


# --- weights -----------------------------------------------------------------------------------


def safetensors_edges(data: bytes) -> list[int]:
    head = 8 + int.from_bytes(data[:8], "little")
    return [0, 8, head, *(8 + m.start() for m in re.finditer(rb'[{"\[:]', data[8:head]))]


def resaved(repair: Callable[[dict, dict], dict]) -> Craft:
    """Other metadata, or another header, of a safetensors file, with a digest that fits."""

    def craft(data: bytes, rng: random.Random) -> bytes:
        size = int.from_bytes(data[:8], "little")
        head = json.loads(data[8 : 8 + size])
        metadata = head.pop("__metadata__", {})
        if rng.random() < 0.3:  # the tensors' own entries
            text = json.dumps(fuzzing.odd_json(head, rng) | {"__metadata__": metadata}).encode()
            return struct.pack("<Q", len(text)) + text + data[8 + size :]
        arrays = tensors_of(data)
        if rng.random() < 0.3:
            name = rng.choice(sorted(arrays))
            arrays[name] = odd_array(arrays[name], rng)
        elif metadata:
            key = rng.choice(sorted(metadata))
            metadata[key] = odd_text(metadata[key], rng)
        return to_safetensors(arrays, repair(arrays, metadata))

    return craft


TEXTS = ("spec", "preprocess", "classes", "wnids")


def ours_again(arrays: dict, metadata: dict) -> dict:
    texts = {name: metadata.get(name, "") for name in TEXTS}
    return metadata | {"sha256": digest(arrays, texts)}


def checkpoint_again(arrays: dict, metadata: dict) -> dict:
    return metadata | {"sha256": checkpoint.digest(arrays, metadata.get("tinysqueeze", ""))}


def theirs_again(arrays: dict, metadata: dict) -> dict:
    ours = {name: path for path, name in torchvision_names(files.small(1, 2).model).items()}
    flat = {ours.get(name, name): to_ours(array) for name, array in arrays.items()}
    return ours_again(flat, metadata)


def safetensors(
    name: str, samples: list[bytes], repair: Callable, check: str = "SHA-256"
) -> Format:
    return Format(
        name, "net.safetensors", samples, weights_in, safetensors_edges, resaved(repair), check
    )  # fmt: skip


def foreign() -> bytes:
    state = files.small(1, 2)
    names = torchvision_names(state.model)
    return to_safetensors({names[path]: to_theirs(array) for path, array in state.flat.items()}, {})


PICTURES = Dataset(
    np.random.default_rng(0).integers(0, 256, (12, 8, 8, 3), np.uint8), np.arange(12) % 3,
    ("a", "b", "c"), "few",
)  # fmt: skip


def saved_training(path: Path) -> None:
    model = squeezenet_cifar(classes=3, input_size=8, base_e=8, incr_e=0, fires=1, pools=(1,),
                             stem_filters=4)  # fmt: skip
    recipe = Recipe(epochs=4, batch_size=4, average=0.5, hard_images=HardImages(0.7, 0.2))
    training = begin(model, PICTURES, recipe, make_engine=stepwise_engine)
    for report in run(training, PICTURES):
        if report.epoch == 2:
            break
    training.seconds = 1.0  # so that the sample is the same each time
    for row in training.history:
        row |= {"seconds": 1.0, "images_per_second": 1.0}
    checkpoint.save(path, training, data="builtin", engine="stepwise")


def training_in(path: Path) -> str:
    """What a checkpoint holds; and it takes one more step."""
    saved = checkpoint.read(path)
    meta = {key: value for key, value in saved.meta.items() if key not in ("sha256", "versions")}
    found = print_of([meta, saved.arrays])
    training = checkpoint.resume(saved, make_engine=stepwise_engine)
    if isinstance(saved.recipe.optimiser, SGD):  # others are compiled first, which takes its time
        next(run(training, PICTURES), None)
    return found


def checkpoints() -> Format:
    whole = made(saved_training, "checkpoint.safetensors")
    return Format(
        "checkpoint", "checkpoint.safetensors", [whole], training_in, safetensors_edges,
        resaved(checkpoint_again), "SHA-256",
    )  # fmt: skip


# --- ours, small -------------------------------------------------------------------------------


def tsq_parts(data: bytes) -> list[tuple[bytes, bytes]]:
    return fileformat.sections(data)


def tsq_edges(data: bytes) -> list[int]:
    """Where sections begin, their contents, and the end."""
    at, found = fileformat.HEADER.size + 4, [0, 8, 10, 12, 16, len(data) - 32]
    for _, content in tsq_parts(data):
        found += [at, at + 4, at + 5, at + 5 + len(content)]
        at += fileformat.FRAME + len(content)
    return found


def reframed(data: bytes, rng: random.Random) -> bytes:
    """A section's content spoilt, a section twice, missing or of another kind; all sums fit."""
    parts = tsq_parts(data)
    place = rng.choice((0, rng.randrange(len(parts))))
    kind, content = parts[place]
    match rng.randrange(5):
        case 0:
            kind = rng.choice((b"M", b"D", b"H", b"C", b"c", b"S", b"?"))
        case 1 if rng.random() < 0.3:
            content = b""
        case 2 if rng.random() < 0.3:
            parts.insert(place, parts[place])
        case _ if kind == b"M":
            text = odd_text(zlib.decompress(content).decode(), rng).encode("utf-8", "replace")
            content = zlib.compress(text)
        case _:
            content = fuzzing.damaged(content, rng, list(range(min(len(content), 24))))
    if place < len(parts):
        parts[place] = (kind, content)
    sections = b"".join(fileformat._section(*part) for part in parts)
    size = fileformat.HEADER.size + 4 + len(sections) + 32
    head = fileformat.HEADER.pack(fileformat.MAGIC, data[8], len(parts), size)
    body = head + fileformat._crc(head) + sections
    return body + sha256(body).digest()


def tsq() -> Format:
    options: list[dict] = [{}, {"bits": 3, "prune": 0.5}, {"bits": 3, "prune": 0.5, "coding": "huffman"},
                           {"target_kb": 4}]  # fmt: skip
    whole = [
        made(lambda path, how=how: ts.compress(little(), path, progress=False, **how), "net.tsq")
        for how in options
    ]
    whole.append(made(lambda path: ts.compress(graph(), path, progress=False), "net.tsq"))
    return Format("tsq", "net.tsq", whole, weights_in, tsq_edges, reframed, "CRC-32 and SHA-256")


# --- protocol buffers --------------------------------------------------------------------------


def onnx_edges(data: bytes) -> list[int]:
    return [
        m.start()
        for m in re.finditer(rb"(Conv|Relu|MaxPool|weight|bias|images|logits|sha256)", data)
    ]


def odd_node(data: bytes, rng: random.Random, repair: bool) -> bytes:
    """One thing of the graph is odd: an attribute, a shape, a name, an operator, an array, a text."""
    import onnx

    proto = onnx.load_model_from_string(data)
    graph = proto.graph
    for _ in range(rng.choice((1, 1, 2, 4))):
        node = rng.choice(graph.node)
        array = rng.choice(graph.initializer)
        number = rng.choice((*fuzzing.ODD_NUMBERS[:17], -1, -(2**31), -(2**63))) - 0
        match rng.randrange(10):
            case 0 | 1 if node.attribute:
                held = rng.choice(node.attribute)
                if held.ints:
                    held.ints[rng.randrange(len(held.ints))] = min(number, 2**63 - 1)
                else:
                    held.i = min(number, 2**63 - 1)
            case 2 if node.attribute:
                held = rng.choice(node.attribute)
                held.name = rng.choice(
                    ("pads", "strides", "kernel_shape", "group", "axis", "x", "")
                )
            case 3:
                node.op_type = rng.choice(
                    ("Conv", "Relu", "MaxPool", "Concat", "Add", "Gemm", "Reshape", "Flatten", "If",
                     "Loop", "ConstantOfShape", "Resize", "Softmax", "Dropout", "Identity", "Pad", "",
                     "Transpose", "BatchNormalization", "GlobalAveragePool", "Clip", "Mul"))  # fmt: skip
            case 4:
                array.dims[rng.randrange(max(len(array.dims), 1)) :] = [min(number, 2**63 - 1)]
            case 5:
                array.data_type = rng.choice((1, 2, 6, 7, 10, 11, 16, 0, 99))
            case 6:
                names = [*node.input, *node.output, "", "images", "nothing"]
                if node.input:
                    node.input[rng.randrange(len(node.input))] = rng.choice(names)
            case 7:
                graph.node.insert(rng.randrange(len(graph.node)), graph.node.pop())
            case 8:
                held = graph.input[0].type.tensor_type.shape
                held.dim[rng.randrange(len(held.dim))].dim_value = min(number, 2**63 - 1)
            case 9 if proto.metadata_props:
                entry = rng.choice(proto.metadata_props)
                entry.value = odd_text(entry.value, rng)
            case _:
                array.raw_data = fuzzing.damaged(array.raw_data, rng, [])[:1_000_000]
    if repair:
        flat = {a.name: to_ours(_array(onnx, a)) for a in graph.initializer}
        held = {entry.key: entry for entry in proto.metadata_props}
        texts = {
            n: held[n].value if n in held else ""
            for n in ("spec", "preprocess", "classes", "wnids")
        }
        held["sha256"].value = digest(flat, texts)
    return proto.SerializeToString()


def _array(onnx: Any, stored: Any) -> np.ndarray:
    try:
        return onnx.numpy_helper.to_array(stored)
    except Exception:
        return np.zeros(1, np.float32)


def onnx_ours() -> Format:
    whole = [made(lambda path, w=w: ts.export(w, path), "net.onnx") for w in (little(), graph())]
    return Format("onnx-ours", "net.onnx", whole, weights_in, onnx_edges,
                  lambda data, rng: odd_node(data, rng, repair=True), "SHA-256")  # fmt: skip


def onnx_foreign() -> Format:
    import onnx

    proto = onnx.load_model_from_string(made(lambda path: ts.export(little(), path), "net.onnx"))
    del proto.metadata_props[:]
    return Format("onnx-foreign", "net.onnx", [proto.SerializeToString()], weights_in, onnx_edges,
                  lambda data, rng: odd_node(data, rng, repair=False))  # fmt: skip


def caffemodel() -> Format:
    whole = [files.caffemodel(files.small(1, 2), v1) for v1 in (False, True)]

    def edges(data: bytes) -> list[int]:
        return [m.start() for m in re.finditer(rb"conv1|fire\d/|conv10|expand", data)]

    return Format("caffemodel", "net.caffemodel", whole, weights_in, edges)


def net() -> Format:
    places = {
        path.removesuffix("/weight"): (shape[3], shape[2], shape[0], shape[1])
        for path, shape in shapes(squeezenet1_0()).items()
        if path.endswith("/weight")
    }
    data = files.deep_compression(places)

    def edges(data: bytes) -> list[int]:
        found, at = [*range(0, 104, 4)], 104
        for count, shape in zip(struct.unpack("<26I", data[:104]), places.values(), strict=True):
            found += [at, at + 1024, at + 1024 + 4 * shape[0], at + 1024 + 4 * shape[0] + count]
            at = found[-1] + (count + 1) // 2
        return found

    return Format("net", "net.net", [data], weights_in, edges)
