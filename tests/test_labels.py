"""Labels at every door: what is a label is used rightly, anything else is refused in a clear line."""

import math
from datetime import date

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tinysqueeze.compiled import compile
from tinysqueeze.data import Dataset, Normalise
from tinysqueeze.errors import DataError, ShapeError, UserError
from tinysqueeze.labels import check_classes, check_images, check_labels
from tinysqueeze.network.loss import count_right, softmax_cross_entropy
from tinysqueeze.network.models import squeezenet_cifar
from tinysqueeze.network.ops import reference
from tinysqueeze.network.params import initialise
from tinysqueeze.network.stepwise import StepByStep
from tinysqueeze.paper.results import save_answers
from tinysqueeze.show.pictures.confusion import class_accuracy, worst_mistake_sheet
from tinysqueeze.show.pictures.training import confusion_matrix, sample_predictions
from tinysqueeze.study.diagnose import diagnose
from tinysqueeze.study.gradcheck import check_model, summarise
from tinysqueeze.study.stepper import Steps
from tinysqueeze.study.trace import trace
from tinysqueeze.training.engine import EngineSpec
from tinysqueeze.training.evaluate import evaluate
from tinysqueeze.training.scores import calibration, confusion_counts, worst_mistakes

N, CLASSES = 3, 4
NAMES = ("bird", "cat", "dog", "frog")
MODEL = squeezenet_cifar(
    base_e=8, incr_e=4, stem_filters=6, squeeze_ratio=0.25, fires=1, pools=(1,), input_size=6,
    classes=CLASSES,
)  # fmt: skip
PARAMS = initialise(MODEL, 1)
RNG = np.random.default_rng(0)
IMAGES = RNG.standard_normal((N, 6, 6, 3)).astype(np.float32)
PIXELS = RNG.integers(0, 256, (N, 6, 6, 3), dtype=np.uint8)
LOGITS = RNG.standard_normal((N, CLASSES))
PLAN, PLAIN = compile(MODEL, N, threads=1, params=PARAMS), StepByStep(MODEL, PARAMS)


def mean_loss(logits, shares):
    """By the definition, in plain Python."""
    total = 0.0
    for row, target in zip(logits.tolist(), shares, strict=True):
        log_sum = math.log(sum(math.exp(z) for z in row))
        total -= sum(t * (z - log_sum) for z, t in zip(row, target, strict=True))
    return total / len(shares)


NETWORK = MODEL.forward(PARAMS, IMAGES)[0]
SOFT = {  # where classes and shares are labels: the loss that each gives, and the logits that it is of
    "loss": (lambda labels: softmax_cross_entropy(LOGITS, labels)[0], LOGITS),
    "ops": (lambda labels: reference.softmax_cross_entropy(LOGITS, labels)[0], LOGITS),
    "each image": (lambda labels: reference.cross_entropies(LOGITS, labels)[0].mean(), LOGITS),
    "trace": (lambda labels: trace(MODEL, PARAMS, IMAGES, labels).loss, NETWORK),
    "step by step": (lambda labels: PLAIN.loss_and_grads(IMAGES, labels)[0], NETWORK),
    "compiled": (lambda labels: PLAN.loss_and_grads(IMAGES, labels)[0], NETWORK),
}
HARD = {  # where only classes are labels
    "dataset": lambda labels: Dataset(PIXELS, labels, NAMES, "three"),
    "confusion": lambda labels: confusion_counts(labels, np.zeros(N, int), CLASSES),
    "answers": lambda labels: confusion_counts(np.zeros(N, int), labels, CLASSES),
    "calibration": lambda labels: calibration(reference.softmax(LOGITS), labels),
    "worst": lambda labels: worst_mistakes(reference.softmax(LOGITS), labels),
    "stepper": lambda labels: Steps(MODEL, PARAMS, IMAGES, labels).run_to("loss"),
}


# -------------------------------------------------------------------------- what a label is, here


def as_shares(labels):
    """The shares that an array stands for, as lists of floats; None where it is no label."""
    values = labels.tolist()
    if labels.shape == (N,) and labels.dtype.kind in "iu":
        if all(0 <= value < CLASSES for value in values):
            return [[float(value == k) for k in range(CLASSES)] for value in values]
        return None
    if labels.shape == (N, CLASSES) and labels.dtype.kind in "iufb":
        rows = [[float(value) for value in row] for row in values]
        good = all(0 <= value <= 1.01 for row in rows for value in row)
        return rows if good and all(abs(sum(row) - 1) <= 1e-3 for row in rows) else None
    return None


