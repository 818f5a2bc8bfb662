"""A graph in files: .tsq, safetensors and ONNX give it back, and no spec gets past its bounds."""

import base64
import copy
import hashlib
import json
import struct
import zlib
from dataclasses import replace

import networks
import numpy as np
import pytest

from tinysqueeze.errors import FormatError, UserError
from tinysqueeze.graph import GraphModel, graph_from, lower, model_of, run, spec_of
from tinysqueeze.graph.spec import KINDS, MOST_NODES
from tinysqueeze.network.models import squeezenet_cifar
from tinysqueeze.network.params import initialise
from tinysqueeze.weights import Preprocess, WeightSet, load_weights
from tinysqueeze.weights.compression import fileformat, pipeline
from tinysqueeze.weights.compression.compress import compress
from tinysqueeze.weights.exporting import export

OLD = (
    "iVRTUQ0KGgoCABcACwMAAE/nvba5AAAATXjaVY+9DoMwDIRfBXmuKihl6dile1cUoRCMGon8NIZKBfHutSMxdInus3OXywYU"
    "0cCt2MBrhyyA3gviih7nzthRJzgVYCZNhMTrC9NoU9YV614TduK7MtCMrhvtNGM67sYQJtFtpZh8SI5hTgvuskwYUzBIlBtw"
    "ql0lqxanSSGKUaC+iNu8tPeY4+D5uEuxwX7sgF3/leea5lzyzKH2YiyFjkPlekNuIqPjUPvf91rQEtuD2n89D1CnJfkNKkEA"
    "AABjBwDNrIA6gD/gQeBD8ETgRQAMAAAAAEzfBPsCqgUA3wQA3wQA3wQAkwQKc+IR91LLcdSBVhCp5VQmZRpYKuSMmK0BVmV3"
    "BAAAAEgAtgC0HaO53ggAAABEAADAvgAAgL7laUx/BAAAAEgAtgC0HaO53hsAAABjAgAAtgC0AAUAAAAAAACAEACAEAAIAgAA"
    "AAIAsCBvZQIAAABIALaWBHhWBAAAAEQAAMC+7vK18QIAAABIALaWBHhWGwAAAGMCAAC2ALQABQAAAAAAAIAQAIAQAAgCAAAA"
    "AgCwIG9lBAAAAEgAtgC0HaO53jYAAABjBwAAtQAAADaAOQA8gD3APgAMAAAAAOQBxwPHA6oFAMcDAKsFAKsFAMcD+yODBBbz"
    "AwapqKo4PWv50gQAAABIALYAtB2jud4QAAAARAAAwL4AAIC+AAAAvgAAAAC87cVyCAAAAEgAtgC0ALAAAK4egVMuAAAAYwcA"
    "ALYAtACwADAANAA2ADgACAAAAACABIAEgASABIAEgASABIAEAKwUEACIHRAiZKeMBAAAAEgAtgC0HaO53ggAAABEAADAvgAA"
    "gL7laUx/CAAAAEQAAGhAAABwQPwqvjMEAAAARAAAwL7u8rXxBAAAAEQAAGhAFBtuzRAAAABEAADAvgAAgL4AAAC+AAAAALzt"
    "xXIQAAAARAAAaEAAAHBAAAB4QAAAgEBJHaH8Ydzo9KWzLN8eoEy6Dwqw8TQeyeU5vmttkoIyTA2wpP8="
)
"""A file of version 2, as it was written before there were graphs in files."""


def as_graph(seed: int) -> WeightSet:
    """Network number `seed` as nothing but its graph."""
    drawn = networks.draw(seed)
    model = model_of(lower(drawn.model))
    size = model.input_shape[:2]
    classes = tuple(f"class {i}" for i in range(model.classes))
    return WeightSet(model, drawn.params, Preprocess(min(size), size), "a test", classes=classes)


def small() -> WeightSet:
    """One node of nearly every kind."""
    model = squeezenet_cifar(
        classes=4, fires=2, base_e=8, incr_e=0, stem_filters=8, pools=(1,), bypass="simple", norm=True,
        dropout=0.5,
    )  # fmt: skip
    params = networks.lively(model, np.random.default_rng(0))
    return WeightSet(model_of(lower(model)), params, Preprocess(32, (32, 32)), "a test")


