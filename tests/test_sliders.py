"""The sliders in a real browser, with no kernel and no network: what they say is what Python says."""

import random
import re
from itertools import product

import pytest

from tinysqueeze.errors import UserError
from tinysqueeze.show import widgets
from tinysqueeze.show.widgets import numbers, panels

pytestmark = pytest.mark.browser

PANELS = {
    make.__name__: make
    for make in (
        widgets.window_places,
        widgets.one_by_one,
        widgets.fire_designer,
        widgets.design_space,
        widgets.early_or_late,
        widgets.gradient_heat_map,
    )
}
SAID = """
const said = () => [...document.querySelectorAll('.ts-told tr, .ts-told p')]
  .map((row) => [...(row.cells ?? [row])].map((part) => part.textContent).join(' ')).join(' ');
"""
SET = """
const put = (name, value) => {
  const field = document.querySelector('.ts-' + name);
  field.value = String(value);
  field.dispatchEvent(new Event(field.tagName === 'SELECT' ? 'change' : 'input', { bubbles: true }));
};
"""


def words(text: str) -> str:
    return " ".join(text.split())


@pytest.fixture(autouse=True)
def _made_up_timings(monkeypatch):
    """Measuring is not what these tests are about, and takes a while on a busy machine."""
    rng = random.Random(1)
    found = {s: numbers.Timing(*sorted(rng.uniform(0, 9) for _ in range(3))) for s in product(
        *numbers.TIMED.values()
    )}  # fmt: skip
    monkeypatch.setattr(panels, "timings", lambda: found)


@pytest.fixture
def opened(browser, shown, tmp_path):
    """Open a panel's page from the disk, so wide, in light or dark."""

    def open_page(name: str, width: int = 1280, scheme: str = "light") -> widgets.Panel:
        panel = PANELS[name]()
        panel.save(tmp_path / "panel.html")
        shown(tmp_path / "panel.html", width, scheme, height=900)
        return panel

    return open_page


def settings(panel: widgets.Panel, count: int) -> list[dict]:
    """Every corner of the controls, or some of them, and settings at random."""
    choices = {}
    for name, control in panel.controls.items():
        if isinstance(control, widgets.Choice):
            choices[name] = list(control.options)
        else:
            steps = round((control.high - control.low) / control.step)
            whole = float(control.step).is_integer() and float(control.low).is_integer()
            values = [control.low + i * control.step for i in range(steps + 1)]
            choices[name] = [int(v) if whole else round(v, 6) for v in values]
    rng = random.Random(0)
    corners = list(product(*((values[0], values[-1]) for values in choices.values())))
    some = [[rng.choice(values) for values in choices.values()] for _ in range(count)]
    return [dict(zip(choices, values, strict=True)) for values in (*corners, *some)]


def told(panel: widgets.Panel, values: dict) -> str:
    """What Python says, be it an error."""
    try:
        return panel.tell(**values)
    except UserError as error:
        return str(error)


@pytest.mark.parametrize("name", PANELS)
def test_every_word_and_number_of_a_grid_of_settings_is_pythons(name, browser, opened):
    panel = opened(name)
    grid = settings(panel, 150)
    found = browser.execute_script(
        SAID + SET + "return arguments[0].map((values) => {"
        "for (const [name, value] of Object.entries(values)) put(name, value); return said(); })",
        grid,
    )
    for values, text in zip(grid, found, strict=True):
        assert words(text) == words(told(panel, values)), values
    errors = [line for line in browser.get_log("browser") if line["level"] == "SEVERE"]
    assert errors == []
    assert browser.execute_script("return performance.getEntriesByType('resource').length") == 0


def test_a_time_stands_only_where_it_was_measured(browser, opened):
    """At every measured setting its own; one step aside on any slider none, and no bar of it."""
    panel = opened("one_by_one")
    show = (
        SAID
        + SET
        + (
            "for (const [name, value] of Object.entries(arguments[0])) put(name, value);"
            "return [said(), [...document.querySelectorAll('.ts-bars .ts-title')].map((e) => e.textContent)]"
        )
    )
    for setting, timing in panels.timings().items():
        values = dict(zip(numbers.TIMED, setting, strict=True))
        text, bars = browser.execute_script(show, values)
        assert f"your mix {timing.median:.2f} ({timing.low:.2f} to {timing.high:.2f})" in text
        assert "not measured" not in text
        assert "milliseconds, measured" in bars
    for name in numbers.TIMED:
        step = panel.controls[name].step
        aside = panel.start | {name: panel.start[name] + step}
        text, bars = browser.execute_script(show, aside)
        assert "not measured at this setting; measured: input channels 16, 64, 256; filters" in text
        assert ("quartiles" in text) == (name == "percent3x3")  # the other two are what they were
        assert "milliseconds, measured" not in bars
        assert "milliseconds, measured" not in panel.at(**aside)[1].alt


def test_the_slider_is_dragged_and_the_counts_are_right(browser, opened, screenshot):
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    panel = opened("one_by_one")
    seen = panel.start
    for name, pixels in (("channels", 60), ("filters", -40), ("percent3x3", 30), ("size", 25)):
        slider = browser.find_element(By.CSS_SELECTOR, f".ts-{name}")
        control = panel.controls[name]
        share = (seen[name] - control.low) / (control.high - control.low)
        room = slider.size["width"] - 16  # the handle stays inside
        start = round(8 + share * room - slider.size["width"] / 2)
        mouse = ActionChains(browser).move_to_element_with_offset(slider, start, 0)
        mouse.click_and_hold().move_by_offset(pixels, 0).release().perform()
        now = int(slider.get_attribute("value"))
        assert (now - seen[name]) * pixels > 0, f"{name} was dragged"
        seen[name] = now
        assert words(browser.execute_script(SAID + "return said()")) == words(panel.tell(**seen))
    three = 9 * seen["channels"] * seen["filters"] + seen["filters"]
    assert f"{three:,}" in browser.find_element(By.CSS_SELECTOR, ".ts-count").text
    screenshot("one_by_one_dragged")
    slider.send_keys(Keys.END)
    seen["size"] = 63
    slider.send_keys(Keys.ARROW_LEFT, Keys.ARROW_LEFT)
    seen["size"] -= 8
    assert words(browser.execute_script(SAID + "return said()")) == words(panel.tell(**seen))


@pytest.mark.parametrize("name", PANELS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
def test_a_panel_fits_its_width_in_light_and_dark(name, width, scheme, browser, opened, screenshot):
    opened(name, width, scheme)
    assert browser.execute_script("return document.querySelector('.ts-panel').dataset.theme") == (
        scheme
    )
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    screenshot(f"{name}_{width}_{scheme}")


def test_without_scripts_a_page_has_the_picture_and_the_text(browser, opened, tmp_path):
    panel = opened("fire_designer")
    browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        browser.get((tmp_path / "panel.html").as_uri())
        text = browser.page_source
    finally:
        browser.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
    shown = re.search(r"<noscript>(.*)</noscript>", text, re.DOTALL)
    assert shown, text[:2000]
    assert 'alt="A Fire module' in shown[1]
    assert "Strategy 2 holds" in shown[1]
    assert panel.tell(**panel.start) in shown[1]
