"""In a real browser: the slider is dragged and the counts are right; the stepper walks there and back."""

import os
import re
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
import numpy as np

from tinysqueeze.network.models import squeezenet_cifar
from tinysqueeze.network.params import initialise
from tinysqueeze.show.widgets import Stepper

model = squeezenet_cifar()
images = np.random.default_rng(0).standard_normal((1, 32, 32, 3), np.float32)
stepper = Stepper(model, initialise(model), images, np.array([7]))
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
    wait_for(lambda: shown_text(browser), 90, "the widget is there")


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


def test_the_stepper_goes_to_the_loss_and_back_to_conv1(browser, lab, screenshot):
    from selenium.webdriver.common.by import By

    same: dict = {}
    exec(CELLS["stepper"], same)
    loss = re.escape(f"loss {same['stepper'].trace.loss:.4f} = ln ")
    open_and_run(browser, lab, "stepper")
    buttons = {
        button.text.strip(): button
        for button in browser.find_elements(By.CSS_SELECTOR, ".tinysqueeze-step")
    }

    def press(label: str, expected: str) -> None:
        next(b for text, b in buttons.items() if label in text).click()
        wait_for(lambda: re.search(expected, shown_text(browser)), 30, f"{label}: {expected}")

    assert "→ conv1" in shown_text(browser)
    screenshot("stepper_first")
    press("next", r"→ conv1_relu")
    press("to the loss", loss)
    screenshot("stepper_loss")
    press("next", r"← pool10")
    for _ in range(100):
        if re.search(r"← conv1 ", shown_text(browser)):
            break
        before = shown_text(browser)
        next(b for text, b in buttons.items() if "next" in text).click()
        wait_for(lambda b=before: shown_text(browser) != b, 30, "one stop on")
    assert re.search(r"← conv1 .*\n.*dy", shown_text(browser))
    assert "dweight" in shown_text(browser)
    screenshot("stepper_back_at_conv1")
    press("first", r"→ conv1 ")
