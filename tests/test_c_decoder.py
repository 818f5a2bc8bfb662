"""The decoder of .tsq files in C: Python's numbers to the bit, and every damaged file refused."""

import re
import struct
import subprocess
import zlib
from hashlib import sha256
from pathlib import Path

import compositions
import numpy as np
import pytest
from test_c_export import NETS, PRINT_ALL, STRICT, lively
from test_compression_file import damaged

from tinysqueeze.cli import main
from tinysqueeze.devices import c as c_export
from tinysqueeze.devices.c.packed import stamp
from tinysqueeze.devices.wasm.build import compiler
from tinysqueeze.errors import FormatError
from tinysqueeze.network.models import squeezenet_cifar
from tinysqueeze.network.params import flatten, shapes
from tinysqueeze.weights import TORCHVISION, WeightSet, load_weights, write_safetensors
from tinysqueeze.weights.compression import fileformat, pipeline, sizing
from tinysqueeze.weights.compression.deep_compression import deep_compression_tensors
from tinysqueeze.weights.compression.fileformat import Compressed, from_bytes, symbols_of, to_bytes
from tinysqueeze.weights.compression.tensors import Dense, Shared, Stepped, Tensor

OK, NOT_TSQ, VERSION, CUT, DAMAGED, OTHER, TOO_LARGE = range(7)
SANITIZE = ("-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
# Every file in a buffer of just its length, every array in one of its own: a step beyond is seen.
DRIVER = """
#include <stdio.h>
#include <stdlib.h>
#include "tsq.h"
static const uint32_t counts[] = {{{counts}}};
int main(void)
{{
    enum {{ ARRAYS = {arrays} }};
    tsq_array_t arrays[ARRAYS];
    const tsq_network_t network = {{arrays, ARRAYS, {version}, {metadata}u}};
    uint32_t size;
    for (int i = 0; i < ARRAYS; i++)
        arrays[i] = (tsq_array_t){{malloc(4 * counts[i]), counts[i]}};
    while (fread(&size, 4, 1, stdin) == 1) {{
        uint8_t *file = malloc(size);
        if (size && fread(file, 1, size, stdin) != size)
            return 1;
        const int code = tsq_unpack(file, size, &network);
        fputc(code, stdout);
        for (int i = 0; i < ARRAYS && !code; i++)
            fwrite(arrays[i].values, 4, counts[i], stdout);
        free(file);
    }}
    for (int i = 0; i < ARRAYS; i++)
        free(arrays[i].values);
    return 0;
}}
"""


class Decoder:
    """The C program for the network of one file."""

    def __init__(self, gcc: str, folder: Path, data: bytes, *flags: str) -> None:
        model = from_bytes(data).model
        self.sizes = [int(np.prod(shape)) for shape in shapes(model).values()]
        self.program = folder / "decode"
        version, metadata = stamp(data)
        words = {
            "counts": ", ".join(map(str, self.sizes)), "arrays": len(self.sizes), "version": version,
            "metadata": metadata,
        }  # fmt: skip
        (folder / "main.c").write_text(DRIVER.format(**words))
        here = Path(c_export.__file__).parent
        sources = [str(folder / "main.c"), str(here / "tsq.c")]
        command = [gcc, *STRICT, *flags, f"-I{here}", *sources, "-o", str(self.program)]
        subprocess.run(command, check=True)

    def __call__(self, files: list[bytes]) -> list[tuple[int, np.ndarray | None]]:
        """(code, all numbers as uint32) of each."""
        sent = b"".join(struct.pack("<I", len(data)) + data for data in files)
        done = subprocess.run([self.program], input=sent, capture_output=True)
        assert done.returncode == 0, done.stderr.decode()[-2000:]
        found, at = [], 0
        for _ in files:
            code, at = done.stdout[at], at + 1
            size = 4 * sum(self.sizes) * (code == OK)
            found.append((code, np.frombuffer(done.stdout, "<u4", size // 4, at) if size else None))
            at += size
        assert at == len(done.stdout)
        return found


def bits_of(compressed: Compressed) -> np.ndarray:
    """What Python makes of it, as the bits of float32."""
    with np.errstate(over="ignore"):
        arrays = [tensor.values() for tensor in compressed.tensors.values()]
    return np.concatenate([a.astype(np.float32).reshape(-1).view(np.uint32) for a in arrays])


def sealed(version: int, contents: list[tuple[bytes, bytes]]) -> bytes:
    """A file of these (kind, content) whose checksums are all right."""
    sections = []
    for kind, content in contents:
        framed = struct.pack("<I", len(content)) + kind + content
        sections.append(framed + struct.pack("<I", zlib.crc32(framed)))
    size = 20 + sum(map(len, sections)) + 32
    head = struct.pack("<8sHHI", fileformat.MAGIC, version, len(sections), size)
    body = head + struct.pack("<I", zlib.crc32(head)) + b"".join(sections)
    return body + sha256(body).digest()


def tensor_of(shape: tuple[int, ...], rng: np.random.Generator) -> Tensor:
    """Any array in any way to store it, with odd values among the numbers."""
    odd = np.array([0.0, -0.0, 1e-40, -6e-8, 65504.0, -3e38], np.float32)
    kind, sparse = rng.integers(5), rng.random()
    if kind < 2:
        array = rng.standard_normal(shape).astype(np.float32)
        array.flat[: len(odd)] = rng.permutation(odd[: -1 if kind else None])[: array.size]
        return Dense(array, half=bool(kind))
    if kind < 4:
        book = rng.standard_normal(int(rng.integers(1, 300))).astype(np.float32)
        book[: len(odd) - 1] = odd[: min(len(book), len(odd) - 1)]
        codes = rng.integers(0, len(book) + 1, shape, dtype=np.int32)
        return Shared(codes * (rng.random(shape) < sparse), rng.permutation(book), half=kind == 3)
    steps = np.clip(np.rint(rng.laplace(0, 10 ** rng.uniform(-1, 3), shape)), -1500, 1500)
    return Stepped((steps * (rng.random(shape) < sparse)).astype(np.int32), float(np.float32(0.37)))


def file_of(seed: int, coding: str) -> tuple[Compressed, bytes]:
    rng = np.random.default_rng(seed)
    model = compositions.drawn(seed)
    tensors = {path: tensor_of(shape, rng) for path, shape in shapes(model).items()}
    compressed = Compressed(model, tensors, {"about": "a test's"})
    return compressed, to_bytes(compressed, coding)


@pytest.mark.parametrize("seed", range(4))
def test_drawn_networks_are_pythons_to_the_bit(seed, gcc, tmp_path):
    _, data = file_of(seed, "ans")
    decode = Decoder(gcc, tmp_path, data, *SANITIZE)
    for coding in fileformat.CODINGS:
        compressed, data = file_of(seed, coding)
        ((code, found),) = decode([data])
        assert code == OK
        np.testing.assert_array_equal(found, bits_of(compressed))
        np.testing.assert_array_equal(found, bits_of(from_bytes(data)))


SMALL = squeezenet_cifar(
    norm=True, base_e=8, incr_e=8, stem_filters=8, fires=1, pools=(1,), classes=3
)


def small_file(coding: str) -> bytes:
    rng = np.random.default_rng(5)
    tensors = {path: tensor_of(shape, rng) for path, shape in shapes(SMALL).items()}
    kinds = {type(tensor) for tensor in tensors.values()}
    assert kinds == {Dense, Shared, Stepped}
    return to_bytes(Compressed(SMALL, tensors, {}), coding)


@pytest.mark.parametrize("coding", fileformat.CODINGS)
def test_damaged_files_are_refused(coding, gcc, tmp_path):
    data, rng = small_file(coding), np.random.default_rng(1)
    decode = Decoder(gcc, tmp_path, data, *SANITIZE)
    cuts = [data[:end] for end in (0, 1, 7, 8, 19, 20, 51, 52, 53, len(data) - 1)]
    broken = [damaged(data, rng) for _ in range(1000)] + cuts + [data + b"\0"]
    codes = {code for code, _ in decode([file for file in broken if file != data])}
    assert codes == {NOT_TSQ, CUT, DAMAGED}
    assert decode([data])[0][0] == OK


@pytest.mark.parametrize("coding", fileformat.CODINGS)
def test_what_is_damaged_behind_right_checksums_is_judged_as_python_judges(coding, gcc, tmp_path):
    """One section is damaged and the file sealed anew: C takes it where Python does, with its numbers."""
    data, rng = small_file(coding), np.random.default_rng(2)
    contents = fileformat.sections(data)
    decode = Decoder(gcc, tmp_path, data, *SANITIZE)
    files = []
    for _ in range(300):
        changed = list(contents)
        k = int(rng.integers(1, len(contents)))
        kind, content = contents[k]
        if rng.random() < 0.1:
            changed[k] = (b"DHCcSMx"[(at := rng.integers(7)) : at + 1], content)
        else:
            near = bytearray(content)  # the heads, where all depends on each byte
            near[int(rng.integers(min(40, len(near))))] = int(rng.integers(256))
            changed[k] = (kind, bytes(near) if rng.random() < 0.5 else damaged(content, rng))
        files.append(sealed(data[8], changed))
    taken = 0
    for file, (code, found) in zip(files, decode(files), strict=True):
        try:
            expected = bits_of(from_bytes(file))
        except FormatError:
            assert code in (DAMAGED, TOO_LARGE)
            continue
        if code != TOO_LARGE:
            assert code == OK
            np.testing.assert_array_equal(found, expected)
            taken += 1
    assert 10 < taken < len(files) - 10


def test_another_networks_file_and_too_large_a_codebook_are_refused(gcc, tmp_path):
    data = small_file("ans")
    decode = Decoder(gcc, tmp_path, data, *SANITIZE)
    contents = fileformat.sections(data)
    _, other = file_of(0, "ans")
    assert decode([other])[0][0] == OTHER
    fewer = sealed(data[8], contents[:-1])
    named = to_bytes(Compressed(SMALL, from_bytes(data).tensors, {"classes": ["a", "b", "c"]}))
    later = sealed(4, contents)
    assert [code for code, _ in decode([fewer, named, later])] == [OTHER, OTHER, VERSION]
    path, shape = next((p, s) for p, s in shapes(SMALL).items() if len(s) == 4)
    book = np.arange(1, 5000, dtype=np.float32)
    wide = dict(from_bytes(data).tensors) | {path: Shared(np.zeros(shape, np.int32), book)}
    large = to_bytes(Compressed(SMALL, wide, {}))
    assert decode([large])[0][0] == TOO_LARGE
    roomy = Decoder(gcc, tmp_path, data, *SANITIZE, "-DTSQ_SYMBOLS=65536")
    assert roomy([large])[0][0] == OK


@pytest.mark.slow
def test_the_authors_network_is_pythons_to_the_bit(gcc, tmp_path, shared_data):
    file = shared_data / "compressed_SqueezeNet.net"
    weights = load_weights(file)
    exact = pipeline.pack(weights, deep_compression_tensors(file.read_bytes(), weights.model))
    files = [to_bytes(exact, coding) for coding in fileformat.CODINGS]
    files.append(to_bytes(sizing.to_size(weights, 345_300)))
    decode = Decoder(gcc, tmp_path, files[0], "-O2")
    for data, (code, found) in zip(files, decode(files), strict=True):
        assert code == OK
        np.testing.assert_array_equal(found, bits_of(from_bytes(data)))


def packed_logits(gcc: str, folder: Path, name: str, images: np.ndarray, *flags: str) -> np.ndarray:
    """Unpack NAME.tsq in the exported program, and its logits."""
    main = PRINT_ALL.replace("int main(void)\n{{", UNPACK).format(name=name, macro=name.upper())
    (folder / "all_logits.c").write_text(main)
    sources = [str(folder / f) for f in (f"{name}.c", "tsq.c", "all_logits.c")]
    program = folder / "all_logits"
    subprocess.run([gcc, *STRICT, "-O2", *flags, *sources, "-o", str(program)], check=True)
    command = [str(program), str(folder / f"{name}.tsq")]
    done = subprocess.run(command, input=images.tobytes(), stdout=subprocess.PIPE, check=True)
    return np.frombuffer(done.stdout, "<f4").reshape(len(images), -1)


UNPACK = """
int main(int words, char **word)
{{
    static uint8_t bytes[1 << 20];
    FILE *file = fopen(word[words - 1], "rb");
    const uint32_t size = (uint32_t)fread(bytes, 1, sizeof bytes, file);
    fclose(file);
    bytes[size / 2] ^= 1;
    if (!{name}_load(bytes, size))
        return 2;
    bytes[size / 2] ^= 1;
    if ({name}_load(bytes, size) || {name}_load(bytes, size)) /* the second folds no norm twice */
        return 3;
"""


@pytest.mark.parametrize("name", NETS)
def test_a_program_that_unpacks_its_weights_computes_what_python_does(name, gcc, tmp_path, rng):
    model = NETS[name]
    params = lively(model, rng)
    images = rng.standard_normal((3, *model.input_shape)).astype(np.float32)
    exact = {path: Dense(array) for path, array in flatten(params).items()}
    data = to_bytes(Compressed(model, exact, {}))
    c_export.export_packed(model, data, tmp_path, symbols_of(data))
    got = packed_logits(gcc, tmp_path, model.name, images)
    expected, _ = model.forward(params, images)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


def test_the_command_packs_any_weights_and_keeps_a_file_as_it_is(gcc, tmp_path, capsys, rng):
    weights = WeightSet(SMALL, lively(SMALL, rng), TORCHVISION.with_size(32), "a test's")
    write_safetensors(weights, tmp_path / "net.safetensors")
    fileformat.write(tmp_path / "net.tsq", pipeline.shared(weights, 5), "huffman")
    for suffix in ("safetensors", "tsq"):
        source, out = str(tmp_path / f"net.{suffix}"), tmp_path / suffix
        assert main(["export", source, "--c", str(out), "--packed"]) == 0
        expected = load_weights(source)
        images = rng.standard_normal((2, 32, 32, 3)).astype(np.float32)
        got = packed_logits(gcc, out, "squeezenet_cifar", images)
        logits, _ = expected.model.forward(expected.params, images)
        np.testing.assert_allclose(got, logits, rtol=1e-4, atol=1e-5)
        example = [str(out / file) for file in ("squeezenet_cifar.c", "tsq.c", "example.c")]
        subprocess.run([gcc, *STRICT, *example, "-o", out / "example"], check=True)
        command = [out / "example", out / "squeezenet_cifar.tsq"]
        said = subprocess.run(command, input=images.tobytes(), capture_output=True, check=True)
        assert [int(n) for n in re.findall(rb"class (\d+)", said.stdout)] == [*got.argmax(axis=1)]
    assert (tmp_path / "tsq/squeezenet_cifar.tsq").read_bytes() == (
        tmp_path / "net.tsq"
    ).read_bytes()
    assert main(["export", str(tmp_path / "net.tsq"), "--packed"]) == 1
    assert "--packed go with --c" in capsys.readouterr().err
    packed_int8 = [
        "export",
        str(tmp_path / "net.tsq"),
        "--c",
        str(tmp_path),
        "--packed",
        "--int8",
        "builtin",
    ]
    assert main(packed_int8) == 1


@pytest.mark.slow
def test_an_exported_program_compiles_to_webassembly(tmp_path, rng):
    """As it is: a name that some library would have to give is an error of the linker."""
    pytest.importorskip("ziglang", reason="no compiler for WebAssembly: pip install '.[web]'")
    exact = {path: Dense(array) for path, array in flatten(lively(SMALL, rng)).items()}
    c_export.export_packed(SMALL, to_bytes(Compressed(SMALL, exact, {})), tmp_path, 0)
    names = [f"-Wl,--export={SMALL.name}_{what}" for what in ("load", "input", "run")]
    flags = ["-O2", "-nostdlib", "-fno-builtin", "-Wl,--no-entry", *names]
    sources = [str(tmp_path / file) for file in (f"{SMALL.name}.c", "tsq.c")]
    out = tmp_path / "network.wasm"
    subprocess.run([*compiler(), *STRICT, *flags, *sources, "-o", str(out)], check=True)
    module = out.read_bytes()
    assert module[:8] == b"\0asm\1\0\0\0"
    assert all(f"{SMALL.name}_{what}".encode() in module for what in ("load", "input", "run"))
