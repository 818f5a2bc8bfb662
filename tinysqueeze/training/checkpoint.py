"""Save a training and take it up again, to the bit: one safetensors file, written whole or not at all.

Arrays are filed by role and path ("params/fire2/squeeze/weight", "velocity/...", "average/..."), so
that the file does not depend on how an engine lays out its vectors. The metadata hold the rest as
JSON: model spec, recipe, normalisation, class names, counters, history, versions. A SHA-256 covers
both, since safetensors itself has none.
"""

import hashlib
import json
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open

from tinysqueeze.data import Normalise
from tinysqueeze.errors import CheckpointError, UserError
from tinysqueeze.files import parse_json, reason, to_safetensors, write_atomically
from tinysqueeze.network.layers import Params
from tinysqueeze.network.models import Model
from tinysqueeze.network.params import check_fit, flatten, unflatten
from tinysqueeze.training import metadata
from tinysqueeze.training.engine import EngineMaker, EngineSpec, compiled_engine
from tinysqueeze.training.metadata import COUNTERS, PER_IMAGE
from tinysqueeze.training.recipe import Recipe
from tinysqueeze.training.state import Training, check_taught
from tinysqueeze.training.teacher import Teacher
from tinysqueeze.version import __version__

FORMAT = "tinysqueeze-checkpoint-2"
FIRST = "tinysqueeze-checkpoint-1"  # whose SHA-256 covers the arrays alone
ANY = "tinysqueeze-checkpoint-"
NAME = "checkpoint.safetensors"
TEACHER_BATCH = 256  # images at a time


@dataclass(frozen=True)
class Saved:
    """What a checkpoint holds, read but not yet in an engine.

    `params` are what to use (the average, where one was kept); `arrays` everything by role and path;
    `notes` what there is to know about it.
    """

    model: Model
    params: Params
    recipe: Recipe
    normalise: Normalise
    classes: tuple[str, ...]
    meta: dict[str, Any]
    arrays: dict[str, np.ndarray]
    notes: tuple[str, ...] = ()


def save(path: str | Path, training: Training, **extra: Any) -> Path:
    """Write `training` to a file, or to checkpoint.safetensors in a folder; returns the file.

    `extra` is kept as JSON (the dataset's name, say). The old file stays whole until the new one is:
    a full disk or a kill costs nothing. Raises CheckpointError where it can't be written.
    """
    path = _file(path)
    engine = training.engine
    vectors = {"params": engine.vector, **training.slots}
    if training.average is not None:
        vectors["average"] = training.average
    arrays = {
        f"{role}/{place}": np.ascontiguousarray(view)
        for role, vector in vectors.items()
        for place, view in flatten(engine.views(vector)).items()
    }
    for name in PER_IMAGE:
        if getattr(training, name) is not None:
            arrays[f"images/{name}"] = getattr(training, name)
    meta = {
        "spec": engine.model.spec,
        "recipe": training.recipe.to_dict(),
        "normalise": asdict(training.normalise),
        "classes": list(training.classes),
        "counters": {name: getattr(training, name) for name in COUNTERS},
        "history": training.history,
        "versions": versions(),
        "extra": extra,
    }
    text = json.dumps(meta)
    header = {"format": FORMAT, "tinysqueeze": text, "sha256": digest(arrays, text)}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, to_safetensors(arrays, header))
    except (OSError, UserError) as error:
        raise CheckpointError(f"{error}; what was saved there before is as it was") from None
    return path


def read(path: str | Path) -> Saved:
    """A checkpoint file, or the one in a folder. Raises CheckpointError where it is not a whole one."""
    path = _file(path)
    try:
        path.open("rb").close()
    except FileNotFoundError:
        raise CheckpointError(
            f"{path}: no such checkpoint; `tinysqueeze train --out DIR` writes one"
        ) from None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({reason(error)})") from None
    try:
        with safe_open(path, "numpy") as file:
            header = file.metadata() or {}
            if not header.get("format", "").startswith(ANY):
                raise CheckpointError(f"{path}: not a tinysqueeze checkpoint ({FORMAT})")
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return _saved(header, arrays)
    except CheckpointError:
        raise
    except UserError as error:
        raise CheckpointError(f"{path}: {error}") from None
    except Exception as error:  # what is damaged can fail in any way at all
        raise CheckpointError(
            f"{path}: truncated or corrupt ({type(error).__name__}: {error})"
        ) from None


