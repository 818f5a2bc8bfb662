"""Run a network once and keep every x, y, dx, dy and gradient by path, to be looked at."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tinysqueeze.labels import check_images, check_labels
from tinysqueeze.network.compose import is_bypass, join, map_layers
from tinysqueeze.network.layers import EVAL, Cache, Layer, Mode, Params, Shape
from tinysqueeze.network.loss import softmax_cross_entropy
from tinysqueeze.network.models import Model
from tinysqueeze.network.params import check_fit


@dataclass
class Record:
    """What one layer saw: x, y and its cache on the way up; dy, dx and its gradients on the way down.

    `layer` is the layer itself; arrays are the very ones the computation used: look, don't change.
    """

    layer: Layer
    params: Params
    x: np.ndarray
    y: np.ndarray
    cache: Cache
    dy: np.ndarray | None = None
    dx: np.ndarray | None = None
    grads: Params = field(default_factory=dict)

    @property
    def down(self) -> np.ndarray:
        """dy, where there was a way down."""
        assert self.dy is not None
        return self.dy


@dataclass
class Trace:
    """One step through a network. `records` goes from path to Record, in the order of the forward pass.

    Named compositions ("fire2") are there too, before the layers they are made of, and where a bypass
    ends its sum ("fire3/sum"); the path "" is the network as a whole.
    """

    records: dict[str, Record]
    logits: np.ndarray
    loss: float | None = None
    dlogits: np.ndarray | None = None
    grads: Params = field(default_factory=dict)

    def __getitem__(self, path: str) -> Record:
        return self.records[path]


@dataclass(frozen=True)
class Sum(Layer):
    """Where a bypass ends, as a layer to look at: y = x, which came through, + what came around.

    The other summand is its record's cache["around"]; dx is dy, for both ways alike.
    """


@dataclass(frozen=True)
class _Probe(Layer):
    """A layer that does what `inner` does and files what it sees under its path."""

    path: str
    inner: Layer
    records: dict[str, Any] = field(compare=False)

    def out_shape(self, in_shape: Shape) -> Shape:
        return self.inner.out_shape(in_shape)

    def forward(self, params: Params, x: np.ndarray, mode: Mode = EVAL) -> tuple[np.ndarray, Cache]:
        self.records.setdefault(self.path, None)  # the place in the order is that of the way in
        y, cache = self.inner.forward(params, x, mode)
        if is_bypass(self.inner):  # its body has its path, so this is the body's record
            through = self.records[self.path].y
            around = x
            if self.inner.shortcut is not None:
                around = self.records[join(self.path, "bypass")].y
            self.records[self._sum] = Record(Sum(), {}, through, y, {"around": around})
        self.records[self.path] = Record(self.inner, params, x, y, cache)
        return y, cache

    def backward(
        self, params: Params, cache: Cache, dy: np.ndarray, mode: Mode = EVAL
    ) -> tuple[np.ndarray, Params]:
        dx, grads = self.inner.backward(params, cache, dy, mode)
        if is_bypass(self.inner):
            self.records[self._sum].dy = self.records[self._sum].dx = dy
        record = self.records[self.path]
        record.dy, record.dx, record.grads = dy, dx, grads
        return dx, grads

    @property
    def _sum(self) -> str:
        return join(self.path, "sum")


def trace(
    model: Layer,
    params: Params,
    images: np.ndarray,
    labels: np.ndarray | None = None,
    smoothing: float = 0.0,
    mode: Mode = EVAL,
) -> Trace:
    """Forward, and with `labels` the loss and backward too, keeping everything by path.

    images (N, H, W, C), labels as in `loss.softmax_cross_entropy`. Raises ShapeError, naming the
    layer, where a shape does not fit.
    """
    images = check_images(images, "trace")
    if labels is not None:
        labels = check_labels(labels, len(images))
    if isinstance(model, Model):
        check_fit(model, params)
    records: dict[str, Record] = {}
    probed = map_layers(lambda path, layer: _Probe(path, layer, records), model)
    logits, cache = probed.forward(params, images, mode)
    found = Trace(records, logits)
    if labels is not None:
        found.loss, found.dlogits = softmax_cross_entropy(logits, labels, smoothing, mode)
        _, found.grads = probed.backward(params, cache, found.dlogits, mode)
    return found
