"""How much arithmetic a workload needs at the least, algorithm by algorithm."""

import math

import numpy as np

from tinysqueeze.bench.workloads import Workload
from tinysqueeze.compiled.phases import taps_of
from tinysqueeze.compiled.steps import Map
from tinysqueeze.compiled.weights import strassen_pays
from tinysqueeze.network.compose import leaves
from tinysqueeze.network.layers import Conv2D
from tinysqueeze.network.params import flatten
from tinysqueeze.network.window import Window

# Winograd's F(m×m, 3×3) does (m + 2)² products for m² pixels instead of 9 each (Lavin & Gray 2016).
SAVINGS = {"direct": 1.0, "2x2": 9 * 4 / 16, "4x4": 9 * 16 / 36}
POSITIONS = 36  # of such a tile at 4x4, whose side is m + taps - 1


def flops(workload: Workload) -> dict[str, float]:
    """Floating-point operations of one step, by algorithm for the 3x3 convolutions of stride 1.

    At 4x4 a large stem counts as it is done in inference, in phases (`compiled.phases`), and a large
    last convolution of one image as seven eighths (`kernels.strassen`).

    A multiply-add counts two. Only convolutions count: transforms, ReLUs and pools are what a perfect
    program would hide. A training step multiplies three times: for y, dweight and dx. The images
    need no dx, and have too few channels for Winograd to pay.
    """
    model = workload.model
    totals = dict.fromkeys(SAVINGS, 0.0)
    is_first, saved = True, 0.0
    for _, layer, in_shape, out_shape in leaves(model, model.input_shape):
        if not isinstance(layer, Conv2D):
            continue
        fan_in = int(np.prod(flatten(layer.param_shapes(in_shape))["weight"][:-1]))
        products = (3 - is_first if workload.training else 1) * 2 * workload.batch
        direct = products * fan_in * float(np.prod(out_shape))
        for algorithm, saving in SAVINGS.items():
            applies = (
                layer.window.kernel == (3, 3) and layer.window.stride == (1, 1) and not is_first
            )
            totals[algorithm] += direct / saving if applies else direct
        if is_first and not workload.training:
            totals["4x4"] -= direct * (1 - _in_phases(layer.window))
        is_first = False
        height, width, channels = in_shape
        halves = strassen_pays(layer.window, Map.of(height, width, (channels,)), layer.filters)
        saved = direct / 8 if halves and workload.batch == 1 and not workload.training else 0
    totals["4x4"] -= saved  # the last one's
    return totals


def _in_phases(window: Window) -> float:
    """The share of multiplications that are left where the image is convolved in phases."""
    taps, stride = taps_of(window), window.stride[0]
    if stride == 1 or taps not in (3, 4):
        return 1.0
    m = math.isqrt(POSITIONS) - taps + 1
    return POSITIONS / m**2 * stride**2 / window.area
