"""The battery's other engines: PyTorch, ONNX Runtime, and the C export in floats and integers."""

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import networks
import numpy as np
from battery import SEED, Tally, apart, difference
from deciding import truth
from networks import has

from tinysqueeze.devices import c as c_export
from tinysqueeze.devices.int8 import quantise
from tinysqueeze.errors import UserError
from tinysqueeze.network.layers import Dropout, Mode
from tinysqueeze.network.loss import softmax_cross_entropy
from tinysqueeze.network.ops import reference
from tinysqueeze.network.params import map_params
from tinysqueeze.weights import TORCHVISION, WeightSet
from tinysqueeze.weights.formats.onnx_file import to_onnx

EXACT = 1e-8
"""Two implementations in float64 may differ by so much where numbers cancel."""
FLOATS = 1e-5
"""And two in float32, in their logits."""


def trial(d: networks.Draw, tally: Tally, compiler: str | None) -> None:
    """Every one of them that is installed and can do this network; the others are counted as refused."""
    pytorch(d, tally)
    expected, _ = d.model.forward(_wide(d), d.x.astype(np.float64), Mode(reference))
    onnx_runtime(d, tally, expected)
    if compiler:
        with TemporaryDirectory() as folder:
            c_floats(d, tally, expected, compiler, Path(folder))
            c_integers(d, tally, compiler, Path(folder))


def _wide(d: networks.Draw) -> dict:
    return map_params(lambda a: a.astype(np.float64), d.params)


def pytorch(d: networks.Draw, tally: Tally) -> None:
    """The reference itself against PyTorch's float64: y, dx's consequences, and moved statistics."""
    import oracle

    if has(d.model, Dropout):
        tally.refused["PyTorch: it draws other dropout masks"] += 1
        return
    right = truth(d, SEED, 0)
    _, dlogits = softmax_cross_entropy(right.logits, d.labels, d.smoothing)
    try:
        found = oracle.step(d.model, _wide(d), d.x.astype(np.float64), dlogits, training=True)
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        tally.refused["PyTorch: batch norm of one value a channel"] += 1
        return
    tally.judge(d, "PyTorch, float64", "logits", difference(found["y"], right.logits), EXACT)
    grads = {path: found[path] for path in right.grads}
    error, path = apart(grads, right.grads)
    tally.judge(d, "PyTorch, float64", "gradients", error, EXACT, path)
    for path, value in right.moved.items():
        tally.judge(
            d, "PyTorch, float64", "moved statistics", difference(found[path], value), EXACT
        )


def onnx_runtime(d: networks.Draw, tally: Tally, expected: np.ndarray) -> None:
    """Our ONNX file, run by ONNX Runtime."""
    import onnxruntime

    preprocess = replace(TORCHVISION, crop=d.model.input_shape[:2])
    weights = WeightSet(d.model, d.params, preprocess, "drawn at random")
    try:
        proto = to_onnx(weights)
    except UserError as error:
        tally.refused[f"ONNX: {error}"] += 1
        return
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    feed = {"images": np.ascontiguousarray(d.x.transpose(0, 3, 1, 2))}
    got = session.run(["logits"], feed)[0]
    tally.judge(d, "ONNX Runtime", "logits", difference(got, expected), FLOATS)


MAIN = """
#include <stdio.h>
#include "{name}.h"
int main(void)
{{
    while (fread({name}_input(), sizeof *{name}_input(), {macro}_INPUT, stdin) == {macro}_INPUT)
        fwrite({name}_run(), 4, {macro}_CLASSES, stdout);
    return 0;
}}
"""


def _run_c(compiler: str, folder: Path, name: str, images: np.ndarray, dtype: str) -> np.ndarray:
    main, program = folder / "main.c", folder / "main"
    main.write_text(MAIN.format(name=name, macro=name.upper()))
    sources = [str(folder / f"{name}.c"), str(main)]
    flags = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-O1"]
    subprocess.run([compiler, *flags, *sources, "-o", str(program)], check=True)
    done = subprocess.run([program], input=images.tobytes(), stdout=subprocess.PIPE, check=True)
    return np.frombuffer(done.stdout, dtype).reshape(len(images), -1)


def c_floats(
    d: networks.Draw, tally: Tally, expected: np.ndarray, compiler: str, folder: Path
) -> None:
    """The exported C99, compiled and run."""
    try:
        c_export.export_float32(d.model, d.params, folder)
    except UserError as error:
        tally.refused[f"C: {_short(error)}"] += 1
        return
    got = _run_c(compiler, folder, d.model.name, d.x, "<f4")
    tally.judge(d, "C, float32", "logits", difference(got, expected), FLOATS)


def c_integers(d: networks.Draw, tally: Tally, compiler: str, folder: Path) -> None:
    """The integer network in Python against its C: the same to the bit."""
    try:
        network = quantise(d.model, d.params, d.x)
        c_export.export_int8(network, folder)
    except UserError as error:
        tally.refused[f"int8: {_short(error)}"] += 1
        return
    codes = network.encode(d.x)
    got = _run_c(compiler, folder, f"{d.model.name}_int8", codes, "<i4")
    same = np.array_equal(got, network.integers(codes))
    tally.judge(d, "C against Python, int8", "logits", 0 if same else np.inf, 0)


def _short(error: Exception) -> str:
    """A refusal without the name of what is refused."""
    return str(error).partition(": ")[2] or str(error)


def compiler() -> str | None:
    """A C compiler, if there is one."""
    return shutil.which("gcc") or shutil.which("cc")
