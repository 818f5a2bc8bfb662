"""A network as one flat list of nodes over numbered maps, which engines and file formats loop over.

graph = lower(model)               # the only walk over compositions outside the network's own files
print(graph.text())
graph = fuse(without_dropout(graph))   # passes: plain functions from graph to graph
maps = run(graph, params, images)      # every map by number; maps[graph.output] are the logits
"""

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
from tinysqueeze.graph.lowering import is_graphs_own, layer_of, lower
from tinysqueeze.graph.passes import (
    Fold,
    copied,
    fold_norms,
    folded,
    folded_params,
    fuse,
    merge_norms,
    normalised,
    with_copies,
    with_means,
    without_copies,
    without_dropout,
    without_flatten,
)
from tinysqueeze.graph.run import activate, averaged_over, below, compute, convolve, place, run
from tinysqueeze.graph.spec import LARGEST_MAP, MOST_NODES, graph_from, spec_of
from tinysqueeze.graph.whole import GraphModel, Whole, arrays_of, model_of, rebuild

__all__ = [
    "LARGEST_MAP", "MOST_NODES", "Activate", "Add", "Conv", "Copy", "Drop", "Fold", "Graph",
    "GraphModel", "Mean", "Node", "Norm", "Other", "Pool", "Whole", "activate", "arrays_of",
    "averaged_over", "below", "compute", "convolve", "copied", "fold_norms", "folded",
    "folded_params", "fuse", "graph_from", "is_graphs_own", "layer_of", "lower", "merge_norms",
    "model_of", "normalised", "place", "rebuild", "run", "spec_of", "with_copies", "with_means",
    "without_copies", "without_dropout", "without_flatten",
]  # fmt: skip
