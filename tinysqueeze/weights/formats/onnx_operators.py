"""What each ONNX operator becomes in our graph: one small function an operator, in a table.

The source is the ONNX operator specification (opset 9 to 18 and later where nothing changed), and for
the fused ones ONNX Runtime's `docs/ContribOperators.md`.
"""

from collections.abc import Callable
from dataclasses import replace
from math import prod
from typing import Any

import numpy as np

from tinysqueeze.graph import Activate, Add, Conv, Copy, Drop, Mean, Node, Norm, Other, Pool
from tinysqueeze.network.layers import Flatten, Softmax
from tinysqueeze.network.window import Window
from tinysqueeze.weights.formats.onnx_graph import LARGEST_FILLED, Op, Reader
from tinysqueeze.weights.formats.onnx_window import sides, window_of

# --- convolutions and fully connected layers -----------------------------------------------------


def conv(read: Reader, op: Op) -> None:
    """Conv: weight (F, C / groups, KH, KW) there."""
    (x, around), weight = read.with_padding(op), read.numbers(op, 1)
    if weight.ndim != 4:
        raise op.refused(f"a convolution over {weight.ndim - 2} dimensions", "images have two")
    height, width, channels = read.size(x)
    filters, depth, *kernel = weight.shape
    groups = op.take("group", 1)
    if sides(op, "kernel_shape", (kernel[0], kernel[1])) != tuple(kernel):
        raise op.refused(f"kernel_shape is not the weight's {tuple(kernel)}")
    if groups < 1 or depth * groups != channels:
        raise op.refused(f"a weight for {depth} channels in {groups} groups on {channels} channels")
    window, _ = window_of(op, (kernel[0], kernel[1]), (height, width), pool=False, around=around)
    arrays = {"weight": weight.transpose(2, 3, 1, 0)} | _bias(read, op, 2, filters)
    shape: tuple[int, ...] = (*window.out_size(height, width), filters)
    if len(read.shapes[x]) == 1:
        if not window.is_pointwise or groups > 1:
            raise op.refused("a convolution of windows or groups on a single pixel")
        arrays["weight"], shape = arrays["weight"][0, 0], (filters,)
    read.add(op, x, shape, Conv, window, filters, "bias" in arrays, groups, **arrays)


def _bias(read: Reader, op: Op, index: int, filters: int) -> dict[str, np.ndarray]:
    if not read.has(op, index):
        return {}
    bias = read.numbers(op, index)
    if bias.size not in (1, filters):
        raise op.refused(f"a bias of shape {bias.shape} for {filters} filters")
    return {"bias": np.broadcast_to(bias.reshape(-1), (filters,))}


def fused_conv(read: Reader, op: Op) -> None:
    """ONNX Runtime's FusedConv: a convolution, perhaps plus another map, then an activation."""
    activation, parameters = op.take("activation", b""), op.take("activation_params", [])
    conv(read, op)
    if read.has(op, 3):
        first, second = read.maps[op.outputs[0]], read.source(op, 3)
        _sum(read, op, first, second)
    _activated(read, op, activation, parameters)


def _activated(read: Reader, op: Op, activation: bytes, parameters: Any) -> None:
    if (
        activation == b"Clip"
        and len(parameters) == 2
        and parameters[0] == 0
        and parameters[1] > 3e38
    ):
        activation = b"Relu"
    if activation == b"Relu":
        x = read.maps[op.outputs[0]]
        read.add(op, x, read.shapes[x], Activate, "relu")
    elif activation:
        raise op.refused(f"activation = {activation!r}", "only Relu is understood: optimise less")


def gemm(read: Reader, op: Op) -> None:
    """Gemm: x @ weight + bias, the weight perhaps transposed."""
    for name, plain in (("alpha", 1.0), ("beta", 1.0), ("transA", 0)):
        op.expect(name, plain)
    activation = op.take("activation", b"") if op.kind == "FusedGemm" else b""
    weight = read.numbers(op, 1)
    _linear(read, op, weight.T if op.take("transB", 0) else weight, 2)
    _activated(read, op, activation, [])


