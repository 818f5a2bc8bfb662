"""In JupyterLab: sliders and explorer live in a notebook, and in one that was saved and opened again."""

import base64
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tinysqueeze.show.widgets import Stepper, one_by_one

pytestmark = [pytest.mark.browser, pytest.mark.filterwarnings("default")]

ROOT = Path(__file__).parents[1]
CELLS = {
    "one_by_one": "from tinysqueeze.show.widgets import one_by_one\n\none_by_one()",
    "widget": """\
from tinysqueeze.show.widgets import one_by_one

widget = one_by_one().widget()
widget.values = widget.values | {"channels": 96}
widget""",
    "stepper": """\
from tinysqueeze.show.widgets import Stepper

stepper = Stepper.of()
stepper""",
    "closing": """\
from tinysqueeze.show.widgets import Stepper, fire_designer

display(Stepper.of().widget(), fire_designer().widget())""",
    "saved": """\
import numpy as np
import tinysqueeze as ts
from tinysqueeze.show.widgets import Stepper, one_by_one

sliders = one_by_one().widget()
sliders.values = sliders.values | {"channels": 96}
model = ts.squeezenet_cifar()  # packs to more than a notebook should hold
images = np.random.default_rng(0).random((1, 32, 32, 3), np.float32)
large = Stepper(model, ts.initialise(model), images, np.array([3]))
display(sliders, Stepper.of().widget(), large.widget())""",
}


def wait_for(condition, seconds: float, what: str):
    """Poll until `condition()` is true and return it; fail saying what did not happen."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.2)
    pytest.fail(f"not within {seconds} s: {what}")


def untrusted(v4):
    """A notebook as another person's computer wrote it: outputs and no signature."""
    shown = (one_by_one(), Stepper.of(), one_by_one().widget())
    bundles = [each._repr_mimebundle_() for each in shown]
    for data, _ in bundles:
        if "image/png" in data:
            data["image/png"] = base64.b64encode(data["image/png"]).decode()
    outputs = [v4.new_output("display_data", data, metadata=about) for data, about in bundles]
    return v4.new_notebook(cells=[v4.new_code_cell("shown", outputs=outputs, execution_count=1)])


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A local JupyterLab with a notebook of one cell for each widget; its address."""
    pytest.importorskip("jupyterlab")
    nbformat = pytest.importorskip("nbformat")
    folder = tmp_path_factory.mktemp("lab")
    for name, code in CELLS.items():
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
        notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
        nbformat.write(notebook, folder / f"{name}.ipynb")
    nbformat.write(untrusted(nbformat.v4), folder / "untrusted.ipynb")
    port = 8921
    settings = {
        "--ServerApp.port": port,
        "--ServerApp.root_dir": folder,
        "--IdentityProvider.token": "",
        "--LabApp.expose_app_in_browser": True,
        "--LabApp.news_url": "",
    }
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"]
    log = (folder / "lab.log").open("w")
    server = subprocess.Popen(
        command + [f"{key}={value}" for key, value in settings.items()],
        env=os.environ | {"PYTHONPATH": str(ROOT), "JUPYTER_CONFIG_DIR": str(folder / "config")},
        stdout=log,
        stderr=log,
    )
    address = f"http://localhost:{port}/lab"

    def answers() -> bool:
        try:
            return urllib.request.urlopen(address, timeout=2).status == 200
        except (urllib.error.URLError, OSError):
            return False

    try:
        wait_for(answers, 240, f"JupyterLab answers ({(folder / 'lab.log').read_text()[-500:]})")
        yield address
    finally:
        server.terminate()
        server.wait(20)
        log.close()


def open_and_run(browser, lab: str, name: str, before: str = "") -> None:
    """The notebook's cells run, with the JavaScript `before` in the page before anything is shown."""
    browser.get(f"{lab}/workspaces/{name}/tree/{name}.ipynb?reset")
    ready = "return !!window.jupyterapp && !!document.querySelector('.jp-Notebook .jp-Cell')"
    wait_for(lambda: browser.execute_script(ready), 180, "the notebook is open")
    idle = (
        "const panel = window.jupyterapp.shell.currentWidget;"
        "return panel?.sessionContext?.session?.kernel?.status === 'idle'"
    )
    wait_for(lambda: browser.execute_script(idle), 180, "the kernel is ready")
    browser.execute_script(
        f"{before}; window.jupyterapp.commands.execute('notebook:run-all-cells')"
    )
    shown = "return !!document.querySelector('.jp-OutputArea iframe, .jp-OutputArea .ts-explorer')"
    wait_for(lambda: browser.execute_script(shown), 180, "the widget is there")


def save(browser) -> None:
    browser.execute_script("return window.jupyterapp.commands.execute('docmanager:save')")
    dirty = "return window.jupyterapp.shell.currentWidget.context.model.dirty"
    wait_for(lambda: not browser.execute_script(dirty), 30, "the notebook is saved")


