"""Running a graph outside training, node by node, by the plain operations."""

from collections.abc import Mapping
from types import ModuleType
from typing import Any

import numpy as np

from tinysqueeze.errors import ShapeError
from tinysqueeze.graph.form import Activate, Add, Conv, Graph, Mean, Node, Norm, Other, Pool
from tinysqueeze.network.layers import Mode
from tinysqueeze.network.models import Activation
from tinysqueeze.network.ops import fast
from tinysqueeze.network.ops.reference import pool_divisor, windows
from tinysqueeze.network.params import flatten, unflatten
from tinysqueeze.network.window import Window

Maps = dict[int, np.ndarray]


def run(
    graph: Graph, params: Mapping[str, Any], images: np.ndarray, ops: ModuleType = fast
) -> Maps:
    """Every map of some images (N, H, W, C), by number, each (N, *its shape).

    `ops` is `tinysqueeze.network.ops.fast` or `.reference`. Raises ShapeError for images of another shape.
    """
    if images.shape[1:] != graph.shapes[0]:
        raise ShapeError(
            f"{graph.name}: expected images (N, {', '.join(map(str, graph.shapes[0]))}), got "
            f"{images.shape}; prepare them as the network's own were"
        )
    flat, maps = flatten(params), {0: images}
    for node in graph.nodes:
        place(graph, node, maps, compute(graph, node, flat, maps, ops))
    return maps


def compute(
    graph: Graph,
    node: Node,
    flat: Mapping[str, np.ndarray],
    maps: Mapping[int, np.ndarray],
    ops: ModuleType = fast,
) -> np.ndarray:
    """What a node makes of the maps it reads, (N, ...); `flat` are the parameters by path."""
    x, y = maps[node.source], maps[node.source]  # Drop and Copy hand on what they read
    match node:
        case Conv():
            weight = flat[f"{node.path}/weight"]
            bias = flat[f"{node.path}/bias"] if node.bias else np.zeros(node.filters, x.dtype)
            x = x.reshape(len(x), *graph.size(node.source))
            y = convolve(x, weight, bias, node.window, node.groups, ops)
            y = activate(y, node.activation, ops)
        case Norm():
            arrays = (flat[f"{node.path}/{name}"] for name in ("weight", "bias", "mean", "var"))
            y = ops.batch_norm(x, *arrays, node.eps)
        case Activate():
            y = activate(x, node.kind, ops)
        case Pool() if node.average:
            y = ops.avg_pool2d(x, node.window)
            if not node.counts_padding:
                share = pool_divisor(x.shape, node.window) / averaged_over(x.shape, node)
                y = y * share.astype(x.dtype)
        case Pool():
            y, _ = ops.max_pool2d(x, node.window)
        case Mean():
            y = ops.global_avg_pool2d(x)
        case Add():
            y = activate(x + maps[node.second], node.activation, ops)
        case Other():
            y, _ = node.layer.forward(unflatten(below(flat, node.path)), x, Mode(ops))
    return y


def place(graph: Graph, node: Node, maps: Maps, y: np.ndarray) -> None:
    """File a node's result; where several nodes share a map, in its own channels."""
    whole, channels = graph.shapes[node.target], graph.channels(node)
    y = y.reshape(len(y), *whole[:-1], channels)
    if channels == whole[-1]:
        maps[node.target] = y
        return
    if node.target not in maps:
        maps[node.target] = np.empty((len(y), *whole), y.dtype)
    maps[node.target][..., node.offset : node.offset + channels] = y


def convolve(
    x: np.ndarray,
    weight: np.ndarray,
    bias: np.ndarray,
    window: Window,
    groups: int = 1,
    ops: ModuleType = fast,
) -> np.ndarray:
    """x (N, H, W, C) -> y (N, OH, OW, F); part i of the filters sees part i of the channels alone.

    weight has KH * KW * C / groups * F numbers in that order, whatever its shape; bias (F,).
    """
    weight = weight.reshape(*window.kernel, x.shape[3] // groups, len(bias))
    parts = zip(*(np.split(a, groups, axis=-1) for a in (x, weight, bias)), strict=True)
    found: list[np.ndarray] = [ops.conv2d(*part, window) for part in parts]
    return found[0] if groups == 1 else np.concatenate(found, axis=-1)


def activate(x: np.ndarray, kind: Activation | None, ops: ModuleType = fast) -> np.ndarray:
    """The activation of each number; None leaves them as they are."""
    y: np.ndarray = x
    if kind == "relu":
        y = ops.relu(x)
    elif kind == "hard-swish":
        y, _ = ops.hard_swish(x)
    return y


def averaged_over(x_shape: tuple[int, ...], pool: Pool) -> np.ndarray:
    """How many pixels each average of x (N, H, W, C) is over: (OH, OW, 1)."""
    if pool.counts_padding:
        return pool_divisor(x_shape, pool.window)
    seen: np.ndarray = windows(np.ones((1, *x_shape[1:3], 1), np.int64), pool.window)
    count: np.ndarray = seen.sum(axis=(3, 4))[0]
    return count


def below(flat: Mapping[str, np.ndarray], path: str) -> dict[str, np.ndarray]:
    """The arrays of a layer, by the names it knows."""
    start = f"{path}/" if path else ""
    return {name[len(start) :]: a for name, a in flat.items() if name.startswith(start)}
