"""The explorer's page beside its numbers: the overview, colours, and a view that goes."""

import base64
import re
import time

import pytest
from explored import LOOK, SMALL, go, number, steps_of

from tinysqueeze.show.page import module, pack
from tinysqueeze.show.page import words as told_without_scripts
from tinysqueeze.show.pictures.style import DIVERGING
from tinysqueeze.show.widgets import Stepper, fire_designer

HOVER = """
const frame = document.querySelector('.ts-overview');
const { left, top } = frame.querySelector('.ts-map-inner').getBoundingClientRect();
const at = { clientX: left + given[0] + 9, clientY: top + given[1] + 9, bubbles: true };
frame.dispatchEvent(new PointerEvent(given[2], at));
const lit = (name) => frame.querySelector(`path.${name}`).getAttribute('d').split('z').length - 1;
return [frame.nextSibling.textContent, ['strong', 'middle', 'weak'].map(lit).reduce((a, b) => a + b)];
"""
WHERE = """
const label = [...document.querySelectorAll('.ts-overview .ts-name')].find((one) =>
  one.textContent.replaceAll('\\u200b', '') === given[0]);
return [label.offsetLeft, label.offsetTop + 38];
"""


@pytest.mark.browser
def test_without_scripts_the_same_stops_are_told_in_the_same_order(opened):
    stepper = Stepper.of()
    stops = opened(stepper, stepper.look)("return explorer.stops")
    signs = {"forward": "→", "loss": "", "backward": "←"}
    assert stops == [[stop.path, signs[stop.direction]] for stop in stepper.stops]
    told = [line for line in told_without_scripts(stepper).splitlines() if not line.startswith(" ")]
    for place, (line, (path, sign)) in enumerate(zip(told, stops, strict=True), 1):
        assert line.startswith(f"{place}/{len(stops)}  {f'{sign} {path}'.strip()}"), line


@pytest.mark.browser
def test_a_card_tells_the_right_class_before_and_after_in_as_many_digits(browser, opened):
    stepper = Stepper.of()
    run = opened(stepper, stepper.look)
    while not run("return explorer.after !== null"):  # the next step is computed when there is time
        time.sleep(0.05)
    for card in browser.find_elements("css selector", ".ts-card"):
        told = re.search(r"right class: \d+(\.\d+)?\s%\s→\s\d+(\.\d+)?\s% after", card.text)
        assert told, card.text
        assert len(told[1] or "") == len(told[2] or ""), card.text


@pytest.mark.browser
def test_the_overview_lights_and_names_what_feeds_a_map(browser, opened, rng, screenshot):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    steps = steps_of(SMALL, False, rng)
    run = opened(steps)
    browser.find_element(By.CSS_SELECTOR, ".ts-all summary").click()
    point = lambda path, kind="pointermove": run(HOVER, *run(WHERE, path), kind)  # noqa: E731
    for path, words, count in (
        ("conv1", "all 3 channels of the image", 3),
        ("fire2/expand3x3", "all 4 channels of fire2/squeeze", 4),
        ("pool1", "made of channel 0 of conv1_swish", 1),
        ("fire3/squeeze", "all 16 channels of fire2/sum", 16),
        ("fire3/sum", "channel 0 of fire3/expand_swish and channel 0 of fire3/bypass/norm", 2),
        ("conv5", "all 32 channels of fire4/sum", 32),
    ):
        text, lit = point(path)
        assert f"{path}, channel 0" in text
        assert words in text, text
        assert lit == count, (path, text)
    squares = (steps.trace["conv1"].params["weight"][..., 0] ** 2).sum((0, 1))
    text, _ = point("conv1")
    best = int(squares.argmax())
    assert f"most of channel {best} ({100 * squares[best] / squares.sum():.0f} %)" in text
    point("fire2/expand3x3", "click")
    assert "→ fire2/expand3x3" in browser.find_element(By.CSS_SELECTOR, ".ts-headline").text
    frame = browser.find_element(By.CSS_SELECTOR, ".ts-overview")
    frame.send_keys(Keys.ARROW_DOWN, Keys.ENTER)
    assert run("return explorer.view.out") == 1
    frame.send_keys(Keys.HOME)
    assert "of the image" in frame.find_element(By.XPATH, "following-sibling::p").text
    frame.send_keys(Keys.ARROW_RIGHT, Keys.ENTER)
    assert "→ conv1 " in browser.find_element(By.CSS_SELECTOR, ".ts-headline").text
    go(run, "fire2/expand3x3", "←")
    assert "goes to all 4 channels of fire2/squeeze" in point("fire2/expand3x3")[0]
    painted = run(
        "return [...document.querySelectorAll('.ts-overview canvas')].some((canvas) =>"
        " canvas.getContext('2d').getImageData(0, 40, 500, 60).data.some((v) => v > 0))"
    )
    assert painted
    screenshot("overview")


