"""Counting: published totals, shares, and not one array allocated."""

import json
import tracemalloc

import pytest

from tinysqueeze.network.models import MODELS, build, squeezenet1_0, squeezenet1_1, squeezenet_cifar
from tinysqueeze.network.others import alexnet, vgg16
from tinysqueeze.network.params import trained_shapes
from tinysqueeze.study.count import count


@pytest.mark.parametrize("name", MODELS)
def test_rows_add_up_to_the_models_parameters(name) -> None:
    model = build(name)
    table = count(model)
    shapes = trained_shapes(model)
    by_layer: dict[str, int] = {}
    for path, shape in shapes.items():
        size = 1
        for side in shape:
            size *= side
        layer = path.rpartition("/")[0]
        by_layer[layer] = by_layer.get(layer, 0) + size
    assert {row.path: row.parameters for row in table.rows if row.parameters} == by_layer
    assert table.parameters == sum(by_layer.values())


def test_multiply_adds_are_as_published() -> None:
    assert count(squeezenet1_0()).multiply_adds / 1e9 == pytest.approx(0.82, abs=0.005)
    assert count(squeezenet1_1()).multiply_adds / 1e9 == pytest.approx(0.35, abs=0.005)
    assert count(vgg16()).multiply_adds / 1e9 == pytest.approx(15.47, abs=0.005)
    assert count(alexnet()).multiply_adds / 1e9 == pytest.approx(0.724, abs=0.005)


def test_a_convolution_by_hand() -> None:
    row = next(r for r in count(squeezenet1_0(), input_size=227, batch=2).rows if r.path == "conv1")
    assert row.parameters == 7 * 7 * 3 * 96 + 96
    assert row.multiply_adds == 2 * 111 * 111 * 96 * 7 * 7 * 3
    assert row.activation_bytes == 2 * 111 * 111 * 96 * 4
    assert row.im2col_bytes == 2 * 111 * 111 * 7 * 7 * 3 * 4
    assert row.kernel == (7, 7)


def test_most_of_the_fires_weights_are_3x3() -> None:
    rows = [row for row in count(squeezenet1_0()).rows if row.path.startswith("fire")]
    wide = sum(row.parameters for row in rows if row.path.endswith("expand3x3"))
    assert sum(row.parameters for row in rows) == 721_216
    assert wide == 554_240


def test_shares_and_pointwise_layers() -> None:
    table = count(squeezenet1_0())
    assert table.share(1) + table.share(3) + table.share(7) == pytest.approx(1)
    assert all(row.im2col_bytes == 0 for row in table.rows if row.kernel == (1, 1))


def test_everything_but_parameters_grows_with_the_batch() -> None:
    one, eight = count(squeezenet_cifar()), count(squeezenet_cifar(), batch=8)
    assert eight.parameters == one.parameters
    for column in ("multiply_adds", "activation_bytes", "im2col_bytes"):
        assert eight.total(column) == 8 * one.total(column)


def test_the_table_is_ready_for_json() -> None:
    found = json.loads(json.dumps(count(squeezenet1_0()).as_dict()))
    assert found["parameters"] == 1_248_424
    assert found["megabytes"] == pytest.approx(4.99, abs=0.01)
    assert len(found["layers"]) == len(count(squeezenet1_0()).rows)


def test_counting_138_million_parameters_allocates_nothing_of_their_size() -> None:
    count(vgg16())  # imports and caches
    tracemalloc.start()
    try:
        assert count(vgg16()).parameters == 138_357_544
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 200_000  # bytes: rows and shapes
