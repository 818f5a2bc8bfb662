"""The pictures: right numbers behind them, alternative text on each, in small files."""

import io
import re

import matplotlib
import numpy as np
import pytest
from PIL import Image

from tinysqueeze.errors import ShapeError
from tinysqueeze.network.models import Fire, squeezenet1_0, squeezenet1_1, squeezenet_cifar
from tinysqueeze.network.others import alexnet, vgg16
from tinysqueeze.network.window import Window
from tinysqueeze.show import pictures
from tinysqueeze.show.pictures.ground import LUMA, for_dark, on_white, see_through
from tinysqueeze.show.pictures.style import STYLE
from tinysqueeze.study.count import count

RNG = np.random.default_rng(0)
X = RNG.integers(0, 5, (5, 6))
DEEP = RNG.integers(0, 5, (4, 4, 3))

STILLS = {
    "fire": lambda: pictures.fire_diagram(Fire(16, 64, 64), (55, 55, 96)),
    "fire without 1x1": lambda: pictures.fire_diagram(Fire(4, 0, 8), (7, 7, 3)),
    "v1.0": lambda: pictures.network_diagram(squeezenet1_0(input_size=227)),
    "v1.1 complex": lambda: pictures.network_diagram(squeezenet1_1(bypass="complex")),
    "cifar": lambda: pictures.network_diagram(squeezenet_cifar(norm=True)),
    "alexnet": lambda: pictures.network_diagram(alexnet()),
    "beside": lambda: pictures.networks_beside([vgg16(), squeezenet1_0()]),
    "places": lambda: pictures.places_along(8, Window.of(3, 2, 1)),
    "bars": lambda: pictures.parameter_bars([vgg16(), alexnet(), squeezenet1_0()]),
    "layer bars": lambda: pictures.layer_bars(count(squeezenet1_0())),
    "sides": lambda: pictures.map_sides({"VGG": vgg16(), "SqueezeNet": squeezenet1_0()}),
    "series": lambda: pictures.series([1, 2], {"a": [1, 2]}, "title", "x", "y"),
    "split": lambda: pictures.split_bars({"m": {"a": 1.0, "b": 2.0}}, "", "title"),
    "heat": lambda: pictures.heat_maps({"a": np.eye(3), "b": np.arange(4.0)}, "title"),
    "maps": lambda: pictures.feature_maps({"image": np.ones((4, 4, 3)), "y": -np.ones((4, 4, 30))}),
    "overlap": lambda: pictures.overlap_counts(6, 6, {"3×3": Window.of(3)}),
    "patch": lambda: pictures.patch_to_row(DEEP, Window.of(3, pad=1), row=3),
}
MOVIES = {
    "sliding": lambda: pictures.sliding_window(X, np.array([[1, 0, -1]] * 3), stride=2, pad=1),
    "channels": lambda: pictures.through_channels(DEEP, np.array([1, -1, 2])),
    "patches": lambda: pictures.patch_to_row(DEEP, Window.of(3)),
}


@pytest.mark.parametrize("draw", STILLS.values(), ids=STILLS)
def test_a_picture_has_alt_text_and_is_small(draw):
    picture = draw()
    data, about = picture._repr_mimebundle_()
    assert len(picture.alt) > 15
    assert about["image/png"]["alt"] == picture.alt
    assert picture.alt in data["text/plain"]
    assert len(data["image/png"]) < 80_000


@pytest.mark.parametrize("make", MOVIES.values(), ids=MOVIES)
def test_a_movie_is_a_small_gif_with_every_frame(make, tmp_path):
    movie = make()
    movie.save(tmp_path / "movie.gif", dpi=40)
    with Image.open(tmp_path / "movie.gif") as gif:
        assert gif.n_frames == movie.frames
    data, about = movie._repr_mimebundle_()
    assert len(data["image/gif"]) < 120_000
    assert about["image/gif"]["alt"] == movie.alt


def test_a_movie_plays_in_a_browser():
    html = pictures.sliding_window(X, np.ones((3, 3))).to_jshtml(dpi=30)
    assert html.count("data:image/png") == 12
    assert "<script" in html


@pytest.mark.parametrize("ends", [(0, 0, 0), (1, 0.999, 0.5), (0.2, 0.9, 0.21)])
def test_lines_that_end_alike_keep_names_apart(ends):
    picture = pictures.series(
        [0, 1], {f"to {i}": [1, y] for i, y in enumerate(ends)}, "t", "x", "y"
    )
    picture.png(60)  # draws it
    boxes = [text.get_window_extent() for text in picture.axes[0].texts]
    assert len(boxes) == 3
    for i, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:i])


def test_the_fire_diagram_states_its_real_shapes():
    alt = pictures.fire_diagram(Fire(16, 64, 64), (55, 55, 96)).alt
    for part in ("55×55×96", "55×55×16", "55×55×128", "11,920 parameters"):
        assert part in alt