NUMBERS = [
    "i1", "i2", "<i4", ">i4", "i8", ">i8", "u1", "<u2", ">u2", "u4", "u8", "f2", "<f4", ">f4", "f8", ">f8",
    "g", "?", "c8", "c16", "O", "U4", "S4",
]  # fmt: skip
DATES = np.array([date(2026, 1, day) for day in (1, 2, 3)], "M8[D]")
shapes = st.sampled_from(
    [
        (),
        (0,),
        (2,),
        (N,),
        (N + 1,),
        (N, 1),
        (N, CLASSES),
        (CLASSES, N),
        (N, CLASSES, 1),
        (0, CLASSES),
    ]
)
some = settings(max_examples=150, deadline=None, derandomize=True, database=None)


@st.composite
def anything(draw):
    """An array of any shape and kind: often labels or shares, or nearly, or what is neither."""
    shape = draw(st.one_of(st.just((N,)), st.just((N, CLASSES)), shapes))
    size = math.prod(shape)
    if len(shape) == 2 and shape[1] == CLASSES and draw(st.booleans()):
        rows = draw(st.lists(st.permutations([0.5, 0.25, 0.25, 0.0]), min_size=3, max_size=3))
        made = np.array(rows)[: shape[0]].reshape(shape)
        if draw(st.booleans()):
            made = (made == made.max(axis=1, keepdims=True)).astype(float)
        if size and draw(st.booleans()):
            wrong = draw(st.sampled_from([np.nan, np.inf, -np.inf, -0.25, 2.0, 1e300, 0.2505]))
            made[draw(st.integers(0, shape[0] - 1)), draw(st.integers(0, CLASSES - 1))] = wrong
    else:
        bits = draw(st.sampled_from([2, 2, 2, 3, 8]))
        low = draw(st.sampled_from([0, 0, 0, -1, -(2**bits)]))
        values = st.integers(low, 2**bits - 1)
        made = np.array(draw(st.lists(values, min_size=size, max_size=size))).reshape(shape)
    with np.errstate(all="ignore"):
        made = made.astype(draw(st.sampled_from(NUMBERS)))
    return made[..., ::-1] if made.ndim and draw(st.booleans()) else made


def examples(test):
    """What the issue names, whatever hypothesis draws."""
    for labels in (
        np.array([0.0, 1.0, 2.0]),
        np.array([True, False, True]),
        np.array(["cat", "dog", "cat"]),
        np.array([0, 1, None], object),
        np.array([1j, 0, 2]),
        DATES,
        np.array([2**63 + 1, 0, 1], np.uint64),
        np.full((N, CLASSES), np.nan, np.float32),
        np.full((N, CLASSES), 0.25, np.float16),
        np.eye(CLASSES, dtype=bool)[:N],
        np.zeros(N, [("a", "i4"), ("b", "i4")]),
    ):
        test = example(labels)(test)
    return test


@pytest.mark.parametrize("door", SOFT)
@some
@examples
@given(labels=anything())
def test_classes_or_shares_are_used_rightly_or_refused_clearly(door, labels):
    call, logits = SOFT[door]
    shares = as_shares(labels)
    if shares is None:
        with pytest.raises(ShapeError) as caught:
            call(labels)
        assert is_clear(str(caught.value))
    else:
        assert call(labels) == pytest.approx(mean_loss(logits, shares), rel=1e-4)


@pytest.mark.parametrize("door", HARD)
@some
@examples
@given(labels=anything())
def test_classes_alone_are_used_rightly_or_refused_clearly(door, labels):
    shares = as_shares(labels) if labels.ndim == 1 else None
    if shares is None:
        with pytest.raises(UserError) as caught:
            HARD[door](labels)
        assert is_clear(str(caught.value))
    else:
        HARD[door](labels)


def is_clear(line):
    """One line that says what was expected, what came, and what to do about it."""
    return "\n" not in line and any(
        words in line
        for words in (
            "so labels must be", "have labels of shape", "labels must be integers", "it needs classes=",
            "counted from 0", "must be at least 0 and sum to 1", "must be real numbers", "batch is empty",
        )
    )  # fmt: skip


@pytest.mark.oracle
@some
@examples
@given(labels=anything())
def test_pytorchs_engine_takes_the_same_labels(labels):
    pytest.importorskip("torch")
    from tinysqueeze.bench.torch_engine import torch_engine

    if not TORCH:
        TORCH.append(torch_engine(EngineSpec(MODEL, 4, PARAMS, threads=1)))
    shares = as_shares(labels)
    if shares is None:
        with pytest.raises(ShapeError) as caught:
            TORCH[0].loss_and_grads(IMAGES, labels)
        assert is_clear(str(caught.value))
    else:
        loss, _ = TORCH[0].loss_and_grads(IMAGES, labels)
        assert loss == pytest.approx(mean_loss(NETWORK, shares), rel=1e-4)


