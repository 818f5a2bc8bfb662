"""Exercises of lessons 08 to 10 and 12: the Fire module, the strategies, whole networks, bypass."""

import numpy as np

from tinysqueeze.network.models import Fire, squeezenet1_0, squeezenet_cifar
from tinysqueeze.network.others import alexnet
from tinysqueeze.show.lessons.exercise import Exercise
from tinysqueeze.show.widgets import Stepper
from tinysqueeze.study.count import count, count_layer


def fire_parameters(channels: int, squeeze: int, expand1x1: int, expand3x3: int) -> int:
    """What a Fire trains, biases and all."""
    return count_layer(Fire(squeeze, expand1x1, expand3x3), (9, 9, channels)).parameters


def share_of_fires() -> float:
    """The part of all Fire parameters of v1.0 that sits in 3x3 filters."""
    rows = [r for r in count(squeezenet1_0()).rows if r.path.startswith("fire")]
    wide = sum(r.parameters for r in rows if r.path.endswith("expand3x3"))
    return wide / sum(r.parameters for r in rows)


def fully_connected_share() -> float:
    """The part of AlexNet's parameters in its last three layers."""
    table = count(alexnet())
    return sum(r.parameters for r in table.rows if r.kind == "Linear") / table.parameters


def late_over_early() -> float:
    """Multiply-adds of v1.0 over those of the same net with its pools after layers 1, 2, 3."""
    late, early = squeezenet1_0(input_size=227), squeezenet1_0(input_size=227, pools=(1, 2, 3))
    return count(late).multiply_adds / count(early).multiply_adds


def stops() -> int:
    """How many stops a stepper makes on squeezenet_cifar."""
    from tinysqueeze.network.params import initialise

    model = squeezenet_cifar()
    image = np.zeros((1, 32, 32, 3), np.float32)
    return len(Stepper(model, initialise(model), image, np.array([0])).stops)


def expand_filters(i: int, base_e: int, incr_e: int, freq: int) -> int:
    """e_i = base_e + incr_e * floor(i / freq), i from 0 (§5.1)."""
    return base_e + incr_e * (i // freq)


NETWORKS: dict[str, Exercise] = {
    "fire-parameters": Exercise(
        "write fire_parameters(channels, squeeze, expand1x1, expand3x3), biases included",
        fire_parameters,
        lambda rng: [(96, 16, 64, 64), (512, 64, 256, 256), (10, 3, 4, 8)],
        mistakes={
            "every filter has a bias as well": lambda c, s, e1, e3: (
                fire_parameters(c, s, e1, e3) - s - e1 - e3
            ),
            "the expand filters see the squeeze layer's channels, not the input's": lambda c, s, e1, e3: (
                c * s + s + c * e1 + e1 + 9 * c * e3 + e3
            ),
        },
        why="Three small convolutions: the expands see only the squeeze layer's channels, "
        "which keeps the 3×3 small.",
    ),
    "widest-squeeze": Exercise(
        "the widest squeeze layer that Strategy 2 allows before 64 + 64 expand filters?",
        127,
        mistakes={"narrower, not as wide as": 128, "the two expands count together": 64},
        why="Narrower than the 128 filters of both expands together, so that the 3×3 filters "
        "get fewer inputs.",
    ),
    "fire-share": Exercise(
        "what share of all Fire parameters of v1.0 sits in the 3×3 filters?",
        share_of_fires,
        tolerance=0.01,
        mistakes={"that is the share of the *filters*; a 3×3 filter is larger": 0.5},
        why="Half of the expand filters hold nine times the weights of the other half.",
    ),
    "conv-weights": Exercise(
        "write conv3x3_weights(inputs, filters): Strategy 2's formula, no biases",
        lambda inputs, filters: inputs * filters * 9,
        lambda rng: [(16, 64), (128, 64)],
        why="Inputs × filters × 9: a squeeze layer makes the first of the three small.",
    ),
    "all-3x3": Exercise(
        "how many parameters has squeezenet1_0 if every expand filter is 3×3?",
        lambda: count(squeezenet1_0(pct3x3=1.0)).parameters,
        mistakes={"that is with half of them 3×3": lambda: count(squeezenet1_0()).parameters},
        why="The expands' weights grow ninefold where they were 1×1: that is Strategy 1, undone.",
    ),
    "late-cost": Exercise(
        "how many times the multiply-adds of pools after layers 1, 2, 3 does v1.0 do (227×227)?",
        late_over_early,
        tolerance=0.01,
        mistakes={"the other way round": lambda: 1 / late_over_early()},
        why="The same filters run over larger maps. Late pools cost no parameters, but time.",
    ),
    "fifty-times": Exercise(
        "how many times the parameters of squeezenet1_0 has the paper's AlexNet (grouped)?",
        lambda: count(alexnet()).parameters / count(squeezenet1_0()).parameters,
        tolerance=0.01,
        why="About 50 times, before any compression: the paper's headline.",
    ),
    "fully-connected": Exercise(
        "what share of AlexNet's parameters sits in its fully connected layers?",
        fully_connected_share,
        tolerance=0.01,
        mistakes={"a share, from 0 to 1": lambda: 100 * fully_connected_share()},
        why="Nearly all. SqueezeNet has none of them: it averages over pixels instead.",
    ),
    "gradient-bytes": Exercise(
        "how many bytes of float32 gradient does a worker send each step, for squeezenet1_0?",
        lambda: 4 * count(squeezenet1_0()).parameters,
        mistakes={"a float32 has four bytes": lambda: count(squeezenet1_0()).parameters},
        why="A gradient is as large as the parameters: with fewer of them workers wait less "
        "for each other.",
    ),
    "simple-bypass": Exercise(
        "around which fires of v1.0 can a simple bypass go? a list of their numbers",
        np.array([3, 5, 7, 9]),
        accepts=lambda got, want: set(got.ravel()) == set(want) and got.size == want.size,
        mistakes={
            "x and body(x) are added: they need as many channels": np.arange(2, 10),
            "there the channels change: those need the complex bypass": np.array([2, 4, 6, 8]),
        },
        why="Where a Fire gives as many channels as it takes, input and output can be added "
        "as they are.",
    ),
    "complex-bypass": Exercise(
        "how many parameters does the complex bypass add to squeezenet1_0?",
        lambda: (
            count(squeezenet1_0(bypass="complex")).parameters - count(squeezenet1_0()).parameters
        ),
        mistakes={"that is the sum": lambda: count(squeezenet1_0(bypass="complex")).parameters},
        why="A 1×1 convolution for each Fire whose channels change: that is what the sum "
        "costs there.",
    ),
    "expand-filters": Exercise(
        "write expand_filters(i, base_e, incr_e, freq): §5.1's e_i, fires counted from 0",
        expand_filters,
        lambda rng: [(0, 128, 128, 2), (5, 128, 128, 2), (7, 64, 32, 3)],
        mistakes={"the number grows in steps: round down": lambda i, b, inc, f: b + inc * i / f},
        why="The number grows by incr_e after every freq Fires.",
    ),
    "stops": Exercise(
        "how many stops does a stepper make on squeezenet_cifar?",
        stops,
        why="Forward and backward stop at each layer, the Fires' parts included.",
    ),
}