def same(found: WeightSet, made: WeightSet) -> bool:
    assert found.model == made.model
    assert found.model.spec == made.model.spec
    assert (found.preprocess, found.classes) == (made.preprocess, made.classes)
    assert set(found.flat) == set(made.flat)
    return all(np.array_equal(found.flat[path], array) for path, array in made.flat.items())


@pytest.mark.parametrize("seed", range(12))
def test_a_spec_gives_the_graph_back(seed):
    graph = lower(networks.draw(seed).model)
    spec = json.loads(json.dumps(spec_of(graph)))
    assert graph_from(spec) == graph
    assert spec_of(graph_from(spec)) == spec


@pytest.mark.parametrize("to", [".tsq", ".safetensors", ".onnx"])
@pytest.mark.parametrize("seed", [2, 3, 5])
def test_every_file_of_ours_gives_a_graph_back_to_the_bit(tmp_path, to, seed):
    if to == ".onnx":
        pytest.importorskip("onnx")
    made = as_graph(seed)
    if to == ".tsq":
        compress(made, tmp_path / "net.tsq")
    else:
        export(made, tmp_path / f"net{to}")
    found = load_weights(tmp_path / f"net{to}")
    assert isinstance(found.model, GraphModel)
    assert same(found, made)


def test_files_of_version_2_are_read_and_written_as_before():
    data = base64.b64decode(OLD)
    assert struct.unpack_from("<H", data, 8) == (2,)
    old = fileformat.from_bytes(data)
    assert old.model == squeezenet_cifar(
        classes=2, fires=1, base_e=4, stem_filters=2, pools=(1,), norm=True
    )
    assert old.extra["classes"] == ["a", "b"]
    numbers = b"".join(array.tobytes() for array in old.params().values())
    digest = "cebcb14daeeba774527ecbfe41c3c584c2684ca88ce9e8cbb99eb5b2490876ea"
    assert hashlib.sha256(numbers).hexdigest() == digest
    again = fileformat.to_bytes(old)
    assert again[8:10] == data[8:10]
    assert fileformat.sections(again)[1:] == fileformat.sections(data)[1:]


def test_a_graph_is_version_3_and_says_so():
    data = fileformat.to_bytes(pipeline.lossless(small()))
    assert struct.unpack_from("<H", data, 8) == (3,)


# --- what a file may say -----------------------------------------------------------------------------


def forged(spec) -> bytes:
    """A whole file, every checksum right, whose metadata hold this spec."""
    made = pipeline.lossless(small())
    return fileformat.to_bytes(replace(made, model=replace(made.model, spec=spec)))


def node(spec, kind: str) -> dict:
    return next(n for n in spec["nodes"] if n["kind"] == kind)


def test_every_kind_of_node_is_among_those_damaged():
    assert set(KINDS) - {n["kind"] for n in small().model.spec["nodes"]} == {
        "copy", "flatten", "softmax",
    }  # fmt: skip


