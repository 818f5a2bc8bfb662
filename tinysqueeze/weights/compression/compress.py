"""Trained weights into a small file, by one call: without loss, as in the paper, or to a size."""

import os
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from tinysqueeze.errors import UserError
from tinysqueeze.files import check_writable
from tinysqueeze.ranges import Range, checked
from tinysqueeze.weights.calibration import Pictures, calibration_images
from tinysqueeze.weights.compression import fileformat, pipeline
from tinysqueeze.weights.compression.deep_compression import deep_compression_tensors
from tinysqueeze.weights.compression.fileformat import Compressed
from tinysqueeze.weights.compression.from_run import (
    FINETUNED,
    PRUNED,
    RETRAINING,
    Request,
    compress_run,
)
from tinysqueeze.weights.compression.judging import Labelled, halves, judge
from tinysqueeze.weights.compression.kept import kept_at
from tinysqueeze.weights.compression.pipeline import Progress
from tinysqueeze.weights.compression.run_to_size import compress_run_to_size
from tinysqueeze.weights.compression.searching import SIZING, searched
from tinysqueeze.weights.opening import Source, Weights, open_weights, source_file
from tinysqueeze.weights.preprocess import Preprocess
from tinysqueeze.weights.trained import WeightSet

IMAGENET = 1000  # classes, whose names every reader finds without the file
ENOUGH = 100  # photographs to calibrate with
NUMBERS = {
    "bits": int | None, "prune": float | None, "retrain": int | None,
    "target_kb": Annotated[float, Range(0, 1e9)] | None,
}  # fmt: skip


def compress(
    weights: Weights,
    path: str | os.PathLike[str],
    *,
    target_kb: float | None = None,
    photos: Pictures | None = None,
    bits: int | None = None,
    prune: float | None = None,
    retrain: int | None = None,
    finetune: int | None = None,
    data: str | None = None,
    threads: int | None = None,
    coding: str = "ans",
    classes: Source | None = None,
    preprocess: Preprocess | Source | None = None,
    progress: bool = True,
    say: Progress = lambda line: None,
) -> int:
    """Write a .tsq file, as `tinysqueeze compress` does; returns its bytes. `open_weights` reads it.

    weights     whatever `open_weights` takes: a file, a run folder, a finished training, (model, params)
    path        the file to write, whole or not at all
    target_kb   the best network in at most target_kb * 1,000 bytes (without it or bits no weight changes)
    photos      photographs to calibrate that with, which makes it much better: files, folders, images or
                arrays, or a dataset (`calibration.dataset_of`). No labels are needed. Half of them, at most
                ENOUGH, are used so; by the others, every second one, it is judged, which `say` hears: how
                often the best class is as before, and how often it is right where names say what is in a
                picture
    bits        the paper's way: 2**bits values a layer, shared by k-means
    prune       with bits: first set this share (0 to 1) of each layer to zero
    retrain     for a run folder: prune, train for so many epochs, share, fine-tune the shared values for
                `finetune` epochs (otherwise 2); on `data` (otherwise as trained) and `threads` (otherwise
                all); `prune` is then of all layers together (otherwise 0.7) and `bits` are chosen, unless
                given. With target_kb: calibrate with training images, then train for so many epochs through
                the rounding, taught by the network as it was; `say` hears how well each does on images that
                neither has seen
    coding      "ans", or "huffman", the paper's with relative indices
    classes     a file with the classes' names (otherwise those of the weights; ImageNet's are left out,
                since every reader finds them)
    preprocess  how images are prepared (otherwise as the weights say: `open_weights`)
    progress    whether bars show it; `say` hears of every stage

    Raises UserError where options don't go together, a size can't be reached or the file not written,
    `kept.Stopped` after Ctrl-C or a kill while retraining or looking for a size (the same call goes on), and
    what `open_weights` does.
    """
    _check(target_kb, photos, bits, prune, retrain, finetune, coding)
    target = None if target_kb is None else int(target_kb * 1000)
    out = Path(path)
    check_writable(out, (".tsq",))  # by its name it is read again
    if retrain is None:
        known = open_weights(weights, classes, preprocess=preprocess)
        say(str(known))
        stored = without_imagenets(known) if classes is None else known
        if target is not None:
            return _to_size(known, stored, out, target, photos, coding, progress, say)
        found = (
            pipeline.shared(stored, bits, prune or 0.0)
            if bits is not None
            else _recoded(weights, stored)
        )
        return fileformat.write(out, found, coding)
    if preprocess is not None:
        raise UserError("a run folder knows how its images are prepared: leave out preprocess")
    if not isinstance(weights, str | os.PathLike):
        raise UserError("retraining needs a run folder: train with out=, and give that")
    asked = Request(
        weights, out, retrain, PRUNED if prune is None else prune, bits,
        FINETUNED if finetune is None else finetune, data, coding, threads, progress, say,
    )  # fmt: skip
    found = compress_run(asked) if target is None else compress_run_to_size(asked, target)
    size = fileformat.write(out, found, coding)
    for doing in (RETRAINING,) if target is None else (RETRAINING, SIZING):
        kept_at(out, doing).unlink(missing_ok=True)
    return size


