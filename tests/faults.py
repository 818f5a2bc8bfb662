"""Faults to plant, a line each: the tests must catch every one of them.

    python tests/faults.py                  # all, one after the other; a table of who caught what
    python tests/faults.py --only 3 17      # some, by number
    python tests/faults.py --tests DIR      # with other tests, of an older commit for instance

Each fault is planted in a copy of the project, where the README's test command then runs: with the test
files first that have to do with the fault, and up to the first failure. A run that does not end within
`LIMIT` counts as not caught, for no test has said anything; one that dies (it wrote where it must
not) counts as caught. A first run plants nothing, and must pass.
"""

import argparse
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
LIMIT = 1200
"""Seconds that a run may take."""
COPIED = (".ci", "tinysqueeze", "tests", "notebooks", "pyproject.toml", "README.md")

FILES = {
    # where each file of the faults below lives
    **{name: f"tinysqueeze/kernels/{name}.py" for name in (
        "head", "norm", "optimiser", "pointwise", "pooling", "products", "team", "tile", "vectors",
        "winograd",
    )},
    **{name: f"tinysqueeze/compiled/{name}.py" for name in (
        "backward", "convolution", "forward", "grouping", "inference", "nodes", "plan", "sequence",
        "single", "space", "weights",
    )},
    "passes": "tinysqueeze/graph/passes.py",
    **{name: f"tinysqueeze/network/ops/{name}.py" for name in ("reference", "fast")},
    **{name: f"tinysqueeze/network/{name}.py" for name in ("compose", "layers", "loss", "others")},
    "loops": "tinysqueeze/network/ops/convolution.py",
    **{name: f"tinysqueeze/training/{name}.py" for name in ("optimisers", "schedule")},
}  # fmt: skip

PLAIN = ("ops", "loss", "labels", "optim", "compose", "layers")
COMPILED = ("kernels", "phases", "stragglers", "battery", "compiled")
REST = ("gradcheck", "gradcheck_networks", "models", "stepwise", "train", "training_run", "graph",
        "stepper", "recipes")  # fmt: skip
CORE = PLAIN + COMPILED + REST
"""The test files that have to do with what is planted; with `--core` no others run."""


class Fault(NamedTuple):
    """A line of a file, of which there is one, and what it becomes; why that must be noticed."""

    file: str
    old: str
    new: str
    why: str


