"""`tinysqueeze predict`: what is in these pictures?"""

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

from tqdm.auto import tqdm

from tinysqueeze.cli import values
from tinysqueeze.cli.compiling import compile_kernels
from tinysqueeze.cli.options import option
from tinysqueeze.cli.weights import add_weights, find_weights
from tinysqueeze.data.images import look
from tinysqueeze.errors import DataError
from tinysqueeze.files import PICTURES, check_writable
from tinysqueeze.weights import Prediction, Skipped, WeightSet, classify, plan_for

SHEET = 40  # pictures on a sheet at most, whatever the number predicted
SOME_SKIPPED = 3  # the exit status where not every file could be read


def configure(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    parser.description = (
        "What is in these pictures? Takes files and whole folders, in any format that Pillow opens. "
        f"The exit status is {SOME_SKIPPED} where some could not be read and were skipped."
    )
    parser.add_argument("images", nargs="+", metavar="IMAGE|FOLDER", help="pictures, or folders")
    add_weights(parser)
    add = partial(option, parser)
    add("--top K", "how many classes to name", values.whole(), 5)
    add("--json", "print a JSON object a line")
    add("--out SHEET.png", f"draw the first {SHEET} with their classes", Path)
    add(
        "--int8 IMAGES",
        "in 8-bit integers, about twice as fast; calibrated on this picture, folder, or dataset",
    )
    add("--batch-size N", "images at once", values.images, 16)


def run(args: argparse.Namespace) -> int:
    """Print the likeliest classes of every picture."""
    if args.out:
        check_writable(args.out, PICTURES)
    weights = find_weights(args.weights, args.classes, args.preprocess)
    top = min(args.top, weights.model.classes)
    found = look(args.images)
    paths = found.pictures
    for note in found.left_out:
        print(note, file=sys.stderr)
    if not paths:
        raise DataError(f"no pictures in {', '.join(args.images)}")
    compile_kernels()
    shown: list[Prediction] = []
    read = 0
    plan = plan_for(weights, args.batch_size, int8=args.int8)
    results = classify(weights, paths, args.batch_size, plan)
    for result in _with_progress(results, len(paths)):
        if args.json:
            tqdm.write(json.dumps(_record(result, weights, top)), file=sys.stdout)
        if isinstance(result, Skipped):
            tqdm.write(f"skipped {result.path}: {result.reason}", file=sys.stderr)
            continue
        read += 1
        if args.out and len(shown) < SHEET:
            shown.append(result)
        if not args.json:
            tqdm.write(_table(result, top), file=sys.stdout)
    if not read:
        raise DataError(f"none of the {len(paths)} files could be read as a picture")
    if args.out:
        _draw(shown, args.out, top)
    if read < len(paths):
        print(f"{len(paths) - read} of {len(paths)} files were skipped", file=sys.stderr)
    return SOME_SKIPPED if read < len(paths) else 0


def _with_progress(
    results: Iterable[Prediction | Skipped], total: int
) -> Iterator[Prediction | Skipped]:
    """A bar on a terminal, for more than a handful."""
    hidden = None if total > 16 else True
    return iter(tqdm(results, total=total, unit=" images", disable=hidden, smoothing=0.05))


def _table(result: Prediction, top: int) -> str:
    guesses = result.best(top)
    if top == 1:
        return f"{guesses[0].probability:6.1%}  {guesses[0].name}  {result.path}"
    rows = [f"  {guess.probability:6.1%}  {guess.name}" for guess in guesses]
    return "\n".join([str(result.path), *rows])


def _record(result: Prediction | Skipped, weights: WeightSet, top: int) -> dict[str, object]:
    if isinstance(result, Skipped):
        return {"image": str(result.path), "error": result.reason}
    wnids = weights.wnids
    best = [
        {
            "class": guess.index,
            "name": guess.name,
            **({"wnid": wnids[guess.index]} if wnids else {}),
            "probability": round(guess.probability, 6),
            "score": round(guess.score, 5),
        }
        for guess in result.best(top)
    ]
    return {"image": str(result.path), "top": best}


def _draw(shown: list[Prediction], out: Path, top: int) -> None:
    from tinysqueeze.show.inside import prediction_sheet  # matplotlib, which only the sheet needs

    prediction_sheet(shown, top).save(str(out))
    print(f"{out}: {len(shown)} pictures", file=sys.stderr)
