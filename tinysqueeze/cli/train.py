"""`tinysqueeze train`: train a network, see it happen, and find everything in a run folder."""

import argparse
import io
import sys
import time
from argparse import SUPPRESS, BooleanOptionalAction
from collections.abc import Mapping
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any

from tinysqueeze.cli import values
from tinysqueeze.cli.compiling import compile_kernels
from tinysqueeze.cli.models import add_changes, changes
from tinysqueeze.cli.options import option
from tinysqueeze.cli.output import draw
from tinysqueeze.cli.weights import find_weights
from tinysqueeze.compiled import Plan
from tinysqueeze.errors import UserError
from tinysqueeze.ranges import plain_type, said
from tinysqueeze.show.pictures.training import run_pictures
from tinysqueeze.study.count import count
from tinysqueeze.training import engine
from tinysqueeze.training.communicator import Communicator
from tinysqueeze.training.engine import Engine, EngineMaker, EngineSpec
from tinysqueeze.training.mpi import communicator, threads_a_rank
from tinysqueeze.training.recipe import Recipe
from tinysqueeze.training.recipes import FINE_TUNING, RECIPES
from tinysqueeze.training.settings import Setting, settings_of
from tinysqueeze.training.train import Stopped, TrainingRun, load_both, resume, start
from tinysqueeze.weights import training_start, transferred


def _torch_engine(spec: EngineSpec) -> Engine:
    from tinysqueeze.bench.torch_engine import torch_engine

    return torch_engine(spec)


def _compiled_engine(spec: EngineSpec) -> Engine:
    compile_kernels()  # which takes seconds: what is wrong with data or network is told first
    return engine.ENGINES["compiled"](spec)


ENGINES: Mapping[str, EngineMaker] = {
    **engine.ENGINES, "compiled": _compiled_engine, "torch": _torch_engine,
}  # fmt: skip
SETTINGS = tuple(settings_of(Recipe))