@pytest.mark.parametrize(("change", "words"), [
    (lambda s: s.update(nodes=3), "lacks a list of up to 4,096 nodes"),
    (lambda s: s.update(nodes=s["nodes"] * 200), "lacks a list of up to 4,096 nodes"),
    (lambda s: s.pop("output"), "lacks output"),
    (lambda s: s.update(output=10**6), "output is a whole number from 0 to 4,096, not 1000000"),
    (lambda s: s.update(output=99), "map 99, and there are"),
    (lambda s: s.update(title="net */ int"), "title is a text of up to 60 letters"),
    (lambda s: s.update(more=1), "no such metaparameter: more"),
    (lambda s: s.update(nodes=[]), "nobody writes"),
    (lambda s: s["shapes"].append([1 << 20, 1 << 20, 1]), "a map of 1,099,511,627,776 numbers"),
    (lambda s: s["shapes"].append([1 << 40, 1, 1]), "shapes is a list"),
    (lambda s: s["shapes"].extend([[1 << 14, 1 << 14, 1]] * 5), "maps of more than 1,073,741,824"),
    (lambda s: s["shapes"].append([4, 4]), r"a map is \(height, width, channels\)"),
    (lambda s: s["shapes"].append([3]), "nobody writes all of map"),
    (lambda s: node(s, "conv").update(kind="loop"), "node 0 is of no kind that there is: conv"),
    (lambda s: node(s, "conv").update(kind=["conv"]), "node 0 is of no kind"),
    (lambda s: s["nodes"].__setitem__(0, 7), "node 0 is of no kind"),
    (lambda s: node(s, "conv").pop("filters"), r"node 0 \(conv\) lacks filters"),
    (lambda s: node(s, "conv").pop("kernel"), r"node 0 \(conv\) lacks kernel"),
    (lambda s: node(s, "conv").pop("path"), r"node 0 \(conv\) lacks path"),
    (lambda s: node(s, "conv").update(path="../x\n"), "path is a text of letters"),
    (lambda s: node(s, "conv").update(path="a" * 300), "path is a text of letters"),
    (lambda s: node(s, "conv").update(path="fire2/squeeze"), "would lie among those of another"),
    (lambda s: node(s, "conv").update(path="fire2"), "would lie among those of another"),
    (lambda s: node(s, "conv").update(filters=1 << 30), "filters is a whole number from 1 to"),
    (lambda s: node(s, "conv").update(filters=7), "before all of it is written"),
    (lambda s: node(s, "conv").update(filters=True), "filters is a whole number"),
    (lambda s: node(s, "conv").update(kernel=[3]), "kernel is a list of 2 entries"),
    (lambda s: node(s, "conv").update(kernel=[0, 3]), "kernel is a list"),
    (lambda s: node(s, "conv").update(stride=[1, 1000]), "stride is a list"),
    (lambda s: node(s, "conv").update(pad=[-1, 1]), "pad is a list"),
    (lambda s: node(s, "conv").update(groups=2), "in 2 groups"),
    (lambda s: node(s, "conv").update(activation="relu"), "no such metaparameter: activation"),
    (lambda s: node(s, "conv").update(source=5), "before all of it is written"),
    (lambda s: node(s, "conv").update(target=0), "target is a whole number from 1"),
    (lambda s: node(s, "conv").update(offset=1), "does not fit"),
    (lambda s: node(s, "norm").update(eps=float("nan")), "eps is a number from 0 to 1,000, not nan"),
    (lambda s: node(s, "norm").update(eps=-1.0), "eps is a number"),
    (lambda s: node(s, "activate").update(function="tanh"), "'relu' or 'hard-swish', not 'tanh'"),
    (lambda s: node(s, "pool").update(ceil=1), "ceil is true or false"),
    (lambda s: node(s, "pool").update(pad=[2, 0]), "windows of nothing but padding"),
    (lambda s: node(s, "add").update(second=5000), "second is a whole number"),
    (lambda s: node(s, "add").update(second=0), "don't add up"),
    (lambda s: node(s, "drop").update(rate=1.0), "rate is a number"),
    (lambda s: node(s, "mean").update(kind="flatten"), "does not fit"),
    (lambda s: node(s, "mean").update(kind="activate"), "lacks kind"),
    (lambda s: s["shapes"].__setitem__(-1, [1, 1, 4]), r"makes no map of \(1, 1, 4\) out of"),
])  # fmt: skip
def test_a_spec_out_of_bounds_is_refused_in_a_line(change, words):
    spec = copy.deepcopy(small().model.spec)
    change(spec)
    with pytest.raises(FormatError, match=words) as refused:
        fileformat.from_bytes(forged(spec))
    assert "\n" not in str(refused.value)
    assert len(str(refused.value)) < 500


