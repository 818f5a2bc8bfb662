"""To a size: exactly kept, stopped anywhere and gone on with; judged by pictures it was not made with."""

import signal
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tinysqueeze.cli import main
from tinysqueeze.data import cifar10
from tinysqueeze.errors import DataError, UserError
from tinysqueeze.graph import Conv, lower
from tinysqueeze.network.models import squeezenet_cifar
from tinysqueeze.network.params import flatten, initialise, unflatten
from tinysqueeze.weights import Preprocess, WeightSet, write_safetensors
from tinysqueeze.weights.calibration import dataset_of
from tinysqueeze.weights.compression import (
    calibrate,
    compress,
    fileformat,
    kept,
    pipeline,
    searching,
    sizing,
)
from tinysqueeze.weights.compression.calibrate import Layer, rounded_bias
from tinysqueeze.weights.compression.fileformat import to_bytes
from tinysqueeze.weights.compression.judging import Agreement, halves, judge
from tinysqueeze.weights.compression.rounding import Rounded, feedback_factor
from tinysqueeze.weights.compression.sizing import Sizing, Step, search
from tinysqueeze.weights.compression.tensors import Dense, Stepped

TINY = {
    "base_e": 32, "incr_e": 16, "fires": 3, "pools": (1, 2), "stem_filters": 16, "classes": 3,
    "final_relu": False,
}  # fmt: skip
SIZE = 3_500


@pytest.fixture(scope="module")
def weights() -> WeightSet:
    """A small network; the names of its classes are those of the pictures' folders."""
    model = squeezenet_cifar(**TINY)
    size = model.input_shape[:2]
    prepare = Preprocess(resize=size[0], crop=size)
    return WeightSet(model, initialise(model, 1), prepare, "tiny", classes=("red", "green", "blue"))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten pictures, in folders of their classes but for four."""
    root, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for i in range(10):
        folder = root / ("unsorted", "blue", "green")[min(i // 4, 2)]
        folder.mkdir(exist_ok=True)
        coarse = rng.integers(0, 255, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((40, 40)).save(folder / f"{i}.png")
    return root


def images(weights: WeightSet, count: int = 8, seed: int = 5) -> np.ndarray:
    shape = (count, *weights.model.input_shape)
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def ended(weights: WeightSet, pictures: np.ndarray | None, coding: str = "ans") -> bytes:
    return to_bytes(sizing.to_size(weights, SIZE, pictures, coding), coding)


# --- the size -----------------------------------------------------------------------------------


@pytest.mark.parametrize("coding", fileformat.CODINGS)
@pytest.mark.parametrize("calibrated", [False, True])
def test_a_file_is_full_and_not_a_byte_more(
    weights: WeightSet, coding: str, calibrated: bool
) -> None:
    """The size is that of the file in the coding it is written in: the paper's takes more."""
    data = ended(weights, images(weights) if calibrated else None, coding)
    assert 0.98 * SIZE < len(data) <= SIZE


def test_what_nothing_could_fit_into_is_said_at_once(weights: WeightSet) -> None:
    steps = search(weights, 500, images(weights), Sizing())
    with pytest.raises(UserError, match="500 bytes: with every weight 0 it takes"):
        next(steps)


def test_steps_say_how_far_they_are(weights: WeightSet) -> None:
    state = Sizing()
    steps = list(search(weights, SIZE, images(weights), state))
    shares = [step.share for step in steps]
    assert 0 < shares[0] < 0.1
    assert max(shares) <= 1
    assert shares[-1] > 0.6
    assert any(later > earlier for earlier, later in pairwise(shares))
    assert steps[-1].what.startswith("try ")
    assert state.tries
    assert not state.layers


# --- stopped and gone on with -------------------------------------------------------------------


@pytest.mark.parametrize("calibrated", [False, True])
def test_stopped_at_any_layer_it_ends_with_the_same_bytes(
    weights: WeightSet, calibrated: bool, tmp_path: Path
) -> None:
    """After every second layer the search is thrown away, and goes on from its file."""

    def known() -> int:
        return 100 * len(state.tries) + len(state.layers) + len(state.units)

    pictures = images(weights) if calibrated else None
    path, begun = tmp_path / "kept.safetensors", kept.origin(weights, SIZE, pictures, "ans")
    for stops in range(100):  # noqa: B007
        state = kept.read(path, begun)
        before = known()
        if not any(known() > before + 1 for _ in search(weights, SIZE, pictures, state)):
            break
        kept.save(path, state, begun)
    assert stops > 5
    assert state.best is not None
    assert to_bytes(state.best) == ended(weights, pictures)


