"""What no kernel can do: nodes run by their layers' own forward and backward, between two programs."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from tinysqueeze.compiled.sequence import Call, Given
from tinysqueeze.compiled.space import View
from tinysqueeze.compiled.steps import Map, NodeStep, StepList
from tinysqueeze.graph import Add, Copy, below, compute, is_graphs_own, layer_of
from tinysqueeze.network.layers import Cache, Layer, Mode
from tinysqueeze.network.params import flatten, unflatten

WHOLE = slice(None)


def read(view: View, size: Map, images: int, part: slice = WHOLE) -> np.ndarray:
    """A map, or a part of its channels, out of its buffer: (N, H, W, C) without any padding."""
    return _pixels(view, images)[..., size.positions[part]]


def write(
    view: View, size: Map, values: np.ndarray, add: bool = False, part: slice = WHOLE
) -> None:
    """A map, or a part of its channels, into its buffer."""
    pixels, places = _pixels(view, len(values)), size.positions[part]
    if add:
        pixels[..., places] += values
    else:
        pixels[..., places] = values


def _pixels(view: View, images: int) -> np.ndarray:
    """A view as a NumPy array (N, H, W, padded channels)."""
    return np.lib.stride_tricks.as_strided(
        view.array[view.start :],
        (images, view.height, view.width, view.channels),
        [4 * stride for stride in (view.next, view.row, view.pixel, 1)],
    )


def random_of(step: NodeStep, seed: int) -> np.random.Generator:
    """What a node draws from in a training step."""
    return np.random.default_rng([seed, step.target])


class NodeRun:
    """One NodeStep of a plan; `backward` uses what `forward` has kept."""

    def __init__(
        self,
        steps: StepList,
        step: NodeStep,
        params: Mapping[str, np.ndarray],
        grads: Mapping[str, np.ndarray] | None,
    ) -> None:
        self.step, self.node, self.maps = step, step.node, steps.maps
        self.shapes, self.trains = steps.graph.shapes, grads is not None
        self.params, self.grads = below(params, step.name), below(grads or {}, step.name)
        self.layer: Layer | None = None  # None: a sum, a copy, or what no layer does
        if not (isinstance(self.node, Add | Copy) or (grads is None and is_graphs_own(self.node))):
            self.layer = layer_of(steps.graph, self.node)
        self.graph, self.flat = steps.graph, params
        self.part = slice(self.node.offset, self.node.offset + steps.graph.channels(self.node))
        self.mode, self.cache = Mode(), Cache()

    def forward(self, buffers: Mapping[int, View]) -> Call:
        """What computes the step's map."""

        def call(given: Given) -> None:
            images, maps = len(given.images), self.maps
            xs = []
            for number in self.step.reads:
                x = read(buffers[number], maps[number], images) if number else given.images
                xs.append(np.ascontiguousarray(x).reshape(images, *self.shapes[self.node.source]))
            if self.layer is not None:
                y = self._layer(xs[0], given)
            else:
                y = compute(
                    self.graph, self.node, self.flat, dict(zip(self.node.sources, xs, strict=True))
                )
            size = maps[self.step.target]
            y = y.reshape(images, size.height, size.width, -1)
            write(buffers[self.step.target], size, y, part=self.part)

        return call

    def _layer(self, x: np.ndarray, given: Given) -> np.ndarray:
        """The layer's forward; in training its buffers move."""
        assert self.layer is not None
        params = unflatten(self.params)
        self.mode = Mode(rng=random_of(self.step, given.seed) if self.trains else None)
        y, self.cache = self.layer.forward(params, x, self.mode)
        if self.trains:
            for path, value in flatten(self.layer.moved_buffers(params, self.cache)).items():
                self.params[path][...] = value
        return y

    def backward(self, d: View, towards: list[tuple[View, bool]]) -> Call:
        """What computes the gradients of the step, and to what it reads: (where, is it added?) each."""

        def call(given: Given) -> None:
            images, shape = len(given.images), self.shapes[self.node.target][:-1]
            dx: Any = np.ascontiguousarray(
                read(d, self.maps[self.step.target], images, self.part)
            ).reshape(images, *shape, self.part.stop - self.part.start)
            if self.layer is not None:
                dx, grads = self.layer.backward(unflatten(self.params), self.cache, dx, self.mode)
                for path, value in flatten(grads).items():
                    self.grads[path][...] = value
            reads = [number for number in self.step.reads if number]
            for number, (view, add) in zip(reads, towards, strict=True):
                size = self.maps[number]
                write(view, size, dx.reshape(images, *size.shape), add)

        return call
