"""Tests of lookonce.evaluation.result_files: what comes back is what was written, and nothing foreign comes in."""

import functools
import json
import resource
import sys
import time

import hypothesis
import numpy as np
import pytest
from PIL import Image

from conftest import SHARED, needs_shared
from lookonce.data.read import read_whole
from lookonce.errors import UserError
from lookonce.evaluation.result_files import holds_detections, read_detections
from matching_cases import read_voc100
from sets import write_squares

st = hypothesis.strategies
settings = functools.partial(
    hypothesis.settings, deadline=None, derandomize=True, max_examples=100,
    suppress_health_check=list(hypothesis.HealthCheck),
)  # fmt: skip


@pytest.fixture(scope="module")
def voc(tmp_path_factory):
    """red and blue squares; blue is class 0."""
    return read_whole(write_squares(tmp_path_factory.mktemp("voc") / "s", {"train": 3, "test": 2}))


@pytest.fixture(scope="module")
def coco(tmp_path_factory):
    """Two splits whose ids are not those of the order; images are not there."""
    root = tmp_path_factory.mktemp("coco")
    (root / "annotations").mkdir()
    cats = [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}]
    for split, ids in (("train", (40, 8)), ("val", (8, 9))):
        images = [{"id": i, "file_name": f"{split}{i}.jpg", "width": 64, "height": 48} for i in ids]
        boxes = [{"id": 1, "image_id": ids[0], "category_id": 7, "bbox": [1, 2, 30, 20]},
                 {"id": 2, "image_id": ids[1], "category_id": 3, "bbox": [1, 2, 30, 20]}]  # fmt: skip
        content = {"images": images, "categories": cats, "annotations": boxes}
        (root / "annotations" / f"instances_{split}.json").write_text(json.dumps(content))
    return read_whole(root, images_optional=True)


def entry(**other):
    return {"image_id": 8, "category_id": 3, "bbox": [1, 2, 3, 4], "score": 0.5} | other


def written(tmp_path, content):
    path = tmp_path / "found.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content, indent=1))
    return path


def test_coco_ids_are_those_of_the_splits_file(coco, tmp_path):
    given = [entry(), entry(image_id=40, category_id=7, score=0.25), entry(score=0.75)]
    first, second = read_detections(written(tmp_path, given), coco, "train")
    assert coco.dataset.paths[coco.members("train")].tolist() == ["train8.jpg", "train40.jpg"]
    assert (first.names, first.scores.tolist()) == (("cat", "cat"), [0.75, 0.5])
    assert (second.names, second.scores.tolist()) == (("dog",), [0.25])
    assert second.boxes.tolist() == [[1, 2, 4, 6]]


def test_an_id_that_two_images_have_is_refused(coco, tmp_path):
    with pytest.raises(UserError, match="image_id 8, which two images"):
        read_detections(written(tmp_path, [entry()]), coco, None)


@pytest.mark.parametrize("wrong, said", [
    ({"image_id": 41}, "image_id 41, which no image of split 'train'"),
    ({"image_id": 1 << 70}, "which no image"), ({"image_id": None}, "which no image"),
    ({"image_id": True}, "which no image"), ({"image_id": 8.0}, "which no image"),
    ({"image_id": [8]}, "which no image"),
    ({"category_id": 4}, "category_id 4, and the data set has 3 cat, 7 dog"),
    ({"category_id": {}}, "category_id"), ({"score": "high"}, "a score of high"), ({"score": True}, "a score of True"),
    ({"score": 10**400}, "a score of 1000"),
    ({"bbox": [1, 2, 3]}, "bbox: expected 4 numbers, found 3"), ({"bbox": [1, 2, -3, 4]}, "negative"),
    ({"bbox": [1, 2, 1e300, 4]}, "huge"), ({"bbox": None}, "found None"),
])  # fmt: skip
def test_what_is_foreign_or_no_number_is_refused_with_its_line(coco, tmp_path, wrong, said):
    path = written(tmp_path, "[\n" + json.dumps(entry()) + ",\n" + json.dumps(entry(**wrong)) + "\n]")
    with pytest.raises(UserError) as error:
        read_detections(path, coco, "train")
    assert f"{path}: $[1]" in str(error.value)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content, said", [
    ('[{"image_id": 8, "category_id": 3, "bbox": [1, 2, 3, NaN], "score": 1}]', "expected 4 finite numbers"),
    ('{"images": []}', "none of its images is one of split"), ("[] []", "trailing characters"), ("", "not valid JSON"),
    ("[3]", "$[0]: Expected object, got int"), ('[{"image_id": 8', "not valid JSON"),
])  # fmt: skip
def test_what_is_no_list_of_detections_is_refused(coco, tmp_path, content, said):
    with pytest.raises(UserError) as error:
        read_detections(written(tmp_path, content), coco, "train")
    assert said in str(error.value)


