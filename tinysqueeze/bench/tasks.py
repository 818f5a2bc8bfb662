"""A workload as a folder of plain files, which any side can read without this package."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from tinysqueeze.bench.accuracy import Labelled
from tinysqueeze.bench.peers import Side
from tinysqueeze.bench.workloads import Workload, describe
from tinysqueeze.network.layers import Params
from tinysqueeze.network.params import flatten, initialise

LEARNING_RATE, MOMENTUM = 0.01, 0.9
CALIBRATION_IMAGES = 16
ROUNDED = ["Conv", "Relu", "MaxPool", "Concat", "Add", "GlobalAveragePool"]
"""What ONNX Runtime rounds: no norms, whose parameters it takes for a convolution's."""


def write(workload: Workload, folder: Path, trained: Labelled | None = None) -> None:
    """`task.json`, `params.npz` by path; `images.npy`, `labels.npy`, and `calibration.npy` to round by.

    Images are (N, H, W, C) float32: those that a network was `trained` for, or standard normal noise for
    a fresh one. Everything is seeded.
    """
    model = workload.model
    task = asdict(workload) | {
        "network": describe(model, workload.training),
        "learning_rate": LEARNING_RATE,
        "momentum": MOMENTUM,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "task.json").write_text(json.dumps(task))
    if trained is None:
        rng = np.random.default_rng(0)
        images = rng.standard_normal((workload.batch, *model.input_shape), np.float32)
        labels = rng.integers(0, model.classes, workload.batch)
        calibration = rng.standard_normal((CALIBRATION_IMAGES, *model.input_shape), np.float32)
    else:
        images, labels, calibration = trained.images, trained.labels, trained.calibration
    np.savez(folder / "params.npz", **flatten(_params(workload, trained)))
    for name, array in (("images", images), ("labels", labels), ("calibration", calibration)):
        np.save(folder / f"{name}.npy", array)


def _params(workload: Workload, trained: Labelled | None) -> Params:
    return initialise(workload.model) if trained is None else trained.params


def write_for(
    sides: tuple[Side, ...], workload: Workload, folder: Path, trained: Labelled | None = None
) -> None:
    """Those files, and beside them the ONNX files that one of the sides reads."""
    write(workload, folder, trained)
    readers = [side for side in sides if "onnx" in side.libraries]
    if readers and not workload.training:
        write_onnx(workload, folder, trained)
        if any(side.precision == "int8" for side in readers):
            write_int8_onnx(folder)


def write_onnx(workload: Workload, folder: Path, trained: Labelled | None = None) -> None:
    """Beside those files `network.onnx`, by our own exporter. Raises MissingExtra without onnx."""
    from tinysqueeze.weights import Preprocess, WeightSet
    from tinysqueeze.weights import write_onnx as export

    model = workload.model
    height, width, _ = model.input_shape
    preprocess = Preprocess(resize=height, crop=(height, width))
    weights = WeightSet(model, _params(workload, trained), preprocess, "of the benchmark")
    export(weights, folder / "network.onnx")


def write_int8_onnx(folder: Path) -> None:
    """Beside that file `network-int8.onnx`: ONNX Runtime's static quantisation of it, a scale a filter."""
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Images(CalibrationDataReader):
        """One at a time."""

        def __init__(self) -> None:
            images = np.load(folder / "calibration.npy").transpose(0, 3, 1, 2)
            self.waiting = iter(images[:, None])

        def get_next(self) -> dict[str, Any] | None:
            image = next(self.waiting, None)
            return None if image is None else {"images": np.ascontiguousarray(image)}

    ready = folder / "network-ready.onnx"
    quant_pre_process(folder / "network.onnx", ready, skip_symbolic_shape=True)
    quantize_static(
        ready, folder / "network-int8.onnx", Images(), per_channel=True,
        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, op_types_to_quantize=ROUNDED,
    )  # fmt: skip
