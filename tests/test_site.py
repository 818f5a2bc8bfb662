"""The site in a real browser, from the disk: it is live without a kernel, and axe finds nothing serious."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest

from tinysqueeze.show.page import photo_page, save, small_file, small_network, step_of
from tinysqueeze.show.page.html import HERE
from tinysqueeze.show.page.of_weights import SMALL_FILE
from tinysqueeze.show.widgets import design_space, fire_designer, gradient_heat_map
from tinysqueeze.study.stepper import Steps

pytestmark = pytest.mark.browser
NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
LESSON = "05_one_by_one"


def _aside(folder: Path) -> Path:
    """conf.py in another folder, where it writes its pages; it finds the package beside it."""
    text = (NOTEBOOKS / "conf.py").read_text(encoding="utf-8")
    text = text.replace("Path(__file__).parents[1]", repr(str(NOTEBOOKS.parent)))
    (folder / "conf.py").write_text(text, encoding="utf-8")
    return folder / "conf.py"


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The landing page and one lesson, built as the whole site is."""
    pytest.importorskip("myst_nb")
    pytest.importorskip("furo")
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("site")
    for name in ("index.md", "compared.md", f"{LESSON}.ipynb"):
        shutil.copy(NOTEBOOKS / name, source / name)
    _aside(source)
    build = [sys.executable, "-m", "sphinx", "-q", "-b", "html", source, out]
    none = {"TINYSQUEEZE_CACHE": str(source)}
    subprocess.run(build, check=True, capture_output=True, timeout=500, env=os.environ | none)
    return out


@pytest.fixture
def look(browser, shown):
    """Open a page so wide, in light or dark; inside the first frame that it holds, if `frame`."""

    def open_page(path: Path, scheme: str = "light", width: int = 1280, frame: bool = False):
        shown(path, width, scheme, height=1000)
        if frame:
            browser.switch_to.frame(browser.find_element("css selector", "iframe"))
        browser.set_script_timeout(120)
        browser.execute_async_script(
            "const tell = arguments[0]; const root = document.querySelector('.ts-explorer');"
            "const there = () => !root || root.explorer || root.photo?.said || root.matches('.ts-panel');"
            "const wait = () => there() ? tell() : setTimeout(wait, 50); wait();"
        )
        return browser

    yield open_page
    browser.switch_to.default_content()


@pytest.fixture(scope="module")
def axe() -> str:
    """Deque's axe-core, as a package of Python carries it."""
    if importlib.util.find_spec("axe_core_python") is None:
        pytest.skip("no axe-core: pip install 'tinysqueeze[browser]'")
    return (files("axe_core_python") / "axe.min.js").read_text(encoding="utf-8")