TORCH: list = []


# ------------------------------------------------------------------------------------ line by line


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ([0.0, 1.0, 2.0], r"integers, one class an image, not float64; labels\.astype\(np\.int64\)"),
        ([True, False, True], r"not bool; labels\.astype\(np\.int64\)"),
        (["cat", "dog", "cat"], r"not <U3; number the classes: \[classes\.index\(name\)"),
        ([b"cat", b"dog", b"cat"], r"not \|S3; number the classes"),
        ([1j, 0, 2], "not complex128; give integers"),
        ([0, 1, None], "not object; give integers"),
        (DATES, r"not datetime64\[D\]; give integers"),
        ([[1, 0], [1]], "must be an array of integers or shares: .*inhomogeneous"),
        ([0, 4, 9], "image 1 has label 4, but there are 4 classes, 0 to 3; it needs classes=10"),
        ([0, 1, -1], "image 2 has label -1, but classes are counted from 0"),
        ([0, 1], r"logits are \(3, 4\), so labels must be \(3,\) integers or \(3, 4\) shares, not \(2,\)"),
        ([[1, 0, 0, 0], [0, 0, np.nan, 1], [1, 0, 0, 0]], "shares of image 1 are not all finite"),
        ([[1, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, -np.inf]], "shares of image 2 are not all finite"),
        ([[1.5, -0.5, 0, 0]] * 3, r"shares of image 0 go down to -0\.5; they must be at least 0"),
        ([[1, 0, 0, 0], [0.5, 0.6, 0, 0], [1, 0, 0, 0]], r"shares of image 1 sum to 1\.1; .*keepdims"),
        (np.full((3, 4), 0.25 + 0j), "shares of classes must be real numbers, not complex128"),
    ],
    ids=str,
)  # fmt: skip
def test_what_is_wrong_is_said_with_a_remedy(labels, words):
    with pytest.raises(ShapeError, match=f"^loss: .*{words}"):
        softmax_cross_entropy(LOGITS, labels)


def test_what_comes_back_is_of_one_kind():
    for dtype in (np.uint8, np.int16, ">i4", np.uint64, np.int64):
        found = check_labels(np.array([3, 0, 1], dtype), 3, 4)
        assert found.dtype == np.int64
        assert found.tolist() == [3, 0, 1]
    given = np.array([3, 0, 1])
    assert check_classes(given, 3, 4) is given  # nothing is copied that is right already
    soft = np.full((3, 4), 0.25, np.float32)
    assert check_labels(soft, 3, 4) is soft
    for dtype in (np.float16, np.float64, np.longdouble, ">f4"):
        assert check_labels(soft.astype(dtype), 3, 4).dtype == np.float64
    assert check_labels([0, 1, 3], 3, 4).tolist() == [0, 1, 3]
    assert check_labels([0, 7], None).tolist() == [0, 7]


def test_no_images_have_no_mean_loss_but_may_be_counted():
    none = np.zeros(0, int)
    for call in (
        lambda: softmax_cross_entropy(np.zeros((0, 4)), none),
        lambda: reference.softmax_cross_entropy(np.zeros((0, 4)), none),
        lambda: trace(MODEL, PARAMS, IMAGES[:0], none),
        lambda: diagnose(MODEL, PARAMS, IMAGES[:0], none),
        lambda: Steps(MODEL, PARAMS, IMAGES[:0], none),
        lambda: check_model(MODEL, PARAMS, IMAGES[:0], none),
        lambda: PLAIN.loss_and_grads(IMAGES[:0], none),
    ):
        with pytest.raises(ShapeError, match="the batch is empty"):
            call()
    with pytest.raises(ShapeError, match="1 to 3 images"):
        PLAN.loss_and_grads(IMAGES[:0], none)
    empty = Dataset(PIXELS[:0], none, NAMES, "nothing")
    assert len(empty) == 0
    with pytest.raises(DataError, match="nothing: no images to evaluate"):
        evaluate(PLAIN, empty, Normalise.of(Dataset(PIXELS, [0, 1, 2], NAMES, "three")))
    assert confusion_counts([], [], 4).sum() == 0
    assert worst_mistakes(np.zeros((0, 4)), []).tolist() == []
    assert reference.label_shares(none, 4).shape == (0, 4)


