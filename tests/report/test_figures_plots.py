"""Mirrors src/lookonce/view/plots.py."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from lookonce.errors import UserError
from lookonce.inference.draw import lettering
from lookonce.model.anchors import cluster, measure
from lookonce.report.figures import SHOWN, Bar, anchors_figure, channels_figure, rates_figure, save_figure


@pytest.fixture(scope="module")
def figure():
    wh = np.exp(np.random.default_rng(0).normal(1, 0.5, (SHOWN + 500, 2)))
    curve = [measure(wh, cluster(wh, k, restarts=2)[0]) for k in (1, 2, 3)]
    return anchors_figure(wh, curve, curve[1], measure(wh, np.ones((4, 2))), "given (4)")


def test_the_curve_and_the_given_anchors_are_drawn_with_their_numbers(figure):
    left, _ = figure.axes
    lines = {line.get_label(): line for line in left.lines}
    assert lines["mean best IoU"].get_xdata().tolist() == [1, 2, 3]
    assert lines["mean best IoU"].get_ydata().tolist() == sorted(lines["mean best IoU"].get_ydata())
    assert sum(label.startswith("given (4): ") for label in lines) == 2


def test_chosen_anchors_are_numbered_and_the_cloud_is_bounded(figure):
    _, right = figure.axes
    assert [text.get_text() for text in right.texts] == ["1", "2"]
    assert len(right.patches) == 2
    assert len(right.collections[0].get_offsets()) == SHOWN


def test_a_saved_figure_is_an_image_and_matplotlib_keeps_no_state(figure, tmp_path):
    save_figure(figure, tmp_path / "deep" / "anchors.png")
    with Image.open(tmp_path / "deep" / "anchors.png") as image:
        assert image.format == "PNG"
        assert min(image.size) > 400
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["anchors.png"]
    import matplotlib.pyplot as plt

    assert plt.get_fignums() == []


def test_an_ending_that_is_no_format_is_refused_and_nothing_is_left(figure, tmp_path):
    with pytest.raises(UserError, match=r"anchors\.doc: ending 'doc'; expected one of .*png"):
        save_figure(figure, tmp_path / "anchors.doc")
    assert list(tmp_path.iterdir()) == []


def test_rates_are_bars_from_top_to_bottom_with_their_numbers(tmp_path):
    panels = {
        "one, batch 1": [Bar("a", 12.34, "  2.00 x", True), Bar("b", 6.17, "", False)],
        "two": [Bar("c", 1, "", 1)],
    }
    figure = rates_figure(panels, "a processor")
    first, second = figure.axes
    assert [bar.get_width() for bar in first.patches] == [12.34, 6.17]
    assert [label.get_text() for label in first.get_yticklabels()] == ["a", "b"]
    assert [text.get_text() for text in first.texts] == ["12.3  2.00 x", "6.2"]
    assert first.get_ylim()[0] > first.get_ylim()[1]  # the first row stands on top
    assert first.patches[0].get_facecolor() != first.patches[1].get_facecolor()
    assert (first.get_title(loc="left"), second.get_title(loc="left")) == ("one, batch 1", "two")
    save_figure(figure, tmp_path / "speed.png")
    with Image.open(tmp_path / "speed.png") as image:
        assert image.width == 1100


def test_channels_are_full_bars_in_hollow_ones():
    (axes,) = channels_figure([(0, 16, 8), (4, 64, 64)], "what it cost").axes
    hollow, full = axes.patches[::2], axes.patches[1::2]
    assert [bar.get_width() for bar in hollow] == [16, 64]
    assert [bar.get_width() for bar in full] == [8, 64]
    assert hollow[0].get_facecolor() != full[0].get_facecolor()
    assert [text.get_text() for text in axes.texts] == ["8 of 16", "64 of 64"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["layer 0", "layer 4"]
    assert axes.get_ylim()[0] > axes.get_ylim()[1]
    assert axes.get_title(loc="left") == "what it cost"


@pytest.mark.parametrize(
    "name", ["$a$", "$", "$\\frac$", "a_b^c", "\\frac", "<b>", "&amp;", "кот", "\u732b", "a\nb\x1b[1m"]
)
def test_names_are_never_read_as_formulas(name, tmp_path):
    figure = rates_figure({name: [Bar(name, 3.0, "", ours=True)]}, name)
    save_figure(figure, tmp_path / "p.png")
    [axes] = figure.axes
    texts = [figure.get_suptitle(), axes.get_title(loc="left"), axes.get_yticklabels()[0].get_text()]
    assert set(texts) == {lettering(name, own=True)[0]}
    assert not axes.get_yticklabels()[0].get_parse_math()
    save_figure(channels_figure([(0, 4, 2)], name), tmp_path / "c.png")
