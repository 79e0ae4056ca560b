"""Tests of lookonce.data.formats.yolo."""

import contextlib
import os
import re

import numpy as np
import pytest
from PIL import Image

from conftest import CASES, SHARED, needs_shared
from lookonce.data.formats.builder import Builder
from lookonce.data.formats.yolo import (
    describe,
    find_yolo,
    is_label_file,
    read_labels,
    read_line,
    write_labels,
    write_yolo,
)
from lookonce.data.read import read_dataset
from lookonce.errors import UserError


def read(tmp_path, lines, size=(200, 100), keypoints=0):
    found = Builder(tmp_path, "drop", "yolo", ("cat", "dog"))
    found.add_image("p", "p.jpg", size, tmp_path / "p.txt")
    read_labels(found, "p", tmp_path / "p.txt", lines, size, keypoints)
    return found


def test_a_line_is_a_box_in_pixels(tmp_path):
    found = read(tmp_path, ["1 .5 .5 .5 .2", "", "0 0.25 0.5 0.5 1 "])
    assert found.boxes.tolist() == [50, 40, 150, 60, 0, 0, 100, 100]
    assert list(found.ids) == ["dog", "cat"]
    assert not found.problems


@pytest.mark.parametrize("line, kind, said", [
    ("0 .1 .1 .2 .1 .2 .2 .3", "object unreadable", "8 fields; expected .* or a polygon"),
    ("0.5 .1 .1 .2 .2", "object unreadable", "class 0.5; expected 0 to 1"),
    ("inf .1 .1 .2 .2", "object unreadable", "class inf"),
    ("0 10 10 20 10 20 20", "object unreadable", "pixels"),
    ("0 .5 .5 -inf .2", "object unreadable", "-inf"),
    ("0 .1 .1 .2", "object unreadable", "4 fields; expected 'class cx cy w h'"),
    ("0 .1 .1 .2 .2 .9", "object unreadable", "6 fields; expected"),
    ("cat .1 .1 .2 .2", "object unreadable", "'cat .1 .1 .2 .2'; expected"),
    ("2 .1 .1 .2 .2", "object unreadable", "class 2; expected 0 to 1"),
    ("-1 .1 .1 .2 .2", "object unreadable", "class -1"),
    ("0 nan .1 .2 .2", "object unreadable", "nan"),
    ("0 100 50 20 20", "object unreadable", "pixels"),
    ("0 .5 .5 0 .2", "box with no area", "with no area"),
    ("0 1.1 .5 .5 .2", "box outside", "outside the image of 200 x 100"),
])  # fmt: skip
def test_a_wrong_line_is_told_and_left_out(tmp_path, line, kind, said):
    found = read(tmp_path, ["0 .5 .5 .5 .5", line])
    assert len(found.names) == 1
    [(_, problem)] = found.problems
    assert (problem.kind, problem.place) == (kind, "p.txt:2")
    assert re.search(said, problem.found)


@pytest.mark.parametrize("line, box, kind", [
    ("1 .1 .1 .4 .1 .4 .6 .1 .6", [20, 10, 80, 60], "polygon"),
    ("1 .4 .6 .1 .1 .3 .2", [20, 10, 80, 60], "polygon"),
    ("1.0 .5 .5 .5 .2", [50, 40, 150, 60], "class id as a float"),
    ("1 .9 .5 .5 .2", [130, 40, 200, 60], "box over the edge"),
    ("1 -0.02 .5 .2 .2", None, "box outside"),
    ("1 .5 .5 -.5 .2", [50, 40, 150, 60], "corners exchanged"),
])  # fmt: skip
def test_a_box_that_is_clear_is_kept_and_counted_as_fixed(tmp_path, line, box, kind):
    found = read(tmp_path, ["0 .5 .5 .5 .5", line])
    np.testing.assert_allclose(found.boxes[4:], box or [], atol=1e-4)
    [(_, problem)] = found.problems
    assert (problem.kind, problem.place) == (kind, "p.txt:2")
    assert problem.action == ("fixed" if box else "dropped")


