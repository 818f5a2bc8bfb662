"""The explorer's page: its numbers are Python's, everything on it can be reached, it needs nobody."""

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from explored import LOOK, NETWORKS, SMALL, go, printed_sum, steps_of

from tinysqueeze.network.compose import Chain
from tinysqueeze.network.layers import Conv2D, GlobalAvgPool2D, HardSwish
from tinysqueeze.network.others import GroupedConv2D
from tinysqueeze.network.params import flatten, unflatten
from tinysqueeze.show.page import (
    Look,
    module,
    pack,
    page,
    plain,
    style,
)
from tinysqueeze.show.page.html import HERE
from tinysqueeze.show.widgets import Stepper
from tinysqueeze.study.stepper import Steps

ROOT = Path(__file__).parents[1]

EVERY_NUMBER = """
const found = {};
const list = (array) => Array.from(array);
for (const [path, { y, dx, dy, grads }] of explorer.step.seen) {
  found[path] = { y: list(y.data), dx: list(dx), dy: list(dy) };
  for (const [name, grad] of Object.entries(grads)) found[path]['d' + name] = list(grad);
}
return JSON.stringify({ found, loss: explorer.step.loss, dlogits: list(explorer.step.dlogits) });
"""


def assert_close(found: list[float], expected: np.ndarray, what: str, least: float = 1e-6) -> None:
    """Equal to float32's rounding, seen against the largest number of the array, or `least`."""
    found = np.array(found).reshape(expected.shape)
    worst = np.abs(found - expected).max() / max(np.abs(expected).max(), least)
    assert worst < 1e-5, f"{what}: differs by {worst:.1e} of the largest"


@pytest.mark.browser
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("training", [False, True], ids=["evaluating", "training"])
def test_every_number_of_the_page_is_pythons(name, training, opened, rng):
    steps = steps_of(NETWORKS[name], training, rng)
    answer = json.loads(opened(steps)(EVERY_NUMBER))
    assert answer["loss"] == pytest.approx(steps.trace.loss, rel=1e-5)
    assert_close(answer["dlogits"], steps.trace.dlogits, "dlogits")
    leaves = {stop.path for stop in steps.stops} - {"loss"}
    assert set(answer["found"]) == leaves
    for path in leaves:
        record, found = steps.trace[path], answer["found"][path]
        expected = {"y": record.y, "dx": record.dx, "dy": record.dy}
        expected |= {f"d{n}": grad for n, grad in flatten(record.grads).items()}
        assert found.keys() == expected.keys(), path
        for what, array in expected.items():
            # a bias before a batch norm has no gradient: what is left of dy is rounding
            assert_close(found[what], array, f"{path}: {what}", np.abs(record.dy).max())


@pytest.mark.browser
@pytest.mark.parametrize("training", [False, True], ids=["evaluating", "training"])
def test_every_explained_number_is_the_arrays(training, opened, rng):
    """At every stop, at corners and in the middle: the printed terms add up to the array's number."""
    run = opened(steps_of(SMALL, training, rng))
    wrong = run("""
        const wrong = [];
        for (let stop = 0; stop < explorer.stops.length; stop++) {
          if (explorer.stops[stop][0] === 'loss') continue;
          for (const what of ['dx', 'dweight', 'dbias']) {
            for (const [at, k] of [[[0, 0], 0], [[3, 5], 1], [[99, 99], 99]]) {
              explorer.set({ stop });
              const grads = explorer.step.seen.get(explorer.stops[stop][0]).grads;
              if (what !== 'dx' && (explorer.what === 'y' || !grads[what.slice(1)])) continue;
              explorer.set({ what, at, from: at, n: k % 2, out: k, inp: k + 1, tap: k });
              const held = explorer.held();
              const off = Math.abs(explorer.found.value - held) / Math.max(Math.abs(held), 1e-6);
              if (!(off < 1e-4)) wrong.push([explorer.stops[stop], what, explorer.found.rule, held]);
            }
          }
        }
        return wrong;
    """)
    assert wrong == []


