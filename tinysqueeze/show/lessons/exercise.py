"""What an exercise is: a question, its answer, why that is so, and what people get wrong."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Case = tuple[Any, ...]  # the arguments of one call


@dataclass(frozen=True)
class Exercise:
    """One exercise. `answer` is the right number or array, or the function to be written.

    `why` is what somebody reads who got it right. For a function, `cases(rng)` makes the arguments of
    several calls. `accepts(got, want)` may let in what is right in another form, and `mistakes` are
    wrong answers people give (or functions like `answer`), by the hint that each gets.
    """

    ask: str
    answer: Any
    cases: Callable[[np.random.Generator], Sequence[Case]] | None = None
    accepts: Callable[[np.ndarray, np.ndarray], bool] | None = None
    mistakes: Mapping[str, Any] = field(default_factory=dict)
    tolerance: float = 1e-5
    why: str = ""
