"""What kind of mistake a wrong answer is, by its numbers: said without giving the right ones away."""

from itertools import permutations

import numpy as np

from tinysqueeze.show.lessons.answers import digits

LEAST = 3  # significant digits that a rounded answer must have


def close(found: np.ndarray, right: np.ndarray, tolerance: float = 1e-5) -> bool:
    """Equal up to `tolerance` of the largest number; NaN is NaN."""
    if found.shape != right.shape:
        return False
    finite = np.abs(right[np.isfinite(right)])
    scale = max(float(finite.max()), 1e-12) if finite.size else 1.0
    near = np.allclose(found, right, rtol=tolerance, atol=tolerance * scale, equal_nan=True)
    return bool(near)


def is_rounded(answer: object, right: float) -> bool:
    """Is it the right number, rounded to at least three digits? Whole numbers must be exact."""
    written = digits(answer)
    return (
        written is not None
        and not float(right).is_integer()
        and len(written.as_tuple().digits) >= LEAST
        and _rounds_to(float(written), right, 10.0 ** int(written.as_tuple().exponent))
    )


def _rounds_to(value: float, right: float, unit: float) -> bool:
    return abs(value - right) <= 0.5 * unit * (1 + 1e-9)


def of_a_number(answer: object, found: float, right: float) -> str:
    """The kind of mistake in one number."""
    if np.isnan(found):
        return "that is NaN: something was divided by zero, or never computed"
    for factor, hint in _factors(right):
        if right and np.isclose(found, right * factor, rtol=2e-3):
            return hint
    if found * right and np.isclose(found * right, 1, rtol=2e-3):
        return "that is the inverse: the other way round"
    if right and np.isclose(found, -right, rtol=1e-5):
        return "the sign is turned round"
    if 0 < right < 1 and np.isclose(found, 1 - right, rtol=2e-3):
        return "that is the rest of it: what is left to 1"
    if float(right).is_integer() and abs(found - right) == 1:
        return "out by one: count the fence posts, not the gaps (or the other way round)"
    if written := digits(answer):
        text = _roughly(float(written), right, 10.0 ** int(written.as_tuple().exponent))
        if text:
            return text
    return "that is not the number; go through it once more"


def _factors(right: float) -> list[tuple[float, str]]:
    """Usual factors, and what a number is that is right but for one of them."""
    found = [(100.0, "a share lies between 0 and 1: that looks like per cent")] * (0 < right <= 1)
    for factor, hint in (
        (2.0, "a factor of two is missing, or one too many"),
        (4.0, "a factor of four: bytes of a float32, or numbers?"),
        (8.0, "a factor of eight: bits or bytes?"),
        (9.0, "a factor of nine: 3×3 or 1×1?"),
        *(
            (10.0**n, "a power of ten, missing or too many: mind the units")
            for n in (1, 2, 3, 6, 9)
        ),
        *((k, "thousands, or 1,024s?") for k in (1.024, 1024.0, 1024.0**2) if right > 1024),
    ):
        found += [(factor, hint), (1 / factor, hint)]
    return found


def _roughly(value: float, right: float, unit: float) -> str | None:
    near = abs(value - right) <= 0.05 * abs(right)
    if float(right).is_integer():
        return "close, but this can be counted exactly; don't round" if near else None
    if _rounds_to(value, right, unit) and near:
        return f"rounded too far: give at least {LEAST} digits that count"
    if value * right > 0 and 0 <= abs(right) - abs(value) < unit and near:
        return "the last digits are cut off, not rounded"
    return "close, but not within rounding: keep all digits until the end" if near else None


def of_a_shape(found: np.ndarray, right: np.ndarray) -> str:
    """The shapes, and whether the numbers are right all the same."""
    text = f"shape: expected {right.shape}, got {found.shape}"
    if found.ndim == right.ndim <= 5 and _in_another_order(found, right):
        return f"{text}; the numbers are right, but the axes are in another order"
    if found.size == right.size and close(found.reshape(right.shape), right):
        return f"{text}; the numbers are right, reshape them"
    more = [axis for axis in range(found.ndim) if found.ndim == right.ndim + 1]
    if any(close(found.sum(axis=axis), right) for axis in more):
        return f"{text}; its sum over one axis would be right"
    return text


def _in_another_order(found: np.ndarray, right: np.ndarray) -> bool:
    orders = (found.transpose(order) for order in permutations(range(found.ndim)))
    return any(close(turned, right) for turned in orders)


def of_values(found: np.ndarray, right: np.ndarray, tolerance: float) -> str:
    """Where numbers of the right shape differ, or a pattern in how they do."""
    if np.isnan(found).any():
        return f"values: {int(np.isnan(found).sum())} of {found.size} are NaN"
    if np.isinf(found).any() and np.isfinite(right).all():
        return f"values: {int(np.isinf(found).sum())} of {found.size} are infinite"
    if pattern := _pattern(found, right):
        return f"values: {pattern}"
    bad = ~np.isclose(found, right, rtol=tolerance, atol=tolerance)
    first = tuple(int(i) for i in np.argwhere(bad)[0])
    where = f"the first at {list(first)}: got {found[first]:g}"
    return f"values: {int(bad.sum())} of {found.size} differ, {where}"


def _pattern(found: np.ndarray, right: np.ndarray) -> str | None:
    if not np.abs(right).max(initial=0) > 0:
        return None
    if close(-found, right):
        return "the sign is turned round"
    if found.size > 1 and close(np.abs(found), np.abs(right)):
        return "right but for the signs of some"
    if found.ndim > 1 and _in_another_order(found, right):
        return "the numbers are right, but the axes are in another order"
    for axis in range(found.ndim):
        if found.size > 1 and close(np.flip(found, axis), right):
            return f"right, but back to front along axis {axis}"
        if any(close(np.roll(found, by, axis), right) for by in (-1, 1)) and found.size > 2:
            return f"right, but moved by one along axis {axis}"
    if found.size > 1 and close(np.sort(found, axis=None), np.sort(right, axis=None)):
        return "the right numbers, but not each in its place"
    return _in_size(found, right)


def _in_size(found: np.ndarray, right: np.ndarray) -> str | None:
    if found.size > 1:
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = found[right != 0] / right[right != 0]
        if ratio.size and np.allclose(ratio, ratio[0]) and np.isfinite(ratio[0]) and ratio[0] != 0:
            return "right but for a constant factor"
        if np.allclose(found - right, (found - right).flat[0], rtol=1e-6):
            return "right but for a constant added to each"
    if close(found, np.trunc(right)) or close(found, np.floor(right)):
        return "cut off to whole numbers: is there an integer array or a // on the way?"
    if any(close(found, np.round(right, places)) for places in range(5)):
        return "rounded on the way; keep all digits"
    inside = (slice(1, -1),) * found.ndim
    if found.size > 4 and found[inside].size and close(found[inside], right[inside]):
        return "right inside, wrong at the border"
    return None