def test_a_map_of_no_pixels_is_neither_pooled_nor_convolved():
    shapes = [[6, 6, 2], [2], [2]]
    mean = {"kind": "mean", "path": "a", "source": 0, "target": 1}
    for bad in (
        {"kind": "pool", "kernel": [1, 1]},
        {"kind": "mean"},
        {"kind": "conv", "filters": 2, "kernel": [3, 3], "pad": [1, 1]},
        {"kind": "conv", "filters": 2, "kernel": [1, 1], "groups": 2},
    ):
        nodes = [mean, {"path": "b", "source": 1, "target": 2} | bad]
        spec = {"name": "graph", "title": "x", "shapes": shapes, "output": 2, "nodes": nodes}
        with pytest.raises(UserError, match="needs a map of pixels"):
            graph_from(spec)


def test_a_version_that_holds_no_graph_is_refused():
    data = fileformat.to_bytes(pipeline.lossless(small()))
    for version, file in ((2, data), (3, base64.b64decode(OLD))):
        head = file[:8] + struct.pack("<H", version) + file[10:16]
        body = head + struct.pack("<I", zlib.crc32(head)) + file[20:-32]
        with pytest.raises(FormatError, match="the other way round"):
            fileformat.from_bytes(body + hashlib.sha256(body).digest())


ODD = [None, True, -1, 0, 1, 2, 3, 7, 255, 4097, 1 << 62, 10**400, 1e308, float("nan"), "", "conv",
       "relu", [], [1], [1, 1], [3, 3, 3], {}, {"kind": "mean"}]  # fmt: skip


def mutated(spec, rng) -> dict:
    """The spec with one to three places changed at random: values, keys, nodes, their order."""
    spec = copy.deepcopy(spec)
    for _ in range(rng.integers(1, 4)):
        owner = (
            [spec, spec["shapes"], spec["nodes"], *spec["nodes"] * 4, *spec["shapes"]][
                rng.integers(3 + 4 * len(spec["nodes"]) + len(spec["shapes"]))
            ]
            if isinstance(spec.get("nodes"), list) and isinstance(spec.get("shapes"), list)
            else spec
        )
        if not isinstance(owner, dict | list) or not owner:
            continue
        keys = list(owner) if isinstance(owner, dict) else list(range(len(owner)))
        key, other = (keys[i] for i in rng.integers(len(keys), size=2))
        kind = rng.integers(4)
        if kind == 0:
            owner[key] = ODD[rng.integers(len(ODD))]
        elif kind == 1 and isinstance(owner[key], int | float) and not isinstance(owner[key], bool):
            owner[key] += int(rng.integers(-2, 3))
        elif kind == 2:
            owner[key], owner[other] = owner[other], owner[key]
        else:
            owner.pop(key)
    return spec


def test_specs_changed_at_random_are_refused_or_run():
    """Whatever is accepted is a graph that runs: no other error, and nothing large."""
    made = small()
    rng = np.random.default_rng(1)
    refused = ran = 0
    for _ in range(1500):
        spec = mutated(made.model.spec, rng)
        try:
            model = fileformat.rebuild(spec)
        except UserError:
            refused += 1
            continue
        if not isinstance(model, GraphModel) or np.prod(model.input_shape) > 10**5:
            continue
        x = np.zeros((1, *model.input_shape), np.float32)
        y = run(model.steps[0][1].graph, initialise(model), x)
        assert y[model.steps[0][1].graph.output].shape[1:] == model.out_shape(model.input_shape)
        ran += 1
    assert refused > 1000
    assert ran > 20


def test_more_nodes_than_a_file_holds_are_refused():
    graph = lower(squeezenet_cifar())
    last = graph.nodes[-1]
    relu = next(n for n in graph.nodes if type(n).__name__ == "Activate")
    nodes, shapes = list(graph.nodes), list(graph.shapes)
    for i in range(MOST_NODES):
        nodes.append(
            replace(relu, path=f"r{i}", source=len(shapes) - 1, target=len(shapes), offset=0)
        )
        shapes.append(shapes[last.target])
    long = replace(graph, shapes=tuple(shapes), nodes=tuple(nodes), output=len(shapes) - 1)
    with pytest.raises(UserError, match="up to 4,096 nodes"):
        model_of(long)
