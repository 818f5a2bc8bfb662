"""What all tests share: a seeded generator and the way to the real data, if it is there."""

import os
import shutil
import signal
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from PIL import Image

matplotlib.use("Agg")
# Started behind a shell's `&`, Ctrl-C is ignored, and so it would be by every process that a test starts.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    """`pytest tests/test_battery.py --networks 2000 -s`: any number, and the table of errors."""
    parser.addoption("--networks", type=int, help="how many networks the battery draws")
    parser.addoption("--lines", type=int, help="how many command lines are generated")
    parser.addoption("--kills", type=int, help="how many processes are killed by each signal")
    parser.addoption("--faults", type=int, help="how many faults are planted (all, if not said)")
    parser.addoption("--skipped", action="store_true", help="only what the run before skipped")


SKIPPED: list[str] = []  # tests, and whole files, of this run


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Remember what lacked something that is not installed."""
    if report.skipped:
        SKIPPED.append(report.nodeid)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    """The same for a whole file."""
    if report.skipped:
        SKIPPED.append(report.nodeid)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """For a run with `--skipped`, where more is installed; a run without a cache leaves nothing behind."""
    if session.config.pluginmanager.hasplugin("cacheprovider"):
        session.config.cache.set("tinysqueeze/skipped", SKIPPED)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With `--skipped`, keep what the run before skipped."""
    if not config.getoption("skipped"):
        return
    cached = config.pluginmanager.hasplugin("cacheprovider")
    before = set(config.cache.get("tinysqueeze/skipped", []) if cached else [])
    if not before:
        raise pytest.UsageError("no run before, or nothing was skipped in it")
    kept = [item for item in items if {item.nodeid, item.nodeid.split("::")[0]} & before]
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = kept


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data beside the checkout; it is never part of the project."""
    place = os.environ.get("TINYSQUEEZE_SHARED", Path(__file__).parents[2] / "shared" / "data")
    if not Path(place).is_dir():
        pytest.skip(f"no real data at {place} (set TINYSQUEEZE_SHARED to its folder)")
    return Path(place)


@pytest.fixture(scope="session")
def gcc() -> str:
    """A C compiler."""
    found = shutil.which("gcc") or shutil.which("cc")
    if not found:
        pytest.skip("no C compiler (gcc or cc) on this machine")
    return found


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Two classes of small pictures, as files."""
    root = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for split, count in (("train", 40), ("test", 10)):
        for bright, name in enumerate(("dark", "light")):
            place = root / split / name
            place.mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(0, 90, (16, 16, 3), dtype=np.uint8) + np.uint8(120 * bright)
                Image.fromarray(pixels).save(place / f"{i}.png")
    return root


@pytest.fixture(scope="session")
def browser():
    """Debian's chromium without a window."""
    pytest.importorskip("selenium")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    program, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not program or not driver:
        pytest.skip("no chromium: apt install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for flag in (
        "--headless=new",
        "--no-sandbox",
        "--disable-dev-shm-usage",
        "--window-size=1400,1300",
    ):
        options.add_argument(flag)
    window = webdriver.Chrome(options=options, service=Service(driver))
    yield window
    window.quit()


@pytest.fixture
def shown(browser):
    """Open a page from the disk, so many pixels wide, in light or dark, with an empty console."""

    def open_page(page: Path, width: int = 1280, scheme: str = "light", height: int = 1400) -> None:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        feature = {"name": "prefers-color-scheme", "value": scheme}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
        browser.get("about:blank")
        browser.get_log("browser")  # what a page of another test left
        browser.get(page.as_uri())

    yield open_page
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


@pytest.fixture
def screenshot(browser, tmp_path):
    """Save what the browser shows, where $TINYSQUEEZE_SCREENSHOTS points or beside the test."""
    folder = Path(os.environ.get("TINYSQUEEZE_SCREENSHOTS", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    return lambda name: browser.save_screenshot(str(folder / f"{name}.png"))


@pytest.fixture
def opened(browser, shown, tmp_path):
    """Open a step's page as a file, with no network; gives a function that runs JavaScript in it.

    There `explorer` is what the page runs.
    """
    from explored import LOOK

    from tinysqueeze.show.page import save

    def open_page(steps, look=None, width: int = 1280, scheme: str = "light"):
        save(steps, tmp_path / "step.html", look or LOOK)
        shown(tmp_path / "step.html", width, scheme)
        find = "document.querySelector('.ts-explorer').explorer"
        browser.set_script_timeout(120)
        ready = (
            "const tell = arguments[0]; const look = () => document.querySelector('.ts-headline')"
        )
        ready += " ? tell('ready') : document.querySelector('.ts-explorer > [role=alert]') ?"
        ready += " tell('trouble') : setTimeout(look, 50); look();"
        assert browser.execute_async_script(ready) == "ready"
        return lambda code, *given: browser.execute_script(
            f"const explorer = {find}; const given = arguments; try {{ {code} }} "
            "finally { explorer.settle(); }",  # what is drawn a frame later
            *given,
        )

    return open_page
