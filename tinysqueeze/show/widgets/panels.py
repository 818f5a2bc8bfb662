"""The panels about counting: a window's places, 1×1 against 3×3, a Fire, the design space, early or late."""

from typing import Any

from tinysqueeze.errors import UserError
from tinysqueeze.network.models import Fire, squeezenet1_0
from tinysqueeze.network.window import Window
from tinysqueeze.show.pictures.charts import short, split_bars
from tinysqueeze.show.pictures.networks import fire_diagram, network_diagram
from tinysqueeze.show.pictures.windows import places_along
from tinysqueeze.show.widgets.numbers import alexnet_megabytes, milliseconds, one_against_three
from tinysqueeze.show.widgets.panel import Choice, Panel, Shown, Slider
from tinysqueeze.study.count import count, count_layer
from tinysqueeze.study.formulas import by


def show_places(size: int, kernel: int, stride: int, pad: int) -> Shown:
    """How many places a window has along one side: the formula with its numbers, and each place."""
    window = Window.of(kernel, stride, pad)
    places, _ = window.out_size(size, size)
    room = size + 2 * pad - kernel
    text = (
        f"size + 2·padding − kernel = {size} + {2 * pad} − {kernel} = {room}\n"
        f"{room} / stride {stride} = {room / stride:g}, rounded down {room // stride}, plus 1: "
        f"{places} {'place' if places == 1 else 'places'}, so the output has {by(places, places)} numbers"
    )
    return text, places_along(size, window)


def window_places() -> Panel:
    """How large is the output? Drag the image's side, the kernel, the stride and the padding."""
    controls = {
        "size": Slider("image side (pixels)", 3, 16, 1, 8),
        "kernel": Slider("kernel", 1, 7, 1, 3),
        "stride": Slider("stride", 1, 4, 1, 1),
        "pad": Slider("padding", 0, 3, 1, 0),
    }
    return Panel(controls, show_places, "a window's places")


def show_one_by_one(channels: int, filters: int, percent3x3: int, size: int) -> Shown:
    """All 1×1, a mix, all 3×3: parameters, multiply-adds, activation bytes, milliseconds here."""
    share = percent3x3 / 100
    costs = one_against_three(channels, filters, share, size)
    times = {
        name: milliseconds(channels, filters, part, size)
        for name, part in zip(costs, (0.0, share, 1.0), strict=True)
    }
    lines = [
        f"{'':<10}{'parameters':>13}{'multiply-adds':>16}{'activation bytes':>18}{'ms here':>9}"
    ]
    lines += [
        f"{name:<10}{c.parameters:>13,}{c.multiply_adds:>16,}{c.activation_bytes:>18,}{times[name]:>9.2f}"
        for name, c in costs.items()
    ]
    one, three = costs["1×1 only"], costs["3×3 only"]
    lines.append(
        f"weights of a 3×3 filter: 9·{channels} = {9 * channels:,}; of a 1×1 filter: {channels:,}; "
        f"multiply-adds 3×3 / 1×1 = {three.multiply_adds / one.multiply_adds:.1f}"
    )
    measures: dict[str, dict[str, float]] = {
        "parameters": {name: c.parameters for name, c in costs.items()},
        "multiply-adds": {name: c.multiply_adds for name, c in costs.items()},
        "activation bytes": {name: c.activation_bytes for name, c in costs.items()},
        "milliseconds": times,
    }
    title = f"{filters} filters over a {by(size, size, channels)} map"
    return "\n".join(lines), split_bars(measures, "", title)


def one_by_one() -> Panel:
    """1×1 against 3×3: drag the channels, the filters, and the share of 3×3."""
    controls = {
        "channels": Slider("input channels", 8, 512, 8, 64),
        "filters": Slider("filters", 8, 512, 8, 128),
        "percent3x3": Slider("percent of them 3×3", 0, 100, 5, 50),
        "size": Slider("map size (pixels a side)", 7, 63, 4, 27),
    }
    return Panel(controls, show_one_by_one, "1×1 against 3×3")


