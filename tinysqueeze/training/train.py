"""A whole training in one call: data, network, recipe, a progress bar, a folder to go on from."""

import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from tinysqueeze import data as datasets
from tinysqueeze.data import Dataset, Normalise
from tinysqueeze.errors import UserError
from tinysqueeze.files import check_folder
from tinysqueeze.network.layers import Params
from tinysqueeze.network.models import Model, build
from tinysqueeze.training import checkpoint
from tinysqueeze.training.budget import epochs_within, measured
from tinysqueeze.training.communicator import ALONE, Communicator
from tinysqueeze.training.engine import ENGINES, EngineMaker
from tinysqueeze.training.evaluate import Evaluation
from tinysqueeze.training.interruptible import interruptible
from tinysqueeze.training.loop import Report, drive, run
from tinysqueeze.training.recipe import Recipe
from tinysqueeze.training.recipes import DEFAULTS, NamedRecipe, find_recipe
from tinysqueeze.training.run_folder import About, RunFolder
from tinysqueeze.training.state import Training, begin, evaluate_training

Spec = Mapping[str, Any]  # a network's name and metaparameters, as `models.build` takes them


class Stopped(KeyboardInterrupt):
    """Ctrl-C or a kill during a training, which stopped between two steps; `by` is the signal."""

    def __init__(self, by: int, folder: Path | None) -> None:
        saved = f"saved; ts.resume({str(folder)!r}) goes on" if folder else "nothing was saved"
        super().__init__(f"the training was stopped, {saved}")
        self.by = by


@dataclass
class TrainingRun:
    """A training with its data and its folder: what `train` returns when it is finished.

    `test` is evaluated after epochs, where `test_epochs`, and at the end: then `evaluation` is there.
    """

    training: Training
    dataset: Dataset
    test: Dataset | None
    folder: RunFolder | None = None
    communicator: Communicator = ALONE
    test_epochs: bool = True
    evaluation: Evaluation | None = None
    notes: tuple[str, ...] = ()  # what there is to know of the checkpoint that it goes on from

    @property
    def model(self) -> Model:
        """The network."""
        return self.training.engine.model

    @property
    def params(self) -> Params:
        """Its parameters: the running average, where the recipe keeps one."""
        return self.training.best_params

    @property
    def history(self) -> list[dict[str, float]]:
        """A row an epoch: losses, accuracies (0 to 1), rate, seconds."""
        return self.training.history

    @property
    def accuracy(self) -> float | None:
        """Of the finished network on the test images, 0 to 1."""
        return self.evaluation.accuracy if self.evaluation else None

    def finish(self, progress: bool = True) -> Self:
        """Train to the end and evaluate, saving as it goes; of several ranks the first evaluates.

        Raises Stopped after Ctrl-C, TrainingError where the loss is no longer finite, and UserError where
        another process trains into the same folder.
        """
        folder = (
            self.folder if self.communicator.ranks == 1 else None
        )  # ranks would wait for the first
        with folder.alone() if folder else nullcontext():
            self._train(progress)
            if not self.communicator.rank:
                self._evaluate()
        return self

    def _evaluate(self) -> None:
        """On the test images, if there are any; and the tables."""
        if self.test is not None:
            whole = self.communicator.ranks == 1 and self.test_epochs  # the last epoch's is the one
            tested = self.training.evaluation if whole else None
            self.evaluation = tested or evaluate_training(self.training, self.test)
        if self.folder:
            self.folder.finish(self.training, self.evaluation)

    def _train(self, progress: bool) -> None:
        """All that is left, to the last step; all ranks stop after the same one."""
        from tqdm.auto import tqdm

        test = self.test if self.test_epochs else None
        hidden = None if progress and not self.communicator.rank else True
        reports = run(self.training, self.dataset, test, self.communicator)
        with interruptible() as interrupt, tqdm(total=0, unit="batch", disable=hidden) as bar:
            told = drive(
                reports,
                lambda report: _show(bar, report, self.training.recipe),
                self._save,
                lambda: self.communicator.largest(interrupt.by),
            )
        if told:
            raise Stopped(told, self.folder.path if self.folder else None)

    def _save(self) -> None:
        """The checkpoint; rank 0 saves for all."""
        if self.folder and not self.communicator.rank:
            self.folder.save(self.training)


