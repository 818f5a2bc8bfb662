"""The panels about counting: a window's places, 1×1 against 3×3, a Fire, the design space, early or late."""

from typing import Any

from tinysqueeze.errors import UserError
from tinysqueeze.network.models import Fire, Model, squeezenet1_0
from tinysqueeze.network.window import Window
from tinysqueeze.show.pictures.charts import short, split_bars
from tinysqueeze.show.pictures.networks import fire_diagram, network_diagram
from tinysqueeze.show.pictures.style import Picture
from tinysqueeze.show.pictures.windows import places_along
from tinysqueeze.show.widgets.numbers import (
    RUNS,
    TIMED,
    WAYS,
    Timing,
    alexnet_megabytes,
    one_against_three,
    timings,
)
from tinysqueeze.show.widgets.panel import Choice, Panel, Slider
from tinysqueeze.study.count import count, count_layer
from tinysqueeze.study.formulas import by


def tell_places(size: int, kernel: int, stride: int, pad: int) -> str:
    """How many places a window has along one side: the formula with its numbers."""
    places, _ = Window.of(kernel, stride, pad).out_size(size, size)
    room = size + 2 * pad - kernel
    return (
        f"size + 2·padding − kernel = {size} + {2 * pad} − {kernel} = {room}\n"
        f"{room} / stride {stride} = {room / stride:g}, rounded down {room // stride}, plus 1: "
        f"{places} {'place' if places == 1 else 'places'}, so the output has {by(places, places)} numbers"
    )


def draw_places(size: int, kernel: int, stride: int, pad: int) -> Picture:
    """Each place."""
    return places_along(size, Window.of(kernel, stride, pad))


def window_places() -> Panel:
    """How large is the output? Drag the image's side, the kernel, the stride and the padding."""
    controls = {
        "size": Slider("image side (pixels)", 3, 16, 1, 8),
        "kernel": Slider("kernel", 1, 7, 1, 3),
        "stride": Slider("stride", 1, 4, 1, 1),
        "pad": Slider("padding", 0, 3, 1, 0),
    }
    return Panel("window_places", "A window's places", controls, tell_places, draw_places)


AXES = {
    "channels": "input channels", "filters": "filters", "size": "pixels a side",
    "percent3x3": "percent 3×3",
}  # fmt: skip


def tell_one_by_one(channels: int, filters: int, percent3x3: int, size: int) -> str:
    """All 1×1, a mix, all 3×3: parameters, multiply-adds, activation bytes, milliseconds if measured."""
    costs = one_against_three(channels, filters, percent3x3 / 100, size)
    lines = [f"{'':<10}{'parameters':>13}{'multiply-adds':>16}{'activation bytes':>18}"]
    lines += [
        f"{name:<10}{c.parameters:>13,}{c.multiply_adds:>16,}{c.activation_bytes:>18,}"
        for name, c in costs.items()
    ]
    one, three = costs["1×1 only"], costs["3×3 only"]
    lines.append(
        f"weights of a 3×3 filter: 9·{channels} = {9 * channels:,}; of a 1×1 filter: {channels:,}; "
        f"multiply-adds 3×3 / 1×1 = {three.multiply_adds / one.multiply_adds:.1f}"
    )
    times = _measured(channels, filters, percent3x3, size)
    words = (f"{name} {t.median:.2f} ({t.low:.2f} to {t.high:.2f})" for name, t in times.items())
    if times:
        lines.append(
            f"milliseconds on one thread, median of {RUNS} (and quartiles): {', '.join(words)}"
        )
    if len(times) < len(costs):
        where = "; ".join(f"{axis} {', '.join(map(str, TIMED[key]))}" for key, axis in AXES.items())
        missing = "your mix was" if times else "milliseconds were"
        lines.append(f"{missing} not measured at this setting; measured: {where}")
    return "\n".join(lines)


def draw_one_by_one(channels: int, filters: int, percent3x3: int, size: int) -> Picture:
    """The same as bars."""
    costs = one_against_three(channels, filters, percent3x3 / 100, size)
    times = _measured(channels, filters, percent3x3, size)
    measures: dict[str, dict[str, float]] = {
        "parameters": {name: c.parameters for name, c in costs.items()},
        "multiply-adds": {name: c.multiply_adds for name, c in costs.items()},
        "activation bytes": {name: c.activation_bytes for name, c in costs.items()},
    }
    if len(times) == len(costs):
        measures["milliseconds, measured"] = {name: t.median for name, t in times.items()}
    return split_bars(measures, "", f"{filters} filters over a {by(size, size, channels)} map")


def _measured(channels: int, filters: int, percent3x3: int, size: int) -> dict[str, Timing]:
    """What was timed at this very setting, by the names of `one_against_three`; none elsewhere."""
    parts = zip(WAYS, (0, percent3x3, 100), strict=True)
    found = {name: timings().get((channels, filters, size, part)) for name, part in parts}
    return {name: timing for name, timing in found.items() if timing is not None}


def one_by_one() -> Panel:
    """1×1 against 3×3: drag the channels, the filters, and the share of 3×3."""
    controls = {
        "channels": Slider("input channels", 8, 512, 8, 64),
        "filters": Slider("filters", 8, 512, 8, 128),
        "percent3x3": Slider("percent of them 3×3", 0, 100, 5, 50),
        "size": Slider("map size (pixels a side)", 7, 63, 4, 27),
    }
    found = {",".join(map(str, setting)): timing for setting, timing in timings().items()}
    data = {"axes": TIMED, "runs": RUNS, "milliseconds": found}
    return Panel("one_by_one", "1×1 against 3×3", controls, tell_one_by_one, draw_one_by_one, data)