def test_a_dataset_of_more_classes_than_the_network_is_not_evaluated():
    wide = Dataset(PIXELS, np.array([0, 1, 4]), (*NAMES, "owl"), "five")
    for engine in (PLAIN, PLAN):
        with pytest.raises(ShapeError, match="image 2 has label 4, but there are 4 classes"):
            evaluate(engine, wide, Normalise.of(wide))


def test_lists_and_small_integers_do_wherever_labels_are_taken(tmp_path):
    probabilities = reference.softmax(LOGITS)
    for labels in ([0, 3, 1], np.array([0, 3, 1], np.uint8)):
        kept = Dataset(PIXELS, labels, NAMES, "three").labels
        assert kept.dtype == np.int64
        assert kept.tolist() == [0, 3, 1]
        assert diagnose(MODEL, PARAMS, IMAGES, labels) == diagnose(MODEL, PARAMS, IMAGES, kept)
        assert summarise(check_model(MODEL, PARAMS, IMAGES, labels, most=1)).ok
        assert count_right(LOGITS, labels) == count_right(LOGITS, kept)
        assert confusion_matrix(labels, labels, NAMES).alt.endswith("100.0% of 3 images are right.")
        assert "100.0% in all" in class_accuracy(labels, labels, NAMES).alt
        assert sample_predictions(PIXELS, labels, probabilities, NAMES).alt
        assert worst_mistake_sheet(PIXELS, labels, probabilities, NAMES).alt
        save_answers(tmp_path / "answers.npz", LOGITS, np.asarray(labels), PIXELS, NAMES)
    with pytest.raises(ShapeError, match="labels must be integers"):
        sample_predictions(PIXELS, [0.0, 1.0, 2.0], probabilities, NAMES)


# --- images -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("images", "says"),
    [
        (np.zeros((2, 4, 4, 3), np.uint8), "must be float32, not uint8; .*ts.data.Normalise scales bytes"),
        (np.zeros((2, 4, 4, 3), bool), "not bool"),
        (np.zeros((2, 4, 4, 3), complex), "not complex128"),
        (None, "not object"),
        ("cat.jpg", "not <U7"),
        ([[1.0], [1.0, 2.0]], "images must be an array of numbers"),
        (np.zeros((4, 4, 3), np.float32), r"expected images \(N, 4, 4, 3\), got \(4, 4, 3\); one image is"),
        (np.zeros((2, 5, 5, 3), np.float32), r"got \(2, 5, 5, 3\); compile the plan with input_size"),
    ],
)  # fmt: skip
def test_images_that_no_network_takes(images, says):
    with pytest.raises(ShapeError, match=f"net: .*{says}"):
        check_images(images, "net", (4, 4, 3))


@pytest.mark.parametrize(
    "sizes", [{"batch": b} for b in (0, 1.5, True, None, "4", 10**12)]
    + [{"threads": t} for t in (0, -1, 1.5, "2", 10**9)],
)  # fmt: skip
@pytest.mark.parametrize("precision", ["4x4", "int8"])
def test_sizes_that_no_plan_has(sizes, precision):
    model = squeezenet_cifar()
    with pytest.raises(UserError, match=f"compile: {next(iter(sizes))} is .*a whole number from 1"):
        compile(model, precision=precision, **sizes)


def test_bytes_are_refused_by_every_engine():
    images = np.zeros((N, *MODEL.input_shape), np.uint8)
    for run in (
        lambda: trace(MODEL, PARAMS, images),
        lambda: PLAIN.predict(images),
        lambda: PLAIN.loss_and_grads(images, np.zeros(N, int)),
        lambda: PLAN.predict(images),
        lambda: PLAN.loss_and_grads(images, np.zeros(N, int)),
    ):
        with pytest.raises(ShapeError, match="images must be float32, not uint8"):
            run()


@pytest.mark.parametrize("smoothing", [-0.1, 1.5, math.nan, math.inf, None, "0.1", 1j])
def test_a_smoothing_that_is_no_share(smoothing):
    """It would give a loss, and gradients, of no target at all."""
    logits, labels = np.zeros((N, CLASSES), np.float32), np.zeros(N, np.int64)
    plan = compile(MODEL, N, params=PARAMS)
    for loss in (
        lambda: softmax_cross_entropy(logits, labels, smoothing),
        lambda: plan.loss_and_grads(IMAGES, labels, smoothing),
        lambda: StepByStep(MODEL, PARAMS).loss_and_grads(IMAGES, labels, smoothing),
    ):
        with pytest.raises(ShapeError, match="smoothing is a share"):
            loss()
