"""Every metaparameter has a type and a range, and no file or command line gets past them."""

import contextlib
import json
import time
from dataclasses import replace
from types import NoneType
from typing import Annotated, Literal, get_args, get_origin

import numpy as np
import pytest
import weight_files

from tinysqueeze.cli import main
from tinysqueeze.data import load
from tinysqueeze.errors import FormatError, UserError
from tinysqueeze.files import parse_json
from tinysqueeze.network.models import (
    METAPARAMETERS,
    MODELS,
    SqueezeNet,
    build,
    squeezenet1_0,
    squeezenet_cifar,
)
from tinysqueeze.network.others import alexnet, vgg16
from tinysqueeze.network.params import shapes
from tinysqueeze.ranges import Range, Text, checked, from_text, said
from tinysqueeze.study.count import count
from tinysqueeze.training import checkpoint
from tinysqueeze.training.engine import stepwise_engine
from tinysqueeze.training.state import begin
from tinysqueeze.weights import (
    CAFFE,
    Preprocess,
    load_weights,
    write_onnx,
    write_safetensors,
    write_torchvision,
)
from tinysqueeze.weights.compression import fileformat, pipeline
from tinysqueeze.weights.compression.tensors import Stepped

NUMERIC = {
    name: get_args(hint)[1]
    for name, hint in METAPARAMETERS.items()
    if get_origin(hint) is Annotated and get_args(hint)[0] in (int, float)
}


# --- one table --------------------------------------------------------------------------------------


def test_every_metaparameter_declares_what_it_may_be():
    for name, hint in METAPARAMETERS.items():
        parts = set(get_args(hint)) - {NoneType} if NoneType in get_args(hint) else {hint}
        for part in parts:
            assert part is bool or get_origin(part) in (Annotated, Literal), f"{name} has no range"
    assert len(NUMERIC) == 16
    assert SqueezeNet() == SqueezeNet(
        **{name: getattr(SqueezeNet, name) for name in METAPARAMETERS}
    )


@pytest.mark.parametrize("name", METAPARAMETERS)
def test_what_is_of_another_type_or_out_of_range_is_named(name):
    odd = [
        "three",
        "3",
        b"3",
        [1, [2]],
        {},
        np.zeros(2),
        1j,
        10**5000,
        float("nan"),
        float("inf"),
        -1e9,
    ]
    if name in NUMERIC:
        limits = NUMERIC[name]
        odd += [limits.low - 1, limits.high + 1, True, np.True_, None]
        odd += [limits.high] if limits.below else []
    for value in [*odd, 10**12]:
        with pytest.raises(UserError) as error:
            squeezenet1_0(**{name: value})
        text = str(error.value)
        assert text.startswith(f"squeezenet1_0: {name} is {said(METAPARAMETERS[name])}, not ")
        assert len(text) < 300


@pytest.mark.parametrize("name", NUMERIC)
def test_the_ends_of_every_range_are_built_or_refused_at_once(name):
    start = time.monotonic()
    for end in (NUMERIC[name].low, NUMERIC[name].high):
        with contextlib.suppress(UserError):  # one that follows from the others' values
            assert count(squeezenet1_0(**{name: end}, allow_wide_squeeze=True)).parameters > 0
    assert time.monotonic() - start < 10


def test_the_words_for_a_range():
    wanted = {
        "fires": "a whole number from 1 to 64",
        "dropout": "a number from 0 up to, not including, 1",
        "norm": "true or false",
        "bypass": "None, 'simple' or 'complex'",
        "activation": "'relu' or 'hard-swish'",
        "pools": "a list of 0 to 65 entries, each a whole number from 1 to 65",
    }
    assert {name: said(METAPARAMETERS[name]) for name in wanted} == wanted


