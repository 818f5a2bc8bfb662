"""Compression by hand: pruning, k-means, Huffman, relative indices, numeral systems, rounding."""

from heapq import heapify, heappop, heappush

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tinysqueeze.errors import FormatError
from tinysqueeze.weights.compression import huffman, kmeans, prune, rounding
from tinysqueeze.weights.compression.rans import LARGEST, decode_levels, encode_levels
from tinysqueeze.weights.compression.relative_index import from_gaps, to_gaps

LEVELS = hnp.arrays(
    np.int32,
    st.integers(0, 300),
    elements=st.one_of(st.just(0), st.integers(-5, 5), st.integers(-LARGEST, LARGEST)),
)


def laplace(rng: np.random.Generator, count: int, scale: float) -> np.ndarray:
    """Integers as quantised weights are: most near zero."""
    return np.rint(rng.laplace(0, scale, count)).astype(np.int32)


def entropy_bytes(symbols: np.ndarray) -> float:
    counts = np.unique(symbols, return_counts=True)[1]
    return float(-(counts * np.log2(counts / counts.sum())).sum() / 8)


# --- asymmetric numeral systems -----------------------------------------------------------------


@settings(deadline=None, max_examples=200)
@given(LEVELS)
def test_ans_returns_what_it_was_given(levels: np.ndarray) -> None:
    assert np.array_equal(decode_levels(encode_levels(levels), levels.size), levels)


@pytest.mark.parametrize("scale", [0.2, 1.0, 20.0])
def test_ans_is_within_three_percent_of_the_entropy(rng: np.random.Generator, scale: float) -> None:
    levels = laplace(rng, 100_000, scale)
    assert len(encode_levels(levels)) < 1.03 * entropy_bytes(levels)


def test_zeros_cost_nearly_nothing_and_half_bits_are_possible(rng: np.random.Generator) -> None:
    assert len(encode_levels(np.zeros(500_000, np.int32))) < 150
    sparse = (rng.random(80_000) < 0.1).astype(np.int32)
    assert len(encode_levels(sparse)) < 0.5 * sparse.size / 8
    assert len(huffman.encode(sparse, huffman.code_lengths(np.bincount(sparse)))) == 10_000


def test_ans_keeps_order_of_any_shape(rng: np.random.Generator) -> None:
    levels = laplace(rng, 240, 3).reshape(3, 2, 5, 8)
    again = decode_levels(encode_levels(levels.transpose(3, 0, 1, 2)), 240)
    assert np.array_equal(again.reshape(8, 3, 2, 5), levels.transpose(3, 0, 1, 2))


def test_levels_beyond_the_coder_are_refused() -> None:
    with pytest.raises(ValueError, match="32768"):
        encode_levels(np.array([1, -LARGEST - 1]))


def test_a_stream_with_bytes_to_spare_is_refused(rng: np.random.Generator) -> None:
    data = encode_levels(laplace(rng, 1000, 2))
    with pytest.raises(FormatError):
        decode_levels(data + bytes(8), 1000)
    with pytest.raises(FormatError):
        decode_levels(data[:40], 1000)


# --- Huffman ------------------------------------------------------------------------------------


def optimal_bits(counts: list[int]) -> int:
    """The bits of any optimal prefix code: the sum of all inner nodes of Huffman's tree."""
    heap = [count for count in counts if count]
    heapify(heap)
    total = 0
    while len(heap) > 1:
        joined = heappop(heap) + heappop(heap)
        total += joined
        heappush(heap, joined)
    return total


@settings(deadline=None)
@given(
    st.lists(st.integers(0, 1000), min_size=2, max_size=60).filter(lambda c: sum(map(bool, c)) > 1)
)
def test_huffman_lengths_are_optimal_and_fill_the_tree(counts: list[int]) -> None:
    lengths = huffman.code_lengths(np.array(counts)).astype(int)
    assert (lengths > 0).tolist() == [count > 0 for count in counts]
    assert int(np.dot(lengths, counts)) == optimal_bits(counts)
    assert sum(2.0 ** -lengths[lengths > 0]) == 1.0


def test_no_code_is_longer_than_fifteen_bits() -> None:
    fibonacci = [1, 1]
    while len(fibonacci) < 40:
        fibonacci.append(fibonacci[-1] + fibonacci[-2])
    lengths = huffman.code_lengths(np.array(fibonacci)).astype(float)
    assert lengths.max() <= huffman.LONGEST
    assert sum(2.0**-lengths) <= 1.0


@settings(deadline=None)
@given(hnp.arrays(np.uint8, st.integers(0, 200), elements=st.integers(0, 40)))
def test_huffman_returns_what_it_was_given(symbols: np.ndarray) -> None:
    lengths = huffman.code_lengths(np.bincount(symbols, minlength=41))
    again = huffman.unpack_lengths(huffman.pack_lengths(lengths), 41)
    assert np.array_equal(again, lengths)
    data = huffman.encode(symbols, lengths)
    assert np.array_equal(huffman.decode(data, again, len(symbols)), symbols)


