"""OpenVINO on the processor, running the same ONNX files; the variant says in which precision."""

from collections.abc import Callable
from typing import Any

import numpy as np
import openvino

FILES = {"f32": "network.onnx", "bf16": "network.onnx", "int8": "network-int8.onnx"}
StepAndLogits = tuple[Callable[[], Any], Callable[[], Any]]


def prepare(task: Any) -> StepAndLogits:
    """Inference only, one batch at a time. Left to itself, it takes bfloat16 where that is faster.

    So the precision of what is no integer is always pinned.
    """
    core = openvino.Core()
    network = core.read_model(task.folder / FILES[task.variant])
    x = np.ascontiguousarray(task.images.transpose(0, 3, 1, 2))
    network.reshape(list(x.shape))
    compiled = core.compile_model(
        network,
        "CPU",
        {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            "INFERENCE_NUM_THREADS": task.threads,
            "INFERENCE_PRECISION_HINT": "bf16" if task.variant == "bf16" else "f32",
        },
    )
    request = compiled.create_infer_request()

    def infer() -> Any:
        return request.infer([x], share_inputs=True, share_outputs=True)[0]

    return infer, lambda: infer().copy()
