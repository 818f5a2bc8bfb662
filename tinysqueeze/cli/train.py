"""`tinysqueeze train`: train a network, see it happen, and find everything in a run folder."""

import argparse
import io
import time
from argparse import BooleanOptionalAction
from contextlib import redirect_stdout
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from tinysqueeze import data
from tinysqueeze.cli.compiling import compile_kernels
from tinysqueeze.cli.interruptible import interruptible
from tinysqueeze.cli.models import add_changes, changes
from tinysqueeze.cli.run_folder import About, RunFolder
from tinysqueeze.cli.weights import find_weights
from tinysqueeze.data import Dataset
from tinysqueeze.errors import UserError
from tinysqueeze.network.layers import Params
from tinysqueeze.network.models import Model, build
from tinysqueeze.study.count import count
from tinysqueeze.training import checkpoint
from tinysqueeze.training.communicator import Communicator
from tinysqueeze.training.engine import Engine, EngineMaker, compiled_engine, stepwise_engine
from tinysqueeze.training.loop import Report, Training, begin, evaluate_training
from tinysqueeze.training.loop import run as train
from tinysqueeze.training.mpi import communicator, threads_a_rank
from tinysqueeze.training.recipe import (
    DEFAULTS,
    FINE_TUNING,
    RECIPES,
    Recipe,
    find_recipe,
    recipe_dict,
)
from tinysqueeze.weights import frozen_paths, training_start, transferred


def _torch_engine(
    model: Model, batch: int, params: Params | None, threads: int | None, precision: str
) -> Engine:
    from tinysqueeze.bench.torch_engine import torch_engine

    return torch_engine(model, params, threads)


ENGINES: dict[str, EngineMaker] = {
    "compiled": compiled_engine,
    "stepwise": stepwise_engine,
    "torch": _torch_engine,
}
SAVE_EVERY = 60.0  # seconds: what a kill may cost at most