def test_canonical_codes_are_those_of_the_textbook() -> None:
    # RFC 1951, section 3.2.2: lengths (3, 3, 3, 3, 3, 2, 4, 4) give these codes.
    codes = huffman.canonical_codes(np.array([3, 3, 3, 3, 3, 2, 4, 4], np.uint8))
    assert [f"{c:b}" for c in codes] == ["10", "11", "100", "101", "110", "0", "1110", "1111"]


def test_impossible_tables_and_streams_are_refused() -> None:
    with pytest.raises(FormatError, match="no prefix code"):
        huffman.canonical_codes(np.array([1, 1, 1], np.uint8))
    lengths = huffman.code_lengths(np.array([5, 3, 2]))
    data = huffman.encode(np.array([0, 1, 2, 0, 2, 1, 1]), lengths)
    for damaged in (data + b"\0", data[:-1]):
        with pytest.raises(FormatError):
            huffman.decode(damaged, lengths, 7)
    with pytest.raises(FormatError):
        huffman.decode(b"\xff\xff", np.array([1, 0], np.uint8), 3)  # no code begins with a one
    with pytest.raises(FormatError):
        huffman.unpack_lengths(b"\x11\x11", 3)  # the spare half byte is not empty


# --- relative indices ---------------------------------------------------------------------------


@given(
    hnp.arrays(np.int32, st.integers(1, 400), elements=st.sampled_from([0] * 20 + [1, -3, 7])),
    st.integers(1, 6),
)
def test_gaps_lead_back(flat: np.ndarray, bits: int) -> None:
    gaps, codes = to_gaps(flat, bits)
    assert gaps.max(initial=0) < 1 << bits
    assert (gaps[codes == 0] == (1 << bits) - 1).all()
    assert np.array_equal(from_gaps(gaps, codes, len(flat)), flat)


def test_a_filler_stands_where_more_than_fifteen_zeros_follow() -> None:
    flat = np.zeros(40, np.int32)
    flat[[0, 16, 33]] = 1, 2, 3  # 15 zeros between the first two, 16 before the last
    gaps, codes = to_gaps(flat)
    assert gaps.tolist() == [0, 15, 15, 0]
    assert codes.tolist() == [1, 2, 0, 3]


# --- pruning ------------------------------------------------------------------------------------


def test_pruning_leaves_the_largest(rng: np.random.Generator) -> None:
    weight = rng.standard_normal((3, 3, 8, 16)).astype(np.float32)
    keep = prune.mask(weight, 0.7)
    assert keep.sum() == round(0.3 * weight.size)
    assert np.abs(weight[keep]).min() >= np.abs(weight[~keep]).max()
    assert prune.mask(weight, 0.0).all()


def test_masks_hold_while_weights_are_retrained(rng: np.random.Generator) -> None:
    flat = {"a/weight": rng.standard_normal((4, 6)).astype(np.float32), "a/bias": np.ones(6, "f4")}
    keep = prune.masks(flat, {"a/weight": 0.5})
    prune.apply_masks(flat, keep)
    flat["a/weight"] -= 0.1
    prune.apply_masks(flat, keep)
    assert prune.density(flat) == 0.5
    assert flat["a/bias"].all()


# --- weight sharing -----------------------------------------------------------------------------


@pytest.mark.parametrize("start", ["linear", "density", "random"])
def test_kmeans_ends_where_every_value_is_nearest_to_its_own_mean(
    rng: np.random.Generator, start: kmeans.Start
) -> None:
    values = rng.standard_normal(3000)
    centroids, codes = kmeans.kmeans(values, 16, start)
    assert (np.diff(centroids) >= 0).all()
    assert np.array_equal(codes, np.abs(values[:, None] - centroids).argmin(1))
    for i in set(codes.tolist()):
        assert np.isclose(centroids[i], values[codes == i].mean())


def test_kmeans_agrees_with_scikit_learn(rng: np.random.Generator) -> None:
    cluster = pytest.importorskip("sklearn.cluster")
    values = rng.standard_normal(2000)
    start = kmeans.start_values(values, 12, "linear")
    theirs = cluster.KMeans(12, init=start[:, None], n_init=1, max_iter=1000, tol=0)
    theirs.fit(values[:, None])
    ours, _ = kmeans.kmeans(values, 12, "linear", iterations=1000)
    assert np.allclose(np.sort(theirs.cluster_centers_[:, 0]), ours)


def test_linear_start_keeps_the_large_weights_best(rng: np.random.Generator) -> None:
    values = rng.standard_normal(5000)
    starts = {s: kmeans.start_values(values, 16, s) for s in ("linear", "density", "random")}
    assert starts["linear"][-1] == values.max()
    assert starts["linear"][-1] > starts["density"][-1]
    with pytest.raises(ValueError, match="linear"):
        kmeans.start_values(values, 16, "best")  # type: ignore[arg-type]


