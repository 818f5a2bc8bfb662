"""PyTorch, eager (NCHW or channels_last) or compiled, as its users would write it."""

import torch
from torch import nn


class Concat(nn.ModuleList):
    """Side by side, joined along the channels."""

    def forward(self, x):
        return torch.cat([arm(x) for arm in self], 1)


class Residual(nn.Module):
    """body(x) + x, or + shortcut(x)."""

    def __init__(self, body, shortcut):
        super().__init__()
        self.body, self.shortcut = body, shortcut

    def forward(self, x):
        return self.body(x) + (x if self.shortcut is None else self.shortcut(x))


class GlobalMean(nn.Module):
    """The mean over all pixels."""

    def forward(self, x):
        return x.mean((2, 3))


def build(part, params):
    """The module of a part of the network's description, with the given parameters by path.

    What has one axis (biases, a norm's parameters and statistics) stays in the arrays given. A module
    with parameters knows its `path`.
    """
    match part["kind"]:
        case "Chain":
            return nn.Sequential(*(build(p, params) for p in part["parts"]))
        case "Concat":
            return Concat(build(p, params) for p in part["parts"])
        case "Residual":
            around = part["shortcut"]
            return Residual(build(part["body"], params), around and build(around, params))
        case "ReLU":
            return nn.ReLU(inplace=True)  # as torchvision's SqueezeNet has it
        case "HardSwish":
            return nn.Hardswish()
        case "GlobalAvgPool2D":
            return GlobalMean()
        case "MaxPool2D":
            return nn.MaxPool2d(part["kernel"], part["stride"], part["pad"], ceil_mode=part["ceil"])
    given = {
        name: torch.from_numpy(params[f"{part['path']}/{name}"])
        for name in ("weight", "bias", "mean", "var")
        if f"{part['path']}/{name}" in params
    }
    module: nn.BatchNorm2d | nn.Conv2d
    if part["kind"] == "BatchNorm":
        module = nn.BatchNorm2d(part["channels"], part["eps"], part["momentum"])
        module.running_mean, module.running_var = given["mean"], given["var"]
    else:
        sizes = (part["kernel"], part["stride"], part["pad"])
        module = nn.Conv2d(part["channels"], part["filters"], *sizes)
        given["weight"] = given["weight"].permute(3, 2, 0, 1)  # theirs is (F, C, KH, KW)
    module.weight = nn.Parameter(given["weight"].contiguous())
    module.bias = nn.Parameter(given["bias"])
    module.path = part["path"]
    return module


def prepare(task):
    """The variant is "nchw", "channels_last" or "compile" (channels_last as well)."""
    torch.set_num_threads(task.threads)
    layout = torch.contiguous_format if task.variant == "nchw" else torch.channels_last
    network = build(task.network, task.params).train(task.training).to(memory_format=layout)
    x = torch.tensor(task.images).permute(0, 3, 1, 2).contiguous(memory_format=layout)
    y = torch.tensor(task.labels)
    run = network
    if task.variant == "compile":
        import torch._inductor.config as inductor

        inductor.freezing = not task.training
        run = torch.compile(network)

    def infer():
        with torch.inference_mode() if run is network else torch.no_grad():
            return run(x).numpy()

    if not task.training:
        return infer, infer
    optimiser = torch.optim.SGD(network.parameters(), task.learning_rate, task.momentum)

    def train():
        optimiser.zero_grad()
        nn.functional.cross_entropy(run(x), y).backward()
        optimiser.step()

    def logits():
        with torch.no_grad():
            found = network.eval()(x).numpy()
        network.train()
        return found

    return train, logits
