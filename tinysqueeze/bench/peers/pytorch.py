"""PyTorch, eager (NCHW or channels_last, float32 or bfloat16) or compiled, as its users would write it."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

Part = dict[str, Any]  # of a network's description: a node, or all of it
Arrays = dict[str, Any]  # by path
StepAndLogits = tuple[Callable[[], Any], Callable[[], Any]]


class Concat(nn.Module):
    """Maps side by side, joined along the channels."""

    def forward(self, *maps: Any) -> Any:
        return torch.cat(maps, 1)


class Sum(nn.Module):
    """What meets at the end of a bypass."""

    def forward(self, x: Any, y: Any) -> Any:
        return x + y


class GlobalMean(nn.Module):
    """The mean over all pixels."""

    def forward(self, x: Any) -> Any:
        return x.mean((2, 3))


class Network(nn.Module):
    """The modules, one after another, and the maps between them by number."""

    def __init__(self, network: Part, params: Arrays) -> None:
        super().__init__()
        nodes = network["nodes"]
        self.parts = nn.ModuleList(part(node, params) for node in nodes)
        # the maps that a part reads, the one it writes, and those that nobody reads after it
        self.wires = [(node["sources"], node["target"], node["done"]) for node in nodes]
        self.output = network["output"]

    def forward(self, x: Any) -> Any:
        maps = {0: x}
        del x
        for part, (sources, target, done) in zip(self.parts, self.wires, strict=True):
            maps[target] = part(*(maps[number] for number in sources))
            for number in done:
                del maps[number]
        return maps[self.output]


def build(network: Part, params: Arrays) -> Any:
    """The module of a network's description, with the given parameters by path.

    What has one axis (biases, a norm's parameters and statistics) stays in the arrays given. A module
    with parameters knows its `path`.
    """
    return Network(network, params)


def part(node: Part, params: Arrays) -> Any:
    """The module of one node."""
    match node["kind"]:
        case "Concat":
            return Concat()
        case "Add":
            return Sum()
        case "Mean":
            return GlobalMean()
        case "ReLU":  # in place where nobody else reads the map, as torchvision's SqueezeNet has it
            return nn.ReLU(inplace=list(node["sources"]) == node["done"] != [0])
        case "HardSwish":
            return nn.Hardswish()
        case "Pool":
            return nn.MaxPool2d(node["kernel"], node["stride"], node["pad"], ceil_mode=node["ceil"])
    given = {
        name: torch.from_numpy(params[f"{node['path']}/{name}"])
        for name in ("weight", "bias", "mean", "var")
        if f"{node['path']}/{name}" in params
    }
    module: nn.BatchNorm2d | nn.Conv2d
    if node["kind"] == "Norm":
        module = nn.BatchNorm2d(node["channels"], node["eps"], node["momentum"])
        module.running_mean, module.running_var = given["mean"], given["var"]
    else:
        sizes = (node["kernel"], node["stride"], node["pad"])
        module = nn.Conv2d(node["channels"], node["filters"], *sizes)
        given["weight"] = given["weight"].permute(3, 2, 0, 1)  # theirs is (F, C, KH, KW)
    module.weight = nn.Parameter(given["weight"].contiguous())
    module.bias = nn.Parameter(given["bias"])
    module.path = node["path"]
    return module


def prepare(task: Any) -> StepAndLogits:
    """The variant is "nchw", "channels_last", "compile" or "bfloat16" (channels_last as well).

    In bfloat16 all of a network is run that is only run; one that is trained, where autocast says so.
    """
    torch.set_num_threads(task.threads)
    layout = torch.contiguous_format if task.variant == "nchw" else torch.channels_last
    network = build(task.network, task.params).train(task.training).to(memory_format=layout)
    x = torch.tensor(task.images).permute(0, 3, 1, 2).contiguous(memory_format=layout)
    y = torch.tensor(task.labels)
    is_half = task.variant == "bfloat16"
    if is_half and not task.training:
        network, x = network.bfloat16(), x.bfloat16()
    run = network
    if task.variant == "compile":
        import torch._inductor.config as inductor

        inductor.freezing = not task.training
        run = torch.compile(network)

    def infer() -> Any:
        with torch.inference_mode() if run is network else torch.no_grad():
            return run(x).float().numpy()

    if not task.training:
        return infer, infer
    optimiser = torch.optim.SGD(network.parameters(), task.learning_rate, task.momentum)

    def train() -> None:
        optimiser.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=is_half):
            loss = nn.functional.cross_entropy(run(x), y)
        loss.backward()
        optimiser.step()

    def logits() -> Any:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=is_half):
            found = network.eval()(x).float().numpy()
        network.train()
        return found

    return train, logits