def test_shared_weights_keep_zeros_and_small_alphabets(rng: np.random.Generator) -> None:
    weight = rng.standard_normal((8, 32)).astype(np.float32) * (rng.random((8, 32)) < 0.4)
    weight = weight.astype(np.float32)
    codebook, codes = kmeans.share(weight, 4)
    assert codebook.shape == (16,)
    assert codebook[0] == 0
    assert np.array_equal(codes == 0, weight == 0)
    few = np.array([[0.5, 0.0, -0.25], [0.5, 0.5, 0.0]], np.float32)
    codebook, codes = kmeans.share(few, 4)
    assert np.array_equal(codebook[codes], few)


def test_codebook_gradient_is_the_gradient_of_the_codebook(rng: np.random.Generator) -> None:
    codes = rng.integers(0, 5, (3, 3, 2, 4))
    codebook = rng.standard_normal(5)
    pull = rng.standard_normal(codes.shape)

    def loss(values: np.ndarray) -> float:
        return float((pull * values[codes] ** 2).sum())

    found = kmeans.codebook_gradient(2 * pull * codebook[codes], codes, 5)
    small = 1e-6 * np.eye(5)
    numeric = [(loss(codebook + h) - loss(codebook - h)) / 2e-6 for h in small]
    assert np.allclose(found, numeric)


# --- rounding with error feedback ---------------------------------------------------------------


def correlated(rng: np.random.Generator, count: int = 4000, size: int = 24) -> np.ndarray:
    return rng.standard_normal((count, size)) @ rng.standard_normal((size, size))


def output_error(weight: np.ndarray, rounded: rounding.Rounded, moment: np.ndarray) -> float:
    change = rounded.levels * rounded.step - weight
    return float(np.einsum("df,de,ef->", change, moment, change) / 2)


def test_error_feedback_beats_rounding_each_weight_alone(rng: np.random.Generator) -> None:
    x = correlated(rng)
    moment = x.T @ x / len(x)
    weight = rng.standard_normal((24, 40))
    found = rounding.round_to_price(weight, moment, 0.02)
    plain = np.rint(weight / found.step) * found.step - weight
    alone = float(np.einsum("df,de,ef->", plain, moment, plain) / 2)
    error = output_error(weight, found, moment)
    assert error < 0.6 * alone
    assert found.error == pytest.approx(error, rel=0.2)  # they differ by the damping


def test_polishing_lowers_error_and_price(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the end no single level could be moved to a neighbour, or to zero, for less."""
    x = correlated(rng)
    moment = x.T @ x / len(x)
    weight, price = rng.standard_normal((24, 40)), 0.05
    found = rounding.round_to_price(weight, moment, price)
    monkeypatch.setattr(rounding, "POLISHES", 0)
    before = rounding.round_to_price(weight, moment, price)
    assert found.error < 0.98 * before.error
    assert found.error + price * found.bits < before.error + price * before.bits
    damped = rounding.damped(moment)
    costs = rounding.bit_costs(found.levels)

    def total(levels: np.ndarray) -> float:
        change = levels * found.step - weight
        bits = costs[levels + rounding.LARGEST].sum()
        return float(np.einsum("df,de,ef->", change, damped, change) / 2 + price * bits)

    least = total(found.levels)
    for place in np.ndindex(found.levels.shape):
        for level in (found.levels[place] - 1, found.levels[place] + 1, 0):
            moved = found.levels.copy()
            moved[place] = level
            assert total(moved) > least - 0.02 * price  # costs are counted before the last round


def test_a_higher_price_takes_fewer_bits_and_more_error(rng: np.random.Generator) -> None:
    x = correlated(rng)
    moment = x.T @ x / len(x)
    weight = rng.standard_normal((24, 40))
    tries = [rounding.round_to_price(weight, moment, price) for price in (1e-4, 1e-2, 1.0, 1e4)]
    bits = [found.bits for found in tries]
    errors = [output_error(weight, found, moment) for found in tries]
    assert bits == sorted(bits, reverse=True)
    assert errors == sorted(errors)
    assert not tries[-1].levels.any()


def test_feedback_factor_is_the_inverse(rng: np.random.Generator) -> None:
    x = correlated(rng)
    moment = x.T @ x / len(x)
    factor = rounding.feedback_factor(moment)
    damped = moment + rounding.DAMPING * np.trace(moment) / 24 * np.eye(24)
    assert np.allclose(factor.T @ factor @ damped, np.eye(24))
    assert np.allclose(factor, np.triu(factor))


def test_bits_counted_are_bits_coded(rng: np.random.Generator) -> None:
    weight = rng.standard_normal((64, 400))
    found = rounding.round_to_price(weight, np.eye(64), 0.01)
    assert len(encode_levels(found.levels)) == pytest.approx(found.bits / 8, rel=0.02)
