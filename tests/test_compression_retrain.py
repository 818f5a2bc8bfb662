"""Training on after pruning and after sharing: both recover what they cost, and keep their form."""

import numpy as np

from tinysqueeze import data
from tinysqueeze.compression import prune, retrain
from tinysqueeze.compression.tensors import Dense, Shared, Tensor
from tinysqueeze.data import batches
from tinysqueeze.models import squeezenet_cifar
from tinysqueeze.params import flatten, initialise, unflatten
from tinysqueeze.stepwise import StepByStep
from tinysqueeze.train import Recipe, begin

TINY = {"base_e": 8, "incr_e": 8, "stem_filters": 8, "fires": 2, "pools": (1,)}


def test_pruned_weights_stay_pruned_while_the_others_learn() -> None:
    dataset = data.load("builtin", "train").subset(range(64))
    model = squeezenet_cifar(classes=len(dataset.classes), norm=True, **TINY)
    recipe = Recipe(epochs=6, batch_size=32, lr=0.05, average=0.5)
    training = begin(model, dataset, recipe, stepwise=True)
    engine = training.engine
    keep = prune.masks(flatten(engine.params), 0.6)
    reports = list(retrain.retrain(training, dataset, keep))
    assert training.finished
    assert reports[-1].loss < reports[0].loss
    for vector in (engine.vector, training.best_vector):
        for path, array in flatten(engine.views(vector)).items():
            if path in keep:
                assert not array[~keep[path]].any()
                assert array[keep[path]].all()


def test_codebooks_learn_and_codes_stay() -> None:
    dataset = data.load("builtin", "train").subset(range(64))
    model = squeezenet_cifar(classes=len(dataset.classes), norm=True, **TINY)
    engine = StepByStep(model)
    tensors: dict[str, Tensor] = {}
    rng = np.random.default_rng(0)
    for path, array in flatten(initialise(model)).items():
        if array.ndim > 1:
            codes = rng.integers(0, 8, array.shape).astype(np.int32)
            codebook = (rng.standard_normal(7) * array.std()).astype(np.float32)
            tensors[path] = Shared(codes, codebook)
        else:
            tensors[path] = Dense(array)
    feed = (batch for epoch in range(12) for batch in batches(dataset, 32, epoch=epoch))
    steps = list(retrain.finetune_codebooks(engine, tensors, feed, lr=0.02))
    losses, (_, last) = [loss for loss, _ in steps], steps[-1]
    assert np.mean(losses[-4:]) < np.mean(losses[:4])
    for path, tensor in tensors.items():
        if isinstance(tensor, Shared):
            found = last[path]
            assert isinstance(found, Shared)
            assert np.array_equal(found.codes, tensor.codes)
            assert not np.array_equal(found.codebook, tensor.codebook)
            assert len(np.unique(found.values())) <= 8
    assert model.forward(
        unflatten({p: t.values() for p, t in last.items()}), next(iter(batches(dataset, 4)))[0]
    )[0].shape == (4, len(dataset.classes))