def test_other_data_sets_go_by_name_and_count_classes_from_1(voc, tmp_path):
    given = [entry(image_id="test001", category_id=1), entry(image_id="test000.png", category_id="red")]
    first, second = read_detections(written(tmp_path, given), voc, "test")
    assert (first.names, second.names) == (("red",), ("blue",))
    for wrong in (entry(image_id="test001", category_id=0), entry(image_id="train000", category_id=1)):
        with pytest.raises(UserError, match=r"found\.json: \$\[0\]: (category_id|image_id)"):
            read_detections(written(tmp_path, [wrong]), voc, "test")


def test_a_name_that_is_a_number_is_one(tmp_path):
    root = write_squares(tmp_path / "s", {"test": 2})
    for folder, ending in (("Annotations", "xml"), ("JPEGImages", "png")):
        for n in range(2):
            (root / folder / f"test{n:03}.{ending}").rename(root / folder / f"{n + 41:012}.{ending}")
    (root / "ImageSets" / "Main" / "test.txt").unlink()
    found = read_detections(written(tmp_path, [entry(image_id=42, category_id=1)]), read_whole(root), None)
    assert [len(one) for one in found] == [0, 1]


def texts(tmp_path, **files):
    folder = tmp_path / "found"
    folder.mkdir(exist_ok=True)
    for stem, text in files.items():
        (folder / f"{stem}.txt").write_text(text)
    return folder


def test_texts_count_pixels_and_classes_as_voc_does(voc, tmp_path):
    folder = texts(tmp_path, test001="1 .5 1 1 10 20\r\n\nblue 0.75 3 4 3 4 \n", test000="")
    first, second = read_detections(folder, voc, "test")
    assert len(first) == 0
    assert second.names == ("blue", "red")
    assert second.boxes.tolist() == [[2, 3, 3, 4], [0, 0, 10, 20]]


@pytest.mark.parametrize("line, said", [
    ("2 .5 1 1 9 9", "class '2', and the data set has 0 blue, 1 red"), ("green .5 1 1 9 9", "class 'green'"),
    ("-1 .5 1 1 9 9", "class '-1'"), ("0 nan 1 1 9 9", "finite numbers"), ("0 .5 1 1 9 inf", "finite numbers"),
    ("0 .5 9 1 1 9", "xmin <= xmax"), ("0 .5 1 1 9", "expected 'class score"), ("0 .5 1 1 9 x", "expected 'class"),
])  # fmt: skip
def test_a_wrong_line_of_a_text_is_refused_with_its_place(voc, tmp_path, line, said):
    folder = texts(tmp_path, test001="0 .5 1 1 9 9\n" + line)
    with pytest.raises(UserError) as error:
        read_detections(folder, voc, "test")
    assert f"{folder / 'test001.txt'}:2: " in str(error.value)
    assert said in str(error.value)


def test_a_text_of_no_image_is_refused(voc, tmp_path):
    with pytest.raises(UserError, match=r"other\.txt.*the name 'other', which no image of split 'test'"):
        read_detections(texts(tmp_path, other="0 .5 1 1 9 9"), voc, "test")


def test_a_name_may_hold_blanks(tmp_path):
    root = write_squares(tmp_path / "s", {"test": 1})
    for file in (root / "Annotations").iterdir():
        file.write_text(file.read_text().replace("<name>red<", "<name>dark red<").replace("<name>blue<", "<name>sky<"))
    whole = read_whole(root)
    name = whole.dataset.labels[0]
    assert read_detections(texts(tmp_path, test000=f"{name} .5 1 1 9 9"), whole, None)[0].names == (name,)


def test_what_holds_detections_and_what_a_model(tmp_path, run):
    assert holds_detections(texts(tmp_path, a=""))
    assert holds_detections(tmp_path / "x.json")
    assert not holds_detections(run)
    assert not holds_detections(tmp_path / "x.safetensors")


