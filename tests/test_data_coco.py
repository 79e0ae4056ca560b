"""Mirrors src/lookonce/data/coco.py."""

import json

import pytest

from lookonce.data.coco import CROWD, IGNORE, parse, read_box
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
    assert len(found.repeated) == 1


def test_lines_are_those_of_the_file(tmp_path):
    file = write(tmp_path, WHOLE, indent=1)
    lines = file.read_text().splitlines()
    for line in parse(file).lines:
        assert lines[line - 1].strip() == "{"
        assert '"id"' in lines[line]


@pytest.mark.parametrize("change, message", [
    ({"images": [{"id": 1, "file_name": "a"}, {"id": 1, "file_name": "b"}]}, r"instances.json:1: image id 1 twice"),
    ({"categories": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]}, "category 1 'b' twice"),
    ({"categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "a"}]}, "category 2 'a' twice"),
    ({"images": [{"id": 1 << 63, "file_name": "a"}]}, "whole number below 2\\^63"),
    ({"images": [{"id": "x", "file_name": "a"}]}, "whole number below 2\\^63"),
    ({"images": [{"id": 1}]}, "file_name None"),
    ({"images": [3]}, "images: '3'; expected an object"),
    ({"categories": [{"id": 1, "name": ""}]}, "expected a name"),
    ({"annotations": [{"id": 1, "category_id": 3}]}, "annotation with image_id None"),
])  # fmt: skip
def test_ids_that_cannot_be_told_apart_are_refused_with_their_line(tmp_path, change, message):
    with pytest.raises(UserError, match=message):
        parse(write(tmp_path, WHOLE | change))


@pytest.mark.parametrize("text, message", [
    ("", "not whole JSON"), ("[]", "where { belongs"), ('{"images": [', "not whole JSON"), ("{}", "no categories"),
    ('{"images": [{"id": NaN}]}', "NaN, which is no number of JSON"), ('{"a": Infinity}', "Infinity"),
    ('{"images": []\n"b": 1}', r"instances.json:2: not whole JSON"), ('{"a": ' + "[" * 200_000, "nested too deep"),
    ('{"a": 1' + "0" * 10_000 + "}", "not whole JSON"),
    ('{"images": {}}', "no categories and no images and no annotations"),
])  # fmt: skip
def test_what_is_no_coco_json_is_one_line(tmp_path, text, message):
    with pytest.raises(UserError, match=message) as error:
        parse(write(tmp_path, text))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "bbox", [None, [1, 2, 3], ["1", 2, 3, 4], [1, 2, 3, True], [1e308, 0, 1e308, 1], [10**400, 1, 1, 1], {"x": 1}]
)
def test_a_bbox_that_is_none_says_why(bbox):
    assert "expected" in read_box(bbox)
