"""`compile` and the Plan: the compiled engine behind train, evaluate, predict and bench."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba.core import config

from tinysqueeze.compiled.inference import Inference
from tinysqueeze.compiled.network import ConvStep, DropStep, LayerStep, Network, lower
from tinysqueeze.compiled.single import SingleInference
from tinysqueeze.compiled.training import TrainingStep
from tinysqueeze.compiled.weights import PRECISIONS
from tinysqueeze.compiled.workspace import Workspace, aligned
from tinysqueeze.errors import ShapeError, UserError
from tinysqueeze.kernels.team import Team
from tinysqueeze.labels import check_labels
from tinysqueeze.network.layers import Mode, Params
from tinysqueeze.network.loss import count_right, softmax_cross_entropy
from tinysqueeze.network.models import Model
from tinysqueeze.network.ops.reference import cross_entropies
from tinysqueeze.network.params import check_fit, flatten, initialise, shapes, unflatten

SINGLE_PIXELS = 96 * 96
"""Images larger than this are predicted one by one: a single one fills the caches."""


@dataclass(frozen=True)
class PlanStep:
    """How a plan runs a part of the model; `lowered` False: by its layer, step by step."""

    name: str
    kind: str
    out_shape: tuple[int, ...]
    lowered: bool


class Plan:
    """A model ready to run for batches of up to `batch` images of its input size.

    `vector` holds all parameters (and batch norm's running statistics), `grad_vector` their
    gradients; `params` and `grads` are trees of views into them; `losses` are those of the last
    training step's images, (N,). Change `vector` in place: the next
    call sees it (an inference plan, training=False, packs its weights once: call `load` after a
    change). A plan may be used by one thread at a time (others wait); two plans never disturb
    each other.
    """

    def __init__(
        self,
        model: Model,
        batch: int,
        training: bool,
        precision: str,
        threads: int | None,
        params: Params | None,
    ) -> None:
        self.model, self.batch, self.training, self.precision = model, batch, training, precision
        self.vector = aligned(sum(int(np.prod(s)) for s in shapes(model).values()))
        self.grad_vector = aligned(len(self.vector) if training else 0)
        self.params: Params = self.views(self.vector)
        self.grads: Params = self.views(self.grad_vector) if training else {}
        self.team = Team(threads)
        self._lock = threading.Lock()
        self._network = lower(model, model.input_shape, training)
        self._training: TrainingStep | None = self._build(True) if training else None
        self._inference: Inference | None = None
        self._fresh = False
        self.losses = np.zeros(0, np.float32)
        self.load(initialise(model) if params is None else params)

    def _build(self, training: bool) -> Any:
        """Measures, allocates, builds. Without a compiler: runs the model layer by layer."""
        if config.DISABLE_JIT:
            return _Plain(self.model, self.params, self.grads)
        params = flatten(self.params)
        workspace = Workspace(self.team.threads)
        made: Any = None
        for space in (lambda: workspace, workspace.allocated):
            if training:
                grads = flatten(self.grads)
                made = TrainingStep(
                    self._network, space(), params, grads, self.batch, self.precision
                )
            else:
                network = lower(self.model, self.model.input_shape, False)
                split = self.is_single and not any(
                    isinstance(step, ConvStep) and step.hard_swish for step in network.steps
                )
                kind, batch = (SingleInference, 1) if split else (Inference, self.batch)
                made = kind(network, space(), params, batch, self.precision)
        return made

    # --- parameters -----------------------------------------------------------------------------

    def views(self, vector: np.ndarray) -> Params:
        """The tree of views that `params` is, into another vector of the same length."""
        tree, start = {}, 0
        for path, shape in shapes(self.model).items():
            stop = start + int(np.prod(shape))
            tree[path] = vector[start:stop].reshape(shape)
            start = stop
        return unflatten(tree)

    def load(self, params: Mapping[str, Any]) -> None:
        """Copies parameters in. Raises ShapeError, naming the path, where they don't fit."""
        check_fit(self.model, params)
        _copy_into(self.params, params)
        self._fresh = False

    # --- what it is -----------------------------------------------------------------------------

    @property
    def threads(self) -> int:
        """How many threads work on it."""
        return self.team.threads

    @property
    def steps(self) -> list[PlanStep]:
        """How each part of the model is run."""
        if config.DISABLE_JIT:
            whole = PlanStep(self.model.name, "Model", (self.model.classes,), False)
            return [whole]
        return [_describe(step, self._network) for step in self._network.steps]

    @property
    def is_single(self) -> bool:
        """Are images predicted one by one, each by all threads? So it is for one, and for large ones."""
        height, width, _ = self.model.input_shape
        return self.batch == 1 or height * width > SINGLE_PIXELS

    @property
    def peak_bytes(self) -> int:
        """Bytes of all buffers that it has allocated so far, without `vector` and `grad_vector`."""
        built = (self._training, self._inference)
        return sum(one.workspace.bytes for one in built if one is not None)

    # --- running --------------------------------------------------------------------------------

    def loss_and_grads(
        self, images: np.ndarray, labels: np.ndarray, smoothing: float = 0.0, seed: int = 0
    ) -> tuple[float, int]:
        """One training step up to the gradients: mean loss, and how many of the batch were right.

        images (N, H, W, C) float32, N at most `batch`; labels as in `loss.softmax_cross_entropy`.
        Fills `grads`, moves batch norm's running statistics; `seed` draws the dropout masks. Raises
        ShapeError.
        """
        if not self.training:
            raise UserError("this plan is for inference; compile the model with training=True")
        images = self._checked(images)
        if not 1 <= len(images) <= self.batch:
            raise ShapeError(f"a training step takes 1 to {self.batch} images, got {len(images)}")
        labels = check_labels(labels, len(images), self.model.classes, self.model.name)
        assert self._training is not None
        with self._lock:
            result = self._training.run(self.team, images, labels, smoothing, seed)
            self.losses = self._training.losses[: len(images)].copy()
            return result

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Logits (N, classes) of any number of images (N, H, W, C) float32, in evaluation mode.

        The array is the caller's own. More than `batch` images are done in batches.
        """
        images = self._checked(images)
        with self._lock:
            if self._inference is None:
                self._inference = self._build(False)
            if self.training or not self._fresh:
                self._inference.refresh(self.team)
                self._fresh = True
            size = self._inference.batch
            parts = [
                self._inference.run(self.team, images[start : start + size])
                for start in range(0, len(images), size)
            ]
        return np.concatenate(parts) if parts else np.zeros((0, self.model.classes), np.float32)

    def _checked(self, images: np.ndarray) -> np.ndarray:
        """The images, contiguous; or a ShapeError."""
        if images.ndim != 4 or images.shape[1:] != self.model.input_shape:
            raise ShapeError(
                f"{self.model.name}: expected images (N, {', '.join(map(str, self.model.input_shape))}), "
                f"got {images.shape}; compile the plan with input_size for another size"
            )
        return np.ascontiguousarray(images, np.float32)


class _Plain:
    """Stands in for both kinds of programs where Numba may not compile (NUMBA_DISABLE_JIT)."""

    batch = 1 << 20
    losses = np.zeros(0, np.float32)
    workspace = Workspace(1)

    def __init__(self, model: Model, params: Params, grads: Params) -> None:
        self.model, self.params, self.grads = model, params, grads

    def run(self, team: Team, images: np.ndarray, *rest: Any) -> Any:
        """Logits of the images; or with (labels, smoothing, seed) a training step's result."""
        if not rest:
            return self.model.forward(self.params, images)[0]
        labels, smoothing, seed = rest
        mode = Mode(rng=np.random.default_rng(seed))
        logits, cache = self.model.forward(self.params, images, mode)
        loss, dlogits = softmax_cross_entropy(logits, labels, smoothing, mode)
        self.losses, _ = cross_entropies(logits, labels, smoothing)
        _, grads = self.model.backward(self.params, cache, dlogits, mode)
        _copy_into(self.grads, grads)
        _copy_into(self.params, self.model.moved_buffers(self.params, cache))
        return loss, count_right(logits, labels)

    def refresh(self, team: Team) -> None:
        """Nothing is packed."""


def _copy_into(views: Mapping[str, Any], values: Mapping[str, Any]) -> None:
    places = flatten(views)
    for path, value in flatten(values).items():
        places[path][...] = value


def _describe(step: Any, network: Network) -> PlanStep:
    shape = network.maps[step.target].shape
    kind = "dropout" if isinstance(step, DropStep) else "global average pool"
    if isinstance(step, LayerStep):
        return PlanStep(step.name, type(step.layer).__name__, step.out_shape, False)
    if isinstance(step, ConvStep):
        kinds = []
        for arm in step.arms:
            kinds.append("x".join(map(str, arm.window.kernel)))
        parts = [" and ".join(kinds) + " convolution"]
        parts += ["batch norm"] if step.norm else []
        parts += ["ReLU"] if step.relu else []
        parts += ["hard-swish"] if step.hard_swish else []
        parts += ["bypass"] if step.bypass is not None else []
        parts += ["max-pool"] if step.pool else []
        kind = ", ".join(parts)
    return PlanStep(step.name, kind, shape, True)


def compile(
    model: Model,
    batch: int = 64,
    *,
    training: bool = True,
    precision: str = "f4",
    threads: int | None = None,
    input_size: int | None = None,
    params: Params | None = None,
) -> Plan:
    """A plan for batches of up to `batch` images.

    precision   how 3x3 convolutions are done: "f4" (Winograd F(4x4), fastest), "f2" or "direct"
    threads     default: all processors (NUMBA_NUM_THREADS)
    input_size  square images of another size than the model's
    params      copied in; default: fresh ones

    Raises UserError for an unknown precision, ShapeError for parameters that do not fit.
    """
    if precision not in PRECISIONS:
        raise UserError(f"precision is one of {', '.join(PRECISIONS)}, not {precision!r}")
    if batch < 1:
        raise UserError(f"a batch has at least 1 image, not {batch}")
    return Plan(model.at(input_size), batch, training, precision, threads, params)
