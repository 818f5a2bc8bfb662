"""The window that slides by itself: row by row to the end, and no further than the learner wishes."""

import time

import pytest
from explored import SMALL, go, steps_of

pytestmark = pytest.mark.browser

# Every place of y until the slide has ended, with what is typed there, y's number and the terms' sum.
SLID = """
const [tell] = arguments;
const { explorer } = document.querySelector('.ts-explorer');
const button = document.querySelector('.ts-slide');
const seen = [];
const look = () => {
  const { at } = explorer.view;
  const [row, column] = seen.at(-1)?.[0] ?? [];
  if (at[0] !== row || at[1] !== column) {
    explorer.settle();
    const typed = ['row', 'column'].map((name) =>
      Number(document.querySelector(`[aria-label=${name}]`).value));
    seen.push([[...at], typed, explorer.held(), explorer.found.value]);
  }
  if (button.textContent === 'slide') return tell(seen);
  setTimeout(look, 10);
};
button.click();
look();
"""
AGAIN = """
const button = document.querySelector('.ts-slide');
button.click();
return [button.textContent, explorer.view.at];
"""
NOW = "return [document.querySelector('.ts-slide').textContent, ...explorer.view.at]"


def test_the_window_slides_row_by_row_to_the_end(browser, opened, rng, screenshot):
    steps = steps_of(SMALL, False, rng)
    run = opened(steps)
    go(run, "fire2/expand3x3", "→")
    y = steps.trace["fire2/expand3x3"].y
    height, width = y.shape[1:3]
    run(f"explorer.set({{ at: [{height - 2}, {width - 2}], out: 3 }})")
    seen = browser.execute_async_script(SLID)
    places = [divmod(k, width) for k in range((height - 1) * width - 2, height * width)]
    assert [tuple(at) for at, *_ in seen] == places
    for at, typed, held, total in seen:
        assert typed == at
        assert held == pytest.approx(y[0, *at, 3], rel=1e-4, abs=1e-5)
        assert total == pytest.approx(held, rel=1e-4, abs=1e-5)
    assert run(NOW) == ["slide", height - 1, width - 1]
    assert run(AGAIN) == ["pause", [0, 0]]  # from the last pixel it begins anew
    screenshot("slide")
    paused, where = run(AGAIN)
    time.sleep(0.6)
    assert (paused, run("return explorer.view.at")) == ("slide", where)


WISHES = {
    "another pixel": "explorer.set({ at: [2, 2] })",
    "another channel": "explorer.set({ out: 1 })",
    "another layer": "explorer.set({ stop: 4 })",
    "adding up": "document.querySelector('.ts-add').click()",
    "a training step": "document.querySelector('.ts-step').click()",
    "a walk": "document.querySelector('.ts-walk').click()",
}


@pytest.mark.parametrize("width", [1280, 400])
def test_the_slide_ends_at_any_other_wish(width, browser, opened, rng, screenshot):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    run = opened(steps_of(SMALL, False, rng), width=width, scheme="dark")
    go(run, "fire2/expand3x3", "→")
    button = browser.find_element(By.CSS_SELECTOR, ".ts-slide")
    for wish, code in WISHES.items():
        go(run, "fire2/expand3x3", "→")
        run("explorer.set({ at: [0, 0] })")
        button.send_keys(Keys.ENTER)  # by keyboard
        assert button.text == "pause"
        run(code)
        if wish == "a training step":  # that begins when those before it are done
            browser.execute_async_script(
                "const { queue } = document.querySelector('.ts-explorer').explorer;"
                "queue.last.then(arguments[0])"
            )
        assert run(NOW)[0] == "slide", wish
    assert run("return explorer.walk.element.textContent") == "pause"
    button.click()  # and a walk ends at a slide
    assert run("return explorer.walk.element.textContent") == "walk"
    screenshot(f"slide_{width}_dark")
    button.click()
    assert run("return document.documentElement.scrollWidth") <= width


def test_there_is_no_slide_where_nothing_can_slide(opened, rng):
    run = opened(steps_of(SMALL, False, rng))
    shown = "explorer.settle(); return document.querySelector('.ts-slide').checkVisibility()"
    for path, direction, wanted in (
        ("fire2/expand3x3", "→", True),
        ("pool1", "→", True),
        ("fire2/expand3x3", "←", False),
        ("loss", "", False),
    ):
        go(run, path, direction)
        assert run(shown) == wanted, (path, direction)
