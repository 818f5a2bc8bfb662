"""The widgets: their pure functions headless, what stands below a cell, and life without the extra."""

import html
import json
import re
import sys
from itertools import product
from types import SimpleNamespace

import pytest

from tinysqueeze.errors import MissingExtra, UserError
from tinysqueeze.show import widgets
from tinysqueeze.show.page import module
from tinysqueeze.show.widgets import curve, numbers, panels
from tinysqueeze.show.widgets.bugs import compare
from tinysqueeze.show.widgets.numbers import one_against_three


@pytest.fixture(autouse=True)
def _made_up_timings(monkeypatch):
    """Measuring takes a while on a busy machine; one test measures."""
    found = dict.fromkeys(product(*numbers.TIMED.values()), numbers.Timing(2.0, 1.5, 3.25))
    monkeypatch.setattr(panels, "timings", lambda: found)


PANELS = [
    widgets.one_by_one,
    widgets.fire_designer,
    widgets.design_space,
    widgets.early_or_late,
    widgets.gradient_heat_map,
    widgets.window_places,
]


def test_one_against_three_counts():
    costs = one_against_three(channels=64, filters=128, share3x3=0.5, size=27)
    one, mix, three = costs.values()
    assert one.parameters == 64 * 128 + 128
    assert three.parameters == 9 * 64 * 128 + 128
    assert mix.parameters == 64 * 64 + 9 * 64 * 64 + 128
    assert three.multiply_adds == 9 * one.multiply_adds == 27 * 27 * 64 * 128 * 9
    assert one.activation_bytes == mix.activation_bytes == 27 * 27 * 128 * 4
    assert one.total("im2col_bytes") == 0 < three.total("im2col_bytes") == 27 * 27 * 64 * 9 * 4


@pytest.mark.parametrize("make", PANELS, ids=lambda make: make.__name__)
def test_a_panel_shows_text_and_a_picture_with_alt_text(make):
    text, picture = make().at()
    assert text
    assert len(picture.alt) > 20


@pytest.mark.parametrize("make", PANELS, ids=lambda make: make.__name__)
def test_below_a_cell_a_panel_is_live_and_its_words_stand_beside_it(make, monkeypatch):
    """In a frame that needs no kernel; where frames are taken out, the text is left."""
    monkeypatch.setitem(sys.modules, "anywidget", None)
    panel = make()
    data, about = panel._repr_mimebundle_()
    assert set(data) == {"image/png", "text/html", "text/plain"}
    assert len(data["text/html"]) < 150_000
    assert about["image/png"]["alt"]
    outside = re.sub("<iframe.*?</iframe>", "", data["text/html"], flags=re.DOTALL)
    assert html.escape(panel.tell(**panel.start)) in outside
    with pytest.raises(MissingExtra, match="notebook"):
        panel.widget()


@pytest.mark.parametrize("make", PANELS, ids=lambda make: make.__name__)
def test_as_a_widget_a_panel_holds_its_values_and_what_the_browser_needs(make):
    pytest.importorskip("anywidget")
    panel = make()
    widget = panel.widget()
    assert widget.values == panel.start
    assert [c["name"] for c in widget.panel["controls"]] == list(panel.controls)
    assert json.loads(json.dumps(widget.panel["data"])).keys() == panel.data.keys()
    assert widget._esm == module("slider_widget.js")
    assert widget._anywidget_id == "tinysqueeze.show.page.notebook.slider_widget"  # its sheet's own
    data, _ = widget._repr_mimebundle_()
    assert widget.model_id in str(data["application/vnd.jupyter.widget-view+json"])
    assert data["text/html"].startswith("<img alt=")
    assert data["text/plain"] == panel.tell(**panel.start)


def test_a_time_is_a_median_with_its_quartiles(monkeypatch):
    few = {"channels": (8,), "filters": (4, 8), "size": (7,), "percent3x3": (0, 50, 100)}
    monkeypatch.setattr(numbers, "TIMED", few)
    found = numbers.timings.__wrapped__()
    assert set(found) == set(product(*few.values()))
    assert all(0 < t.low <= t.median <= t.high for t in found.values())


def test_the_fire_designer_enforces_strategy_2():
    text, _ = widgets.fire_designer().at(squeeze=128, expand1x1=64, expand3x3=64)
    assert "REFUSED" in text
    assert "Strategy 2" in text
    text, _ = widgets.fire_designer().at(squeeze=127, expand1x1=64, expand3x3=64)
    assert "Strategy 2 holds" in text


def test_the_design_space_knows_the_published_counts():
    panel = widgets.design_space()
    assert "1,248,424 parameters" in panel.at()[0]
    assert "243.9 MB, 48.8 times" in panel.at()[0]
    assert "1,589,672 parameters" in panel.at(bypass="complex")[0]


def test_moving_the_pools_leaves_the_parameters_alone():
    text, _ = widgets.early_or_late().at(first=1, second=2, third=3)
    assert "unchanged" in text
    assert "833 million" not in text


def test_a_windows_places_are_counted_and_drawn():
    text, picture = widgets.window_places().at(size=8, kernel=3, stride=2, pad=0)
    assert "8 + 0 − 3 = 5" in text
    assert "5 / stride 2 = 2.5, rounded down 2, plus 1: 3 places" in text
    assert "3 places; pixels that it never sees: 1" in picture.alt
    _, skipping = widgets.window_places().at(size=7, kernel=1, stride=3)
    assert "pixels that it never sees: 4" in skipping.alt
    with pytest.raises(UserError, match="at least 7x7 pixels, got 3x3"):
        widgets.window_places().at(size=3, kernel=7)


def test_an_unknown_control_is_named():
    with pytest.raises(UserError, match=r"'filter'.*channels, filters"):
        widgets.one_by_one().at(filter=3)


@pytest.mark.parametrize("bug", widgets.BUGS)
def test_each_planted_bug_is_caught_and_only_bugs_are(bug):
    wrong = [name for name, found in compare(bug).items() if found.error > 1e-6]
    assert len(wrong) == (bug != "no bug")


def test_the_live_curve_passes_rows_on():
    rows = [
        {"epoch": i, "train_loss": 2.3 / i, "test_loss": 2.3, "train_accuracy": 0.1} for i in (1, 2)
    ]
    assert list(widgets.live_curve(rows)) == rows


def test_the_live_curve_redraws_one_picture(monkeypatch):
    drawn = []
    handle = SimpleNamespace(update=drawn.append)
    monkeypatch.setattr(curve, "_display", lambda picture: drawn.append(picture) or handle)
    rows = [{"epoch": i, "train_loss": 2.3 / i, "train_accuracy": 0.1} for i in (1, 2, 3)]
    assert list(widgets.live_curve(rows)) == rows
    assert len(drawn) == 3
    assert len({picture.alt for picture in drawn}) == 3