def test_a_text_has_a_pattern_and_a_length():
    hints = {"path": Annotated[str, Text(r"\w+", "letters", 5)]}
    assert checked("x", hints, {"path": "conv1"}) == {"path": "conv1"}
    for wrong in ("", "a b", "a\n", "toolong", "é", 3, ["conv1"], None, b"a"):
        with pytest.raises(UserError, match="x: path is a text of letters, not "):
            checked("x", hints, {"path": wrong})


def test_numbers_of_numpy_become_plain_so_that_a_spec_is_json():
    model = squeezenet1_0(
        classes=np.int64(10), squeeze_ratio=np.float32(0.25), norm=np.True_, pools=[np.uint8(1), 3]
    )
    spec = {"classes": 10, "squeeze_ratio": 0.25, "norm": True, "pools": [1, 3]}
    assert json.loads(json.dumps(model.spec)) == {"name": "squeezenet1_0"} | spec
    assert model == squeezenet1_0(**spec)
    for other in (model.at(np.int32(64)), alexnet(np.int16(7), np.int64(99))):
        assert build(json.loads(json.dumps(other.spec))) == other
        assert {type(side) for side in (*other.input_shape, other.classes)} == {int}


@pytest.mark.parametrize("name", ["alexnet", "alexnet_torchvision", "vgg16"])
def test_the_other_networks_arguments_are_checked_too(name):
    make = MODELS[name]
    assert make(5).classes == make(classes=5).classes == 5
    for wrong in (0, -1, 10**9, True, 2.5, "5", None, [5]):
        with pytest.raises(UserError, match=f"{name}: classes is a whole number from 1 to 100,000"):
            make(wrong)
        with pytest.raises(
            UserError, match=f"{name}: input_size is a whole number from 1 to 4,096"
        ):
            make(5, input_size=wrong)
    with pytest.raises(UserError, match=f"{name}: no such metaparameter: fires; there are classes"):
        build(name, fires=3)
    with pytest.raises(UserError, match="input_size is a whole number from 1 to 4,096, not 5000"):
        make().at(5000)


def test_an_absurd_product_of_allowed_values_is_refused():
    for absurd in (
        lambda: squeezenet1_0(fires=64, base_e=65_536, incr_e=65_536, freq=1),
        lambda: squeezenet1_0(stem_kernel=255, stem_filters=65_536, input_size=512),
        lambda: vgg16(input_size=4096),
        lambda: vgg16(input_size=512).at(4096),
    ):
        with pytest.raises(
            UserError, match=r"would have [\d,]+ parameters, more than 4,294,967,296"
        ):
            absurd()


def test_what_is_no_spec_is_refused():
    for spec in ([], 3, None, {}, {"name": 3}, {"name": ["alexnet"]}, {"name": None}, "", "x"):
        with pytest.raises(UserError, match=r"no model named|a spec is"):
            build(spec)


def test_text_is_read_by_its_type():
    hints = METAPARAMETERS | {"maybe": Annotated[float, Range(0, 1)] | None}
    for name, text, value in [
        ("fires", "3", 3), ("dropout", ".3", 0.3), ("dropout", "0", 0.0), ("norm", "True", True),
        ("norm", "false", False), ("pools", "1,3", (1, 3)), ("pools", "[1, 3]", (1, 3)),
        ("pools", "(1, 3)", (1, 3)), ("pools", "[]", ()), ("pools", "2", (2,)),
        ("bypass", "none", None), ("bypass", "null", None), ("bypass", "simple", "simple"),
        ("bypass", '"simple"', "simple"), ("maybe", "None", None), ("maybe", "0.5", 0.5),
    ]:  # fmt: skip
        assert from_text("--set", hints, name, text) == value
    with pytest.raises(UserError, match=r"x: fires is a whole number from 1 to 64, not 3\.5"):
        checked("x", METAPARAMETERS, {"fires": 3.5})