def test_polygons_of_a_file_are_said_in_one_line(tmp_path):
    found = read(tmp_path, ["0 .5 .5 .5 .5"] + ["1 .1 .1 .4 .1 .4 .6"] * 500)
    assert len(found.names) == 501
    [(_, problem)] = found.problems
    assert (problem.kind, problem.times, problem.place) == ("polygon", 500, "p.txt:2")


def test_keypoints_behind_a_box_are_no_polygon(tmp_path):
    line = "1 .5 .5 .5 .2 .1 .1 2 .9 .9 0 .2 .3 1 .4 .4 2"
    assert len(line.split()) == 5 + 4 * 3
    found = read(tmp_path, [line], keypoints=12)
    assert found.boxes.tolist() == [50, 40, 150, 60]
    assert not found.problems


def test_what_is_written_reads_back_within_a_thousandth_of_a_pixel(tmp_path):
    boxes = np.array([[0, 0, 4001, 2999], [17.5, 3.25, 19.125, 2001]], np.float32)
    write_labels(tmp_path / "p.txt", (4001, 2999), boxes, np.array([1, 0]))
    lines = (tmp_path / "p.txt").read_text().splitlines()
    back = [read_line(line.split(), 2, (4001, 2999))[1] for line in lines]
    np.testing.assert_allclose(back, boxes, atol=1e-3)
    write_labels(tmp_path / "e.txt", (10, 10), np.zeros((0, 4), np.float32), np.zeros(0, np.int64))
    assert (tmp_path / "e.txt").read_text() == ""


def test_very_many_wrong_lines_stay_small(tmp_path):
    found = read(tmp_path, ["1"] * 200_000)
    assert len(found.problems) < 200
    assert sum(p.times for _, p in found.problems) == 200_000


YAML = "path: /content/somewhere/else\ntrain: images/train\nval: images/val  # comment\nnc: 2\nnames: [cat, dog]\n"


def add(root, place, text, size=(64, 48), ending=".jpg"):
    """An image and, unless text is None, its label file in labels/."""
    (root / place).parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size).save(root / f"{place}{ending}")
    if text is not None:
        file = root / f"{place.replace('images', 'labels')}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text.encode() if isinstance(text, str) else text)


@pytest.fixture
def root(tmp_path):
    add(tmp_path, "images/train/a", "1 .5 .5 .5 .5\n")
    add(tmp_path, "images/train/b", "")
    add(tmp_path, "images/val/c", b"\xef\xbb\xbf0 .5 .5 .5 .5 \r\n\r\n0 .25 .25 .1 .1\r\n", ending=".PNG")
    (tmp_path / "data.yaml").write_text(YAML)
    return tmp_path


def names(dataset):
    return [record.path.name for record in dataset.records]


def test_ultralytics_layout(root):
    found = read_dataset(root)
    assert found.labels == ("cat", "dog")
    assert names(found) == ["a.jpg", "b.jpg", "c.PNG"]
    assert found.records[0].boxes.tolist() == [[16, 12, 48, 36]]
    assert [len(r.labels) for r in found.records] == [1, 0, 2]
    assert found.problems == ()
    assert names(read_dataset(root, "val")) == ["c.PNG"]
    assert names(read_dataset(root / "data.yaml", "train")) == ["a.jpg", "b.jpg"]


def test_roboflows_wrong_relative_paths(tmp_path):
    add(tmp_path, "train/images/a", "1 .5 .5 .5 .5\n")
    add(tmp_path, "valid/images/b", "1 .5 .5 .5 .5\n")
    (tmp_path / "data.yaml").write_text(
        "train: ../train/images\nval: ../valid/images\nnames:\n  0: cat\n  1: dog\nroboflow:\n  workspace: x\n"
    )
    assert names(read_dataset(tmp_path, "val")) == ["b.jpg"]
    assert names(read_dataset(tmp_path, "train")) == ["a.jpg"]