def test_the_network_diagram_states_every_shape_of_the_paper():
    alt = pictures.network_diagram(squeezenet1_0(input_size=227)).alt
    for part in ("conv1 111×111×96", "fire2 55×55×128", "fire8 27×27×512", "conv10 13×13×1000"):
        assert part in alt
    assert "1,248,424" in alt


def test_overlaps_count_the_windows_that_see_each_pixel():
    assert pictures.overlaps(3, 3, Window.of(2)).tolist() == [[1, 2, 1], [2, 4, 2], [1, 2, 1]]


def test_the_sliding_window_shows_what_the_library_computes():
    movie = pictures.sliding_window(np.arange(9).reshape(3, 3), np.array([[1, 0], [0, -1]]))
    texts = [text.get_text() for text in movie.frame(-1).axes[0].texts]
    assert "4·1 + 5·0 + 7·0 + 8·(−1) = −4" in texts


def test_a_row_that_is_not_there_is_refused():
    with pytest.raises(ShapeError, match="row must be from 0 to 3"):
        pictures.patch_to_row(DEEP, Window.of(3), row=4)


def test_pictures_leave_the_users_style_alone(tmp_path):
    before = dict(matplotlib.rcParams)
    picture = pictures.fire_diagram(Fire(16, 64, 64))
    picture.save(tmp_path / "fire.png")
    picture.save(tmp_path / "fire.svg")
    assert dict(matplotlib.rcParams) == before
    with Image.open(tmp_path / "fire.png") as image:
        assert image.text["Description"] == picture.alt


def test_the_palette_is_told_apart_by_colour_blind_eyes():
    """Simulated deuteranopia (Viénot et al. 1999): all pairs used together stay far apart."""
    from tinysqueeze.show.pictures import style

    used = [style.CONV, style.SQUEEZE, style.EXPAND1, style.EXPAND3]
    mix = np.array([[0.29275, 0.70725, 0.0], [0.29275, 0.70725, 0.0], [-0.02234, 0.02234, 1.0]])
    seen = [mix @ np.array(matplotlib.colors.to_rgb(colour)) ** 2.2 for colour in used]
    for i, one in enumerate(seen):
        for other in seen[:i]:
            assert (
                np.abs(np.clip(one, 0, 1) ** (1 / 2.2) - np.clip(other, 0, 1) ** (1 / 2.2)).max()
                > 0.15
            )


# ------------------------------------------------------------------------ on light and dark pages


def test_on_white_a_picture_is_what_it_is_on_paper_and_elsewhere_the_page_shines_through():
    picture, same = (pictures.series([1, 2], {"a": [1, 2]}, "title", "x", "y") for _ in range(2))
    clear = see_through(picture, 90)
    assert clear.getpixel((clear.width - 1, 0))[3] == 0
    buffer = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        same.set_dpi(90)
        same.savefig(buffer, format="png", dpi=90)
    paper = np.asarray(Image.open(buffer).convert("RGB")).astype(int)
    assert np.abs(np.asarray(on_white(clear)) - paper).max() <= 2


def test_dark_words_have_a_light_rim_that_only_a_dark_page_shows():
    picture = pictures.Picture(2, 1, "a word")
    picture.text(0.1, 0.4, "word", color="#2b2b33", fontsize=20)
    picture.add_artist(matplotlib.patches.Rectangle((0.8, 0.1), 0.1, 0.8, color="#2b2b33"))
    pixels = np.asarray(see_through(picture, 90))
    bright = (pixels[:, :, 3] > 250) & (pixels[:, :, :3].min(axis=2) > 250)
    assert bright[:, :120].sum() > 300  # around the word
    assert not bright[:, 140:].any()  # the bar is no word


def dark_pixels(image: Image.Image) -> int:
    pixels = np.asarray(image).astype(float)
    return int(((pixels[:, :, :3] @ LUMA < 60) & (pixels[:, :, 3] > 200)).sum())


@pytest.mark.parametrize("name", ["fire", "v1.0", "cifar", "bars"])
def test_for_a_dark_page_words_are_light_and_on_the_next_they_are_dark_again(name):
    picture = STILLS[name]()
    assert dark_pixels(for_dark(picture, 90)) == 0
    assert dark_pixels(see_through(picture, 90)) > 100


def test_for_a_dark_page_words_on_a_colour_of_the_picture_stay_dark():
    picture = STILLS["places"]()
    assert dark_pixels(for_dark(picture, 90)) == dark_pixels(see_through(picture, 90)) > 0


def test_as_html_a_picture_is_one_of_two():
    text = STILLS["fire"]().html(30)
    assert re.match('<picture><source media="\\(prefers-color-scheme: dark\\)" srcset="data:', text)
    assert len(set(re.findall('base64,([^"]+)', text))) == 2
    assert text.count("alt=") == 1


def test_a_film_has_no_paper_either():
    film = Image.open(io.BytesIO(pictures.sliding_window(X, np.ones((3, 3))).gif(40)))
    for frame in range(film.n_frames):
        film.seek(frame)
        corners = np.asarray(film.convert("RGBA"))[[0, -1]][:, [0, -1], 3]
        assert (corners == 0).all()
