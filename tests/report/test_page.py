"""What all pages share: no other file, one script and no other, colours that can be read, links to the sections."""

import base64
import hashlib
import io
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from browser import allow, needs_browser, opened
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


def written(path, body, **values):
    """The page with this text as its body."""
    template = '{% extends "page.html" %}{% block body %}<!-- contents -->' + body + "{% endblock %}"
    return write_page(path, page._environment().from_string(template), **values).read_text(encoding="utf-8")


def test_text_cannot_break_a_page(tmp_path):
    evil = "<script>alert(1)</script><h2>"
    text = written(tmp_path / "p.html", "<p>{{ name|sentence|options }}</p>", name=evil)
    assert text.count("<script") == 1
    assert "<p>&lt;script&gt;alert(1)&lt;/script&gt;&lt;h2&gt;.</p>" in text


def test_a_page_may_run_its_own_script_and_request_nothing(tmp_path):
    text = written(tmp_path / "p.html", "")
    [script] = re.findall("<script>(.*?)</script>", text, re.DOTALL)
    [policy] = re.findall(r'Content-Security-Policy" content="([^"]*)"', text)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy == (f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'")


def test_sections_are_linked_below_the_title(tmp_path):
    text = written(tmp_path / "p.html", "<h2>False positives</h2><h2>Box &amp; size</h2>")
    assert '<a href="#false-positives">False positives</a><a href="#box-size">Box &amp; size</a></nav>' in text
    assert '<h2 id="false-positives">False positives</h2><h2 id="box-size">Box &amp; size</h2>' in text
    assert "<nav" not in written(tmp_path / "p.html", "<h2>One</h2>")


def test_options_are_not_broken_at_their_hyphens(tmp_path):
    text = written(
        tmp_path / "p.html",
        "{{ said|options }}",
        said="a larger --size or --anchors 7, not semi--colons; --tile 64x48, --overlap 0.3.",
    )
    code = '<code class="nowrap">'
    assert f"{code}--tile 64x48</code>, {code}--overlap 0.3</code>." in text
    assert f"larger {code}--size</code> or {code}--anchors 7</code>, not semi--colons" in text


def luminance(colour):
    """Source: WCAG 2.2, relative luminance. colour: #rrggbb."""
    parts = (int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5))
    red, green, blue = (v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one, other):
    """Source: WCAG 2.2, contrast ratio."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def mixed(one, other, part):
    """What color-mix(in srgb, one part, other) gives, as #rrggbb."""
    values = ((int(one[k : k + 2], 16), int(other[k : k + 2], 16)) for k in (1, 3, 5))
    return "#" + "".join(f"{round(part * a + (1 - part) * b):02x}" for a, b in values)


def test_the_contrast_of_black_and_white_is_21():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)  # W3C's own example of a near miss


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize("ground", ["card", "paper"])
def test_every_colour_of_text_and_lines_can_be_seen(ground, theme):
    """AA: 4.5 for text, 3 for graphics."""
    for name, pair in PALETTE.items():
        if name not in ("card", "paper"):
            least = 4.5 if name in ("ink", "muted", "accent", "warm", "green") else 3.0
            assert contrast(pair[theme], PALETTE[ground][theme]) >= least, name


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
@pytest.mark.parametrize("tint", ["accent", "warm"])
def test_text_on_the_fullest_cell_of_the_confusion_matrix_can_be_read(tint, theme):
    ground = mixed(PALETTE[tint][theme], PALETTE["paper"][theme], 0.45)  # evaluation_page._cells
    assert contrast(PALETTE["ink"][theme], ground) >= 4.5


@needs_browser
def test_a_click_on_a_heading_sorts_numbers_as_numbers(tmp_path):
    rows = "".join(f"<tr><td>{name}</td><td>{n}</td></tr>" for name, n in (("b", "9"), ("a", "1,000"), ("c", "-")))
    table = f"<table class=sortable><thead><tr><th>name</th><th>n</th></tr></thead><tbody>{rows}</tbody></table>"
    text = written(tmp_path / "p.html", table)
    clicks = "document.querySelectorAll('th button')[1].click();"
    allow(tmp_path / "p.html", text, clicks)
    shown, errors, _ = opened(tmp_path / "p.html", tmp_path)
    assert re.findall("<tr><td>(.)</td>", shown) == ["a", "b", "c"]
    assert 'aria-sort="descending"' in shown
    assert errors == []


@needs_browser
def test_the_browser_would_tell_of_a_page_that_asks_for_more(tmp_path):
    (tmp_path / "p.html").write_text(
        '<p>Hi</p><img src="http://images.invalid/a.png"><script>console.error(7)</script>'
    )
    text, errors, requests = opened(tmp_path / "p.html", tmp_path)
    assert "Hi" in text
    assert len(errors) == 1
    assert requests
