"""Tests of lookonce.report.explain_drawings."""

import base64
import io
import re

import numpy as np
import pytest
import torch
from PIL import Image

from lookonce.data.read import read_dataset
from lookonce.model.layers import PlacedHead, Region
from lookonce.report.explain_boxes import Candidates
from lookonce.report.explain_drawings import (
    Drawing,
    Subject,
    boxes_drawing,
    encoding_section,
    grid_drawing,
    heat_maps,
    mask_drawing,
    targets_table,
    terms_drawing,
)
from lookonce.report.explain_encoding import first_example
from lookonce.report.explain_loss import BACKGROUND, IGNORED, OBJECT


@pytest.fixture(scope="module")
def subject(squares):
    return Subject(
        first_example(read_dataset(squares), (96, 64), "letterbox"), PlacedHead(Region(((1.0, 1.0),), 2), 32)
    )


def overlays(drawing):
    """Pixels of the maps of a drawing, RGBA."""
    found = re.findall('data:image/png;base64,([^"]*)"', drawing.html)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(one)))) for one in found]


def test_the_grid_marks_the_cell_of_each_object(subject):
    html = grid_drawing(subject).html
    cells = re.findall('<rect x="([^"]*)" y="([^"]*)" width="32.0" height="32.0" class="cell"', html)
    assert [(float(x), float(y)) for x, y in cells] == [(32 * t.col, 32 * t.row) for t in subject.targets]
    assert len(re.findall(r'd="M\d+ 0V64"', html)) == 2  # lines between three columns
    assert len(re.findall(r'd="M0 \d+H96"', html)) == 1
    assert html in encoding_section(subject).html


def test_a_map_is_transparent_at_zero_and_opaque_at_its_largest_value(subject):
    values = torch.tensor([[[0.0, 1, 2], [4, 0, 0]], [[0, 1, 0], [4, 0, 0]]])
    (pixels,) = overlays(heat_maps(subject, {"xy": values}))
    assert pixels[..., 3].tolist() == [[0, 64, 64], [255, 0, 0]]
    assert overlays(heat_maps(subject, {"none": 0 * values}))[0][..., 3].max() == 0


def test_a_mask_has_a_colour_for_each_role_and_marks_for_all_but_background(subject):
    roles = torch.tensor([[[OBJECT, IGNORED, BACKGROUND], [BACKGROUND, IGNORED, IGNORED]]])
    drawing = mask_drawing(subject, roles)
    (pixels,) = overlays(drawing)
    assert len({tuple(one) for one in pixels.reshape(-1, 4).tolist()}) == 3
    assert [drawing.html.count(f">{mark}</text>") for mark in "●×"] == [1, 3]


def test_boxes_that_are_not_kept_are_hidden(subject):
    found = Candidates(np.array([[0, 0, 9, 9], [1, 1, 9, 9.0]]), np.array([0.9, 0.8]), np.array([0, 1]), 6, 0)
    html = boxes_drawing(subject, found, [1]).html
    assert re.findall('class="(candidate[^"]*)"', html) == ["candidate", "candidate off"]  # the best one last
    assert boxes_drawing(subject, found).html.count('class="candidate"') == 2
    tagged = boxes_drawing(subject, found, tags=True).html
    assert re.findall("([a-z]+ [.0-9]+)</text>", tagged) == ["red .80", "blue .90"]


def test_a_notebook_gets_the_colours_and_names_are_text(subject):
    assert "--accent:light-dark(" in terms_drawing({"xy": 1.0, "total": 4.0})._repr_html_()
    assert "25 %" in terms_drawing({"xy": 1.0, "total": 4.0}).html
    row = subject.targets[0]._replace(name="<b>")
    assert "&lt;b&gt;" in targets_table(type("Evil", (), {"targets": [row]})).html
    assert Drawing("<p>").html == "<p>"