@needs_shared
def test_the_voc_detections_are_all_there():
    whole = read_whole(SHARED / "data" / "voc100")
    dataset, expected = read_voc100()
    assert dataset.labels == whole.dataset.labels
    for mine, theirs in zip(read_detections(SHARED / "data/voc100/detections", whole, None), expected, strict=True):
        np.testing.assert_array_equal(mine.boxes, theirs.boxes)
        assert mine.names == theirs.names


def survives(path, whole):
    try:
        found = read_detections(path, whole, "train")
    except UserError as error:
        said = str(error)
        assert "\n" not in said
        assert len(said) < 2000
    else:
        assert all(np.isfinite(one.boxes).all() and (one.boxes[:, 2:] >= one.boxes[:, :2]).all() for one in found)


def damaged(data, whole):
    content = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.integers(0, max(len(content) - 1, 0)))
        what = data.draw(st.sampled_from(["set", "cut", "drop", "double"]))
        if what == "set" and content:
            content[at] = data.draw(st.integers(0, 255))
        elif what == "cut":
            del content[at:]
        elif what == "drop":
            del content[at : at + data.draw(st.integers(1, 20))]
        else:
            content[at:at] = content[at : at + data.draw(st.integers(1, 60))]
    return bytes(content)


def own(path, *images, labels=("blue", "red"), **other):
    """A file as `lookonce detect` writes it. images: (file, (label, score, box), ...)."""
    value = {"model": "m", "labels": labels, "images": [
        {"file": str(file), "detections": [{"label": n, "score": s, "box": b} for n, s, b in found]}
        for file, *found in images
    ]} | other  # fmt: skip
    path.write_text(json.dumps(value, indent=1))
    return path


def test_what_detect_writes_is_read(voc, tmp_path, caplog):
    root = voc.found.root / "JPEGImages"
    both = ("red", 0.5, [1, 2, 3, 4]), ("blue", 0.75, [0, 0, 9, 9])
    file = own(tmp_path / "detections.json", (root / "test001.png", *both),
               (root / "test000.png",), (root / "train000.png", ("red", 0.9, [1, 2, 3, 4])))  # fmt: skip
    with caplog.at_level("INFO", "lookonce"):
        first, second = read_detections(file, voc, "test")
    assert len(first) == 0
    assert (second.names, second.boxes.tolist()) == (("blue", "red"), [[0, 0, 9, 9], [1, 2, 3, 4]])
    assert "1 images that are not of this split are left out; detect writes no scores below" in caplog.text
    assert holds_detections(tmp_path)
    assert [len(one) for one in read_detections(tmp_path, voc, "test")] == [0, 2]


def test_images_that_lie_elsewhere_go_by_their_name(voc, tmp_path, caplog):
    given = (("C:\\photos\\test000.png", ("red", 0.5, [1, 2, 3, 4])),)
    file = own(tmp_path / "d.json", *given)
    with caplog.at_level("INFO", "lookonce"):
        assert [len(one) for one in read_detections(file, voc, "test")] == [1, 0]
    assert "1 images of this split are not in it" in caplog.text
    for wrong, said in (
        ((*given, *given), "a second time"),
        ((("else.jpg",),), "none of its images is one of split 'test'"),
    ):
        with pytest.raises(UserError, match=said):
            read_detections(own(tmp_path / "d.json", *wrong), voc, "test")


def test_classes_of_the_model_that_the_data_set_has_not_are_left_out(voc, tmp_path, caplog):
    found = ("test000.png", ("cow", 0.5, [1, 2, 3, 4]), ("red", 0.5, [1, 2, 3, 4]))
    file = own(tmp_path / "d.json", found, labels=("cow", "red"))
    with caplog.at_level("INFO", "lookonce"):
        assert read_detections(file, voc, "test")[0].names == ("red",)
    assert "1 detections of classes that the data set does not have are left out" in caplog.text
    with pytest.raises(
        UserError, match=r"d\.json: \$\.images\[0\]\.detections\[0\]: label 'cow', and the data set has blue, red"
    ):
        read_detections(own(tmp_path / "d.json", found, labels=("red",)), voc, "test")


