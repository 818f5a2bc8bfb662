"""A trained network that teaches another one: its answers become a part of the labels (distillation)."""

from dataclasses import dataclass

import numpy as np

from tinysqueeze.data import Normalise
from tinysqueeze.network.ops import reference
from tinysqueeze.training.engine import Predicts


@dataclass(frozen=True, eq=False)
class Teacher:
    """What it takes to ask a trained network: an engine that runs it, and how it wants its images.

    It sees the very images that its pupil sees, crops and all, and says how likely it thinks each class
    (Hinton, Vinyals and Dean, Distilling the Knowledge in a Neural Network, 2015, with temperature 1; Beyer
    et al., Knowledge Distillation: A Good Teacher Is Patient and Consistent, 2022, §3).
    """

    engine: Predicts
    normalise: Normalise

    def labels(
        self, images: np.ndarray, labels: np.ndarray, share: float, normalise: Normalise
    ) -> np.ndarray:
        """Labels (N, classes) float32, of which `share` is the teacher's answer, the rest the truth's.

        images (N, H, W, 3) float32 as `normalise` has made them; labels (N,) integers or (N, classes) shares.
        """
        if normalise != self.normalise:
            mean, std, own_mean, own_std = np.array(
                [normalise.mean, normalise.std, self.normalise.mean, self.normalise.std], np.float32
            )
            images = (images * std + mean - own_mean) / own_std
        answers = reference.softmax(self.engine.predict(images))
        truth = labels if labels.ndim == 2 else np.eye(answers.shape[1])[labels]
        return (share * answers + (1 - share) * truth).astype(np.float32)
