"""From a graph back to the SqueezeNet that it is: metaparameters are guessed, and the guess is proven.

The guess reads convolutions in order (stem, squeeze, expands, ..., last). The proof builds that
network, lowers it, and pairs the two graphs node by node, from the result to the image: only where each
node of the one has its like in the other is it the same network, and then each array has its place.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from tinysqueeze.errors import UserError
from tinysqueeze.graph.form import Activate, Add, Conv, Graph, Node, Norm, Pool
from tinysqueeze.graph.lowering import lower
from tinysqueeze.graph.passes import fold_norms, fuse, with_means, without_dropout
from tinysqueeze.network.models import CIFAR, MODELS, V1_1, Model, SqueezeNet
from tinysqueeze.network.params import flatten

DEFAULTS: dict[str, dict[str, Any]] = {
    "squeezenet1_0": {}, "squeezenet1_1": V1_1, "squeezenet_cifar": CIFAR,
}  # fmt: skip
"""By name, how the models differ from SqueezeNet v1.0."""
EPS, MOMENTUM = 1e-5, 0.1  # of our batch norms
Flat = dict[str, np.ndarray]


def squeezenet_of(graph: Graph, flat: Mapping[str, np.ndarray]) -> tuple[Model, Flat] | None:
    """The model and its arrays by our paths, or None where the graph is no SqueezeNet.

    Every convolution has a bias. Norms that stand elsewhere than in ours, or have another epsilon, are
    folded into the convolutions before them.
    """
    folded, arrays = fold_norms(graph, flat)
    for one, its in ((graph, dict(flat)), (folded, flatten(arrays))):
        if any(isinstance(n, Norm) and n.eps != EPS for n in one.nodes):
            continue
        for model in _guesses(one):
            paths = pairs(plain(lower(model)), plain(one))
            if paths is not None:
                return model, {
                    f"{ours}/{path.rpartition('/')[2]}": array
                    for ours, theirs in paths.items()
                    for path, array in its.items()
                    if path.rpartition("/")[0] == theirs
                }
    return None


# --- the proof -----------------------------------------------------------------------------------


def plain(graph: Graph) -> Graph:
    """Without what makes no difference: dropout, ReLUs before or after a Concat, `ceil` where it fits."""
    graph = with_means(without_dropout(graph))
    nodes = tuple(_plain_node(graph, node) for node in graph.nodes)
    return fuse(replace(graph, nodes=nodes))


def _plain_node(graph: Graph, node: Node) -> Node:
    match node:
        case Norm():
            return replace(node, momentum=MOMENTUM)
        case Pool(window=window):
            ceil = replace(window, ceil=True)
            alike = ceil.out_size(*graph.size(node.source)[:2]) == graph.result(node)[:2]
            return replace(node, window=ceil) if alike and not node.average else node
    return node


def pairs(ours: Graph, theirs: Graph) -> dict[str, str] | None:
    """Our paths to theirs, of nodes with arrays; None unless the two graphs are the same.

    Both are walked from the result. The two terms of a sum may stand either way: what is above them
    tells which is which.
    """
    kinds: dict[object, int] = {}
    a, b = _Kinds(ours, kinds), _Kinds(theirs, kinds)
    if a.of_map(ours.output) != b.of_map(theirs.output):
        return None
    paths: dict[str, str] = {}
    met: dict[int, int] = {}
    waiting = [(ours.output, theirs.output)]
    while waiting:
        x, y = waiting.pop()
        if met.setdefault(x, y) != y:
            return None
        if x == 0 or x in paths:
            continue
        writers = (
            sorted(g.writers(m), key=lambda n: n.offset) for g, m in ((ours, x), (theirs, y))
        )
        for one, other in zip(*writers, strict=True):
            if isinstance(one, Conv | Norm):
                paths[one.path] = other.path
            ways = [other.sources, other.sources[::-1]]
            fits = [w for w in ways if [*map(b.of_map, w)] == [*map(a.of_map, one.sources)]]
            known = [
                w
                for w in fits
                if all(met.get(s, t) == t for s, t in zip(one.sources, w, strict=True))
            ]
            if not known:
                return None
            waiting += zip(one.sources, known[0], strict=True)
    return paths


@dataclass
class _Kinds:
    """Numbers for what maps hold: two maps of any graphs have the same where all above them is alike."""

    graph: Graph
    numbers: dict[object, int]

    def __post_init__(self) -> None:
        self.maps: dict[int, int] = {0: self.number(self.graph.shapes[0])}

    def of_map(self, number: int) -> int:
        """The number of what is in a map. (Nodes are in order, so it never goes deep.)"""
        if number not in self.maps:
            for node in self.graph.nodes:
                writers = self.graph.writers(node.target)
                if node is writers[-1]:
                    writers = tuple(sorted(writers, key=lambda n: n.offset))
                    self.maps[node.target] = self.number(tuple(map(self.of_node, writers)))
        return self.maps[number]

    def of_node(self, node: Node) -> int:
        """The number of what a node does, and to what."""
        own = [
            (f.name, getattr(node, f.name))
            for f in fields(node)
            if f.name not in ("path", "source", "second", "target")
        ]
        sources = sorted(self.maps[source] for source in node.sources)
        return self.number((type(node), tuple(own), tuple(sources)))

    def number(self, what: object) -> int:
        """The same for the same."""
        return self.numbers.setdefault(what, len(self.numbers))


# --- the guess -----------------------------------------------------------------------------------


def _guesses(graph: Graph) -> Iterator[Model]:
    """The SqueezeNet that a graph may be, under the name that needs the fewest changes."""
    try:
        found = vars(SqueezeNet(**_metaparameters(plain(graph))))
    except (_No, UserError):
        return
    changes = {
        name: {k: v for k, v in found.items() if v != default[k]}
        for name, changed in DEFAULTS.items()
        for default in [vars(SqueezeNet(**changed))]
    }
    name = min(changes, key=lambda name: len(changes[name]))
    changes[name] |= {"classes": found["classes"]}
    try:
        yield MODELS[name](**changes[name])
    except UserError:
        return


class _No(Exception):
    """The graph is no SqueezeNet."""


def _metaparameters(graph: Graph) -> dict[str, Any]:
    """What a SqueezeNet would be made with, were it this one. Raises _No."""
    around = {n.path for n in graph.nodes if isinstance(n, Conv) and _is_bypass(graph, n)}
    groups: list[list[Conv]] = []
    for node in graph.nodes:
        if isinstance(node, Conv) and node.path not in around:
            if groups and groups[-1][0].target == node.target:
                groups[-1].append(node)
            else:
                groups.append([node])
    height, width, channels = graph.shapes[0] if len(graph.shapes[0]) == 3 else (0, 1, 0)
    if len(groups) < 4 or len(groups) % 2 or height != width:
        raise _No
    (stem,), *middle, (last,) = groups[0][:1], *groups[1:-1], groups[-1][:1]
    squeezes = [group[0] for group in middle[::2]]
    expands = [(_wide(group, 1), _wide(group, 3)) for group in middle[1::2]]
    widths = [one + three for one, three in expands]
    pools = [node for node in graph.nodes if isinstance(node, Pool)]
    activations = [*(n.activation for n in graph.nodes if isinstance(n, Conv)),
                   *(n.kind for n in graph.nodes if isinstance(n, Activate))]  # fmt: skip
    is_normed = any(isinstance(node, Norm) for node in graph.nodes)
    squeezed = graph.readers(squeezes[0].target)
    changed = next((i for i, width in enumerate(widths) if width != widths[0]), len(widths))
    return {
        "classes": last.filters, "input_size": height, "input_channels": channels,
        "stem_filters": stem.filters, "stem_kernel": stem.window.kernel[0],
        "stem_stride": stem.window.stride[0], "stem_pad": stem.window.pad[0],
        "pool_kernel": pools[0].window.kernel[0] if pools else 3,
        "pools": tuple(_follows(graph, pool, groups) for pool in pools),
        "fires": len(expands), "base_e": widths[0], "freq": changed,
        "incr_e": widths[changed] - widths[0] if changed < len(widths) else 0,
        "pct3x3": _share([(three, one + three) for one, three in expands], 0.5, 1),
        "squeeze_ratio": _share(
            [(c.filters, e) for c, e in zip(squeezes, widths, strict=True)], 0.125, 8, least=1
        ),
        "bypass": "complex" if around else "simple" if _has(graph, Add) else None,
        "norm": is_normed, "dropout": 0.5 if height > 32 else 0.0,
        "conv10_pad": last.window.pad[0], "final_relu": last.activation == "relu",
        "allow_wide_squeeze": any(c.filters >= e for c, e in zip(squeezes, widths, strict=True)),
        "linear_squeeze": squeezes[0].activation is None and all(isinstance(n, Conv) for n in squeezed),
        "activation": "hard-swish" if "hard-swish" in activations else "relu",
    }  # fmt: skip


def _has(graph: Graph, kind: type[Node]) -> bool:
    return any(isinstance(node, kind) for node in graph.nodes)


def _is_bypass(graph: Graph, conv: Conv) -> bool:
    """Does a convolution without activation go straight, or through a norm, into a sum?"""
    readers = graph.readers(conv.target)
    if len(readers) == 1 and isinstance(readers[0], Norm):
        readers = graph.readers(readers[0].target)
    return conv.activation is None and len(readers) == 1 and isinstance(readers[0], Add)


def _wide(group: Sequence[Conv], side: int) -> int:
    """How many filters of this side an expand layer has."""
    return sum(conv.filters for conv in group if conv.window.kernel == (side, side))


def _follows(graph: Graph, pool: Pool, groups: Sequence[Sequence[Conv]]) -> int:
    """Which layer a pool follows: 1 is the stem, 2 the first Fire."""
    position = graph.nodes.index(pool)
    before = [group for group in groups if graph.nodes.index(group[0]) < position]
    return 1 + len(before) // 2


def _share(parts: Sequence[tuple[int, int]], usual: float, most: float, least: int = 0) -> float:
    """The usual share p, or else the shortest, that gives all (part, whole); raises _No without one.

    A part is the whole times p, rounded, and at least `least`.
    """
    low = max(((part - 0.5) / whole for part, whole in parts if part > least), default=0.0)
    high = min(most, *((part + 0.5) / whole for part, whole in parts))
    middle = (low + high) / 2
    for share in (usual, *(round(middle, digits) for digits in range(17)), low, high):
        if 0 <= share <= most and all(
            max(least, round(share * whole)) == part for part, whole in parts
        ):
            return share
    raise _No
