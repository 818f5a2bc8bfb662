"""What is measured: a few workloads, and each as a folder of plain files that any side can read.

The other sides must not import this package: its libraries would count as their memory and start-up.
So a network is handed to them as a description in JSON and arrays by path.
"""

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from tinysqueeze.errors import UserError
from tinysqueeze.network.compose import Block, Chain, Concat, Residual, join
from tinysqueeze.network.layers import (
    BatchNorm,
    Conv2D,
    Dropout,
    GlobalAvgPool2D,
    HardSwish,
    Layer,
    MaxPool2D,
    ReLU,
    Shape,
)
from tinysqueeze.network.models import Model, build
from tinysqueeze.network.params import flatten, initialise

LEARNING_RATE, MOMENTUM = 0.01, 0.9


@dataclass(frozen=True)
class Workload:
    """A network, a batch size, and whether it is trained (a whole SGD step) or only run."""

    name: str
    title: str
    spec: dict[str, Any] = field(hash=False)
    batch: int
    training: bool = False

    @property
    def model(self) -> Model:
        """The network."""
        return build(self.spec)

    def with_sizes(self, batch: int | None = None, input_size: int | None = None) -> "Workload":
        """The same with another batch or image size; its name says so."""
        spec = self.spec if input_size is None else self.spec | {"input_size": input_size}
        batch = batch or self.batch
        side = build(spec).input_shape[0]
        return replace(self, name=f"{self.name}-{batch}x{side}", spec=spec, batch=batch)

    def quick(self) -> "Workload":
        """A thin network and few images: for trying whether everything works, not for its speed."""
        thin = {
            "base_e": 16,
            "incr_e": 16,
            "stem_filters": 16,
            "squeeze_ratio": 0.25,
            "classes": 10,
        }
        return replace(self, spec=self.spec | thin, batch=min(self.batch, 4))


CIFAR = {"name": "squeezenet_cifar", "final_relu": True}
WORKLOADS = {
    w.name: w
    for w in (
        Workload("train", "training step, CIFAR-size SqueezeNet", CIFAR, 64, training=True),
        Workload("infer", "inference, CIFAR-size SqueezeNet", CIFAR, 64),
        Workload("v10", "inference, SqueezeNet v1.0", {"name": "squeezenet1_0"}, 1),
        Workload(
            "norm",
            "training step with batch norm and simple bypass",
            {"name": "squeezenet_cifar", "norm": True, "bypass": "simple"},
            64,
            training=True,
        ),
    )
}


def write(workload: Workload, folder: Path) -> None:
    """The workload as files: `task.json`, `params.npz` by path, `images.npy`, `labels.npy`.

    Images are (N, H, W, C) float32, standard normal; everything is seeded.
    """
    model = workload.model
    rng = np.random.default_rng(0)
    images = rng.standard_normal((workload.batch, *model.input_shape), np.float32)
    task = asdict(workload) | {
        "network": describe(model, model.input_shape, training=workload.training),
        "learning_rate": LEARNING_RATE,
        "momentum": MOMENTUM,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "task.json").write_text(json.dumps(task))
    np.savez(folder / "params.npz", **flatten(initialise(model)))
    np.save(folder / "images.npy", images)
    np.save(folder / "labels.npy", rng.integers(0, model.classes, workload.batch))


def write_onnx(workload: Workload, folder: Path) -> None:
    """Beside those files `network.onnx`, by our own exporter. Raises MissingExtra without onnx."""
    from tinysqueeze.weights import Preprocess, WeightSet
    from tinysqueeze.weights import write_onnx as export

    model = workload.model
    height, width, _ = model.input_shape
    preprocess = Preprocess(resize=height, crop=(height, width))
    weights = WeightSet(model, initialise(model), preprocess, "freshly initialised")
    export(weights, folder / "network.onnx")


def describe(
    layer: Layer, in_shape: Shape, path: str = "", training: bool = False
) -> dict[str, Any]:
    """A network as nested dicts: {"kind": "Chain", "parts": [...]}, and leaves with all their numbers.

    Raises UserError for a layer that no SqueezeNet has.
    """
    match layer:
        case Block():
            return describe(layer.body, in_shape, path, training)
        case Chain():
            parts = []
            for (name, step), shape in zip(
                layer.steps, layer.child_in_shapes(in_shape), strict=True
            ):
                parts.append(describe(step, shape, join(path, name), training))
            return {"kind": "Chain", "parts": parts}
        case Concat():
            arms = [describe(arm, in_shape, join(path, n), training) for n, arm in layer.arms]
            return {"kind": "Concat", "parts": arms}
        case Residual():
            around = layer.shortcut and describe(layer.shortcut, in_shape, join(path, "bypass"))
            body = describe(layer.body, in_shape, path, training)
            return {"kind": "Residual", "body": body, "shortcut": around}
        case Dropout() if not (training and layer.rate):
            return {"kind": "Chain", "parts": []}
        case Conv2D(bias=True) | MaxPool2D():
            window = layer.window
            sizes = {"kernel": window.kernel, "stride": window.stride, "pad": window.pad}
            leaf = sizes | {"ceil": window.ceil, "filters": getattr(layer, "filters", None)}
        case BatchNorm():
            leaf = {"eps": layer.eps, "momentum": layer.momentum}
        case ReLU() | HardSwish() | GlobalAvgPool2D():
            leaf = {}
        case _:
            raise UserError(f"{path}: the other sides of the benchmark have no {layer}")
    return {"kind": type(layer).__name__, "path": path, "channels": in_shape[-1], **leaf}
