"""Networks drawn at random: every metaparameter of SqueezeNet, and compositions that none gives.

`draw(seed)` is the one place where the tests' random networks come from: the same seed, the same
network, images, labels and way to run it. What cannot be built is drawn again, and why is counted.
"""

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from tinysqueeze.errors import ShapeError, UserError
from tinysqueeze.network.compose import Chain, Composition, Concat, Residual, walk
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
from tinysqueeze.network.models import Fire, Model, build
from tinysqueeze.network.others import GroupedConv2D
from tinysqueeze.network.params import shapes, unflatten

WIDTHS = (1, 2, 3, 5, 7, 8, 9, 12, 15, 16, 17, 24, 31, 32, 33)
"""Filter counts: around the vector widths 4, 8 and 16, and around twice those."""


@dataclass(frozen=True)
class Draw:
    """A network, what it is run on, and how: whole batches of `images` in a plan made for `batch`."""

    seed: int
    model: Model
    params: Params
    x: np.ndarray
    labels: np.ndarray
    batch: int
    threads: int
    precision: str
    smoothing: float
    refused: Counter[str] = field(default_factory=Counter)

    def __str__(self) -> str:
        size = "x".join(map(str, self.model.input_shape))
        spec = {k: v for k, v in self.model.spec.items() if k != "name"}
        what = spec if spec else self.model.steps
        return (
            f"network {self.seed}: {len(self.x)} images {size} of {self.batch}, {self.precision}, "
            f"{self.threads} threads, {what}"
        )


def draw(seed: int) -> Draw:
    """Network number `seed`: of six, four are SqueezeNets, one a composition and one a stack."""
    rng = np.random.default_rng([seed, 17])
    refused: Counter[str] = Counter()
    while True:
        try:
            model = (composition if seed % 6 == 2 else stack if seed % 6 == 5 else squeezenet)(rng)
            return drawn(seed, model, rng, refused)
        except (ShapeError, UserError) as error:
            refused[_reason(error)] += 1


def drawn(
    seed: int, model: Model, rng: np.random.Generator, refused: Counter[str] | None = None
) -> Draw:
    """Numbers for a model, and a way to run it. An example of one's own goes through here as well."""
    images = int(rng.integers(1, 10))
    x = rng.standard_normal((images, *model.input_shape)).astype(np.float32)
    labels: np.ndarray = rng.integers(0, model.classes, images)
    if rng.random() < 0.2:
        shares = rng.random((images, model.classes)) + 0.01
        labels = (shares / shares.sum(axis=1, keepdims=True)).astype(np.float32)
    return Draw(
        seed, model, lively(model, rng), x, labels,
        batch=images + int(rng.choice([0, 0, 1, 4])),
        threads=int(rng.integers(1, 5)),
        precision=str(rng.choice(["4x4", "2x2", "direct"])),
        smoothing=float(rng.choice([0.0, 0.1])),
        refused=Counter() if refused is None else refused,
    )  # fmt: skip


def _reason(error: Exception) -> str:
    text = str(error)
    for sign in ("needs an image", "needs images", "narrower", "arms must give", "body gives", "positive",
                 "half the kernel", "no square image", "divisible"):  # fmt: skip
        if sign in text:
            return sign
    return text.split(";")[0]


# --- SqueezeNets ------------------------------------------------------------------------------


def squeezenet(rng: np.random.Generator) -> Model:
    """Every field over its range; images need not be square. Raises where that can't be built."""

    def one_of(*values: Any) -> Any:
        return values[int(rng.integers(len(values)))]

    fires = int(rng.integers(1, 5))
    layers = range(1, fires + 2)
    changes = {
        "classes": int(rng.choice([1, 2, 3, 10, 16, 17])),
        "input_channels": int(rng.integers(1, 6)),
        "stem_filters": int(rng.choice(WIDTHS)),
        "stem_kernel": int(rng.integers(1, 8)),
        "stem_stride": int(rng.integers(1, 4)),
        "stem_pad": int(rng.integers(0, 4)),
        "pool_kernel": int(rng.integers(1, 5)),
        "pools": [i for i in layers if rng.random() < 0.4],
        "fires": fires,
        "base_e": int(rng.integers(2, 40)),
        "incr_e": int(rng.integers(-3, 24)),
        "freq": int(rng.integers(1, 4)),
        "pct3x3": one_of(0.0, 0.5, 1.0, float(rng.random())),
        "squeeze_ratio": one_of(0.125, 0.5, float(rng.uniform(0.05, 1.5))),
        "bypass": one_of(None, "simple", "complex"),
        "norm": bool(rng.integers(2)),
        "dropout": one_of(0.0, 0.0, 0.3, 0.5),
        "conv10_pad": one_of(0, 0, 1, 2),
        "final_relu": bool(rng.integers(2)),
        "allow_wide_squeeze": bool(rng.integers(2)),
        "linear_squeeze": bool(rng.integers(2)),
        "activation": one_of("relu", "relu", "hard-swish"),
    }
    name = one_of("squeezenet_cifar", "squeezenet1_0", "squeezenet1_1")
    height, width = (int(rng.integers(5, 36)) for _ in range(2))
    model = build(name, **changes, input_size=max(height, width))
    model = replace(model, input_shape=(height, width, model.input_shape[2]))
    model.out_shape(model.input_shape)
    return model


