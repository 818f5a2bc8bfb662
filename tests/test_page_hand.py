"""The explorer by hand: one's own picture and the way back, the pictures as places to choose from."""

import numpy as np
import pytest
from explored import NETWORKS, SMALL, go, steps_of
from PIL import Image

pytestmark = pytest.mark.browser

DONE = """
const tell = arguments[0];
const { explorer } = document.querySelector('.ts-explorer');
const done = () => (explorer.losses === window.before ? setTimeout(done, 20) : tell());
done();
"""


def computed(browser, run, act) -> None:
    """Do what makes the page compute, until it has."""
    run("window.before = explorer.losses")
    act()
    browser.execute_async_script(DONE)


NOW = """
return [explorer.step.loss, Array.from(explorer.step.maps[0].data), explorer.step.labels,
  document.querySelector('.ts-reset').checkVisibility(), explorer.losses.length,
  Array.from(document.querySelector('.ts-card canvas').getContext('2d').getImageData(0, 0, 16, 16).data)];
"""
CHOOSE = """
const names = document.querySelector('.ts-own select');
names.value = '7';
names.dispatchEvent(new Event('change', { bubbles: true }));
"""


@pytest.mark.parametrize("what", ["picture", "label", "parameters", "all"])
def test_back_to_the_first_brings_back_images_labels_and_parameters(
    what, browser, opened, rng, tmp_path, screenshot
):
    from selenium.webdriver.common.by import By

    find = lambda css: browser.find_element(By.CSS_SELECTOR, css)  # noqa: E731
    mine = tmp_path / "mine.png"
    Image.fromarray(rng.integers(0, 256, (20, 24, 3), np.uint8)).save(mine)
    run = opened(steps_of(SMALL, False, rng))
    first = run(NOW)
    assert not first[3], "there is nothing to go back from"
    acts = {
        "parameters": lambda: find(".ts-step").click(),
        "picture": lambda: find(".ts-own input").send_keys(str(mine)),
        "label": lambda: run(CHOOSE),
    }
    for one, act in acts.items():
        if what in (one, "all"):
            computed(browser, run, act)
    later = run(NOW)
    assert later[0] != first[0]
    assert (later[1] != first[1]) == (what in ("picture", "all"))
    assert (later[2] != first[2]) == (what in ("label", "all"))
    assert later[3], "the way back is hidden"
    screenshot(f"own_{what}")
    computed(browser, run, find(".ts-reset").click)
    assert run(NOW) == first
    assert run("return document.querySelector('.ts-own input').files.length") == 0


POINT = """
const frame = document.querySelector('[aria-label=Forward] .ts-pixels');
const edge = frame.getBoundingClientRect();
const [height, width] = given;
const { kernel, stride, pad, out } = explorer.node;
const wrong = [];
for (let i = 0; i < height; i++) {
  for (let j = 0; j < width; j++) {
    const clientX = edge.left + ((j + 0.5) * edge.width) / width;
    const clientY = edge.top + ((i + 0.5) * edge.height) / height;
    frame.dispatchEvent(new PointerEvent('pointerdown', { clientX, clientY, bubbles: true }));
    const chosen = explorer.view.at;
    const away = (place, k) => Math.abs(place * stride[k] - pad[k] + (kernel[k] - 1) / 2 - [i, j][k]);
    const best = (k) => Math.min(...Array.from({ length: out[k] }, (_, place) => away(place, k)));
    if ([0, 1].some((k) => away(chosen[k], k) !== best(k))) wrong.push([i, j, chosen]);
  }
}
return wrong;
"""


@pytest.mark.parametrize(
    ("name", "path"),
    [("every layer", "conv"), ("every layer", "max"), ("every layer", "avg")]
    + [("squeezenet", "conv1"), ("squeezenet", "pool1"), ("squeezenet", "fire2/squeeze")],
)
def test_a_click_on_what_a_layer_gets_chooses_the_window_around_it(name, path, opened, rng):
    steps = steps_of(NETWORKS[name], False, rng)
    run = opened(steps)
    go(run, path, "→")
    assert run(POINT, *steps.trace[path].x.shape[1:3]) == []


def test_the_first_picture_is_worked_by_keyboard(browser, opened, rng):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    steps = steps_of(NETWORKS["every layer"], False, rng)
    run = opened(steps)
    picture = browser.find_element(By.CSS_SELECTOR, "[aria-label=Forward] .ts-pixels")
    assert picture.get_attribute("tabindex") == "0"
    assert picture.get_attribute("role") == "application"
    go(run, "conv", "→")  # stride 2, 1: from window to window
    run("explorer.set({ at: [0, 0], out: 0, inp: 0 })")
    keys = ((Keys.ARROW_DOWN, [1, 0]), (Keys.END, [1, 6]), (Keys.ARROW_UP, [0, 6]), ("+", [0, 6]))
    for key, at in keys:
        picture.send_keys(key)
        assert run("return explorer.view.at") == at
    go(run, "max", "→")
    run("explorer.set({ out: 2 })")
    picture.send_keys("+")
    assert run("return [explorer.view.inp, explorer.view.out]") == [3, 3]
    go(run, "flat", "→")
    height, width, channels = steps.trace["flat"].x.shape[1:]
    run("explorer.set({ out: 0 })")
    picture.send_keys(Keys.ARROW_DOWN, Keys.ARROW_RIGHT, "+")
    assert height > 1
    assert run("return explorer.view.out") == (width + 1) * channels + 1
    assert run("return explorer.origin") == [1, 1, 1]