def without_imagenets(weights: WeightSet) -> WeightSet:
    """Without the names of ImageNet's classes: 10 kB that every reader has."""
    imagenet = weights.model.classes == IMAGENET and weights.wnids
    return weights.with_classes(()) if imagenet else weights


def as_file(source: Weights, weights: WeightSet) -> bytes:
    """The bytes of a .tsq file: of one as they are, of any other weights without loss.

    `weights` are what `open_weights` made of `source`.
    """
    if isinstance(source, str | os.PathLike) and Path(source).suffix.lower() == fileformat.SUFFIX:
        return Path(source).read_bytes()
    return fileformat.to_bytes(_recoded(source, without_imagenets(weights)))


def _check(
    target_kb: float | None,
    photos: Pictures | None,
    bits: int | None,
    prune: float | None,
    retrain: int | None,
    finetune: int | None,
    coding: str,
) -> None:
    """Raises UserError for options that don't go together, or are no numbers."""
    given = {"bits": bits, "prune": prune, "retrain": retrain, "target_kb": target_kb}
    checked("compress", NUMBERS, given)
    if target_kb is not None and (bits is not None or prune is not None):
        raise UserError("a target size chooses bits and pruning itself: leave out bits and prune")
    if photos is not None and retrain is not None:
        raise UserError(
            "retraining calibrates with the images it trains with, and is judged by others: leave out photos"
        )
    if finetune is not None and (retrain is None or target_kb is not None):
        raise UserError(
            "finetune is for values shared after pruning and retraining: leave it out, or say retrain and no "
            "target size"
        )
    if prune is not None and bits is None and retrain is None:
        raise UserError("prune needs bits: how many are to be left of what is not pruned?")
    if photos is not None and target_kb is None:
        raise UserError("photos need a target size, to which the network is calibrated")
    if coding not in fileformat.CODINGS:
        raise UserError(f"coding is {' or '.join(fileformat.CODINGS)}, not {coding!r}")


def _to_size(
    known: WeightSet,
    stored: WeightSet,
    out: Path,
    target: int,
    photos: Pictures | None,
    coding: str,
    progress: bool,
    say: Progress,
) -> int:
    """Find the best network of a size, write it, and judge it by the photographs left out."""
    images: NDArray[np.float32] | None = None
    others: list[Labelled] = []
    if photos is not None:
        chosen, others = halves(known, photos)
        images = calibration_images(known, chosen, ENOUGH, progress)
    found = searched(stored, target, images, out, coding, progress, say)
    size = fileformat.write(out, found, coding)
    kept_at(out, SIZING).unlink(missing_ok=True)
    if images is not None:
        _judged(known, pipeline.unpack(found), images, others, progress, say)
    return size


def _judged(
    before: WeightSet,
    after: WeightSet,
    images: NDArray[np.float32],
    others: list[Labelled],
    progress: bool,
    say: Progress,
) -> None:
    """Say how it does on what it was not calibrated with."""
    if not others:
        say("calibrated with the only picture: none is left to judge it by")
        return
    hidden = None if progress else True
    with tqdm(total=len(others), desc="judging", unit="", leave=False, disable=hidden) as bar:
        found = judge(before, after, others, images, bar.update)
    say(f"calibrated with {len(images):,} pictures, judged by {found.images:,} others:")
    for line in found.lines():
        say(f"  {line}")


def _recoded(source: Weights, weights: WeightSet) -> Compressed:
    """Without loss; of the authors' file also the order of its codebooks, to write it again."""
    if isinstance(source, str | os.PathLike) and (file := source_file(source)).suffix == ".net":
        return pipeline.pack(weights, deep_compression_tensors(file.read_bytes(), weights.model))
    return pipeline.lossless(weights)
