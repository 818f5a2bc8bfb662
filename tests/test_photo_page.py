"""The photo page: pixels, maps and answers are Python's; it needs nobody; what is wrong is said."""

import re
from base64 import b64encode
from dataclasses import replace
from html import unescape
from importlib import metadata

import numpy as np
import pytest
from PIL import Image
from test_c_export import NETS, lively

from tinysqueeze.cli import main
from tinysqueeze.devices.memory import deployed
from tinysqueeze.devices.wasm import engine
from tinysqueeze.errors import UserError
from tinysqueeze.graph import folded_params, run
from tinysqueeze.network.layers import Conv2D, GlobalAvgPool2D, Softmax
from tinysqueeze.network.models import Model, squeezenet_cifar
from tinysqueeze.network.ops import fast
from tinysqueeze.show.inside import class_activation_map, extent
from tinysqueeze.show.page import module, photo_page, small_file
from tinysqueeze.weights import CAFFE, TORCHVISION, Preprocess, WeightSet, open_image, open_weights
from tinysqueeze.weights.compression import fileformat
from tinysqueeze.weights.compression.fileformat import Compressed, to_bytes
from tinysqueeze.weights.compression.tensors import Shared, exactly


def weights_of(model: Model, rng: np.random.Generator, preprocess: Preprocess) -> WeightSet:
    return WeightSet(model, lively(model, rng), preprocess, "a test's", known_by="by a test")


def file_of(weights: WeightSet) -> bytes:
    tensors = {path: exactly(array) for path, array in weights.flat.items()}
    return to_bytes(Compressed(weights.model, tensors, {}))


@pytest.fixture
def opened(browser, shown, tmp_path):
    """Open a page's text as a file; gives a function that runs JavaScript, where `photo` is what it runs."""

    def open_page(text: str, width: int = 1280, scheme: str = "light"):
        (tmp_path / "photo.html").write_text(text, encoding="utf-8")
        shown(tmp_path / "photo.html", width, scheme)
        browser.set_script_timeout(120)
        find = "document.querySelector('.ts-photo')?.photo"
        assert browser.execute_async_script(
            "const tell = arguments[0]; const look = () => "
            f"{find}?.said || document.querySelector('.ts-photo > [role=alert]')?.textContent "
            "? tell(true) : setTimeout(look, 20); look();"
        )
        return lambda code, *given: browser.execute_script(
            f"const photo = {find}; const given = arguments; {code}", *given
        )

    return open_page


SAID = """
const [before, tell] = arguments;
const page = document.querySelector('.ts-photo');
const look = () => {
  const text = page.querySelector('[role=status]').textContent;
  const bad = page.querySelector('[role=alert]').textContent;
  if (page.photo.turn > before && (bad || !text.startsWith('looking'))) tell(bad || text);
  else setTimeout(look, 5);
};
look();
"""


def choose(browser, path) -> str:
    """Choose a file, as a visitor does; what the page then says."""
    from selenium.webdriver.common.by import By

    before = browser.execute_script("return document.querySelector('.ts-photo').photo.turn ?? 0")
    browser.find_element(By.CSS_SELECTOR, "input[type=file]").send_keys(str(path))
    return browser.execute_async_script(SAID, before)


def picture(tmp_path, rng, width: int = 37, height: int = 29):
    """A picture without loss, smooth and rough."""
    rough = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    rough[: height // 2] = rough[0, 0]
    path = tmp_path / f"{width}x{height}.png"
    Image.fromarray(rough).save(path)
    return path


@pytest.mark.browser
@pytest.mark.parametrize("name", NETS)
def test_every_number_of_every_map_is_pythons(name, browser, opened, tmp_path, rng):
    model = NETS[name]
    size = model.input_shape[:2]
    weights = weights_of(
        model, rng, Preprocess(size, size, "BGR", 255.0, (0.1, 0.2, 0.3), (0.5, 1, 2))
    )
    path = picture(tmp_path, rng)
    ask = opened(photo_page(weights, file_of(weights)))
    assert "37x29.png, 37×29 pixels" in choose(browser, path)
    x = weights.preprocess(open_image(path))
    graph, folds = deployed(model)
    expected = run(graph, folded_params(folds, weights.params), x[None], fast)
    for number in range(len(graph.shapes)):
        found = np.array(ask(f"return [...photo.engine.map({number})]"), np.float32)
        wanted = np.asarray(expected[number][0], np.float32).reshape(-1)
        if number == 0:
            np.testing.assert_array_equal(found, wanted)  # pixels, to the bit
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5 * np.abs(wanted).max())
    logits, _ = model.forward(weights.params, x[None])
    found = ask("return [...photo.logits]")
    np.testing.assert_allclose(found, logits[0], rtol=1e-4, atol=1e-5 * np.abs(logits).max())
    assert browser.get_log("browser") == []


