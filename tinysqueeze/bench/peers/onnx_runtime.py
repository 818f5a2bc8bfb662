"""ONNX Runtime on the processor, running the file that our own exporter wrote."""

import numpy as np
import onnxruntime


def prepare(task):
    """Inference only. The images lie channels first, as ONNX has them."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = task.threads
    session = onnxruntime.InferenceSession(
        str(task.folder / "network.onnx"), options, providers=["CPUExecutionProvider"]
    )
    x = np.ascontiguousarray(task.images.transpose(0, 3, 1, 2))

    def infer():
        return session.run(["logits"], {"images": x})[0]

    return infer, infer