def train(
    model: Model | Spec | str | None = None,
    data: Dataset | str | Path | None = None,
    recipe: Recipe | str | None = None,
    *,
    out: str | Path | None = None,
    progress: bool = True,
    **options: Any,
) -> TrainingRun:
    """Train a network, as `tinysqueeze train` does: `ts.train("squeezenet_cifar", "builtin", epochs=1)`.

    model     the network; or its name or spec, completed for the data: their classes and image size, and
              for squeezenet_cifar batch norm and the simple bypass, unless they say otherwise
    data      images to train on, or what `data.load` takes: then its test split is evaluated too
              (otherwise the built-in shapes, and CIFAR-10 for a recipe with a name)
    recipe    how to train, or one's name, which brings its network (otherwise what suits the data)
    out       a folder for checkpoint and tables, from which `resume` goes on
    progress  whether a bar shows it
    options   those of `start`, and settings of the recipe that are to be others: lr=0.1, cutout=5

    The run that comes back has `params`, `history`, `accuracy` and `model`. Raises UserError for what does
    not fit together, TrainingError where the loss is no longer finite, Stopped after Ctrl-C.
    """
    return start(model, data, recipe, out=out, **options).finish(progress)


def start(
    model: Model | Spec | str | None = None,
    data: Dataset | str | Path | None = None,
    recipe: Recipe | str | None = None,
    *,
    test: Dataset | None = None,
    source: str | None = None,
    params: Params | None = None,
    normalise: Normalise | None = None,
    out: str | Path | None = None,
    threads: int | None = None,
    engine: str = "compiled",
    engines: Mapping[str, EngineMaker] = ENGINES,
    communicator: Communicator = ALONE,
    test_epochs: bool = True,
    minutes: float | None = None,
    teacher: str | Path | None = None,
    **settings: Any,
) -> TrainingRun:
    """A run before its first step; model, data, recipe and out as in `train`.

    test       images to evaluate on, where `data` are images
    source     where these are from, for `resume`
    params     to begin from (otherwise fresh ones), with the images' `normalise` that they want
    threads    of the processor (otherwise all); of each rank, where a `communicator` joins several
    engine     which of `engines` runs the network
    minutes    all of it may take, but for a tenth in reserve: the speed is measured in some first steps,
               which are then taken anew, and as many epochs are trained as fit (`budget`)
    teacher    the folder of a run whose network teaches this one; of its answers the labels take the share
               `taught`
    settings   of the recipe, changed by name

    Raises UserError where `out` holds a run already or cannot be written to, and for what does not
    fit together.
    """
    begun = time.perf_counter()
    _check_kinds(data, recipe, engine, engines)
    if out is not None:
        check_folder(out)
    if out is not None and (Path(out) / checkpoint.NAME).exists():
        raise UserError(
            f"{out} holds a run already; --resume {out} goes on with it, --out starts another"
        )
    named = find_recipe(recipe) if isinstance(recipe, str) else None
    if not isinstance(data, Dataset):
        source = str(data or ("cifar10" if named else "builtin"))
        size = model.get("input_size") if isinstance(model, Mapping) else None
        data, test = load_both(source, size, communicator)
    source = source or data.name
    given = recipe if isinstance(recipe, Recipe) else None
    own = named.recipe if named else given or DEFAULTS.get(source, DEFAULTS["other"])
    own = own.changed(**settings)
    network = model if isinstance(model, Model) else _network(model, named, data)
    about = About(source, recipe if isinstance(recipe, str) else None, engine)
    teaching = None
    if teacher is not None:
        saved = checkpoint.read(teacher)
        known_by = {"teacher": str(Path(teacher).resolve()), "teacher_sha256": saved.meta["sha256"]}
        about = replace(about, **known_by)
        teaching = checkpoint.as_teacher(saved, network, data.classes, threads, engines[engine])
    rest = (params, normalise, threads, communicator.ranks, engines[engine], teaching)
    if minutes is not None:
        if "epochs" in settings:
            raise UserError("minutes say how many epochs: leave one of them out")
        speed = measured(begin(network, data, own, *rest), data, test, communicator)
        spent = communicator.largest(round(1000 * (time.perf_counter() - begun))) / 1000
        own = own.changed(epochs=epochs_within(own, len(data), speed, 60 * minutes - spent))
        about = replace(about, minutes=minutes, measured=own.batch_size / speed.step)
    training = begin(network, data, own, *rest)
    folder = RunFolder(Path(out), about, begun) if out is not None else None
    return TrainingRun(training, data, test, folder, communicator, test_epochs)


