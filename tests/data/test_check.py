"""Tests of lookonce.data.check."""

import ast
import inspect
import json
import shutil
import time
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from lookonce.commands.check import check
from lookonce.data import read
from lookonce.data.check import (
    KINDS,
    MOST_CLASSES,
    PLACES,
    SHOWN,
    Finding,
    alike_pairs,
    all_findings,
    finding,
    letter_apart_pairs,
    repeated,
    summary,
)
from lookonce.data.duplicates import look
from lookonce.data.formats import builder, coco, coco_json, voc, yolo
from lookonce.data.read import read_whole
from photographs import CAT, DOG, add, photograph


@pytest.fixture
def root(tmp_path):
    for n in range(6):
        add(tmp_path, f"p{n}", [CAT, DOG], seed=n)
    for split, stems in (("train", ["p0", "p1", "p2"]), ("val", ["p3"]), ("test", ["p4", "p5"])):
        voc.write_split(tmp_path / "ImageSets" / "Main" / f"{split}.txt", stems)
    return tmp_path


def found(root, images=True):
    whole = read_whole(root)
    looks = look([record.path for record in whole.dataset.records]) if images else None
    return {one.kind: one for one in all_findings(whole, looks, (416, 416), "letterbox")}


def test_a_sound_data_set_has_no_findings(root):
    assert found(root) == {}


@pytest.mark.parametrize("other, kind", [
    ("Cat", "class names alike"), ("cat ", None), ("ca-t", "class names alike"), ("catt", "class names nearly alike"),
    ("cow", None), ("cat2", None), ("kitten", None),
])  # fmt: skip
def test_class_names_that_may_be_one(root, other, kind):
    add(root, "p5", [CAT, (other, [70, 10, 90, 60])] + [CAT, DOG] * 0, seed=5)
    for n in range(6, 30):
        add(root, f"p{n}", [CAT, DOG], seed=n)
    told = set(found(root, images=False)) & {"class names alike", "class names nearly alike"}
    assert told == ({kind} if kind else set())


def slow_pairs(names):
    """(pairs that are alike, pairs a letter apart), by comparing every name with every other."""
    same, near = [], []
    for i, first in enumerate(names):
        for j in range(i + 1, len(names)):
            plain = ["".join(c for c in name.casefold() if c.isalnum()) for name in (first, names[j])]
            a, b = first.casefold(), names[j].casefold()
            if plain[0] == plain[1]:
                same.append((i, j))
            elif max(len(a), len(b)) >= 4 and (without(a, b) or without(b, a) or changed(a, b)):
                near.append((i, j))
    return same, near


def without(a, b):
    """Whether b is a without one letter that is no digit."""
    return any(a[:k] + a[k + 1 :] == b for k in range(len(a)) if not a[k].isdigit())


def changed(a, b):
    """Whether a and b differ in one letter; digits are none."""
    other = [x + y for x, y in zip(a, b, strict=False) if x != y]
    return len(a) == len(b) and len(other) == 1 and not any(map(str.isdigit, other[0]))


@pytest.mark.parametrize("letters", ["ab", "abA1-", "kat", "\u00dfsS ", "\u732b\u72ac1"])
def test_names_that_may_be_one_are_those_of_a_slow_loop(letters):
    draw = np.random.default_rng(len(letters))
    lengths = draw.integers(0, 8, 120)
    names = list(dict.fromkeys("".join(draw.choice(list(letters), n)) for n in lengths))
    many, pairs = alike_pairs(names)
    same, near = slow_pairs(names)
    assert (many, list(pairs)) == (len(same), same)
    assert letter_apart_pairs(names) == near
    assert near


def test_names_that_count_their_classes_by_letters_are_no_slips():
    names = [f"kind {chr(number)}" for number in range(0x4E00, 0x4E00 + 9418)]  # 44 million pairs
    began = time.process_time()
    assert letter_apart_pairs(names) == []
    assert letter_apart_pairs([f"kind {letter}" for letter in "abc"]) == [(0, 1), (0, 2), (1, 2)]
    assert time.process_time() - began < 10


