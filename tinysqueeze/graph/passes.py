"""Passes: plain functions from a graph to one that computes the same with fewer or simpler nodes."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tinysqueeze.graph.form import (
    Activate,
    Add,
    Conv,
    Copy,
    Drop,
    Graph,
    Mean,
    Node,
    Norm,
    Other,
    Pool,
)
from tinysqueeze.network.layers import Flatten, Params
from tinysqueeze.network.models import ACTIVATIONS
from tinysqueeze.network.params import flatten, unflatten
from tinysqueeze.network.window import Window

# ------------------------------------------------------------------------------ copies and dropout


def without_copies(graph: Graph) -> Graph:
    """Whoever wrote a map that is only copied writes where the copy went.

    And whoever read a copy of a whole map reads the map. What stays are arms of a Concat that others
    read as well.
    """
    nodes, output = list(graph.nodes), graph.output
    places = [(node.target, node.offset) for node in nodes if isinstance(node, Copy)]
    for place in places:  # where a copy goes changes only after its turn
        copy = next(node for node in nodes if (node.target, node.offset) == place)
        source, target = copy.source, copy.target
        if sum(node.target == target for node in nodes) == 1:
            nodes = [node.reading(target, source) for node in nodes if node is not copy]
            output = source if output == target else output
        elif _own_writers(nodes, copy, output):
            nodes = _moved(nodes, copy)
    return Graph.of(graph.name, graph.shapes, nodes, output)


def with_copies(graph: Graph, direct: tuple[type[Node], ...]) -> Graph:
    """Only nodes of the kinds `direct` write a part of a map; the others' results are copied there."""
    return copied(graph, lambda node: not isinstance(node, direct))


def copied(graph: Graph, which: Callable[[Node], bool]) -> Graph:
    """The nodes that `which` picks write no part of a map: their results are copied there."""
    nodes: list[Node] = []
    shapes = list(graph.shapes)
    for node in graph.nodes:
        shape, channels = shapes[node.target], graph.channels(node)
        if channels == shape[-1] or isinstance(node, Copy) or not which(node):
            nodes.append(node)
            continue
        nodes.append(replace(node, target=len(shapes), offset=0))
        nodes.append(Copy(node.path, len(shapes), node.target, offset=node.offset))
        shapes.append((*shape[:-1], channels))
    return Graph.of(graph.name, shapes, nodes, graph.output)


def without_dropout(graph: Graph, up_to: float = 1) -> Graph:
    """For inference, where dropout does nothing; or only without dropout of a rate `up_to` this."""
    nodes = (
        Copy(n.path, n.source, n.target, offset=n.offset)
        if isinstance(n, Drop) and n.rate <= up_to
        else n
        for n in graph.nodes
    )
    return without_copies(Graph.of(graph.name, graph.shapes, nodes, graph.output))


# ----------------------------------------------------------------------------------- simpler nodes


def without_flatten(graph: Graph) -> Graph:
    """A fully connected layer behind a Flatten becomes a convolution as large as the map before it.

    Flattening moves nothing in memory, so what stands between the two works on the map as well. A
    Flatten with any other reader stays.
    """
    for flat in graph.nodes:
        if isinstance(flat, Other) and isinstance(flat.layer, Flatten):
            found = _spread(graph, flat)
            if found is not None:
                return without_flatten(found)
    return graph


def _spread(graph: Graph, flat: Other) -> Graph | None:
    """The graph without one Flatten, or None where it must stay."""
    shapes, waiting = list(graph.shapes), [flat.target]
    changed: dict[tuple[int, int], Node] = {
        (flat.target, flat.offset): Copy(flat.path, flat.source, flat.target)
    }
    while waiting:
        number = waiting.pop()
        shapes[number] = graph.shapes[flat.source]
        if len(graph.writers(number)) > 1:
            return None
        for node in graph.readers(number):
            if isinstance(node, Conv) and node.groups == 1:
                window = Window.of(graph.size(flat.source)[:2])
                changed[node.target, node.offset] = replace(node, window=window)
            elif isinstance(node, Activate | Drop):
                waiting.append(node.target)
            else:
                return None
    nodes = (changed.get((node.target, node.offset), node) for node in graph.nodes)
    return without_copies(Graph.of(graph.name, shapes, nodes, graph.output))


def with_means(graph: Graph) -> Graph:
    """An average pool over the whole map is the mean of its pixels."""
    nodes = (
        Mean(n.path, n.source, n.target, offset=n.offset)
        if isinstance(n, Pool) and n.average and n.window.pad == (0, 0)
        and n.window.kernel == graph.size(n.source)[:2]
        else n
        for n in graph.nodes
    )  # fmt: skip
    return replace(graph, nodes=tuple(nodes))


def fuse(
    graph: Graph,
    kinds: Sequence[str] = tuple(ACTIVATIONS),
    into: Callable[[Node], bool] = lambda node: isinstance(node, Conv | Add),
) -> Graph:
    """Activations go into the convolutions and sums before them, where nobody else reads these.

    `kinds` says which activations, `into` which convolutions and sums can take one.
    """
    nodes = list(graph.nodes)
    for node in graph.nodes:
        if isinstance(node, Activate) and node.kind in kinds:
            before = _own_writers(nodes, node, graph.output)
            plain = [
                n for n in before if isinstance(n, Conv | Add) and n.activation is None and into(n)
            ]
            if before and len(plain) == len(before):
                fused = {id(n): replace(n, activation=node.kind) for n in plain}
                nodes = _moved([fused.get(id(n), n) for n in nodes], node)
    return Graph.of(graph.name, graph.shapes, nodes, graph.output)


