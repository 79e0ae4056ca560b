"""Tests of lookonce.report.explain_page."""

import json
import re

import numpy as np
import pytest

from browser import allow, needs_browser, opened
from lookonce import explain
from lookonce.data.read import read_dataset
from lookonce.inference.detector import Detector
from lookonce.model.model_file import Model, save_model
from lookonce.model.network import Network
from lookonce.model.sizes import heads_of
from lookonce.report.explain_boxes import candidates, predictions_of
from lookonce.report.explain_encoding import first_example
from lookonce.training.step import LossOptions, loss
from sets import two_heads


@pytest.fixture(scope="module")
def page(run, squares, tmp_path_factory):
    return explain(squares, run, split="val", out=tmp_path_factory.mktemp("page") / "e.html").page


@pytest.fixture(scope="module")
def found(run, squares):
    """(raw map, candidates, example) of the image that the page follows."""
    detector = Detector(run, "torch", precision="fp32")
    shown = first_example(read_dataset(squares, "val"), (96, 96), detector.about.resize)
    raws, predictions = predictions_of(detector, shown)
    return raws, candidates(predictions), shown


def test_the_page_needs_no_other_file_and_has_no_script_but_the_common_one(page):
    text = page.read_text(encoding="utf-8")
    assert text.count("<script") == 1
    assert not re.search(r"""(?:src|href|action)=["'](?!data:|#)""", text)


def test_the_terms_are_those_of_the_runs_loss(page, run, found):
    raws, _, shown = found
    heads = heads_of(Detector(run, "torch").about.layers)
    terms = loss(raws, heads, shown.objects, LossOptions("region_ciou"))
    text = page.read_text(encoding="utf-8")
    for name, value in terms.items():
        if name != "recall":
            assert f"<td>{name}</td><td>{float(value):.4f}</td>" in text


def test_the_candidates_on_the_page_are_those_of_the_model(page, found):
    listed = re.search('data-candidates="(.*?)"', page.read_text(encoding="utf-8"))[1]
    rows = np.array(json.loads(listed))
    np.testing.assert_allclose(rows[:, :4], found[1].boxes, atol=0.006)
    np.testing.assert_allclose(rows[:, 4], found[1].scores, atol=1e-5)


def test_of_two_heads_the_first_is_drawn_and_the_page_says_so(squares, tmp_path):
    network = Network(two_heads(2, ((1.0, 1.0),), ((1.0, 1.0), (2.0, 2.0))))
    save_model(Model(network, ("blue", "red"), (96, 96)), tmp_path / "m.safetensors")
    found = explain(squares, tmp_path / "m.safetensors", out=tmp_path / "e.html")
    text = found.page.read_text(encoding="utf-8")
    assert "with 2 heads. Anchors, targets and loss below are those of the head with cells of 32 px" in text
    assert f"<span>{3 * 3 + 2 * 6 * 6} predictors</span>" in text


@needs_browser
def test_the_sliders_keep_what_detection_keeps(page, found, tmp_path):
    threshold, limit = 0.02, 0.2
    text, errors, requests = opened(page, tmp_path, f"#score={threshold}&iou={limit}")
    assert errors == requests == []
    kept = found[1].kept(threshold, limit)
    assert f'class="above">{(found[1].scores > threshold).sum()}<' in text
    assert f'class="kept">{len(kept)}<' in text
    after = text[text.index('class="after"') :]
    assert len(re.findall('class="candidate"', after)) == len(kept)
    assert len(re.findall('class="candidate off"', after)) == len(found[1].scores) - len(kept)


@needs_browser
def test_moving_a_slider_changes_what_is_kept(page, found, tmp_path):
    move = 'const s = document.querySelector(".score-slider"); s.value = 99; s.dispatchEvent(new Event("input"));'
    allow(tmp_path / "moved.html", page.read_text(encoding="utf-8"), move)
    text, errors, _ = opened(tmp_path / "moved.html", tmp_path)
    assert errors == []
    assert 'class="score-at">0.99<' in text
    assert f'class="kept">{len(found[1].kept(0.99, 0.45))}<' in text