@pytest.mark.parametrize("line", ["{root}/obj/a.jpg", "obj/a.jpg", "data/obj/a.jpg", "C:\\darknet\\data\\obj\\a.jpg",
                                  "/home/you/darknet/data/obj/a.jpg"])  # fmt: skip
def test_darknet_layout_with_lists_from_anywhere(tmp_path, line):
    add(tmp_path, "obj/a", "1 .5 .5 .5 .5")
    (tmp_path / "obj.names").write_bytes(b"\xef\xbb\xbfcat\r\nbig dog \r\n\r\n")
    (tmp_path / "obj.data").write_text(
        "classes= 2\r\ntrain  = data/train.txt\r\nnames = data/obj.names\r\nbackup = backup/\r\n"
    )
    (tmp_path / "train.txt").write_bytes(f"{line.format(root=tmp_path)}  \r\n\r\n".encode("utf-16"))
    found = read_dataset(tmp_path, "train")
    assert found.labels == ("cat", "big dog")
    assert found.records[0].path == tmp_path / "obj" / "a.jpg"
    assert found.records[0].labels.tolist() == [1]
    assert found.problems == ()


def test_a_folder_with_a_names_file_will_do(tmp_path):
    for name in ("a", "b"):
        add(tmp_path, f"images/{name}", "0 .5 .5 .5 .5")
    (tmp_path / "classes.txt").write_text("cat\n")
    assert len(read_dataset(tmp_path)) == 2
    assert len(read_dataset(tmp_path).boxes) == 2


def test_missing_things_are_told_and_the_rest_is_read(root):
    add(root, "images/train/d", None)
    add(root, "images/train/e", "0 .1 .1 .1 .1 .2 .3 .4 .5")
    (root / "images" / "train" / "f.jpg").write_text("text")
    (root / "images" / "val" / "c.PNG").rename(root / "images" / "val" / "g.PNG")
    (root / "more.txt").write_text("images/train/zz.jpg\n")
    (root / "data.yaml").write_text(YAML + "more: more.txt\ntest: nowhere\n")
    found = read_dataset(root)
    told = {(p.kind, p.place) for p in found.problems}
    assert told == {
        ("label file missing", "images/train/d.jpg"), ("label file missing", "images/val/g.PNG"),
        ("polygon", "labels/train/e.txt:1"), ("image unreadable", "images/train/f.jpg"),
        ("image missing", "more.txt:1"), ("list missing", "data.yaml"),
    }  # fmt: skip
    assert names(found) == ["a.jpg", "b.jpg", "d.jpg", "e.jpg", "g.PNG"]


def test_very_many_missing_images_are_one_kind(root):
    (root / "many.txt").write_text("".join(f"gone{n}.jpg\n" for n in range(500)) + "images/train/a.jpg\n")
    (root / "data.yaml").write_text(YAML + "more: many.txt\n")
    found = read_dataset(root, "more")
    assert {p.kind for p in found.problems} == {"image missing"}
    assert sum(p.times for p in found.problems) == 500
    assert names(found) == ["a.jpg"]


def test_a_set_without_any_image_says_where_the_first_should_be(tmp_path):
    (tmp_path / "list.txt").write_text("gone/p.png\ngone/q.png\n")
    (tmp_path / "data.yaml").write_text("names: [a]\ntrain: list.txt\n")
    with pytest.raises(UserError, match=r"no image that can be read \(first list.txt:1: no image 'gone/p.png'"):
        read_dataset(tmp_path)


def test_a_set_without_any_label_file_is_refused(tmp_path):
    add(tmp_path, "images/train/a", None)
    (tmp_path / "data.yaml").write_text(YAML)
    with pytest.raises(UserError, match="not one of its 1 images has a label file"):
        read_dataset(tmp_path)


