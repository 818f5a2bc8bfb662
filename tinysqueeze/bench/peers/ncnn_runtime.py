"""ncnn on the processor, in float32: the network written out in its own two formats, text and numbers."""

import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ncnn
import numpy as np

Part = dict[str, Any]  # of a network's description: a node, or all of it
Arrays = dict[str, Any]  # by path
StepAndLogits = tuple[Callable[[], Any], Callable[[], Any]]
MAGIC = "7767517"  # how its text begins


class Writer:
    """Lines of the text, and the numbers in the order of the lines.

    A map that several parts read is split first, as ncnn wants it; `name` hands out the copies.
    """

    def __init__(self, network: Part) -> None:
        self.readers = Counter(n for node in network["nodes"] for n in node["sources"])
        self.readers[network["output"]] += 1
        self.copies: dict[int, list[str]] = {}
        self.lines: list[str] = []
        self.blobs = 0
        self.numbers: list[Any] = []

    def name(self, number: int) -> str:
        """Of a map, for one reader."""
        return self.copies[number].pop()

    def add(self, kind: str, sources: list[str], target: int, **fields: Any) -> None:
        """A layer, and where its map has several readers another that splits it."""
        self._line(kind, sources, [f"map{target}"], fields)
        self.split(target)

    def split(self, target: int) -> None:
        """The names under which a map is read."""
        count, name = self.readers[target], f"map{target}"
        self.copies[target] = [name] if count < 2 else [f"{name}_{i}" for i in range(count)]
        if count > 1:
            self._line("Split", [name], self.copies[target], {})

    def _line(self, kind: str, sources: list[str], targets: list[str], fields: Part) -> None:
        words = [kind, f"layer{len(self.lines)}", len(sources), len(targets), *sources, *targets]
        words += [f"{key.lstrip('_')}={value}" for key, value in fields.items()]
        self.lines.append(" ".join(map(str, words)))
        self.blobs += len(targets)

    def text(self) -> str:
        """The whole."""
        return "\n".join([MAGIC, f"{len(self.lines)} {self.blobs}", *self.lines, ""])


def written(network: Part, params: Arrays) -> tuple[Writer, str]:
    """The network, and the name of its logits. A ReLU behind a convolution is made part of it.

    (So does ncnn's own optimiser.)
    """
    w = Writer(network)
    w.add("Input", [], 0)
    nodes = network["nodes"]
    joined: set[int] = set()
    for i, node in enumerate(nodes):
        if i in joined:
            continue
        target, relu = node["target"], False
        if node["kind"] == "Conv":
            after = [k for k, other in enumerate(nodes) if target in other["sources"]]
            if len(after) == 1 and nodes[after[0]]["kind"] == "ReLU":
                joined.add(after[0])
                target, relu = nodes[after[0]]["target"], True
        layer(w, node, params, [w.name(n) for n in node["sources"]], target, relu)
    return w, w.name(network["output"])


def layer(
    w: Writer, node: Part, params: Arrays, sources: list[str], target: int, relu: bool
) -> None:
    """One node; the numbers of the fields are ncnn's."""
    match node["kind"]:
        case "Concat":
            w.add("Concat", sources, target, _0=0)
        case "Add":
            w.add("BinaryOp", sources, target, _0=0)
        case "Mean":
            w.add("Pooling", sources, target, _0=1, _4=1)
        case "ReLU":
            w.add("ReLU", sources, target)
        case "HardSwish":
            w.add("HardSwish", sources, target, _0=1 / 6, _1=0.5)
        case "Pool":
            (kh, kw), (sh, sw), (ph, pw) = node["kernel"], node["stride"], node["pad"]
            w.add(
                "Pooling", sources, target, _0=0, _1=kw, _11=kh, _2=sw, _12=sh, _3=pw, _13=ph,
                _5=0 if node["ceil"] else 1,
            )  # fmt: skip
        case "Norm":
            own = {n: params[f"{node['path']}/{n}"] for n in ("weight", "mean", "var", "bias")}
            w.add("BatchNorm", sources, target, _0=node["channels"], _1=node["eps"])
            w.numbers += own.values()
        case "Conv":
            (kh, kw), (sh, sw), (ph, pw) = node["kernel"], node["stride"], node["pad"]
            weight = params[f"{node['path']}/weight"].transpose(3, 2, 0, 1)
            w.add(
                "Convolution", sources, target, _0=node["filters"], _1=kw, _11=kh, _3=sw, _13=sh,
                _4=pw, _14=ph, _5=1, _6=weight.size, _9=int(relu),
            )  # fmt: skip
            w.numbers += [np.zeros(1), weight, params[f"{node['path']}/bias"]]  # 0: they are floats


def load(network: Part, params: Arrays, threads: int) -> tuple[Any, str]:
    """The network ready to run, and the name of its logits."""
    net = ncnn.Net()
    net.opt.num_threads = threads
    net.opt.use_vulkan_compute = False
    for name in ("fp16_packed", "fp16_storage", "fp16_arithmetic", "bf16_storage", "bf16_packed"):
        setattr(net.opt, f"use_{name}", False)
    w, logits = written(network, params)
    with tempfile.TemporaryDirectory() as folder:
        text, numbers = Path(folder) / "net.param", Path(folder) / "net.bin"
        text.write_text(w.text())
        numbers.write_bytes(b"".join(np.asarray(a, np.float32).tobytes() for a in w.numbers))
        if net.load_param(str(text)) or net.load_model(str(numbers)):
            raise ValueError("ncnn does not read the network")
    return net, logits


def prepare(task: Any) -> StepAndLogits:
    """Inference only; it knows no batches, so image follows image."""
    net, logits = load(task.network, task.params, task.threads)
    arrays = np.ascontiguousarray(task.images.transpose(0, 3, 1, 2))
    images = [ncnn.Mat(array).clone() for array in arrays]

    def infer() -> Any:
        found = []
        for image in images:
            run = net.create_extractor()
            run.input("map0", image)
            _, y = run.extract(logits)
            found.append(np.array(y).ravel())
        return np.stack(found)

    return infer, infer
