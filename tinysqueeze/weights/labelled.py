"""Folders of labelled photographs: which folder is which class, and how often the network says so.

Classes are matched by name, in upper or lower case, or by WordNet id; never by their order.
"""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from tinysqueeze.data import Dataset
from tinysqueeze.data.folders import labelled, tested_part
from tinysqueeze.data.images import told
from tinysqueeze.errors import DataError, FormatError
from tinysqueeze.files import content, parse_json
from tinysqueeze.weights.class_names import WNID
from tinysqueeze.weights.classify import BATCH, Predicts, Skipped, classify
from tinysqueeze.weights.trained import WeightSet

Named = Mapping[
    str, str | int | None
]  # a folder's name -> the class's name, wnid or number, or none
SOME = 5  # names in a message


@dataclass(frozen=True)
class Classes:
    """What a network's classes are called: `count` of them, by name and by wnid where known."""

    count: int
    names: tuple[str, ...] = ()
    wnids: tuple[str, ...] = ()

    @classmethod
    def of(cls, weights: WeightSet) -> "Classes":
        """Those of a weight set."""
        return cls(weights.model.classes, weights.classes, weights.wnids)

    def numbers(self, names: Iterable[str], named: Named | None = None) -> dict[str, int | None]:
        """The number of each of these names; None where `named` says that it is no class.

        Raises DataError that lists the names which are no class's, or of which two are.
        """
        index, named = self._index, named or {}
        found = {name: self._number(named.get(name, name), index) for name in names}
        unknown = [name for name, number in found.items() if number == -1]
        if not unknown:
            return found
        known = _listed(self.names) or f"{self.count:,} without names, 0 to {self.count - 1}"
        remedy = "" if self.names else "--classes FILE names them, a line each, in order; or "
        example = json.dumps({unknown[0]: self.names[0] if self.names else 0})
        raise DataError(
            f"no class is called {_listed(unknown)}; there are {known}. {remedy}--map FILE says which is "
            f"which: JSON, as {example}, null for what is to be left out"
        )

    def number(self, folder: str, file: str) -> int | None:
        """The class of a picture, by its folder's name or the wnid that its own starts with; else None."""
        index, start = self._index, WNID.match(file)
        found = self._number(folder, index)
        return index.get(start[0]) if start and found == -1 else None if found == -1 else found

    @cached_property
    def _index(self) -> dict[str, int]:
        """Name or wnid of a class -> its number; a name that two classes share names neither."""
        plain = [_plain(name) for name in self.names]
        first = [name.partition(",")[0] for name in plain]  # of "tench, Tinca tinca"
        index = {name: i for i, name in enumerate(first) if first.count(name) == 1}
        index |= {name: i for i, name in enumerate(plain) if plain.count(name) == 1}
        return index | {wnid: i for i, wnid in enumerate(self.wnids)}

    def _number(self, name: str | int | None, index: Mapping[str, int]) -> int | None:
        """-1 where it is no class."""
        if name is None:
            return None
        if isinstance(name, int):
            return name if 0 <= name < self.count else -1
        start = WNID.match(name)
        if start and start[0] in index:
            return index[start[0]]
        number = _plain(name).removeprefix("class ")
        if not self.names and number.isdecimal() and len(number) < 10:
            return self._number(int(number), index)
        return index.get(_plain(name), -1)


def _plain(name: str) -> str:
    return " ".join(name.casefold().replace("_", " ").split())


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    return ", ".join(names[:SOME]) + (", ..." if len(names) > SOME else "")


def read_map(path: str | os.PathLike[str]) -> dict[str, str | int | None]:
    """Which folder is which class: JSON, {"Rouge": "red", "chats": 3, "other": null}.

    Raises FormatError, or DataError if there is no such file.
    """
    try:
        found = parse_json(content(path))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise FormatError(f"{path}: not JSON ({error})") from error
    if not isinstance(found, dict) or any(
        isinstance(value, bool) or not isinstance(value, str | int | None)
        for value in found.values()
    ):
        raise FormatError(
            f'{path}: expected names of folders and of classes, as {{"Rouge": "red"}}'
        )
    return found


