"""Images with their boxes over them: where the boxes lie, what they are, and what is left out."""

import base64
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lookonce.data.dataset import Record, pack
from lookonce.evaluation.average_precision import Rules
from lookonce.evaluation.evaluate import analyse
from lookonce.model.detections import Detections
from lookonce.report.overlay import MOST_BOXES, PART_PIXELS, SIDE, WHOLE_PIXELS, Overlay, hex_colour, window


def scene(folder, found, size=(1280, 640)):
    """An overlay of an image with a cat, a difficult dog and a missed dog, at .5. found: (box, score, label)."""
    Image.new("RGB", size, (90, 90, 90)).save(folder / "a.png")
    boxes = np.array([[100, 100, 300, 300], [600, 100, 800, 300], [900, 400, 1000, 500]], np.float32)
    record = Record(folder / "a.png", size, boxes, np.array([0, 1, 1]), np.array([False, True, False]))
    dataset = pack("scene", folder, ("cat", "dog"), [record])
    boxes, scores, labels = zip(*found, strict=True) if found else ((), (), ())
    seen = [Detections(boxes, scores, labels, ("cat", "dog"))]
    return Overlay(dataset, analyse(dataset, seen, Rules(), bootstrap=0), 0.5)


CAT = ([100, 100, 300, 300], 0.9, 0)
WRONG = ([600, 500, 700, 600], 0.8, 1)
LOW = ([0, 0, 50, 50], 0.2, 0)


def stored(view):
    """The image in the page."""
    return Image.open(io.BytesIO(base64.b64decode(view.uri.partition(",")[2])))


def test_each_box_says_what_it_is(tmp_path):
    view = scene(tmp_path, [CAT, WRONG, LOW]).whole(0, "all of it")
    said = [(b.result, b.name, round(b.score, 2), b.shown) for b in view.boxes]
    assert said == [("truth", "cat", 0.9, True), ("truth", "dog", 2.0, True), ("truth", "dog", -1.0, False),
                    ("fp", "cat", 0.2, False), ("fp", "dog", 0.8, True), ("tp", "cat", 0.9, True)]  # fmt: skip
    assert "ignored" in view.boxes[1].meaning
    assert view.boxes[4].meaning == "false positive (background): dog 0.80"
    assert view.caption == "all of it"
    assert view.few


def test_boxes_shrink_with_a_large_image_and_a_class_has_one_colour(tmp_path):
    view = scene(tmp_path, [CAT]).whole(0, "")
    assert view.size == (SIDE, SIDE / 2)
    assert stored(view).size == (WHOLE_PIXELS, WHOLE_PIXELS // 2)
    assert view.boxes[0].xywh == pytest.approx((50, 50, 100, 100))
    assert {b.colour for b in view.boxes if b.name == "cat"} == {hex_colour("cat", ("cat", "dog"))}
    assert hex_colour("cat", ("cat", "dog")) != hex_colour("dog", ("cat", "dog"))


def test_a_part_shows_what_lies_in_it_around_the_box_in_question(tmp_path):
    view = scene(tmp_path, [CAT, WRONG]).part(0, np.array(CAT[0]), "cat", label="cat", kind="")
    assert max(view.size) == SIDE
    assert max(stored(view).size) == PART_PIXELS
    left, top, right, _ = window(np.array(CAT[0]), (1280, 640))
    scale = SIDE / (right - left)
    assert view.focus == pytest.approx(((100 - left) * scale, (100 - top) * scale, 200 * scale, 200 * scale))
    assert [b.result for b in view.boxes] == ["truth", "tp"]
    assert (view.label, view.kind) == ("cat", "")


def test_a_carpet_of_detections_is_cut_at_the_best(tmp_path):
    many = [([x, 0, x + 20, 20], 0.01 + x / 4000, 0) for x in range(0, 1200, 10)]
    view = scene(tmp_path, many).whole(0, "")
    seen = [b.score for b in view.boxes if b.result != "truth"]
    assert len(seen) == MOST_BOXES
    assert min(seen) == pytest.approx(sorted(score for _, score, _ in many)[-MOST_BOXES])


def test_an_image_that_does_not_open_has_no_view(tmp_path):
    overlay = scene(tmp_path, [CAT])
    Path(tmp_path / "a.png").write_text("text")
    assert overlay.whole(0, "") is None
    assert overlay.part(0, np.array(CAT[0]), "") is None


@pytest.mark.parametrize("seed", range(20))
def test_a_window_holds_its_box_and_stays_in_the_image(seed):
    draw = np.random.default_rng(seed)
    size = int(draw.integers(20, 500)), int(draw.integers(20, 500))
    corner = draw.uniform(0, np.array(size) - 2)
    box = np.concatenate((corner, corner + draw.uniform(1, np.array(size) - corner)))
    left, top, right, bottom = window(box, size)
    assert 0 <= left < right <= size[0]
    assert 0 <= top < bottom <= size[1]
    assert left <= box[0] + 1
    assert top <= box[1] + 1
    assert right >= box[2] - 1
    assert bottom >= box[3] - 1
    beyond = window(box + 1000, size)  # a detection may lie outside
    assert 0 <= beyond[0] < beyond[2] <= size[0]