GROUPED = Chain(
    (
        ("conv", Conv2D(6, 1)),
        ("grouped", GroupedConv2D(4, 3, pad=1, groups=2)),
        ("gap", GlobalAvgPool2D()),
    )
)
ALONE = """
explorer.set({ out: given[0], at: given[1] });
const figures = [...explorer.root.querySelectorAll('[aria-label=Forward] .ts-figure')];
const said = Array.from({ length: explorer.part }, (_, inp) => {
  explorer.set({ inp });
  explorer.settle();
  const one = figures.find((figure) => / alone, through/.test(figure.textContent));
  return Number(one.querySelector('.ts-line').textContent.split(' ')[0].replace('−', '-'));
});
const all = figures.find((figure) => /sum of these/.test(figure.textContent)).querySelector('canvas');
const side = (name) => Math.round((100 * all[name]) / parseFloat(all.style[name]));
const { data } = all.getContext('2d').getImageData(0, 0, side('width'), side('height'));
return [said, explorer.held(), side('width'), Array.from(data)];
"""


@pytest.mark.browser
@pytest.mark.parametrize(
    ("network", "path"), [(SMALL, "conv1"), (SMALL, "fire2/expand3x3"), (GROUPED, "grouped")]
)
def test_each_input_channel_alone_is_pythons_and_all_add_up_to_y(
    network, path, opened, rng, screenshot
):
    """In numbers at a pixel, and side by side in colours, which share one scale."""
    steps = steps_of(network, False, rng)
    record = steps.trace[path]
    part, out = record.params["weight"].shape[2], 3
    shares = []
    for channel in range(part):
        weight = np.zeros_like(record.params["weight"])
        weight[:, :, channel] = record.params["weight"][:, :, channel]
        alone = {"weight": weight, "bias": np.zeros_like(record.params["bias"])}
        shares.append(record.layer.forward(alone, record.x)[0][0, :, :, out])
    run = opened(steps)
    go(run, path, "→")
    for row, column in ((0, 0), (2, 5)):
        said, held, width, pixels = run(ALONE, out, [row, column])
        assert said == pytest.approx([share[row, column] for share in shares], rel=1e-3, abs=1e-7)
        total = sum(share[row, column] for share in shares) + record.params["bias"][out]
        assert total == pytest.approx(held, rel=1e-4, abs=1e-6)
    height, across = shares[0].shape
    painted = np.array(pixels).reshape(-1, width, 4)[..., :3]
    columns, most = width // (across + 1), np.abs(shares).max()
    for k, share in enumerate(shares):
        top, left = k // columns * (height + 1), k % columns * (across + 1)
        ends = np.where(share[..., None] < 0, (200, 95, 0), (70, 40, 130))
        wanted = 247 + (ends - 247) * np.abs(share[..., None]) / most
        assert np.abs(painted[top : top + height, left : left + across] - wanted).max() < 2
    screenshot(f"alone_{path.replace('/', '_')}")


@pytest.mark.browser
def test_walks_to_the_loss_and_back_and_the_products_add_up(browser, opened, rng, screenshot):
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    steps = steps_of(SMALL, False, rng)
    run = opened(steps)
    headline = lambda: browser.find_element(By.CSS_SELECTOR, ".ts-headline").text  # noqa: E731
    buttons = {b.text: b for b in browser.find_elements(By.CSS_SELECTOR, ".ts-bar-top button")}
    seen = [headline()]
    while "loss" not in headline():
        buttons["next"].click()
        seen.append(headline())
    graph_paths = run("return explorer.state.nodes.map((node) => node.path)")
    assert [re.search(r"→ (\S+)", line)[1] for line in seen[:-1]] == graph_paths
    assert f"{steps.trace.loss:.4f}" in headline()
    bars = browser.find_element(By.CSS_SELECTOR, ".ts-losses").text
    assert "Image 1, b" in bars
    assert "Image 2, d" in bars
    while "← conv1 " not in headline():
        buttons["next"].click()
    assert "dweight" in browser.find_element(By.CSS_SELECTOR, ".ts-tabs").text

    browser.find_element(By.CSS_SELECTOR, ".ts-map [title^='fire2/expand3x3']").click()
    assert "← fire2/expand3x3" in headline()
    go(run, "fire2/expand3x3", "→")
    picture = browser.find_elements(By.CSS_SELECTOR, ".ts-pair .ts-pixels")[1]  # y
    side = steps.trace["fire2/expand3x3"].y.shape[1]
    size = picture.size["width"] / side
    offset = (3.5 * size - picture.size["width"] / 2, 2.5 * size - picture.size["height"] / 2)
    ActionChains(browser).move_to_element_with_offset(
        picture, *map(round, offset)
    ).click().perform()
    assert run("return explorer.view.at") == [2, 3]
    run("explorer.set({ out: 5 })")
    browser.find_element(By.CSS_SELECTOR, ".ts-more").click()
    expected = steps.trace["fire2/expand3x3"].y[0, 2, 3, 5]
    assert printed_sum(browser) == pytest.approx(expected, rel=1e-5)
    held = run("return explorer.held()")
    assert printed_sum(browser) == np.float32(held)  # to the last bit
    screenshot("explorer_expand3x3")

    for key, where in ((Keys.ARROW_DOWN, [3, 3]), (Keys.END, [3, side - 1]), (Keys.HOME, [3, 0])):
        picture.send_keys(key)
        assert run("return explorer.view.at") == where
    picture.send_keys("+")
    assert run("return explorer.view.out") == 6
    browser.find_element(By.CSS_SELECTOR, ".ts-layer[aria-current]").send_keys(Keys.ARROW_RIGHT)
    assert "expand3x3" not in headline()
    go(run, "conv1", "←")
    run("explorer.set({ what: 'dweight', tap: 4, inp: 2, out: 3 })")
    assert printed_sum(browser) == np.float32(run("return explorer.held()"))
    dweight = steps.trace["conv1"].grads["weight"]
    assert printed_sum(browser) == pytest.approx(dweight[1, 1, 2, 3], rel=1e-4)
    errors = [line for line in browser.get_log("browser") if line["level"] == "SEVERE"]
    assert errors == []
    assert run("return performance.getEntriesByType('resource').length") == 0  # needs no network