def matched(dataset: Dataset, classes: Classes, named: Named | None = None) -> Dataset:
    """The dataset with a network's classes and their numbers, matched by name.

    Images of classes that `named` leaves out are left out. Raises DataError where a name is no class's.
    """
    numbers = classes.numbers(dataset.classes, named)
    kept = [i for i, name in enumerate(dataset.classes) if numbers[name] is not None]
    new = np.array([numbers[name] or 0 for name in dataset.classes], np.int64)
    images = np.isin(dataset.labels, kept)
    names = classes.names or tuple(f"class {i}" for i in range(classes.count))
    left_out = (f"{(~images).sum():,} images of classes that are left out",) * (not images.all())
    return Dataset(
        dataset.images if images.all() else dataset.images[images],
        new[dataset.labels[images]],
        names,
        dataset.name,
        (*dataset.notes, *left_out),
    )


# --- photographs of any size ---------------------------------------------------------------------


@dataclass
class FolderScore:
    """How often the label was the best class, and among the best five; what was left out."""

    images: int = 0
    first: int = 0
    among_five: int = 0
    skipped: list[Skipped] = field(default_factory=list)
    notes: tuple[str, ...] = ()

    @property
    def top1(self) -> float:
        """Share of the images that could be read, 0 to 1."""
        return self.first / max(self.images, 1)

    @property
    def top5(self) -> float:
        """The same for the best five."""
        return self.among_five / max(self.images, 1)


def evaluate_folder(
    weights: WeightSet,
    folder: str | os.PathLike[str],
    batch: int = BATCH,
    plan: Predicts | None = None,
    named: Named | None = None,
) -> Iterator[FolderScore]:
    """Top-1 and top-5 of the labelled images under `folder`; yields the score so far at each image.

    The label of an image is the name of its sub-folder, which is a class's name or wnid, or what `named`
    says of it, or else the wnid that its own name starts with ("n01440764_tench.JPEG"). Of a folder
    with the parts `train` and `test` the latter is taken. Where classes have no names, folders are
    called by number. Raises DataError where an image has no label, or there is none.
    """
    labels, notes = _labels(folder, weights, named)
    score = FolderScore(notes=notes)
    for result in classify(weights, labels, batch, plan):
        if isinstance(result, Skipped):
            score.skipped.append(result)
        else:
            assert result.path is not None
            best = [guess.index for guess in result.best(5)]
            score.images += 1
            score.first += best[0] == labels[result.path]
            score.among_five += labels[result.path] in best
        yield score


def labels_under(
    folder: str | os.PathLike[str], weights: WeightSet, named: Named | None = None
) -> dict[Path, int]:
    """Every image under a folder with its class, by the rules of `evaluate_folder`."""
    return _labels(folder, weights, named)[0]


def _labels(
    folder: str | os.PathLike[str], weights: WeightSet, named: Named | None
) -> tuple[dict[Path, int], tuple[str, ...]]:
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder}: there is no such folder")
    found = labelled(tested_part(folder))
    if not found.classes and not found.loose:
        raise DataError(f"{folder}: no images in it" + "".join(f"; {note}" for note in found.notes))
    starts = {path: WNID.match(path.name) for path in found.loose}
    unlabelled = [path for path, start in starts.items() if not start]
    if unlabelled:
        raise DataError(
            f"{unlabelled[0]}: its class is not known; expected a sub-folder for each class, or a wnid "
            "at the start of the name"
        )
    names = {path: name for name, paths in found.classes.items() for path in paths}
    names |= {path: start[0] for path, start in starts.items() if start}
    classes = Classes.of(weights)
    try:
        numbers = classes.numbers(dict.fromkeys(names.values()), named)
    except DataError as error:
        raise DataError(f"{folder}: {error}") from None
    left_out = [path for path, name in names.items() if numbers[name] is None]
    notes = (*told("of classes that are left out", left_out), *found.notes)
    labels = {path: n for path, name in names.items() if (n := numbers[name]) is not None}
    return labels, notes
