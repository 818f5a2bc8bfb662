"""The exported C: compiles without a warning, needs no library, and computes what Python computes."""

import re
import shutil
import subprocess
from pathlib import Path

import compositions
import numpy as np
import pytest

from tinysqueeze.cli import main
from tinysqueeze.devices import c as c_export
from tinysqueeze.devices.c import boards
from tinysqueeze.devices.int8 import quantise
from tinysqueeze.errors import UserError
from tinysqueeze.network import models
from tinysqueeze.network.compose import Chain, Concat, Residual
from tinysqueeze.network.layers import (
    AvgPool2D,
    BatchNorm,
    Conv2D,
    Flatten,
    GlobalAvgPool2D,
    HardSwish,
    Linear,
    MaxPool2D,
    ReLU,
    Softmax,
)
from tinysqueeze.network.others import GroupedConv2D
from tinysqueeze.network.params import flatten, initialise, map_params, unflatten
from tinysqueeze.weights import TORCHVISION, WeightSet, write_safetensors

STRICT = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic"]
PRINT_ALL = """
#include <stdio.h>
#include "{name}.h"
int main(void)
{{
    while (fread({name}_input(), sizeof *{name}_input(), {macro}_INPUT, stdin) == {macro}_INPUT)
        fwrite({name}_run(), 4, {macro}_CLASSES, stdout);
    return 0;
}}
"""


def compile_c(gcc: str, directory: Path, name: str, *flags: str) -> Path:
    main = directory / "all_logits.c"
    main.write_text(PRINT_ALL.format(name=name, macro=name.upper()))
    program = directory / "all_logits"
    sources = [str(directory / f"{name}.c"), str(main)]
    subprocess.run([gcc, *STRICT, "-O2", *flags, *sources, "-o", str(program)], check=True)
    return program


def logits_of(program: Path, images: np.ndarray, dtype: str) -> np.ndarray:
    done = subprocess.run([program], input=images.tobytes(), stdout=subprocess.PIPE, check=True)
    return np.frombuffer(done.stdout, dtype).reshape(len(images), -1)


def lively(model: models.Model, rng: np.random.Generator):
    """Parameters of which none is 0 or 1, so that a forgotten one shows."""
    flat = flatten(initialise(model))
    for path, array in flat.items():
        if not path.endswith("/weight") or array.ndim == 1:
            flat[path] = (0.5 + rng.random(array.shape)).astype(np.float32) * 0.2
        elif "conv10" in path:
            flat[path] = array * 10
    return unflatten(flat)


def _model(*steps, size: int = 13) -> models.Model:
    return models.Model("odd", steps, (size, size + 3, 3), {})


TINY = {"input_size": 32, "classes": 7, "base_e": 16, "incr_e": 8, "stem_filters": 12}
NETS = {
    "cifar": models.squeezenet_cifar(classes=7, base_e=16, incr_e=8, stem_filters=12),
    "v1_0": models.squeezenet1_0(**TINY | {"input_size": 51}, conv10_pad=1),
    "v1_1": models.squeezenet1_1(**TINY | {"input_size": 47}),
    "norm, complex bypass": models.squeezenet_cifar(**TINY, bypass="complex", norm=True),
    "simple bypass": models.squeezenet_cifar(**TINY, bypass="simple"),
    "norm, linear squeeze": models.squeezenet_cifar(**TINY, norm=True, linear_squeeze=True),
    "hard-swish": models.squeezenet_cifar(**TINY, norm=True, activation="hard-swish", bypass="simple"),
    "groups, average, linear": _model(
        ("a", Conv2D(8, (3, 2), (2, 1), (1, 0))),
        ("b", MaxPool2D(3, 2, 1, ceil=True)),
        ("c", GroupedConv2D(12, 3, 4, pad=1)),
        ("d", ReLU()),
        ("e", AvgPool2D(3, 2, 1, ceil=True)),
        ("f", Flatten()),
        ("g", Linear(5)),
    ),
    "everything that is not folded": _model(
        ("a", Conv2D(6, 3)),
        ("b", Residual(Chain((("n", BatchNorm()), ("r", ReLU()), ("c", Conv2D(6, 3, pad=1)))))),
        ("p", MaxPool2D(2, 2)),
        ("c", Concat((("same", Residual(Chain(()))), ("pool", MaxPool2D(3, 1, 1)), ("conv", Conv2D(4, 1))))),
        ("d", ReLU()),
        ("e", GlobalAvgPool2D()),
    ),
    "arms that end in anything": _model(
        ("a", Conv2D(4, 3)),
        ("b", Concat((
            ("pool", Chain((("c", Conv2D(2, 1)), ("s", HardSwish()), ("p", MaxPool2D(3, 1))))),
            ("wide", Conv2D(12, 3)),
        ))),
        ("c", Concat((
            ("sum", Chain((("c", Conv2D(2, 1)), ("r", Residual(Conv2D(2, 3, pad=1)))))),
            ("relu", ReLU()),
            ("swish", Chain((("c", Conv2D(3, 1)), ("s", HardSwish())))),
        ))),
        ("d", Residual(AvgPool2D(3, 1, 1))),
        ("e", AvgPool2D((9, 12), 1)),
        ("f", Flatten()),
        ("g", Concat((("h", Linear(3)), ("i", Chain((("j", Linear(4)), ("k", ReLU()), ("l", Linear(2)))))))),
    ),
    "an average larger than its map": _model(
        ("a", Conv2D(4, (12, 15))), ("b", AvgPool2D(2, 1, 1)), ("c", Flatten()), ("d", Linear(3)),
    ),
}  # fmt: skip