def _saved(header: Mapping[str, str], arrays: dict[str, np.ndarray]) -> Saved:
    """What header and arrays hold, after all checks. Raises UserError, or others for what is missing."""
    text, kind = header["tinysqueeze"], header["format"]
    if kind not in (FORMAT, FIRST):
        raise UserError(f"{kind}, of another version of tinysqueeze; this one reads {FORMAT}")
    meta = parse_json(text)
    notes: tuple[str, ...] = ()
    if kind == FIRST:
        notes = (
            "an earlier version's: its SHA-256 covers the parameters, not recipe, rate and counters",
        )
    else:
        meta["sha256"] = header["sha256"]
    if digest(arrays, None if kind == FIRST else text) != meta["sha256"]:
        raise UserError("corrupt, its contents do not match their SHA-256")
    metadata.check_arrays(arrays)
    model, recipe = metadata.network_of(meta), Recipe.from_dict(meta["recipe"])
    role = "average" if any(name.startswith("average/") for name in arrays) else "params"
    params = unflatten(_role(arrays, role))
    check_fit(model, params)
    meta["counters"] = metadata.counters_of(meta, recipe)
    meta["history"] = metadata.history_of(meta)
    if not isinstance(meta["extra"], dict):
        raise UserError("it does not say what it was trained on")
    classes = metadata.classes_of(meta, model.classes)
    return Saved(model, params, recipe, metadata.normalise_of(meta), classes, meta, arrays, notes)


def is_checkpoint(source: str | os.PathLike[str]) -> bool:
    """Whether this is a run's folder, or a safetensors file whose header says that we saved it."""
    path = Path(source)
    if path.is_dir():
        return True
    if path.suffix != ".safetensors" or not path.is_file():
        return False
    with open(path, "rb") as file:
        size = int.from_bytes(file.read(8), "little")
        return ANY.encode() in file.read(min(size, 2**24))


def resume(
    saved: Saved,
    threads: int | None = None,
    ranks: int = 1,
    make_engine: EngineMaker = compiled_engine,
    teacher: Teacher | None = None,
) -> Training:
    """The training as it was when it was saved, ready to go on."""
    recipe = saved.recipe
    check_taught(recipe, teacher)
    params = unflatten(_role(saved.arrays, "params"))
    check_fit(saved.model, params)
    spec = EngineSpec(saved.model, recipe.share(ranks), params, threads, recipe.precision)
    engine = make_engine(spec)
    slots = recipe.optimiser.start(engine.vector)
    average = np.zeros_like(engine.vector) if recipe.average else None
    for role, vector in (slots if average is None else {**slots, "average": average}).items():
        found = _role(saved.arrays, role)
        for place, view in flatten(engine.views(vector)).items():
            if place not in found or found[place].shape != view.shape:
                raise CheckpointError(f"the checkpoint lacks {role}/{place} of shape {view.shape}")
            view[...] = found[place]
    counters = {name: saved.meta["counters"][name] for name in COUNTERS}
    losses, order = (saved.arrays.get(f"images/{name}") for name in PER_IMAGE)
    history = list(saved.meta["history"])
    return Training(
        engine, recipe, saved.normalise, saved.classes, slots, average, losses, order,
        history=history, teacher=teacher, **counters,
    )  # fmt: skip


def as_teacher(
    saved: Saved,
    pupil: Model,
    classes: tuple[str, ...],
    threads: int | None = None,
    make_engine: EngineMaker = compiled_engine,
) -> Teacher:
    """A run's network, to teach `pupil` these classes. Raises UserError where it knows others."""
    if (saved.model.input_shape, saved.classes) != (pupil.input_shape, classes):
        raise UserError(
            f"the teacher knows images {saved.model.input_shape} of {', '.join(saved.classes[:3])}, ..., its "
            f"pupil {pupil.input_shape} of {', '.join(classes[:3])}, ...: take one of the same data"
        )
    spec = EngineSpec(saved.model, TEACHER_BATCH, saved.params, threads, training=False)
    return Teacher(make_engine(spec), saved.normalise)


def versions() -> dict[str, str]:
    """What the run was made with."""
    import numba

    return {
        "tinysqueeze": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "numba": numba.__version__,
    }


def digest(arrays: Mapping[str, np.ndarray], text: str | None) -> str:
    """SHA-256 over names, shapes and contents, in the order of the names, and over the text."""
    sha = hashlib.sha256()
    for name in sorted(arrays):
        sha.update(f"{name}{arrays[name].shape}{arrays[name].dtype}".encode())
        sha.update(np.ascontiguousarray(arrays[name]).data)
    if text is not None:
        sha.update(f"{FORMAT}\n{text}".encode())
    return sha.hexdigest()


def _file(path: str | Path) -> Path:
    path = Path(path)
    return path if path.suffix == ".safetensors" else path / NAME


def _role(arrays: Mapping[str, np.ndarray], role: str) -> dict[str, np.ndarray]:
    """The arrays of one role, by path."""
    return {n.removeprefix(f"{role}/"): a for n, a in arrays.items() if n.startswith(f"{role}/")}