SIZES = ((37, 29), (29, 37), (500, 375), (227, 300), (16, 16), (1, 7), (1200, 31), (40, 64))
WANTED = {
    "caffe": CAFFE.with_size(40),
    "torchvision": TORCHVISION.with_size(33),
    "crop beyond the edge": Preprocess(20, (33, 33)),
    "another aspect": Preprocess((37, 64), (36, 33)),
}


@pytest.mark.browser
@pytest.mark.parametrize("how", WANTED)
def test_photographs_are_resized_as_pillow_does_to_the_bit(how, browser, opened, tmp_path, rng):
    preprocess = WANTED[how]
    model = Model(
        "seen", (("a", Conv2D(4, 3)), ("b", GlobalAvgPool2D())), (*preprocess.crop, 3), {}
    )
    weights = weights_of(model, rng, preprocess)
    ask = opened(photo_page(weights, file_of(weights)))
    for size in SIZES:
        path = picture(tmp_path, rng, *size)
        assert path.name in choose(browser, path)
        height, width = preprocess.crop
        seen = np.array(ask("return [...photo.seen.data]"), np.uint8).reshape(height, width, 4)
        framed = np.asarray(preprocess.framed(open_image(path)))
        np.testing.assert_array_equal(seen[..., :3], framed, f"{size}")
        x = np.array(ask("return [...photo.engine.map(0)]"), np.float32)
        np.testing.assert_array_equal(x, preprocess(open_image(path)).reshape(-1))


SMALL = squeezenet_cifar(
    norm=True, bypass="complex", stem_filters=8, fires=3, freq=1, pools=(1, 3), base_e=16, incr_e=8,
    squeeze_ratio=0.25, input_size=64, activation="hard-swish", linear_squeeze=True,
)  # fmt: skip


@pytest.fixture
def small(rng) -> WeightSet:
    classes = tuple("abcdefghi") + ("<b>j</b>",)
    return replace(weights_of(SMALL, rng, TORCHVISION.with_size(64)), classes=classes)


@pytest.mark.browser
def test_answers_and_where_they_are_seen(browser, opened, tmp_path, rng, small):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    path = picture(tmp_path, rng, 120, 90)
    ask = opened(photo_page(small, file_of(small), [path]))  # it comes with the page
    image = open_image(path)
    logits, _ = small.model.forward(small.params, small.preprocess(image)[None])
    order = np.argsort(-logits[0], kind="stable")[:5]
    rows = browser.find_elements(By.CSS_SELECTOR, ".ts-best button")
    shares = np.exp(logits[0] - logits.max()) / np.exp(logits[0] - logits.max()).sum()
    said = [re.fullmatch(r"(.+)\n(?:[<>] )?([\d.]+) %", row.text) for row in rows]
    assert [one[1] for one in said] == [small.classes[k] for k in order]
    np.testing.assert_allclose([float(one[2]) for one in said], 100 * shares[order], atol=0.051)
    rows[0].send_keys(Keys.TAB, Keys.ENTER)  # the second, by keyboard
    pressed = browser.find_elements(By.CSS_SELECTOR, ".ts-best [aria-pressed=true]")
    assert [one.text.split("\n")[0] for one in pressed] == [small.classes[order[1]]]
    assert ask("return document.activeElement.getAttribute('aria-pressed')") == "true"
    assert small.classes[order[1]] in browser.find_element(By.CSS_SELECTOR, ".ts-look").text
    source = ask("return photo.header.nodes.at(-1).sources[0]")
    maps = np.array(ask(f"return [...photo.engine.map({source})]")).reshape(-1, SMALL.classes)
    for k in order:
        expected = class_activation_map(small, image, int(k)).reshape(-1)
        np.testing.assert_allclose(maps[:, k], expected, rtol=1e-3, atol=1e-4)
    left, right, bottom, top = extent(SMALL, SMALL.steps[-2][0])
    place = ask(f"return photo.header.places[{source}]")
    np.testing.assert_allclose(place, [top, left, bottom - top, right - left])


