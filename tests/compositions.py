"""Networks to try everything on: hand-made compositions, and SqueezeNets drawn at random."""

from collections.abc import Callable

import numpy as np
from cases import make_params, small_params

from tinysqueeze.errors import ShapeError
from tinysqueeze.network.compose import Chain, Concat, Residual
from tinysqueeze.network.layers import (
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
    Params,
    ReLU,
    Shape,
)
from tinysqueeze.network.models import Fire, Model, squeezenet1_0
from tinysqueeze.network.others import GroupedConv2D


def chain(*layers: Layer) -> Chain:
    """Layers one after another, named a, b, c, ..."""
    return Chain(tuple(zip("abcdefghij", layers, strict=False)))


def beside(*arms: Layer) -> Concat:
    """Arms named a, b, c, ..."""
    return Concat(chain(*arms).steps)


SAME = Chain(())
CONV = Conv2D(3, 3, pad=1)  # keeps a map of 3 channels as it is
COMPOSED: dict[str, tuple[Layer, Shape]] = {
    "a bypass in a concat in a chain": (
        chain(Conv2D(4, 1), beside(Residual(Conv2D(4, 3, pad=1)), Conv2D(2, 1)), ReLU()), (5, 4, 3)
    ),
    "concats of concats": (
        beside(beside(Conv2D(1, 1), beside(Conv2D(2, 1), MaxPool2D(1, 1))), Conv2D(3, 1)), (3, 3, 2)
    ),
    "an arm that is only a ReLU": (beside(Conv2D(2, 1), ReLU()), (3, 4, 3)),
    "an arm that is nothing": (beside(SAME, Conv2D(2, 1), SAME), (3, 4, 3)),
    "nothing but nothing": (beside(SAME, SAME), (2, 2, 1)),
    "one arm": (chain(CONV, beside(SAME), beside(CONV)), (3, 4, 3)),
    "arms that end in a norm, a sum, dropout": (
        chain(beside(chain(CONV, BatchNorm()), Residual(CONV), chain(CONV, Dropout(0.3))), BatchNorm()),
        (4, 3, 3),
    ),
    "a held map copied into two concats": (
        Residual(chain(beside(SAME, CONV), beside(SAME, ReLU()), Conv2D(3, 1))), (4, 3, 3)
    ),
    "a bypass around a pool": (
        chain(CONV, Residual(MaxPool2D(3, 1, 1)), Residual(AvgPool2D(3, 1, 1))), (5, 5, 3)
    ),
    "a bypass whose body ends in an activation": (
        Residual(chain(CONV, BatchNorm(), HardSwish()), chain(CONV, ReLU())), (4, 4, 3)
    ),
    "a bypass around nothing": (chain(CONV, Residual(SAME), ReLU()), (4, 4, 3)),
    "nested bypasses": (
        Residual(chain(Residual(Residual(chain(ReLU(), Residual(CONV, CONV)), CONV))), SAME), (4, 4, 3)
    ),
    "ReLU before the bypass": (chain(CONV, ReLU(), Residual(chain(ReLU(), CONV)), ReLU()), (4, 4, 3)),
    "norms that follow no convolution": (
        chain(BatchNorm(), MaxPool2D(2, 2), BatchNorm(), CONV, BatchNorm(), BatchNorm(), ReLU(), BatchNorm()),
        (4, 6, 3),
    ),
    "a norm after a concat of convolution and pool": (
        chain(beside(CONV, MaxPool2D(3, 1, 1)), BatchNorm(), ReLU()), (4, 4, 3)
    ),
    "a norm whose source a bypass reads": (
        chain(CONV, Residual(chain(BatchNorm(), ReLU(), CONV))), (4, 4, 3)
    ),
    "a norm that writes an arm": (
        chain(beside(chain(beside(CONV, Conv2D(2, 1)), BatchNorm()), Conv2D(1, 1)), BatchNorm()), (3, 3, 3)
    ),
    "pools of every kind": (
        chain(MaxPool2D(3, 2, 1, True), AvgPool2D(2, 2, 1), AvgPool2D((3, 2), 2, ceil=True)), (13, 11, 2)
    ),
    "groups and no bias": (
        chain(GroupedConv2D(4, 3, groups=2, bias=False), BatchNorm(), GroupedConv2D(6, 1, groups=2),
              ReLU()), (5, 6, 2)
    ),
    "flatten and linear": (
        chain(CONV, Flatten(), Dropout(0.5), Linear(6), BatchNorm(), ReLU(), Linear(4, bias=False)),
        (4, 3, 3),
    ),
    "flatten and more than linear": (chain(CONV, Flatten(), BatchNorm(), Linear(2)), (2, 3, 3)),
    "flatten at the end": (chain(CONV, Flatten()), (2, 3, 3)),
    "flatten, an activation, two linear arms": (
        chain(Flatten(), HardSwish(), beside(Linear(2), chain(Linear(3), ReLU()))), (2, 3, 3)
    ),
    "flattened arms": (beside(Flatten(), chain(CONV, Flatten())), (2, 2, 3)),
    "a sum of flattened maps": (Residual(Linear(3), chain(Linear(3), ReLU())), (3,)),
    "an average over the whole map": (chain(CONV, AvgPool2D((4, 5), 1), Flatten(), Linear(2)), (4, 5, 3)),
    "an average larger than the map": (chain(AvgPool2D(2, 1, pad=1), Flatten()), (2, 2, 3)),
    "a mean in the middle": (chain(Conv2D(5, 1), GlobalAvgPool2D(), Linear(4), ReLU()), (4, 3, 3)),
    "means side by side": (beside(GlobalAvgPool2D(), chain(CONV, GlobalAvgPool2D())), (4, 3, 3)),
    "dropout at both ends, and in a row": (
        chain(Dropout(0.2), CONV, Dropout(0), Dropout(0.5), CONV, Dropout(0.1)), (4, 3, 3)
    ),
    "dropout on the way around": (Residual(CONV, chain(CONV, Dropout(0.2))), (4, 3, 3)),
    "a norm after an activation": (chain(CONV, ReLU(), BatchNorm(), ReLU()), (4, 3, 3)),
    "activations in a row": (chain(CONV, HardSwish(), ReLU(), BatchNorm(), HardSwish()), (4, 3, 3)),
    "dropout around a bypass": (Residual(chain(Dropout(0.2), CONV, Dropout(0.5))), (4, 3, 3)),
    "nothing at all": (SAME, (4, 3, 3)),
    "a Fire in a bypass in a chain": (
        chain(Residual(Fire(2, 3, 4, norm=True), Conv2D(7, 1)), Fire(2, 3, 0), GlobalAvgPool2D()), (4, 3, 3)
    ),
}  # fmt: skip


