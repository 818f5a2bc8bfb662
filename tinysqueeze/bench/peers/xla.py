"""JAX: the whole training step, or the whole network, under one jit. Channels last, as ours."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

Part = dict[str, Any]  # of a network's description: a node, or all of it
Arrays = dict[str, Any]  # by path
StepAndLogits = tuple[Callable[[], Any], Callable[[], Any]]


def forward(network: Part, params: Arrays, x: Any, training: bool) -> Any:
    """y, and the moved buffers of batch norms by path."""
    maps: dict = {0: x}
    moved: dict = {}
    for node in network["nodes"]:
        x, *more = (maps[number] for number in node["sources"])
        match node["kind"]:
            case "Concat":
                y = jnp.concatenate([x, *more], -1)
            case "Add":
                y = x + more[0]
            case "Mean":
                y = x.mean((1, 2))
            case "ReLU":
                y = jax.nn.relu(x)
            case "HardSwish":
                y = jax.nn.hard_swish(x)
            case "Pool":
                y = max_pool(node, x)
            case "Norm":
                y, buffers = batch_norm(node, params, x, training)
                moved |= buffers
            case "Conv":
                y = convolution(node, params, x)
        maps[node["target"]] = y
    return maps[network["output"]], moved


def convolution(part: Part, params: Arrays, x: Any) -> Any:
    """With its bias."""
    pads = [(p, p) for p in part["pad"]]
    weight, bias = params[f"{part['path']}/weight"], params[f"{part['path']}/bias"]
    letters = ("NHWC", "HWIO", "NHWC")
    return (
        lax.conv_general_dilated(x, weight, part["stride"], pads, dimension_numbers=letters) + bias
    )


def max_pool(part: Part, x: Any) -> Any:
    """Where the last window hangs over the edge ("ceil"), pad there."""
    pads = []
    for size, kernel, stride, pad in zip(
        x.shape[1:3], part["kernel"], part["stride"], part["pad"], strict=True
    ):
        span = size + 2 * pad - kernel
        over = -span % stride if part["ceil"] else 0
        pads.append((pad, pad + over))
    window, strides = (1, *part["kernel"], 1), (1, *part["stride"], 1)
    return lax.reduce_window(x, -jnp.inf, lax.max, window, strides, ((0, 0), *pads, (0, 0)))


def batch_norm(part: Part, params: Arrays, x: Any, training: bool) -> Any:
    """By the batch's statistics in training, by the running ones otherwise."""
    weight, bias, mean, var = (
        params[f"{part['path']}/{n}"] for n in ("weight", "bias", "mean", "var")
    )
    moved = {}
    if training:
        seen, spread = x.mean((0, 1, 2)), x.var((0, 1, 2))
        count, step = x.size / x.shape[-1], part["momentum"]
        moved[f"{part['path']}/mean"] = (1 - step) * mean + step * seen
        moved[f"{part['path']}/var"] = (1 - step) * var + step * spread * count / (count - 1)
        mean, var = seen, spread
    scale = weight * lax.rsqrt(var + part["eps"])
    return x * scale + (bias - mean * scale), moved


def prepare(task: Any) -> StepAndLogits:
    """Parameters stay in a dict by path; batch norm's buffers get no gradient."""
    params = {path: jnp.array(a) for path, a in task.params.items()}
    x, labels = jnp.array(task.images), jnp.array(task.labels)
    network, rate, momentum = task.network, task.learning_rate, task.momentum
    evaluate = jax.jit(lambda params, x: forward(network, params, x, False)[0])
    if not task.training:
        return (lambda: evaluate(params, x).block_until_ready()), (lambda: evaluate(params, x))

    buffers = {k: v for k, v in params.items() if k.endswith(("/mean", "/var"))}
    state = [{k: v for k, v in params.items() if k not in buffers}, buffers]
    state.append({k: jnp.zeros_like(v) for k, v in state[0].items()})

    def loss_of(params: Arrays, buffers: Any) -> Any:
        logits, moved = forward(network, params | buffers, x, True)
        log = jax.nn.log_softmax(logits)
        return -jnp.take_along_axis(log, labels[:, None], 1).mean(), moved

    @jax.jit
    def update(params: Arrays, buffers: Any, velocity: Any) -> Any:
        grads, moved = jax.grad(loss_of, has_aux=True)(params, buffers)
        velocity = {k: momentum * v + grads[k] for k, v in velocity.items()}
        return {k: p - rate * velocity[k] for k, p in params.items()}, buffers | moved, velocity

    def train() -> None:
        state[:] = jax.block_until_ready(update(*state))

    return train, (lambda: evaluate(state[0] | state[1], x))
