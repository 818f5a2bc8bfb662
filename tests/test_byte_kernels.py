"""The kernels of bytes against NumPy, on shapes that fit neither a vector nor a tile."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numba import njit
from numba.core import config

from tinysqueeze.devices.int8 import Grid, mean_bytes, rescale
from tinysqueeze.graph import Pool, averaged_over
from tinysqueeze.kernels import TARGET
from tinysqueeze.kernels.byte_maps import (
    byte_add,
    byte_at_least,
    byte_encode,
    byte_max_pool,
    byte_mean_pool,
    byte_rearrange,
    byte_table,
    byte_total,
)
from tinysqueeze.kernels.integers import dot, dot_shorts
from tinysqueeze.kernels.target import dot_of
from tinysqueeze.kernels.team import Program, Stage, Team
from tinysqueeze.kernels.vectors import INTS, ints, ints_t, procedure
from tinysqueeze.network.ops.reference import windows
from tinysqueeze.network.window import Window

pytestmark = pytest.mark.skipif(
    bool(config.DISABLE_JIT), reason="kernels are machine code; NUMBA_DISABLE_JIT is set"
)
LANES = TARGET.lanes


def run(job, units=1, threads=2):
    """Runs a job as one stage over `units`."""
    stage = Stage(units=units)
    stage.add(job)
    Team(threads).run(Program([stage]))


def strides(name, a):
    """A map (N, H, W, C) of a batch, as a kernel's fields."""
    size, row, pixel = a.strides[:3]
    return {name: a, f"{name}_thread": 0, f"{name}_next": size, f"{name}_row": row,
            f"{name}_pixel": pixel}  # fmt: skip


def like(kernel, x, y, **more):
    """A job from a map to another."""
    fields = strides("x", x) | strides("y", y)
    names = kernel.record.names
    return kernel.job(**{k: v for k, v in fields.items() if k in names}, **more)


def some_bytes(rng, *shape):
    """Bytes with many at both ends."""
    return rng.choice(np.array([0, 1, 127, 128, 254, 255, 77], np.uint8), shape)


