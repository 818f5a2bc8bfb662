"""The graph: what it computes is what the model computes, before and after every pass."""

import ast
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from cases import small_params
from compositions import CONV, MODELS, beside, chain, composed, params_of

from tinysqueeze.compiled import compile as compile_plan
from tinysqueeze.errors import ShapeError
from tinysqueeze.graph import (
    Activate,
    Add,
    Conv,
    Copy,
    Drop,
    Graph,
    Mean,
    Norm,
    Other,
    Pool,
    fold_norms,
    folded_params,
    fuse,
    lower,
    merge_norms,
    run,
    with_copies,
    with_means,
    without_copies,
    without_dropout,
    without_flatten,
)
from tinysqueeze.network.compose import Residual
from tinysqueeze.network.layers import (
    EVAL,
    Conv2D,
    Dropout,
    GlobalAvgPool2D,
    HardSwish,
    MaxPool2D,
    Softmax,
)
from tinysqueeze.network.models import Fire, Model, squeezenet_cifar
from tinysqueeze.network.ops import fast, reference
from tinysqueeze.network.others import GroupedConv2D
from tinysqueeze.network.params import flatten, initialise
from tinysqueeze.network.window import Window


def agree(graph: Graph, params: dict, x: np.ndarray, expected: np.ndarray, ops=fast) -> None:
    """Within 1e-12 of the largest value; and every map has the shape that the graph says."""
    maps = run(graph, params, x, ops)
    assert {n: m.shape[1:] for n, m in maps.items()} == dict(enumerate(graph.shapes))
    got = maps[graph.output].reshape(expected.shape)
    assert np.abs(got - expected).max() <= 1e-12 * max(np.abs(expected).max(), 1)


@pytest.mark.parametrize("name", MODELS)
def test_every_pass_keeps_what_is_computed(name, rng):
    model = MODELS[name]()
    params, x = params_of(model, rng), rng.standard_normal((3, *model.input_shape))
    expected, _ = model.forward(params, x)
    graph = lower(model)
    assert graph.shapes[graph.output] == model.out_shape(model.input_shape)
    for ops in (fast, reference):
        agree(graph, params, x, expected, ops)
    for plain in (without_copies, without_dropout, without_flatten, with_means, fuse):
        agree(plain(graph), params, x, expected)
    agree(with_copies(graph, (Conv,)), params, x, expected)
    for alone in (False, True):
        agree(*fold_norms(graph, params, alone), x, expected)
    for first in (without_dropout, without_flatten, fuse):  # all of them, in several orders
        whole = with_means(without_flatten(without_dropout(first(graph))))
        whole, folded = fold_norms(whole, params, alone=True)
        whole = with_copies(fuse(whole), (Conv, Pool))
        agree(whole, folded, x, expected)
        kinds = {type(node) for node in whole.nodes}
        assert not kinds & {Norm, Drop}
        assert not any(
            whole.channels(node) < whole.shapes[node.target][-1]
            for node in whole.nodes
            if not isinstance(node, Conv | Pool | Copy)
        )


@pytest.mark.parametrize("name", MODELS)
def test_one_node_a_layer_and_no_needless_copy(name):
    model = MODELS[name]()
    graph = lower(model)
    for node in graph.nodes:
        if isinstance(node, Copy):  # somebody else reads the map, or it is the image
            assert node.source == 0 or len(graph.readers(node.source)) > 1
    weighted = {path.rpartition("/")[0] for path in flatten(model.param_shapes(model.input_shape))}
    arrays = [node.path for node in graph.nodes if isinstance(node, Conv | Norm)]
    assert sorted(arrays) == sorted(weighted)


def test_a_squeezenet_loses_all_that_only_training_needs():
    model = squeezenet_cifar(norm=True, bypass="complex", dropout=0.5)
    graph, folds = merge_norms(without_dropout(lower(model)))
    graph = fuse(graph)
    kinds = [type(node) for node in graph.nodes]
    assert {Conv, Add, Pool, Mean} == set(kinds)
    assert kinds.count(Add) == 8
    assert len(folds) == 1 + 8 + 2 * 8 + 4  # conv1, squeeze layers, both expands, complex bypasses
    quiet = {"conv10", *(f"fire{i}/bypass/conv" for i in (2, 4, 6, 8))}
    without = {n.path for n in graph.nodes if isinstance(n, Conv) and not n.activation}
    assert without == quiet


def test_a_flatten_goes_where_only_linear_layers_feel_it():
    def left(name: str) -> list[str]:
        graph = without_flatten(without_dropout(lower(composed(name))))
        return [node.path for node in graph.nodes if isinstance(node, Other)]

    for name in ("flatten and linear", "flatten at the end", "an average over the whole map",
                 "flatten, an activation, two linear arms"):  # fmt: skip
        assert left(name) == [], name
    assert left("flatten and more than linear") == ["net/b"]
    assert left("flattened arms") == ["net/a", "net/b/b"]
    graph = without_flatten(without_dropout(lower(composed("flatten and linear"))))
    assert [n.window.kernel for n in graph.nodes if isinstance(n, Conv)] == [(3, 3), (4, 3), (1, 1)]