FAULTS = [
    # --- kernels ---
    Fault("pooling", "high = min(job.kernel_high, job.height - top) - above",
          "high = min(job.kernel_high, job.height - top)",
          "a window at the padded top sees a row too many"),
    Fault("pooling", "min(a // job.stride_high, job.out_height - 1)",
          "min(a // job.stride_high, job.out_height)",
          "backward asks a row of windows that is not there"),
    Fault("pooling", "top, left, high, wide, number = 0, 0, 1, 1, NO_WINNER",
          "top, left, high, wide, number = 0, 0, 1, 1, 0",
          "a pixel that no window covers wins the first"),
    Fault("pooling", "down, right = job.stride_high * job.kernel_wide, job.stride_wide",
          "down, right = job.stride_wide * job.kernel_wide, job.stride_wide",
          "the stride of the other axis"),
    Fault("pooling", 'b.fcmp_unordered(">", new[0], best[0])',
          'b.fcmp_ordered(">", new[0], best[0])',
          "a value that is not a number loses, and is not seen"),
    Fault("norm", "+ job.pixels * away * away", "+ away * away",
          "variance between images counts once, not for each pixel"),
    Fault("norm", "spread / max(size - 1, 1) - running[c]", "spread / size - running[c]",
          "the running variance is the biased one"),
    Fault("norm", "inverse = 1.0 / sqrt(var + job.eps)", "inverse = 1.0 / sqrt(var)",
          "eps forgotten"),
    Fault("norm", "b = -a * dweight / size * floats(job.inverse)[place]", "b = -a * dweight / size",
          "dx through the variance lacks a factor"),
    Fault("norm", "i * job.around_row))", "i * job.y_row))",
          "a bypass read with the sum's row stride"),
    Fault("norm", "sums[c] = float32(0)", "sums[c] += float32(0)",
          "sums of the step before: a missing clear"),
    Fault("winograd", "top = m * (first + n if job.by_row else i)",
          "top = m * (n if job.by_row else i)", "a row of tiles does not know that it is the last"),
    Fault("winograd", "if a < tall and b < broad:", "if a < tall:",
          "what hangs over the right edge counts"),
    Fault("winograd", "(0, -2, -1, 2, 1, 0),", "(0, -2, -1, 2, 1, 1),", "a number of a matrix"),
    Fault("winograd", '_input_adjoint = _transform({4: _transposed(BT2), 6: _transposed(BT4)}, "add")',
          "_input_adjoint = _transform({4: _transposed(BT2), 6: _transposed(BT4)})",
          "where tiles overlap the last one wins"),
    Fault("winograd", "thread * job.spare_thread + (a * m + b) * channels",
          "(a * m + b) * channels", "threads take edge tiles from the first one's scratch"),
    Fault("products", "wide = column + PANEL <= job.vectors * LANES",
          "wide = column + PANEL < job.vectors * LANES", "half of the last panel is left out"),
    Fault("products", "w = job.w + 4 * job.depth * (column * job.batch + n * width)",
          "w = job.w + 4 * job.depth * (column * job.batch + n * PANEL)",
          "the last panel's positions are looked for too far apart"),
    Fault("products", "depth = count * job.pixels", "depth = job.pixels",
          "only a chunk's first image moves the weights"),
    Fault("products", "for t in range(1, job.threads):", "for t in range(1, min(job.threads, 2)):",
          "sums of a third thread are not joined"),
    Fault("products", "if row >= 0 and column >= 0 else", "if row >= 0 and column > 0 else",
          "the first filter is packed as zeros"),
    Fault("tile",
          "e.store(b.fadd(total[r * vectors + v], e.load(row, columns[v])), row, columns[v])",
          "e.store(total[r * vectors + v], row, columns[v])",
          "a chunk's share of dweight replaces the others'"),
    Fault("team", "if wait or s == job.stage_count - 1:", "if s == job.stage_count - 1:",
          "nobody ever waits"),
    Fault("team", "share = (units + threads - 1) // threads", "share = units // threads",
          "the last images are nobody's"),
    Fault("pointwise", 'b.fcmp_ordered("<=", e.load(ys, c), lowest)',
          'b.fcmp_ordered("<", e.load(ys, c), lowest)', "ReLU passes gradients where it is shut"),
    Fault("pointwise", "b = y + 4 * (n * job.y_next + i * job.y_row",
          "b = y + 4 * (n * job.y_next + i * job.x_row", "copied without room for the halo"),
    Fault("pointwise", "signs = job.signs + (first + n) * job.signs_unit + i",
          "signs = job.signs + n * job.signs_unit + i",
          "each chunk overwrites the first one's signs"),
    Fault("pointwise", "kept = b.fmul(e.load(x, offset), e.splat(scale))",
          "kept = e.load(x, offset)", "dropout does not scale up what it keeps"),
    Fault("pointwise", "count * job.size // LANES, first * job.size, job.seed",
          "count * job.size // LANES, 0, job.seed", "each thread's images get the same mask"),
    Fault("head", "even, rest = job.smoothing / classes,",
          "even, rest = job.smoothing / (classes - 1),", "smoothing gives away more than it takes"),
    Fault("head", "right = c if shares[c] > shares[right] else right",
          "right = c if shares[c] > 0 else right",
          "the last class with a share counts as the label"),
    Fault("head", "float32(1.0 / (job.height * job.width))",
          "float32(1.0 / (job.height * job.height))", "the mean of a map that is not square"),
    Fault("head", "largest, total, meant = z[best], 0.0, 0.0",
          "largest, total, meant = 0.0, 0.0, 0.0", "the exponential of a large logit overflows"),
    Fault("vectors", "slope = self.fma(v, self.every(1 / 3), self.every(0.5))",
          "slope = self.fma(v, self.every(1 / 6), self.every(0.5))", "the slope of hard-swish"),
    Fault("vectors", "self.builder.select(self.greater(floor, x), floor, x)",
          "self.builder.select(self.greater(x, floor), x, floor)",
          "ReLU hides what is not a number"),
    Fault("optimiser", "now = float32(1) if job.nesterov else float32(0)", "now = float32(0)",
          "Nesterov's step without the gradient itself"),
    Fault("optimiser", "v = momentum * velocity[i] + g", "v = momentum * velocity[i] + grads[i]",
          "weight decay does not reach the velocity"),
    Fault("optimisers", '"correction": 1 / sqrt(1 - beta2**step)',
          '"correction": 1 / sqrt(1 - beta2)', "Adam corrects each step as the first"),
    Fault("optimiser", "step + lr * decay[i] * params[i]", "step + decay[i] * params[i]",
          "decoupled weight decay without the rate"),
    Fault("optimiser", "average[i] += (float32(1) - keep) *", "average[i] += keep *",
          "the average forgets what it should keep"),
    # --- the compiled plan ---
    Fault("sequence", "filled[-1].wait = True", "filled[-1].wait = False",
          "no wait before the batch's statistics"),
    Fault("sequence", "stage = Stage(Split.EACH)", "stage = Stage(Split.EACH, wait=False)",
          "no wait after the batch's statistics"),
    Fault("sequence", "done[-1].wait = True", "done[-1].wait = False",
          "no wait between forward, backward and joining"),
    Fault("sequence", "self._open.jobs.wait = count, self.wait",
          "self._open.jobs.wait = count, False",
          "inference: a map's memory is used again too early"),
    Fault("backward", "self.sequence.wait_before()", "pass",
          "a gradient's buffer for images of another size: no wait"),
    Fault("backward", "self.used.append(self.held.pop(number))",
          "self.free.append(self.held.pop(number))", "a buffer is given away while its stage runs"),
    Fault("backward", "map_job(add_map if add else copy_map, d, to)", "map_job(add_map, d, to)",
          "a bypass's gradient is added to whatever was there"),
    Fault("backward", "            add = True\n", "            add = bool(conv.m)\n",
          "an arm's dx replaces the other's"),
    Fault("backward", "key=lambda numbered: bool(numbered[1].m)",
          "key=lambda numbered: not numbered[1].m", "the arm that only adds comes first: an order"),
    Fault("backward", "if around is not None:  # once more", "if around is d:  # once more",
          "scratch of another chunk is read"),
    Fault("backward", "alike = d.halo == self.layout.halo(step.bypass)", "alike = True",
          "a gradient handed on without the room for its halo"),
    Fault("forward", "made.set(images=len(given.images))",
          'made.set(images=max(len(given.images), made.record["images"][0]))',
          "statistics over the images of a step before"),
    Fault("forward", "np.random.SeedSequence([seed, step.number])",
          "np.random.SeedSequence([seed, seed])", "every dropout draws the same mask"),
    Fault("forward", '"momentum": norm.momentum', '"momentum": 0.1',
          "the layer's own momentum forgotten"),
    Fault("convolution", "return Halo(top, left, top, left)", "return Halo(top, left, 0, left)",
          "no halo below a map: a window reads the next image"),
    Fault("convolution", "max(0, size - 1 - pad)", "max(0, size - 2 - pad)",
          "a halo of dy too narrow"),
    Fault("convolution", "start = d.moved(top - high + 1, left - wide + 1)",
          "start = d.moved(top - high + 1, top - wide + 1)", "the padding of the other axis"),
    Fault("convolution", "return Backward(before, jobs, after, sums)",
          "return Backward([], jobs, after, sums)", "a missing clear of Winograd's sums"),
    Fault("weights", "np.arange(self.kernel_area)[:: 1 if self.m else -1]",
          "np.arange(self.kernel_area)",
          "the window that slides over dy is not flipped"),
    Fault("weights", "places = np.arange(channels) if pixel == channels else self.source.positions",
          "places = np.arange(channels)", "dweight of channels behind an arm's padding"),
    Fault("grouping", "offset += TARGET.padded(conv.filters)", "offset += conv.filters",
          "an arm begins in the other's padding"),
    Fault("grouping", "if around and self.maps[around] == step.result:", "if around:",
          "a bypass is added as it lies, with or without gaps between arms"),
    Fault("grouping", "node.source != 0 and len(graph.readers(node.source)) == 1",
          "node.source != 0", "dropout in place of a map that a bypass reads"),
    Fault("grouping", "and len(readers) == 1:", "and readers:",
          "an activation in place of a map that a bypass reads"),
    Fault("grouping", "(node.window.stride == (1, 1) or not needs_dx)",
          "(node.window.stride[0] == 1 or not needs_dx)",
          "dx of a convolution that strides sideways"),
    Fault("grouping", "node.window.area < 256", "node.window.area < 1024",
          "a place in the window does not fit a byte"),
    Fault("grouping", "return places[0] % TARGET.lanes == 0 and", "return",
          "an arm is copied over the end of its neighbour"),
    Fault("grouping",
          "if sum(segments) != channels or node.target == self._where(self.graph.output):",
          "if sum(segments) != channels:", "logits are read with the gaps between arms"),
    Fault("passes", "scale = scale / np.sqrt(var + eps)", "scale = scale / np.sqrt(var)",
          "eps is not folded"),
    Fault("passes", "(bias - mean) * scale + shift", "bias - mean * scale + shift",
          "a bias is folded without the scale"),
    Fault("inference", "born[n], dies[n]) for n", "born[n], dies[n] - 1) for n",
          "a map is written over the one it is made of"),
    Fault("inference", 'f"squeezed {size} {halo} {squeezed[n] % 2}"', 'f"squeezed {size} {halo}"',
          "neighbouring maps of one size share their memory"),
    Fault("single", "self._stage(high, chunk, *jobs, wait=wait)",
          "self._stage(high, chunk, *jobs, wait=False)",
          "no wait before neighbouring rows are read"),
    Fault("single", "step.pool.stride[0] * result.row)", "step.pool.kernel[0] * result.row)",
          "rows of an overlapping pool"),
    Fault("single", "last = band.moved(chunk * bands.rows, 0)", "last = band.moved(bands.rows, 0)",
          "the wrong rows are carried into the next band"),
    Fault("convolution", "return view.part(self.arm.offset, self.weights.filters)",
          "return view.part(0, self.weights.filters)", "the second arm is written over the first"),
    Fault("space", "return Halo(*(max(getattr", "return Halo(*(min(getattr",
          "a halo that suits only one of two readers"),
    Fault("nodes", "pixels[..., places] += values", "pixels[..., places] = values",
          "a layer's dx replaces that of the bypass"),
    Fault("nodes", "np.random.default_rng([seed, step.target])",
          "np.random.default_rng([seed, seed])", "dropouts without a kernel draw the same mask"),
    Fault("plan", "if self.training or not self._fresh:", "if not self._fresh:",
          "predictions with the weights of before"),
    Fault("plan", "self._training.losses[: len(images)].copy()",
          "self._training.losses[: len(images)]", "losses that were handed out change"),
    # --- the operations ---
    Fault("reference", "return np.where(y > 0, dy, 0)", "return np.where(y >= 0, dy, 0)",
          "ReLU passes all"),
    Fault("reference", "dy * (x / 3 + 0.5)", "dy * (x / 6 + 0.5)", "the slope of hard-swish"),
    Fault("reference", "seen = windows(x, window, fill=-np.inf)", "seen = windows(x, window)",
          "padding wins over negative numbers"),
    Fault("reference", "return padded[:, ph : ph + h, pw : pw + w]",
          "return padded[:, pw : pw + h, ph : ph + w]", "the padding of the other axis"),
    Fault("reference", "x_shape[1 + i] + window.pad[i])", "x_shape[1 + i])",
          "an average divided by what lies inside alone"),
    Fault("reference", "dy = dy - dbias / count - normal * (dweight / count)",
          "dy = dy - dbias / count", "the part of dx that goes through the variance"),
    Fault("reference", "keep.astype(x.dtype) / x.dtype.type(1 - rate)", "keep.astype(x.dtype)",
          "dropout does not scale up what it keeps"),
    Fault("reference", "(1 - smoothing) * label_shares(labels", "label_shares(labels",
          "smoothing is added, not moved"),
    Fault("reference", "shares[np.arange(len(labels)), labels] = 1",
          "shares[np.arange(len(labels)), labels - 1] = 1", "everybody learns the class before"),
    Fault("reference", "dy.dtype.type(x_shape[1] * x_shape[2])",
          "dy.dtype.type(x_shape[1] * x_shape[1])", "the mean of a map that is not square"),
    Fault("loops", "return image, oy * sh - ph, ox * sw - pw",
          "return image, oy * sh - ph, ox * sw - ph", "the padding of the other axis"),
    Fault("loops", "patches[:] = 0", "pass",
          "the padding is what the tile held before: a missing clear"),
    Fault("loops", "max(min(left + kw, x.shape[2] // c), 0)",
          "max(min(left + kw, x.shape[2] // c - 1), 0)", "no window sees the last column"),
    Fault("loops", "seen[i] += patch[i]", "seen[i] = patch[i]",
          "where windows overlap the last one wins"),
    Fault("loops", "unfold(lines, patches, first, oh, ow", "unfold(lines, patches, 0, oh, ow",
          "every tile has the patches of the first places"),
    Fault("loops", "dweight += patches.T @ rows[places]", "dweight[:] = patches.T @ rows[places]",
          "a tile's share of dweight replaces the others'"),
    Fault("loops", "dx, places.start, oh, ow", "dx, 0, oh, ow",
          "the gradients of every tile go to the first places"),
    Fault("fast", "argmax[i, oy, ox, c] = ky * kw + kx", "argmax[i, oy, ox, c] = ky * kh + kx",
          "a window that is not square"),
    Fault("fast", "if value > best or", "if value >= best or", "of equals the last wins"),
    Fault("fast", "dweight * scale / len(rows)", "dweight / len(rows)",
          "dx through the variance lacks a factor"),
    # --- layers, compositions, optimisers, loss ---
    Fault("layers", 'return dy if cache["mask"] is None else dy * cache["mask"], {}',
          "return dy, {}", "dropout backward without its mask"),
    Fault("layers", 'cache["var"] * (count / max(count - 1, 1))', 'cache["var"]',
          "the running variance is the biased one"),
    Fault("layers", 'else (params["mean"], params["var"])', "else run.ops.channel_moments(x)",
          "evaluation normalises by the batch"),
    Fault("others", "np.concatenate([dx for dx, _ in found], axis=3)",
          "np.concatenate([dx for dx, _ in found[::-1]], axis=3)",
          "the groups' gradients in another order"),
    Fault("compose", "return (dx + dy if self.shortcut is None else dx), grads", "return dx, grads",
          "the bypass carries no gradient"),
    Fault("compose", "return sum(dxs[1:], start=dxs[0]), grads", "return dxs[0], grads",
          "only the first arm's gradient goes on"),
    Fault("optimisers", "mean *= self.momentum", "mean *= 1 - self.momentum", "Muon's momentum"),
    Fault("optimisers", "orthogonalise(grad + np.float32(self.momentum) * mean)",
          "orthogonalise(mean)", "Muon without Nesterov"),
    Fault("optimisers", "sqrt(min(rows, columns))", "sqrt(max(rows, columns))",
          "Muon turns by less than it says"),
    Fault("schedule", "left = (1 - done) / (1 - self.warmup)", "left = (1 - done)",
          "the rate drops where warm-up ends"),
    Fault("schedule", "return (1 - cos(pi * left)) / 2", "return (1 + cos(pi * left)) / 2",
          "a cosine that rises"),
    Fault("loss", "return mode.ops.softmax_cross_entropy(logits, labels, smoothing)",
          "return mode.ops.softmax_cross_entropy(logits, labels)", "smoothing forgotten"),
    Fault("loss", "labels.ndim == 1 else labels.argmax(axis=1)",
          "labels.ndim == 1 else labels.argmin(axis=1)", "the least share is the right answer"),
]  # fmt: skip