@pytest.mark.parametrize(
    ("multiply", "xs", "ws"),
    [
        (dot, np.array([0, 1, 127, 128, 254, 255, 77], np.uint8), np.array([-127, -1, 0, 1, 127], np.int8)),
        (dot_shorts, *[np.array([-32768, -12750, -1, 0, 1, 77, 17340, 32767], np.int16)] * 2),
    ],
)  # fmt: skip
@pytest.mark.parametrize("how", ["vnni", "pairs", "plain"])
def test_products_of_a_lane(how, multiply, xs, ws, rng):
    """At the largest numbers there are, where a multiplication in fewer bits would overflow."""
    if how != "plain" and TARGET.dot not in ("vnni", how):
        pytest.skip(f"this processor adds products of bytes by {TARGET.dot!r}")

    @procedure(ints_t, ints_t, ints_t)
    def add(e, x, w, total):
        e.store(multiply(e, *(e.load(a, kind=INTS) for a in (total, x, w)), how), total)

    @njit
    def go(x, w, total):
        add(ints(x), ints(w), ints(total))

    for _ in range(20):
        x, w = (rng.choice(numbers, (LANES, 4 // numbers.itemsize)) for numbers in (xs, ws))
        total = rng.integers(-(1 << 31), 1 << 31, LANES).astype(np.int32)
        expected = total + (x.astype(np.int32) * w).sum(axis=1, dtype=np.int32)  # wraps around
        go(x.ctypes.data, w.ctypes.data, total.ctypes.data)
        np.testing.assert_array_equal(total, expected)


def test_how_products_are_added_follows_the_features_numba_targets():
    x86 = "x86_64-unknown-linux-gnu"
    assert dot_of(x86, "znver4", "+avx2,+avx512f,+avx512bw,+avx512vnni", 16) == "vnni"
    assert dot_of(x86, "skylake-avx512", "+avx512f,+avx512bw,-avx512vnni", 16) == "pairs"
    assert dot_of(x86, "knl", "+avx512f,-avx512bw", 16) == "plain"
    assert dot_of(x86, "alderlake", "+avx2,+avxvnni,-avx512f", 8) == "vnni"
    assert dot_of(x86, "haswell", "+avx2,-avxvnni", 8) == "pairs"
    assert dot_of(x86, "alderlake", "", 8) == "vnni"
    assert dot_of(x86, "x86-64", "+sse4.2", 4) == "pairs"
    assert dot_of("arm64-apple-darwin", "apple-m1", "+neon", 4) == "plain"


@pytest.mark.parametrize("size", [1, LANES - 1, LANES, 2 * LANES + 3])
def test_encoding_is_that_of_the_grid(size, rng):
    x = (rng.standard_normal((3, 2, size)) * 100).astype(np.float32)
    x[0, 0, 0], x[1, 1, -1], x[2, 0, 0] = 0.5, 1e30, -np.inf  # a tie for rint
    scale, zero = np.ones(size), rng.integers(0, 256, size)
    y = np.zeros((3, 2, size + 5), np.uint8)
    fields = {"size": size, "scale": scale, "zero": zero.astype(np.float64), "height": 2, "by_row": 0,
              "y": y, "y_thread": 0, "y_next": 0, "y_row": size + 5, "x_unit": 2 * size}  # fmt: skip
    for i in range(3):  # each unit writes at the beginning of its memory
        run(byte_encode.job(x=x[i], are_bytes=0, **fields))
        np.testing.assert_array_equal(y[0, :, :size], Grid(scale, zero).encode(x[i]))
        codes = some_bytes(rng, 2, size)
        run(byte_encode.job(x=codes, are_bytes=1, **fields))
        np.testing.assert_array_equal(y[0, :, :size], codes)
    assert not y[:, :, size:].any()


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    height=st.integers(1, 8),
    width=st.integers(1, 8),
    vectors=st.sampled_from([1, 3, 4, 5, 9]),
    window=st.tuples(
        st.integers(1, 4), st.integers(1, 4), st.integers(1, 3), st.integers(0, 1), st.booleans()
    ),
    rows=st.booleans(),
    counts=st.booleans(),
)
def test_pools(height, width, vectors, window, rows, counts):
    rng = np.random.default_rng(height * width)
    high, wide, stride, pad, ceil = window
    seen = Window.of((high, wide), stride, min(pad, high // 2, wide // 2), ceil)
    if height + 2 * seen.pad[0] < high or width + 2 * seen.pad[1] < wide:
        return
    images = 1 if rows else 2
    x = some_bytes(rng, images, height, width, vectors * LANES)
    out = seen.out_size(height, width)
    y = np.full((images, *out, vectors * LANES), 99, np.uint8)
    names = ("kernel_high", "kernel_wide", "stride_high", "stride_wide", "pad_high", "pad_wide")
    common = dict(zip(names, (*seen.kernel, *seen.stride, *seen.pad), strict=True)) | {
        "height": height, "width": width, "out_height": out[0], "out_width": out[1],
        "channels": vectors * LANES, "by_row": rows,
    }  # fmt: skip
    pool = Pool("p", 0, 1, seen, average=True, counts_padding=counts)
    expected = {
        byte_max_pool: windows(x, seen, fill=0).max(axis=(3, 4)),
        byte_mean_pool: mean_bytes(x, np.array([7]), seen, averaged_over(x.shape, pool)),
    }
    for kernel, right in expected.items():
        more = {"zero": 7, "counts_padding": counts} if kernel is byte_mean_pool else {}
        for n in range(images):  # a chunk of one image, or its rows
            run(like(kernel, x[n:], y[n:], **common, **more), units=out[0] if rows else 1)
        np.testing.assert_array_equal(y, right)


@pytest.mark.parametrize("rows", [False, True])
def test_byte_by_byte(rows, rng):
    shape = (1, 3, 5, 3 * LANES)
    x, z, table = some_bytes(rng, *shape), some_bytes(rng, *shape), some_bytes(rng, 256)
    y = np.zeros(shape, np.uint8)
    size = {"height": 3, "width": 5, "channels": 3 * LANES, "by_row": rows}
    units = 3 if rows else 1
    run(like(byte_at_least, x, y, **size, lowest=77), units)
    np.testing.assert_array_equal(y, np.maximum(x, 77))
    run(like(byte_table, x, y, **size, table=table), units)
    np.testing.assert_array_equal(y, table[x])
    order = rng.permutation(3 * LANES).astype(np.int32)
    places = np.arange(3 * LANES, dtype=np.int32)
    run(like(byte_rearrange, x, y, **size, x_places=order, y_places=places), units)
    np.testing.assert_array_equal(y, x[..., order])
    for shift in (31, 40, 60):
        numbers = {"first": (1 << 31) - 1, "second": 12345678, "shift": shift, "zero": 9}
        made = like(
            byte_add, x, y, **size, **strides("z", z), x_zero=3, z_zero=200, lowest=9, **numbers
        )
        run(made, units)
        total = (x.astype(np.int64) - 3) * numbers["first"]
        total += (z.astype(np.int64) - 200) * numbers["second"]
        expected = np.clip(rescale(total, np.int64(1), shift) + 9, 9, 255)
        np.testing.assert_array_equal(y, expected)


def test_the_sum_over_all_pixels(rng):
    x = some_bytes(rng, 2, 5, 3, 3 * LANES)
    expected = x.sum(axis=(1, 2), dtype=np.int32) - 15 * 13
    size = {"height": 5, "width": 3, "channels": 3 * LANES, "less": 15 * 13, "y_unit": 3 * LANES}
    y = np.zeros((2, 3 * LANES), np.int32)
    fields = strides("x", x)
    stage = Stage(units=2, chunk=2)
    stage.add(byte_total.job(**fields, **size, y=y, by_panel=0))
    Team(1).run(Program([stage]))
    np.testing.assert_array_equal(y, expected)
    run(byte_total.job(**fields, **size, y=y, by_panel=1), units=3)
    np.testing.assert_array_equal(y[0], expected[0])
