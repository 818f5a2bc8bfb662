"""Weights from outside and out again: the authors' files, torchvision's, safetensors, ONNX."""

from tinysqueeze.data.images import find_images, open_image
from tinysqueeze.weights.class_names import named, read_class_names
from tinysqueeze.weights.classify import Guess, Prediction, Skipped, classify, plan_for
from tinysqueeze.weights.formats.onnx_file import write_onnx
from tinysqueeze.weights.formats.safetensors_file import write_safetensors, write_torchvision
from tinysqueeze.weights.labelled import FolderScore, evaluate_folder, labels_under, read_map
from tinysqueeze.weights.opening import load_weights, open_weights
from tinysqueeze.weights.preprocess import CAFFE, TORCHVISION, Preprocess
from tinysqueeze.weights.sources import SOURCES
from tinysqueeze.weights.trained import WeightSet
from tinysqueeze.weights.transfer import training_start, transferred, with_classes

open = open_weights  # so that one may say weights.open(...)

__all__ = [
    "CAFFE", "SOURCES", "TORCHVISION", "FolderScore", "Guess", "Prediction", "Preprocess",
    "Skipped", "WeightSet", "classify", "evaluate_folder", "find_images", "labels_under",
    "load_weights", "named", "open", "open_image", "open_weights", "plan_for", "read_class_names",
    "read_map", "training_start", "transferred", "with_classes", "write_onnx",
    "write_safetensors", "write_torchvision",
]  # fmt: skip
