"""A training under way, as a value: how one begins, and all that a checkpoint must keep of it."""

from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatch

import numpy as np

from tinysqueeze.data import Dataset, Normalise
from tinysqueeze.errors import ShapeError, UserError
from tinysqueeze.graph import GraphModel
from tinysqueeze.network.layers import Params
from tinysqueeze.network.models import Model
from tinysqueeze.network.params import buffer_shapes, flatten, initialise, trained_shapes
from tinysqueeze.training.engine import Engine, EngineMaker, EngineSpec, compiled_engine
from tinysqueeze.training.evaluate import Evaluation, evaluate
from tinysqueeze.training.optimisers import Optimiser, Places, Slots
from tinysqueeze.training.recipe import Recipe
from tinysqueeze.training.teacher import Teacher


@dataclass
class Training:
    """A training under way: everything that a checkpoint must keep to go on as if never stopped.

    `epoch` epochs are complete, and `batch` batches of the next one; `loss_sum`, `correct`, `seen`
    and `seconds` are of that one so far. `average` is a vector like the engine's, or None. Where
    epochs prefer hard images, `losses` are those of all images when last seen (infinite before
    that), and `order` the images of the epoch that is under way. A `teacher` is there where the recipe
    is `taught`.

    What follows from engine and recipe is computed once: `optimiser` knows where the network's filters
    lie, `factors` and `decay` say for each number of the vector what its gradient is multiplied by and
    how it is pulled to zero. Raises UserError for a pattern of frozen paths that matches nothing.
    """

    engine: Engine
    recipe: Recipe
    normalise: Normalise
    classes: tuple[str, ...]
    slots: Slots
    average: np.ndarray | None = None
    losses: np.ndarray | None = None
    order: np.ndarray | None = None
    epoch: int = 0
    batch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    correct: float = 0.0
    seen: float = 0.0
    seconds: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)
    teacher: Teacher | None = None
    evaluation: Evaluation | None = None  # the last one, on this rank's share of the test images
    optimiser: Optimiser = field(init=False)
    factors: np.ndarray | None = field(init=False)
    decay: np.ndarray = field(init=False)
    statistics: np.ndarray = field(
        init=False
    )  # batch norm's running ones, behind all that is trained

    def __post_init__(self) -> None:
        model, vector = self.engine.model, self.engine.vector
        frozen = frozen_paths(model, self.recipe.frozen)
        self.statistics = vector[sum(int(np.prod(s)) for s in trained_shapes(model).values()) :]
        self.optimiser = self.recipe.optimiser.fitted(model, frozen)
        self.factors = gradient_factors(self.engine, self.recipe.norm_bias_rate, frozen)
        weight_decay, keep_their_length = self.recipe.weight_decay, self.optimiser.matrices
        self.decay = decay_of_each(self.engine, weight_decay, frozen, keep_their_length)

    @property
    def best_vector(self) -> np.ndarray:
        """What to evaluate and to use: the average if there is one, else the parameters."""
        return self.engine.vector if self.average is None else self.average

    @property
    def best_params(self) -> Params:
        """The same by path, as views."""
        return self.engine.views(self.best_vector)

    @property
    def finished(self) -> bool:
        """All epochs done."""
        return self.epoch >= self.recipe.epochs


def begin(
    model: Model,
    dataset: Dataset,
    recipe: Recipe = Recipe(),
    params: Params | None = None,
    normalise: Normalise | None = None,
    threads: int | None = None,
    ranks: int = 1,
    make_engine: EngineMaker = compiled_engine,
    teacher: Teacher | None = None,
) -> Training:
    """A training of `model` from fresh (or the given) parameters, before its first step.

    The images' normalisation is computed from `dataset` unless given; of `ranks` that train together
    each sees its share of a batch (`threads` are those of one). Raises ShapeError where the
    dataset's images or classes don't fit the model, UserError for a graph.
    """
    if isinstance(model, GraphModel):
        raise UserError(
            f"{model.name} was read as a graph, which does not train: train it where it was made, or one "
            "of our own networks"
        )
    _check_fit(model, dataset)
    if params is None:
        params = initialise(model, recipe.seed, identity=recipe.identity)
    spec = EngineSpec(model, recipe.share(ranks), params, threads, recipe.precision)
    engine = make_engine(spec)
    check_taught(recipe, teacher)
    return Training(
        engine=engine,
        recipe=recipe,
        normalise=normalise or Normalise.of(dataset),
        classes=dataset.classes,
        slots=recipe.optimiser.start(engine.vector),
        average=engine.vector.copy() if recipe.average else None,
        losses=np.full(len(dataset), np.inf, np.float32) if recipe.hard_images.keep < 1 else None,
        teacher=teacher,
    )


