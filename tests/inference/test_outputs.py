"""Tests of lookonce.inference.outputs."""

import csv
import json
from xml.etree import ElementTree

import numpy as np
import pytest

from lookonce.errors import UserError
from lookonce.inference.outputs import ImageResult, Outputs, check_free, folder_name, remove_earlier, yolo_lines
from lookonce.model.detections import Detections

NAMES = ("cat", "a/b")
TWO = Detections(np.array([[10, 20, 30, 60], [0, 0, 100, 50]]), np.array([0.9, 0.5]), np.array([1, 0]), NAMES)
ALL = ("yolo", "voc", "coco", "csv", "crops")


def write(folder, files=("photos/7.png", "b.png"), formats=ALL):
    folder.mkdir(exist_ok=True)
    with Outputs(folder, formats, {"labels": NAMES, "formats": formats}) as outputs:
        for number, file in enumerate(files):
            outputs.add(ImageResult(file, f"image{number}", (200, 100), TWO if number == 0 else TWO[:0]))


def test_yolo_text_has_fractions_of_the_image_and_the_score(tmp_path):
    line = yolo_lines(ImageResult("a.png", "a", (200, 100), TWO[:1]))
    assert line == "1 0.100000 0.400000 0.100000 0.400000 0.900000\n"
    write(tmp_path / "out")
    assert (tmp_path / "out" / "labels" / "image0.txt").read_text().startswith(line)
    assert (tmp_path / "out" / "labels" / "image1.txt").read_text() == ""
    assert (tmp_path / "out" / "classes.txt").read_text() == "cat\na/b\n"


def test_voc_boxes_count_pixels_from_1(tmp_path):
    write(tmp_path / "out")
    root = ElementTree.parse(tmp_path / "out" / "annotations" / "image0.xml").getroot()
    assert [root.findtext(name) for name in ("filename", "size/width", "size/height")] == ["7.png", "200", "100"]
    first = root.find("object")
    assert first.findtext("name") == "a/b"
    assert [first.findtext(f"bndbox/{side}") for side in ("xmin", "ymin", "xmax", "ymax")] == ["11", "21", "30", "60"]


def test_coco_and_csv_have_a_row_for_each_detection(tmp_path):
    write(tmp_path / "out")
    first, second = json.loads((tmp_path / "out" / "coco.json").read_text())
    assert first == {"image_id": 7, "category_id": 2, "bbox": [10.0, 20.0, 20.0, 40.0], "score": 0.9}
    assert second["category_id"] == 1
    with (tmp_path / "out" / "detections.csv").open(newline="") as text:
        rows = list(csv.DictReader(text))
    assert [row["label"] for row in rows] == ["a/b", "cat"]
    assert [rows[0][name] for name in ("file", "xmin", "ymax")] == ["photos/7.png", "10.00", "60.00"]


def test_without_images_and_formats_each_file_is_whole(tmp_path):
    write(tmp_path / "out", files=())
    assert json.loads((tmp_path / "out" / "coco.json").read_text()) == []
    write(tmp_path / "plain", formats=())
    assert [p.name for p in (tmp_path / "plain").iterdir()] == ["detections.json"]


def test_a_failure_leaves_no_file(tmp_path):
    with pytest.raises(KeyError), Outputs(tmp_path, ("coco", "csv"), {"labels": NAMES}):
        raise KeyError
    assert list(tmp_path.iterdir()) == []


def test_a_class_name_becomes_a_folder_on_every_system():
    assert [folder_name(name) for name in ("a/b", "..", "cat ", "x:y", "")] == ["a_b", "_", "cat", "x_y", "_"]


def test_a_file_of_the_users_with_the_name_of_an_output_is_refused(tmp_path):
    (tmp_path / "coco.json").write_text("x")
    check_free(tmp_path, ("csv", "yolo"))
    with pytest.raises(UserError, match=r"coco\.json: exists, and detect did not write it"):
        check_free(tmp_path, ("csv", "coco"))


def test_an_earlier_result_names_no_file_outside_its_folder(tmp_path):
    (tmp_path / "out").mkdir()
    for name in ("kept.jpg", "out/input.jpg", "out/old.jpg", "out/notes.txt"):
        (tmp_path / name).write_text("x")
    names = ["../kept.jpg", "old.jpg", "input.jpg", "notes.txt", str(tmp_path / "kept.jpg"), None, 3]
    (tmp_path / "out" / "detections.json").write_text(json.dumps({"images": [{"drawn": name} for name in names]}))
    remove_earlier(tmp_path / "out", {(tmp_path / "out" / "input.jpg").resolve()})
    left = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*.*")}
    assert left == {"kept.jpg", "out/input.jpg", "out/notes.txt", "out/detections.json"}
    for text in ("", "[]", "{}", '{"images": 3}', '{"images": [3]}', "[" * 100_000):
        (tmp_path / "out" / "detections.json").write_text(text)
        remove_earlier(tmp_path / "out", set())
