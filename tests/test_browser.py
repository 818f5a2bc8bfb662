"""In JupyterLab: sliders and explorer live in a notebook, and in one that was saved and opened again."""

import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

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


def save_and_open_again(browser, lab: str, name: str) -> None:
    """The notebook from the disk, with nothing run."""
    browser.execute_script("return window.jupyterapp.commands.execute('docmanager:save')")
    dirty = "return window.jupyterapp.shell.currentWidget.context.model.dirty"
    wait_for(lambda: not browser.execute_script(dirty), 30, "the notebook is saved")
    browser.get(f"{lab}/workspaces/again/tree/{name}.ipynb?reset")


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
