"""The planner: nothing overlaps that must not, the peak is what it says, and it is small."""

import numpy as np
import pytest

from tinysqueeze.bench import resident
from tinysqueeze.cli import main
from tinysqueeze.compiled import compile as compile_plan
from tinysqueeze.devices import memory
from tinysqueeze.errors import UserError
from tinysqueeze.graph import Drop, Norm, folded_params, run
from tinysqueeze.network import models, others
from tinysqueeze.network.layers import Conv2D, GlobalAvgPool2D, MaxPool2D
from tinysqueeze.network.params import initialise
from tinysqueeze.show.pictures.memory import arena_map

NETS = {
    "v1.0": models.squeezenet1_0(),
    "v1.1": models.squeezenet1_1(),
    "cifar": models.squeezenet_cifar(),
    "complex bypass": models.squeezenet_cifar(bypass="complex", norm=True),
    "simple bypass": models.squeezenet1_0(bypass="simple", input_size=99),
    "hard-swish": models.squeezenet_cifar(norm=True, activation="hard-swish", bypass="simple"),
    "linear squeeze": models.squeezenet_cifar(bypass="simple", norm=True, linear_squeeze=True),
    "alexnet": others.alexnet(),
    "vgg16": others.vgg16(),
}
CHOICES = [(4, True, True), (1, True, True), (4, False, True), (4, True, False), (4, False, False)]


@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("choice", CHOICES, ids=str)
def test_buffers_that_live_together_lie_apart(name, choice):
    """But for a source and its target at their hand-over, which keep the distance that `lead` asks."""
    plan = memory.plan(NETS[name], *choice)
    leads = memory.handovers(plan.graph, plan.stages, plan.maps, plan.itemsize) if choice[2] else {}
    pairs = {(plan.maps[s], plan.maps[t]): lead for (s, t), lead in leads.items()}
    for a in plan.buffers:
        assert a.offset >= 0
        for b in plan.buffers:
            together = a is not b and a.first <= b.last and b.first <= a.last
            apart = a.offset + a.size <= b.offset or b.offset + b.size <= a.offset
            if together and not apart:
                low, high = (a, b) if a.offset <= b.offset else (b, a)
                lead = pairs.get((high, low), pairs.get((low, high)))
                assert lead is not None
                source, target = (high, low) if (high, low) in pairs else (low, high)
                assert target.offset + lead <= source.offset
    assert plan.lower_bound <= plan.bytes <= plan.all_bytes + 4 * plan.scratch


@pytest.mark.parametrize("name", ["v1.0", "cifar", "complex bypass"])
def test_in_order_execution_never_reads_what_was_overwritten(name):
    """Run the plan's reads and writes, row by row, on an arena that remembers who wrote each value."""
    plan = memory.plan(NETS[name] if name != "v1.0" else models.squeezenet1_0(input_size=63), 1)
    owner = np.full(plan.bytes, -1)
    image = plan.maps[0]
    owner[image.offset : image.offset + image.size] = 0

    def write(value, row):
        buffer, size = plan.maps[value], memory.row_size(plan.graph, value)
        owner[buffer.offset + row * size : buffer.offset + (row + 1) * size] = value

    def check(value, top, bottom):
        buffer, size = plan.maps[value], memory.row_size(plan.graph, value)
        height = plan.graph.shapes[value][0]
        rows = owner[buffer.offset :][: buffer.size].reshape(height, size)
        assert (rows[max(top, 0) : max(min(bottom, height), 0)] == value).all()

    def rows_of(node, row):
        window = memory.window_of(plan.graph, node)
        top = row * window.stride[0] - window.pad[0]
        return top, top + window.kernel[0]

    for i, stage in enumerate(plan.stages):
        if i in plan.rings:
            ring = plan.rings[i]
            owner[ring.offset : ring.offset + ring.size] = -2
        if stage.target == plan.graph.output:
            check(stage.sources[0], 0, 1 << 30)
            continue
        ready = 0
        for row in range(plan.graph.shapes[stage.target][0]):
            if stage.tiled is not None:
                stop = min(rows_of(stage.last, row)[1], plan.graph.shapes[stage.tiled][0])
                for inner in range(ready, stop):
                    for conv in stage.convs:
                        check(conv.source, *rows_of(conv, inner))
                ready = max(ready, stop)
            else:
                for node in stage.nodes:
                    for source in node.sources:
                        check(source, *rows_of(node, row))
            write(stage.target, row)


def test_known_peaks():
    """float32 at 224x224: every map 20.2 MB; sharing 5.7; tiled as well 1.9; written over sources 1.7."""
    sizes = [
        memory.plan(models.squeezenet1_0(), 4, tiled, overlap).bytes
        for tiled, overlap in ((False, False), (True, False), (True, True))
    ]
    assert sizes == [5_682_048, 1_866_240, 1_679_616]
    assert memory.plan(models.squeezenet1_0(), 1).bytes == 1_679_616 // 4
    expand = 32 * 32 * (96 + 3) * 4  # without tiling, conv1's whole map beside the image
    assert memory.plan(models.squeezenet_cifar(), 4, tiled=False, overlap=False).bytes > expand
    assert memory.plan(models.squeezenet_cifar()).bytes < expand / 2


