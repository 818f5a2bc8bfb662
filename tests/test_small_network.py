"""The network that comes with the package, and its page: small, and it sees what it says."""

import subprocess
import sys

import pytest
from test_page import assert_close

import tinysqueeze as ts
from tinysqueeze.cli import main
from tinysqueeze.errors import UserError
from tinysqueeze.network.loss import count_right
from tinysqueeze.show.page import small_network, step_of
from tinysqueeze.show.page.drawings import DRAWINGS, drawing
from tinysqueeze.show.page.html import HERE
from tinysqueeze.show.page.of_weights import ABOUT, SMALL_FILE
from tinysqueeze.study.stepper import Steps


@pytest.fixture(scope="module")
def small_page(tmp_path_factory):
    """The page of the network that comes with the package, by the command."""
    path = tmp_path_factory.mktemp("page") / "page.html"
    assert main(["page", "-o", str(path)]) == 0
    return path


def test_the_network_of_the_package_is_small_and_sees_our_drawings(small_page):
    size = (HERE / SMALL_FILE).stat().st_size
    assert size < 100_000
    assert f"{size:,} bytes" in ABOUT
    assert small_page.stat().st_size < 2_000_000
    weights = small_network()
    steps, look = step_of(weights, make=Steps)
    named = [weights.classes[k] for k in steps.trace.logits.argmax(axis=1)]
    assert named == list(DRAWINGS)
    assert [weights.classes[k] for k in steps.labels] == list(DRAWINGS)
    red, green, blue = (steps.images[0, 0, 0] * look.std + look.mean) * 255
    assert blue > green > red > 0  # the sky, as people see it


def test_labels_are_names_numbers_or_what_the_file_says(tmp_path):
    weights = small_network()
    drawing("ship").save(tmp_path / "my_frog.png")
    path = tmp_path / "my_frog.png"
    for labels, expected in (((), "frog"), (("cat",), "cat"), (("1",), "automobile")):
        steps, _ = step_of(weights, [path], labels, make=Steps)
        assert weights.classes[steps.labels[0]] == expected
    with pytest.raises(UserError, match=r"no class 'boat'; there are airplane"):
        step_of(weights, [path], ["boat"], make=Steps)
    with pytest.raises(UserError, match="2 labels for 1 pictures"):
        step_of(weights, [path], ["cat", "dog"], make=Steps)


@pytest.mark.browser
def test_the_small_networks_page_is_pythons_step(browser, small_page):
    steps, _ = step_of(small_network(), make=Steps)
    browser.get(small_page.as_uri())
    browser.set_script_timeout(120)
    found = browser.execute_async_script(
        "const tell = arguments[0]; const root = document.querySelector('.ts-explorer');"
        "const look = () => root.explorer ? tell(root.explorer.step.loss) : setTimeout(look, 50);"
        "look();"
    )
    assert found == pytest.approx(steps.trace.loss, rel=1e-4)
    dx = "return Array.from(document.querySelector('.ts-explorer').explorer.step.seen.get('conv1').dx)"
    assert_close(browser.execute_script(dx), steps.trace["conv1"].dx, "conv1: dx")


@pytest.mark.slow
def test_the_small_network_is_as_good_as_it_says(shared_data, tmp_path):
    make = [sys.executable, shared_data / "make_cifar10.py", tmp_path]
    subprocess.run(make, check=True, timeout=300)
    weights = small_network()
    test = ts.data.load(str(tmp_path), "test")
    images = weights.preprocess.scaled(test.images)
    right = 0
    for start in range(0, len(images), 500):
        logits, _ = weights.model.forward(weights.params, images[start : start + 500])
        right += count_right(logits, test.labels[start : start + 500])
    assert f"{100 * right / len(images):.1f} %" in ABOUT
