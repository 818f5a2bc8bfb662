"""The library's own source on the page, so that a lesson never holds a second copy of the code."""

import inspect
import textwrap
from typing import Any


class Source:
    """The source of functions or classes; a notebook shows it in colour, a terminal as text."""

    def __init__(self, *things: Any) -> None:
        """Functions, methods, classes or modules of the library. Numba's are unwrapped."""
        plain = [getattr(thing, "py_func", thing) for thing in things]
        self.text = "\n\n".join(textwrap.dedent(inspect.getsource(p)).rstrip() for p in plain)
        names = dict.fromkeys(inspect.getmodule(p).__name__ for p in plain)  # type: ignore[union-attr]
        self.where = ", ".join(name.replace(".", "/") + ".py" for name in names)

    def __repr__(self) -> str:
        return f"# {self.where}\n{self.text}"

    def _repr_markdown_(self) -> str:
        return f"```python\n{self!r}\n```"


def source(*things: Any) -> Source:
    """Show the library's source: `source(reference.im2col, reference.conv2d)`."""
    return Source(*things)