@pytest.mark.browser
def test_one_more_step_is_the_step_that_python_would_take(browser, opened, rng):
    from selenium.webdriver.common.by import By

    steps = steps_of(SMALL, False, rng)
    run = opened(steps, Look(LOOK.classes, LOOK.mean, LOOK.std, rate=0.01))
    grads = flatten(steps.trace.grads)
    moved = {p: a - np.float32(0.01) * grads.get(p, 0) for p, a in flatten(steps.params).items()}
    after = Steps(SMALL, unflatten(moved), steps.images, steps.labels, steps.mode)
    browser.find_element(By.CSS_SELECTOR, ".ts-step").click()
    settled = (
        "const tell = arguments[0]; const { explorer } = document.querySelector('.ts-explorer');"
    )
    settled += "explorer.queue.last.then(() => tell())"
    browser.execute_async_script(settled)
    assert run("return explorer.step.loss") == pytest.approx(after.trace.loss, rel=1e-5)
    assert f"{after.trace.loss:.4f}" in browser.find_element(By.CSS_SELECTOR, ".ts-history").text


@pytest.mark.browser
@pytest.mark.parametrize(
    ("width", "scheme"), [(1280, "light"), (1280, "dark"), (400, "light"), (400, "dark")]
)
def test_fits_its_width_in_light_and_dark(width, scheme, opened, rng, screenshot):
    run = opened(steps_of(SMALL, False, rng), width=width, scheme=scheme)
    assert run("return document.querySelector('.ts-explorer').dataset.theme") == scheme
    for path, direction in (("fire2/expand3x3", "→"), ("fire2/expand3x3", "←"), ("loss", "")):
        go(run, path, direction)
        assert run("return document.documentElement.scrollWidth") <= width
        stop = f"{path.replace('/', '_')}_{'up' if direction == '→' else 'down'}"
        screenshot(f"explorer_{width}_{scheme}_{stop}")


def test_in_a_shadow_root_it_is_dark_where_the_page_is_and_its_tabs_hear_keys(browser, opened, rng):
    """Where some notebooks put a widget (marimo): no parent element above, no focus in the document."""
    opened(steps_of(SMALL, False, rng))(
        """
        window.kept = explorer;
        const host = document.body.appendChild(document.createElement('div'));
        host.style.background = '#000';
        const inner = document.createElement('div');
        host.attachShadow({ mode: 'open' }).append(inner);
        inner.append(explorer.root);
        document.body.classList.toggle('turned');
        """
    )
    assert browser.execute_script("return kept.root.dataset.theme") == "dark"
    looked_at = browser.execute_script(
        """
        kept.set({ stop: kept.stops.length - 1 });
        const tabs = [...kept.root.querySelectorAll('[role=tab]')];
        for (const tab of tabs.slice(0, 2)) {
          tab.dispatchEvent(new KeyboardEvent('keydown', { key: 'ArrowRight', bubbles: true }));
        }
        return kept.what;
        """
    )
    assert looked_at == "dbias"


class Doubled(HardSwish):
    """A layer of a user's own."""

    def forward(self, params, x, mode=None):
        return 2 * x, {}

    def backward(self, params, cache, dy, mode=None):
        return 2 * dy, {}


