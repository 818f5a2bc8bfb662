"""How layers join: one after another, side by side, around a bypass, or under a name.

Each composition is a layer again. Its parameters, caches and gradients are dicts by the names of
its children; a child named "" is transparent: its entries stand in the parent's dict, so that paths
stay the ones people know ("fire2/squeeze/weight", with or without a bypass).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeGuard

import numpy as np

from tinysqueeze.errors import ShapeError
from tinysqueeze.network.layers import EVAL, Backward, Cache, Forward, Layer, Mode, Params, Shape

Children = tuple[tuple[str, Layer], ...]


def sub(tree: dict[str, Any], name: str) -> dict[str, Any]:
    """The part of a nested dict that belongs to child `name` (nothing there: an empty dict)."""
    return tree.get(name, {}) if name else tree


def put(tree: dict[str, Any], name: str, part: dict[str, Any]) -> None:
    """The reverse of `sub`: file child `name`'s dict in the parent's.

    Raises ShapeError where something of that name is there already, or may be by another way ("a/b" and
    "b" in "a"): the two would share it.
    """
    if "/" in name:
        raise ShapeError("a slash stands between names; give the layer a name without one", name)
    part = {name: part} if name else part
    for twice in filter(tree.__contains__, part):
        raise ShapeError("there are two of this name; give each layer a name of its own", twice)
    tree.update(part)


def join(path: str, name: str) -> str:
    """ "fire2" and "squeeze" -> "fire2/squeeze"; empty names leave no trace."""
    return f"{path}/{name}" if path and name else path or name


@contextmanager
def within(name: str) -> Iterator[None]:
    """Put a layer's name before the path of a shape error that it raises."""
    try:
        yield
    except ShapeError as error:
        raise error.within(name) from None


class Composition(Layer):
    """A layer made of named layers. Everything but the calculus is a fold over `children`."""

    @property
    def children(self) -> Children:
        """(name, layer), in forward order."""
        raise NotImplementedError

    def with_children(self, children: Children) -> Layer:
        """The same composition of other layers."""
        raise NotImplementedError

    def child_in_shapes(self, in_shape: Shape) -> list[Shape]:
        """The shape that each child receives; here every child gets the same."""
        return [in_shape for _ in self.children]

    def _collect(self, method: str, in_shape: Shape) -> dict[str, Any]:
        shapes: dict[str, Any] = {}
        for (name, layer), shape in zip(self.children, self.child_in_shapes(in_shape), strict=True):
            with within(name):
                part = getattr(layer, method)(shape)
            put(shapes, name, part)
        return shapes

    def param_shapes(self, in_shape: Shape) -> dict[str, Any]:
        """The children's, by name."""
        return self._collect("param_shapes", in_shape)

    def buffer_shapes(self, in_shape: Shape) -> dict[str, Any]:
        """The children's, by name."""
        return self._collect("buffer_shapes", in_shape)

    def moved_buffers(self, params: Params, cache: Cache) -> Params:
        """The children's, by name."""
        moved: Params = {}
        for name, layer in self.children:
            with within(name):
                part = layer.moved_buffers(sub(params, name), sub(cache, name))
            put(moved, name, part)
        return moved


@dataclass(frozen=True)
class Chain(Composition):
    """One after another: y = last(... first(x))."""

    steps: Children

    @property
    def children(self) -> Children:
        """The steps."""
        return self.steps

    def with_children(self, children: Children) -> Layer:
        """A chain of other steps."""
        return replace(self, steps=children)

    def _shapes(self, in_shape: Shape) -> list[Shape]:
        shapes = [in_shape]
        for name, layer in self.steps:
            with within(name):
                shapes.append(layer.out_shape(shapes[-1]))
        return shapes

    def child_in_shapes(self, in_shape: Shape) -> list[Shape]:
        """Each step receives what the one before hands out."""
        return self._shapes(in_shape)[:-1]

    def out_shape(self, in_shape: Shape) -> Shape:
        """The last step's."""
        return self._shapes(in_shape)[-1]

    def forward(self, params: Params, x: np.ndarray, mode: Mode = EVAL) -> Forward:
        """Each step's output is the next one's input."""
        cache: Cache = {}
        for name, layer in self.steps:
            with within(name):
                x, kept = layer.forward(sub(params, name), x, mode)
            put(cache, name, kept)
        return x, cache

    def backward(self, params: Params, cache: Cache, dy: np.ndarray, mode: Mode = EVAL) -> Backward:
        """The chain rule: the same list, read backwards."""
        grads: Params = {}
        for name, layer in reversed(self.steps):
            with within(name):
                dy, found = layer.backward(sub(params, name), sub(cache, name), dy, mode)
            put(grads, name, found)
        return dy, grads


