"""tinysqueeze: SqueezeNet from scratch in NumPy and Numba, to read, step through and train."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

# isort: split
from tinysqueeze import starting  # noqa: F401 (it goes before what takes time)

# isort: split
from tinysqueeze import data
from tinysqueeze.compiled import Plan, compile
from tinysqueeze.data import Augment
from tinysqueeze.errors import UserError
from tinysqueeze.network.compose import (
    Block,
    Chain,
    Concat,
    Residual,
    leaves,
    map_layers,
    map_leaves,
)
from tinysqueeze.network.layers import (
    EVAL,
    AvgPool2D,
    BatchNorm,
    Conv2D,
    Dropout,
    Flatten,
    GlobalAvgPool2D,
    HardSwish,
    Layer,
    Linear,
    MaxPool2D,
    Mode,
    ReLU,
    Softmax,
)
from tinysqueeze.network.loss import softmax_cross_entropy
from tinysqueeze.network.models import (
    MODELS,
    Fire,
    Model,
    SqueezeNet,
    build,
    squeezenet1_0,
    squeezenet1_1,
    squeezenet_cifar,
)
from tinysqueeze.network.others import GroupedConv2D, alexnet, alexnet_torchvision, vgg16
from tinysqueeze.network.params import flatten, initialise, map_params, unflatten
from tinysqueeze.network.stepwise import StepByStep
from tinysqueeze.network.window import Window
from tinysqueeze.study.count import count
from tinysqueeze.training import checkpoint
from tinysqueeze.training.evaluate import evaluate
from tinysqueeze.training.loop import run
from tinysqueeze.training.optimisers import SGD, Adam, Muon
from tinysqueeze.training.recipe import HardImages, Recipe, Scoring
from tinysqueeze.training.schedule import Schedule
from tinysqueeze.training.state import begin, evaluate_training
from tinysqueeze.training.train import resume, train
from tinysqueeze.version import __version__

if TYPE_CHECKING:
    from tinysqueeze.study.diagnose import diagnose
    from tinysqueeze.study.gradcheck import check_layer, check_model
    from tinysqueeze.study.trace import trace
    from tinysqueeze.weights.classify import classify_all as classify
    from tinysqueeze.weights.compression.compress import compress
    from tinysqueeze.weights.exporting import export
    from tinysqueeze.weights.opening import open_weights

WHEN_ASKED = {  # found only when used: training needs none of it, and starts sooner
    "check_layer": ("study.gradcheck", "check_layer"),
    "check_model": ("study.gradcheck", "check_model"),
    "classify": ("weights.classify", "classify_all"),
    "compress": ("weights.compression.compress", "compress"),
    "diagnose": ("study.diagnose", "diagnose"),
    "export": ("weights.exporting", "export"),
    "open_weights": ("weights.opening", "open_weights"),
    "trace": ("study.trace", "trace"),
}


def __getattr__(name: str) -> Any:
    """One of WHEN_ASKED, which is then there as if it had been imported above."""
    if name not in WHEN_ASKED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, function = WHEN_ASKED[name]
    found = globals()[name] = getattr(import_module(f"{__name__}.{module}"), function)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *WHEN_ASKED})


__all__ = [
    "EVAL", "MODELS", "SGD", "Adam", "Augment", "AvgPool2D", "BatchNorm", "Block", "Chain", "Concat",
    "Conv2D", "Dropout", "Fire", "Flatten", "GlobalAvgPool2D", "GroupedConv2D", "HardImages", "HardSwish",
    "Layer", "Linear", "MaxPool2D", "Mode", "Model", "Muon", "Plan", "ReLU", "Recipe", "Residual", "Schedule",
    "Scoring", "Softmax", "SqueezeNet", "StepByStep", "UserError", "Window",
    "__version__",
    "alexnet", "alexnet_torchvision", "begin", "build", "check_layer", "check_model", "checkpoint",
    "classify", "compile", "compress", "count", "data", "diagnose", "evaluate", "evaluate_training",
    "export", "flatten", "initialise", "leaves", "map_layers", "map_leaves", "map_params", "open_weights",
    "resume", "run", "softmax_cross_entropy", "squeezenet1_0", "squeezenet1_1", "squeezenet_cifar", "trace",
    "train", "unflatten", "vgg16",
]  # fmt: skip
