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
    """A module of this folder, which of its variants, and what has to be installed for it."""

    name: str
    title: str
    module: str
    variant: str = ""
    library: str = "numpy"
    extra: str = ""
    trains: bool = True
    in_few_bits: bool = False  # so that its logits differ by more than rounding in float32 explains

    @property
    def is_installed(self) -> bool:
        """Can it run here?"""
        return find_spec(self.library) is not None

    @property
    def is_ours(self) -> bool:
        """Is it this package?"""
        return self.module == "ours"


SIDES = {
    side.name: side
    for side in (
        Side("ours", "tinysqueeze", "ours", "4x4"),
        Side("ours-2x2", "tinysqueeze, Winograd F(2×2)", "ours", "2x2"),
        Side("ours-direct", "tinysqueeze, direct", "ours", "direct"),
        Side("ours-int8", "tinysqueeze, int8", "ours", "int8", trains=False, in_few_bits=True),
        Side("ours-stepwise", "tinysqueeze, layer by layer", "ours", "stepwise"),
        Side("torch", "PyTorch, channels_last", "pytorch", "channels_last", "torch", "torch"),
        Side("torch-nchw", "PyTorch, NCHW", "pytorch", "nchw", "torch", "torch"),
        Side(
            "torch-compile", "torch.compile, channels_last", "pytorch", "compile", "torch", "torch"
        ),
        Side(
            "onnxruntime", "ONNX Runtime", "onnx_runtime", "", "onnxruntime", "onnx", trains=False
        ),
        Side("jax", "JAX, jit", "xla", "", "jax", "jax"),
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
