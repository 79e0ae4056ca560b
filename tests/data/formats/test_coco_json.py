"""Tests of lookonce.data.formats.coco_json."""

import json

import pytest

from lookonce.data.formats.coco_json import CROWD, IGNORE, POLYGON, TEXT, Ids, polygon_box, read_box
from lookonce.data.formats.coco_json import parse as parse_noting
from lookonce.errors import UserError

WHOLE = {
    "info": {"year": 2026},
    "images": [{"id": 7, "file_name": "a.jpg", "width": 64, "height": 48}, {"id": 20180000001, "file_name": "b.jpg"}],
    "categories": [{"id": 90, "name": "dog"}, {"id": 3, "name": " cat "}],
    "annotations": [
        {"id": 1, "image_id": 7, "category_id": 90, "bbox": [1, 2, 10, 20.5], "iscrowd": 0,
         "segmentation": [[1, 2, 3, 4]]},
        {"id": 2, "image_id": 7, "category_id": 3, "bbox": [1, 2, 10, 20], "iscrowd": 1,
         "segmentation": {"counts": "x", "size": [1, 2]}},
        {"id": 2, "image_id": 20180000001, "category_id": 3, "bbox": [5, 5, 1, 1], "ignore": 1},
    ],
}  # fmt: skip


def parse(file, notes=None):
    return parse_noting(file, lambda *said: None if notes is None else notes.append(said))


def write(tmp_path, value, **how):
    file = tmp_path / "instances.json"
    file.write_text(value if isinstance(value, str) else json.dumps(value, **how))
    return file


@pytest.mark.parametrize("how", [{}, {"indent": 1}, {"separators": (",", ":")}])
def test_a_file_is_read_as_json_says(tmp_path, how):
    found = parse(write(tmp_path, WHOLE, **how))
    assert found.names == {90: "dog", 3: "cat"}
    assert [entry[:3] for entry in found.images.values()] == [("a.jpg", 64, 48), ("b.jpg", 0, 0)]
    assert found.image.tolist() == [7, 7, 20180000001]
    assert found.category.tolist() == [90, 3, 3]
    assert found.boxes.tolist() == [1, 2, 11, 22.5, 1, 2, 11, 22, 5, 5, 6, 6]
    assert found.flags.tolist() == [0, CROWD, IGNORE]
    assert found.annotation_ids.tolist() == [1, 2, 2]


def test_places_count_the_annotations_that_cannot_be_read(tmp_path):
    entries = ["x", *WHOLE["annotations"]]
    assert parse(write(tmp_path, WHOLE | {"annotations": entries})).index.tolist() == [1, 2, 3]


@pytest.mark.parametrize("section, entry, kind, place", [
    ("images", {"id": 7, "file_name": "other.jpg"}, "image id twice", "$.images[2] (id 7)"),
    ("images", {"id": "7.0", "file_name": "a.jpg"}, "image listed twice", "$.images[2] (id 7)"),
    ("images", {"id": None, "file_name": "a"}, "entry unreadable", "$.images[0]"),
    ("images", {"id": 1}, "entry unreadable", "$.images[0]"),
    ("images", 3, "entry unreadable", "$.images[0]"),
    ("categories", {"id": 90, "name": "other"}, "category id twice", "$.categories[2] (id 90)"),
    ("categories", {"id": 1, "name": ""}, "entry unreadable", "$.categories[0]"),
    ("categories", {"id": [], "name": "a"}, "entry unreadable", "$.categories[0]"),
    ("categories", {"id": 1, "name": None}, "entry unreadable", "$.categories[0]"),
    ("annotations", {"id": 1, "category_id": 3}, "image id unknown", "$.annotations[3] (id 1)"),
    ("annotations", {"image_id": True}, "image id unknown", "$.annotations[0]"),
    ("annotations", "x", "entry unreadable", "$.annotations[0]"),
    ("annotations", {"id": "2", "image_id": 7, "category_id": 3, "bbox": [1, 2, 3, 4]}, "annotation id twice",
     "$.annotations[3] (id 2)"),
])  # fmt: skip
def test_a_bad_entry_is_noted_with_its_place_and_reading_goes_on(tmp_path, section, entry, kind, place):
    notes = []
    at = 0 if place.endswith("[0]") else len(WHOLE[section])
    entries = [*WHOLE[section][:at], entry, *WHOLE[section][at:]]
    file = write(tmp_path, WHOLE | {section: entries}, indent=1)
    found = parse(file, notes)
    assert (place, kind) in [note[:2] for note in notes]
    assert found.names == {90: "dog", 3: "cat"}
    assert [entry[0] for entry in found.images.values()] == ["a.jpg", "b.jpg"]


