"""`compile` and the Plan: the compiled engine behind train, evaluate, predict and bench."""

import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, overload

import numpy as np
from numba.core import config

from tinysqueeze.compiled.programs import (
    InferenceProgram,
    TrainingProgram,
    inference_program,
    inference_steps,
    training_program,
)
from tinysqueeze.compiled.space import aligned
from tinysqueeze.compiled.steps import ConvStep, DropStep, MeanStep, NodeStep, Step, StepList
from tinysqueeze.compiled.weights import PRECISIONS
from tinysqueeze.errors import ShapeError, UserError
from tinysqueeze.graph import Add, Copy, GraphModel, is_graphs_own, layer_of
from tinysqueeze.kernels.team import Team, renewed_after_fork
from tinysqueeze.labels import check_images, check_labels, check_smoothing
from tinysqueeze.network.compose import leaves
from tinysqueeze.network.layers import Dropout, Params
from tinysqueeze.network.models import Model
from tinysqueeze.network.ops import fast
from tinysqueeze.network.params import assign, check_fit, flatten, initialise, shapes, views
from tinysqueeze.network.stepwise import StepByStep
from tinysqueeze.ranges import Range, checked

if TYPE_CHECKING:  # integers are imported when they are asked for
    from tinysqueeze.compiled.int8 import Int8Plan
    from tinysqueeze.devices.int8 import Int8Network

SIZES = {
    "batch": Annotated[int, Range(1, 1_000_000)],
    "threads": Annotated[int, Range(1, 256)] | None,
}
SINGLE_PIXELS = 96 * 96
"""Images larger than this are predicted one by one: a single one fills the caches."""