def test_a_kept_search_of_something_else_is_refused(weights: WeightSet, tmp_path: Path) -> None:
    path = tmp_path / "kept.safetensors"
    begun = kept.origin(weights, SIZE, None, "ans")
    kept.save(path, Sizing(), begun)
    others = [
        kept.origin(weights, SIZE + 1, None, "ans"),
        kept.origin(weights, SIZE, images(weights), "ans"),
        kept.origin(weights, SIZE, None, "huffman"),
    ]
    for other in others:
        with pytest.raises(UserError, match="another network, to another size"):
            kept.read(path, other)
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    with pytest.raises(UserError, match="damaged: delete it"):
        kept.read(path, begun)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_is_stopped_and_goes_on(
    number: signal.Signals,
    weights: WeightSet,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    source, out = tmp_path / "net.safetensors", tmp_path / "net.tsq"
    write_safetensors(weights, source)
    command = ["compress", source, "-o", out, "--target-kb", SIZE / 1000, "--photos", photos]
    argv = list(map(str, command))

    def stopped(*arguments: object) -> Iterator[Step]:
        for count, step in enumerate(search(*arguments)):  # type: ignore[arg-type]
            if count == 20:
                signal.raise_signal(number)
            yield step

    monkeypatch.setattr(searching, "search", stopped)
    assert main(argv) == 128 + number
    assert "the same command goes on" in capsys.readouterr().out
    assert not out.exists()
    monkeypatch.setattr(searching, "search", search)
    assert main(argv) == 0
    assert "going on with" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir() if "sizing" in path.name] == []
    assert main([*argv[:3], str(tmp_path / "again.tsq"), *argv[4:]]) == 0
    assert out.read_bytes() == (tmp_path / "again.tsq").read_bytes()