@pytest.mark.parametrize("text, message", [
    ("names: [a\n", "not YAML"),
    ("names: {0: a, 2: b}\ntrain: x\n", "without a gap"),
    ("names: []\ntrain: x\n", "expected the names"),
    ("names: [[1]]\ntrain: x\n", "without a name"),
    ("names: [a]\n", "names no images"),
    ("names: nowhere.names\ntrain: x\n", "which is not there"),
    ("a: &a [x, x]\nb: &b [*a, *a]\nnames: [*b, *b]\n", "an alias or deep nesting"),
    ("names: " + "[" * 1000, "an alias or deep nesting"),
    ("names: [!!python/object/apply:os.system [ls]]\ntrain: x\n", "without a name"),
    ("names: [a, '']\ntrain: x\n", "without a name"),
    ("names: {0: a, 00: b}\ntrain: x\n", "without a gap"),
    ("names: {no: a}\ntrain: x\n", "without a gap"),
    ('names: [a]\ntrain: "C:\\data\\x"\n', "write paths with /"),
    ("[names: x]\n", "no entries"),
    ("names: [a]\nx: " + "a" * (1 << 20), "at most"),
])  # fmt: skip
def test_a_description_that_is_none_is_one_line(tmp_path, text, message):
    (tmp_path / "data.yaml").write_text(text)
    with pytest.raises(UserError, match=message) as error:
        describe(tmp_path / "data.yaml")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("names", [
    ["no", "yes"], ["on", "off"], ["007", "1e3"], ["2024-01-01", "12:30"], ["null", "~"], ["0x1F", "1_000"], ["y", "="],
    ["猫", "é"],
])  # fmt: skip
@pytest.mark.parametrize("form", ["[{}, {}]", "\n- {}\n- {}", "\n  0: {}\n  1: {}", "\n  1: {1}\n  0: {0}"])
def test_names_are_text_as_written(tmp_path, names, form):
    (tmp_path / "data.yaml").write_text(f"train: images\nnames: {form.format(*names)}\n", encoding="utf-8")
    assert describe(tmp_path / "data.yaml").names == tuple(names)


@pytest.mark.parametrize("case, names, kinds", [
    ("16-polygons-dropped/polygon", ("cat", "dog"), ["polygon", "polygon"]),
    ("17-same-stem-two-endings/same-stem", ("cat", "dog"), ["two images for one annotation"]),
    ("20-names-file-not-utf8/names-latin1", ("café", "naïve"), ["encoding guessed"]),
    ("20-names-file-not-utf8/names-gbk", ("猫", "狗"), ["encoding guessed"]),
    ("21-yaml-names-not-text/yaml-bool", ("no", "yes"), []),
    ("21-yaml-names-not-text/yaml-bool-dict", ("on", "off"), []),
    ("21-yaml-names-not-text/yv-num", ("007", "1e3"), []),
    ("21-yaml-names-not-text/yv-date", ("2024-01-01", "12:30"), []),
    ("39-nc-against-names/yv-ncwrong", ("cat", "dog"), ["names and nc differ"]),
])  # fmt: skip
def test_odd_files_of_other_tools_are_read_whole(case, names, kinds):
    found = read_dataset(CASES / case)
    assert found.labels == names
    assert [p.kind for p in found.problems] == kinds
    assert len(found) == (7 if "17-" in case else 6)
    assert len(found.boxes) == (7 if "17-" in case or "16-" in case else 6)
    assert [p.kind for p in read_dataset(CASES / case, "train").problems if not p.place.startswith("labels")] == [
        kind for kind in kinds if kind in ("encoding guessed", "names and nc differ")
    ]


def test_two_numbers_of_one_name_are_one_class(root):
    (root / "data.yaml").write_text(YAML.replace("nc: 2", "nc: 3").replace("[cat, dog]", "[cat, cat, dog]"))
    found = read_dataset(root)
    assert found.labels == ("cat", "dog")
    assert found.classes.tolist() == [0, 0, 0]
    assert [(p.kind, p.found) for p in found.problems] == [("category name twice", "'cat' has the ids 0, 1")]