def _own_writers(nodes: Sequence[Node], node: Node, output: int) -> list[Node]:
    """Who wrote the map that a node reads, if nothing but the node sees it."""
    readers = sum(node.source in other.sources for other in nodes)
    if readers > 1 or node.source == output:
        return []
    return [other for other in nodes if other.target == node.source]


def _moved(nodes: Sequence[Node], gone: Node) -> list[Node]:
    """Without a node, whose source's writers now write where it wrote."""
    return [
        n.writing(gone.target, gone.offset) if n.target == gone.source else n
        for n in nodes
        if n is not gone
    ]


# ------------------------------------------------------------------------------------ batch norms


@dataclass(frozen=True)
class Fold:
    """A norm that goes into the convolution at `path`: its channels first .. first + filters.

    Where the two paths are the same, the norm stands alone and becomes a convolution itself.
    """

    path: str
    filters: int
    norm: Norm
    first: int = 0


def fold_norms(
    graph: Graph, params: Mapping[str, Any], alone: bool = False
) -> tuple[Graph, Params]:
    """`merge_norms` and the parameters that go with it (`folded_params`)."""
    merged, folds = merge_norms(graph, alone)
    return merged, folded_params(folds, params)


def merge_norms(graph: Graph, alone: bool = False) -> tuple[Graph, tuple[Fold, ...]]:
    """Batch norms outside training go into the convolutions before them; and what goes where.

    A norm stays where it follows something else, or where others read what it reads; with `alone`
    it then becomes a convolution of one weight a channel.
    """
    nodes, folds = list(graph.nodes), []
    for node in graph.nodes:
        if not isinstance(node, Norm):
            continue
        before = _own_writers(nodes, node, graph.output)
        convs = [n for n in before if isinstance(n, Conv) and n.activation is None]
        if before and len(convs) == len(before):
            folds += [Fold(n.path, n.filters, node, n.offset) for n in convs]
            biased = {id(n): replace(n, bias=True) for n in convs}
            nodes = _moved([biased.get(id(n), n) for n in nodes], node)
        elif alone:
            count = graph.channels(node)
            folds.append(Fold(node.path, count, node))
            ends = (node.path, node.source, node.target)
            conv = Conv(*ends, Window.of(1), count, True, count, offset=node.offset)
            nodes = [conv if n is node else n for n in nodes]
    return Graph.of(graph.name, graph.shapes, nodes, graph.output), tuple(folds)


def folded_params(folds: Sequence[Fold], params: Mapping[str, Any]) -> Params:
    """The parameters of a graph whose norms were merged, each convolution's of the dtype it had.

    The norms' own arrays are gone.
    """
    flat = flatten(params)
    gone = {fold.norm.path for fold in folds}
    kept = {path: a for path, a in flat.items() if path.rpartition("/")[0] not in gone}
    for path, array in folded(folds, flat):
        kept[path] = array.astype(flat[f"{path.rpartition('/')[0]}/weight"].dtype)
    return unflatten(kept)


def folded(
    folds: Sequence[Fold], flat: Mapping[str, np.ndarray]
) -> Iterator[tuple[str, np.ndarray]]:
    """What the folds change, one path and float64 array after the other; `flat` are all by path."""
    for path in dict.fromkeys(fold.path for fold in folds):
        mine = [fold for fold in folds if fold.path == path]
        weight, bias = _before(mine[0], flat)
        for fold in mine:
            part = slice(fold.first, fold.first + fold.filters)
            names = ("weight", "bias", "mean", "var")
            norm = {name: flat[f"{fold.norm.path}/{name}"][part] for name in names}
            weight, bias = normalised(weight, bias, norm, fold.norm.eps)
        yield f"{path}/weight", weight
        yield f"{path}/bias", bias


def _before(fold: Fold, flat: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """weight and bias of a convolution as it was; ones where a norm stands alone."""
    if fold.path == fold.norm.path:
        return np.ones((1, 1, 1, fold.filters)), np.zeros(fold.filters)
    return flat[f"{fold.path}/weight"], flat.get(f"{fold.path}/bias", np.zeros(fold.filters))


def normalised(
    weight: Any, bias: Any, norm: Mapping[str, np.ndarray], eps: float
) -> tuple[np.ndarray, np.ndarray]:
    """The weight and bias of y = x @ weight + bias after a batch norm of y outside training, float64.

    weight (..., F), bias (F,); norm: its weight, bias, mean and var, each (F,). Of 1 and 0 it is the
    norm's own scale and shift.
    """
    scale, shift, mean, var = (
        norm[name].astype(np.float64) for name in ("weight", "bias", "mean", "var")
    )
    scale = scale / np.sqrt(var + eps)
    return weight * scale, (bias - mean) * scale + shift
