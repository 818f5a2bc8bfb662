"""What recipes reached: run folders become rows of a small CSV file, rows a table with spreads."""

import io
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from statistics import mean, stdev
from typing import Annotated, Any, TypeVar
from zipfile import ZipFile

import numpy as np

from tinysqueeze.errors import FormatError, UserError
from tinysqueeze.files import content, parse_json, reason, write_atomically
from tinysqueeze.labels import check_labels
from tinysqueeze.network.ops.reference import softmax
from tinysqueeze.ranges import Range, Share, checked, hints_of, plain_type
from tinysqueeze.training.run_folder import read_csv, write_csv
from tinysqueeze.training.scores import worst_mistakes

T = TypeVar("T")
Count = Annotated[int, Range(1, 10**15)]


@dataclass(frozen=True)
class Result:
    """One training: which recipe, run by which engine, and what it took and reached.

    `minutes` are of wall time, loading and evaluation included, on a processor whose vectors hold
    `lanes` float32 numbers (16: AVX-512, 8: AVX2); accuracy (0 to 1) is on the test images;
    multiply-adds are those of one image forward.
    """

    recipe: str
    engine: str
    seed: Annotated[int, Range(0)]
    parameters: Count
    multiply_adds: Count
    epochs: Count
    lanes: Count
    minutes: Annotated[float, Range(0, 10**9)]
    accuracy: Share

    def __post_init__(self) -> None:
        """Raises UserError where a value is of another type or out of its range."""
        checked("result", hints_of(Result), vars(self))


def read_run(folder: str | Path) -> Result:
    """The result of a finished run folder of `tinysqueeze train`. Raises FormatError."""
    path = Path(folder) / "summary.json"
    try:
        summary: dict[str, Any] = parse_json(content(path))
    except FileNotFoundError:
        raise FormatError(
            f"{path}: not the summary of a finished run (no such file); `tinysqueeze train --resume "
            f"{folder}` goes on with one that was stopped"
        ) from None
    except (OSError, ValueError) as error:
        raise FormatError(f"{path}: not the summary of a finished run ({reason(error)})") from None
    try:
        return Result(
            recipe=summary["recipe_name"] or Path(folder).resolve().name,
            engine=summary["engine"],
            seed=summary["seed"],
            parameters=summary["parameters"],
            multiply_adds=summary["multiply_adds"],
            epochs=summary["recipe"]["epochs"],
            lanes=summary["lanes"],
            minutes=round(summary["wall_seconds"] / 60, 3),
            accuracy=summary["test_accuracy"],
        )
    except (TypeError, ValueError, OverflowError, UserError) as error:
        raise FormatError(f"{path}: not the summary of a finished run ({error})") from None
    except KeyError as error:
        raise FormatError(
            f"{path}: there is no {error} in it; it was written by an older version: train again"
        ) from None


def write_results(path: str | Path, results: Sequence[Result]) -> None:
    """A CSV file, a row a training, sorted. Raises UserError for two of one recipe, engine and seed."""
    found: dict[tuple[str, str, int], Result] = {}
    for result in results:
        key = (result.recipe, result.engine, result.seed)
        if found.setdefault(key, result) != result:
            raise UserError("two runs of recipe {}, engine {}, seed {}: give one".format(*key))
    columns = [f.name for f in fields(Result)]
    write_csv(Path(path), columns, (asdict(found[key]) for key in sorted(found)))


def read_results(path: str | Path) -> list[Result]:
    """The rows of such a file. Raises FormatError."""
    return read_table(path, Result, "results")


def read_table(path: str | Path, row: Callable[..., T], what: str) -> list[T]:
    """A CSV file with a column for each field of the dataclass `row`. Raises FormatError."""
    kinds = {name: plain_type(hint) for name, hint in hints_of(row).items()}
    try:
        return [row(**values) for values in read_csv(path, kinds)]
    except (OSError, KeyError, TypeError, ValueError, UserError) as error:
        raise FormatError(f"{path}: not a table of {what} ({error})") from None


@dataclass(frozen=True)
class Summary:
    """All seeds of one recipe on one engine and kind of processor, as `Result` has them.

    Minutes and accuracy are means; `spread` is the accuracy's standard deviation, NaN for one seed.
    """

    recipe: str
    engine: str
    seeds: int
    parameters: int
    multiply_adds: int
    lanes: int
    minutes: float
    accuracy: float
    spread: float


