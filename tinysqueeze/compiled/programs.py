"""The programs of a plan: a training step, and inference. Each is built in a space of its own."""

from dataclasses import dataclass

import numpy as np

from tinysqueeze.compiled.backward import backward
from tinysqueeze.compiled.forward import drop_mask, forward, kept_maps, loss
from tinysqueeze.compiled.grouping import group
from tinysqueeze.compiled.inference import inference
from tinysqueeze.compiled.layout import Arrays, Layout, lay_out
from tinysqueeze.compiled.nodes import random_of, read
from tinysqueeze.compiled.phases import in_phases
from tinysqueeze.compiled.sequence import Given, Runnable, Sequence
from tinysqueeze.compiled.single import can_share, single
from tinysqueeze.compiled.space import Space, in_space
from tinysqueeze.compiled.steps import DropStep, NodeStep, StepList
from tinysqueeze.graph import Drop, Fold, folded, folded_params, lower, merge_norms, without_dropout
from tinysqueeze.kernels.team import Team
from tinysqueeze.network.models import Model
from tinysqueeze.network.ops import fast
from tinysqueeze.network.ops.reference import label_shares
from tinysqueeze.network.params import flatten

# --- training ------------------------------------------------------------------------------------


@dataclass
class TrainingProgram:
    """One training step up to the gradients."""

    layout: Layout
    steps: Runnable
    losses: np.ndarray
    hits: np.ndarray

    def run(
        self, team: Team, images: np.ndarray, labels: np.ndarray, smoothing: float, seed: int
    ) -> tuple[float, int]:
        """Mean loss, and how many were right; fills the gradients."""
        n, network = len(images), self.layout.steps
        shares = label_shares(labels, network.maps[network.output].channels)
        self.steps.run(team, Given(images, seed, shares, smoothing))
        total = self.losses[:n].sum(dtype=np.float64)
        return float(total / n), int(self.hits[:n].sum())

    def dropout_masks(self, seed: int, images: int) -> dict[str, np.ndarray]:
        """By path, what dropouts multiply their maps by in a step with this seed, (N, ...) float32."""
        layout, masks = self.layout, {}
        for step in layout.steps.steps:
            if isinstance(step, DropStep):
                view, size = layout.buffers[step.source], layout.steps.maps[step.source]
                masks[step.name] = drop_mask(step, view, size, seed, images)
            elif isinstance(step, NodeStep) and isinstance(step.node, Drop):
                x = np.zeros((images, *layout.steps.graph.shapes[step.node.source]), np.float32)
                drawn = fast.dropout_mask(x, step.node.rate, random_of(step, seed))
                masks[step.name] = drawn
        return masks


def training_program(
    model: Model, threads: int, params: Arrays, grads: Arrays, batch: int, precision: str
) -> TrainingProgram:
    """Pack the weights, forward, loss, backward, join the gradients."""
    steps = group(without_dropout(lower(model), up_to=0), training=True)

    def build(space: Space) -> tuple[Layout, Sequence, np.ndarray, np.ndarray]:
        layout = lay_out(steps, space, params, batch, precision, grads)
        layout.buffers = kept_maps(layout)
        ahead = forward(layout)
        losses, hits, d = loss(layout, ahead)
        cleared, back = backward(layout, grads, d)
        whole = Sequence()
        for part in (cleared, layout.packing, ahead, back):
            whole.extend(part)
        return layout, whole, losses, hits

    layout, whole, losses, hits = in_space(threads, build)
    return TrainingProgram(layout, whole.programs(), losses, hits)


# --- inference -----------------------------------------------------------------------------------


@dataclass
class InferenceProgram:
    """Logits of at most `batch` images; `refresh` first packs the weights, norms folded into them."""

    layout: Layout
    packing: Runnable
    steps: Runnable
    params: Arrays
    folds: tuple[Fold, ...]

    @property
    def batch(self) -> int:
        """How many images it takes at once."""
        return self.layout.batch

    def refresh(self, team: Team) -> None:
        """Packs the parameters as they are now."""
        for path, array in folded(self.folds, self.params):
            self.layout.params[path][...] = array
        self.packing.run(team, Given(np.empty(1)))

    def run(self, team: Team, images: np.ndarray) -> np.ndarray:
        """Logits of at most `batch` images, a fresh array (N, classes)."""
        self.steps.run(team, Given(images))
        network = self.layout.steps
        view = self.layout.buffers[network.output]
        return read(view, network.maps[network.output], len(images)).reshape(len(images), -1)


def inference_steps(model: Model) -> tuple[StepList, tuple[Fold, ...]]:
    """The steps without dropout, and the norms that go into convolutions."""
    graph, folds = merge_norms(without_dropout(lower(model)))
    return group(graph, training=False), folds


def inference_program(
    model: Model, threads: int, params: Arrays, batch: int, precision: str, one_by_one: bool
) -> InferenceProgram:
    """For batches; or `one_by_one`, where all threads share each image if their kernels can."""
    steps, folds = inference_steps(model)
    if precision == "4x4":
        steps = in_phases(steps)
    own = flatten(folded_params(folds, params))  # the plan's arrays, but where norms are folded in
    shared = one_by_one and can_share(steps)

    def build(space: Space) -> tuple[Layout, Sequence]:
        layout = lay_out(steps, space, own, 1 if shared else batch, precision, one_by_one=shared)
        return layout, (single if shared else inference)(layout)

    layout, work = in_space(threads, build)
    return InferenceProgram(layout, layout.packing.programs(), work.programs(), params, folds)