# --- the command line -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--set", "fires=10000000"], "--set: fires is a whole number from 1 to 64, not 10000000"),
        (["--set", "fires=" + "9" * 5000], "--set: fires is a whole number from 1 to 64, not '999"),
        (["--set", "fires=three"], "--set: fires is a whole number from 1 to 64, not 'three'"),
        (["--set", "fires="], "--set: fires is a whole number from 1 to 64, not ''"),
        (["--set", "squeeze_ratio=nan"], "squeeze_ratio is a number from 0 to 8, not nan"),
        (["--set", "squeeze_ratio=-inf"], "squeeze_ratio is a number from 0 to 8, not -inf"),
        (["--set", "input_channels=0"], "input_channels is a whole number from 1 to 4,096, not 0"),
        (["--set", "norm=maybe"], "norm is true or false, not 'maybe'"),
        (["--set", "norm=1"], "norm is true or false, not '1'"),
        (["--set", "pools=1,,2"], "pools is a list of 0 to 65 entries"),
        (["--set", "pools=" + "1," * 100 + "1"], "pools is a list of 0 to 65 entries"),
        (["--set", "pools=" + "[" * 200_000], "pools is a list of 0 to 65 entries"),
        (["--set", "colour=red"], "--set: no such metaparameter: colour; there are activation"),
        (["--set", "fires"], "--set takes NAME=VALUE, not 'fires'"),
        (["--classes", "0"], "--classes: takes a whole number from 1 to 100,000, not '0'"),
        (["--classes", "ten"], "--classes: takes a whole number from 1 to 100,000, not 'ten'"),
        (["--input-size", "1e400"], "--input-size: takes a whole number from 1 to 4,096"),
    ],
)
@pytest.mark.parametrize("command", ["summary", "train", "gradcheck", "memory"])
def test_a_wrong_value_gets_one_line_and_exit_2(command, arguments, words, capsys):
    assert main([command, *arguments]) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("tinysqueeze: ")
    assert words in error
    assert "\n" not in error


def test_too_much_for_the_memory_is_one_line(monkeypatch, capsys):
    def full(args):
        raise MemoryError("Unable to allocate 1 TiB")

    monkeypatch.setattr("tinysqueeze.cli.summary.run", full)
    assert main(["summary"]) == 1
    assert capsys.readouterr().err == "tinysqueeze: not enough memory: Unable to allocate 1 TiB\n"


# --- forged files, their check sums right -----------------------------------------------------------

DEEP = "nested 200,000 deep"
FORGED = [
    ({"fires": 10**7}, "fires is a whole number from 1 to 64, not 10000000"),
    ({"pools": [1] * 100_000}, r"pools is a list of 0 to 65 entries.*not \[1, 1"),
    ({"pools": [[1]]}, "pools is a list"),
    ({"squeeze_ratio": float("nan")}, "squeeze_ratio is a number from 0 to 8, not nan"),
    ({"squeeze_ratio": float("inf")}, "squeeze_ratio is a number from 0 to 8, not inf"),
    ({"squeeze_ratio": -1}, "squeeze_ratio is a number from 0 to 8, not -1"),
    ({"base_e": 10**400}, "base_e is a whole number from 1 to 65,536, not 1000"),
    ({"input_channels": 0}, "input_channels is a whole number from 1 to 4,096, not 0"),
    ({"classes": 10**9}, "classes is a whole number from 1 to 100,000, not 1000000000"),
    ({"classes": True}, "classes is a whole number from 1 to 100,000, not True"),
    ({"norm": "maybe"}, "norm is true or false, not 'maybe'"),
    ({"stem_pad": -1}, "stem_pad is a whole number from 0 to 255, not -1"),
    ({"base_e": 65_536, "incr_e": 65_536}, "parameters, more than"),
    ({"name": ["squeezenet1_1"]}, "no model named"),
    ({"name": "x" * 10_000}, "no model named"),
    ({"norm": DEEP}, "nested more than 64 deep"),
]


def forged(monkeypatch, model, changes):
    """The model with another spec, which its writers take as it is."""
    plain = json.dumps
    deep = "[" * 200_000 + "]" * 200_000
    monkeypatch.setattr(json, "dumps", lambda *a, **k: plain(*a, **k).replace(f'"{DEEP}"', deep))
    return replace(model, spec=model.spec | changes)