def summaries(results: Sequence[Result]) -> list[Summary]:
    """A line for each (recipe, engine, lanes), in the order in which they come."""
    groups: dict[tuple[str, str, int], list[Result]] = {}
    for result in results:
        groups.setdefault((result.recipe, result.engine, result.lanes), []).append(result)
    lines = []
    for (recipe, engine, lanes), runs in groups.items():
        scores = [run.accuracy for run in runs]
        spread = stdev(scores) if len(runs) > 1 else float("nan")
        sizes = runs[0].parameters, runs[0].multiply_adds
        minutes = mean(run.minutes for run in runs)
        lines.append(
            Summary(recipe, engine, len(runs), *sizes, lanes, minutes, mean(scores), spread)
        )
    return lines


def markdown(results: Sequence[Result]) -> str:
    """The table of the results page: ours, and the same recipe by PyTorch beside it where it was run."""
    lines = {(line.recipe, line.lanes, line.engine): line for line in summaries(results)}
    text = [
        "| recipe | parameters | multiply-adds | vectors | minutes | test accuracy "
        "| PyTorch: minutes | accuracy |",
        "|---|---:|---:|---|---:|---:|---:|---:|",
    ]
    for recipe, lanes in dict.fromkeys((recipe, lanes) for recipe, lanes, _ in lines):
        ours, theirs = (lines.get((recipe, lanes, engine)) for engine in ("compiled", "torch"))
        either = next(line for key, line in lines.items() if key[:2] == (recipe, lanes))
        cells = [recipe, f"{either.parameters:,}", f"{either.multiply_adds / 1e6:.1f} M"]
        cells.append(f"{32 * lanes} bits")
        for line in (ours, theirs):
            cells += [f"{line.minutes:.1f}", percent(line)] if line else ["–", "–"]
        text.append(f"| {' | '.join(cells)} |")
    return "\n".join(text)


def percent(line: Summary) -> str:
    """ "90.4 % ± 0.2 (3 seeds)"."""
    spread = f" ± {100 * line.spread:.2f}" if line.seeds > 1 else ""
    return f"{100 * line.accuracy:.2f} %{spread} ({line.seeds} seed{'s' * (line.seeds > 1)})"


@dataclass(frozen=True)
class Answers:
    """What one network said of all test images, small enough to keep beside the results.

    probabilities (N, classes) float64, labels (N,) int64; `worst` are the indices of the surest
    mistakes and `images` (len(worst), H, W, 3) uint8 those images alone.
    """

    probabilities: np.ndarray
    labels: np.ndarray
    classes: tuple[str, ...]
    worst: np.ndarray
    images: np.ndarray


MOST_IMAGES = 24
LARGEST_ANSWERS = 1 << 28  # bytes
KINDS = {"logits": np.float16, "labels": np.uint16, "worst": np.int32, "images": np.uint8}


def save_answers(
    path: str | Path,
    logits: np.ndarray,
    labels: np.ndarray,
    images: np.ndarray,
    classes: Sequence[str],
) -> None:
    """Write logits (in half precision), labels and the worst mistakes' images: a compressed .npz."""
    worst = worst_mistakes(softmax(logits.astype(float)), labels, MOST_IMAGES)
    file = io.BytesIO()
    np.savez_compressed(
        file, logits=logits.astype(np.float16), labels=labels.astype(np.uint16),
        classes=np.array(classes), worst=worst.astype(np.int32), images=images[worst],
    )  # fmt: skip
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    write_atomically(Path(path), file.getvalue())


def load_answers(path: str | Path) -> Answers:
    """Read them. Raises FormatError."""
    try:
        whole = content(path)
        with ZipFile(io.BytesIO(whole)) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > LARGEST_ANSWERS:
                raise ValueError("unpacks to more than answers are")
        with np.load(io.BytesIO(whole), allow_pickle=False) as file:
            logits, labels, worst, images = (
                np.asarray(file[name], kind) for name, kind in KINDS.items()
            )
            classes = tuple(map(str, file["classes"]))
        labels, worst = labels.astype(np.int64), worst.astype(np.int64)
        check_labels(labels, len(logits), len(classes))
        if logits.shape != (len(labels), len(classes)) or not np.isfinite(logits).all():
            raise ValueError("its logits are not those of its images and classes")
        if images.shape[1:] != (*images.shape[1:3], 3) or worst.shape != images.shape[:1]:
            raise ValueError("its images are not those of its worst mistakes")
        if worst.size and not 0 <= worst.min() <= worst.max() < len(labels):
            raise ValueError("its worst mistakes are of other images")
    except Exception as error:  # NumPy raises nearly anything where a header is damaged
        raise FormatError(
            f"{path}: not the answers of a network ({type(error).__name__}: {error})"
        ) from None
    return Answers(softmax(logits.astype(float)), labels, classes, worst, images)