def test_tiling_saves_what_the_pool_throws_away():
    steps = (("conv", Conv2D(8, 3)), ("pool", MaxPool2D(2, 2)), ("mean", GlobalAvgPool2D()))
    model = models.Model("small", steps, (18, 18, 1), {})
    plan = memory.plan(model, 1, overlap=False)
    image, pooled, ring = 18 * 18, 8 * 8 * 8, 2 * 16 * 8
    assert plan.bytes == plan.lower_bound == image + pooled + ring
    assert memory.plan(model, 1, tiled=False, overlap=False).bytes == max(
        image + 16 * 16 * 8, 16 * 16 * 8 + pooled
    )
    assert plan.scratch == 4 * 8
    assert plan.peak_bytes == plan.bytes + 32 + 32


def test_lead_is_the_least_that_works():
    """One value less, and a row would be read after it was written over."""
    model = NETS["v1.0"]
    plan = memory.plan(model)
    stage = plan.stages[0]
    lead = memory.lead(plan.graph, stage)
    row_in, row_out = memory.row_size(plan.graph, 0), memory.row_size(plan.graph, stage.target)
    rows = plan.graph.shapes[stage.target][0]
    needed = [memory.needed_row(plan.graph, stage, k) for k in range(rows)]
    gaps = [
        lead + row * row_in - (k + 1) * row_out for k, row in enumerate(needed) if row is not None
    ]
    assert min(gaps) == 0
    assert memory.lead(plan.graph, plan.stages[1]) == 0  # a squeeze layer works in place


@pytest.mark.parametrize("name", ["v1.1", "cifar"])
def test_compiled_plan_against_the_planner(name):
    """The compiled plan trades memory for speed, but less than keeping every map would take."""
    model = NETS[name]
    compiled = compile_plan(model, batch=1, training=False)
    compiled.predict(np.zeros((1, *model.input_shape), np.float32))
    planned = memory.plan(model)
    weights = sum(a.nbytes for a in _arrays(initialise(model)))
    assert planned.bytes < compiled.peak_bytes < planned.all_bytes + 8 * weights


def _arrays(tree):
    return [
        a
        for value in tree.values()
        for a in (_arrays(value) if isinstance(value, dict) else [value])
    ]


def test_says_what_it_cannot_do():
    with pytest.raises(UserError, match="1, 2, 4 or 8 bytes"):
        memory.plan(NETS["cifar"], 3)
    text = memory.table(memory.plan(NETS["cifar"]))
    assert "conv1, pool" in text
    assert f"{memory.plan(NETS['cifar']).bytes:,}" in text


def test_what_a_device_runs_is_what_the_model_computes(rng):
    for name in ("cifar", "complex bypass", "hard-swish"):
        model = NETS[name]
        params, x = initialise(model), rng.standard_normal((2, *model.input_shape), np.float32)
        graph, folds = memory.deployed(model)
        maps = run(graph, folded_params(folds, params), x)
        expected, _ = model.forward(params, x)
        np.testing.assert_allclose(maps[graph.output], expected, rtol=1e-4, atol=1e-6)
        assert not any(isinstance(node, Norm | Drop) for node in graph.nodes)


def test_command_line(capsys):
    assert main(["memory", "--model", "squeezenet_cifar", "--int8"]) == 0
    said = capsys.readouterr().out
    assert f"{memory.plan(NETS['cifar'], 1).peak_bytes:,} in all" in said
    assert "Raspberry Pi Pico " in said


@pytest.mark.slow
def test_resident_growth_is_measured():
    """In a fresh process the compiled plan grows by at least its own buffers' size."""
    model = NETS["cifar"]
    if not resident.STATUS.exists():
        pytest.skip("resident memory is read from /proc")
    found = resident.measure(model, ("ours",))["ours"]
    assert found.prepared <= found.peak
    assert memory.plan(model).peak_bytes < found.peak < 200e6


def test_the_arena_is_drawn(tmp_path):
    """A rectangle for each buffer, at its addresses, as long as it lives."""
    planned = memory.plan(models.squeezenet_cifar(bypass="simple"))
    picture = arena_map(planned, "tiny")
    drawn = {
        (
            round(p.get_x()),
            round(p.get_width()),
            round(1000 * p.get_y()),
            round(1000 * p.get_height()),
        )
        for p in picture.axes[0].patches
    }
    want = {(b.first, b.last - b.first + 1, b.offset, b.size) for b in planned.buffers}
    assert drawn == want
    assert f"{planned.bytes:,}" in picture.alt
    picture.save(str(tmp_path / "arena.png"))