class Parallel(Composition):
    """What Concat and Residual share: every child sees the same x."""

    def child_out_shapes(self, in_shape: Shape) -> list[Shape]:
        """The shape that each child hands out."""
        shapes = []
        for name, layer in self.children:
            with within(name):
                shapes.append(layer.out_shape(in_shape))
        return shapes

    def forward_each(
        self, params: Params, x: np.ndarray, mode: Mode
    ) -> tuple[list[np.ndarray], Cache]:
        """Every child's y."""
        ys: list[np.ndarray] = []
        cache: Cache = {}
        for name, layer in self.children:
            with within(name):
                y, kept = layer.forward(sub(params, name), x, mode)
            put(cache, name, kept)
            ys.append(y)
        return ys, cache

    def backward_each(
        self, params: Params, cache: Cache, dys: list[np.ndarray], mode: Mode
    ) -> Backward:
        """dx: x fed every child, so that their shares of it add up."""
        dxs: list[np.ndarray] = []
        grads: Params = {}
        for (name, layer), dy in zip(self.children, dys, strict=True):
            with within(name):
                dx, found = layer.backward(sub(params, name), sub(cache, name), dy, mode)
            put(grads, name, found)
            dxs.append(dx)
        return sum(dxs[1:], start=dxs[0]), grads


@dataclass(frozen=True)
class Concat(Parallel):
    """Side by side: every arm sees the same x, and their channels are joined."""

    arms: Children

    @property
    def children(self) -> Children:
        """The arms."""
        return self.arms

    def with_children(self, children: Children) -> Layer:
        """Other arms."""
        return replace(self, arms=children)

    def out_shape(self, in_shape: Shape) -> Shape:
        """The arms must agree in all but the channels, which add up."""
        shapes = self.child_out_shapes(in_shape)
        if len({shape[:-1] for shape in shapes}) > 1:
            raise ShapeError(f"Concat: arms must give maps of one size, got {shapes}; change a pad")
        return *shapes[0][:-1], sum(shape[-1] for shape in shapes)

    def forward(self, params: Params, x: np.ndarray, mode: Mode = EVAL) -> Forward:
        """y = [arm1(x), arm2(x), ...] along the last axis."""
        ys, cache = self.forward_each(params, x, mode)
        put(cache, "", {"channels": tuple(y.shape[-1] for y in ys)})
        return np.concatenate(ys, axis=-1), cache

    def backward(self, params: Params, cache: Cache, dy: np.ndarray, mode: Mode = EVAL) -> Backward:
        """Each arm gets its channels of dy."""
        dys = np.split(dy, np.cumsum(cache["channels"])[:-1], axis=-1)
        return self.backward_each(params, cache, dys, mode)