@pytest.mark.browser
def test_the_overview_fits_a_phone(browser, opened, rng, screenshot):
    run = opened(steps_of(SMALL, False, rng), width=400, scheme="dark")
    run("document.querySelector('.ts-all').open = true")
    assert run("return document.documentElement.scrollWidth") <= 400
    assert run(
        "const f = document.querySelector('.ts-overview'); return f.scrollWidth > f.clientWidth"
    )
    screenshot("overview_400_dark")


@pytest.mark.browser
def test_colours_mean_what_they_mean_in_the_lessons_pictures(opened, rng):
    """In a picture that Python draws and in the page: which sign is the blue end."""
    from matplotlib import colormaps

    red, _, blue, _ = colormaps[DIVERGING](1.0)  # of a positive number
    run = opened(steps_of(SMALL, False, rng))
    go(run, "fire2/expand3x3", "→")
    cells = run(
        "return [...document.querySelectorAll('.ts-cell')].map((cell) =>"
        " [cell.textContent, getComputedStyle(cell).backgroundColor])"
    )
    seen = set()
    for text, colour in cells:
        r, _, b = map(int, re.findall(r"[0-9]+", colour)[:3])
        if "pad" not in text and abs(r - b) > 30:
            assert (b > r) == ((blue > red) == (number(text) > 0)), (text, colour)
            seen.add(number(text) > 0)
    assert seen == {True, False}


@pytest.mark.browser
def test_back_to_the_first_drops_the_steps_that_wait_and_later_ones_begin_there(
    browser, opened, rng
):
    run = opened(steps_of(SMALL, False, rng))
    first = run("return explorer.step.loss")
    losses = browser.execute_async_script(
        "const [tell] = arguments; const { explorer } = document.querySelector('.ts-explorer');"
        "const click = (name) => document.querySelector('.ts-' + name).click();"
        "for (let i = 0; i < 4; i++) click('step'); setTimeout(() => { click('reset'); click('step');"
        "explorer.queue.last.then(() => tell(explorer.losses)); }, 10)"
    )
    assert losses[0] == first
    assert len(losses) == 2
    empty = "const rate = document.querySelector('#ts-rate'); rate.value = '';"
    run(empty + "document.querySelector('.ts-step').click()")  # no rate is not a rate of zero
    assert run("return [explorer.losses.length, Boolean(explorer.computing)]") == [2, False]


