"""A training curve that grows while the network trains; a plain picture at the end without ipywidgets."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tinysqueeze.show.pictures.training import learning_curve
from tinysqueeze.show.widgets.panel import ipywidgets


def live_curve(
    rows: Iterable[Mapping[str, float]], title: str = ""
) -> Iterator[Mapping[str, float]]:
    """Pass on one row an epoch ({"epoch", "train_loss", ...}) and redraw the curve after each.

    for row in live_curve(reports): ...

    Without ipywidgets it draws once, at the end.
    """
    canvas = _canvas()
    history: list[Mapping[str, float]] = []
    for row in rows:
        history.append(row)
        if canvas is not None:
            canvas.value = learning_curve(history, title).html()
        yield row
    if history:
        _display(learning_curve(history, title))
    if canvas is not None:
        canvas.close()


def _canvas() -> Any:
    try:
        canvas = ipywidgets().HTML()
    except ImportError:
        return None
    _display(canvas)
    return canvas


def _display(thing: Any) -> None:
    try:
        from IPython.display import display
    except ImportError:  # a script: nothing to show it in
        return
    display(thing)