def test_all_kinds_of_layers_are_kept(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    grid = Rounded(rng.integers(-511, 512, (6, 4)).astype(np.int32).T, 1 / 3, 0.25, 17.5)
    biases = [None, Dense(rng.random(4).astype("f2").astype("f4"), half=True)]
    biases.append(Stepped(rng.integers(-9, 9, 4).astype(np.int32), float(np.float32(0.1))))
    layers = {f"conv{i}": Layer(grid, bias) for i, bias in enumerate(biases)}
    kept.save(tmp_path / "kept.safetensors", Sizing(layers=layers), {})
    found = kept.read(tmp_path / "kept.safetensors", {}).layers
    assert list(found) == list(layers)
    for name, layer in layers.items():
        assert np.array_equal(found[name].grid.levels, grid.levels)
        assert (found[name].grid.step, found[name].grid.bits) == (grid.step, grid.bits)
        assert type(found[name].bias) is type(layer.bias)
        if layer.bias is not None:
            assert np.array_equal(found[name].bias.values(), layer.bias.values())


def test_a_long_bias_is_rounded_as_the_weights_are() -> None:
    """To half a step, of which theory says how large it may be; a short one is not worth a table."""
    bias, price = np.random.default_rng(0).standard_normal(400), 1e-4
    found = rounded_bias(bias, price)
    assert isinstance(found, Stepped)
    assert found.step == pytest.approx(np.sqrt(12 * price / np.log(2)))
    assert np.abs(found.values() - bias).max() <= 0.501 * found.step
    assert isinstance(rounded_bias(bias[:8], price), Dense)
    assert not rounded_bias(np.zeros(400), price).values().any()


# --- what calibration looks at ------------------------------------------------------------------


def test_a_place_counts_by_what_the_relu_lets_through(weights: WeightSet) -> None:
    """Every pixel is looked at here; its weight is the share of positive outputs, by hand."""
    conv = next(node for node in lower(weights.model).nodes if isinstance(node, Conv))
    assert conv.path == "conv1"
    seen = images(weights, 2, seed=1).astype(float)
    other = seen + 0.1
    full = calibrate.full_matrix(weights.flat, "conv1")
    found = calibrate.moments(conv, [seen], [other], full)
    rows, now = (
        np.concatenate([r, np.ones((len(r), 1))], axis=1)
        for r in (calibrate.rows_of(conv, x).reshape(-1, len(full) - 1) for x in (seen, other))
    )
    share = (rows @ full > 0).mean(1)
    assert 0 < share.min() < share.max() <= 1
    assert np.allclose(found.own, np.einsum("rd,re,r->de", now, now, share) / share.sum())
    assert np.allclose(found.cross, np.einsum("rd,re,r->de", rows, now, share) / share.sum())
    plain = calibrate.moments(conv, [seen], [other])
    assert np.allclose(plain.own, now.T @ now / len(now))


def test_inputs_that_never_change_are_rounded_as_well() -> None:
    """Behind a layer whose weights are all 0; of their variance, rounding leaves less than nothing."""
    same = np.append(30 * np.random.default_rng(0).standard_normal(20), 1.0)
    rows = np.tile(same, (1001, 1))
    own = rows.T @ rows / len(rows)
    seen = calibrate.Moments(own, own)
    assert (own[:-1, :-1] - np.outer(own[:-1, -1], own[:-1, -1])).diagonal().min() < 0
    assert np.isfinite(feedback_factor(seen.centred())).all()


def test_layers_before_a_relu() -> None:
    small = {"fires": 3, "pools": (1, 2)}
    found = calibrate.before_relu(squeezenet_cifar(**small))
    assert {"conv1", "fire2/squeeze", "fire2/expand1x1", "fire3/expand3x3"} <= found
    assert not calibrate.before_relu(squeezenet_cifar(norm=True, **small))  # a norm is between
    swish = squeezenet_cifar(linear_squeeze=True, activation="hard-swish", **small)
    assert not calibrate.before_relu(swish)
    last = squeezenet_cifar(final_relu=True, **small)
    assert calibrate.before_relu(last) - found == {"conv5"}


# --- judged by others ---------------------------------------------------------------------------


def test_halves_and_labels(weights: WeightSet, photos: Path) -> None:
    calibrate, others = halves(weights, str(photos))
    judged = {Path(path): label for path, label in others}  # type: ignore[arg-type]
    assert len(list(calibrate)) == len(judged) == 5
    assert not judged.keys() & set(calibrate)  # type: ignore[arg-type]
    names = {"blue": 2, "green": 1, "unsorted": None}
    assert all(label == names[path.parent.name] for path, label in judged.items())
    assert {*judged.values()} == {2, 1, None}


def test_a_dataset_is_judged_by_its_test_images(weights: WeightSet) -> None:
    calibrate, others = halves(weights, "builtin")
    assert calibrate == "builtin"
    assert len(others) == 1000
    assert {label for _, label in others} == {None}  # its classes are not the network's


def test_batches_of_cifar10_are_a_dataset(tmp_path: Path) -> None:
    """As their folder, the one it lies in, or the archive; a folder of pictures is none."""
    batches = tmp_path / "mine" / cifar10.FOLDER
    batches.mkdir(parents=True)
    assert dataset_of(str(tmp_path / "mine")) is None
    (batches / cifar10.META).touch()
    for name in cifar10.BATCHES["train"]:
        (batches / name).touch()
    assert dataset_of([str(tmp_path / "mine")]) == tmp_path / "mine"
    assert dataset_of(batches) == batches
    (tmp_path / cifar10.ARCHIVE.name).touch()
    assert dataset_of(str(tmp_path / cifar10.ARCHIVE.name)) == tmp_path / cifar10.ARCHIVE.name
    assert dataset_of("cifar10") == "cifar10"
    assert dataset_of("cifar100") is None
    assert dataset_of([str(batches), "builtin"]) is None


def test_norms_take_four_bytes_a_channel_and_compute_the_same() -> None:
    """A batch norm's four arrays are merged into two of 16 bits, whatever made the file so small."""
    rng = np.random.default_rng(0)
    model = squeezenet_cifar(norm=True, bypass="simple", **TINY)
    params = initialise(model)
    for path, array in flatten(params).items():
        if "norm" in path:
            array[...] = rng.uniform(0.5, 1.5, array.shape)
    size = model.input_shape[:2]
    known = WeightSet(model, params, Preprocess(resize=size[0], crop=size), "with norms")
    pictures = images(known, 4)
    for seen in (None, pictures):
        packed = sizing.to_size(known, 12_000, seen)
        for path, tensor in packed.tensors.items():
            if path.endswith(("norm/weight", "norm/bias")):
                assert isinstance(tensor, Dense)
                assert tensor.half
            if path.endswith(("norm/mean", "norm/var")):
                assert isinstance(tensor, Stepped)
        want, got = (model.forward(p, pictures)[0] for p in (params, unflatten(packed.params())))
        assert np.abs(got - want).max() < 0.05 * np.abs(want).max()


def test_a_norm_too_large_for_16_bits_stays_in_32() -> None:
    """A channel that never speaks has no variance: its scale is the root of 1 / eps."""
    model = squeezenet_cifar(norm=True, **TINY)
    flat = flatten(initialise(model))
    path = next(path.removesuffix("/var") for path in flat if path.endswith("/var"))
    flat[f"{path}/weight"][0] = 1e6
    merged = pipeline.merged_norms(model, flat)
    assert [merged[f"{path}/{name}"].half for name in ("weight", "bias")] == [False, True]  # type: ignore[union-attr]
    assert np.isfinite(merged[f"{path}/weight"].values()).all()


def test_agreement_is_counted_by_hand(weights: WeightSet) -> None:
    other = WeightSet(
        weights.model, initialise(weights.model, 2), weights.preprocess, "other", weights.classes
    )
    seen = images(weights, 40)
    before, after = (w.model.forward(w.params, seen)[0].astype(float) for w in (weights, other))
    labels = np.arange(40) % 3
    p, q = (np.exp(x) / np.exp(x).sum(1, keepdims=True) for x in (before, after))
    found = judge(weights, other, list(zip(seen, labels, strict=True)), seen[:0])
    assert found.images == found.labelled == 40
    assert found.same == (before.argmax(1) == after.argmax(1)).sum()
    assert found.nats == pytest.approx((p * np.log(p / q)).sum(1).mean(), rel=1e-4)
    assert found.first == tuple((x.argmax(1) == labels).sum() for x in (before, after))
    assert found.five == (40, 40)  # of three classes
    itself = judge(weights, weights, [(image, None) for image in seen], seen[:0])
    assert itself == Agreement(40, 40, 0.0)
    assert "labels" not in " ".join(itself.lines())


def test_nothing_is_judged_by_what_it_was_calibrated_with(
    weights: WeightSet, tmp_path: Path
) -> None:
    """The same picture under another name, and a file that is no picture, do not count."""
    seen = images(weights, 6)
    pictures = [(image, None) for image in seen]
    broken = tmp_path / "no.png"
    broken.write_bytes(b"nothing")
    assert judge(weights, weights, [*pictures, (broken, 1)], seen[:4]).images == 2
    with pytest.raises(DataError, match="no picture is left"):
        judge(weights, weights, pictures, seen)


def test_the_command_says_what_it_was_judged_by(
    weights: WeightSet, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "net.safetensors"
    write_safetensors(weights, source)
    argv = [
        "compress",
        str(source),
        "-o",
        str(tmp_path / "net.tsq"),
        "--target-kb",
        "3",
        "--photos",
    ]
    assert main([*argv, str(photos)]) == 0
    said = capsys.readouterr().out
    assert "calibrated with 5 pictures, judged by 5 others:" in said
    assert "the same best class as before on" in said
    assert "(3 pictures with labels)" in said
    assert main([*argv, str(next(photos.rglob("*.png")))]) == 0
    assert "none is left to judge it by" in capsys.readouterr().out


def test_numbers_that_are_not_finite_share_no_values(tmp_path):
    model = squeezenet_cifar(
        base_e=8, incr_e=4, stem_filters=6, squeeze_ratio=0.25, fires=3, pools=(1, 3)
    )
    params = initialise(model)
    params["conv1"]["weight"][0, 0, 0, 0] = np.nan
    for how in ({"bits": 4}, {"target_kb": 4}):
        with pytest.raises(UserError, match="conv1/weight holds numbers that are not finite"):
            compress.compress((model, params), tmp_path / "net.tsq", **how)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "how", [{"bits": 1.5}, {"bits": "4"}, {"bits": True}, {"prune": "x", "bits": 4}, {"target_kb": np.nan},
            {"target_kb": "3"}, {"target_kb": -1}, {"retrain": 1.5}, {"photos": 3, "target_kb": 2}],
)  # fmt: skip
def test_numbers_that_are_none(how, tmp_path):
    model = squeezenet_cifar(fires=1, pools=())
    with pytest.raises(UserError, match=r"compress: |pictures are files"):
        compress.compress((model, initialise(model)), tmp_path / "net.tsq", **how)
    assert list(tmp_path.iterdir()) == []
