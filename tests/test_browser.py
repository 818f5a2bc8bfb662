"""In a real browser: the slider is dragged and the counts are right; the explorer lives in a notebook."""

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
    "stepper": """\
from tinysqueeze.show.widgets import Stepper

stepper = Stepper.of()
stepper""",
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
        wait_for(answers, 60, f"JupyterLab answers ({(folder / 'lab.log').read_text()[-500:]})")
        yield address
    finally:
        server.terminate()
        server.wait(20)
        log.close()


def open_and_run(browser, lab: str, name: str) -> None:
    browser.get(f"{lab}/workspaces/{name}/tree/{name}.ipynb?reset")
    ready = "return !!window.jupyterapp && !!document.querySelector('.jp-Notebook .jp-Cell')"
    wait_for(lambda: browser.execute_script(ready), 60, "the notebook is open")
    idle = (
        "const panel = window.jupyterapp.shell.currentWidget;"
        "return panel?.sessionContext?.session?.kernel?.status === 'idle'"
    )
    wait_for(lambda: browser.execute_script(idle), 60, "the kernel is ready")
    browser.execute_script("window.jupyterapp.commands.execute('notebook:run-all-cells')")
    shown = "return !!document.querySelector('.tinysqueeze-text, .jp-OutputArea iframe')"
    wait_for(lambda: browser.execute_script(shown), 120, "the widget is there")


def shown_text(browser) -> str:
    """What the panel's text says now."""
    return browser.execute_script(
        "return document.querySelector('.tinysqueeze-text')?.textContent || ''"
    )


def drag(browser, name: str, pixels: int) -> int:
    """Drag the handle of a slider; the number that it then reads."""
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.by import By

    slider = browser.find_element(By.CSS_SELECTOR, f".tinysqueeze-{name}")
    handle = slider.find_element(By.CSS_SELECTOR, ".noUi-handle")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", handle)
    ActionChains(browser).click_and_hold(handle).move_by_offset(pixels, 0).release().perform()
    readout = slider.find_element(By.CSS_SELECTOR, ".widget-readout")
    return int(readout.text.replace(",", ""))


def test_dragging_the_sliders_changes_the_counts_to_the_right_numbers(browser, lab, screenshot):
    open_and_run(browser, lab, "one_by_one")
    screenshot("one_by_one_before")
    assert "73,856" in shown_text(browser)  # 128 filters of 3×3 over 64 channels
    channels = drag(browser, "channels", 60)
    assert channels > 64
    filters = drag(browser, "filters", -20)
    assert filters < 128
    for parameters in (channels * filters + filters, 9 * channels * filters + filters):
        wait_for(
            lambda p=parameters: f"{p:,}" in shown_text(browser), 30, f"{parameters:,} is shown"
        )
    assert f"{27 * 27 * 9 * channels * filters:,}" in shown_text(browser)
    alt = browser.execute_script(
        "return document.querySelector('.jp-OutputArea img[alt]').getAttribute('alt')"
    )
    assert f"{filters} filters" in alt
    screenshot("one_by_one_after")


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
    browser.execute_script("return window.jupyterapp.commands.execute('docmanager:save')")
    dirty = "return window.jupyterapp.shell.currentWidget.context.model.dirty"
    wait_for(lambda: not browser.execute_script(dirty), 30, "the notebook is saved")
    browser.get(f"{lab}/workspaces/again/tree/stepper.ipynb?reset")  # nothing is run this time
    walks()
    assert "Error displaying" not in browser.execute_script("return document.body.textContent")
    screenshot("explorer_opened_again")