def open_again(browser, lab: str, name: str) -> None:
    """The notebook from the disk, with nothing run."""
    browser.get("about:blank")
    browser.get(f"{lab}/workspaces/again/tree/{name}.ipynb?reset")


def save_and_open_again(browser, lab: str, name: str) -> None:
    save(browser)
    open_again(browser, lab, name)


def slide(browser, channels: int) -> str:
    """Set the slider of input channels in the frame below the cell; what the table says then."""
    return wait_for(
        lambda: browser.execute_script(
            "const inside = document.querySelector('.jp-OutputArea iframe')?.contentDocument;"
            "const slider = inside?.querySelector('.ts-channels'); if (!slider) return null;"
            "slider.value = arguments[0]; slider.dispatchEvent(new Event('input'));"
            "return inside.querySelector('.ts-count').textContent",
            channels,
        ),
        60,
        "the sliders are there",
    )


def test_sliders_live_in_a_notebook_and_when_it_is_opened_again(browser, lab, screenshot):
    open_and_run(browser, lab, "one_by_one")
    assert f"{9 * 200 * 128 + 128:,}" in slide(browser, 200)
    screenshot("one_by_one_in_a_notebook")
    save_and_open_again(browser, lab, "one_by_one")
    assert f"{9 * 304 * 128 + 128:,}" in slide(browser, 304)
    assert "Error displaying" not in browser.execute_script("return document.body.textContent")


def test_as_a_widget_sliders_and_python_follow_each_other(browser, lab):
    open_and_run(browser, lab, "widget")
    told = "return document.querySelector('.jp-OutputArea .ts-panel .ts-count')?.textContent"
    found = wait_for(lambda: browser.execute_script(told), 60, "the widget is there")
    assert f"{9 * 96 * 128 + 128:,}" in found  # as the cell's second line set it


def shut_down(browser) -> None:
    """The kernel of the notebook that is open."""
    panel = "window.jupyterapp.shell.currentWidget.sessionContext"
    browser.execute_script(f"return {panel}.shutdown()")
    gone = f"return {panel}.session === null"
    wait_for(lambda: browser.execute_script(gone), 60, "the kernel is gone")


SAVED = """
const all = [...document.querySelectorAll('.jp-OutputArea-output')];
const explorers = all.flatMap((one) => [...one.querySelectorAll('.ts-explorer:not(.ts-panel)')]);
const count = document.querySelector('.jp-OutputArea .ts-panel .ts-count')?.textContent;
const [live, still] = explorers;
if (!count || !live?.explorer || !(still?.explorer || still?.querySelector('img'))) return null;
return [count, live.explorer.step.loss, Boolean(still.explorer), still.textContent];
"""


def test_widgets_live_when_they_are_opened_again_without_their_kernel(browser, lab, screenshot):
    """Sliders as they were left, the explorer; a large one is its picture and its numbers as text."""
    shown = lambda: browser.execute_script(SAVED)  # noqa: E731
    open_and_run(browser, lab, "saved")
    _, loss, live, _ = wait_for(shown, 120, "the widgets are there")
    assert live
    browser.execute_script("window.jupyterapp.commands.execute('notebook:run-all-cells')")
    time.sleep(1)
    wait_for(shown, 120, "the widgets are there again")
    browser.execute_script(
        "const slider = document.querySelector('.ts-panel .ts-channels'); slider.value = 200;"
        "slider.dispatchEvent(new Event('input'))"
    )
    save(browser)
    shut_down(browser)
    for _ in range(2):  # and saved once more without a kernel
        open_again(browser, lab, "saved")
        count, again, live, text = wait_for(
            shown, 120, "the widgets are there, without their kernel"
        )
        assert f"{9 * 200 * 128 + 128:,}" in count
        assert again == loss
        assert not live
        assert "loss 2.3" in text
        assert "Error" not in browser.execute_script("return document.body.textContent")
        for command in ("cut-cell", "paste-cell-below"):
            browser.execute_script(
                f"return window.jupyterapp.commands.execute('notebook:{command}')"
            )
            time.sleep(0.5)  # a view that goes says so a little later
        wait_for(shown, 120, "the widgets are put back")
        save(browser)
        shut_down(browser)
    screenshot("widgets_opened_again")
    kept = browser.execute_script(
        "const { model } = window.jupyterapp.shell.currentWidget.context;"
        "return Object.values(model.getMetadata('widgets'))[0].state"
    )
    assert len(kept) == 3  # what stood there before is not kept
    assert len(str(kept)) < 1_500_000


PICTURES = """
return [...document.querySelectorAll('.jp-OutputArea-output')].map((one) => [
  [...one.querySelectorAll('img')].filter((img) => img.checkVisibility() && img.naturalWidth > 100).length,
  one.querySelectorAll('iframe').length, one.textContent]);
"""