def test_keypoints_of_a_pose_data_set_are_left_out(root):
    (root / "labels" / "train" / "a.txt").write_text("1 .5 .5 .5 .5 .1 .1 2 .2 .2 2 .3 .3 0 .9 .9 1\n")
    (root / "data.yaml").write_text(YAML + "kpt_shape: [4, 3]\n")
    found = read_dataset(root, "train")
    assert found.records[0].boxes.tolist() == [[16, 12, 48, 36]]
    assert found.problems == ()


@pytest.mark.parametrize("line", [
    "images/train/my photo 1.jpg", "C:\\data\\images\\train\\my photo 1.jpg", ".\\images\\train\\my photo 1.jpg",
])  # fmt: skip
def test_paths_with_blanks_and_from_windows_are_whole_lines_of_lists(root, line):
    add(root, "images/train/my photo 1", "0 .5 .5 .5 .5")
    (root / "some.txt").write_text(f"{line}\n")
    (root / "data.yaml").write_text(YAML.replace("images/val", "some.txt").replace("/content", "C:\\content"))
    assert names(read_dataset(root, "val")) == ["my photo 1.jpg"]
    assert read_dataset(root, "val").problems == ()


def test_a_value_that_yaml_calls_null_is_no_split(root):
    (root / "data.yaml").write_text(YAML + "test: null\nmore: ~\nother:\n")
    assert read_dataset(root).problems == ()


@pytest.mark.parametrize("file", sorted((CASES / "fuzz" / "yaml").iterdir()), ids=lambda file: file.stem)
def test_a_damaged_description_is_read_or_refused_in_one_line(root, file):
    (root / "data.yaml").write_bytes(file.read_bytes())
    with contextlib.suppress(UserError):
        assert len(read_dataset(root))


def test_the_written_description_has_no_path_and_lists_from_beside_it(root, tmp_path):
    dataset = read_dataset(root)
    write_yolo(tmp_path / "out", dataset, ["a.jpg", "b.jpg", "c.png"], {"train": np.arange(3)})
    assert "path:" not in (tmp_path / "out" / "data.yaml").read_text()
    assert (tmp_path / "out" / "train.txt").read_text().splitlines()[0] == "./images/a.jpg"


def test_what_is_written_reads_back_the_same_in_both_ways(root, tmp_path):
    dataset = read_dataset(root)
    out = tmp_path / "out"
    splits = {"train": np.array([0, 1]), "val": np.array([2]), "some": np.array([1, 2])}
    write_yolo(out, dataset, ["a.jpg", "b.jpg", "c.png"], splits)
    (out / "images").mkdir()
    for name in ("a.jpg", "b.jpg", "c.png"):
        Image.new("RGB", (64, 48)).save(out / "images" / name)
    for path in (out, out / "obj.data"):
        back = read_dataset(path)
        assert back.labels == dataset.labels
        np.testing.assert_allclose(back.boxes, dataset.boxes, atol=1e-4)
        for split, members in splits.items():
            assert names(read_dataset(path, split)) == [("a.jpg", "b.jpg", "c.png")[i] for i in members]


def test_a_yaml_of_something_else_is_none(tmp_path):
    (tmp_path / "config.yaml").write_text("epochs: 3\n")
    assert find_yolo(tmp_path) is None


