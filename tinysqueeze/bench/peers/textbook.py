"""What learners write first: NumPy, channels first, im2col and col2im, a class for each layer."""

from collections.abc import Callable
from typing import Any

import numpy as np

Part = dict[str, Any]  # of a network's description: a node, or all of it
Arrays = dict[str, Any]  # by path
StepAndLogits = tuple[Callable[[], Any], Callable[[], Any]]


def out_size(size: int, kernel: int, stride: int, pad: int, ceil: bool) -> int:
    """Positions of a window along one side."""
    span = size + 2 * pad - kernel
    return (-(-span // stride) if ceil else span // stride) + 1


def im2col(x: np.ndarray, part: Part, fill: float = 0.0) -> tuple[np.ndarray, tuple[int, ...]]:
    """x (N, C, H, W) -> columns (N, C, KH, KW, OH, OW), and the padded shape of x."""
    (kh, kw), (sh, sw), (ph, pw) = part["kernel"], part["stride"], part["pad"]
    n, c, h, w = x.shape
    oh, ow = out_size(h, kh, sh, ph, part["ceil"]), out_size(w, kw, sw, pw, part["ceil"])
    down, right = max((oh - 1) * sh + kh - h - ph, ph), max((ow - 1) * sw + kw - w - pw, pw)
    if ph or pw or down or right:
        x = np.pad(x, ((0, 0), (0, 0), (ph, down), (pw, right)), constant_values=fill)
    columns = np.empty((n, c, kh, kw, oh, ow), x.dtype)
    for i in range(kh):
        for j in range(kw):
            columns[:, :, i, j] = x[:, :, i : i + sh * oh : sh, j : j + sw * ow : sw]
    return columns, x.shape


def col2im(
    columns: np.ndarray, padded: tuple[int, ...], x_shape: tuple[int, ...], part: Part
) -> np.ndarray:
    """The sum of columns (N, C, KH, KW, OH, OW) where they overlap, without the padding."""
    (kh, kw), (sh, sw), (ph, pw) = part["kernel"], part["stride"], part["pad"]
    oh, ow = columns.shape[4:]
    x = np.zeros(padded, columns.dtype)
    for i in range(kh):
        for j in range(kw):
            x[:, :, i : i + sh * oh : sh, j : j + sw * ow : sw] += columns[:, :, i, j]
    return x[:, :, ph : ph + x_shape[2], pw : pw + x_shape[3]]


class Layer:
    """A layer with its arrays, gradients and velocities, each by name."""

    def __init__(self, part: Part, params: Arrays) -> None:
        self.part = part
        start = f"{part['path']}/"
        self.params = {k[len(start) :]: v.copy() for k, v in params.items() if k.startswith(start)}
        self.grads: Arrays = {}
        self.velocity: Arrays = {}

    def update(self, rate: float, momentum: float) -> None:
        for name, grad in self.grads.items():
            grad = grad.reshape(self.params[name].shape)
            self.velocity[name] = momentum * self.velocity.get(name, 0) + grad
            self.params[name] -= np.float32(rate) * self.velocity[name]


class Conv(Layer):
    def __init__(self, part: Part, params: Arrays) -> None:
        super().__init__(part, params)
        self.params["weight"] = np.ascontiguousarray(self.params["weight"].transpose(3, 2, 0, 1))

    def forward(self, x: np.ndarray, training: bool) -> Any:
        columns, self.padded = im2col(x, self.part)
        self.x_shape, self.shape = x.shape, columns.shape
        n, _, _, _, oh, ow = columns.shape
        self.columns = columns.transpose(0, 4, 5, 1, 2, 3).reshape(n * oh * ow, -1)
        weight = self.params["weight"].reshape(self.part["filters"], -1)
        y = self.columns @ weight.T + self.params["bias"]
        return y.reshape(n, oh, ow, -1).transpose(0, 3, 1, 2)

    def backward(self, dy: np.ndarray) -> Any:
        n, c, kh, kw, oh, ow = self.shape
        rows = dy.transpose(0, 2, 3, 1).reshape(n * oh * ow, -1)
        weight = self.params["weight"].reshape(self.part["filters"], -1)
        self.grads = {"weight": rows.T @ self.columns, "bias": rows.sum(0)}
        columns = (rows @ weight).reshape(n, oh, ow, c, kh, kw).transpose(0, 3, 4, 5, 1, 2)
        return col2im(columns, self.padded, self.x_shape, self.part)


class ReLU(Layer):
    def forward(self, x: np.ndarray, training: bool) -> Any:
        self.mask = x <= 0
        y = x.copy()
        y[self.mask] = 0
        return y

    def backward(self, dy: np.ndarray) -> Any:
        dx = dy.copy()
        dx[self.mask] = 0
        return dx


class HardSwish(Layer):
    def forward(self, x: np.ndarray, training: bool) -> Any:
        self.x, self.gate = x, np.clip(x / np.float32(6) + np.float32(0.5), 0, 1)
        return x * self.gate

    def backward(self, dy: np.ndarray) -> Any:
        bent = np.abs(self.x) < 3
        return dy * (self.gate + bent * self.x / np.float32(6))


class Pool(Layer):
    def forward(self, x: np.ndarray, training: bool) -> Any:
        columns, self.padded = im2col(x, self.part, -np.inf)
        self.x_shape, self.shape = x.shape, columns.shape
        n, c, kh, kw, oh, ow = columns.shape
        rows = columns.transpose(0, 1, 4, 5, 2, 3).reshape(-1, kh * kw)
        self.argmax = rows.argmax(1)
        return rows.max(1).reshape(n, c, oh, ow)

    def backward(self, dy: np.ndarray) -> Any:
        n, c, kh, kw, oh, ow = self.shape
        rows = np.zeros((dy.size, kh * kw), dy.dtype)
        rows[np.arange(dy.size), self.argmax] = dy.ravel()
        columns = rows.reshape(n, c, oh, ow, kh, kw).transpose(0, 1, 4, 5, 2, 3)
        return col2im(columns, self.padded, self.x_shape, self.part)


class Mean(Layer):
    def forward(self, x: np.ndarray, training: bool) -> Any:
        self.x_shape = x.shape
        return x.mean((2, 3))

    def backward(self, dy: np.ndarray) -> Any:
        h, w = self.x_shape[2:]
        return np.broadcast_to(dy[:, :, None, None] / np.float32(h * w), self.x_shape)


class Norm(Layer):
    def forward(self, x: np.ndarray, training: bool) -> Any:
        if training:
            mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3))
            count, step = x.size / x.shape[1], self.part["momentum"]
            seen = {"mean": mean, "var": var * (count / (count - 1))}
            for name, value in seen.items():
                self.params[name] = ((1 - step) * self.params[name] + step * value).astype(x.dtype)
        else:
            mean, var = self.params["mean"], self.params["var"]
        self.scale = 1 / np.sqrt(var + np.float32(self.part["eps"]))
        self.normed = (x - mean[:, None, None]) * self.scale[:, None, None]
        return (
            self.normed * self.params["weight"][:, None, None] + self.params["bias"][:, None, None]
        )

    def backward(self, dy: np.ndarray) -> Any:
        dweight, dbias = (dy * self.normed).sum((0, 2, 3)), dy.sum((0, 2, 3))
        self.grads = {"weight": dweight, "bias": dbias}
        count = np.float32(dy.size / dy.shape[1])
        away = dy - (dbias[:, None, None] + self.normed * dweight[:, None, None]) / count
        return away * (self.scale * self.params["weight"])[:, None, None]


