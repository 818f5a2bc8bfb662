"""A convolution with a stride as one without, of the image in phases: then Winograd can do it.

With stride 2 every window begins at an even row and column. So let each square of 2x2 pixels be one pixel
with four times the channels (its four *phases*): windows then move by one, and 7x7 taps become 4x4 of
12 channels, with zeros where the square reaches beyond the window. F(3x3, 4x4) multiplies 36 * 12 times
for 9 results, 48 each instead of 147.
"""

import math
from dataclasses import replace

from tinysqueeze.compiled.layout import Layout
from tinysqueeze.compiled.space import View, job
from tinysqueeze.compiled.steps import ConvStep, Map, PhaseStep, Step, StepList
from tinysqueeze.kernels.kernel import Job
from tinysqueeze.kernels.pointwise import phases
from tinysqueeze.network.window import Window


def in_phases(steps: StepList) -> StepList:
    """The same steps for inference, where the image is convolved in phases if that suits Winograd."""
    maps, made = dict(steps.maps), list[Step]()
    for step in steps.steps:
        if isinstance(step, ConvStep) and step.source == 0 and len(step.arms) == 1:
            (arm,), image, size = step.arms, maps[0], step.result
            taps, stride = taps_of(arm.window), arm.window.stride[0]
            if taps in (3, 4) and stride > 1:
                number = max(*maps, len(steps.graph.shapes)) + 1
                channels = (stride**2 * image.channels,)
                maps[number] = Map.of(size.height + taps - 1, size.width + taps - 1, channels)
                made.append(PhaseStep(step.name, (0,), number, arm.window))
                arm = replace(arm, window=Window.of(taps), phases=stride)
                step = replace(step, reads=(number, *step.reads[1:]), arms=(arm,))
        made.append(step)
    return replace(steps, maps=maps, steps=tuple(made))


def taps_of(window: Window) -> int:
    """Rows and columns of the window in squares; 0 where the window or its squares are no squares."""
    (high, wide), (down, right) = window.kernel, window.stride
    return math.ceil(high / down) if high == wide and down == right else 0


def phases_job(layout: Layout, step: PhaseStep, x: View, y: View, by_row: bool = False) -> Job:
    """The map of phases from the image; units are images, or rows of the map.

    Pixels at the edge that no window sees stay out: not a number times a zero weight is not a number.
    """
    image, over = layout.steps.maps[0], taps_of(step.window) - 1
    (stride, _), (pad_high, pad_wide), kernel = (
        step.window.stride,
        step.window.pad,
        step.window.kernel,
    )
    high = min(image.height, stride * (y.height - over - 1) + kernel[0] - pad_high)
    wide = min(image.width, stride * (y.width - over - 1) + kernel[1] - pad_wide)
    return job(
        phases, {"x": x, "y": y}, by_row=by_row, stride=stride, channels=image.channels,
        pad_high=pad_high, pad_wide=pad_wide, high=high, wide=wide, height=y.height, width=y.width,
    )  # fmt: skip
