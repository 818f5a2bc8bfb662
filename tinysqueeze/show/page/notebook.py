"""A page below a notebook's cell: live without a kernel, else its words; or as a widget with one."""

import html
from typing import Any

from tinysqueeze.errors import missing_extra
from tinysqueeze.show.page.html import module, style
from tinysqueeze.show.page.plain import preformatted


def below_cell(page: str, title: str, text: str, height: int = 1400) -> str:
    """A whole page as a frame in another, and under it `text` for those who can't see or run it.

    The frame finds its height. It lives in a saved notebook and on the site; where notebooks are shown
    without frames (GitHub, a notebook not yet trusted) the text remains.
    """
    look = f"width:100%;height:{height}px;border:0"
    frame = f'<iframe title="{html.escape(title)}" style="{look}" srcdoc="{html.escape(page)}"></iframe>'
    words = preformatted(text)
    return f"{frame}\n<details><summary>The starting values as text</summary>{words}</details>"


def widget(start: str, what: str, *sheets: str, **traits: Any) -> Any:
    """The module `start` as an anywidget whose traits (bytes, or what JSON holds) both sides can set.

    `sheets` are style sheets beside the explorer's. Raises MissingExtra, saying that `what` needs it,
    where anywidget is not installed.
    """
    try:
        import anywidget
        import traitlets
    except ImportError:
        raise missing_extra("notebook", what) from None
    synced = {name: traitlets.Any().tag(sync=True) for name in traits}
    made = type(
        "Widget", (anywidget.AnyWidget,), {"_esm": module(start), "_css": style(*sheets)} | synced
    )
    return made(**traits)