def show_fire(squeeze: int, expand1x1: int, expand3x3: int, channels: int, size: int) -> Shown:
    """A Fire of any configuration; one that breaks Strategy 2 is drawn too, and told off."""
    shape = (size, size, channels)
    try:
        fire, verdict = Fire(squeeze, expand1x1, expand3x3), "Strategy 2 holds"
    except UserError as error:
        fire = Fire(squeeze, expand1x1, expand3x3, allow_wide_squeeze=True)
        verdict = f"REFUSED. {error}"
    parameters = count_layer(fire, shape).parameters
    expand = expand1x1 + expand3x3
    direct = 9 * channels * expand3x3 + channels * expand1x1 + expand
    inside = squeeze / expand
    text = (
        f"{parameters:,} parameters; the same expand filters without a squeeze layer: {direct:,} "
        f"({direct / parameters:.1f} times)\n"
        f"the 3×3 filters see {squeeze} channels, not {channels}; squeeze ratio {inside:.3f}\n{verdict}"
    )
    return text, fire_diagram(fire, shape)


def fire_designer() -> Panel:
    """Design a Fire: squeeze, expand1x1, expand3x3, with Strategy 2 enforced and explained."""
    controls = {
        "squeeze": Slider("squeeze 1×1 filters", 1, 192, 1, 16),
        "expand1x1": Slider("expand 1×1 filters", 0, 256, 8, 64),
        "expand3x3": Slider("expand 3×3 filters", 8, 256, 8, 64),
        "channels": Slider("input channels", 16, 512, 16, 96),
        "size": Slider("map size (pixels a side)", 7, 55, 6, 55),
    }
    return Panel(controls, show_fire, "the Fire designer")


def show_design(**metaparameters: Any) -> Shown:
    """SqueezeNet with other metaparameters: parameters, megabytes, against AlexNet."""
    bypass = metaparameters.pop("bypass")
    bypass = None if bypass == "none" else bypass
    model = squeezenet1_0(input_size=227, bypass=bypass, allow_wide_squeeze=True, **metaparameters)
    table = count(model)
    size = table.parameters * 4 / 1e6
    text = (
        f"{table.parameters:,} parameters = {size:.2f} MB in float32; AlexNet has "
        f"{alexnet_megabytes():.1f} MB, {alexnet_megabytes() / size:.1f} times as much\n"
        f"{table.multiply_adds / 1e6:,.0f} million multiply-adds an image; "
        f"{table.total('activation_bytes') / 1e6:.1f} MB of activations\n"
        f"{table.share(3):.0%} of the parameters are in 3×3 filters, {table.share(1):.0%} in 1×1"
    )
    return text, network_diagram(model)


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
    return Panel(controls, show_design, "the design space")


def show_pools(first: int, second: int, third: int) -> Shown:
    """SqueezeNet with its three pools elsewhere: same parameters, other maps, other work."""
    pools = tuple(sorted({first, second, third}))
    model, paper = squeezenet1_0(input_size=227, pools=pools), squeezenet1_0(input_size=227)
    here, there = count(model), count(paper)
    bytes_here, bytes_there = here.total("activation_bytes"), there.total("activation_bytes")
    text = (
        f"pools after layers {', '.join(map(str, pools))}: {here.parameters:,} parameters "
        f"({'unchanged' if here.parameters == there.parameters else 'changed'})\n"
        f"{here.multiply_adds / 1e6:,.0f} million multiply-adds "
        f"({here.multiply_adds / there.multiply_adds:.2f} times the paper's), "
        f"{short(bytes_here)}B of activations "
        f"({bytes_here / bytes_there:.2f} times)"
    )
    return text, network_diagram(model)


def early_or_late() -> Panel:
    """Early or late downsampling: drag the pools through the network (Strategy 3)."""
    controls = {
        name: Slider(f"{name} pool after layer", 1, 9, 1, start)
        for name, start in (("first", 1), ("second", 4), ("third", 8))
    }
    return Panel(controls, show_pools, "early or late downsampling")
