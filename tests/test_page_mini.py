"""The whole network stays in view, small, while one looks at what stands below the explorer's map."""

import html

import pytest
from explored import SMALL, steps_of

from tinysqueeze.show.page import whole

pytestmark = pytest.mark.browser

STRIP = """
explorer.settle();
const strip = explorer.root.querySelector('.ts-mini');
const edge = strip.getBoundingClientRect();
const of = (css) => strip.querySelector(css).getBoundingClientRect();
const [mark, map] = [of('.ts-mark'), of('.ts-map-inner')];
return { hidden: strip.hidden, top: edge.top, width: edge.width, map: map.width, said: strip.textContent,
  place: [mark.left + mark.width / 2 - map.left, mark.top + mark.height / 2 - map.top] };
"""
CLICK = """
const box = explorer.root.querySelector('.ts-mini > div');
const { left, top } = box.getBoundingClientRect();
box.dispatchEvent(new MouseEvent('click', { clientX: left + given[0], clientY: top + given[1] }));
"""


def scroll(browser, to: int) -> None:
    """And wait until the page has heard of it."""
    browser.execute_async_script(
        "const [to, tell] = arguments; window.scrollTo(0, to);"
        "requestAnimationFrame(() => requestAnimationFrame(() => tell()));",
        to,
    )


def test_the_whole_network_stays_in_view_below_its_map(browser, opened, rng, screenshot):
    run = opened(steps_of(SMALL, False, rng))
    browser.execute_script("document.body.style.paddingBottom = '1500px'")
    assert run(STRIP)["hidden"]
    scroll(browser, 600)
    places = {}
    for path in ("conv1", "fire3/expand3x3", "loss"):
        run("explorer.goTo(given[0])", path)
        found = run(STRIP)
        assert not found["hidden"]
        assert found["top"] == 0
        assert found["map"] <= found["width"]
        assert path in found["said"]
        places[path] = found["place"]
        assert 0 < found["place"][0] < found["map"]
    for path, place in places.items():
        run(CLICK, *place)
        assert run("return explorer.stops[explorer.view.stop][0]") == path
    colours = run(
        "return [...explorer.root.querySelectorAll('.ts-mini canvas')].map((canvas) => {"
        "const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, 48);"
        "return new Set(new Uint32Array(data.buffer)).size; })"
    )
    assert min(colours) > 50, "no maps are painted"
    screenshot("mini")
    assert (
        run("return explorer.root.querySelectorAll('.ts-mini :is(button, [tabindex])').length") == 0
    )
    scroll(browser, 0)
    assert run(STRIP)["hidden"]


def test_on_a_phone_it_would_be_too_small_and_is_not_there(browser, opened, rng):
    run = opened(steps_of(SMALL, False, rng), width=400)
    scroll(browser, 1500)
    assert browser.execute_script("return scrollY") > 1000
    assert run(STRIP)["hidden"]


@pytest.mark.parametrize("bar", [0, 40])
def test_in_a_frame_it_stays_where_the_page_around_it_scrolls(
    bar, browser, shown, tmp_path, rng, screenshot
):
    """As below a notebook's cell: in a part of the page that scrolls, below bars that do not.

    Such a bar may lie over the part itself, as a site's does in a narrow window.
    """
    page = html.escape(whole(steps_of(SMALL, False, rng)))
    (tmp_path / "around.html").write_text(
        "<!doctype html><title>around</title><p style='height:50px'>bars</p>"
        "<div style='height:700px; overflow:auto'>"
        f"<header style='position:sticky;top:0;height:{bar}px;z-index:9;background:gray'></header>"
        "<p style='height:300px'>before</p>"
        f"<iframe style='width:100%;border:0' srcdoc=\"{page}\"></iframe>"
        "<p style='height:900px'>after</p></div>",
        encoding="utf-8",
    )
    shown(tmp_path / "around.html")
    browser.set_script_timeout(120)
    top = browser.execute_async_script(
        """
        const [tell] = arguments;
        const [frame, part] = ['iframe', 'div'].map((tag) => document.querySelector(tag));
        const later = (work) => requestAnimationFrame(() => requestAnimationFrame(work));
        const scroll = () => {
          const strip = frame.contentDocument.querySelector('.ts-mini');
          if (!strip || part.scrollHeight < 2000) return setTimeout(scroll, 50);
          part.scrollTop = 950;
          later(() => tell([strip.hidden, strip.getBoundingClientRect().top
            + frame.getBoundingClientRect().top - part.getBoundingClientRect().top]));
          window.explorer = frame.contentDocument.querySelector('.ts-explorer').explorer;
        };
        scroll();
        """
    )
    assert top == [False, pytest.approx(bar, abs=1)]
    screenshot("mini_in_a_frame")
    gone = "document.querySelector('iframe').remove(); return explorer.signal.aborted"
    assert browser.execute_script(gone), "the page around it goes on calling it"
