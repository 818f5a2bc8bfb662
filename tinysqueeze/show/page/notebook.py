"""A page below a notebook's cell: live without a kernel, else its words; or as a widget with one."""

import html
from typing import Any

from tinysqueeze.errors import missing_extra
from tinysqueeze.show.page.html import module, style
from tinysqueeze.show.page.plain import preformatted
from tinysqueeze.show.pictures.style import Picture, img


def below_cell(page: str, title: str, picture: Picture, text: str, height: int = 1400) -> str:
    """A whole page as a frame in another, and under it `text` for those who can't see or run it.

    The frame finds its height. It lives in a saved notebook and on the site; where notebooks are shown
    without frames (GitHub, a notebook not yet trusted) the picture, a small one, and the text remain.
    """
    look = f"width:100%;height:{height}px;border:0"
    frame = f'<iframe title="{html.escape(title)}" style="{look}" srcdoc="{html.escape(page)}"></iframe>'
    still = f'<div class="ts-still">{_on_white(picture, 70)}</div>'  # sanitisers drop styles, too
    words = preformatted(text)
    details = f"<details><summary>The starting values as text</summary>{words}</details>"
    return f"{frame}\n<style>iframe ~ .ts-still {{ display: none }}</style>{still}{details}"


def _on_white(picture: Picture, dpi: int) -> str:
    """For any ground: where a notebook is dark is not for the system's colour scheme to say."""
    return img(picture.png(dpi), picture.alt, "max-width:100%;background-color:white")


def widget(start: str, what: str, picture: Picture, text: str, *sheets: str, **traits: Any) -> Any:
    """The module `start` as an anywidget whose traits (bytes, or what JSON holds) both sides can set.

    `picture` and `text` stand where it can't run: on GitHub, in a notebook not yet trusted. JupyterLab
    and Notebook 7 save its state, so that it lives when the notebook is opened again, without a kernel;
    of more than 2 MB only the trait `instead`, which is that picture and text as HTML. `sheets` are style
    sheets beside the explorer's. Raises MissingExtra, saying that `what` needs it, where anywidget is
    not installed.
    """
    try:
        import anywidget
        import traitlets
    except ImportError:
        raise missing_extra("notebook", what) from None
    traits["instead"] = f"{_on_white(picture, 90)}{preformatted(text)}"

    def both(self: Any, **how: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        view: Any = anywidget.AnyWidget._repr_mimebundle_(self, **how)
        return {**view[0], "text/html": self.instead, "text/plain": text}, view[1]

    synced = {name: traitlets.Any().tag(sync=True) for name in traits}
    own = {"_esm": module(start), "_css": style(*sheets), "_repr_mimebundle_": both}
    name = start.removesuffix(
        ".js"
    )  # with __module__, what a browser calls the sheet, and saved.js the widget
    own |= {"__module__": __name__}
    return type(name, (anywidget.AnyWidget,), own | synced)(**traits)