def test_where_a_notebook_is_not_trusted_pictures_and_words_stand_for_what_lives(
    browser, lab, screenshot
):
    browser.get(f"{lab}/workspaces/untrusted/tree/untrusted.ipynb?reset")
    there = "return document.querySelectorAll('.jp-OutputArea-output img').length >= 3"
    wait_for(lambda: browser.execute_script(there), 180, "the outputs are there")
    for pictures, frames, text in browser.execute_script(PICTURES):
        assert (pictures, frames) == (1, 0)
        assert "Error" not in text
        assert "3×3 only" in text or "conv1" in text
    screenshot("not_trusted")


def test_where_frames_live_the_picture_does_not_stand_beside_them(browser, lab):
    open_and_run(browser, lab, "one_by_one")
    found = browser.execute_script(PICTURES)
    assert [one[:2] for one in found] == [[0, 1]]


def in_the_explorer(browser, code: str):
    """What JavaScript says in the explorer's frame, `explorer` being what it runs; None before."""
    frame = "document.querySelector('.jp-OutputArea iframe')?.contentDocument"
    find = f"{frame}?.querySelector('.ts-explorer')?.explorer"
    return browser.execute_script(f"const explorer = {find}; if (!explorer) return null; {code}")


def test_the_explorer_lives_in_a_notebook_and_when_it_is_opened_again(browser, lab, screenshot):
    same: dict = {}
    exec(CELLS["stepper"], same)
    loss = same["stepper"].trace.loss
    open_and_run(browser, lab, "stepper")

    def walks() -> None:
        found = wait_for(
            lambda: in_the_explorer(browser, "return explorer.step.loss"),
            60,
            "the explorer is there",
        )
        assert found == pytest.approx(loss, rel=1e-5)
        in_the_explorer(browser, "explorer.goTo('loss')")
        assert f"{loss:.4f}" in in_the_explorer(browser, "return explorer.headline.textContent")

    walks()
    screenshot("explorer_in_a_notebook")
    save_and_open_again(browser, lab, "stepper")
    walks()
    assert "Error displaying" not in browser.execute_script("return document.body.textContent")
    screenshot("explorer_opened_again")


HELD = """
window.held = { timers: new Set(), observers: new Set(), signals: new Set() };
const { setInterval: begin, clearInterval: end } = window;
window.setInterval = (...given) => {
  const id = begin(...given);
  if (given[1] === 1200) held.timers.add(id); // a walk's
  return id;
};
window.clearInterval = (id) => { held.timers.delete(id); end(id); };
const { observe, disconnect } = MutationObserver.prototype;
MutationObserver.prototype.observe = function (...given) {
  if (given[1]?.attributeFilter?.includes('data-jp-theme-light')) held.observers.add(this); // ours
  observe.apply(this, given);
};
MutationObserver.prototype.disconnect = function () { held.observers.delete(this); disconnect.apply(this); };
const { addEventListener } = EventTarget.prototype;
MediaQueryList.prototype.addEventListener = function (...given) {
  if (given[2]?.signal) held.signals.add(given[2].signal);
  addEventListener.apply(this, given);
};
"""
COUNTS = """
const open = [...held.signals].filter((signal) => !signal.aborted).length;
return [held.timers.size, held.observers.size, open];
"""


@pytest.mark.parametrize("how", ["output cleared", "cell run again", "notebook closed"])
def test_a_view_that_is_closed_in_jupyterlab_leaves_nothing_running(how, browser, lab):
    explorer = "document.querySelector('.jp-OutputArea .ts-explorer:not(.ts-panel)')?.explorer"

    def walking() -> bool:
        """Explorer and sliders are there; the explorer begins to walk."""
        return browser.execute_script(
            f"if (!{explorer} || !document.querySelector('.ts-panel')) return false;"
            f"window.first = {explorer}; first.walk.element.click(); return true"
        )

    open_and_run(browser, lab, "closing", HELD)
    wait_for(walking, 120, "explorer and sliders are there")
    assert browser.execute_script(COUNTS) == [1, 2, 2]
    if how == "output cleared":
        browser.execute_script(
            "window.jupyterapp.commands.execute('notebook:clear-all-cell-outputs')"
        )
    elif how == "cell run again":
        browser.execute_script("window.jupyterapp.commands.execute('notebook:run-all-cells')")
    else:
        browser.execute_script(
            "const panel = window.jupyterapp.shell.currentWidget;"
            "panel.context.save().then(() => panel.close())"
        )
    stays = [0, 2, 2] if how == "cell run again" else [0, 0, 0]  # the new views'
    wait_for(
        lambda: (
            browser.execute_script("return first.signal.aborted")
            and browser.execute_script(COUNTS) == stays
        ),
        60,
        f"nothing runs on; counts {browser.execute_script(COUNTS)}",
    )
    stop = browser.execute_script("return first.view.stop")
    time.sleep(1.5)
    assert browser.execute_script("return first.view.stop") == stop