@pytest.fixture(params=NETS)
def net(request, rng):
    model = NETS[request.param]
    images = rng.standard_normal((3, *model.input_shape)).astype(np.float32)
    return model, lively(model, rng), images


def test_float32_matches_python(net, gcc, tmp_path):
    model, params, images = net
    exported = c_export.export_float32(model, params, tmp_path)
    program = compile_c(gcc, tmp_path, model.name)
    expected, _ = model.forward(params, images)
    got = logits_of(program, images, "<f4")
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())
    assert exported.flash >= 4 * sum(a.size for p, a in flatten(params).items() if "/bias" in p)


def test_int8_is_the_same_bit_for_bit(net, gcc, tmp_path):
    model, params, images = net
    network = quantise(model, params, images)
    c_export.export_int8(network, tmp_path)
    program = compile_c(gcc, tmp_path, f"{model.name}_int8")
    codes = network.encode(images)
    got = logits_of(program, codes, "<i4")
    np.testing.assert_array_equal(got, network.integers(codes))
    assert len(np.unique(got)) > 4


@pytest.mark.slow
@pytest.mark.parametrize("name", [*compositions.COMPOSED, *(f"drawn {i}" for i in range(12))])
def test_every_composition(name, gcc, tmp_path, rng):
    """In float32 and in integers, or refused for a layer that has no code."""
    model = compositions.with_logits(name)
    images = rng.standard_normal((3, *model.input_shape)).astype(np.float32)
    params = map_params(lambda a: a.astype(np.float32), compositions.params_of(model, rng))
    c_name = re.sub(r"\W", "_", name)
    if name in ("flatten and more than linear", "flattened arms"):
        with pytest.raises(UserError, match="a Flatten cannot be"):
            c_export.export_float32(model, params, tmp_path)
        return
    c_export.export_float32(model, params, tmp_path)
    expected, _ = model.forward(params, images)
    got = logits_of(compile_c(gcc, tmp_path, c_name), images, "<f4")
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())
    network = quantise(model, params, images)
    c_export.export_int8(network, tmp_path)
    codes = network.encode(images)
    got = logits_of(compile_c(gcc, tmp_path, f"{c_name}_int8"), codes, "<i4")
    np.testing.assert_array_equal(got, network.integers(codes))


def test_neither_allocates_nor_includes(gcc, tmp_path):
    model = NETS["cifar"]
    exported = c_export.export_float32(model, initialise(model), tmp_path)
    text = (tmp_path / "squeezenet_cifar.c").read_text()
    kernels = (tmp_path / "squeezenet_cifar_kernels.h").read_text()
    assert not re.search(r"\b(malloc|calloc|realloc|free|alloca)\b", text + kernels)
    assert "#include" not in kernels
    assert re.findall(r"#include (\S+)", text) == [
        '"squeezenet_cifar.h"',
        '"squeezenet_cifar_kernels.h"',
        '"squeezenet_cifar_weights.h"',
    ]
    object_file = tmp_path / "net.o"
    subprocess.run(
        [gcc, *STRICT, "-Os", "-c", tmp_path / "squeezenet_cifar.c", "-o", object_file], check=True
    )
    if shutil.which("nm"):
        names = subprocess.run(
            ["nm", "-u", object_file], capture_output=True, text=True, check=True
        )
        wanted = {line.split()[-1] for line in names.stdout.splitlines()}
        assert wanted <= {
            "memcpy",
            "memset",
            "_GLOBAL_OFFSET_TABLE_",
        }  # what any compiler may put in
    if shutil.which("size"):
        sizes = subprocess.run(["size", object_file], capture_output=True, text=True, check=True)
        text_size, data, bss = (int(n) for n in sizes.stdout.splitlines()[1].split()[:3])
        assert bss <= exported.ram + 128
        assert data <= 4096
        assert exported.flash <= text_size + data <= exported.flash + 16384


