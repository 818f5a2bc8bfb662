"""The sides of the comparison, one module each, and the table that names them.

A side is loaded by path in a process of its own (`worker.py`), and all but `ours` import nothing from
this package. It offers `prepare(task) -> (step, logits)`: `step()` is what is timed, one training
step or one inference; `logits()` are those of the task's images as things stand, (N, classes).
"""

from dataclasses import dataclass
from importlib.util import find_spec

from tinysqueeze.errors import UserError, missing_extra


@dataclass(frozen=True)
class Side:
    """A module of this folder, which of its variants, in which precision, and what it needs."""

    name: str
    title: str
    module: str
    variant: str = ""
    precision: str = "float32"
    libraries: tuple[str, ...] = ()  # that have to be there; those with "onnx" read its files
    extra: str = ""
    trains: bool = True

    @property
    def is_installed(self) -> bool:
        """Can it run here?"""
        return all(find_spec(library) for library in self.libraries)

    @property
    def is_ours(self) -> bool:
        """Is it this package?"""
        return self.module == "ours"

    @property
    def in_few_bits(self) -> bool:
        """Do its logits differ by more than rounding in float32 explains?"""
        return self.precision != "float32"


def _torch(name: str, title: str, variant: str, precision: str = "float32") -> Side:
    return Side(name, title, "pytorch", variant, precision, ("torch",), "torch")


def _onnx(name: str, title: str, file: str, precision: str = "float32") -> Side:
    libraries = ("onnxruntime", "onnx")
    return Side(name, title, "onnx_runtime", file, precision, libraries, "onnx", trains=False)


def _openvino(name: str, title: str, variant: str, precision: str = "float32") -> Side:
    libraries = ("openvino", "onnxruntime", "onnx")
    return Side(
        name, title, "openvino_runtime", variant, precision, libraries, "peers,onnx", trains=False
    )


SIDES = {
    side.name: side
    for side in (
        Side("ours", "tinysqueeze", "ours", "4x4"),
        Side("ours-2x2", "tinysqueeze, Winograd F(2×2)", "ours", "2x2"),
        Side("ours-direct", "tinysqueeze, direct", "ours", "direct"),
        Side("ours-int8", "tinysqueeze, int8", "ours", "int8", "int8", trains=False),
        Side("ours-stepwise", "tinysqueeze, layer by layer", "ours", "stepwise"),
        _torch("torch", "PyTorch, channels_last", "channels_last"),
        _torch("torch-nchw", "PyTorch, NCHW", "nchw"),
        _torch("torch-compile", "torch.compile, channels_last", "compile"),
        _torch("torch-bf16", "PyTorch, channels_last, bfloat16", "bfloat16", "bfloat16"),
        _onnx("onnxruntime", "ONNX Runtime", "network.onnx"),
        _onnx("onnxruntime-int8", "ONNX Runtime, int8", "network-int8.onnx", "int8"),
        _openvino("openvino", "OpenVINO", "f32"),
        _openvino("openvino-bf16", "OpenVINO, bfloat16", "bf16", "bfloat16"),
        _openvino("openvino-int8", "OpenVINO, int8", "int8", "int8"),
        Side("ncnn", "ncnn", "ncnn_runtime", libraries=("ncnn",), extra="peers", trains=False),
        Side("jax", "JAX, jit", "xla", libraries=("jax",), extra="jax"),
        Side("textbook", "NumPy im2col, as in textbooks", "textbook"),
    )
}
USUAL = ("torch", "torch-nchw", "onnxruntime", "textbook")  # without long compilation


def chosen(names: list[str] | None) -> list[Side]:
    """The sides of these names, or by default the usual ones that are installed; never "ours".

    Raises UserError for a name unknown, MissingExtra for a library that is not there.
    """
    if names is None:
        return [SIDES[name] for name in USUAL if SIDES[name].is_installed]
    for name in names:
        if name not in SIDES:
            raise UserError(f"no side named {name!r}; there are {', '.join(SIDES)}")
        if not SIDES[name].is_installed:
            raise missing_extra(SIDES[name].extra, f"comparing with {SIDES[name].title}")
    return [SIDES[name] for name in dict.fromkeys(names) if name != "ours"]
