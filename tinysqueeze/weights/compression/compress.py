"""Trained weights into a small file, by one call: without loss, as in the paper, or to a size."""

import os
from pathlib import Path

from tinysqueeze.errors import UserError
from tinysqueeze.files import check_writable
from tinysqueeze.weights.calibration import Pictures, calibration_images
from tinysqueeze.weights.compression import fileformat, pipeline
from tinysqueeze.weights.compression.deep_compression import deep_compression_tensors
from tinysqueeze.weights.compression.fileformat import Compressed
from tinysqueeze.weights.compression.from_run import PRUNED, Request, compress_run, kept_at
from tinysqueeze.weights.compression.pipeline import Progress
from tinysqueeze.weights.opening import Source, Weights, open_weights, source_file
from tinysqueeze.weights.preprocess import Preprocess
from tinysqueeze.weights.trained import WeightSet

IMAGENET = 1000  # classes, whose names every reader finds without the file
ENOUGH = 100  # photographs to calibrate with


def compress(
    weights: Weights,
    path: str | os.PathLike[str],
    *,
    target_kb: float | None = None,
    photos: Pictures | None = None,
    bits: int | None = None,
    prune: float | None = None,
    retrain: int | None = None,
    finetune: int = 2,
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
    photos      photographs, without labels, to calibrate that with: files, folders, images or arrays (at
                most ENOUGH of them, evenly chosen); it becomes much better
    bits        the paper's way: 2**bits values a layer, shared by k-means
    prune       with bits: first set this share (0 to 1) of each layer to zero
    retrain     for a run folder: prune, train for so many epochs, share, fine-tune the shared values for
                `finetune` epochs; on `data` (otherwise as trained) and `threads` (otherwise all); `prune`
                is then of all layers together (otherwise 0.7) and `bits` are chosen, unless given
    coding      "ans", or "huffman", the paper's with relative indices
    classes     a file with the classes' names (otherwise those of the weights; ImageNet's are left out,
                since every reader finds them)
    preprocess  how images are prepared (otherwise as the weights say: `open_weights`)
    progress    whether bars show it; `say` hears of every stage

    Raises UserError where options don't go together, a size can't be reached or the file not written,
    `from_run.Stopped` after Ctrl-C while retraining (the same call goes on), and what `open_weights` does.
    """
    _check(target_kb, photos, bits, prune, retrain, coding)
    out = Path(path)
    check_writable(out)
    if retrain is None:
        known = open_weights(weights, classes, preprocess=preprocess)
        say(str(known))
        if classes is None:
            known = without_imagenets(known)
        found = _compressed(weights, known, target_kb, photos, bits, prune, progress, say)
        return fileformat.write(out, found, coding)
    if preprocess is not None:
        raise UserError("a run folder knows how its images are prepared: leave out preprocess")
    if not isinstance(weights, str | os.PathLike):
        raise UserError("retraining needs a run folder: train with out=, and give that")
    share = PRUNED if prune is None else prune
    found = compress_run(
        Request(weights, out, retrain, share, bits, finetune, data, coding, threads, progress, say)
    )
    size = fileformat.write(out, found, coding)
    kept_at(out).unlink(missing_ok=True)
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
    coding: str,
) -> None:
    """Raises UserError for options that don't go together."""
    if target_kb is not None and (bits is not None or prune is not None):
        raise UserError("a target size chooses bits and pruning itself: leave out bits and prune")
    if target_kb is not None and retrain is not None:
        raise UserError("retraining shares weights by bits: leave out the target size")
    if prune is not None and bits is None and retrain is None:
        raise UserError("prune needs bits: how many are to be left of what is not pruned?")
    if photos is not None and target_kb is None:
        raise UserError("photos need a target size, to which the network is calibrated")
    if coding not in fileformat.CODINGS:
        raise UserError(f"coding is {' or '.join(fileformat.CODINGS)}, not {coding!r}")


def _compressed(
    source: Weights,
    weights: WeightSet,
    target_kb: float | None,
    photos: Pictures | None,
    bits: int | None,
    prune: float | None,
    progress: bool,
    say: Progress,
) -> Compressed:
    if target_kb is not None:
        known = None if photos is None else calibration_images(weights, photos, ENOUGH, progress)
        return pipeline.to_size(weights, int(target_kb * 1000), known, say)
    if bits is not None:
        return pipeline.shared(weights, bits, prune or 0.0)
    return _recoded(source, weights)


def _recoded(source: Weights, weights: WeightSet) -> Compressed:
    """Without loss; of the authors' file also the order of its codebooks, to write it again."""
    if isinstance(source, str | os.PathLike) and (file := source_file(source)).suffix == ".net":
        return pipeline.pack(weights, deep_compression_tensors(file.read_bytes(), weights.model))
    return pipeline.lossless(weights)
