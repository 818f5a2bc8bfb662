"""The search for a size as a command runs it: with a bar, kept beside the file, stopped and gone on with."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from tinysqueeze.training.interruptible import interruptible
from tinysqueeze.weights.compression import kept
from tinysqueeze.weights.compression.fileformat import Compressed
from tinysqueeze.weights.compression.kept import Stopped, kept_at
from tinysqueeze.weights.compression.pipeline import Progress, check_finite
from tinysqueeze.weights.compression.sizing import Step, search
from tinysqueeze.weights.trained import WeightSet

SIZING = "sizing"
SAVE_EVERY = 20.0  # seconds: what a kill may cost at most, beside the layer under way
BAR = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}, about {remaining} left"


def searched(
    weights: WeightSet,
    target: int,
    images: NDArray[np.float32] | None,
    out: Path,
    coding: str,
    progress: bool,
    say: Progress,
) -> Compressed:
    """The best network in at most `target` bytes, to be written to `out`; `images` as for `search`.

    What is found stays at kept_at(out, SIZING), where a later call finds it: delete it once `out` is written.
    Raises what `search` does, UserError for what is kept of another search, and Stopped.
    """
    check_finite(weights)
    path = kept_at(out, SIZING)
    begun = kept.origin(weights, target, images, coding)
    sizing = kept.read(path, begun)
    if path.exists():
        say(f"going on with {path}")
    told = _taken(
        search(weights, target, images, sizing, coding),
        lambda: kept.save(path, sizing, begun),
        progress,
    )
    if told:
        raise Stopped(told, path)
    assert sizing.best is not None
    return sizing.best


def _taken(steps: Iterator[Step], save: Callable[[], None], progress: bool) -> int:
    """Take all the steps, with a bar; saved now and then, before it stops, and at the end.

    Returns the signal that stopped it, or 0.
    """
    saved_at = time.perf_counter()
    with (
        interruptible() as interrupt,
        tqdm(total=1.0, bar_format=BAR, smoothing=0, disable=None if progress else True) as bar,
    ):
        for step in steps:
            bar.set_description_str(step.what, refresh=False)
            bar.update(step.share - bar.n)
            if interrupt.by or time.perf_counter() - saved_at > SAVE_EVERY:
                save()
                saved_at = time.perf_counter()
            if interrupt.by:
                return interrupt.by
        bar.update(1 - bar.n)
    save()
    return 0