def refused(read, words) -> None:
    start = time.monotonic()
    with pytest.raises(UserError, match=words) as error:
        read()
    assert "cannot be built" in str(error.value) or "JSON" in str(error.value)
    assert len(str(error.value)) < 3000
    assert time.monotonic() - start < 5


@pytest.mark.parametrize(("changes", "words"), FORGED, ids=[str(i) for i in range(len(FORGED))])
def test_no_file_gets_past_the_ranges(changes, words, tmp_path, monkeypatch):
    weights = weight_files.small(1, classes=2)
    weights = replace(weights, model=forged(monkeypatch, weights.model, changes))
    writers = {"ours.safetensors": write_safetensors, "theirs.safetensors": write_torchvision}
    for name, write in writers.items():
        write(weights, tmp_path / name)
        refused(lambda name=name: load_weights(tmp_path / name), words)
    fileformat.write(tmp_path / "small.tsq", pipeline.lossless(weights))
    refused(lambda: fileformat.read(tmp_path / "small.tsq"), words)
    training = begin(squeezenet_cifar(base_e=8, incr_e=4, fires=2, pools=(1,), stem_filters=4),
                     load("builtin", "test"), make_engine=stepwise_engine)  # fmt: skip
    training.engine.model = forged(monkeypatch, training.engine.model, changes)
    checkpoint.save(tmp_path, training)
    refused(lambda: checkpoint.read(tmp_path), f"truncated or corrupt.*{words}|{words}")


@pytest.mark.parametrize(("changes", "words"), [FORGED[0], FORGED[-1]], ids=["fires", "deep"])
def test_no_onnx_file_gets_past_the_ranges(changes, words, tmp_path, monkeypatch):
    pytest.importorskip("onnx")
    weights = weight_files.small(1, classes=2)
    weights = replace(weights, model=forged(monkeypatch, weights.model, changes))
    write_onnx(weights, tmp_path / "net.onnx")
    refused(lambda: load_weights(tmp_path / "net.onnx"), words)


@pytest.mark.parametrize(
    "changes",
    [
        {"std": (1.0, float("nan"), 1.0)}, {"mean": (0.0, float("inf"), 0.0)}, {"divide_by": 0},
        {"resize": 10**9}, {"resize": (0, 5)}, {"resize": float("inf")}, {"crop": (5, -5)},
        {"crop": (float("inf"), 1)}, {"crop": 5}, {"channels": [[]]}, {"mean": [[1], 2, 3]},
    ],
    ids=str,
)  # fmt: skip
def test_the_preparation_of_images_has_bounds_too(changes):
    with pytest.raises(FormatError):
        Preprocess.from_json(CAFFE.to_json() | changes)
    assert Preprocess.from_json(json.loads(json.dumps(CAFFE.to_json()))) == CAFFE


def test_no_file_is_written_that_would_not_be_read():
    """A .tsq of a few bytes could else be a gigabyte of zeros."""
    model = squeezenet_cifar(classes=2, base_e=512, incr_e=512, fires=4, pools=(1, 3))
    zeros = {path: Stepped(np.zeros(shape, np.int32), 1.0) for path, shape in shapes(model).items()}
    with pytest.raises(UserError, match="more than this format holds in"):
        fileformat.to_bytes(fileformat.Compressed(model, zeros, {}))


def test_json_has_a_depth():
    assert parse_json("[" * 64 + "]" * 64)
    assert parse_json(b'{"a": [1, {"b": null}]}') == {"a": [1, {"b": None}]}
    for depth in (65, 900, 200_000):
        for text in ("[" * depth + "]" * depth, '{"a":' * depth + "1" + "}" * depth):
            with pytest.raises(ValueError, match="nested more than 64 deep"):
                parse_json(text)