MOSAIC = """
const [code, tell] = arguments;
const sized = (side, channels) => ({
  size: [side, side, channels],
  data: Float32Array.from({ length: side * side * channels }, (_, i) => (i % channels % 3) - 1),
});
(async () => {
  const { mosaic, colourOf } = await import('data:text/javascript;base64,' + code);
  const one = mosaic('maps', () => {});
  document.body.append(one.element);
  const canvas = one.element.querySelector('canvas');
  const draw = (map) => one.draw({ title: '', ...map, channel: 0, theme: 'light' });
  const pause = (ms) => new Promise((go) => setTimeout(go, ms));
  // The part of the canvas that is shown, and whether the middle of each channel has its colour.
  const look = ({ size: [, , channels] }) => {
    const [width, height] = ['width', 'height'].map(
      (side) => Math.round((100 * canvas[side]) / parseFloat(canvas.style[side])));
    const columns = Math.min(channels, Math.ceil(Math.sqrt(channels * 2)));
    const rows = Math.ceil(channels / columns);
    const right = Array.from({ length: channels }, (_, k) => {
      const at = [(k % columns + 0.5) * (width / columns), (Math.floor(k / columns) + 0.5) * (height / rows)];
      const found = canvas.getContext('2d').getImageData(...at.map(Math.floor), 1, 1).data;
      return colourOf((k % 3) - 1, 1, 'light').every((part, i) => part === found[i]);
    });
    return [width, right.every(Boolean)];
  };
  const [large, small] = [sized(111, 96), sized(8, 6)];
  draw(large);
  const seen = [look(large)];
  while (look(large)[0] === seen[0][0]) await pause(10);
  seen.push(look(large));
  draw(sized(111, 96));
  draw(small);
  await pause(300);
  tell([...seen, look(small)]);
})().catch((error) => tell(String(error)));
"""


@pytest.mark.browser
def test_a_picture_of_very_many_numbers_is_coarse_first_and_whole_later(browser, shown, tmp_path):
    (tmp_path / "empty.html").write_text("<!doctype html><title>empty</title>")
    shown(tmp_path / "empty.html")
    code = base64.b64encode((module("maps.js") + "\nexport { colourOf };").encode()).decode()
    coarse, whole, small = browser.execute_async_script(MOSAIC, code)
    assert coarse == [14 * (19 + 1), True]
    assert whole == [14 * (56 + 1), True]
    assert small == [4 * (8 + 1), True], "an older picture came late"


VIEWED = """
const [code, traits, tell] = arguments;
const running = new Set();
const [begin, end] = [window.setInterval, window.clearInterval];
window.setInterval = (...given) => { const id = begin(...given); running.add(id); return id; };
window.clearInterval = (id) => { running.delete(id); end(id); };
const watching = new Set();
const { observe, disconnect } = MutationObserver.prototype;
MutationObserver.prototype.observe = function (...given) { watching.add(this); observe.apply(this, given); };
MutationObserver.prototype.disconnect = function () { watching.delete(this); disconnect.apply(this); };
const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
const heard = [];
const model = {
  get: (name) => (name === 'state' ? bytes(traits.state) : traits[name]),
  set: () => {}, save_changes: () => {},
  on: (event, listener) => heard.push(listener),
  off: (event, listener) => heard.splice(heard.indexOf(listener), 1),
};
(async () => {
  const { default: { render } } = await import('data:text/javascript;base64,' + code);
  const el = document.body.appendChild(document.createElement('div'));
  const free = render({ model, el });
  const pause = (ms) => new Promise((go) => setTimeout(go, ms));
  if (traits.state) {
    while (!el.querySelector('.ts-headline')) await pause(20);
    heard[0](); // a state that comes while the view stands replaces the explorer, and what it held
    while (el.querySelector('.ts-headline')) await pause(5);
    while (!el.querySelector('.ts-headline')) await pause(20);
    for (const name of traits.plays) el.querySelector('.ts-' + name).click();
  }
  const counts = () => [running.size, watching.size, heard.length];
  const before = counts();
  await free();
  const theme = el.firstChild.dataset.theme;
  document.body.style.background = theme === 'dark' ? '#fff' : '#000';
  document.body.classList.toggle('turned');
  await pause(50);
  tell({ before, after: counts(), turned: el.firstChild.dataset.theme !== theme });
})().catch((error) => tell({ error: String(error) }));
"""


