"""From one task to another: keep the layers that see, replace the one that names."""

from dataclasses import replace
from typing import Any

import numpy as np

from tinysqueeze.data import Normalise
from tinysqueeze.errors import UserError
from tinysqueeze.graph import Conv, lower
from tinysqueeze.network.layers import Params
from tinysqueeze.network.models import Model
from tinysqueeze.network.params import check_fit, flatten, initialise, trained_shapes, unflatten
from tinysqueeze.weights.trained import WeightSet, describe


def with_classes(
    model: Model, params: Params, classes: int, seed: int = 0, **changes: Any
) -> tuple[Model, Params]:
    """The same network for another number of classes: only conv10 is new, all else is shared.

    The new conv10 begins as any last layer of `initialise` does: normal with deviation 0.01, as in
    the authors' train_val.prototxt, no bias. `changes` go to the recipe, for instance
    input_size=96 or final_relu=False (it learns more surely without the ReLU on its logits). Raises
    ShapeError where they change more than the head, or `params` are not `model`'s.
    """
    check_fit(model, params)
    other = model.with_changes(classes=classes, **changes)
    head = list(trained_shapes(other))[-1].split("/")[0]  # conv10, or fc8 for AlexNet
    fresh = flatten(initialise(other, seed))
    new = {path: array for path, array in fresh.items() if path.split("/")[0] == head}
    moved = unflatten(flatten(params) | new)
    check_fit(other, moved)
    return other, moved


def transferred(
    weights: WeightSet, classes: tuple[str, ...], seed: int = 0, **changes: Any
) -> WeightSet:
    """A weight set for classes of these names, ready to be fine-tuned; see `with_classes`."""
    model, params = with_classes(weights.model, weights.params, len(classes), seed, **changes)
    preprocess = weights.preprocess
    if model.input_shape[0] != preprocess.crop[0]:
        preprocess = preprocess.with_size(model.input_shape[0])
    return replace(
        weights,
        model=model,
        params=params,
        preprocess=preprocess,
        description=describe(model, f"conv10 new, the rest from {weights.description}"),
        classes=classes,
        wnids=(),
    )


def training_start(weights: WeightSet) -> tuple[Params, Normalise]:
    """The weight set as our trainer takes it: for RGB images, normalised as `data.Normalise` does.

    A network that was trained on BGR images gets the channels of its first weights turned round; it
    computes the same as before. Raises UserError for one that reads the image otherwise than by weights.
    """
    prep, params = weights.preprocess, weights.params
    mean, std = prep.mean, prep.std
    if prep.channels == "BGR":
        flat = flatten(params)
        stems = lower(weights.model).readers(0)
        if not all(isinstance(stem, Conv) and stem.groups == 1 for stem in stems):
            raise UserError(
                f"{weights.model.name} takes BGR images, and not only convolutions read them: its weights "
                "can't be turned round for RGB; export it for RGB images"
            )
        paths = [f"{stem.path}/weight" for stem in stems]
        turned = {path: np.ascontiguousarray(flat[path][:, :, ::-1]) for path in paths}
        params = unflatten(flat | turned)
        mean, std = mean[::-1], std[::-1]
    unit = prep.divide_by / 255  # `Normalise` counts from 0 to 1
    return params, Normalise(tuple(m * unit for m in mean), tuple(s * unit for s in std))