def matmul(read: Reader, op: Op) -> None:
    """MatMul by a weight (C, F)."""
    _linear(read, op, read.numbers(op, 1), 2)


def _linear(read: Reader, op: Op, weight: np.ndarray, bias: int) -> None:
    x = read.source(op, plain=False)
    shape = read.shapes[x]
    if weight.ndim != 2 or len(shape) != 1 or weight.shape[0] != shape[0]:
        raise op.refused(f"a weight {weight.shape} on a map of {shape}", "flatten the map before")
    filters = weight.shape[1]
    if (
        x in read.flattened
    ):  # its rows run over channels, height, width; ours over height, width, channels
        height, width, channels = read.flattened[x]
        spread = weight.reshape(channels, height, width, filters)
        weight = spread.transpose(1, 2, 0, 3).reshape(-1, filters)
    arrays = {"weight": weight} | _bias(read, op, bias, filters)
    read.add(op, x, (filters,), Conv, Window.of(1), filters, "bias" in arrays, **arrays)


def batch_norm(read: Reader, op: Op) -> None:
    """BatchNormalization outside training."""
    op.expect("training_mode", 0)
    op.expect("spatial", 1)
    op.take("momentum", 0.9)
    x, eps = read.source(op), op.take("epsilon", 1e-5)
    names = ("weight", "bias", "mean", "var")
    arrays = {name: read.numbers(op, i) for i, name in enumerate(names, 1)}
    channels = read.size(x)[2]
    if any(array.shape != (channels,) for array in arrays.values()):
        raise op.refused(f"arrays of another shape than ({channels},)")
    eps = float(np.format_float_positional(np.float32(eps)))  # 1e-5, not 9.999999747378752e-06
    read.add(op, x, read.shapes[x], Norm, eps, 0.1, **arrays)


# --- activations, sums, concatenations -----------------------------------------------------------


def relu(read: Reader, op: Op) -> None:
    """Relu."""
    _elementwise(read, op, Activate, "relu")


def hard_swish(read: Reader, op: Op) -> None:
    """HardSwish (opset 14)."""
    _elementwise(read, op, Activate, "hard-swish")


def _elementwise(
    read: Reader, op: Op, make: Callable[..., Node], *how: Any, index: int = 0
) -> None:
    x = read.source(op, index, plain=False)
    if op.inputs[index] in read.last:
        read.last.add(op.outputs[0])
    y = read.add(op, x, read.shapes[x], make, *how)
    if x in read.flattened:
        read.flattened[y] = read.flattened[x]


def clip(read: Reader, op: Op) -> None:
    """Clip from 0 upwards is a ReLU; its bounds are attributes, and inputs from opset 11 on."""
    low, high = op.take("min", None), op.take("max", None)
    if read.has(op, 1):
        low = read.constant(op, 1).item() if read.constant(op, 1).size == 1 else None
    if read.has(op, 2):
        high = read.constant(op, 2).item() if read.constant(op, 2).size == 1 else 0
    if low != 0 or (high is not None and high < 3e38):
        raise op.refused(
            f"it cuts to {low} to {high}", "only a lower bound of 0, a ReLU, is understood"
        )
    relu(read, op)


def hard_sigmoid(read: Reader, op: Op) -> None:
    """HardSigmoid of 1/6 and 1/2, times what it read, is a hard-swish; `mul` puts them together."""
    alpha, beta = op.take("alpha", 0.2), op.take("beta", 0.5)
    if abs(alpha - 1 / 6) > 1e-6 or beta != 0.5:
        raise op.refused(f"alpha {alpha:g}, beta {beta:g}", "only a hard-swish's 1/6 and 1/2 are")
    read.source(op, plain=False)
    read.gates[op.outputs[0]] = op.inputs[0]


def mul(read: Reader, op: Op) -> None:
    """Mul: only as the second half of a hard-swish."""
    for gate, index in ((0, 1), (1, 0)):
        if read.gates.get(op.inputs[gate]) == op.inputs[index]:
            _elementwise(read, op, Activate, "hard-swish", index=index)
            return
    raise op.refused("a product is only understood in a hard-swish", "scale the weights instead")