def test_names_of_9418_classes_are_compared_in_seconds():
    draw = np.random.default_rng(0)
    names = ["".join(draw.choice(list("abcdefghijklmnopqrstuvwxyz "), n)) for n in draw.integers(3, 25, 9418)]
    names = list(dict.fromkeys([*names, names[0] + "x"]))
    began = time.process_time()
    assert (0, len(names) - 1) in letter_apart_pairs(names)
    assert alike_pairs(names)[0] < 100
    assert time.process_time() - began < 10  # on a busy machine; it takes one


def test_names_of_two_common_classes_may_differ_by_a_letter(root):
    for n in range(6, 12):
        add(root, f"p{n}", [("cart", [1, 1, 50, 50]), ("card", [50, 30, 90, 80])], seed=n)
    assert not set(found(root, images=False)) & {"class names alike", "class names nearly alike"}


def test_a_class_that_train_lacks_is_found(root):
    add(root, "p4", [CAT, ("bird", [30, 30, 90, 80])], seed=4)
    assert found(root)["class missing from train"].places == ("bird",)


def test_images_in_two_lists(root):
    voc.write_split(root / "ImageSets" / "Main" / "test.txt", ["p4", "p5", "p1"])
    assert found(root)["image in two splits (data leak)"].places == ("JPEGImages/p1.png: in train and test",)


def test_a_missing_annotation_is_counted_once_over_all_lists(root):
    voc.write_split(root / "ImageSets" / "Main" / "more.txt", ["p0", "zz"])
    voc.write_split(root / "ImageSets" / "Main" / "val.txt", ["p3", *(f"x{n}" for n in range(300))])
    one = found(root, images=False)["annotation missing"]
    assert one.count == 301
    assert one.places[0] == "ImageSets/Main/more.txt: names 'zz', which has none"


def test_duplicates_are_leaks_across_splits_and_less_within(root):
    shutil.copyfile(root / "JPEGImages" / "p0.png", root / "JPEGImages" / "p4.png")
    shutil.copyfile(root / "JPEGImages" / "p1.png", root / "JPEGImages" / "p2.png")
    photograph(3).resize((118, 88)).resize((120, 90)).save(root / "JPEGImages" / "p5.png")
    told = found(root)
    assert told["identical image in two splits (data leak)"].places == (
        "JPEGImages/p4.png (in test): same as JPEGImages/p0.png (in train)",
    )
    assert told["duplicate image"].places == ("JPEGImages/p2.png (in train): same as JPEGImages/p1.png (in train)",)
    assert told["nearly identical image in two splits (data leak)"].count == 1
    assert told["identical image in two splits (data leak)"].harms
    assert not told["duplicate image"].harms


def test_cut_images_and_other_sizes(root):
    content = (root / "JPEGImages" / "p0.png").read_bytes()
    (root / "JPEGImages" / "p0.png").write_bytes(content[:300])
    Image.new("RGB", (90, 120)).save(root / "JPEGImages" / "p1.png")
    told = found(root)
    assert told["image unreadable"].places[0].startswith("JPEGImages/p0.png: ")
    [place] = told["size mismatch"].places
    assert place.startswith("Annotations/p1.xml: says 120 x 90, but JPEGImages/p1.png is 90 x 120; rotated by its EXIF")


def test_boxes_come_with_their_line(root):
    add(root, "p0", [CAT, CAT, ("dog", CAT[1]), ("dog", [5, 5, 7, 50]), DOG], size=(600, 450), seed=0)
    lines = (root / "Annotations" / "p0.xml").read_text().splitlines()
    told = found(root)
    for kind, place in (("duplicate box", 1), ("box with two classes", 2), ("box too small at the input size", 3)):
        line = int(told[kind].places[0].split(":")[1])
        assert lines[line - 1].strip() == "<object>"
        assert sum(text.strip() == "<object>" for text in lines[:line]) == place + 1
        assert told[kind].count == 1
    assert told["box too small at the input size"].places[0].endswith(": 1.4 x 31.2 px of 416")