def composed(name: str) -> Model:
    layer, shape = COMPOSED[name]
    return Model(name, (("net", layer),), shape, {})


def drawn(seed: int) -> Model:
    """A SqueezeNet with every metaparameter drawn."""
    rng = np.random.default_rng(seed)

    def one(*choices: object) -> object:
        return choices[rng.integers(len(choices))]

    fires = int(rng.integers(1, 5))
    while True:
        try:
            return squeezenet1_0(
                classes=int(rng.integers(1, 7)),
                input_size=int(rng.integers(9, 33)),
                input_channels=one(1, 3, 4),
                stem_filters=int(rng.integers(1, 12)),
                stem_kernel=one(1, 2, 3, 7),
                stem_stride=one(1, 2, 3),
                stem_pad=one(0, 1, 3),
                pool_kernel=one(2, 3),
                pools=tuple(int(p) for p in range(1, fires + 2) if rng.random() < 0.4),
                fires=fires,
                base_e=int(rng.integers(2, 12)),
                incr_e=int(rng.integers(0, 6)),
                freq=one(1, 2, 3),
                pct3x3=one(0.0, 0.3, 0.5, 1.0),
                squeeze_ratio=one(0.1, 0.3, 0.6),
                bypass=one(None, "simple", "complex"),
                norm=one(False, True),
                dropout=one(0.0, 0.5),
                conv10_pad=one(0, 1),
                final_relu=one(False, True),
                allow_wide_squeeze=True,
                linear_squeeze=one(False, True),
                activation=one("relu", "hard-swish"),
            )  # type: ignore[arg-type]
        except ShapeError:
            continue  # the image was too small: draw again


MODELS: dict[str, Callable[[], Model]] = {
    name: lambda name=name: composed(name) for name in COMPOSED
} | {f"drawn {seed}": lambda seed=seed: drawn(seed) for seed in range(60)}


def params_of(model: Model, rng: np.random.Generator) -> Params:
    """Random float64 parameters, of which none is plain."""
    if model.name in COMPOSED:
        return make_params(model, model.input_shape, rng)
    return small_params(model, rng)


def with_logits(name: str, classes: int = 3) -> Model:
    """The same network behind a convolution and before a mean, or a linear layer: a classifier."""
    model = MODELS[name]()
    shape = model.input_shape
    before = Conv2D(shape[2], 1) if len(shape) == 3 else Linear(shape[0])
    after = model.out_shape(shape)
    head = chain(Conv2D(classes, 1), GlobalAvgPool2D()) if len(after) == 3 else Linear(classes)
    return Model(name, (("before", before), *model.steps, ("head", head)), shape, {"name": name})
