"""How much arithmetic a workload needs at the least, algorithm by algorithm."""

import numpy as np

from tinysqueeze.bench.workloads import Workload
from tinysqueeze.network.compose import leaves
from tinysqueeze.network.layers import Conv2D
from tinysqueeze.network.params import flatten

# Winograd's F(m×m, 3×3) does (m + 2)² products for m² pixels instead of 9 each (Lavin & Gray 2016).
SAVINGS = {"direct": 1.0, "2x2": 9 * 4 / 16, "4x4": 9 * 16 / 36}


def flops(workload: Workload) -> dict[str, float]:
    """Floating-point operations of one step, by algorithm for the 3x3 convolutions of stride 1.

    A multiply-add counts two. Only convolutions count: transforms, ReLUs and pools are what a perfect
    program would hide. A training step multiplies three times: for y, dweight and dx. The images
    need no dx, and have too few channels for Winograd to pay.
    """
    model = workload.model
    totals = dict.fromkeys(SAVINGS, 0.0)
    is_first = True
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
        is_first = False
    return totals
