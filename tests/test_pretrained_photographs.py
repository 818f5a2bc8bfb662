"""The authors' weights on real photographs: every way of running gives the published accuracy."""

import json

import numpy as np
import pytest

from tinysqueeze.network.layers import Mode
from tinysqueeze.network.ops import reference
from tinysqueeze.weights import (
    classify,
    evaluate_folder,
    find_images,
    load_weights,
    named,
    open_image,
    plan_for,
)
from tinysqueeze.weights.formats.onnx_file import to_onnx


@pytest.fixture(scope="module")
def weights(shared_data):
    source = shared_data / "compressed_SqueezeNet.net"
    return named(load_weights(source), beside=source, download=False)


@pytest.fixture(scope="module")
def expected(shared_data):
    """What an independent implementation said: {name: {"label", "top5", "top5_scores"}}."""
    return json.loads((shared_data / "imagenet200_reference.json").read_text())["images"]


@pytest.fixture(scope="module")
def photographs(shared_data):
    return list(find_images([shared_data / "imagenet200"]))


@pytest.fixture(scope="module")
def pixels(weights, photographs):
    return np.stack([weights.preprocess(open_image(path)) for path in photographs])


class OnnxRuntime:
    """Our export in ONNX Runtime, as a plan."""

    def __init__(self, weights):
        ort = pytest.importorskip("onnxruntime")
        pytest.importorskip("onnx")
        options = ["CPUExecutionProvider"]
        self.session = ort.InferenceSession(to_onnx(weights).SerializeToString(), providers=options)

    def predict(self, images):
        feed = {"images": np.ascontiguousarray(images.transpose(0, 3, 1, 2))}
        return self.session.run(["logits"], feed)[0]


def check(logits, photographs, expected, best_class_of=199) -> None:
    """Top-1 67.5 %, top-5 87.5 %, the same best class, each score within 1e-3."""
    rows = [expected[path.name] for path in photographs]
    labels = np.array([row["label"] for row in rows])
    order = np.argsort(-logits, axis=1, kind="stable")[:, :5]
    assert len(rows) == 200
    assert (order[:, 0] == labels).mean() == 0.675
    assert (order == labels[:, None]).any(axis=1).mean() == 0.875
    assert (order[:, 0] == [row["top5"][0] for row in rows]).sum() >= best_class_of
    for logit, row in zip(logits, rows, strict=True):
        np.testing.assert_allclose(logit[row["top5"]], row["top5_scores"], rtol=1e-3)


def test_the_compiled_plan_through_predict(weights, photographs, expected):
    results = list(classify(weights, photographs))
    check(np.stack([result.logits for result in results]), photographs, expected)
    tench = results[0].best(1)[0]
    assert (tench.index, tench.name) == (0, "tench")
    assert tench.probability > 0.9


def test_onnx_runtime_on_our_export(weights, photographs, expected, pixels):
    logits = np.concatenate([OnnxRuntime(weights).predict(part) for part in np.split(pixels, 10)])
    check(logits, photographs, expected)


def test_step_by_step_on_some(weights, photographs, expected, pixels):
    """Layer by layer, with the fast operations and the reference ones."""
    from tinysqueeze.network.ops import fast

    for ops, every in ((fast, 10), (reference, 40)):
        logits = weights.model.forward(weights.params, pixels[::every], Mode(ops))[0]
        for logit, path in zip(logits, photographs[::every], strict=True):
            row = expected[path.name]
            assert logit.argmax() == row["top5"][0]
            np.testing.assert_allclose(logit[row["top5"]], row["top5_scores"], rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["reference", "fast"])
def test_step_by_step_on_all(weights, photographs, expected, pixels, name):
    from tinysqueeze.network.ops import fast

    mode = Mode({"reference": reference, "fast": fast}[name])
    parts = (weights.model.forward(weights.params, part, mode)[0] for part in np.split(pixels, 20))
    check(np.concatenate(list(parts)), photographs, expected, best_class_of=200)


def test_the_ring_of_zeros_around_conv10(weights, photographs, expected, pixels):
    """conv10's padding shifts every score but hardly any decision: the same 67.5 and 87.5 %.

    Each of the 56 places of the ring adds ReLU(bias) to a sum that is divided by 225 instead of 169.
    """
    bare = weights.with_model(conv10_pad=0)
    ringed, plain = (plan_for(w).predict(pixels) for w in (weights, bare))
    bias = np.maximum(weights.flat["conv10/bias"], 0)
    np.testing.assert_allclose(ringed, (169 * plain + 56 * bias) / 225, rtol=1e-3, atol=1e-3)
    labels = np.array([expected[path.name]["label"] for path in photographs])
    for logits in (ringed, plain):
        order = np.argsort(-logits, axis=1, kind="stable")[:, :5]
        assert (order[:, 0] == labels).mean() == 0.675
        assert (order == labels[:, None]).any(axis=1).mean() == 0.875
    assert (ringed.argmax(1) != plain.argmax(1)).sum() <= 1


def test_a_folder_of_labelled_photographs(weights, shared_data):
    *_, score = evaluate_folder(weights, shared_data / "imagenet200", batch=32)
    assert (score.images, score.top1, score.top5) == (200, 0.675, 0.875)
    assert score.skipped == []


def test_every_export_gives_the_same_answers(weights, tmp_path, pixels):
    from tinysqueeze.weights import write_onnx, write_safetensors, write_torchvision

    writers = {"a": write_safetensors, "b": write_torchvision}
    for name, write in writers.items():
        write(weights, tmp_path / f"{name}.safetensors")
        read = load_weights(tmp_path / f"{name}.safetensors")
        assert all(np.array_equal(read.flat[path], array) for path, array in weights.flat.items())
        assert (read.preprocess, read.classes, read.wnids, read.model.spec) == (
            weights.preprocess, weights.classes, weights.wnids, weights.model.spec,
        )  # fmt: skip
    pytest.importorskip("onnx")
    write_onnx(weights, tmp_path / "net.onnx")
    read = load_weights(tmp_path / "net.onnx")
    assert all(np.array_equal(read.flat[path], array) for path, array in weights.flat.items())