def add(read: Reader, op: Op) -> None:
    """Add and Sum of two: of two maps, or a bias on what a convolution or product gave."""
    if len(op.inputs) != 2:
        raise op.refused(f"a sum of {len(op.inputs)}", "add two at a time")
    held = [i for i in (0, 1) if op.inputs[i] in read.constants]
    if not held:
        _sum(read, op, read.source(op, 0), read.source(op, 1))
        return
    before = read.writer(op, 1 - held[0])
    if before is None or before.bias:
        raise op.refused("a constant is only added to a convolution or product without bias")
    bias = read.numbers(op, held[0])
    channels_at = -1 if len(read.shapes[before.target]) == 1 else -3
    if bias.size > 1 and (bias.ndim < -channels_at or bias.shape[channels_at] != bias.size):
        raise op.refused(
            f"a constant of shape {bias.shape} is no bias of {before.filters} channels"
        )
    read.flat |= {f"{before.path}/bias": _bias(read, op, held[0], before.filters)["bias"]}
    read.nodes[read.nodes.index(before)] = replace(before, bias=True)
    read.maps[op.outputs[0]] = before.target


def _sum(read: Reader, op: Op, first: int, second: int) -> None:
    shape = read.shapes[first]
    if shape != read.shapes[second]:
        raise op.refused(f"maps of {shape} and {read.shapes[second]}", "only alike ones are added")
    read.add(op, first, shape, Add, second)


def concat(read: Reader, op: Op) -> None:
    """Concat of channels."""
    arms = [read.source(op, i) for i in range(len(op.inputs))]
    shapes = [read.shapes[arm] for arm in arms]
    axis = op.take("axis", None)
    if axis not in (1, 1 - (len(shapes[0]) + 1)):
        raise op.refused(f"axis = {axis}", "only channels, axis 1, are joined")
    if any(shape[:-1] != shapes[0][:-1] for shape in shapes):
        raise op.refused(f"maps of {', '.join(map(str, shapes))}")
    widths = [shape[-1] for shape in shapes]
    target, path = read.new(op, (*shapes[0][:-1], sum(widths))), read.path(op)
    for i, arm in enumerate(arms):
        read.nodes.append(Copy(path, arm, target, offset=sum(widths[:i])))
    read.maps[op.outputs[0]] = target


# --- pools ---------------------------------------------------------------------------------------


def max_pool(read: Reader, op: Op) -> None:
    """MaxPool, without its indices."""
    op.expect("storage_order", 0)
    x = read.source(op)
    height, width, channels = read.size(x)
    window, _ = window_of(op, sides(op, "kernel_shape", (0, 0)), (height, width), pool=True)
    if not _of_one_pixel(read, op, x, window):
        read.add(op, x, (*window.out_size(height, width), channels), Pool, window)


def _of_one_pixel(read: Reader, op: Op, x: int, window: Window) -> bool:
    """A pool of a (C,) map, which is one pixel, gives that pixel, or is refused."""
    if len(read.shapes[x]) == 3:
        return False
    if window.out_size(1, 1) != (1, 1):
        raise op.refused("a pool that makes many pixels of one")
    read.rename(op)
    return True


def average_pool(read: Reader, op: Op) -> None:
    """AveragePool; padding counts or not."""
    counts = bool(op.take("count_include_pad", 0))
    x, around = read.with_padding(op)
    height, width, channels = read.size(x)
    kernel = sides(op, "kernel_shape", (0, 0))
    window, even = window_of(op, kernel, (height, width), pool=True, around=around)
    if counts and not even:
        raise op.refused("count_include_pad with pads that differ at opposite sides")
    if around != (0, 0):
        if window.pad != around and not counts:
            raise op.refused("padding of its own that does not count, around padding that does")
        counts = True
    if window.kernel == (height, width) and window.pad == (0, 0):
        global_average(read, op)
        return
    if len(read.shapes[x]) == 1 and counts and window.area > 1:
        raise op.refused(
            "an average of one pixel and padding", "count_include_pad = 0, or leave it out"
        )
    if _of_one_pixel(read, op, x, window):
        return
    plain = counts or (window.pad == (0, 0))  # what hangs over the edge never counts
    read.add(op, x, (*window.out_size(height, width), channels), Pool, window, True, plain)