@pytest.mark.browser
@pytest.mark.parametrize("what", [("walk", "add"), ("slide",), "sliders"])
def test_a_view_that_goes_leaves_nothing_running(what, browser, shown, tmp_path, rng):
    """anywidget's contract: `render` returns what frees listeners, timers and observers."""
    if what != "sliders":
        steps = steps_of(SMALL, False, rng)
        state = base64.b64encode(pack(steps, LOOK)).decode()
        start, traits = "widget.js", {"state": state, "plays": what}
    else:
        panel = fire_designer()
        start, traits = "slider_widget.js", panel._state()
    (tmp_path / "empty.html").write_text("<!doctype html><title>empty</title>")
    shown(tmp_path / "empty.html")
    code = base64.b64encode(module(start).encode()).decode()
    found = browser.execute_async_script(VIEWED, code, traits)
    timers = 0 if what == "sliders" else len(what)
    assert found == {"before": [timers, 1, 1], "after": [0, 0, 0], "turned": False}


@pytest.mark.browser
def test_what_is_typed_counts_at_once_and_only_whole_places_exist(browser, opened, rng):
    """A place between two pixels is none; the next step's promise is that of the rate in the field."""
    run = opened(steps_of(SMALL, False, rng))
    go(run, "conv1", "→")
    typed = (
        "const field = document.querySelector(arguments[0]); field.value = arguments[1];"
        "field.dispatchEvent(new Event('change', { bubbles: true }));"
    )
    browser.execute_script(typed, "[aria-label=row]", "1.5")
    browser.execute_script(typed, "[aria-label='output channel']", "0.4")
    assert run("return [explorer.view.at[0], explorer.view.out]") == [2, 0]
    run("explorer.settle()")
    assert run("return document.querySelector('[aria-label=row]').value") == "2"
    browser.execute_script(typed, "#ts-rate", "0.5")
    promised = "return explorer.after && explorer.after.loss"
    for _ in range(200):  # it is computed when there is a moment
        if (loss := run(promised)) is not None:
            break
        time.sleep(0.1)
    click = "document.querySelector('.ts-step').click()"
    browser.execute_async_script(
        "const [tell] = arguments; const { explorer } = document.querySelector('.ts-explorer');"
        f"{click}; explorer.queue.last.then(() => tell())"
    )
    assert run("return explorer.step.loss") == pytest.approx(loss, rel=1e-12)


@pytest.mark.browser
def test_a_walk_ends_where_another_stop_is_chosen(browser, opened, rng):
    run = opened(steps_of(SMALL, False, rng))
    run("explorer.walk.element.click()")
    time.sleep(1.5)
    assert run("return explorer.view.stop") == 1
    run("explorer.goTo('loss')")
    stop = run("return explorer.view.stop")
    time.sleep(1.5)
    assert run("return [explorer.view.stop, explorer.walk.element.textContent]") == [stop, "walk"]


TITLES = """
const path = 'fire2/expand3x3';
const view = document.querySelector(`[aria-label=${given[0] === '→' ? 'Forward' : 'Backward'}]`);
const titles = (css) =>
  [...view.querySelectorAll(css + ' .ts-title')].map((one) => one.textContent).join(' ');
explorer.set({ what: 'dx' });
explorer.settle();
const stop = explorer.stops.findIndex(([own, way]) => own === path && way === given[0]);
explorer.set({ stop, out: 1, inp: 1 });
const first = [titles('.ts-figure:not(.ts-mosaic-figure)'), titles('.ts-mosaic-figure')];
explorer.settle();
return [...first, titles('.ts-mosaic-figure')];
"""


@pytest.mark.browser
@pytest.mark.parametrize("direction", ["→", "←"])
def test_of_another_layer_the_two_maps_come_first(direction, opened, rng):
    """All channels are a fifth of what a layer's first frame costs: they come with the next one."""
    run = opened(steps_of(SMALL, False, rng))
    go(run, "conv1", direction)
    maps, before, after = run(TITLES, direction)
    assert "y, channel 1 " in maps + " "
    assert "all 3 channels" in before
    assert "all 4 channels" in after