@pytest.mark.parametrize("entry, said", [
    (("red", 2e9, [1, 2, 3, 4]), "a score of"), (("red", 0.5, [3, 2, 1, 4]), "a box of"),
    (("red", 0.5, [1, 2, 3]), "a box of"), (("red", 0.5, "box"), "a box of"),
    ((7, 0.5, [1, 2, 3, 4]), "Expected str, got int"),
    (("red", None, [1, 2, 3, 4]), "a score of"), (("red", 0.5, [1, 2, 3, True]), "a box of"),
])  # fmt: skip
def test_a_wrong_entry_of_detect_is_refused_with_its_line(voc, tmp_path, entry, said):
    with pytest.raises(UserError) as error:
        read_detections(own(tmp_path / "d.json", ("test000.png", entry)), voc, "test")
    assert f"{tmp_path / 'd.json'}: $.images[0].detections[0]" in str(error.value)
    assert said in str(error.value)


@pytest.mark.parametrize("content", [
    "{", "{}", '{"images": []}', '{"images": [3]}', '{"images": 3}', '{"images": [{"file": 3}]}', '{"a" 1}',
    '{"images": [{"file": "test000.png", "detections": []}]} x', '{"a": 1,', "{[", '{"images": [{',
])  # fmt: skip
def test_what_is_no_file_of_detect_is_refused(voc, tmp_path, content):
    with pytest.raises(UserError) as error:
        read_detections(written(tmp_path, content), voc, "test")
    assert "\n" not in str(error.value)


def test_relative_boxes_of_json_are_refused(coco, tmp_path):
    with pytest.raises(UserError, match="relative coordinates\\? Expected pixels"):
        read_detections(written(tmp_path, [entry(bbox=[0.1, 0.2, 0.3, 0.4])]), coco, "train")


def test_lines_of_yolo_are_read(voc, tmp_path, caplog):
    (tmp_path / "runs").mkdir()
    lines = {"test000": "0 0.25 0.5 0.5 0.25 0.9\n1.0 0.5 0.5 1.0 1 0.5\n", "test001": "red .5 .5 .1 .1 .3"}
    folder = texts(tmp_path / "runs", **lines)
    with caplog.at_level("INFO", "lookonce"):
        first, second = read_detections(folder, voc, "test")
    np.testing.assert_allclose(first.boxes, [[0, 36, 48, 60], [0, 0, 96, 96]])  # of 96 x 96 px
    assert (first.names, first.scores.tolist()) == (("blue", "red"), [np.float32(0.9), 0.5])
    assert second.names == ("red",)
    assert "read as YOLO's lines" in caplog.text
    folder.rename(tmp_path / "runs" / "labels")
    assert holds_detections(tmp_path / "runs")
    assert [len(one) for one in read_detections(tmp_path / "runs", voc, "test")] == [2, 1]


def test_relative_corners_are_refused(voc, tmp_path):
    folder = texts(tmp_path, test000="0 0.9 0.08333 0.12500 0.31250 0.68750\n", test001="0 .9 .1 .1 .3 .3")
    with pytest.raises(UserError) as error:
        read_detections(folder, voc, "test")
    assert f"{folder / 'test000.txt'}:1: " in str(error.value)
    assert "relative coordinates? " in str(error.value).replace(";", " ")


def test_a_label_without_a_score_is_refused_with_the_way_out(voc, tmp_path):
    with pytest.raises(UserError, match=r"a label without a score .*save_conf=True"):
        read_detections(texts(tmp_path, test000="0 0.25 0.5 0.5 0.25"), voc, "test")


@needs_shared
def test_relative_predictions_are_right_or_refused():
    from lookonce.commands.evaluate import evaluate

    folder = SHARED / "cases" / "26-relative-predictions"
    assert evaluate(folder / "preds", SHARED / "cases/model/set", split="all", bootstrap=0).mean_ap > 0.9
    with pytest.raises(UserError, match="relative coordinates"):
        evaluate(folder / "preds3", SHARED / "cases/model/set", split="all")


def test_detect_and_evaluate_understand_each_other(run, squares, tmp_path, capsys):
    from lookonce.cli import main

    out = tmp_path / "found"
    assert main(["detect", str(run), str(squares / "JPEGImages"), "--out", str(out), "--threshold", "0.005",
                 "--precision", "fp32"]) == 0  # fmt: skip
    capsys.readouterr()
    scores = []
    for model in (out / "detections.json", out, run):
        assert main(["evaluate", str(model), str(squares), "--bootstrap", "0"]) == 0
        text = capsys.readouterr().out
        scores.append(float(next(line.split()[1] for line in text.splitlines() if line.strip().startswith("mean"))))
    assert scores[0] == scores[1] == pytest.approx(scores[2], abs=0.003)
    assert scores[0] > 0.5


