"""A picture by its address: the same picture as by its file, or words that say why not and what to do."""

from base64 import b64encode
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import numpy as np
import pytest
from explored import SMALL, steps_of
from PIL import Image
from test_photo_page import SAID, choose, file_of, weights_of
from test_photo_page import SMALL as SEEING

from tinysqueeze.show.page import photo_page
from tinysqueeze.weights import TORCHVISION

pytestmark = pytest.mark.browser


class Quiet(SimpleHTTPRequestHandler):
    """A folder's files: those in "open" may be read by any page, the others only be shown."""

    def log_message(self, *_):
        pass

    def end_headers(self):
        if self.path.startswith("/open/"):
            self.send_header("Access-Control-Allow-Origin", "*")
        super().end_headers()


@pytest.fixture
def site(tmp_path, rng):
    """The address of a site with pictures, on this machine."""
    root = tmp_path / "site"
    picture = Image.fromarray(rng.integers(0, 256, (20, 24, 3), np.uint8))
    for folder in ("open", "closed"):
        (root / folder).mkdir(parents=True)
        picture.save(root / folder / "mine.png")
        (root / folder / "words.txt").write_text("no picture")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=root))
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield root, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


LOAD = """
const [address, tell] = arguments;
const { explorer } = document.querySelector('.ts-explorer');
const before = explorer.step;
const field = document.querySelector('.ts-own input[type=url]');
const trouble = document.querySelector('.ts-people [role=alert]');
trouble.textContent = '';
field.value = address;
field.dispatchEvent(new KeyboardEvent('keydown', { key: 'Enter', bubbles: true }));
const look = () => {
  const said = trouble.textContent;
  if (said && !said.endsWith('…')) tell(said);
  else if (explorer.step !== before) tell(Array.from(explorer.step.maps[0].data));
  else setTimeout(look, 20);
};
look();
"""
PIXELS = "return Array.from(explorer.step.maps[0].data)"


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (400, "dark")])
def test_a_picture_by_its_address_is_the_one_by_its_file(
    width, scheme, browser, opened, rng, site, screenshot
):
    from selenium.webdriver.common.by import By

    root, host = site
    run = opened(steps_of(SMALL, False, rng), width=width, scheme=scheme)
    first = run(PIXELS)
    run("window.before = explorer.step")
    browser.find_element(By.CSS_SELECTOR, ".ts-own input").send_keys(str(root / "open/mine.png"))
    browser.execute_async_script(
        "const [tell] = arguments; const { explorer } = document.querySelector('.ts-explorer');"
        "const look = () => (explorer.step !== before ? tell() : setTimeout(look, 20)); look();"
    )
    by_file = run(PIXELS)
    assert by_file != first
    coded = b64encode((root / "open/mine.png").read_bytes()).decode()
    for address in (f"{host}/open/mine.png", f"data:image/png;base64,{coded}"):
        browser.execute_async_script(
            "const [tell] = arguments; const { explorer } = document.querySelector('.ts-explorer');"
            "document.querySelector('.ts-reset').click(); explorer.queue.last.then(tell);"
        )
        assert run(PIXELS) == first
        assert run("return document.querySelector('.ts-own input[type=url]').value") == ""
        assert browser.execute_async_script(LOAD, address) == by_file
    browser.execute_script("scrollTo(0, 0)")
    screenshot(f"address_{width}_{scheme}")
    assert run("return document.documentElement.scrollWidth") <= width


def test_why_there_is_no_picture_is_said_with_what_to_do(browser, opened, rng, site, screenshot):
    _, host = site
    run = opened(steps_of(SMALL, False, rng))
    first = run(PIXELS)
    remedy = "Save the picture on your disk and choose the file."
    for address, *words in (
        (f"{host}/closed/mine.png", "mine.png is there, but", "(CORS)", remedy),
        (f"{host}/closed/none.png", "none.png can't be loaded: there is no network", remedy),
        (f"{host}/open/none.png", "its site answers 404"),
        (f"{host}/open/words.txt", "words.txt can't be opened as a picture"),
        ("http://127.0.0.1:1/mine.png", "mine.png can't be loaded", remedy),
        ("data:text/plain,words", "the picture in the address can't be opened as a picture"),
        ("", "begins with https:// or data:"),
        ("mine.png", "begins with https:// or data:"),
        ("file:///mine.png", "begins with https:// or data:"),
    ):
        said = browser.execute_async_script(LOAD, address)
        assert isinstance(said, str), address
        assert [word for word in words if word not in said] == [], said
    browser.execute_async_script(LOAD, f"{host}/closed/mine.png")
    screenshot("address_trouble")
    assert run(PIXELS) == first


BY_ADDRESS = """
const field = document.querySelector('.ts-photo input[type=url]');
field.value = arguments[0];
field.parentElement.nextSibling.click();
return document.querySelector('.ts-photo').photo.turn - 1;
"""


def test_the_photo_page_takes_an_address_too(browser, shown, rng, site, tmp_path, screenshot):
    root, host = site
    weights = weights_of(SEEING, rng, TORCHVISION.with_size(64))
    (tmp_path / "photo.html").write_text(photo_page(weights, file_of(weights)), encoding="utf-8")
    shown(tmp_path / "photo.html", 400, "dark")
    browser.set_script_timeout(60)
    browser.execute_async_script(
        "const [tell] = arguments; const look = () =>"
        " (document.querySelector('.ts-photo')?.photo?.said ? tell() : setTimeout(look, 20)); look();"
    )
    look = "return [...document.querySelector('.ts-photo').photo.logits]"
    by_file = choose(browser, root / "open/mine.png"), browser.execute_script(look)
    turn = browser.execute_script(BY_ADDRESS, f"{host}/closed/mine.png")
    assert "(CORS). Save the picture" in browser.execute_async_script(SAID, turn)
    screenshot("photo_address_trouble")
    turn = browser.execute_script(BY_ADDRESS, f"{host}/open/mine.png")
    said = browser.execute_async_script(SAID, turn)
    assert said.split(":")[0] == by_file[0].split(":")[0]  # mine.png, so many pixels
    assert browser.execute_script(look) == by_file[1]
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 400
