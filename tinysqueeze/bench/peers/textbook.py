"""What learners write first: NumPy, channels first, im2col and col2im, a class for each layer."""

import numpy as np


def out_size(size, kernel, stride, pad, ceil):
    """Positions of a window along one side."""
    span = size + 2 * pad - kernel
    return (-(-span // stride) if ceil else span // stride) + 1


def im2col(x, part, fill=0.0):
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


def col2im(columns, padded, x_shape, part):
    """The sum of columns (N, C, KH, KW, OH, OW) where they overlap, without the padding."""
    (kh, kw), (sh, sw), (ph, pw) = part["kernel"], part["stride"], part["pad"]
    oh, ow = columns.shape[4:]
    x = np.zeros(padded, columns.dtype)
    for i in range(kh):
        for j in range(kw):
            x[:, :, i : i + sh * oh : sh, j : j + sw * ow : sw] += columns[:, :, i, j]
    return x[:, :, ph : ph + x_shape[2], pw : pw + x_shape[3]]


class Leaf:
    """A layer with its arrays, gradients and velocities, each by name."""

    def __init__(self, part, params):
        self.part = part
        start = f"{part['path']}/"
        self.params = {k[len(start) :]: v.copy() for k, v in params.items() if k.startswith(start)}
        self.grads, self.velocity = {}, {}

    def leaves(self):
        return [self]

    def update(self, rate, momentum):
        for name, grad in self.grads.items():
            grad = grad.reshape(self.params[name].shape)
            self.velocity[name] = momentum * self.velocity.get(name, 0) + grad
            self.params[name] -= np.float32(rate) * self.velocity[name]


class Conv2D(Leaf):
    def __init__(self, part, params):
        super().__init__(part, params)
        self.params["weight"] = np.ascontiguousarray(self.params["weight"].transpose(3, 2, 0, 1))

    def forward(self, x, training):
        columns, self.padded = im2col(x, self.part)
        self.x_shape, self.shape = x.shape, columns.shape
        n, _, _, _, oh, ow = columns.shape
        self.columns = columns.transpose(0, 4, 5, 1, 2, 3).reshape(n * oh * ow, -1)
        weight = self.params["weight"].reshape(self.part["filters"], -1)
        y = self.columns @ weight.T + self.params["bias"]
        return y.reshape(n, oh, ow, -1).transpose(0, 3, 1, 2)

    def backward(self, dy):
        n, c, kh, kw, oh, ow = self.shape
        rows = dy.transpose(0, 2, 3, 1).reshape(n * oh * ow, -1)
        weight = self.params["weight"].reshape(self.part["filters"], -1)
        self.grads = {"weight": rows.T @ self.columns, "bias": rows.sum(0)}
        columns = (rows @ weight).reshape(n, oh, ow, c, kh, kw).transpose(0, 3, 4, 5, 1, 2)
        return col2im(columns, self.padded, self.x_shape, self.part)


class ReLU(Leaf):
    def forward(self, x, training):
        self.mask = x <= 0
        y = x.copy()
        y[self.mask] = 0
        return y

    def backward(self, dy):
        dx = dy.copy()
        dx[self.mask] = 0
        return dx


class MaxPool2D(Leaf):
    def forward(self, x, training):
        columns, self.padded = im2col(x, self.part, -np.inf)
        self.x_shape, self.shape = x.shape, columns.shape
        n, c, kh, kw, oh, ow = columns.shape
        rows = columns.transpose(0, 1, 4, 5, 2, 3).reshape(-1, kh * kw)
        self.argmax = rows.argmax(1)
        return rows.max(1).reshape(n, c, oh, ow)

    def backward(self, dy):
        n, c, kh, kw, oh, ow = self.shape
        rows = np.zeros((dy.size, kh * kw), dy.dtype)
        rows[np.arange(dy.size), self.argmax] = dy.ravel()
        columns = rows.reshape(n, c, oh, ow, kh, kw).transpose(0, 1, 4, 5, 2, 3)
        return col2im(columns, self.padded, self.x_shape, self.part)


class GlobalAvgPool2D(Leaf):
    def forward(self, x, training):
        self.x_shape = x.shape
        return x.mean((2, 3))

    def backward(self, dy):
        h, w = self.x_shape[2:]
        return np.broadcast_to(dy[:, :, None, None] / np.float32(h * w), self.x_shape)


class BatchNorm(Leaf):
    def forward(self, x, training):
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

    def backward(self, dy):
        dweight, dbias = (dy * self.normed).sum((0, 2, 3)), dy.sum((0, 2, 3))
        self.grads = {"weight": dweight, "bias": dbias}
        count = np.float32(dy.size / dy.shape[1])
        away = dy - (dbias[:, None, None] + self.normed * dweight[:, None, None]) / count
        return away * (self.scale * self.params["weight"])[:, None, None]


class Chain:
    def __init__(self, part, params):
        self.parts = [build(p, params) for p in part["parts"]]

    def leaves(self):
        return [leaf for part in self.parts for leaf in part.leaves()]

    def forward(self, x, training):
        for part in self.parts:
            x = part.forward(x, training)
        return x

    def backward(self, dy):
        for part in reversed(self.parts):
            dy = part.backward(dy)
        return dy


class Concat(Chain):
    def forward(self, x, training):
        ys = [part.forward(x, training) for part in self.parts]
        self.cuts = np.cumsum([y.shape[1] for y in ys])[:-1]
        return np.concatenate(ys, 1)

    def backward(self, dy):
        shares = np.split(dy, self.cuts, axis=1)
        return sum(part.backward(d) for part, d in zip(self.parts, shares, strict=True))


class Residual(Chain):
    def __init__(self, part, params):
        around = part["shortcut"] or {"kind": "Chain", "parts": []}
        super().__init__({"parts": [part["body"], around]}, params)

    def forward(self, x, training):
        body, around = self.parts
        return body.forward(x, training) + around.forward(x, training)

    def backward(self, dy):
        body, around = self.parts
        return body.backward(dy) + around.backward(dy)


def build(part, params):
    """The object of a part of the network's description."""
    return globals()[part["kind"]](part, params)


def prepare(task):
    """Loss and its gradient are written out here, as a learner would."""
    network = build(task.network, task.params)
    leaves = network.leaves()
    x, count = np.ascontiguousarray(task.images.transpose(0, 3, 1, 2)), len(task.images)

    def infer():
        return network.forward(x, False)

    def train():
        z = network.forward(x, True)
        p = np.exp(z - z.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        p[np.arange(count), task.labels] -= 1
        network.backward(p / np.float32(count))
        for leaf in leaves:
            leaf.update(task.learning_rate, task.momentum)

    return (train if task.training else infer), infer
