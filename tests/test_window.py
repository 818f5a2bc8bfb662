"""Window: the output size equals a count by hand, and PyTorch's."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tinysqueeze.errors import ShapeError
from tinysqueeze.network.window import Window

small = settings(max_examples=200, deadline=None, derandomize=True, database=None)
sides = st.tuples(
    st.integers(1, 12), st.integers(1, 5), st.integers(1, 4), st.integers(0, 2), st.booleans()
)


def places(size: int, kernel: int, stride: int, pad: int, ceil: bool) -> int:
    """Slide it: a window counts if it fits or, with ceil, if the last one did not yet see all."""
    starts = [s for s in range(-pad, size + pad, stride) if s + kernel <= size + pad]
    following = -pad + len(starts) * stride  # where the next one would start
    unseen = (starts[-1] + kernel if starts else -pad) < size + pad
    hangs_over = ceil and unseen and following < size and following + kernel > size + pad
    room = size + 2 * pad - kernel
    return len(starts) + (hangs_over and room > -stride)


@small
@given(sides)
@example((55, 3, 2, 0, True))
@example((1, 2, 2, 0, True))
def test_the_size_is_the_number_of_places(side) -> None:
    size, kernel, stride, pad, ceil = side
    window = Window.of(kernel, stride, pad, ceil)
    expected = places(*side)
    if expected:
        assert window.out_size(size, size) == (expected, expected)
    else:
        with pytest.raises(ShapeError, match="needs an image of at least"):
            window.out_size(size, size)


@small
@given(sides)
@pytest.mark.oracle
def test_the_size_is_pytorchs(side) -> None:
    torch = pytest.importorskip("torch")
    size, kernel, stride, pad, ceil = side
    pad = min(pad, kernel // 2)
    try:
        theirs = torch.nn.functional.max_pool2d(
            torch.zeros(1, 1, size, size), kernel, stride, pad, ceil_mode=ceil
        ).shape[2:]
    except RuntimeError:
        with pytest.raises(ShapeError):
            Window.of(kernel, stride, pad, ceil).out_size(size, size)
    else:
        assert Window.of(kernel, stride, pad, ceil).out_size(size, size) == tuple(theirs)


def test_sides_are_height_then_width() -> None:
    window = Window.of((3, 5), (2, 1), (0, 2))
    assert window.out_size(9, 7) == (4, 7)
    assert window.area == 15


def test_only_a_plain_1x1_is_pointwise() -> None:
    assert Window.of(1).is_pointwise
    assert not any(w.is_pointwise for w in (Window.of(3), Window.of(1, 2), Window.of(1, 1, 1)))


def test_a_window_too_large_says_what_it_needs() -> None:
    with pytest.raises(ShapeError, match=r"a 7x7 window .* at least 5x5 pixels, got 4x9"):
        Window.of(7, 2, 1).out_size(4, 9)


@pytest.mark.parametrize("wrong", [(0, 1, 0), (3, 0, 0), (3, 1, -1)])
def test_a_window_without_sense_is_refused(wrong) -> None:
    with pytest.raises(ShapeError, match="at least 1"):
        Window.of(*wrong)
