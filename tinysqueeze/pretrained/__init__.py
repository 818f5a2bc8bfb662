"""Weights from outside and out again: the authors' files, torchvision's, safetensors, ONNX."""

from tinysqueeze.pretrained.class_names import named, read_class_names
from tinysqueeze.pretrained.classify import (
    FolderScore,
    Guess,
    Prediction,
    Skipped,
    classify,
    evaluate_folder,
    labels_under,
    plan_for,
)
from tinysqueeze.pretrained.images import find_images, open_image
from tinysqueeze.pretrained.loading import load_weights
from tinysqueeze.pretrained.onnx_file import write_onnx
from tinysqueeze.pretrained.preprocess import CAFFE, TORCHVISION, Preprocess
from tinysqueeze.pretrained.safetensors_file import write_safetensors, write_torchvision
from tinysqueeze.pretrained.sources import SOURCES
from tinysqueeze.pretrained.transfer import frozen_paths, training_start, transferred, with_classes
from tinysqueeze.pretrained.weights import WeightSet

__all__ = [
    "CAFFE",
    "SOURCES",
    "TORCHVISION",
    "FolderScore",
    "Guess",
    "Prediction",
    "Preprocess",
    "Skipped",
    "WeightSet",
    "classify",
    "evaluate_folder",
    "find_images",
    "frozen_paths",
    "labels_under",
    "load_weights",
    "named",
    "open_image",
    "plan_for",
    "read_class_names",
    "training_start",
    "transferred",
    "with_classes",
    "write_onnx",
    "write_safetensors",
    "write_torchvision",
]
