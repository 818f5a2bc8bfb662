"""The networks, as data: the Fire module, and SqueezeNet with its variants.

One recipe holds the paper's metaparameters; its defaults are SqueezeNet v1.0 and every variant is
written as its difference from that.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import prod
from typing import Annotated, Any, Literal, TypeVar

from tinysqueeze.errors import ShapeError, UserError
from tinysqueeze.network.compose import Block, Chain, Children, Concat, Residual, Rewritten, leaves
from tinysqueeze.network.layers import (
    BatchNorm,
    Conv2D,
    Dropout,
    GlobalAvgPool2D,
    HardSwish,
    Layer,
    MaxPool2D,
    ReLU,
    Shape,
)
from tinysqueeze.ranges import Range, checked, hints_of

MOST_PARAMETERS = 1 << 32  # 17 GB as float32: beyond that somebody mistyped, or means ill
Classes = Annotated[int, Range(1, 100_000)]
Pixels = Annotated[int, Range(1, 4096)]
Filters = Annotated[int, Range(1, 65_536)]
Side = Annotated[int, Range(1, 255)]  # of a window, or its stride
Pad = Annotated[int, Range(0, 255)]

Activation = Literal["relu", "hard-swish"]
ACTIVATIONS: dict[str, tuple[str, type[Layer]]] = {
    "relu": ("relu", ReLU), "hard-swish": ("swish", HardSwish),
}  # fmt: skip
"""By name: how its layers are called ("conv1_relu"), and what they are."""


Layers = list[tuple[str, Layer]]  # with their names, while a network is put together


def _activated(name: str, norm: bool, activation: str) -> Layers:
    """What follows the convolution `name`, named after it: a batch norm, if any, and the activation."""
    if activation not in ACTIVATIONS:
        raise UserError(f"activation is {' or '.join(map(repr, ACTIVATIONS))}, not {activation!r}")
    suffix, layer = ACTIVATIONS[activation]
    steps: Layers = [(f"{name}_norm", BatchNorm())] if norm else []
    return [*steps, (f"{name}_{suffix}", layer())]


@dataclass(frozen=True)
class Fire(Block):
    """A Fire module: a 1x1 squeeze layer feeds an expand layer of 1x1 and 3x3 filters (§3.2).

    Strategy 1: some of the expand filters are 1x1. Strategy 2: the squeeze layer is narrower than
    the expand layer, so that the 3x3 filters see few channels. `norm` puts a batch norm before each
    ReLU. With `linear_squeeze` neither follows the squeeze layer: a ReLU there loses what few channels
    cannot hold twice (Sandler et al., MobileNetV2: Inverted Residuals and Linear Bottlenecks, 2018,
    §3.2). `activation` "hard-swish" stands for ReLU (Howard et al., Searching for MobileNetV3, 2019,
    §5.2). Raises UserError where Strategy 2 is broken, unless `allow_wide_squeeze`.
    """

    squeeze: int
    expand1x1: int
    expand3x3: int
    norm: bool = False
    allow_wide_squeeze: bool = False
    linear_squeeze: bool = False
    activation: Activation = "relu"

    def __post_init__(self) -> None:
        if self.squeeze < 1 or min(self.expand1x1, self.expand3x3) < 0 or self.filters < 1:
            raise UserError(f"{self}: filter counts must be positive")
        if self.squeeze >= self.filters and not self.allow_wide_squeeze:
            raise UserError(
                f"Fire: the squeeze layer ({self.squeeze} filters) must be narrower than the expand "
                f"layer ({self.filters}): that is Strategy 2, fewer input channels to the 3x3 filters; "
                "pass allow_wide_squeeze=True to build it all the same"
            )

    @property
    def filters(self) -> int:
        """How many channels it hands out."""
        return self.expand1x1 + self.expand3x3

    @property
    def body(self) -> Layer:
        """Squeeze, ReLU (unless linear), both expands side by side, ReLU."""
        arms: Layers = []
        if self.expand1x1:
            arms += [("expand1x1", Conv2D(self.expand1x1, 1))]
        if self.expand3x3:
            arms += [("expand3x3", Conv2D(self.expand3x3, 3, pad=1))]
        steps: Layers = [("squeeze", Conv2D(self.squeeze, 1))]
        if not self.linear_squeeze:
            steps += _activated("squeeze", self.norm, self.activation)
        steps += [("", Concat(tuple(arms)))]
        steps += _activated("expand", self.norm, self.activation)
        return Chain(tuple(steps))


@dataclass(frozen=True)
class Model(Block):
    """A whole network: its name, its steps, the images it expects, and the spec that rebuilds it.

    Its output is the logits, (N, classes). `spec` is a JSON-able dict for `build`.
    """

    name: str
    steps: Children
    input_shape: Shape
    spec: dict[str, Any] = field(compare=False)

    @property
    def body(self) -> Layer:
        """The chain of all steps."""
        return Chain(self.steps)

    def with_children(self, children: Children) -> Layer:
        """The same network of rewritten steps."""
        inside = children[0][1]
        if isinstance(inside, Chain):
            return replace(self, steps=inside.steps)
        return Rewritten(self.name, inside)

    @property
    def classes(self) -> int:
        """How many logits it gives."""
        return self.out_shape(self.input_shape)[0]

    def at(self, input_size: int | None) -> "Model":
        """The same network for square images of another size (no convolution depends on it)."""
        if input_size is None:
            return self
        size = checked(self.name, METAPARAMETERS, {"input_size": input_size})["input_size"]
        shape = (size, size, self.input_shape[2])
        return passable(replace(self, input_shape=shape, spec=self.spec | {"input_size": size}))

    def with_changes(self, **changes: Any) -> "Model":
        """The network that its recipe gives after some changes: `with_changes(bypass="simple")`.

        It is built anew from `spec`: what `map_layers` rewrote is not kept.
        """
        return build(self.spec | changes)


@dataclass(frozen=True)
class SqueezeNet:
    """SqueezeNet's metaparameters (§5.1); the defaults are v1.0 of the paper.

    Fire i (from 0) has e = base_e + incr_e * (i // freq) expand filters, a share pct3x3 of them
    3x3, and squeeze_ratio * e squeeze filters. `pools` names the layers that a max-pool follows
    (Strategy 3: late). `bypass` is "simple" (around each Fire whose input and output are alike) or
    "complex" (a 1x1 convolution around the others as well). `norm` puts a batch norm before each
    ReLU but conv10's, and after the convolution of a complex bypass. `linear_squeeze` leaves the squeeze
    layers without norm and ReLU. `activation` "hard-swish" takes the place of every ReLU but that after
    conv10. `final_relu` is the latter, which the authors have; without it a network trains more surely,
    since it can't fall silent. Raises UserError for a value of another type or out of its range.
    """

    classes: Classes = 1000
    input_size: Pixels = 224
    input_channels: Annotated[int, Range(1, 4096)] = 3
    stem_filters: Filters = 96
    stem_kernel: Side = 7
    stem_stride: Side = 2
    stem_pad: Pad = 0
    pool_kernel: Side = 3
    pools: Annotated[tuple[Annotated[int, Range(1, 65)], ...], Range(0, 65)] = (1, 4, 8)
    fires: Annotated[int, Range(1, 64)] = 8
    base_e: Filters = 128
    incr_e: Annotated[int, Range(-65_536, 65_536)] = 128
    freq: Annotated[int, Range(1, 10_000)] = 2
    pct3x3: Annotated[float, Range(0, 1)] = 0.5
    squeeze_ratio: Annotated[float, Range(0, 8)] = 0.125
    bypass: Literal["simple", "complex"] | None = None
    norm: bool = False
    dropout: Annotated[float, Range(0, 1, below=True)] = 0.5
    conv10_pad: Pad = 0
    final_relu: bool = True
    allow_wide_squeeze: bool = False
    linear_squeeze: bool = False
    activation: Activation = "relu"

    def __post_init__(self) -> None:
        for name, value in checked("SqueezeNet", METAPARAMETERS, vars(self)).items():
            object.__setattr__(self, name, value)
        wrong = [p for p in self.pools if not 1 <= p <= self.fires + 1]
        if wrong:
            raise UserError(f"pools follow layers 1 to {self.fires + 1}, not {wrong}")

    def fire(self, i: int) -> Fire:
        """The i-th Fire module, counted from 0 (the paper's fire{i + 2})."""
        expand = self.base_e + self.incr_e * (i // self.freq)
        wide = round(self.pct3x3 * expand)
        squeeze = max(1, round(self.squeeze_ratio * expand))
        return Fire(
            squeeze, expand - wide, wide, self.norm, self.allow_wide_squeeze, self.linear_squeeze,
            self.activation,
        )  # fmt: skip

    def steps(self) -> Children:
        """The network, layer by layer, with the paper's names."""
        stem = Conv2D(self.stem_filters, self.stem_kernel, self.stem_stride, self.stem_pad)
        steps: Layers = [("conv1", stem)]
        steps += _activated("conv1", self.norm, self.activation)
        steps += self._pool_after(1)
        channels = self.stem_filters
        for i in range(self.fires):
            fire = self.fire(i)
            steps += [(f"fire{i + 2}", self._bypassed(fire, channels))]
            steps += self._pool_after(i + 2)
            channels = fire.filters
        last = self.fires + 2
        if self.dropout:
            steps += [(f"drop{last - 1}", Dropout(self.dropout))]
        steps += [(f"conv{last}", Conv2D(self.classes, 1, pad=self.conv10_pad))]
        if self.final_relu:
            steps += [(f"conv{last}_relu", ReLU())]
        steps += [(f"pool{last}", GlobalAvgPool2D())]
        return tuple(steps)

    def _pool_after(self, layer: int) -> Layers:
        pool = MaxPool2D(self.pool_kernel, stride=2, ceil=True)
        return [(f"pool{layer}", pool)] if layer in self.pools else []

    def _bypassed(self, fire: Fire, channels: int) -> Layer:
        if self.bypass and channels == fire.filters:
            return Residual(fire)
        if self.bypass != "complex":
            return fire
        conv = Conv2D(fire.filters, 1)
        return Residual(fire, Chain((("conv", conv), ("norm", BatchNorm()))) if self.norm else conv)


METAPARAMETERS = hints_of(SqueezeNet)
V1_1 = {"stem_filters": 64, "stem_kernel": 3, "pools": (1, 3, 5)}
CIFAR = {
    "classes": 10, "input_size": 32, "stem_kernel": 3, "stem_stride": 1, "stem_pad": 1,
    "pool_kernel": 2, "dropout": 0.0, "final_relu": False,
}  # fmt: skip


Maker = TypeVar("Maker", bound=Callable[..., Model])
MODELS: dict[str, Callable[..., Model]] = {}
"""What `build` knows, by name; AlexNet and VGG-16 come from `others`."""


def known(make: Maker) -> Maker:
    """Decorate a function that makes a model of that name, so that `build` finds it."""
    MODELS[make.__name__] = make
    return make


def _squeezenet(name: str, differences: dict[str, Any], changes: dict[str, Any]) -> Model:
    changes = checked(name, METAPARAMETERS, changes)
    recipe = SqueezeNet(**differences | changes)
    spec = {"name": name} | {k: list(v) if isinstance(v, tuple) else v for k, v in changes.items()}
    size = recipe.input_size
    return passable(Model(name, recipe.steps(), (size, size, recipe.input_channels), spec))


def passable(model: Model) -> Model:
    """The model, if its images are large enough to pass through and its size is within reason."""
    try:
        inside = list(leaves(model, model.input_shape))
    except ShapeError as error:
        smallest = minimum_size(model)
        raise ShapeError(
            f"{model.name} needs images of at least {smallest}x{smallest} pixels, "
            f"got {model.input_shape[0]}x{model.input_shape[1]} ({error})"
        ) from None
    shapes = (s for _, layer, shape, _ in inside for s in layer.param_shapes(shape).values())
    parameters = sum(prod(shape) for shape in shapes)
    if parameters > MOST_PARAMETERS:
        raise UserError(
            f"{model.name} would have {parameters:,} parameters, more than {MOST_PARAMETERS:,}: "
            "ask for fewer filters, classes or pixels"
        )
    return model


def minimum_size(model: Model) -> int:
    """The smallest square image that passes through the network, in pixels a side."""
    for size in range(1, 512):
        try:
            model.body.out_shape((size, size, model.input_shape[2]))
        except ShapeError:
            continue
        return size
    raise ShapeError(f"{model.name}: no square image up to 511 pixels fits")


@known
def squeezenet1_0(classes: int = 1000, **changes: Any) -> Model:
    """SqueezeNet v1.0, as in the paper's Table 1: 1,248,424 parameters for 1,000 classes."""
    return _squeezenet("squeezenet1_0", {}, {"classes": classes} | changes)


@known
def squeezenet1_1(classes: int = 1000, **changes: Any) -> Model:
    """SqueezeNet v1.1, the authors' later release: 2.4 times fewer multiply-adds, same accuracy."""
    return _squeezenet("squeezenet1_1", V1_1, {"classes": classes} | changes)


@known
def squeezenet_cifar(classes: int = 10, **changes: Any) -> Model:
    """v1.0 for 32x32 images: a 3x3 stem of stride 1 and 2x2 pools, no dropout, no ReLU on the logits."""
    return _squeezenet("squeezenet_cifar", CIFAR, {"classes": classes} | changes)


def build(spec: str | dict[str, Any], **changes: Any) -> Model:
    """A model by name, or from the `spec` of another.

    Raises UserError for a name unknown, or a metaparameter unknown or out of its range.
    """
    if not isinstance(spec, str | dict):
        raise UserError(f"a spec is a name or a dict with a name, not a {type(spec).__name__}")
    chosen = ({"name": spec} if isinstance(spec, str) else spec) | changes
    name = chosen.pop("name", None)
    if not isinstance(name, str) or name not in MODELS:
        raise UserError(f"no model named {name!r}; there are {', '.join(MODELS)}")
    return MODELS[name](**chosen)
