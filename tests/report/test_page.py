"""What all pages share: no other file, no script, the page's own colours."""

import base64
import io
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from browser import needs_browser, opened
from lookonce.report import page
from lookonce.report.page import PALETTE, data_uri, styled_figure, to_svg, write_page


def test_a_figure_takes_the_pages_colours():
    with styled_figure(3, 2) as figure:
        figure.subplots().plot([0, 1], color=page.ACCENT)
        svg = to_svg(figure)
    ElementTree.fromstring(svg)
    assert "var(--accent)" in svg
    assert "var(--ink)" in svg
    assert not set(re.findall(r"#[0-9a-f]{6}", svg)) & {light for light, _ in PALETTE.values()}


def test_an_image_is_within_the_page():
    kind, _, content = data_uri(Image.new("RGB", (6, 4), (200, 0, 0))).partition(",")
    assert kind == "data:image/jpeg;base64"
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(content))))
    assert shown.shape == (4, 6, 3)
    assert abs(shown[..., 0].astype(int) - 200).max() < 9


@pytest.mark.parametrize("template", ["run_page.html", "data_page.html"])
def test_every_page_stands_on_the_common_one(template):
    text = page.__file__.replace("page.py", template)
    with open(text, encoding="utf-8") as file:
        assert file.readline() == '{% extends "page.html" %}\n'


def test_text_cannot_break_a_page(tmp_path):
    class Run:
        name = "<script>alert(1)</script>"

    class Page:
        run, advice, facts, sizes = Run, ("<b>",), (), ()

    text = write_page(
        tmp_path / "p.html", "run_page.html", page=Page, metrics=None, curves="", galleries=()
    ).read_text()
    assert "<script" not in text
    assert "<b>" not in text
    assert "&lt;script&gt;" in text


@needs_browser
def test_the_browser_would_tell_of_a_page_that_asks_for_more(tmp_path):
    (tmp_path / "p.html").write_text(
        '<p>Hi</p><img src="http://images.invalid/a.png"><script>console.error(7)</script>'
    )
    text, errors, requests = opened(tmp_path / "p.html", tmp_path)
    assert "Hi" in text
    assert len(errors) == 1
    assert requests
