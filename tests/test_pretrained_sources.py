"""Weights by name: hashes that prove them, the cache, and what is said without a network."""

import hashlib
import re
from dataclasses import replace

import pytest
import requests
import weight_files as files

from tinysqueeze.errors import DataError
from tinysqueeze.weights import SOURCES, load_weights, named, write_safetensors
from tinysqueeze.weights.sources import CLASS_INDEX, known_source

LENGTHS = {"": 64, "sha256": 64, "sha384": 96, "md5": 32}  # hexadecimal digits


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    """Every request fails, and the cache is empty."""
    monkeypatch.setenv("TINYSQUEEZE_CACHE", str(tmp_path / "cache"))

    def unreachable(*_, **__):
        raise requests.ConnectionError("no route to host")

    monkeypatch.setattr(requests, "get", unreachable)
    return tmp_path / "cache"


def test_every_source_has_a_whole_hash():
    for file in [*(source.file for source in SOURCES.values()), CLASS_INDEX]:
        algorithm, _, digits = file.sha256.rpartition(":")
        assert re.fullmatch(f"[0-9a-f]{{{LENGTHS[algorithm]}}}", digits)
        assert file.size > 1000
        assert all(url.startswith("https://") for url in file.mirrors)
        assert "\n" not in file.name


def test_without_a_network_the_way_out_is_named(no_network):
    with pytest.raises(DataError) as error:
        load_weights("squeezenet1_1_torchvision")
    text = str(error.value)
    assert "squeezenet1_1-b8a52dc0.pth" in text
    assert SOURCES["squeezenet1_1_torchvision"].file.sha256 in text
    assert str(no_network) in text
    assert "give its path" in text


def test_without_a_network_classes_stay_numbers(no_network):
    weights = named(files.small(classes=1000).with_classes(()))
    assert weights.class_name(3) == "class 3"
    assert "--classes FILE" in weights.notes[0]


def test_what_is_in_the_cache_is_used_and_vouched_for(no_network, monkeypatch, tmp_path):
    made = files.small()
    write_safetensors(made, tmp_path / "net.safetensors")
    data = (tmp_path / "net.safetensors").read_bytes()
    old = SOURCES["squeezenet1_1_caffe"]
    file = replace(
        old.file,
        name="net.safetensors",
        size=len(data),
        sha256=f"sha384:{hashlib.sha384(data).hexdigest()}",
    )
    monkeypatch.setitem(SOURCES, "squeezenet1_1_caffe", replace(old, file=file))
    no_network.mkdir()
    files.write(no_network / file.name, data)
    read = load_weights("squeezenet1_1_caffe")
    assert files.same(read, made)
    assert read.notes[0] == f"to the bit (by its SHA384) {old.what}"
    assert known_source(data + b" ") is None
    damaged = bytes([data[0] ^ 1]) + data[1:]
    files.write(no_network / file.name, damaged)
    with pytest.raises(DataError, match="cannot download"):
        load_weights("squeezenet1_1_caffe")


def test_names_in_a_list_beside_the_weights(no_network, tmp_path):
    lines = "".join(f"n{i:08d} thing_{i}\n" for i in range(1000))
    (tmp_path / "imagenet_classes.txt").write_text(lines)
    weights = files.small(classes=1000).with_classes(())
    found = named(weights, beside=tmp_path / "net.pth")
    assert found.class_name(999) == "thing 999"
    assert found.wnids[5] == "n00000005"