@dataclass(frozen=True)
class Residual(Parallel):
    """A bypass: body(x) + x, or body(x) + shortcut(x) (the paper's simple and complex bypass, §6)."""

    body: Layer
    shortcut: Layer | None = None

    @property
    def children(self) -> Children:
        """The body, transparent, and the shortcut as "bypass"."""
        inner: Children = (("", self.body),)
        return inner if self.shortcut is None else (*inner, ("bypass", self.shortcut))

    def with_children(self, children: Children) -> Layer:
        """Another body and shortcut."""
        return Residual(*(layer for _, layer in children))

    def out_shape(self, in_shape: Shape) -> Shape:
        """Both ways must arrive at one shape."""
        through, *around = self.child_out_shapes(in_shape)
        bypass = around[0] if around else in_shape
        if through != bypass:
            raise ShapeError(
                f"Residual: the body gives {through} but the bypass {bypass}, and they are added; "
                "use a 1x1 convolution as shortcut where the channels differ"
            )
        return through

    def forward(self, params: Params, x: np.ndarray, mode: Mode = EVAL) -> Forward:
        """y = body(x) + x, or + shortcut(x)."""
        (through, *around), cache = self.forward_each(params, x, mode)
        return through + (around[0] if around else x), cache

    def backward(self, params: Params, cache: Cache, dy: np.ndarray, mode: Mode = EVAL) -> Backward:
        """dy goes both ways; where there is no shortcut, it goes around as it is."""
        dx, grads = self.backward_each(params, cache, [dy for _ in self.children], mode)
        return (dx + dy if self.shortcut is None else dx), grads


def is_bypass(layer: Layer) -> TypeGuard[Residual]:
    """Does it end in a sum of what came through and what came around?"""
    return isinstance(layer, Residual)


class Block(Composition):
    """A named composition: whatever subclasses describe, it behaves as its `body`."""

    @property
    def body(self) -> Layer:
        """What it is made of."""
        raise NotImplementedError

    @property
    def children(self) -> Children:
        """The body, transparent."""
        return (("", self.body),)

    def with_children(self, children: Children) -> Layer:
        """The rewritten body, under the old name."""
        return Rewritten(type(self).__name__, children[0][1])

    def out_shape(self, in_shape: Shape) -> Shape:
        """The body's."""
        return self.body.out_shape(in_shape)

    def forward(self, params: Params, x: np.ndarray, mode: Mode = EVAL) -> Forward:
        """The body's."""
        return self.body.forward(params, x, mode)

    def backward(self, params: Params, cache: Cache, dy: np.ndarray, mode: Mode = EVAL) -> Backward:
        """The body's."""
        return self.body.backward(params, cache, dy, mode)


@dataclass(frozen=True)
class Rewritten(Block):
    """A block whose inside was rewritten by `map_layers`; `kind` is what it was."""

    kind: str
    inside: Layer

    @property
    def body(self) -> Layer:
        """The rewritten inside."""
        return self.inside

    def with_children(self, children: Children) -> Layer:
        """Rewritten once more."""
        return Rewritten(self.kind, children[0][1])


def walk(
    layer: Layer, in_shape: Shape, path: str = ""
) -> Iterator[tuple[str, Layer, Shape, Shape]]:
    """Every layer, compositions before their parts: (path, layer, in_shape, out_shape)."""
    yield path, layer, in_shape, layer.out_shape(in_shape)
    if isinstance(layer, Composition):
        shapes = layer.child_in_shapes(in_shape)
        for (name, child), shape in zip(layer.children, shapes, strict=True):
            yield from walk(child, shape, join(path, name))


def leaves(layer: Layer, in_shape: Shape) -> Iterator[tuple[str, Layer, Shape, Shape]]:
    """The layers that are not compositions, in forward order: (path, layer, in_shape, out_shape)."""
    return (found for found in walk(layer, in_shape) if not isinstance(found[1], Composition))


def map_layers(change: Callable[[str, Layer], Layer], layer: Layer, path: str = "") -> Layer:
    """Rewrite a network: `change(path, layer)` for every layer, parts before their whole."""
    if isinstance(layer, Composition):
        children = tuple(
            (name, map_layers(change, child, join(path, name))) for name, child in layer.children
        )
        if children != layer.children:
            layer = layer.with_children(children)
    return change(path, layer)


def map_leaves(change: Callable[[str, Layer], Layer], layer: Layer) -> Layer:
    """Rewrite every layer that is not a composition."""
    return map_layers(
        lambda path, part: part if isinstance(part, Composition) else change(path, part), layer
    )
