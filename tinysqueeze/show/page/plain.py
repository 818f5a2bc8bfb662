"""What a page says where scripts don't run: a picture with alt text, and the step's numbers as text."""

import html

from tinysqueeze.network.models import Model
from tinysqueeze.show.page.state import PLAIN_LOOK, Look
from tinysqueeze.show.pictures.networks import network_diagram
from tinysqueeze.study.stepper import Steps


def preformatted(text: str) -> str:
    """Text as HTML that keeps its lines, and breaks those that are too long for the page."""
    return f'<pre style="white-space:pre-wrap;overflow-wrap:anywhere">{html.escape(text)}</pre>'


def words(steps: Steps) -> str:
    """Every stop with its formula at the middle pixel, as text."""
    here = steps.position
    lines = []
    for position in range(len(steps.stops)):
        steps.position = position
        formula = steps.formula()
        lines.append(f"{steps.headline()}\n    {formula.rule}\n    {formula.numbers}")
    steps.position = here
    return "\n".join(lines)


def plain(steps: Steps, look: Look = PLAIN_LOOK) -> str:
    """HTML: the network's picture, then every stop as text."""
    model = steps.model
    picture = network_diagram(model).html() if isinstance(model, Model) else ""
    title = f"A training step of {steps.name}"
    return (
        f"<h1>{html.escape(title)}</h1><p>{html.escape(look.about)} With scripts this page is "
        f"interactive; without, these are its numbers.</p>{picture}{preformatted(words(steps))}"
    )