@dataclass
class Outcome:
    """What the tests said to a fault."""

    number: int
    fault: Fault
    caught: str
    """By which test; empty: by none."""
    seconds: float

    def __str__(self) -> str:
        where = FILES[self.fault.file].removeprefix("tinysqueeze/")
        caught = self.caught or "NOT CAUGHT"
        return f"{self.number:3} | {where}: {self.fault.why} | {caught} | {self.seconds:.0f} s"


def planted(text: str, fault: Fault) -> str:
    """A file's text with the fault in it. Raises ValueError where the line is not there, or twice."""
    if (found := text.count(fault.old)) != 1:
        raise ValueError(f"{FILES[fault.file]} has {fault.old!r} {found} times, not once")
    return text.replace(fault.old, fault.new)


def copy(tests: Path | None, target: Path) -> Path:
    """The project, with its own tests or others."""
    for name in COPIED:
        source = tests if name == "tests" and tests else ROOT / name
        ignored = shutil.ignore_patterns("__pycache__")
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=ignored)
        else:
            shutil.copy2(source, target / name)
    return target


def in_order(place: Path, first: Iterable[str], core: bool) -> list[str]:
    """The test files that run, in order; `core`: those of CORE alone.

    All but the one that says whether the faults can be planted: it fails where one is.
    """
    names = [*first, *(name for name in CORE if name not in first)]
    chosen = [f"tests/test_{name}.py" for name in names]
    chosen = [name for name in chosen if (place / name).exists()]
    rest = sorted(path.relative_to(place).as_posix() for path in place.glob("tests/test_*.py"))
    rest = [name for name in rest if name not in (*chosen, "tests/test_faults.py")]
    return chosen if core else chosen + rest