def check_taught(recipe: Recipe, teacher: Teacher | None) -> None:
    """Raises UserError for a share without a teacher, or a teacher without a share."""
    if recipe.taught and teacher is None:
        raise UserError(
            f"taught = {recipe.taught:g} of the labels are a teacher's: say whose, --teacher RUN, or taught 0"
        )
    if teacher is not None and not recipe.taught:
        raise UserError("a teacher whose answers count nothing: set taught, 0.7 is usual")


def _check_fit(model: Model, dataset: Dataset) -> None:
    """Raises ShapeError where the dataset's images or classes don't fit the model."""
    height, width, channels = dataset.images.shape[1:]
    if model.input_shape[2] != channels:
        raise ShapeError(
            f"{model.name} takes {model.input_shape[2]} channels, {dataset.name} has {channels}"
        )
    if model.classes != len(dataset.classes):
        raise ShapeError(
            f"{model.name} has {model.classes} classes, {dataset.name} has {len(dataset.classes)}; "
            f"build it with classes={len(dataset.classes)}"
        )
    if model.input_shape[:2] != (height, width):
        raise ShapeError(
            f"{model.name} is for {model.input_shape[0]}x{model.input_shape[1]} images, {dataset.name} "
            f"has {height}x{width}; build it with input_size={height}"
        )


def frozen_paths(model: Model, patterns: Iterable[str]) -> tuple[str, ...]:
    """The parameters that shell patterns name: "conv1", "fire[2-5]", "fire9/squeeze/weight".

    A pattern that is a layer's name stands for all below it. Raises UserError for a pattern that
    names nothing, which is usually a slip.
    """
    paths = list(trained_shapes(model))
    frozen: set[str] = set()
    for pattern in patterns:
        found = {path for path in paths if fnmatch(path, pattern) or fnmatch(path, f"{pattern}/*")}
        if not found:
            raise UserError(
                f"nothing to freeze is called {pattern}: {pattern!r} matches no parameter, for instance "
                f"{paths[0]}"
            )
        frozen |= found
    return tuple(path for path in paths if path in frozen)


def gradient_factors(
    engine: Engine, norm_bias_rate: float, frozen: Collection[str]
) -> np.ndarray | None:
    """What the gradient of each number of the vector is multiplied by, before a step is taken.

    Frozen is 0, a batch norm's bias `norm_bias_rate`, everything else 1; None where all are 1.
    """
    means = (path for path in buffer_shapes(engine.model) if path.endswith("/mean"))
    norm_biases = {path.removesuffix("mean") + "bias" for path in means}  # they stand side by side
    factors = np.ones_like(engine.vector)
    for path, view in flatten(engine.views(factors)).items():
        view[...] = 0 if path in frozen else norm_bias_rate if path in norm_biases else 1
    return None if (factors == 1).all() else factors


def decay_of_each(
    engine: Engine, weight_decay: float, frozen: Collection[str], matrices: Places
) -> np.ndarray:
    """Each number's weight decay: `weight_decay` for trained weights, 0 for everything else.

    And 0 for the weights whose length the optimiser keeps, its `matrices`.
    """
    decay = np.zeros_like(engine.vector)
    for path, view in flatten(engine.views(decay)).items():
        if (
            view.ndim > 1 and path not in frozen
        ):  # a norm's scale has one axis, a weight two or four
            view[...] = weight_decay
    for start, rows, columns in matrices:
        decay[start : start + rows * columns] = 0
    return decay


def evaluate_training(training: Training, dataset: Dataset) -> Evaluation:
    """Evaluate the training's best parameters (the average, if it keeps one), as its recipe says."""
    engine, scoring = training.engine, training.recipe.scoring
    with _borrowed(engine, training.best_vector):
        return evaluate(engine, dataset, training.normalise, flip=scoring.flip, shift=scoring.shift)


@contextmanager
def _borrowed(engine: Engine, vector: np.ndarray) -> Iterator[None]:
    """Let the engine run with another vector's numbers for a while."""
    if vector is engine.vector:
        yield
        return
    own = engine.vector.copy()
    engine.vector[:] = vector
    try:
        yield
    finally:
        engine.vector[:] = own
