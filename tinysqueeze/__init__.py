"""tinysqueeze: SqueezeNet from scratch in NumPy and Numba, to read, step through and train."""

__version__ = "0.1.0"

from tinysqueeze import checkpoint, data
from tinysqueeze.compiled import Plan, compile
from tinysqueeze.compose import Block, Chain, Concat, Residual, leaves, map_layers, map_leaves
from tinysqueeze.count import count
from tinysqueeze.diagnose import diagnose
from tinysqueeze.errors import UserError
from tinysqueeze.gradcheck import check_layer, check_model
from tinysqueeze.layers import (
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
    ReLU,
    Run,
    Softmax,
)
from tinysqueeze.loss import softmax_cross_entropy
from tinysqueeze.models import (
    MODELS,
    Fire,
    Model,
    SqueezeNet,
    alexnet,
    alexnet_torchvision,
    build,
    squeezenet1_0,
    squeezenet1_1,
    squeezenet_cifar,
    vgg16,
)
from tinysqueeze.optim import SGD, Adam, Muon
from tinysqueeze.params import flatten, initialise, unflatten
from tinysqueeze.recipes import Recipe
from tinysqueeze.stepwise import StepByStep
from tinysqueeze.trace import trace
from tinysqueeze.train import begin, evaluate, evaluate_training, run
from tinysqueeze.window import Window

__all__ = [
    "EVAL", "MODELS", "SGD", "Adam", "AvgPool2D", "BatchNorm", "Block", "Chain", "Concat", "Conv2D",
    "Dropout", "Fire", "Flatten", "GlobalAvgPool2D", "HardSwish", "Layer", "Linear",
    "MaxPool2D", "Model", "Muon", "Plan", "ReLU", "Recipe", "Residual", "Run", "Softmax",
    "SqueezeNet", "StepByStep", "UserError", "Window",
    "alexnet", "alexnet_torchvision", "begin", "build", "check_layer", "check_model", "checkpoint",
    "compile", "count", "data", "diagnose", "evaluate", "evaluate_training", "flatten", "initialise",
    "leaves", "map_layers", "map_leaves", "run", "softmax_cross_entropy", "squeezenet1_0",
    "squeezenet1_1", "squeezenet_cifar", "trace", "unflatten", "vgg16",
]  # fmt: skip