@needs_shared
def test_voc_photographs_are_the_same_from_yolo_text():
    voc, yolo = read_dataset(SHARED / "data" / "voc100"), read_dataset(SHARED / "data" / "voc100" / "yolo")
    assert yolo.problems == ()
    assert yolo.labels[:3] == ("person", "cat", "boat")
    other = {record.path.name: record for record in yolo.records}
    for a in voc.records:
        b = other[a.path.name]
        of_a = sorted((voc.labels[i], *box) for i, box in zip(a.labels, a.boxes.tolist(), strict=True))
        of_b = sorted((yolo.labels[i], *box) for i, box in zip(b.labels, b.boxes.round().tolist(), strict=True))
        # those files keep VOC's xmin and ymin, which count from 1
        assert of_b == [(name, x + 1, y + 1, x2, y2) for name, x, y, x2, y2 in of_a]


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
@pytest.mark.parametrize("below", ["", "train"])
@pytest.mark.parametrize("description", [True, False])
def test_links_to_folders_of_images_and_labels_are_followed(tmp_path, below, description):
    for name in ("a", "b", "c"):
        add(tmp_path / "store", f"images/{name}", "0 .5 .5 .5 .5")
    root = tmp_path / "set"
    for kind in ("images", "labels"):
        place = root / kind / below
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(tmp_path / "store" / kind)
    if description:
        (root / "data.yaml").write_text("train: images\nval: images\nnames: [cat]\n")
    else:
        (root / "classes.txt").write_text("cat\n")
    found = read_dataset(root)
    assert (len(found), len(found.boxes), found.problems) == (3, 3, ())


def test_hidden_files_are_no_images_and_no_labels(root):
    (root / "images" / "train" / "._a.jpg").write_text("x")
    (root / "labels" / "train" / "._a.txt").write_bytes(b"\x00\x05\x16\x07")
    (root / "val.txt").write_text("images/val/._c.jpg\nimages/val/c.PNG\n")
    (root / "data.yaml").write_text(YAML.replace("images/val", "val.txt"))
    found = read_dataset(root)
    assert (names(found), found.problems) == (["a.jpg", "b.jpg", "c.PNG"], ())


def test_names_files_that_differ_are_refused(tmp_path):
    for split, text in (("train", "cat\ndog\n"), ("valid", "dog\ncat\n")):
        add(tmp_path, f"{split}/{split}", None)
        (tmp_path / split / f"{split}.txt").write_text("0 .5 .5 .5 .5\n")
        (tmp_path / split / "_darknet.labels").write_text(text)
    with pytest.raises(UserError, match="name different classes"):
        read_dataset(tmp_path)


@pytest.mark.parametrize("text, expected", [
    ("0 .5 .5 .1 .1\n", True), ("\n\n  3 0.5 0.5 0.1 0.1 0.9\n", True), ("0.0 .5 .5 .1 .1", True),
    ("0 .1 .1 .2 .2 .3 .1", True), ("cat\ndog\n", False), ("", False), ("0 .5 .5", False), ("-1 1 1 1 1", False),
    ("0 .5 .5 nan .1", False), ("train0 1 2 3 4", False),
])  # fmt: skip
def test_a_label_file_is_lines_of_numbers(tmp_path, text, expected):
    (tmp_path / "a.txt").write_text(text)
    assert is_label_file(tmp_path / "a.txt") == expected


def test_text_beside_images_that_is_no_label_makes_no_yolo_set(tmp_path):
    add(tmp_path, "a", None)
    (tmp_path / "a.txt").write_text("a cat on a mat\n")
    (tmp_path / "classes.txt").write_text("cat\n")
    assert find_yolo(tmp_path) is None


def test_labels_in_another_folder_are_found_by_name_where_it_is_the_only_one(tmp_path):
    for name in ("a", "b"):
        add(tmp_path, f"photos/{name}", None)
        (tmp_path / "annotations").mkdir(exist_ok=True)
        (tmp_path / "annotations" / f"{name}.txt").write_text("0 .5 .5 .5 .5\n")
    (tmp_path / "classes.txt").write_text("cat\n")
    assert [len(record.labels) for record in read_dataset(tmp_path).records] == [1, 1]
    add(tmp_path, "photos/more/b", None)
    assert sorted(len(record.labels) for record in read_dataset(tmp_path).records) == [0, 0, 1]