def test_example_names_the_best_class(gcc, tmp_path, rng):
    model = NETS["cifar"]
    params = lively(model, rng)
    c_export.export_float32(model, params, tmp_path)
    sources = [tmp_path / "squeezenet_cifar.c", tmp_path / "example.c"]
    subprocess.run([gcc, *STRICT, *sources, "-o", tmp_path / "example"], check=True)
    images = rng.standard_normal((2, *model.input_shape)).astype(np.float32)
    said = subprocess.run(
        [tmp_path / "example"], input=images.tobytes(), capture_output=True, check=True
    )
    best = model.forward(params, images)[0].argmax(axis=1)
    assert [int(n) for n in re.findall(rb"class (\d+)", said.stdout)] == best.tolist()


def test_what_cannot_be_exported_is_said(tmp_path):
    headless = _model(("a", Conv2D(4, 3)), ("b", ReLU()))
    with pytest.raises(UserError, match="ends with a global average"):
        c_export.export_float32(headless, initialise(headless), tmp_path)
    probabilities = _model(("a", Conv2D(4, 3)), ("b", GlobalAvgPool2D()), ("c", Softmax()))
    with pytest.raises(UserError, match="c: a Softmax cannot be"):
        c_export.export_float32(probabilities, initialise(probabilities), tmp_path)
    pooled = _model(("a", MaxPool2D(2, 2)), ("b", GlobalAvgPool2D()))
    with pytest.raises(UserError, match="convolution as the first layer"):
        c_export.export_float32(pooled, {}, tmp_path)
    blocker = tmp_path / "file"
    blocker.write_text("")
    model = NETS["cifar"]
    with pytest.raises(UserError, match="folder"):
        c_export.export_float32(model, initialise(model), blocker)


def test_command_line(tmp_path, capsys, rng):
    model = models.squeezenet_cifar(classes=10, base_e=16, incr_e=8, stem_filters=12)
    weights = WeightSet(model, lively(model, rng), TORCHVISION.with_size(32), "a test's")
    write_safetensors(weights, tmp_path / "net.safetensors")
    source = str(tmp_path / "net.safetensors")
    assert main(["export", source, "--c", str(tmp_path / "f")]) == 0
    assert main(["export", source, "--c", str(tmp_path / "i"), "--int8", "builtin"]) == 0
    said = capsys.readouterr().out
    assert said.count("Raspberry Pi Pico 2 ") == 2
    assert "no: " not in said  # so small a network fits anywhere
    assert (tmp_path / "i" / "squeezenet_cifar_int8.c").exists()
    assert main(["export", source, "--c", str(tmp_path), "--int8", str(tmp_path / "i")]) == 1
    assert main(["export", source]) == 1
    assert "say which file" in capsys.readouterr().err


def test_boards_say_what_is_missing():
    said = boards.table(flash=5 * boards.MIB, ram=300 * boards.KIB)
    assert "lacks 3,080 KiB of flash and 68 KiB of RAM" in said  # the Pico
    assert [b.name for b in boards.BOARDS if boards.fits(b, 1, 1)] == [
        b.name for b in boards.BOARDS
    ]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["float32", "int8"])
def test_the_authors_network_on_photographs(kind, gcc, tmp_path, shared_data):
    from tinysqueeze.devices.int8 import pixel_grid
    from tinysqueeze.weights import load_weights, open_image

    weights = load_weights(shared_data / "compressed_SqueezeNet.net")
    files = sorted((shared_data / "imagenet200").glob("*.JPEG"))[::20]
    images = np.stack([weights.preprocess(open_image(file)) for file in files])
    if kind == "float32":
        c_export.export_float32(weights.model, weights.params, tmp_path)
        program = compile_c(gcc, tmp_path, "squeezenet1_0", "-O3")
        got = logits_of(program, images, "<f4")
        expected, _ = weights.model.forward(weights.params, images)
        np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-3)
        return
    network = quantise(weights.model, weights.params, images, pixel_grid(weights.preprocess))
    c_export.export_int8(network, tmp_path)
    program = compile_c(gcc, tmp_path, "squeezenet1_0_int8", "-O3")
    codes = network.encode(images)
    np.testing.assert_array_equal(logits_of(program, codes, "<i4"), network.integers(codes))
