"""The names of classes: from a list, from Keras's index of ImageNet, or downloaded once."""

import os
import re
from pathlib import Path

from tinysqueeze.data.download import fetch
from tinysqueeze.errors import DataError, FormatError
from tinysqueeze.files import content, parse_json
from tinysqueeze.weights.sources import CLASS_INDEX
from tinysqueeze.weights.trained import WeightSet

WNID = re.compile(r"n\d{8}")
LISTS = ("imagenet_classes.txt", "synset_words.txt", CLASS_INDEX.name)


def read_class_names(
    path: str | os.PathLike[str], number: int | None = None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(names, wnids) in index order; `wnids` is empty where the list has none.

    Takes a line a class, "n01440764 tench" (Caffe's synset_words.txt) or just "tench", or Keras's
    JSON {"0": ["n01440764", "tench"]}. Raises FormatError, also where there are not as many as the
    `number` of a network's classes, or DataError if there is no such file.
    """
    try:
        text = content(path).decode()
        if text.lstrip().startswith("{"):
            index = parse_json(text)
            rows = [index[str(i)] for i in range(len(index))]
            pairs = [(str(wnid), str(name)) for wnid, name in rows]
        else:
            pairs = [_pair(line) for line in text.splitlines() if line.strip()]
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, KeyError, TypeError) as error:
        raise FormatError(f"{path}: not a list of class names ({error})") from error
    if not pairs:
        raise FormatError(f"{path}: not a list of class names (it is empty)")
    if number not in (None, len(pairs)):
        raise FormatError(
            f"{path}: {len(pairs)} class names for {number} classes: give a line for each, in order"
        )
    names = tuple(name.replace("_", " ") for _, name in pairs)
    wnids = tuple(wnid for wnid, _ in pairs)
    return names, (wnids if all(wnids) else ())


def _pair(line: str) -> tuple[str, str]:
    """Split a line: "n01440764 tench" into its two parts, "tench" into ("", "tench")."""
    first, _, rest = line.strip().partition(" ")
    return (first, rest) if WNID.fullmatch(first) else ("", line.strip())


def named(
    weights: WeightSet,
    classes: str | os.PathLike[str] | None = None,
    beside: str | os.PathLike[str] | None = None,
    download: bool = True,
) -> WeightSet:
    """The weight set with the names of its classes, if they can be found.

    Looks at `classes` (a list given by the user), then at what the weights carry, then, for 1,000
    classes, for one of LISTS in the folder of the file `beside`, and at last in the cache or on the
    network. Where nothing is found the classes stay numbers and a note says how to name them.
    """
    if classes is not None:
        return weights.with_classes(*read_class_names(classes, weights.model.classes))
    if weights.classes:
        return weights
    if weights.model.classes != 1000:
        return weights.with_notes(
            "the classes have no names: give --classes FILE, a line each, in order"
        )
    folder = Path(beside or ".").parent
    lists = [folder / name for name in LISTS if beside and (folder / name).is_file()]
    try:
        if not lists and not download:
            raise DataError("no list of class names here")
        found = lists[0] if lists else fetch(CLASS_INDEX)
        return weights.with_classes(*read_class_names(found, weights.model.classes))
    except (DataError, FormatError) as error:  # a list that lies there stops nobody
        return weights.with_notes(f"the classes have no names: {error}; or give --classes FILE")