COVER = """
const dataOf = (c) => [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data];
return [...document.querySelectorAll('.ts-seen canvas')].map(dataOf);
"""


@pytest.mark.browser
def test_where_a_class_is_seen_shows_on_a_photograph_of_any_colour(browser, opened, tmp_path, rng):
    """On orange, too: the photograph stays as it is there, and is a flat grey where it is not."""
    chosen = Model("seen", (("a", Conv2D(2, 1)), ("b", GlobalAvgPool2D())), (16, 16, 3), {})
    weights = weights_of(chosen, rng, Preprocess(16, (16, 16)))
    weights.params["a"]["weight"][:] = np.array([[1, 0], [0, 0], [0, 0]])  # how red it is
    weights.params["a"]["bias"][:] = 0
    image = np.zeros((16, 16, 3), np.uint8)
    image[:, 8:] = 255, 120, 0
    path = tmp_path / "orange.png"
    Image.fromarray(image).save(path)
    opened(photo_page(weights, file_of(weights), [path]))
    below, cover = (np.array(c).reshape(16, 16, 4) for c in browser.execute_script(COVER))
    np.testing.assert_array_equal(below[..., :3], image)
    assert (cover[:, 9:, 3] == 0).all(), "what is seen stays as it is"
    assert (cover[:, :7, 3] == 255).all(), "what is not is covered"
    assert np.ptp(cover[:, :7, :3].astype(int), axis=-1).max() == 0, "by grey"
    assert 60 < cover[:, :7, :3].mean() < 200, "that is neither black nor white"
    said = browser.find_element("css selector", ".ts-look").text
    assert "In colour: where the network sees it" in said


SHARES = """
const shares = [1, 0.99996, 0.9994, 0.5, 0.0996, 0.04, 0.0009, 0.00043, 0.0000123, 1e-9, 0];
const shown = [1, 0].map((digits) => shares.map((p) => percent(p, digits)));
return [...shown, shares.map((p) => percent(p))];
"""


@pytest.mark.browser
def test_a_small_share_is_no_zero_and_a_large_one_not_the_whole(browser):
    one, none, chosen = browser.execute_script(module("numbers.js").replace("export ", "") + SHARES)
    small = ["0.09 %", "0.043 %", "0.0012 %", "< 0.001 %", "0.0 %"]
    assert one == ["100.0 %", "> 99.9 %", "99.9 %", "50.0 %", "10.0 %", "4.0 %", *small]
    assert none[:6] == ["100 %", "> 99 %", "> 99 %", "50 %", "10 %", "4 %"]
    assert chosen == [*none[:5], *one[5:]]


@pytest.mark.browser
def test_any_layers_maps_by_mouse_and_keyboard(browser, opened, small, screenshot):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.ui import Select

    ask = opened(photo_page(small, file_of(small)))
    layers = Select(browser.find_element(By.CSS_SELECTOR, "select"))
    names = [option.text for option in layers.options]
    assert any(name.startswith("fire2/expand1x1 + expand3x3, ") for name in names)
    for name in names:
        layers.select_by_visible_text(name)
        assert "numbers in" in browser.find_element(By.CSS_SELECTOR, "[aria-label=Layers]").text
    layers.select_by_visible_text(names[0])
    seen = browser.find_element(By.CSS_SELECTOR, "[aria-label=Layers]").text
    assert "negative, zero, positive; the strongest" in seen
    channels = browser.find_element(By.CSS_SELECTOR, "[role=slider]")
    at = int(channels.get_attribute("aria-valuenow"))
    channels.send_keys(Keys.HOME, Keys.ARROW_RIGHT)
    assert channels.get_attribute("aria-valuenow") == "1" != str(at + 100)
    pixels = browser.find_element(By.CSS_SELECTOR, "[role=application]")
    pixels.send_keys(Keys.HOME, Keys.ARROW_UP)
    shown = re.search(r"row (\d+), column 0: y = (\S+)", pixels.get_attribute("aria-label"))
    width, count = SMALL.steps and ask(
        "return photo.header.shapes[photo.header.nodes[0].target].slice(1)"
    )
    target = ask("return photo.header.nodes[0].target")
    held = ask(f"return photo.engine.map({target})[{int(shown[1]) * width * count + 1}]")
    assert float(shown[2].replace("−", "-")) == pytest.approx(held, rel=1e-3, abs=1e-6)
    assert ask("return performance.getEntriesByType('resource').length") == 0  # needs no network
    assert browser.get_log("browser") == []