def test_places_are_few_and_counts_are_whole():
    [one] = finding("duplicate box", (str(n) for n in range(1000)), 1000)
    assert (one.count, len(one.places), one.harms) == (1000, PLACES, False)
    assert finding("duplicate box", iter(()), 0) == []


def test_every_kind_that_a_reader_notes_has_a_remedy():
    kinds = set()
    for module in (read, builder, coco, coco_json, voc, yolo):
        for node in ast.walk(ast.parse(inspect.getsource(module))):
            named = isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "kind"
            called = isinstance(node, ast.Call) and (
                getattr(node.func, "attr", "") == "problem" or ast.unparse(node.func) == "note"
            )
            source = (
                node.value if named else node.args[1 if ast.unparse(node.func) == "note" else 2] if called else None
            )
            if source is not None and not isinstance(source, ast.Compare):
                kinds |= {n.value for n in ast.walk(source) if isinstance(n, ast.Constant)} - {"no such file"}
    assert {"image missing", "label file missing", "polygon", "box outside", "image id twice"} <= kinds
    assert kinds <= set(KINDS)


@pytest.mark.parametrize("seed", range(5))
def test_repeated_rows_are_those_of_a_plain_loop(seed):
    rows = np.random.default_rng(seed).integers(0, 3, (40, 3))
    expected = [n for n in range(40) if any((rows[n] == rows[m]).all() for m in range(n))]
    assert repeated(rows).tolist() == expected
    assert repeated(rows[:0]).tolist() == []


def test_what_coco_readers_note_is_found_with_file_and_line(tmp_path):
    (tmp_path / "images").mkdir()
    photograph(0).save(tmp_path / "images" / "a.png")
    boxes = [{"id": n, "image_id": 1, "category_id": 1, "bbox": [5, 5, 40, 40]} for n in range(2)]
    value = {"images": [{"id": 1, "file_name": "a.png", "width": 120, "height": 90}],
             "categories": [{"id": 1, "name": "cat"}], "annotations": boxes}  # fmt: skip
    (tmp_path / "instances.json").write_text(json.dumps(value, indent=0))
    [place] = found(tmp_path)["duplicate box"].places
    assert place == "instances.json: $.annotations[1] (id 1, images/a.png): cat"


def test_findings_say_how_many_where_and_what_to_do(squares):
    report = check(squares, anchors=2, images=False)
    one = Finding("duplicate box", 1234, tuple(f"a.xml:{n}: cat" for n in range(10)))
    two = Finding("image missing", 1, ("b.jpg",))
    said = str(replace(report, findings=(one, two)))
    assert " - 1,234 x duplicate box: delete one" in said
    assert said.count("a.xml:") == SHOWN
    assert f"and {1234 - SHOWN:,} more" in said
    assert "!! 1 x image missing: add the image" in said
    assert said.endswith("Fix before training: image missing")
    assert max(map(len, said.splitlines())) <= 120


def test_very_many_classes_are_summed_up(squares):
    report = check(squares, anchors=2, images=False)
    counted = replace(report.counted, classes={f"c{n}": (n, 1) for n in range(100)})
    said = str(replace(report, counted=counted))
    assert f"{100 - MOST_CLASSES} more" in said
    assert "c99" in said


def test_the_summary_names_crowd_and_unopened_images(squares):
    report = check(squares, anchors=2, images=False)
    counted = replace(report.counted, difficult=7, crowd=3)
    said = summary(replace(report, counted=counted))
    assert "(4 difficult, 3 crowd)" in said
    assert "not opened" in said


def test_the_summary_says_which_split_came_from_where(squares):
    said = summary(check(squares, anchors=2, images=False))
    assert said.splitlines()[-2].startswith("splits: train 24 (")
    assert said.splitlines()[-2].endswith("objects), from ImageSets/Main/*.txt")