def configure(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    parser.description = (
        "Train a network, by default on data that needs no download. `mpiexec -n R tinysqueeze train` "
        "does it on R ranks: the batch stays what it is, each rank takes its share, and the steps are "
        "those of one rank but for rounding. Batch norm alone sees the difference: each rank "
        "normalises by its own images (it is not synchronised), and running statistics are averaged."
    )
    add = partial(option, parser)
    purposes = "; ".join(f"{name}: {one.purpose}" for name, one in RECIPES.items())
    add("--recipe NAME", purposes.replace("%", "%%"))
    add("--model M", "which network (the recipe's, or squeezenet_cifar)")
    add_changes(parser)
    add(
        "--from WEIGHTS",
        "fine-tune these (a run folder, a file, a published name); conv10 is new if classes differ",
        dest="start",
    )
    add(
        "--data DATA",
        "builtin, cifar10, or a folder or archive (otherwise builtin, with --recipe cifar10)",
    )
    add("--out DIR", "the run folder (otherwise runs/ and the time)", Path)
    add("--resume DIR", "go on with the run in this folder", Path)
    add("--threads N", "processor threads (otherwise all)", values.threads)
    parser.add_argument(
        "--engine",
        choices=ENGINES,
        default="compiled",
        help="stepwise: layer by layer (slow); torch: the same recipe by PyTorch, to compare with",
    )
    add("--half-gradients", "under mpiexec, send gradients in 16 bits")
    add(
        "--minutes N",
        "train as many epochs as take N minutes here, but for a tenth in reserve: the speed is measured in "
        "some first steps",
        values.number(above=True),
    )
    add(
        "--teacher RUN",
        "a run folder whose network teaches this one (distillation): its answers are the share --taught of "
        "each label",
    )
    add("--no-test", "don't evaluate after each epoch")
    recipe = parser.add_argument_group("settings (otherwise the recipe's, or what suits the data)")
    for setting in SETTINGS:
        recipe.add_argument(f"--{setting.option.replace('_', '-')}", **_how(setting))


def _how(setting: Setting) -> dict[str, Any]:
    """What argparse has to know of a recipe's setting."""
    how: dict[str, Any] = {"default": SUPPRESS, "help": setting.help.replace("%", "%%")}
    kind = plain_type(setting.hint)
    if kind is bool:
        return how | {"action": BooleanOptionalAction}
    if kind is tuple:
        return how | {"action": "append", "metavar": "PATTERN"}
    how["help"] += f" ({said(setting.hint)})"
    return how | {"type": values.of(setting.hint), "metavar": kind.__name__[0].upper()}


def run(args: argparse.Namespace) -> int:
    """Train; the exit status is 130 after Ctrl-C, with everything saved.

    Under mpiexec all ranks train together, and rank 0 alone prints and saves.
    """
    args.threads = threads_a_rank(args.threads)
    with communicator(args.half_gradients) as together:
        if together.rank == 0:
            return _run(args, together)
        with redirect_stdout(io.StringIO()):
            return _run(args, together)


def _run(args: argparse.Namespace, together: Communicator) -> int:
    started = time.perf_counter()
    training = _resumed(args, together) if args.resume else _fresh(args, together)
    folder, test = training.folder, training.test
    assert folder is not None
    assert test is not None
    folder.started = started
    _announce(args, training)
    try:
        training.finish()
    except Stopped as stop:
        print(f"stopped; go on with: tinysqueeze train --resume {folder.path}")
        return 128 + stop.by
    finally:  # whatever comes next, and may fail: this is what all was done for
        score = training.evaluation
        if score is not None:  # rank 0 alone has it
            print(
                f"test accuracy {score.accuracy:.2%} on {len(test):,} images of {test.name} after "
                f"{folder.now().wall_seconds:.0f} s; see {folder.path}"
            )
    if score is None:
        return 0
    for line in together.lines():
        print(line)
    pictures = run_pictures(training.training, score, test)
    return draw({folder.path / f"{name}.png": picture for name, picture in pictures.items()})


def _announce(args: argparse.Namespace, run: TrainingRun) -> None:
    """What will be trained, on what, and where it is kept."""
    assert run.folder is not None
    assert run.test is not None
    training, ranks = run.training, run.communicator.ranks
    for note in (*run.notes, *run.dataset.notes):
        print(note, file=sys.stderr)
    if args.resume:
        print(f"resuming {args.resume} at epoch {training.epoch + 1}, batch {training.batch + 1}")
    print(
        f"{run.model.name}, {count(run.model).parameters:,} parameters; {run.dataset.name}: "
        f"{len(run.dataset):,} training and {len(run.test):,} test images; run folder {run.folder.path}"
    )
    if isinstance(training.engine, Plan) and training.engine.by_layer:
        print(f"run layer by layer, which is slow: {training.engine.by_layer}", file=sys.stderr)
    about = run.folder.about
    if about.minutes:
        print(
            f"{training.recipe.epochs} epochs: what fits into {about.minutes:g} minutes at "
            f"{about.measured:,.0f} images/s, as measured, with a tenth in reserve"
        )
    if ranks > 1:
        batch = training.recipe.batch_size
        print(
            f"{ranks} ranks of {batch // ranks} images and {args.threads or 'all'} threads each: "
            f"a batch of {batch}, whatever the ranks"
        )


def _asked(args: argparse.Namespace) -> dict[str, Any]:
    """The recipe's settings that the options give."""
    return {s.option: getattr(args, s.option) for s in SETTINGS if hasattr(args, s.option)}


def _fresh(args: argparse.Namespace, together: Communicator) -> TrainingRun:
    """A new training: the named recipe's or the data's usual one, changed as the options say."""
    common: dict[str, Any] = {
        "out": args.out or Path("runs") / time.strftime("%Y%m%d-%H%M%S"),
        "threads": args.threads,
        "engine": args.engine,
        "engines": ENGINES,
        "communicator": together,
        "test_epochs": not args.no_test,
        "minutes": args.minutes,
        "teacher": args.teacher,
        **_asked(args),
    }
    if args.start:
        return _fine_tuned(args, together, common)
    name = {"name": args.model} if args.model else {}
    return start(name | changes(args), args.data, args.recipe, **common)


def _fine_tuned(
    args: argparse.Namespace, together: Communicator, common: dict[str, Any]
) -> TrainingRun:
    """Begin from others' weights, for the dataset's classes and image size."""
    source = args.data or ("cifar10" if args.recipe else "builtin")
    dataset, test = load_both(source, args.input_size, together)
    own = {"input_size": dataset.images.shape[1], "dropout": 0.0, "final_relu": False}
    wanted = {n: v for n, v in (own | changes(args)).items() if n != "classes"}  # the data say
    seed = common.get("seed", FINE_TUNING.seed)
    weights = transferred(find_weights(args.start), dataset.classes, seed, **wanted)
    params, normalise = training_start(weights)
    return start(
        weights.model, dataset, args.recipe or FINE_TUNING, test=test, source=source, params=params,
        normalise=normalise, **common,
    )  # fmt: skip


def _resumed(args: argparse.Namespace, together: Communicator) -> TrainingRun:
    """A resumed run goes on exactly as it began, so its recipe can't be changed."""
    asked = [*_asked(args), *(["set"] if args.set else [])]
    asked += [
        name
        for name in ("recipe", "model", "start", "minutes", "teacher")
        if getattr(args, name) is not None
    ]
    if asked:
        raise UserError(
            f"--resume goes on as the run began; leave out --{', --'.join(asked).replace('_', '-')}"
        )
    return resume(
        args.resume, threads=args.threads, engines=ENGINES, communicator=together,
        test_epochs=not args.no_test,
    )  # fmt: skip