@pytest.mark.browser
def test_what_is_no_picture_is_said_and_the_page_goes_on(browser, opened, tmp_path, rng, small):
    opened(photo_page(small, file_of(small)))
    (tmp_path / "text.jpg").write_text("no picture")
    assert "text.jpg can't be opened as a picture" in choose(browser, tmp_path / "text.jpg")
    assert "30x20.png, 30×20" in choose(browser, picture(tmp_path, rng, 30, 20))
    see_through = Image.new("RGBA", (64, 64), (255, 0, 0, 0))
    see_through.save(tmp_path / "clear.png")
    assert "clear.png" in choose(browser, tmp_path / "clear.png")
    seen = "return [...document.querySelector('.ts-photo').photo.seen.data].every((v) => v === 255)"
    assert browser.execute_script(seen)  # white shows behind
    turned = Image.new("RGB", (40, 20))
    exif = turned.getexif()
    exif[0x0112] = 6  # on its side
    turned.save(tmp_path / "turned.jpg", exif=exif)
    assert "turned.jpg, 20×40 pixels" in choose(browser, tmp_path / "turned.jpg")


DROP = """
const [base64, name, kind, tell] = arguments;
const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
const dataTransfer = new DataTransfer();
dataTransfer.items.add(new File([bytes], name, { type: "image/png" }));
const paste = new ClipboardEvent(kind, { clipboardData: dataTransfer, bubbles: true });
const drop = new DragEvent(kind, { dataTransfer, bubbles: true, cancelable: true });
document.body.dispatchEvent(kind === "paste" ? paste : drop);
const said = () => document.querySelector(".ts-photo").photo.said;
const look = () => (said().startsWith(name) ? tell(said()) : setTimeout(look, 5));
look();
"""


@pytest.mark.browser
@pytest.mark.parametrize("kind", ["drop", "paste"])
def test_a_picture_can_be_dropped_and_pasted(kind, browser, opened, tmp_path, rng, small):
    opened(photo_page(small, file_of(small)))
    data = b64encode(picture(tmp_path, rng, 50, 40).read_bytes()).decode()
    said = browser.execute_async_script(DROP, data, f"{kind}ped.png", kind)
    assert said.startswith(f"{kind}ped.png, 50×40 pixels")


