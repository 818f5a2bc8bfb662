"""A training curve that grows while the network trains: in a notebook, one picture that is redrawn."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tinysqueeze.show.pictures.style import Picture
from tinysqueeze.show.pictures.training import learning_curve


def live_curve(
    rows: Iterable[Mapping[str, float]], title: str = ""
) -> Iterator[Mapping[str, float]]:
    """Pass on one row an epoch ({"epoch", "train_loss", ...}) and redraw the curve after each.

    for row in live_curve(reports): ...

    The last picture stays in the notebook; outside of one nothing is drawn.
    """
    shown: Any = None
    history: list[Mapping[str, float]] = []
    for row in rows:
        history.append(row)
        picture = learning_curve(history, title)
        if shown:
            shown.update(picture)
        else:
            shown = _display(picture)
        yield row


def _display(picture: Picture) -> Any:
    """IPython's handle on what it shows, by which it can be replaced; None in a script."""
    try:
        from IPython import get_ipython
        from IPython.display import display
    except ImportError:
        return None
    return display(picture, display_id=True) if get_ipython() else None
