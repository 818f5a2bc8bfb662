"""`tinysqueeze evaluate WEIGHTS --data FOLDER`, where the weights are others' and so is the folder."""

import argparse
import json
import sys
import time

from tqdm.auto import tqdm

from tinysqueeze.cli.compiling import compile_kernels
from tinysqueeze.cli.weights import find_weights
from tinysqueeze.errors import UserError
from tinysqueeze.training.engine import Predicts
from tinysqueeze.weights import (
    FolderScore,
    WeightSet,
    evaluate_folder,
    labels_under,
    plan_for,
    read_map,
)
from tinysqueeze.weights.labelled import Named

SOME_SKIPPED = 3  # the exit status where not every file could be read, as in `predict`
LARGEST_BATCH = 32  # photographs are large, and more at once are no faster


def evaluate(args: argparse.Namespace) -> int:
    """Top-1 and top-5 on labelled photographs of any size, a batch in memory at a time."""
    weights = find_weights(str(args.weights), args.classes, args.preprocess)
    named = read_map(args.map) if args.map else None
    if not args.data:
        raise UserError(
            "--data FOLDER is needed: photographs in a folder a class, or named by wnid"
        )
    if args.int8 == "":
        raise UserError(
            "--int8 FOLDER: say which photographs to calibrate on; no labels are needed"
        )
    total = len(labels_under(args.data, weights, named))
    compile_kernels()
    batch = min(args.batch_size, LARGEST_BATCH)
    score, speed = _score(
        args.data, weights, batch, plan_for(weights, batch, args.threads), total, named
    )
    for note in score.notes:
        print(note, file=sys.stderr)
    for skipped in score.skipped:
        print(f"skipped {skipped.path}: {skipped.reason}", file=sys.stderr)
    found = {
        "model": weights.model.name,
        "data": str(args.data),
        "images": score.images,
        "skipped": len(score.skipped),
        "top1": score.top1,
        "top5": score.top5,
        "images_per_second": speed,
    }
    line = (
        f"{weights.model.name} on {args.data}: top-1 {score.top1:.2%}, top-5 {score.top5:.2%} "
        f"({score.images:,} images, {speed:.0f} a second)"
    )
    if args.int8:
        plan = plan_for(weights, batch, args.threads, args.int8)
        integers, speed = _score(args.data, weights, batch, plan, total, named)
        found["int8"] = {
            "top1": integers.top1,
            "top5": integers.top5,
            "images_per_second": speed,
        }
        line += (
            f"\nin 8-bit integers: top-1 {integers.top1:.2%}, top-5 {integers.top5:.2%} "
            f"({speed:.0f} a second)"
        )
    print(json.dumps(found) if args.json else line)
    return SOME_SKIPPED if score.skipped else 0


def _score(
    folder: str, weights: WeightSet, batch: int, plan: Predicts, total: int, named: Named | None
) -> tuple[FolderScore, float]:
    """The score of a folder, and images a second."""
    score, started = FolderScore(), time.perf_counter()
    results = evaluate_folder(weights, folder, batch, plan, named)
    for so_far in tqdm(results, total=total, unit=" images", disable=None, smoothing=0.05):
        score = so_far
    return score, score.images / (time.perf_counter() - started)
