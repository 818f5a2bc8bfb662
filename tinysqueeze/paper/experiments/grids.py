"""What each experiment varies, and what the paper found."""

from dataclasses import dataclass, field
from typing import Any

from tinysqueeze.errors import UserError
from tinysqueeze.network.models import Model, build


@dataclass(frozen=True)
class Point:
    """One network of a grid: its label, where it stands on the x axis, how it differs."""

    label: str
    x: float
    changes: dict[str, Any]


@dataclass(frozen=True)
class Experiment:
    """What is varied, what the paper found (ImageNet top-5, percent, by x), and where it says so.

    `base` is what all its networks share. All have batch norm, without which a few epochs say more
    about the start than about the network.
    """

    name: str
    question: str
    source: str
    axis: str
    points: tuple[Point, ...]
    paper: dict[float, float] = field(default_factory=dict)
    base: dict[str, Any] = field(default_factory=lambda: {"norm": True})

    @property
    def is_numeric(self) -> bool:
        """Is x a quantity, not only the place of a name?"""
        return all(point.label == f"{point.x:g}" for point in self.points)

    def network(self, point: Point, **changes: Any) -> Model:
        """The network of a point; `changes` are for all of them, and what is varied wins."""
        return build("squeezenet_cifar", **self.base | changes | point.changes)


def _numbers(name: str, values: tuple[float, ...], **changes: Any) -> tuple[Point, ...]:
    return tuple(Point(f"{v:g}", v, {name: v} | changes) for v in values)


def _named(**networks: dict[str, Any]) -> tuple[Point, ...]:
    pairs = enumerate(networks.items())
    return tuple(Point(label.replace("_", " "), i, changes) for i, (label, changes) in pairs)


# Half the filters, a quarter of the work: then all widths of these two fit an hour, and wide ones
# have the epochs they need.
HALF = {"norm": True, "base_e": 64, "incr_e": 64, "stem_filters": 48}

EXPERIMENTS = {
    e.name: e
    for e in (
        Experiment(
            "squeeze-ratio",
            "How much do wider squeeze layers gain?",
            "§5.2, Figure 3(a)",
            "squeeze ratio",
            _numbers("squeeze_ratio", (0.125, 0.25, 0.5, 0.75, 1.0), allow_wide_squeeze=True),
            {0.125: 80.3, 0.75: 86.0, 1.0: 86.0},
            HALF,
        ),
        Experiment(
            "pct3x3",
            "How many of the expand filters must be 3x3?",
            "§5.3, Figure 3(b)",
            "share of 3x3 filters in expand layers",
            _numbers("pct3x3", (0.01, 0.125, 0.25, 0.5, 0.75, 0.99), squeeze_ratio=0.5),
            {0.5: 85.6, 0.99: 85.3},
            HALF,
        ),
        Experiment(
            "bypass",
            "What does a bypass around Fire modules gain?",
            "§6, Table 3",
            "bypass",
            _named(none={}, simple={"bypass": "simple"}, complex={"bypass": "complex"}),
            {0: 80.3, 1: 82.5, 2: 82.0},
        ),
        Experiment(
            "downsampling",
            "Is it better to downsample late, at equal parameters?",
            "§3.1, Strategy 3; argued there, not measured",
            "pools after layers",
            _named(
                early_1_2_3={"pools": (1, 2, 3)},
                middle_1_3_5={"pools": (1, 3, 5)},
                paper_1_4_8={"pools": (1, 4, 8)},
                late_4_6_8={"pools": (4, 6, 8)},
            ),
        ),
        Experiment(
            "expand",
            "1x1 filters, 3x3 filters, or both?",
            "§3.1, Strategy 1",
            "expand layers",
            _named(all_1x1={"pct3x3": 0.0}, mixed={}, all_3x3={"pct3x3": 1.0}),
        ),
        Experiment(
            "growth",
            "Should filters grow from Fire to Fire, at equal parameters?",
            "§3.3, 'we gradually increase the number of filters per fire module'",
            "filters a Fire",
            _named(
                flat={"base_e": 348, "incr_e": 0},
                slow={"base_e": 245, "incr_e": 64},
                paper={"base_e": 128, "incr_e": 128},
            ),
        ),
    )
}


def find(name: str) -> Experiment:
    """An experiment by name. Raises UserError."""
    if name not in EXPERIMENTS:
        raise UserError(f"no experiment named {name!r}; there are {', '.join(EXPERIMENTS)}")
    return EXPERIMENTS[name]


def grid(experiment: Experiment, seeds: int) -> list[tuple[Point, int]]:
    """All (point, seed), a whole sweep of points before the next seed."""
    return [(point, seed) for seed in range(seeds) for point in experiment.points]