def test_an_id_is_one_whether_number_float_or_text():
    ids = Ids()
    assert {ids.number(v) for v in (1, 1.0, "1", " 1 ", "1.0", "01")} == {1}
    assert ids.number(-3) == ids.number("-3") == -3
    assert ids.number("a.jpg") == ids.number(" a.jpg ") != ids.number("b.jpg")
    assert ids.number(1 << 70) == ids.number(str(1 << 70))
    assert [ids.number(v) for v in (None, True, [], {}, "", float("nan"), 1.5)] == [None] * 7
    assert [ids.text(ids.number(v)) for v in (5, "6", "a.jpg")] == ["5", "6", "'a.jpg'"]


@pytest.mark.parametrize("entry, name", [
    ({"file_name": "x/a.jpg", "coco_url": "http://h/b.jpg"}, "x/a.jpg"),
    ({"coco_url": "http://h/train2017/b%20c.jpg"}, "/train2017/b c.jpg"),
    ({"file_name": "", "url": "https://h/d.jpg?token=1.2"}, "/d.jpg"),
    ({"path": "/data/e.jpg"}, "/data/e.jpg"),
    ({"file_name": "http://h/data/local-files/?d=upload%5C1%5Cp0.jpg"}, "upload\\1\\p0.jpg"),
    ({"file_name": "/data/local-files/?d=upload/1/p0.jpg"}, "upload/1/p0.jpg"),
    ({"file_name": "what?.jpg"}, "what?.jpg"),
    ({"file_name": "http://[bad/a.jpg"}, "http://[bad/a.jpg"),
])  # fmt: skip
def test_an_image_is_named_by_its_file_or_its_address(tmp_path, entry, name):
    found = parse(write(tmp_path, WHOLE | {"images": [{"id": 1} | entry]}))
    assert found.images[1][0] == name


@pytest.mark.parametrize("name, text", [(0, "0"), (7.5, "7.5"), (True, "true"), (" x ", "x")])
def test_category_names_are_text_as_the_file_says_them(tmp_path, name, text):
    assert parse(write(tmp_path, WHOLE | {"categories": [{"id": 1, "name": name}]})).names == {1: text}


@pytest.mark.parametrize("mask, box", [
    ([[10, 10, 40, 12, 40, 45]], (10, 10, 40, 45)), ([[10, 10, 40, 12, 40, 45], [1, 2, 3, 4, 5, 6]], (1, 2, 40, 45)),
    ([10, 10, 40, 12, 40, 45], (10, 10, 40, 45)), ([[10, 10], [40, 12], [40, 45]], (10, 10, 40, 45)),
    ([[10, 10, 40, 12]], None), ([[10, 10, 40, 12, 40]], None), ([], None), (None, None), ([[]], None),
    ([["a"] * 6], None), ([[1, 2, 3, 4, 5, None]], None), ([[float("nan")] * 6], None), ("x", None),
])  # fmt: skip
def test_a_polygon_has_a_box(mask, box):
    assert polygon_box(mask) == box


@pytest.mark.parametrize("entry, flag, said", [
    ({"segmentation": [[1, 1, 5, 1, 5, 9]]}, POLYGON, None),
    ({"bbox": [], "segmentation": [[1, 1, 5, 1, 5, 9]]}, POLYGON, None),
    ({"bbox": [0, 0, 0, 0], "segmentation": [[1, 1, 5, 1, 5, 9]]}, POLYGON, None),
    ({"bbox": ["1", "1", "4", 8]}, TEXT, None),
    ({"segmentation": {"counts": "abc", "size": [3, 4]}}, 0, "run-length encoded"),
    ({"bbox": ["1", "x", "4", 8]}, 0, "expected 4 finite numbers"),
    ({"bbox": [1, float("nan"), 4, 8]}, 0, "expected 4 finite numbers"),
    ({}, 0, "found None"),
])  # fmt: skip
def test_a_box_that_something_else_says_clearly_is_read(tmp_path, entry, flag, said):
    found = parse(write(tmp_path, WHOLE | {"annotations": [{"id": 1, "image_id": 7, "category_id": 3} | entry]}))
    assert found.flags.tolist() == [flag]
    if said:
        assert said in found.wrong[0][2]
    else:
        assert found.boxes.tolist() == [1, 1, 5, 9]
        assert found.wrong == {}


@pytest.mark.parametrize("text, message", [
    ("", "not valid JSON"), ("[]", "Expected object, got array"), ('{"images": [', "not valid JSON"),
    ("{}", "no categories"),
    ('{"images": []\n"b": 1}', r"instances.json:2: not valid JSON"), ('{"a": ' + "[" * 200_000, "nested too deeply"),
    ('{"images": {}}', r"\$.images: Expected array"),
])  # fmt: skip
def test_what_is_no_coco_json_is_one_line(tmp_path, text, message):
    with pytest.raises(UserError, match=message) as error:
        parse(write(tmp_path, text))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "bbox",
    [
        None,
        [1, 2, 3],
        ["1", 2, 3, 4],
        [1, 2, 3, True],
        [1, 2, 3, float("nan")],
        [1e308, 0, 1e308, 1],
        [10**400, 1, 1, 1],
        {"x": 1},
    ],
)
def test_a_bbox_that_is_none_says_why(bbox):
    assert "expected" in read_box(bbox)
