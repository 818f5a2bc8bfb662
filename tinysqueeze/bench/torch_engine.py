"""PyTorch as a training engine: the same recipe, run by the other framework, to compare with.

Data, augmentation, schedule and optimiser are ours; forward and backward are PyTorch's, eager,
float32, channels_last. So time and accuracy of one recipe can stand side by side.
"""

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import numpy as np

from tinysqueeze.bench.workloads import describe
from tinysqueeze.errors import ShapeError, missing_extra
from tinysqueeze.labels import check_labels
from tinysqueeze.network.layers import Params
from tinysqueeze.network.loss import count_right
from tinysqueeze.network.models import Model
from tinysqueeze.network.params import flatten
from tinysqueeze.network.stepwise import StepByStep
from tinysqueeze.training.engine import EngineSpec


class TorchEngine(StepByStep):
    """The vectors and views of the plain engine, with PyTorch doing the work.

    Biases, norms and running statistics are PyTorch tensors on the memory of `vector`: nothing is
    copied. Convolution weights lie in another order there (F, KH, KW, C) than here (KH, KW, C, F),
    and are copied once a step each way. Images may be of any size that passes through the network.
    """

    def __init__(self, model: Model, params: Params | None, threads: int | None) -> None:
        import torch

        from tinysqueeze.bench.peers.pytorch import build

        self.threads = threads
        if threads is not None:
            torch.set_num_threads(threads)
        super().__init__(model, params)
        network = build(describe(model, training=True), flatten(self.params))
        self._network = network.to(memory_format=torch.channels_last)
        trained = list(_trained(self._network))
        self._tensors = [tensor for _, tensor in trained]
        ours, grads = flatten(self.params), flatten(self.grads)
        self._weights = [
            (tensor.detach(), torch.from_numpy(ours[path]).permute(3, 2, 0, 1))
            for path, tensor in trained
            if tensor.ndim == 4
        ]
        self._grads = [torch.from_numpy(grads[path]) for path, _ in trained]

    def loss_and_grads(
        self, images: np.ndarray, labels: np.ndarray, smoothing: float = 0.0, seed: int = 0
    ) -> tuple[float, int]:
        """One training step up to the gradients: mean loss, and how many of the batch were right.

        images (N, H, W, C) float32, labels as in `loss.softmax_cross_entropy`. Fills `grads` and moves
        the running statistics; there is no dropout, so `seed` draws nothing.
        """
        import torch

        x = self._refreshed(images, training=True)
        labels = check_labels(labels, len(images), self.model.classes, self.model.name)
        kind = torch.float32 if labels.ndim == 2 else torch.int64
        y = torch.tensor(np.ascontiguousarray(labels), dtype=kind)
        logits = self._network(x)
        losses = torch.nn.functional.cross_entropy(
            logits, y, reduction="none", label_smoothing=smoothing
        )
        self.losses, loss = losses.detach().numpy(), losses.mean()
        for place, found in zip(self._grads, torch.autograd.grad(loss, self._tensors), strict=True):
            place.copy_(found.permute(2, 3, 1, 0) if found.ndim == 4 else found)
        return float(loss.detach()), count_right(logits.detach().numpy(), labels)

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Logits (N, classes) of images (N, H, W, C), in evaluation mode."""
        import torch

        with torch.inference_mode():
            return self._network(self._refreshed(images, training=False)).numpy()

    def _refreshed(self, images: np.ndarray, training: bool) -> Any:
        """The images as PyTorch wants them, not copied, after bringing its weights up to date."""
        import torch

        channels = self.model.input_shape[2]
        if images.ndim != 4 or images.shape[3] != channels:
            raise ShapeError(
                f"{self.model.name}: expected images (N, H, W, {channels}), got {images.shape}"
            )
        if self._network.training != training:
            self._network.train(training)
        for tensor, ours in self._weights:
            tensor.copy_(ours)
        x = np.require(images, np.float32, ["C", "W"])
        return torch.from_numpy(x).permute(0, 3, 1, 2)


def _trained(network: Any) -> Iterator[tuple[str, Any]]:
    """All parameters with their paths."""
    for module in network.modules():
        if hasattr(module, "path"):
            yield f"{module.path}/weight", module.weight
            yield f"{module.path}/bias", module.bias


def torch_engine(spec: EngineSpec) -> TorchEngine:
    """An `Engine` that PyTorch runs; `threads` are PyTorch's, for the whole process.

    Any batch will do, and there is one precision. Raises MissingExtra without PyTorch, UserError for
    a layer that no SqueezeNet has (dropout included), ShapeError for parameters that don't fit.
    """
    if find_spec("torch") is None:
        raise missing_extra("torch", "training on PyTorch")
    return TorchEngine(spec.model, spec.params, spec.threads)