def global_average(read: Reader, op: Op) -> None:
    """GlobalAveragePool: a single pixel is (C,) here, whatever it is there."""
    x = read.source(op)
    if len(read.shapes[x]) == 1:
        read.rename(op)
    else:
        read.add(op, x, (read.size(x)[2],), Mean)


def reduce_mean(read: Reader, op: Op) -> None:
    """ReduceMean over height and width; its axes are an input from opset 18 on."""
    axes = read.constant(op, 1).tolist() if read.has(op, 1) else op.take("axes", [])
    op.take("keepdims", 1)
    op.expect("noop_with_empty_axes", 0)
    if sorted(axis % 4 for axis in axes) != [2, 3] or len(read.shapes[read.source(op)]) != 3:
        raise op.refused(
            f"axes = {axes}", "only the mean over height and width, 2 and 3, is understood"
        )
    global_average(read, op)


def pad(read: Reader, op: Op) -> None:
    """Pad by zeros, alike at opposite sides: part of the window that looks at it next."""
    op.expect("mode", b"constant")
    pads = read.constant(op, 1).reshape(-1).tolist() if read.has(op, 1) else op.take("pads", [])
    fill = read.constant(op, 2).reshape(-1).tolist() if read.has(op, 2) else [op.take("value", 0.0)]
    x = read.source(op)
    if len(read.shapes[x]) != 3 or len(pads) != 8 or read.has(op, 3) or any(fill):
        raise op.refused(f"pads {pads} with {fill}", "only zeros around height and width are")
    begin, end = pads[:4], pads[4:]
    if begin != end or any(begin[:2]) or not 0 <= min(begin) <= max(begin) <= 255:
        raise op.refused(f"pads {pads}", "only alike ones at opposite sides are understood")
    if any(begin):
        read.padded[op.outputs[0]] = (x, (begin[2], begin[3]))
    else:
        read.rename(op)


# --- shapes, and what does nothing -----------------------------------------------------------------


def flatten(read: Reader, op: Op) -> None:
    """Flatten to (batch, numbers)."""
    if op.take("axis", 1) not in (1, -3):
        raise op.refused("only axis 1, everything but the batch, is understood")
    _flat(read, op)


def _flat(read: Reader, op: Op) -> None:
    x = read.source(op, plain=False)
    shape = read.shapes[x]
    if len(shape) == 1:
        read.rename(op)
        return
    y = read.add(op, x, (prod(shape),), Other, Flatten())
    if op.inputs[0] not in read.last and prod(shape[:2]) > 1:
        read.flattened[y] = shape


def reshape(read: Reader, op: Op) -> None:
    """Reshape to (batch, numbers), or of a single pixel."""
    kept = not op.take("allowzero", 0)  # does a 0 keep a side?
    if op.inputs[0] in read.constants:
        raise op.refused(
            "it reshapes a constant", "simplify the file (onnxsim, or constant folding)"
        )
    target = [int(n) for n in read.constant(op, 1).reshape(-1)]
    x = read.source(op, plain=False)
    whole = prod(read.shapes[x])
    rest = [n for n in target[1:] if n != 1]
    if (
        len(target) > 1
        and (kept or 0 not in target)
        and rest in ([whole], [-1], [0] if len(read.shapes[x]) == 1 else [whole])
    ):
        _flat(read, op)
        return
    raise op.refused(f"to {target}", f"only (batch, {whole}) is understood: use Flatten")


def squeeze(read: Reader, op: Op) -> None:
    """Squeeze of height and width, where they are one pixel."""
    axes = op.take("axes", None) or (read.constant(op, 1).tolist() if read.has(op, 1) else [2, 3])
    x = read.source(op, plain=False)
    if not {axis % 4 for axis in axes} <= {2, 3} or prod(read.size(x)[:2]) != 1:
        raise op.refused(f"axes = {axes} of a map of {read.shapes[x]}")
    _flat(read, op)


