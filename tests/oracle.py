"""An independent oracle: the same layers computed, and differentiated, by PyTorch.

Arrays come and go in our layout; the axes are put in PyTorch's order inside, by views that autograd
sees, so that the gradients come back in our layout too.
"""

import numpy as np
import torch
from torch.nn import functional as F
from torch.optim import lr_scheduler as scheduler

from tinysqueeze.network.compose import Block, Chain, Concat, Residual
from tinysqueeze.network.layers import (
    AvgPool2D,
    BatchNorm,
    Conv2D,
    Dropout,
    Flatten,
    GlobalAvgPool2D,
    HardSwish,
    Layer,
    Linear,
    MaxPool2D,
    Params,
    ReLU,
    Softmax,
)
from tinysqueeze.network.others import GroupedConv2D
from tinysqueeze.network.params import flatten, unflatten


def step(layer: Layer, params: Params, x: np.ndarray, dy: np.ndarray, training: bool) -> dict:
    """{"y", "dx", each gradient by path, and in training each moved buffer by path}."""
    tensors = {path: torch.tensor(np.array(a)) for path, a in flatten(params).items()}
    buffers = {path for path in tensors if path.split("/")[-1] in ("mean", "var")}
    for path in tensors.keys() - buffers:
        tensors[path].requires_grad_(True)
    tx = torch.tensor(np.array(x), requires_grad=True)
    y = _forward(layer, unflatten(tensors), tx, training)
    y.backward(torch.tensor(np.array(dy)))
    found = {"y": y.detach(), "dx": tx.grad}
    found |= {path: t if path in buffers else t.grad for path, t in tensors.items()}
    return {path: t.numpy() for path, t in found.items()}


def _forward(layer: Layer, params: dict, x: torch.Tensor, training: bool) -> torch.Tensor:
    if isinstance(layer, Block):
        return _forward(layer.body, params, x, training)
    if isinstance(layer, Chain):
        for name, inner in layer.steps:
            x = _forward(inner, params.get(name, {}) if name else params, x, training)
        return x
    if isinstance(layer, Concat):
        return torch.cat(
            [_forward(a, params.get(name, {}), x, training) for name, a in layer.arms], -1
        )
    if isinstance(layer, Residual):
        around = layer.shortcut
        skip = x if around is None else _forward(around, params.get("bypass", {}), x, training)
        return _forward(layer.body, params, x, training) + skip
    if isinstance(layer, Flatten):
        return x.reshape(len(x), -1)
    if isinstance(layer, Linear):
        return F.linear(x, params["weight"].T, params.get("bias"))
    if isinstance(layer, Softmax):
        return F.softmax(x, dim=-1)
    if isinstance(layer, ReLU):
        return F.relu(x)
    if isinstance(layer, HardSwish):
        return F.hardswish(x)
    if isinstance(layer, Dropout):
        assert not training, "PyTorch draws other masks"
        return x
    return _channels_last(_maps(layer, params, _channels_first(x), training))


def _channels_first(x: torch.Tensor) -> torch.Tensor:
    return x.movedim(-1, 1)


def _channels_last(x: torch.Tensor) -> torch.Tensor:
    return x.movedim(1, -1)


def _maps(layer: Layer, params: dict, x: torch.Tensor, training: bool) -> torch.Tensor:
    if isinstance(layer, Conv2D | GroupedConv2D):
        weight, window = params["weight"].permute(3, 2, 0, 1).contiguous(), layer.window
        groups = getattr(layer, "groups", 1)
        return F.conv2d(x, weight, params.get("bias"), window.stride, window.pad, groups=groups)
    if isinstance(layer, BatchNorm):
        names = ("mean", "var", "weight", "bias")
        return F.batch_norm(x, *(params[n] for n in names), training, layer.momentum, layer.eps)
    if isinstance(layer, GlobalAvgPool2D):
        return x.mean(dim=(2, 3))
    pool = {MaxPool2D: F.max_pool2d, AvgPool2D: F.avg_pool2d}[type(layer)]
    window = layer.window
    return pool(x, window.kernel, window.stride, window.pad, ceil_mode=window.ceil)


def learning_rates(name: str, peak: float, steps: int, warmup: int) -> list[float]:
    """The rate at the beginning of each step: LinearLR for `warmup` steps, then the schedule."""
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=peak)
    rest = max(steps - warmup, 1)
    then = {
        "cosine": lambda: scheduler.CosineAnnealingLR(optimiser, rest),
        "polynomial": lambda: scheduler.PolynomialLR(optimiser, rest),
        "one-cycle": lambda: scheduler.LinearLR(optimiser, 1.0, 0.0, rest),
        "constant": lambda: scheduler.ConstantLR(optimiser, 1.0),
    }[name]
    if warmup:
        up = scheduler.LinearLR(optimiser, 1e-12, total_iters=warmup)  # it may not start at 0
        whole = scheduler.SequentialLR(optimiser, [up, then()], [warmup])
    else:
        whole = then()
    rates = []
    for _ in range(steps):
        rates.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        whole.step()
    return rates