# --- compositions -----------------------------------------------------------------------------


def composition(rng: np.random.Generator) -> Model:
    """Layers in any order: a Residual in a Concat in a Chain, a layer without a kernel in the middle."""
    shape = (int(rng.integers(5, 20)), int(rng.integers(5, 20)), int(rng.integers(1, 6)))
    body, out = _chain(rng, shape, depth=2, length=int(rng.integers(2, 7)))
    classes = int(rng.integers(2, 12))
    if rng.random() < 0.3:
        head: list[tuple[str, Layer]] = [("flatten", Flatten()), ("fc", Linear(classes))]
    elif rng.random() < 0.5:
        head = [("mean", GlobalAvgPool2D()), ("fc", Linear(classes))]
    else:
        head = [("last", Conv2D(classes, 1)), ("mean", GlobalAvgPool2D())]
    model = Model("composition", (*body.steps, *head), shape, {})
    assert model.out_shape(shape) == (classes,), out
    return model


def _chain(rng: np.random.Generator, shape: Shape, depth: int, length: int) -> tuple[Chain, Shape]:
    steps: list[tuple[str, Layer]] = []
    for i in range(length):
        layer = _layer(rng, shape, depth)
        try:
            shape = layer.out_shape(shape)
        except ShapeError:
            continue
        steps.append((f"{type(layer).__name__.lower()}{i}", layer))
    return Chain(tuple(steps)), shape