def transpose(read: Reader, op: Op) -> None:
    """Transpose: channels last, and back; or of one pixel, where nothing moves."""
    x, perm = read.source(op, plain=False), list(op.take("perm", []))
    is_last, name = op.inputs[0] in read.last, op.outputs[0]
    if perm in ([0, 1], [0, 1, 2, 3]):
        read.rename(op)
    elif len(read.shapes[x]) == 3 and perm == ([0, 3, 1, 2] if is_last else [0, 2, 3, 1]):
        read.maps[name] = x
        if not is_last:
            read.last.add(name)
    else:
        raise op.refused(f"perm = {perm} moves what stays in place here")


def softmax(read: Reader, op: Op) -> None:
    """Softmax over the classes."""
    axis, x = op.take("axis", 1 if read.opset < 13 else -1), read.source(op)
    shape = read.shapes[x]
    if prod(shape[:-1]) != 1 or axis not in ((1, -1) if len(shape) == 1 else (1, -3)):
        raise op.refused(f"axis = {axis} of a map of {shape}", "only the logits take a softmax")
    read.add(op, x, shape, Other, Softmax())


def dropout(read: Reader, op: Op) -> None:
    """Dropout, which does nothing outside training."""
    rate = float(op.take("ratio", 0.5))
    op.take("seed", 0)
    if read.has(op, 1) and read.constant(op, 1).size == 1:
        rate = read.constant(op, 1).item()
    if read.has(op, 2) and read.constant(op, 2).any():
        raise op.refused("training_mode is on", "export the network in evaluation mode")
    if not 0 <= rate < 1:
        raise op.refused(f"ratio = {rate}")
    _elementwise(read, op, Drop, rate)


def identity(read: Reader, op: Op) -> None:
    """Identity."""
    read.rename(op)


def constant(read: Reader, op: Op) -> None:
    """Constant: an array in an attribute."""
    for name in ("value", "value_float", "value_int", "value_floats", "value_ints"):
        if name in op.attributes:
            kind = np.float32 if "float" in name else None if name == "value" else np.int64
            read.constants[op.outputs[0]] = np.asarray(op.take(name, None), kind)
            return
    raise op.refused("a constant that is no array of numbers")


def constant_of_shape(read: Reader, op: Op) -> None:
    """ConstantOfShape: one number, many times; it takes no memory until it is known to fit."""
    value = op.take("value", np.zeros(1, np.float32))
    shape = tuple(int(n) for n in read.constant(op, 0).reshape(-1))
    read.filled += prod(shape)
    if min(shape, default=0) < 0 or read.filled > LARGEST_FILLED or value.size != 1:
        raise op.refused(
            f"a constant of {shape}: at most {LARGEST_FILLED:,} numbers in all are made"
        )
    read.constants[op.outputs[0]] = np.broadcast_to(value.reshape(()), shape)


OPERATORS = {
    ("", "Conv"): conv, ("", "Gemm"): gemm, ("", "MatMul"): matmul,
    ("com.microsoft", "FusedConv"): fused_conv, ("com.microsoft", "FusedGemm"): gemm,
    ("", "BatchNormalization"): batch_norm,
    ("", "Relu"): relu, ("", "Clip"): clip, ("", "HardSwish"): hard_swish,
    ("", "HardSigmoid"): hard_sigmoid, ("", "Mul"): mul,
    ("", "Add"): add, ("", "Sum"): add, ("", "Concat"): concat,
    ("", "MaxPool"): max_pool, ("", "AveragePool"): average_pool,
    ("", "Pad"): pad, ("", "GlobalAveragePool"): global_average, ("", "ReduceMean"): reduce_mean,
    ("", "Flatten"): flatten, ("", "Reshape"): reshape, ("", "Squeeze"): squeeze,
    ("", "Transpose"): transpose, ("", "Softmax"): softmax,
    ("", "Dropout"): dropout, ("", "Identity"): identity,
    ("", "Constant"): constant, ("", "ConstantOfShape"): constant_of_shape,
}  # fmt: skip
"""By domain and name."""