def configure(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    parser.description = (
        "Train a network, by default on data that needs no download. `mpiexec -n R tinysqueeze train` "
        "does it on R ranks: the batch stays what it is, each rank takes its share, and the steps are "
        "those of one rank but for rounding. Batch norm alone sees the difference: each rank "
        "normalises by its own images (it is not synchronised), and running statistics are averaged."
    )
    parser.add_argument(
        "--recipe",
        metavar="NAME",
        help="; ".join(f"{name}: {one.purpose}" for name, one in RECIPES.items()).replace(
            "%", "%%"
        ),
    )
    parser.add_argument(
        "--model", metavar="M", help="which network (the recipe's, or squeezenet_cifar)"
    )
    add_changes(parser)
    parser.add_argument(
        "--from",
        dest="start",
        metavar="WEIGHTS",
        help="fine-tune these (a run folder, a file, a published name); conv10 is new if classes differ",
    )
    parser.add_argument(
        "--data",
        metavar="DATA",
        help="builtin, cifar10, or a folder or archive (otherwise builtin, with --recipe cifar10)",
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="the run folder (otherwise runs/ and the time)"
    )
    parser.add_argument(
        "--resume", type=Path, metavar="DIR", help="go on with the run in this folder"
    )
    parser.add_argument(
        "--threads", type=int, metavar="N", help="processor threads (otherwise all)"
    )
    parser.add_argument(
        "--engine",
        choices=ENGINES,
        default="compiled",
        help="stepwise: layer by layer (slow); torch: the same recipe by PyTorch, to compare with",
    )
    parser.add_argument(
        "--half-gradients", action="store_true", help="under mpiexec, send gradients in 16 bits"
    )
    parser.add_argument("--no-test", action="store_true", help="don't evaluate after each epoch")
    recipe = parser.add_argument_group("settings (otherwise the recipe's, or what suits the data)")
    for option in fields(Recipe):
        if option.name in ("nesterov", "frozen"):
            continue
        flag = f"--{option.name.replace('_', '-')}"
        if option.type is bool:
            recipe.add_argument(
                flag, action=BooleanOptionalAction, default=None, help=HELP[option.name]
            )
            continue
        kind = {"int": int, "float": float}.get(getattr(option.type, "__name__", ""), str)
        recipe.add_argument(
            flag, type=kind, default=None, metavar=kind.__name__[0].upper(), help=HELP[option.name]
        )
    recipe.add_argument(
        "--freeze",
        action="append",
        default=[],
        metavar="PATTERN",
        help="paths to leave as they are",
    )


HELP = {
    "epochs": "times through the training images",
    "batch_size": "images a step",
    "lr": "peak learning rate",
    "schedule": "one-cycle, cosine, polynomial or constant",
    "warmup": "share of all steps until the peak",
    "optimiser": "sgd, adam or muon",
    "momentum": "of sgd and muon",
    "weight_decay": "pull of the weights to zero",
    "norm_bias_rate": "times the learning rate, for the biases of batch norms",
    "smoothing": "label smoothing",
    "pad": "pixels by which crops may move",
    "flip": "random or alternate",
    "cutout": "side of a blanked square",
    "cutmix": "share of images with a patch of another, their labels mixed alike",
    "flip_test": "average the logits of an image and its mirror image when testing",
    "shift_test": "average with the logits of the image moved by up to a pixel when testing",
    "test_every": "epochs from one test to the next",
    "keep": "share of the images that an epoch sees, from the third on",
    "hard": "share of the images, those of the largest losses, that is among them for sure",
    "identity": "start with 3x3 filters that pass their input channels on",
    "average": "share kept by the running average of the weights, each step",
    "precision": "of 3x3 convolutions: f4 (fastest), f2 or direct",
    "seed": "for weights, order and augmentation",
}


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
    started, ranks = time.perf_counter(), together.ranks
    if args.engine == "compiled":
        compile_kernels()
    if args.resume:
        saved = checkpoint.read(args.resume)
        folder = RunFolder(args.resume, About(**saved.meta["extra"]), started)
        _refuse_changes(args)
        dataset, test = _datasets(folder.about.data, saved.model.input_shape[0], together)
        make = ENGINES[folder.about.engine]
        training = checkpoint.resume(saved, args.threads, ranks, make)
        print(f"resuming {args.resume} at epoch {training.epoch + 1}, batch {training.batch + 1}")
    else:
        out = args.out or Path("runs") / time.strftime("%Y%m%d-%H%M%S")
        if (out / checkpoint.NAME).exists():
            raise UserError(
                f"{out} holds a run already; --resume {out} goes on with it, --out starts another"
            )
        source = args.data or ("cifar10" if args.recipe else "builtin")
        folder = RunFolder(out, About(str(source), args.recipe, args.engine), started)
        dataset, test = _datasets(source, args.input_size, together)
        training = _fresh(args, source, dataset, ranks)
    model = training.engine.model
    print(
        f"{model.name}, {count(model).parameters:,} parameters; {dataset.name}: "
        f"{len(dataset):,} training and {len(test):,} test images; run folder {folder.path}"
    )
    if ranks > 1:
        batch = training.recipe.batch_size
        print(
            f"{ranks} ranks of {batch // ranks} images and {args.threads or 'all'} threads each: "
            f"a batch of {batch}, whatever the ranks"
        )
    code = _train(training, dataset, None if args.no_test else test, folder, together)
    if code or together.rank:
        return code
    for line in together.lines():
        print(line)
    tested = training.evaluation if ranks == 1 and not args.no_test else None
    score = tested or evaluate_training(training, test)
    folder.finish(training, score, test)
    print(
        f"test accuracy {score.accuracy:.2%} on {len(test):,} images of {test.name} after "
        f"{folder.now().wall_seconds:.0f} s; see {folder.path}"
    )
    return 0


def _fresh(args: argparse.Namespace, source: str, dataset: Dataset, ranks: int) -> Training:
    """A new training: the named recipe's or the data's usual one, changed as the options say."""
    defaults = FINE_TUNING if args.start else DEFAULTS.get(source, DEFAULTS["other"])
    own: dict[str, Any] = {"name": args.model or "squeezenet_cifar"}
    if args.recipe:
        named = find_recipe(args.recipe)
        defaults = named.recipe
        own |= named.model
    elif own["name"] == "squeezenet_cifar":
        own |= {"norm": True, "bypass": "simple"}
    asked = {f.name: getattr(args, f.name, None) for f in fields(Recipe)}
    chosen = {n: v for n, v in asked.items() if v is not None}
    recipe = Recipe.from_dict(recipe_dict(defaults) | chosen)
    if args.start:
        return _fine_tuned(args, dataset, recipe, ranks)
    sizes = {"classes": len(dataset.classes), "input_size": dataset.images.shape[1]}
    model = build({**own, **sizes, **changes(args)})
    recipe = replace(recipe, frozen=frozen_paths(model, args.freeze))
    make = ENGINES[args.engine]
    return begin(model, dataset, recipe, threads=args.threads, ranks=ranks, make_engine=make)


def _fine_tuned(args: argparse.Namespace, dataset: Dataset, recipe: Recipe, ranks: int) -> Training:
    """Begin from others' weights, for the dataset's classes and image size."""
    own = {"input_size": dataset.images.shape[1], "dropout": 0.0, "final_relu": False}
    wanted = {n: v for n, v in (own | changes(args)).items() if n != "classes"}  # the data say
    weights = transferred(find_weights(args.start), dataset.classes, recipe.seed, **wanted)
    recipe = replace(recipe, frozen=frozen_paths(weights.model, args.freeze))
    params, normalise = training_start(weights)
    return begin(
        weights.model, dataset, recipe, params, normalise, args.threads, ranks, ENGINES[args.engine]
    )


def _datasets(source: str, size: int | None, together: Communicator) -> tuple[Dataset, Dataset]:
    """The training and the test images; rank 0 goes first, since it may have to download them."""
    if together.rank:
        together.largest(0)
    loaded = data.load(source, "train", size=size), data.load(source, "test", size=size)
    if not together.rank:
        together.largest(0)
    return loaded


def _refuse_changes(args: argparse.Namespace) -> None:
    """A resumed run goes on exactly as it began, so its recipe can't be changed."""
    asked = [f.name for f in fields(Recipe) if getattr(args, f.name, None) is not None]
    asked += ["set"] if args.set else []
    asked += [name for name in ("recipe", "model", "start") if getattr(args, name) is not None]
    if asked:
        raise UserError(
            f"--resume goes on as the run began; leave out --{', --'.join(asked).replace('_', '-')}"
        )


def _train(
    training: Training,
    dataset: Dataset,
    test: Dataset | None,
    folder: RunFolder,
    together: Communicator,
) -> int:
    """Train to the end, or until told to stop (the exit status is then not 0); saves as it goes."""
    hidden = True if together.rank else None
    with interruptible() as interrupt, tqdm(total=0, unit="batch", disable=hidden) as bar:
        for report in train(training, dataset, test, together):
            _show(bar, report, training.recipe)
            if report.result is not None:
                bar.write(_epoch_line(report.result, training.recipe))
                bar.reset()
            due = time.perf_counter() - folder.saved_at > SAVE_EVERY
            told = together.largest(interrupt.by)  # all stop after the same step
            if (report.result is not None or due or told) and together.rank == 0:
                folder.save(training)
            if told:
                bar.write(f"stopped; go on with: tinysqueeze train --resume {folder.path}")
                return 128 + told
    return 0


def _show(bar: Any, report: Report, recipe: Recipe) -> None:
    bar.n, bar.total = report.batch, report.batches
    bar.set_description(f"epoch {report.epoch + 1}/{recipe.epochs}", refresh=False)
    bar.set_postfix_str(
        f"loss {report.loss:.3f}, accuracy {report.accuracy:.1%}, {report.images_per_second:,.0f} images/s",
        refresh=False,
    )
    bar.update(0)


def _epoch_line(result: dict[str, float], recipe: Recipe) -> str:
    tested = f", test {result['test_accuracy']:.2%}" if "test_accuracy" in result else ""
    return (
        f"epoch {result['epoch']}/{recipe.epochs}: loss {result['train_loss']:.3f}, accuracy "
        f"{result['train_accuracy']:.2%}{tested}, {result['seconds']:.1f} s, "
        f"{result['images_per_second']:,.0f} images/s"
    )