def _fire(squeeze: int, expand1x1: int, expand3x3: int) -> tuple[Fire, str]:
    """A Fire of any configuration, and what Strategy 2 says of it."""
    try:
        return Fire(squeeze, expand1x1, expand3x3), "Strategy 2 holds"
    except UserError as error:
        refused = Fire(squeeze, expand1x1, expand3x3, allow_wide_squeeze=True)
        return refused, f"REFUSED. {error}"


def tell_fire(squeeze: int, expand1x1: int, expand3x3: int, channels: int, size: int) -> str:
    """What a Fire costs with its squeeze layer and without; one that breaks Strategy 2 is told off."""
    fire, verdict = _fire(squeeze, expand1x1, expand3x3)
    parameters = count_layer(fire, (size, size, channels)).parameters
    expand = expand1x1 + expand3x3
    direct = 9 * channels * expand3x3 + channels * expand1x1 + expand
    inside = squeeze / expand
    return (
        f"{parameters:,} parameters; the same expand filters without a squeeze layer: {direct:,} "
        f"({direct / parameters:.1f} times)\n"
        f"the 3×3 filters see {squeeze} channels, not {channels}; squeeze ratio {inside:.3f}\n{verdict}"
    )


def draw_fire(squeeze: int, expand1x1: int, expand3x3: int, channels: int, size: int) -> Picture:
    """One that breaks Strategy 2 is drawn too."""
    return fire_diagram(_fire(squeeze, expand1x1, expand3x3)[0], (size, size, channels))


def fire_designer() -> Panel:
    """Design a Fire: squeeze, expand1x1, expand3x3, with Strategy 2 enforced and explained."""
    controls = {
        "squeeze": Slider("squeeze 1×1 filters", 1, 192, 1, 16),
        "expand1x1": Slider("expand 1×1 filters", 0, 256, 8, 64),
        "expand3x3": Slider("expand 3×3 filters", 8, 256, 8, 64),
        "channels": Slider("input channels", 16, 512, 16, 96),
        "size": Slider("map size (pixels a side)", 7, 55, 6, 55),
    }
    return Panel("fire_designer", "The Fire designer", controls, tell_fire, draw_fire)


def _design(bypass: str, **metaparameters: Any) -> Model:
    chosen = None if bypass == "none" else bypass
    return squeezenet1_0(input_size=227, bypass=chosen, allow_wide_squeeze=True, **metaparameters)


def tell_design(**metaparameters: Any) -> str:
    """SqueezeNet with other metaparameters: parameters, megabytes, against AlexNet."""
    table = count(_design(**metaparameters))
    size = table.parameters * 4 / 1e6
    return (
        f"{table.parameters:,} parameters = {size:.2f} MB in float32; AlexNet has "
        f"{alexnet_megabytes():.1f} MB, {alexnet_megabytes() / size:.1f} times as much\n"
        f"{table.multiply_adds / 1e6:,.0f} million multiply-adds an image; "
        f"{table.total('activation_bytes') / 1e6:.1f} MB of activations\n"
        f"{table.share(3):.0%} of the parameters are in 3×3 filters, {table.share(1):.0%} in 1×1"
    )


def draw_design(**metaparameters: Any) -> Picture:
    """Its volumes."""
    return network_diagram(_design(**metaparameters))


def design_space() -> Panel:
    """The paper's design space (§5 and §6): every metaparameter, and what it costs."""
    controls: dict[str, Slider | Choice] = {
        "squeeze_ratio": Slider("squeeze ratio", 0.125, 1.0, 0.125, 0.125),
        "pct3x3": Slider("share of 3×3 (pct3x3)", 0.0, 1.0, 0.01, 0.5),
        "base_e": Slider("first expand filters (base_e)", 16, 256, 16, 128),
        "incr_e": Slider("more each step (incr_e)", 0, 256, 16, 128),
        "freq": Slider("fires a step (freq)", 1, 8, 1, 2),
        "bypass": Choice("bypass", ("none", "simple", "complex"), "none"),
    }
    data = {"alexnet": alexnet_megabytes()}
    return Panel("design_space", "The design space", controls, tell_design, draw_design, data)


def _with_pools(*after: int) -> Model:
    return squeezenet1_0(input_size=227, pools=tuple(sorted(set(after))))


def tell_pools(first: int, second: int, third: int) -> str:
    """SqueezeNet with its three pools elsewhere: same parameters, other maps, other work."""
    here, there = count(_with_pools(first, second, third)), count(squeezenet1_0(input_size=227))
    pools = sorted({first, second, third})
    bytes_here, bytes_there = here.activation_bytes, there.activation_bytes
    return (
        f"pools after layers {', '.join(map(str, pools))}: {here.parameters:,} parameters "
        f"({'unchanged' if here.parameters == there.parameters else 'changed'})\n"
        f"{here.multiply_adds / 1e6:,.0f} million multiply-adds "
        f"({here.multiply_adds / there.multiply_adds:.2f} times the paper's), "
        f"{short(bytes_here)}B of activations "
        f"({bytes_here / bytes_there:.2f} times)"
    )


def draw_pools(first: int, second: int, third: int) -> Picture:
    """Its volumes."""
    return network_diagram(_with_pools(first, second, third))


def early_or_late() -> Panel:
    """Early or late downsampling: drag the pools through the network (Strategy 3)."""
    controls = {
        name: Slider(f"{name} pool after layer", 1, 9, 1, start)
        for name, start in (("first", 1), ("second", 4), ("third", 8))
    }
    return Panel("early_or_late", "Early or late downsampling", controls, tell_pools, draw_pools)