def run_tests(place: Path, first: Iterable[str], core: bool) -> tuple[str, float]:
    """The README's test command in a copy of the project: which test fails, if any, and the seconds.

    As in the README's environment, where PyTorch is not installed. Compiled kernels stay in the copy.
    """
    environment = os.environ | {"PYTHONPATH": str(place), "PYTHONFAULTHANDLER": "1"}
    environment.pop("NUMBA_CACHE_DIR", None)
    marks = "not slow and not browser and not faults and not oracle"
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-m", marks, "-p", "no:cacheprovider",
               *in_order(place, first, core)]  # fmt: skip
    begin = time.perf_counter()
    process = subprocess.Popen(
        command, cwd=place, env=environment, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        output, _ = process.communicate(timeout=LIMIT)
    except subprocess.TimeoutExpired:
        return "", LIMIT
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    seconds = time.perf_counter() - begin
    if process.returncode == 0:
        return "", seconds
    if failed := re.search(r"^(?:FAILED|ERROR) tests/(.*?)(?: - .*)?$", output, re.MULTILINE):
        return failed[1], seconds
    inside = re.search(r'File ".*?/tests/(test_\w+\.py)", line \d+ in (test_\w+)', output)
    died = f"{inside[1]}::{inside[2]}" if inside else output[-2000:]
    return f"died with {process.returncode} in {died}", seconds


def outcomes(
    numbers: Iterable[int], tests: Path | None = None, core: bool = False
) -> Iterator[Outcome]:
    """Plants the faults of these numbers (from 1), one at a time. Raises if the tests fail without any."""
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        clean = copy(tests, Path(folder) / "clean")
        failed, seconds = run_tests(clean, CORE, core)
        if failed or seconds >= LIMIT:
            raise RuntimeError(f"without a fault: {failed or 'no end'} after {seconds:.0f} s")
        for number in numbers:
            fault = FAULTS[number - 1]
            place = Path(folder) / "faulty"
            shutil.copytree(clean, place)  # with what is compiled already
            file = place / FILES[fault.file]
            file.write_text(planted(file.read_text(encoding="utf-8"), fault), encoding="utf-8")
            own = FILES[fault.file].split("/")[1] in ("kernels", "compiled", "graph")
            yield Outcome(number, fault, *run_tests(place, COMPILED if own else PLAIN, core))
            shutil.rmtree(place)


def sample(count: int | None, seed: int = 0) -> list[int]:
    """All numbers, or `count` of them at random."""
    every = range(1, len(FAULTS) + 1)
    return sorted(random.Random(seed).sample(every, min(count or len(every), len(every))))


def main() -> None:
    """Plants faults, prints a line for each and how many were caught."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", type=int, nargs="+", metavar="N")
    parser.add_argument("--tests", type=Path, help="another folder of tests")
    parser.add_argument("--core", action="store_true", help="only test files of CORE")
    arguments = parser.parse_args()
    found = []
    for outcome in outcomes(arguments.only or sample(None), arguments.tests, arguments.core):
        print(outcome, flush=True)
        found.append(outcome)
    print(f"{sum(bool(one.caught) for one in found)} of {len(found)} caught")
    sys.exit(not all(one.caught for one in found))


if __name__ == "__main__":
    main()