def test_an_expand_layer_is_two_nodes_side_by_side():
    graph = lower(squeezenet_cifar())
    one, three = (
        next(n for n in graph.nodes if n.path == f"fire2/expand{k}") for k in ("1x1", "3x3")
    )
    assert (one.source, one.target, one.offset) == (three.source, three.target, 0)
    assert (three.offset, graph.channels(three), graph.shapes[one.target]) == (
        64,
        64,
        (16, 16, 128),
    )
    assert graph.writers(one.target) == (one, three)
    assert [type(n) for n in graph.readers(one.target)] == [Activate]


def test_folding_is_done_in_float64_and_kept_in_the_dtype_of_the_weight(rng):
    model = composed("a norm that writes an arm")
    params = params_of(model, rng)
    exact = flatten(fold_norms(lower(model), params)[1])
    single = {path: array.astype(np.float32) for path, array in flatten(params).items()}
    for path, array in flatten(fold_norms(lower(model), single)[1]).items():
        assert array.dtype == np.float32
        doubled = {p: a.astype(np.float64) for p, a in single.items()}
        again = flatten(fold_norms(lower(model), doubled)[1])[path]
        np.testing.assert_array_equal(array, again.astype(np.float32))
        assert exact[path].dtype == np.float64


def test_folds_are_found_once_and_done_for_any_parameters(rng):
    model = squeezenet_cifar(norm=True, base_e=8, incr_e=4, stem_filters=6)
    graph, folds = merge_norms(lower(model))
    for seed in range(2):
        params = small_params(model, np.random.default_rng(seed))
        x = rng.standard_normal((2, *model.input_shape))
        agree(graph, folded_params(folds, params), x, model.forward(params, x)[0])


def test_an_average_without_its_padding():
    x = np.arange(9.0).reshape(1, 3, 3, 1)
    pool = Pool("p", 0, 1, Window.of(3, 2, 1), average=True, counts_padding=False)
    graph = Graph("pooled", ((3, 3, 1), (2, 2, 1)), (pool,), 1)
    for ops in (fast, reference):
        got = run(graph, {}, x, ops)[1][0, :, :, 0]
        np.testing.assert_allclose(got, [[2, 3], [5, 6]], rtol=1e-15)  # of four pixels each


def test_the_printed_form():
    model = Model(
        "small",
        (
            ("conv", Conv2D(4, 3, 2, 1)), ("fire", Fire(2, 3, 5)), ("drop", Dropout(0.5)),
            ("around", Residual(GroupedConv2D(8, 1, groups=2))), ("pool", MaxPool2D(2, 2, ceil=True)),
            ("mean", GlobalAvgPool2D()), ("probabilities", Softmax()),
        ),
        (9, 9, 3),
        {},
    )  # fmt: skip
    assert (
        lower(model).text()
        == """\
small: map 11 is the result
node               what it does                                 reads  writes  channels  shape
image                                                                  0                 9x9x3
conv               3x3 convolution, 4 filters, stride 2, pad 1  0      1       all       5x5x4
fire/squeeze       1x1 convolution, 2 filters                   1      2       all       5x5x2
fire/squeeze_relu  relu                                         2      3       all       5x5x2
fire/expand1x1     1x1 convolution, 3 filters                   3      4       0 to 2    5x5x8
fire/expand3x3     3x3 convolution, 5 filters, pad 1            3      4       3 to 7    5x5x8
fire/expand_relu   relu                                         4      5       all       5x5x8
drop               dropout 0.5                                  5      6       all       5x5x8
around             1x1 convolution, 8 filters, 2 groups         6      7       all       5x5x8
around/sum         sum                                          7, 6   8       all       5x5x8
pool               2x2 max pool, stride 2, ceil                 8      9       all       3x3x8
mean               mean of all pixels                           9      10      all       8
probabilities      Softmax()                                    10     11      all       8"""
    )


def test_a_graph_that_makes_no_sense_is_refused():
    def conv(source: int, target: int, offset: int = 0, **changes) -> Conv:
        return Conv("c", source, target, Window.of(1), 2, offset=offset, **changes)

    shapes = ((2, 2, 3), (2, 2, 4))
    Graph("whole", shapes, (conv(0, 1), conv(0, 1, 2)), 1)
    for words, nodes in (
        ("nobody writes all of map 1", (conv(0, 1),)),
        ("writes over what is in map 1", (conv(0, 1), conv(0, 1, 1))),
        ("writes over what is in map 0", (conv(0, 0), conv(0, 1), conv(0, 1, 2))),
        ("before all of it is written", (conv(0, 1), conv(1, 1, 2))),
        (r"gives \(2, 2, 2\), which does not fit \(2, 2, 4\)", (conv(0, 1), conv(0, 1, 3))),
        (r"gives \(1, 1, 4\), which", (Conv("c", 0, 1, Window.of(2), 4),)),
        ("3 channels in 2 groups", (conv(0, 1, groups=2), conv(0, 1, 2))),
        (r"s: \(2, 2, 3\) and \(2, 2, 4\) don't", (conv(0, 1), conv(0, 1, 2), Add("s", 0, 2, 1))),
    ):
        with pytest.raises(ShapeError, match=words):
            Graph("wrong", (*shapes, (2, 2, 4)) if len(nodes) > 2 else shapes, nodes, 1)
    with pytest.raises(ShapeError, match=r"net/a: GroupedConv2D.*groups=2"):
        lower(Model("odd", (("net", chain(GroupedConv2D(4, 1, groups=2))),), (4, 4, 3), {}))
    with pytest.raises(ShapeError, match="net: Concat"):
        lower(Model("odd", (("net", beside(Conv2D(4, 1), Conv2D(4, 3))),), (4, 4, 3), {}))
    with pytest.raises(ShapeError, match=r"images \(N, 3, 4, 3\), got \(1, 3, 3, 4\)"):
        run(lower(composed("one arm")), {}, np.zeros((1, 3, 3, 4)))
    with pytest.raises(ShapeError, match="net/bypass: there are two"):
        lower(Model("odd", (("net", Residual(Residual(CONV, CONV), CONV)),), (4, 4, 3), {}))