class Concat(Layer):
    def forward(self, *maps_and_training: Any) -> Any:
        *maps, _ = maps_and_training
        self.cuts = np.cumsum([x.shape[1] for x in maps])[:-1]
        return np.concatenate(maps, 1)

    def backward(self, dy: np.ndarray) -> Any:
        return np.split(dy, self.cuts, axis=1)


class Add(Layer):
    def forward(self, x: np.ndarray, y: np.ndarray, training: bool) -> Any:
        return x + y

    def backward(self, dy: np.ndarray) -> Any:
        return [dy, dy]


class Network:
    """The layers, and the maps between them by number."""

    def __init__(self, network: Part, params: Arrays) -> None:
        self.output = network["output"]
        self.layers = [globals()[part["kind"]](part, params) for part in network["nodes"]]

    def forward(self, x: np.ndarray, training: bool) -> Any:
        maps = {0: x}
        for layer in self.layers:
            read = [maps[number] for number in layer.part["sources"]]
            maps[layer.part["target"]] = layer.forward(*read, training)
            for number in layer.part["done"]:
                del maps[number]
        return maps[self.output]

    def backward(self, dy: np.ndarray) -> None:
        grads = {self.output: dy}
        for layer in reversed(self.layers):
            dx = layer.backward(grads.pop(layer.part["target"]))
            parts = dx if isinstance(dx, list) else [dx]
            for number, part in zip(layer.part["sources"], parts, strict=True):
                grads[number] = grads[number] + part if number in grads else part


def prepare(task: Any) -> StepAndLogits:
    """Loss and its gradient are written out here, as a learner would."""
    network = Network(task.network, task.params)
    x, count = np.ascontiguousarray(task.images.transpose(0, 3, 1, 2)), len(task.images)

    def infer() -> np.ndarray:
        return network.forward(x, False)

    def train() -> None:
        z = network.forward(x, True)
        p = np.exp(z - z.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        p[np.arange(count), task.labels] -= 1
        network.backward(p / np.float32(count))
        for layer in network.layers:
            layer.update(task.learning_rate, task.momentum)

    return (train if task.training else infer), infer