def resume(
    folder: str | Path,
    *,
    threads: int | None = None,
    engines: Mapping[str, EngineMaker] = ENGINES,
    communicator: Communicator = ALONE,
    test_epochs: bool = True,
) -> TrainingRun:
    """The run in a folder as it was when it was saved; `finish` goes on as if it had never stopped."""
    begun = time.perf_counter()
    saved = checkpoint.read(folder)
    check_folder(folder)
    about = About.of(saved.meta["extra"])
    if about.engine not in engines:
        known = ", ".join(engines)
        raise UserError(f"{folder} was trained by the engine {about.engine}; here are {known}")
    dataset, test = load_both(about.data, saved.model.input_shape[0], communicator)
    make, teacher = engines[about.engine], None
    if about.teacher is not None:
        taught_by = checkpoint.read(about.teacher)
        if taught_by.meta["sha256"] != about.teacher_sha256:
            raise UserError(
                f"{about.teacher} is no more the teacher that {folder} began with: bring that one back"
            )
        teacher = checkpoint.as_teacher(taught_by, saved.model, saved.classes, threads, make)
    training = checkpoint.resume(saved, threads, communicator.ranks, make, teacher)
    own = RunFolder(Path(folder), about, begun, mine=True)
    return TrainingRun(training, dataset, test, own, communicator, test_epochs, notes=saved.notes)


def _check_kinds(
    data: object, recipe: object, engine: str, engines: Mapping[str, EngineMaker]
) -> None:
    """Raises UserError for what is no data, no recipe or no engine."""
    if not isinstance(data, Dataset | str | Path | None):
        raise UserError(
            f"data are a ts.data.Dataset, or what data.load takes, not {type(data).__name__}"
        )
    if not isinstance(recipe, Recipe | str | None):
        raise UserError(f"recipe is a Recipe or the name of one, not {recipe!r}")
    if engine not in engines:
        raise UserError(f"no engine named {engine!r}; there are {', '.join(engines)}")


def load_both(
    source: str, size: int | None, communicator: Communicator = ALONE
) -> tuple[Dataset, Dataset]:
    """The training and the test images; rank 0 goes first, since it may have to download them."""
    if communicator.rank:
        communicator.largest(0)
    loaded = datasets.load(source, "train", size=size), datasets.load(source, "test", size=size)
    if not communicator.rank:
        communicator.largest(0)
    return loaded


def _network(model: Spec | str | None, named: NamedRecipe | None, dataset: Dataset) -> Model:
    """The network that is asked for, completed by the named recipe and by what the data are."""
    asked = dict(model) if isinstance(model, Mapping) else {"name": model} if model else {}
    name = asked.get("name", "squeezenet_cifar")
    usual = {"norm": True, "bypass": "simple"} if name == "squeezenet_cifar" else {}
    sizes = {"classes": len(dataset.classes), "input_size": dataset.images.shape[1]}
    return build({"name": name, **(named.model if named else usual), **sizes, **asked})


def _show(bar: Any, report: Report, recipe: Recipe) -> None:
    """One more batch; an epoch that is done leaves a line."""
    bar.n, bar.total = report.batch, report.batches
    bar.set_description(f"epoch {report.epoch + 1}/{recipe.epochs}", refresh=False)
    bar.set_postfix_str(
        f"loss {report.loss:.3f}, accuracy {report.accuracy:.1%}, {report.images_per_second:,.0f} images/s",
        refresh=False,
    )
    bar.update(0)
    if report.result is not None:
        bar.write(_epoch_line(report.result, recipe))
        bar.reset()


def _epoch_line(result: Mapping[str, float], recipe: Recipe) -> str:
    tested = f", test {result['test_accuracy']:.2%}" if "test_accuracy" in result else ""
    return (
        f"epoch {result['epoch']}/{recipe.epochs}: loss {result['train_loss']:.3f}, accuracy "
        f"{result['train_accuracy']:.2%}{tested}, {result['seconds']:.1f} s, "
        f"{result['images_per_second']:,.0f} images/s"
    )
