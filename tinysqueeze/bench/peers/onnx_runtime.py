"""ONNX Runtime on the processor, running the file that our own exporter wrote, or its own integers of it."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime

StepAndLogits = tuple[Callable[[], Any], Callable[[], Any]]


def prepare(task: Any) -> StepAndLogits:
    """Inference only. The variant is the file; the images lie channels first, as ONNX has them."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = task.threads
    session = onnxruntime.InferenceSession(
        str(task.folder / task.variant), options, providers=["CPUExecutionProvider"]
    )
    x = np.ascontiguousarray(task.images.transpose(0, 3, 1, 2))

    def infer() -> Any:
        return session.run(["logits"], {"images": x})[0]

    return infer, infer