def _layer(rng: np.random.Generator, shape: Shape, depth: int) -> Layer:
    kind = rng.choice(_PLAIN if depth == 0 else _PLAIN + _NESTED)
    pairs = [tuple(int(n) for n in rng.integers(low, high, 2)) for low, high in
             ((1, 4), (1, 3), (0, 2))]  # fmt: skip
    kernel, stride, pad = pairs
    width = int(rng.choice(WIDTHS))
    match kind:
        case "same":  # the usual convolution: any odd window that keeps the size
            size = int(rng.choice([1, 3, 3, 5]))
            return Conv2D(width, size, pad=size // 2, bias=bool(rng.random() < 0.8))
        case "conv":
            return Conv2D(width, kernel, stride, pad)
        case "groups":
            parts = int(rng.choice([g for g in (1, 2, 3) if shape[2] % g == 0]))
            return GroupedConv2D(parts * int(rng.integers(1, 6)), 3, groups=parts, pad=1)
        case "max":
            return MaxPool2D(kernel, stride, tuple(min(p, k // 2) for p, k in zip(pad, kernel, strict=True)),
                             bool(rng.integers(2)))  # fmt: skip
        case "average":
            return AvgPool2D(kernel, stride, 0, bool(rng.integers(2)))
        case "concat":
            arms = tuple((f"arm{i}", _shape_keeping(rng, shape, depth - 1)) for i in
                         range(int(rng.integers(1, 4))))  # fmt: skip
            return Concat(arms)
        case "fire":
            return Fire(width, int(rng.choice(WIDTHS)), int(rng.choice(WIDTHS)), bool(rng.integers(2)),
                        True, bool(rng.integers(2)))  # fmt: skip
        case "residual":
            return _residual(rng, shape, depth - 1)
    own = {"eps": 0.1, "momentum": 0.4} if width % 2 else {}
    return {
        "norm": BatchNorm(**own), "relu": ReLU(), "swish": HardSwish(), "dropout": Dropout(0.3),
    }[str(kind)]  # fmt: skip


_PLAIN = ["same", "same", "conv", "groups", "max", "average", "norm", "relu", "relu", "swish",
          "dropout"]  # fmt: skip
_NESTED = ["concat", "fire", "residual", "residual"]


def _shape_keeping(rng: np.random.Generator, shape: Shape, depth: int) -> Layer:
    """A chain, empty perhaps, that keeps height and width: an arm, or the inside of a bypass."""
    steps: list[tuple[str, Layer]] = []
    for i in range(int(rng.integers(0, 4))):
        layer = _layer(rng, shape, depth)
        try:
            after = layer.out_shape(shape)
        except ShapeError:
            continue
        if after[:2] == shape[:2]:
            steps.append((f"{type(layer).__name__.lower()}{i}", layer))
            shape = after
    return Chain(tuple(steps))


def _residual(rng: np.random.Generator, shape: Shape, depth: int) -> Layer:
    body = _shape_keeping(rng, shape, depth)
    assert isinstance(body, Chain)
    channels = body.out_shape(shape)[2]
    if channels == shape[2] and rng.random() < 0.6:
        return Residual(body)
    if rng.random() < 0.5:  # a bypass of its own
        return Residual(body, Conv2D(channels, 1))
    back: tuple[tuple[str, Layer], ...] = (("back", Conv2D(shape[2], 3, pad=1)),)
    tail: tuple[tuple[str, Layer], ...] = (("end", ReLU()),) if rng.random() < 0.5 else ()
    return Residual(Chain((*body.steps, *back, *tail)))


# --- stacks -----------------------------------------------------------------------------------


def stack(rng: np.random.Generator) -> Model:
    """Steps as kernels take them: arms, a norm, an activation, a bypass, a pool; some images are large."""
    large = rng.random() < 0.5
    low, high, widths = (33, 37, WIDTHS[:10]) if large else (5, 24, WIDTHS)
    shape: Shape = (*(int(rng.integers(low, high)) for _ in range(2)), int(rng.integers(1, 4)))
    image, layers = shape, list[Layer]()
    filters, active = int(rng.choice(widths)), [[], [ReLU()], [HardSwish()]][int(rng.integers(3))]
    if rng.random() < 0.4:  # three or four strides wide, as an image in phases is
        stride = int(rng.integers(2, 5))
        kernel = int(rng.integers(2 * stride + 1, 4 * stride + 1))
        layers.append(Conv2D(filters, kernel, stride, int(rng.integers(0, 4))))
    elif large:  # what comes first is not done by Winograd
        layers.append(Conv2D(filters, 3, pad=1))
    for _ in range(int(rng.integers(1, 4))):
        shape = Chain(_named(layers)).out_shape(image)
        layers += _fused(rng, shape, widths, active)
    channels = Chain(_named(layers)).out_shape(image)[2]
    head = [Conv2D(5, 1), GlobalAvgPool2D()] if rng.random() < 0.4 else [GlobalAvgPool2D()]
    classes = 5 if len(head) == 2 else channels
    # as logits, channels are averaged by panels; most networks need not have so many classes
    layers += [*head, Linear(4)] if classes > 20 and rng.random() < 0.7 else head
    model = Model("stack", _named(layers), image, {})
    model.out_shape(image)
    return model


def _named(layers: list[Layer]) -> tuple[tuple[str, Layer], ...]:
    return tuple((f"{type(layer).__name__.lower()}{i}", layer) for i, layer in enumerate(layers))


def _fused(
    rng: np.random.Generator, shape: Shape, widths: tuple[int, ...], active: list[Layer]
) -> list[Layer]:
    """One step: 1 to 3 convolutions side by side, and what may follow them."""
    count = int(rng.choice([1, 1, 1, 2, 2, 3]))
    filters = [int(n) for n in rng.choice(widths, count)]
    if rng.random() < 0.5 and shape[2] >= count:
        # as many as there were: a bypass needs no convolution
        filters = [shape[2] // count] * (count - 1)
        filters.append(shape[2] - sum(filters))
    sizes = rng.choice([1, 3, 3, 3, 5], count)
    convs: list[Layer] = [
        Conv2D(f, int(k), pad=int(k) // 2) for f, k in zip(filters, sizes, strict=True)
    ]
    body = [Concat(_named(convs)) if count > 1 else convs[0]]
    body += [BatchNorm()] if rng.random() < 0.4 else []
    body += active if rng.random() < 0.8 else []
    if rng.random() < 0.4:
        around = () if sum(filters) == shape[2] else (Conv2D(sum(filters), 1),)
        body = [Residual(Chain(_named(body)), *around)]
    pools = [MaxPool2D(3, 2), MaxPool2D(3, 2, 1), MaxPool2D(3, 2, ceil=True), MaxPool2D(3, 1, 1),
             MaxPool2D(2, 2, ceil=True), MaxPool2D((3, 2), (1, 3))]  # fmt: skip
    return body + ([pools[int(rng.integers(len(pools)))]] if rng.random() < 0.6 else [])


# --- numbers ----------------------------------------------------------------------------------


def lively(model: Model, rng: np.random.Generator) -> Params:
    """Parameters of which none is 0 or 1, so that a forgotten one shows; a norm's scale may be negative."""
    flat: dict[str, np.ndarray] = {}
    for path, shape in shapes(model).items():
        name = path.rpartition("/")[2]
        if name in ("bias", "mean"):
            array = rng.standard_normal(shape) * 0.2
        elif name == "var":
            array = rng.uniform(0.5, 2, shape)
        elif len(shape) == 1:  # a norm's scale
            array = rng.uniform(0.5, 2, shape) * rng.choice([-1, 1, 1, 1], shape)
        else:  # He's deviation keeps the size of activations
            array = rng.standard_normal(shape) * np.sqrt(2 / np.prod(shape[:-1]))
        flat[path] = array.astype(np.float32)
    return unflatten(flat)


def has(model: Model, kind: type[Layer]) -> bool:
    """Is there a layer of this kind anywhere in the model?"""
    return any(isinstance(layer, kind) for _, layer, *_ in walk(model, model.input_shape)
               if not isinstance(layer, Composition))  # fmt: skip
