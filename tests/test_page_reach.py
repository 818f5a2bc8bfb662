"""The overview's colours: how far one scale reaches, what has the full colour, and that it is so painted."""

import numpy as np
import pytest
from explored import SMALL, go, number, steps_of

pytestmark = pytest.mark.browser

LOOK = """
const [label, tell] = arguments;
requestAnimationFrame(() => setTimeout(() => {
  const name = [...document.querySelectorAll('.ts-overview .ts-name')].find((one) =>
    one.textContent.replaceAll('\\u200b', '') === label);
  const [left, top] = [name.offsetLeft, name.offsetTop + 38];
  const frame = document.querySelector('.ts-overview');
  const edge = frame.querySelector('.ts-map-inner').getBoundingClientRect();
  const at = { clientX: edge.left + left + 9, clientY: edge.top + top + 9 };
  frame.dispatchEvent(new PointerEvent('pointermove', at));
  const { data } = frame.querySelector('canvas').getContext('2d').getImageData(left, top, 18, 18);
  tell([Array.from(data), frame.nextSibling.textContent]);
}, 100));
"""
CHOOSE = """
const list = document.querySelector('.ts-all select');
list.value = given[0];
list.dispatchEvent(new Event('change', { bubbles: true }));
"""
ENDS = np.array([[200, 95, 0], [247, 247, 247], [70, 40, 130]])  # as colours.js has them: light


def ramp(values: np.ndarray, most: float) -> np.ndarray:
    share = np.clip(values / most, -1, 1)[..., None]
    return ENDS[1] + np.abs(share) * (np.where(share < 0, ENDS[0], ENDS[2]) - ENDS[1])


@pytest.mark.parametrize("direction", ["→", "←"])
def test_one_scale_reaches_as_far_as_is_chosen(direction, browser, opened, rng, screenshot):
    """Channel 0 of a squeeze layer, pixel for pixel: by its own scale, its layer's, its module's, all's."""
    steps = steps_of(SMALL, False, rng)
    run = opened(steps)
    run("document.querySelector('.ts-all').open = true")
    go(run, "fire2/squeeze", direction)
    what = {"→": "y", "←": "dy"}[direction]
    maps = {s.path: getattr(steps.trace[s.path], what)[0] for s in steps.stops if s.path != "loss"}
    own = maps["fire2/squeeze"]
    largest = lambda *arrays: max(np.abs(a).max() for a in arrays)  # noqa: E731
    wanted = {
        "map": (largest(own[..., 0]), "this map"),
        "layer": (largest(own), "fire2/squeeze"),
        "module": (largest(*(m for p, m in maps.items() if p.startswith("fire2/"))), "fire2"),
        "network": (largest(*maps.values()), "the whole network"),
    }
    assert len({most for most, _ in wanted.values()}) >= 3  # else the choice would show nothing
    assert run("return document.querySelector('.ts-all select').value") == "layer"
    rows, columns = own.shape[:2]
    for reach, (most, where) in wanted.items():
        run(CHOOSE, reach)
        pixels, said = browser.execute_async_script(LOOK, "fire2/squeeze")
        told = said.split("Full colour stands for ")[1]
        assert told.endswith(f", the most in {where}.")
        assert number(told.split()[0]) == pytest.approx(most, rel=1e-3)
        painted = np.array(pixels).reshape(18, 18, 4)[..., :3]
        at = lambda size: np.arange(18) * size // 18  # noqa: E731
        expected = ramp(own[at(rows)][:, at(columns), 0], most)
        assert np.abs(painted - expected).max() <= 2, reach  # of 511 steps and 255 shades
    screenshot(f"reach_network_{'forward' if direction == '→' else 'backward'}")
    pixels, said = browser.execute_async_script(LOOK, "image")
    assert said.endswith("the most in the image.")  # whose numbers are of another kind