@pytest.mark.browser
def test_a_damaged_page_says_so(browser, opened, monkeypatch, small):
    file = bytearray(file_of(small))
    file[len(file) // 2] ^= 1
    monkeypatch.setattr("tinysqueeze.show.page.photo.symbols_of", lambda data: 0)
    opened(photo_page(small, bytes(file)))
    from selenium.webdriver.common.by import By

    said = browser.find_element(By.CSS_SELECTOR, "[role=alert]").text
    assert said.startswith("The network can't be shown: the compressed weights are damaged")


@pytest.mark.browser
@pytest.mark.parametrize(
    ("width", "scheme"), [(1280, "light"), (1280, "dark"), (400, "light"), (400, "dark")]
)
def test_fits_its_width_in_light_and_dark(width, scheme, opened, small, screenshot):
    ask = opened(photo_page(small, file_of(small)), width, scheme)
    assert ask("return document.querySelector('.ts-photo').dataset.theme") == scheme
    assert ask("return document.documentElement.scrollWidth") <= width
    screenshot(f"photo_{width}_{scheme}")


def test_a_page_stands_alone_and_is_text_without_scripts(small):
    text = photo_page(small, file_of(small))
    assert not re.search(r'(src|href)="(?!data:)', text)
    assert "fire2/expand3x3" in text
    assert text == photo_page(small, file_of(small))
    names = re.findall(
        r"^(?:async )?(?:const|let|function|class) (\w+)", module("photo_page.js"), re.M
    )
    assert len(names) == len(set(names)), "two modules define one name"
    assert "<b>j</b>" not in unescape(text)  # a class's name is packed, not written into the page


def test_weights_too_large_are_rounded_and_it_is_said(small, monkeypatch):
    monkeypatch.setattr("tinysqueeze.show.page.photo.ROOM", 8000)
    said = []
    rounded, file = small_file(small, small, say=said.append)
    assert 7000 < len(file) <= 8000
    assert "without loss" in said[0]
    assert re.fullmatch(r"rounded for .* bits a weight, without photographs", rounded.notes[-1])
    again = fileformat.from_bytes(file).params()
    assert all(np.array_equal(again[path], array) for path, array in rounded.flat.items())


def test_what_no_page_can_show_is_refused(rng):
    grey = Model("grey", (("a", Conv2D(4, 3)), ("b", GlobalAvgPool2D())), (8, 8, 1), {})
    chances = Model(
        "soft", (("a", Conv2D(4, 3)), ("b", GlobalAvgPool2D()), ("c", Softmax())), (8, 8, 3), {}
    )
    for model, why in (
        (grey, "photographs have three channels"),
        (chances, "c: a Softmax cannot be"),
    ):
        weights = weights_of(model, rng, Preprocess(8, (8, 8)))
        with pytest.raises(UserError, match=why):
            photo_page(weights, file_of(weights))
    weights = weights_of(SMALL, rng, TORCHVISION.with_size(64))
    tensors = {path: exactly(array) for path, array in weights.flat.items()}
    path, array = next((p, a) for p, a in weights.flat.items() if a.ndim == 4)
    book = np.arange(1, 5001, dtype=np.float32)
    tensors[path] = Shared(np.zeros(array.shape, np.int32), book)
    with pytest.raises(UserError, match="5,000 values in the"):
        photo_page(weights, to_bytes(Compressed(SMALL, tensors, {})))


def test_the_command_chooses_the_page_by_the_images_size(tmp_path, capsys, small):
    fileformat.write(
        tmp_path / "photo.tsq",
        Compressed(
            SMALL,
            {p: exactly(a) for p, a in small.flat.items()},
            {"preprocess": small.preprocess.to_json()},
        ),
    )
    source, out = str(tmp_path / "photo.tsq"), tmp_path / "page.html"
    assert main(["page", source, "-o", str(out)]) == 0
    assert "on your photograph" in out.read_text(encoding="utf-8")
    assert main(["page", source, "-o", str(out), "--kind", "step"]) == 0
    assert "A training step" in out.read_text(encoding="utf-8")
    assert main(["page", "-o", str(out), "--kind", "photo"]) == 0
    assert "on your photograph" in out.read_text(encoding="utf-8")
    capsys.readouterr()
    assert main(["page", source, "-o", str(out), "--kind", "photo", "--labels", "1"]) == 1
    assert "--labels go with the page of a step" in capsys.readouterr().err


def test_the_module_is_what_its_source_compiles_to():
    pytest.importorskip("ziglang", reason="no compiler for WebAssembly: pip install '.[web]'")
    from tinysqueeze.devices.wasm.build import build

    built_with = "0.17.1"
    if metadata.version("ziglang") != built_with:
        pytest.skip(f"engine.wasm was compiled by ziglang {built_with}")
    assert build() == engine(), "python -m tinysqueeze.devices.wasm compiles it anew"


@pytest.mark.slow
@pytest.mark.browser
def test_two_hundred_photographs_get_pythons_answers(browser, opened, shared_data, tmp_path):
    """The authors' network, from the command's page: the same best class on each, in the page itself."""
    source = str(shared_data / "compressed_SqueezeNet.net")
    assert main(["page", source, "-o", str(tmp_path / "p.html")]) == 0
    text = (tmp_path / "p.html").read_text(encoding="utf-8")
    assert len(text) < 1_000_000
    weights = open_weights(source, download=False)
    ask = opened(text)
    other, off, took = [], [], []
    for path in sorted((shared_data / "imagenet200").glob("*.JPEG")):
        assert path.name in choose(browser, path)
        logits, _ = weights.model.forward(
            weights.params, weights.preprocess(open_image(path))[None]
        )
        found = np.array(ask("return [...photo.logits]"))
        off.append(np.abs(found - logits[0]).max())
        took.append(ask("return photo.took"))
        if found.argmax() != logits[0].argmax():
            other.append(path.name)
    print(
        f"\n{len(off)} photographs: scores differ by {np.median(off):.2g}, at most {max(off):.2g}; "
        f"{min(took):.0f} to {max(took):.0f} ms, median {np.median(took):.0f}; {len(text):,} bytes"
    )
    assert len(off) == 200
    assert other == []