@pytest.mark.browser
def test_a_layer_that_only_python_knows_is_shown_and_not_stepped(browser, opened, rng):
    from selenium.webdriver.common.by import By

    own = Chain((("conv", Conv2D(5, 3)), ("own", Doubled()), ("gap", GlobalAvgPool2D())))
    steps = steps_of(own, False, rng)
    run = opened(steps)
    found = json.loads(run(EVERY_NUMBER))["found"]
    assert_close(found["own"]["y"], steps.trace["own"].y, "y")
    assert_close(found["conv"]["dweight"], steps.trace["conv"].grads["weight"], "dweight")
    assert not browser.find_element(By.CSS_SELECTOR, ".ts-step").is_enabled()
    assert "Python" in browser.find_element(By.CSS_SELECTOR, ".ts-people [role=alert]").text


def test_a_notebook_shows_the_explorer_or_the_picture(rng, monkeypatch):
    stepper = Stepper.of()
    data, about = stepper._repr_mimebundle_()
    assert len(data["text/html"]) < 600_000
    assert data["text/html"].startswith('<iframe title="A training step of')
    assert "conv1" in data["text/plain"]
    assert "conv1" in about["image/png"]["alt"]
    monkeypatch.setattr("tinysqueeze.show.widgets.step.LARGEST", 1000)
    data, _ = stepper._repr_mimebundle_()
    assert "text/html" not in data
    assert ".save(path)" in data["text/plain"]


def test_the_widget_holds_the_state_and_the_modules(monkeypatch):
    pytest.importorskip("anywidget")
    stepper = Stepper.of()
    widget = stepper.widget()
    assert widget.state == pack(stepper, stepper.look)
    assert widget._esm == module("widget.js")
    monkeypatch.setitem(sys.modules, "anywidget", None)
    with pytest.raises(ImportError, match="notebook"):
        stepper.widget()


def test_the_modules_join_into_one_without_imports():
    for start in ("standalone.js", "slider_page.js", "widget.js", "slider_widget.js"):
        text = module(start)
        exports = re.findall(r"^(?:import|export) .*", text, re.MULTILINE)
        assert exports == ["export default { render: keeping(render) };"] * ("widget" in start)
        names = re.findall(r"^(?:async )?(?:const|let|function\*?|class) (\w+)", text, re.MULTILINE)
        assert len(names) == len(set(names)), "two modules define one name"
    for path in HERE.glob("*.js"):
        first = path.read_text(encoding="utf-8").splitlines()[0]
        assert first.startswith("// "), f"{path.name}: line 1 says what it is for"
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 300


def test_what_the_comparison_names_is_there():
    """Every control and every lesson that notebooks/compared.md sends a learner to."""
    notebooks = ROOT / "notebooks"
    text = (notebooks / "compared.md").read_text(encoding="utf-8")
    named = re.findall(r'"([^"]+)"', text)
    assert len(named) > 5
    code = module("standalone.js")
    assert [n for n in named if not all(part in code for part in n.split("…"))] == []
    links = re.findall(r"\]\((?!https)([^)]+)\)", text)
    assert [link for link in links if not (notebooks / link).exists()] == []
    for place in (ROOT / "README.md", notebooks / "index.md"):
        assert "compared.md)" in place.read_text(encoding="utf-8")


def test_pages_need_no_glyph_that_common_fonts_lack():
    """What Windows' old fonts have (WGL4), and the hat on x̂: else a box is shown, or an emoji."""
    known = set("²·×–“”…←→−√\u0302")
    for path in (*HERE.glob("*.js"), *HERE.glob("*.css"), *HERE.glob("*.html")):
        rare = {c for c in path.read_text(encoding="utf-8") if ord(c) > 126} - known
        assert not rare, f"{path.name}: {rare}"


def test_a_page_stands_alone_and_tells_its_numbers_without_scripts(rng):
    steps = steps_of(SMALL, False, rng)
    text = page("A <step>", pack(steps, LOOK), plain(steps, LOOK))
    assert "A &lt;step&gt;" in text
    assert not re.search(r'(src|href)="(?!data:)', text)
    assert f"loss {steps.trace.loss:.4f}" in text
    assert all(stop.path in text for stop in steps.stops)
    assert style() in text
    assert len(text) < 300_000


def test_packing_is_the_same_each_time_and_keeps_the_steppers_place(rng):
    steps = steps_of(SMALL, False, rng)
    steps.run_to("loss")
    assert pack(steps) == pack(steps)
    plain(steps)
    assert steps.stop.path == "loss"
