"""Layers that no kernel can do, run by their own forward and backward between two programs."""

from typing import Any

import numpy as np

from tinysqueeze.compiled.network import LayerStep, Map, Network
from tinysqueeze.compiled.sequence import Call
from tinysqueeze.compiled.workspace import View
from tinysqueeze.network.layers import Mode
from tinysqueeze.network.params import flatten, unflatten


def read(view: View, size: Map, images: int) -> np.ndarray:
    """A map out of its buffer, (N, H, W, C), without any padding."""
    return _pixels(view, images)[..., size.positions]


def write(view: View, size: Map, values: np.ndarray, add: bool = False) -> None:
    """A map into its buffer."""
    pixels = _pixels(view, len(values))
    if add:
        pixels[..., size.positions] += values
    else:
        pixels[..., size.positions] = values


def _pixels(view: View, images: int) -> np.ndarray:
    """A view as a NumPy array (N, H, W, padded channels)."""
    return np.lib.stride_tricks.as_strided(
        view.array[view.start :],
        (images, view.height, view.width, view.channels),
        [4 * stride for stride in (view.next, view.row, view.pixel, 1)],
    )


class LayerRunner:
    """One LayerStep of a plan."""

    def __init__(
        self,
        network: Network,
        step: LayerStep,
        params: dict[str, np.ndarray],
        grads: dict[str, np.ndarray] | None = None,
        training: bool = True,
    ) -> None:
        self.network, self.step, self.training = network, step, training
        self.source, self.target = network.maps[step.source], network.maps[step.target]
        self.params, self.grads = _below(params, step.path), _below(grads or {}, step.path)
        self.images: np.ndarray | None = None
        self.run = Mode()
        self.cache: dict[str, Any] = {}
        self.in_shape = self.source.shape
        for other in network.steps:
            if other.target == step.source and getattr(other, "out_shape", (0, 0, 0))[1:] == ():
                self.in_shape = (self.source.channels,)
        if self.source.pixels == 1 and any(
            type(other).__name__ == "MeanStep" and other.target == step.source
            for other in network.steps
        ):
            self.in_shape = (self.source.channels,)

    def begin(self, images: np.ndarray, seed: int) -> None:
        """Before a run: the images, and the seed of anything random."""
        self.images = images
        rng = np.random.default_rng([seed, self.step.target]) if self.training else None
        self.run = Mode(rng=rng)

    def forward(self, views: dict[int, View]) -> Call:
        """What computes the step's map."""

        def call(images: int) -> None:
            x = self.images
            if self.step.source:
                x = read(views[self.step.source], self.source, images)
            assert x is not None
            x = np.ascontiguousarray(x).reshape(images, *self.in_shape)
            params = unflatten(self.params)
            y, self.cache = self.step.layer.forward(params, x, self.run)
            if self.training:
                moved = flatten(self.step.layer.moved_buffers(params, self.cache))
                for path, value in moved.items():
                    self.params[path][...] = value
            write(views[self.step.target], self.target, y.reshape(images, *self.target.shape))

        return call

    def backward(self, d: View, dx: View | None, add: bool) -> Call:
        """What computes the gradients of the step, and to its source."""

        def call(images: int) -> None:
            dy = np.ascontiguousarray(read(d, self.target, images))
            dy = dy.reshape(images, *self.step.out_shape)
            got, grads = self.step.layer.backward(unflatten(self.params), self.cache, dy, self.run)
            for path, value in flatten(grads).items():
                self.grads[path][...] = value
            if dx is not None:
                write(dx, self.source, got.reshape(images, *self.source.shape), add)

        return call


def _below(flat: dict[str, np.ndarray], path: str) -> dict[str, np.ndarray]:
    """The entries of a layer, by the names it knows."""
    start = f"{path}/" if path else ""
    return {name[len(start) :]: a for name, a in flat.items() if name.startswith(start)}