FOUND = {"file": "train000.png", "detections": [{"label": "red", "score": 0.5, "box": [1, 2, 3, 4]}]}
OWN = json.dumps({"model": "m", "labels": ["red", "blue"], "images": [FOUND]}).encode()


@settings()
@hypothesis.given(st.data())
def _bytes(coco, voc, json_path, text_path, data):
    json_path.write_bytes(damaged(data, json.dumps([entry(), entry(image_id=40)]).encode()))
    survives(json_path, coco)
    survives(json_path, voc)
    json_path.write_bytes(damaged(data, OWN))
    survives(json_path, voc)
    text_path.write_bytes(damaged(data, b"0 .5 .5 .2 .2 .9\n"))
    survives(text_path.parent, voc)
    text_path.write_bytes(damaged(data, b"0 .5 1 1 9 9\r\nred 0.25 3 4 30 40\n"))
    survives(text_path.parent, voc)


def test_damaged_bytes(coco, voc, tmp_path):
    _bytes(coco, voc, tmp_path / "found.json", texts(tmp_path, train000="") / "train000.txt")


VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=4), st.just(1 << 70)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=3), inner, max_size=3)),
    max_leaves=6,
)


@settings(max_examples=200)
@hypothesis.given(st.sampled_from([None, "image_id", "category_id", "bbox", "score"]), VALUES)
def _values(coco, path, key, value):
    path.write_text(json.dumps([entry(), value if key is None else entry(**{key: value})]))
    survives(path, coco)


def test_any_value_in_any_place(coco, tmp_path):
    _values(coco, tmp_path / "found.json")


@settings()
@hypothesis.given(
    st.lists(st.lists(st.one_of(st.floats().map(str), st.integers().map(str), st.text(max_size=3)), max_size=8))
)
def _words(voc, path, lines):
    path.write_bytes("\n".join(map(" ".join, lines)).encode("utf-8", "ignore"))
    survives(path.parent, voc)


def test_any_words_in_a_text(voc, tmp_path):
    _words(voc, texts(tmp_path, train000="") / "train000.txt")


MEGABYTE = 1_000_000
LARGE = {
    "nested lists": b"[" * MEGABYTE, "nested objects": b'[{"a":' * (MEGABYTE // 6),
    "empty objects": b"[" + b"{}," * 333_000,
    "long number": b"[" + b"9" * MEGABYTE, "long text": b'["' + b"\\u0041" * (MEGABYTE // 6), "blanks": b" " * MEGABYTE,
    "good ones": json.dumps([entry()] * 12_000).encode(), "a long list": b"[" + b"0," * (MEGABYTE // 2),
    "text: good ones": b"0 .5 1 1 9 9\n" * 76_000, "text: short lines": b"1\n" * 500_000,
    "text: one line": b"0 " * 500_000, "text: a long number": b"0 .5 1 1 9 " + b"9" * MEGABYTE,
}  # fmt: skip


@pytest.mark.parametrize("what", LARGE)
def test_a_megabyte_is_read_in_bounded_time_and_memory(coco, voc, tmp_path, what):
    text = what.startswith("text")
    path = texts(tmp_path, train000="") / "train000.txt" if text else tmp_path / "found.json"
    path.write_bytes(LARGE[what])
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.thread_time()
    survives(path.parent if text else path, voc if text else coco)
    assert time.thread_time() - began < 8
    unit = 1 if sys.platform == "darwin" else 1024
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * unit < 500e6


def test_images_of_coco_need_not_be_there_but_are_found_where_they_are(coco, tmp_path):
    assert len(coco.dataset) == 4
    assert not coco.dataset.problems
    Image.new("RGB", (64, 48)).save(tmp_path / "a.png")
    (tmp_path / "a.json").write_text(json.dumps({
        "images": [{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "b.png"}],
        "categories": [{"id": 1, "name": "cat"}],
        "annotations": [{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "area": 5.5}],
    }))  # fmt: skip
    whole = read_whole(tmp_path / "a.json", images_optional=True)
    assert whole.dataset.paths.tolist() == ["a.png"]  # the size of the other is nowhere
    assert whole.dataset.area.tolist() == [5.5]