def trouble(browser, axe: str) -> list[str]:
    """What axe calls serious or critical in the page, or the frame, that is shown."""
    browser.execute_script(axe)
    found = browser.execute_async_script(
        "const tell = arguments[0]; axe.run(document, { iframes: false }).then((found) => tell("
        "JSON.stringify(found.violations.map((v) => [v.impact, v.id, v.nodes.map((n) => n.html)]))))"
    )
    wrong = [(impact, rule, nodes) for impact, rule, nodes in json.loads(found)]
    return [
        f"{rule} ({len(nodes)}): {nodes[0][:200]}"
        for impact, rule, nodes in wrong
        if impact in ("serious", "critical")
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("page", ["index", LESSON])
def test_axe_finds_nothing_serious_on_the_site(page, scheme, site, look, axe):
    for frame in (False, True):
        assert trouble(look(site / f"{page}.html", scheme, frame=frame), axe) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
def test_axe_finds_nothing_serious_on_the_page_beside_cnn_explainer(width, scheme, site, look, axe):
    browser = look(site / "compared.html", scheme, width)
    assert trouble(browser, axe) == []
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width


STOPS = [  # what differs: convolutions both ways, a pool, a norm, the loss
    *(("fire2/expand3x3", "←", what) for what in ("dx", "dweight", "dbias")),
    ("conv1", "→", "dx"),
    ("fire2/squeeze", "→", "dx"),
    ("pool1", "→", "dx"),
    ("pool1", "←", "dx"),
    ("conv1_norm", "←", "dweight"),
    ("loss", "", "dx"),
]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious_in_the_explorer(scheme, look, axe, tmp_path):
    steps, how = step_of(small_network(), make=Steps)
    save(steps, tmp_path / "step.html", how)
    browser = look(tmp_path / "step.html", scheme)
    go = (
        "const { explorer } = document.querySelector('.ts-explorer'); const [path, way, what] = arguments;"
        "explorer.set({ stop: explorer.stops.findIndex(([p, w]) => p === path && w === way) });"
        "explorer.set({ what });"
    )
    for stop in STOPS:
        browser.execute_script(go, *stop)
        assert trouble(browser, axe) == [], stop
    browser.execute_script(go, "conv1", "→", "dx")
    browser.execute_script("document.querySelector('.ts-more').click()")
    browser.execute_script("document.querySelector('.ts-all').open = true")
    assert trouble(browser, axe) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious_on_the_photo_page(scheme, look, axe, tmp_path):
    """As it opens; with all that can be opened, another layer and class chosen; and with a complaint."""
    path = tmp_path / "photo.html"
    path.write_text(photo_page(*small_file(HERE / SMALL_FILE, small_network())), encoding="utf-8")
    browser = look(path, scheme)
    assert trouble(browser, axe) == []
    browser.execute_script(
        "for (const one of document.querySelectorAll('details')) one.open = true;"
        "document.querySelectorAll('.ts-best button')[3].click();"
        "const { photo } = document.querySelector('.ts-photo');"
        "photo.layers.set({ layer: 5, channel: 1 }); photo.trouble.textContent = 'That was no file.'"
    )
    assert trouble(browser, axe) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("make", [fire_designer, design_space, gradient_heat_map])
def test_axe_finds_nothing_serious_in_a_panel(make, scheme, look, axe, tmp_path):
    make().save(tmp_path / "panel.html")
    assert trouble(look(tmp_path / "panel.html", scheme, width=400), axe) == []


def test_on_the_site_the_slider_is_dragged_with_no_kernel(site, look, screenshot):
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.by import By

    browser = look(site / f"{LESSON}.html", frame=True)
    slider = browser.find_element(By.CSS_SELECTOR, ".ts-channels")
    browser.execute_script(
        "arguments[0].scrollIntoView({ behavior: 'instant', block: 'center' })", slider
    )
    ActionChains(browser).move_to_element(slider).click_and_hold().move_by_offset(
        60, 0
    ).release().perform()
    channels = int(slider.get_attribute("value"))
    assert channels > 200
    told = browser.find_element(By.CSS_SELECTOR, ".ts-count").text
    assert f"{9 * channels * 128 + 128:,}" in told
    assert f"{channels * 128 + 128:,}" in told
    screenshot("lesson_05_dragged")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
def test_the_landing_page_is_the_explorer_at_any_width(width, scheme, site, look, screenshot):
    browser = look(site / "index.html", scheme, width, frame=True)
    root = "document.querySelector('.ts-explorer')"
    assert browser.execute_script(f"return {root}.explorer.step.loss") > 0
    assert browser.execute_script(f"return {root}.dataset.theme") == scheme
    browser.switch_to.default_content()
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    screenshot(f"landing_{width}_{scheme}")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_theme_turned_against_the_systems_turns_the_frame_whole(scheme, site, look, screenshot):
    """Its ground, which is seen beyond round corners, and its scrollbars, too."""
    turned = {"light": "dark", "dark": "light"}[scheme]
    browser = look(site / "index.html", scheme, frame=True)
    browser.switch_to.default_content()
    browser.execute_script("document.body.dataset.theme = arguments[0]", turned)
    browser.switch_to.frame(browser.find_element("css selector", "iframe"))
    found = browser.execute_async_script(
        "const [wanted, tell] = arguments; const root = document.querySelector('.ts-explorer');"
        "const of = (element) => getComputedStyle(element);"
        "const look = () => root.dataset.theme === wanted ? setTimeout(() => tell(["
        " of(document.documentElement).colorScheme, of(root).colorScheme,"
        " of(document.body).backgroundColor, of(root).backgroundColor]), 200) : setTimeout(look, 50);"
        "look();",
        turned,
    )
    assert found[:2] == [turned, turned]
    assert found[2] == found[3]
    screenshot(f"{scheme}_turned")


def test_everything_is_reached_and_worked_by_keyboard(look, tmp_path):
    """Tab from the top: every control has its turn, shows that it has, and nobody is a trap."""
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.keys import Keys

    steps, how = step_of(small_network(), make=Steps)
    save(steps, tmp_path / "step.html", how)
    browser = look(tmp_path / "step.html")
    here = (
        "const e = document.activeElement; return [e.tagName, e.className, e.getAttribute('aria-label')"
        " || e.textContent.slice(0, 30), getComputedStyle(e).outlineStyle]"
    )
    met = []
    for _ in range(80):
        ActionChains(browser).send_keys(Keys.TAB).perform()
        now = browser.execute_script(here)
        if now[0] == "BODY":
            break
        assert now[3] != "none", f"{now}: the focus is not seen"
        met.append(now)
    assert now[0] == "BODY", "a keyboard trap"
    words = " | ".join(f"{name} {classes} {text}" for name, classes, text, _ in met)
    for wanted in (
        "ts-card", "ts-step", "ts-layer", "SUMMARY", "ts-walk", "next", "SELECT", "ts-pixels", "ts-mosaic",
        "ts-cell", "ts-strips", "ts-add", "ts-more",
    ):  # fmt: skip
        assert wanted in words, wanted


@pytest.fixture(scope="module")
def conf(tmp_path_factory):
    """What the site is built by."""
    pytest.importorskip("docutils")
    spec = importlib.util.spec_from_file_location("conf", _aside(tmp_path_factory.mktemp("conf")))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_site_links_to_a_photo_page_where_weights_are(conf, monkeypatch, tmp_path):
    monkeypatch.setenv("TINYSQUEEZE_CACHE", str(tmp_path))
    monkeypatch.delenv("TINYSQUEEZE_WEIGHTS", raising=False)
    text = conf.photo_link(tmp_path)
    assert "tinysqueeze page squeezenet1_0_compressed" in text
    assert "href" not in text
    monkeypatch.setenv("TINYSQUEEZE_WEIGHTS", str(HERE / SMALL_FILE))
    assert f'href="{conf.PHOTO}"' in conf.photo_link(tmp_path)
    page = (tmp_path / conf.PHOTO).read_text(encoding="utf-8")
    assert "on your photograph</title>" in page
    assert len(page) < 1_000_000