@dataclass(frozen=True)
class PlanStep:
    """How a plan runs a part of the model; `compiled` False: by its layer, step by step."""

    name: str
    kind: str
    out_shape: tuple[int, ...]
    compiled: bool


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
        self.losses = np.zeros(0, np.float32)
        self.team = Team(threads)
        self.renew()
        renewed_after_fork(self)
        self._fresh = False
        self._inference: InferenceProgram | None = None
        self._training: TrainingProgram | None = None
        self._plain: StepByStep | None = None
        params = initialise(model) if params is None else params
        if config.DISABLE_JIT:
            self._plain = StepByStep(model, params)
            self.vector, self.params = self._plain.vector, self._plain.params
            if training:
                self.grad_vector, self.grads = self._plain.grad_vector, self._plain.grads
            return
        if training:
            arrays = flatten(self.params), flatten(self.grads)
            self._training = training_program(model, self.threads, *arrays, batch, precision)
        self.load(params)

    def renew(self) -> None:
        """Nobody is inside: so it begins, and so a forked process finds it."""
        self._lock = threading.Lock()

    # --- parameters -----------------------------------------------------------------------------

    def views(self, vector: np.ndarray) -> Params:
        """The tree of views that `params` is, into another vector of the same length."""
        return views(vector, shapes(self.model))

    def load(self, params: Mapping[str, Any]) -> None:
        """Copies parameters in. Raises ShapeError, naming the path, where they don't fit."""
        check_fit(self.model, params)
        assign(self.params, params)
        self._fresh = False

    # --- what it is -----------------------------------------------------------------------------

    @property
    def threads(self) -> int:
        """How many threads work on it."""
        return self.team.threads

    @property
    def steps(self) -> list[PlanStep]:
        """How each part of the model is run."""
        if self._plain:
            return [PlanStep(self.model.name, "Model", (self.model.classes,), False)]
        steps = self._training.layout.steps if self._training else inference_steps(self.model)[0]
        return [_described(step, steps) for step in steps.steps]

    @property
    def by_layer(self) -> str:
        """What it runs layer by layer, which is slow: "average (AvgPool2D), grouped (...)"; or nothing."""
        return ", ".join(f"{step.name} ({step.kind})" for step in self.steps if not step.compiled)

    @property
    def is_single(self) -> bool:
        """Are images predicted one by one, each by all threads? So it is for one, and for large ones."""
        height, width, _ = self.model.input_shape
        return self.batch == 1 or height * width > SINGLE_PIXELS

    @property
    def peak_bytes(self) -> int:
        """Bytes of all buffers that it has allocated so far, without `vector` and `grad_vector`."""
        built = (self._training, self._inference)
        return sum(one.layout.space.bytes for one in built if one is not None)

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
        smoothing = check_smoothing(smoothing, self.model.name)
        with self._lock:
            if self._plain:
                result = self._plain.loss_and_grads(images, labels, smoothing, seed)
                self.losses = self._plain.losses
                return result
            assert self._training is not None
            result = self._training.run(self.team, images, labels, smoothing, seed)
            self.losses = self._training.losses[: len(images)].copy()
            return result

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Logits (N, classes) of any number of images (N, H, W, C) float32, in evaluation mode.

        The array is the caller's own. More than `batch` images are done in batches.
        """
        images = self._checked(images)
        with self._lock:
            if self._plain:
                return self._plain.predict(images)
            program = self._inference_program()
            if self.training or not self._fresh:
                program.refresh(self.team)
                self._fresh = True
            parts = [
                program.run(self.team, images[start : start + program.batch])
                for start in range(0, len(images), program.batch)
            ]
        return np.concatenate(parts) if parts else np.zeros((0, self.model.classes), np.float32)

    def dropout_masks(self, seed: int, images: int) -> Iterator[np.ndarray]:
        """What a training step of so many images multiplies maps by: each dropout's mask, in forward order.

        (N, H, W, C) or (N, C) float32: 0, or 1 / (1 - rate). For whoever checks the step by other means.
        """
        masks = self._training.dropout_masks(seed, images) if self._training else {}
        rng = np.random.default_rng(seed)  # the step-by-step engine's
        for path, layer, shape, _ in leaves(self.model, self.model.input_shape):
            if isinstance(layer, Dropout) and layer.rate:
                x = np.zeros((images, *shape), np.float32)
                known = masks.get(path)
                drawn = fast.dropout_mask(x, layer.rate, rng) if known is None else known
                yield drawn.reshape(x.shape)

    def _inference_program(self) -> InferenceProgram:
        """Built when first needed."""
        if self._inference is None:
            arrays = flatten(self.params)
            self._inference = inference_program(
                self.model, self.threads, arrays, self.batch, self.precision, self.is_single
            )
        return self._inference

    def _checked(self, images: np.ndarray) -> np.ndarray:
        """The images, contiguous; or a ShapeError."""
        images = check_images(images, self.model.name, self.model.input_shape)
        return np.ascontiguousarray(images, np.float32)


def _described(step: Step, network: StepList) -> PlanStep:
    match step:
        case ConvStep():
            kind = step.what
        case DropStep():
            kind = "dropout"
        case MeanStep():
            kind = "global average pool"
        case NodeStep(node=node):
            plain = isinstance(node, Add | Copy) or is_graphs_own(node)
            kind = node.what if plain else type(layer_of(network.graph, node)).__name__
            return PlanStep(step.name, kind, network.graph.shapes[node.target], False)
        case _:
            kind = "sum" if len(step.reads) > 1 else "copy"
    return PlanStep(step.name, kind, network.maps[step.target].shape, True)


@overload
def compile(  # type: ignore[overload-overlap]
    model: "Model | Int8Network",
    batch: int = 64,
    *,
    training: bool | None = None,
    precision: Literal["int8"],
    threads: int | None = None,
    input_size: int | None = None,
    params: Params | None = None,
    calibration: np.ndarray | None = None,
) -> "Int8Plan": ...


@overload
def compile(
    model: Model,
    batch: int = 64,
    *,
    training: bool | None = None,
    precision: str = "4x4",
    threads: int | None = None,
    input_size: int | None = None,
    params: Params | None = None,
) -> Plan: ...


def compile(
    model: "Model | Int8Network",
    batch: int = 64,
    *,
    training: bool | None = None,
    precision: str = "4x4",
    threads: int | None = None,
    input_size: int | None = None,
    params: Params | None = None,
    calibration: np.ndarray | None = None,
) -> "Plan | Int8Plan":
    """A plan for batches of up to `batch` images.

    model        a network; or for "int8" one that is quantised already
    training     can it train as well? By default yes, but for "int8", which cannot
    precision    how 3x3 convolutions are done: "4x4" (Winograd F(4x4), fastest), "2x2" or "direct"; or
                 "int8": everything in 8-bit integers, to the bit what `devices.int8` computes
    threads      default: NUMBA_NUM_THREADS, or all processors that may be used
    input_size   square images of another size than the model's
    params       copied in; default: fresh ones
    calibration  images (N, H, W, C) float32 by which "int8" quantises a model; no labels needed

    Raises UserError for sizes that are none, for an unknown precision, for "int8" without images to
    calibrate on, for a network that integers don't do, and for training a graph; ShapeError for parameters
    that do not fit.
    """
    sizes = checked("compile", SIZES, {"batch": batch, "threads": threads})
    batch, threads = sizes["batch"], sizes["threads"]
    if precision == "int8":
        if training:
            raise UserError("integers are for inference: leave training out, or train in float32")
        from tinysqueeze.compiled.int8 import Int8Plan

        return Int8Plan(_quantised(model, input_size, params, calibration), batch, threads)
    if precision not in PRECISIONS:
        raise UserError(
            f"precision is one of {', '.join((*PRECISIONS, 'int8'))}, not {precision!r}"
        )
    if not isinstance(model, Model):
        raise UserError("a quantised network is compiled with precision='int8'")
    if calibration is not None:
        raise UserError("calibration images are for precision='int8'")
    if training is not False and isinstance(model, GraphModel):
        raise UserError(f"{model.name} was read as a graph, which does not train: training=False")
    return Plan(model.at(input_size), batch, training is not False, precision, threads, params)


def _quantised(
    model: "Model | Int8Network",
    input_size: int | None,
    params: Params | None,
    calibration: np.ndarray | None,
) -> "Int8Network":
    """The network in integers."""
    from tinysqueeze.devices.int8 import Int8Network, quantise

    if isinstance(model, Int8Network):
        if input_size is not None or params is not None or calibration is not None:
            raise UserError(
                "a quantised network has its size and parameters: give input_size, params and "
                "calibration with a float model"
            )
        return model
    if calibration is None:
        raise UserError(
            "int8 needs images to calibrate on: compile(model, precision='int8', params=..., "
            "calibration=images), dozens are enough"
        )
    model = model.at(input_size)
    params = initialise(model) if params is None else params
    check_fit(model, params)
    return quantise(model, params, calibration)