def test_a_result_that_others_read_stays_a_result(rng):
    """No model has one, but a graph may: the passes keep the map, and fuse nothing into its writer."""
    shape, ends = (3, 4, 2), Window.of(1)
    nodes = (
        Conv("a", 0, 1, ends, 2), Norm("n", 1, 2, 1e-5, 0.1), Activate("r", 2, 3, "relu"),
        Copy("c", 3, 4), Copy("c", 1, 4, offset=2), Conv("last", 4, 5, ends, 2),
    )  # fmt: skip
    params = {
        f"{name}/weight": rng.standard_normal((1, 1, c, 2)) for name, c in (("a", 2), ("last", 4))
    }
    params |= {f"{name}/bias": rng.standard_normal(2) for name in ("a", "last")}
    params |= {f"n/{name}": rng.random(2) + 0.5 for name in ("weight", "bias", "mean", "var")}
    x = rng.standard_normal((2, *shape))
    for output in (1, 2, 3, 4):
        shapes = (shape, shape, shape, shape, (3, 4, 4), shape)
        graph = Graph("seen", shapes, nodes, output)
        expected = run(graph, params, x)[output]
        for after in (without_copies(graph), fuse(graph), fuse(without_copies(graph))):
            agree(after, params, x, expected)
        agree(*fold_norms(graph, params), x, expected)
        agree(*fold_norms(graph, params, alone=True), x, expected)


def test_what_nobody_reads_is_left_out():
    nodes = [
        Conv("a", 0, 5, Window.of(1), 2), Conv("unread", 5, 3, Window.of(1), 2),
        Activate("b", 5, 2, "relu"),
    ]  # fmt: skip
    shape = (2, 2, 2)
    graph = Graph.of("small", [(2, 2, 3), shape, shape, shape, shape, shape], nodes, 2)
    assert [(n.path, n.source, n.target) for n in graph.nodes] == [("a", 0, 1), ("b", 1, 2)]
    assert list(graph.done_after()) == [(graph.nodes[0], (0,)), (graph.nodes[1], (1,))]


@dataclass(frozen=True)
class Steeper(HardSwish):
    """Somebody's own layer, which happens to be derived from one of ours."""

    def forward(self, params, x, mode=EVAL):
        y, cache = super().forward(params, x, mode)
        return 3 * y, cache


def test_a_class_derived_from_a_layer_is_not_taken_for_it(rng):
    model = Model("own", chain(CONV, Steeper(), CONV, GlobalAvgPool2D()).steps, (6, 6, 3), {})
    assert [type(node).__name__ for node in lower(model).nodes] == ["Conv", "Other", "Conv", "Mean"]
    params, x = initialise(model), rng.standard_normal((2, 6, 6, 3)).astype(np.float32)
    expected, _ = model.forward(params, x)
    plan = compile_plan(model, 2, training=False, params=params, threads=1)
    assert np.allclose(plan.predict(x), expected, rtol=1e-4, atol=1e-5)


# ------------------------------------------------------------------------------ who walks, by source

PACKAGE = Path(__file__).parents[1] / "tinysqueeze"
COMPOSITIONS = {"Chain", "Concat", "Residual", "Block"}


def matched(tree: ast.AST) -> set[str]:
    """The class names that a file asks for, by `match` or by `isinstance`."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.MatchClass):
            found.add(ast.unparse(node.cls))
        elif isinstance(node, ast.Call) and ast.unparse(node.func) == "isinstance":
            found |= {n.id for n in ast.walk(node.args[1]) if isinstance(n, ast.Name)}
    return found


def test_only_lowering_knows_the_compositions():
    """And the network's own files. Everybody else loops over nodes."""
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).as_posix()
        if name != "graph/lowering.py" and not name.startswith("network/"):
            asked = matched(ast.parse(path.read_text(encoding="utf-8"))) & COMPOSITIONS
            assert not asked, f"{name} asks for {asked}: loop over the nodes of `lower(model)`"
