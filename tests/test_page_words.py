"""What the explorer calls things: its layers, their maps, a pixel and a number."""

import re

import numpy as np
import pytest
from explored import SMALL, go, number, steps_of

from tinysqueeze.network.compose import Chain
from tinysqueeze.network.layers import Conv2D, Flatten, Linear, MaxPool2D, ReLU, Softmax
from tinysqueeze.network.models import squeezenet_cifar

pytestmark = pytest.mark.browser

PERCEPTRON = Chain(
    (
        ("wide", Conv2D(2, 3)),
        ("max", MaxPool2D((7, 6), 1)),
        ("narrow", Conv2D(1, 1)),
        ("point", Conv2D(6, 1)),
        ("flat", Flatten()),
        ("relu", ReLU()),
        ("one", Linear(1)),
        ("fc", Linear(5)),
        ("softmax", Softmax()),
    )
)
HEADS = {
    "wide": "3x3 convolution, 2 filters · x 9×8×3 → y 7×6×2",
    "narrow": "1x1 convolution, 1 filter · x 1×1×2 → y 1×1×1",
    "point": "1x1 convolution, 6 filters · x 1×1×1 → y 1×1×6",
    "flat": "flatten: 1×1×6 map to 6 numbers · x 1×1×6 → y 6",
    "relu": "relu · x 6 → y 6",
    "one": "fully connected layer, 1 output · x 6 → y 1",
    "fc": "fully connected layer, 5 outputs · x 1 → y 5",
    "softmax": "softmax of 5 numbers · x 5 → y 5",
}
TEXT = """
return [...explorer.root.querySelectorAll('section .ts-title, section .ts-line, .ts-rule, .ts-numbers')]
  .filter((one) => one.checkVisibility()).map((one) => one.textContent).join(' | ');
"""


def test_layers_are_called_what_they_are(opened, rng):
    run = opened(steps_of(PERCEPTRON, False, rng))
    for path, words in HEADS.items():
        go(run, path, "→")
        assert words in run("return explorer.headline.textContent")


def test_a_pixel_and_a_number_have_one_name_everywhere(opened, rng, screenshot):
    """y[0, 0, 5] in a map of one pixel, y[5] behind a Flatten: as Python indexes the array."""
    steps = steps_of(PERCEPTRON, False, rng)
    run = opened(steps)
    for path, record in ((path, steps.trace[path]) for path in HEADS):
        for direction in "→←":
            go(run, path, direction)
            run("explorer.set({ what: 'dx' })")
            said = run(TEXT)
            for name, array in (("x", record.x), ("y", record.y)):
                found = re.findall(rf"\bd?{name}\[([^]]*)\]", said)
                assert {place.count(",") for place in found} <= {array.ndim - 2}, (path, said)
                pixels = re.findall(rf"pixel [0-9]+, [0-9]+ of d?{name}\b", said)
                assert array.ndim == 4 or not pixels
    go(run, "point", "→")
    assert "the 1 channel of pixel 0, 0 of x (first line), filter 0" in run(TEXT)
    screenshot("one_pixel")
    go(run, "fc", "→")
    assert "The 1 number of x (first line), column 0 of the weights" in run(TEXT)
    screenshot("fully_connected")


def test_softmax_hands_back_what_its_terms_say(opened, rng):
    run = opened(steps_of(PERCEPTRON, False, rng))
    go(run, "softmax", "←")
    for channel in range(5):
        run(f"explorer.set({{ inp: {channel} }})")
        said = run(TEXT)
        assert f"dx[{channel}] = y·(dy − the sum of y·dy)" in said
        assert "do not agree" not in said
        assert run("return explorer.found.terms.length") == 5


CAPTIONS = """
explorer.set({ what: 'dx' });
explorer.set({ at: [3, 2] });
explorer.settle();
return document.querySelector('[aria-label=Backward]').innerText;
"""


def test_the_way_back_speaks_of_the_chosen_pixel_and_of_the_windows_there_are(opened, rng):
    run = opened(steps_of(SMALL, False, rng))
    go(run, "conv1_swish", "←")
    said = run(CAPTIONS)
    assert "dy[3, 2, 0] = " in said
    assert "framed: what became of pixel 3, 2 of x" in said
    go(run, "pool1", "←")  # 2x2 pixels, stride 2
    assert "the windows do not overlap: 1 share makes dx" in run(CAPTIONS)
    go(run, "conv1", "←")  # 3x3, stride 1
    assert "the windows overlap, so 9 shares add up to dx" in run(CAPTIONS)


SIMPLE = squeezenet_cifar(
    bypass="simple", stem_filters=8, fires=3, freq=3, pools=(1,), base_e=8, incr_e=0,
    squeeze_ratio=0.5, input_size=16,
)  # fmt: skip
FORKS = """
explorer.set({ what: 'dx', at: [5, 2], from: [5, 2], n: 1, out: 3, inp: 3 });
explorer.settle();
const said = [...document.querySelectorAll('.ts-fork')].map((line) => line.textContent);
const { dy, y } = explorer.step.seen.get(explorer.node.path);
const [width, channels] = y.size.slice(1);
return [...said, dy[((y.size[0] + 5) * width + 2) * channels + 3]];
"""


def shares(said: str) -> tuple[dict[str, float], float]:
    """The numbers that a line adds up, by layer, and their sum."""
    found = re.findall(r"\(?([−0-9.e]+)\)? of (\S+)", said)
    return {path: number(share) for share, path in found}, number(said.split(" = ")[-1][:-1])


@pytest.mark.parametrize(
    ("network", "path", "readers"),
    [
        (SMALL, "fire2/squeeze", ["fire2/expand1x1", "fire2/expand3x3"]),
        (SIMPLE, "fire2/squeeze_relu", ["fire2/expand1x1", "fire2/expand3x3"]),
        (SIMPLE, "fire2/sum", ["fire3/squeeze", "fire3/sum"]),
        (SMALL, "pool1", ["fire2/bypass/conv", "fire2/squeeze"]),
    ],
)
def test_where_branches_meet_on_the_way_back_their_shares_are_told(
    network, path, readers, opened, rng, screenshot
):
    """A Fire's two kinds of filters, a bypass of both kinds: named, and float32's own sum of them."""
    steps = steps_of(network, False, rng, shape=(16, 16, 3))
    run = opened(steps)
    go(run, path, "←")
    said, _, held = run(FORKS)
    screenshot(f"fork_{path.replace('/', '_')}")
    assert said.startswith(f"y goes to {' and '.join(readers)}: dy is the sum")
    found, total = shares(said)
    assert set(found) == set(readers)
    assert np.float32(total) == np.float32(held) == sum(map(np.float32, found.values()))
    for reader, share in found.items():
        assert share == pytest.approx(steps.trace[reader].dx[1, 5, 2, 3], rel=1e-4, abs=1e-9)
    assert total == pytest.approx(steps.trace[path].dy[1, 5, 2, 3], rel=1e-4, abs=1e-9)
    go(run, readers[0], "←")
    below, above, _ = run(FORKS)
    assert above.startswith(f"x goes to {readers[1]}, too: this dx is one share.")
    assert shares(above) == (found, total)
    assert not below
    go(run, "conv1", "←")
    assert run(FORKS)[:2] == ["", ""]
