"""Whatever a file holds, a reader gives records or a UserError: nothing else, not slowly, not at any size."""

import functools
import json
import resource
import sys
import time

import pytest
from PIL import Image

from lookonce.data.catalog import read_dataset
from lookonce.errors import UserError

hypothesis = pytest.importorskip("hypothesis", reason="hypothesis makes the inputs")
st = hypothesis.strategies
SECONDS, BYTES = 2.0, 500e6
"""Most that 1 MB of input may take; a few hundred times what it does take."""

XML = """<?xml version="1.0"?>
<annotation><filename>p.png</filename><size><width>64</width><height>48</height></size>
<object><name>cat</name><difficult>1</difficult>
<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>30</xmax><ymax>40</ymax></bndbox></object></annotation>
"""
COCO = {
    "images": [{"id": 1, "file_name": "p.png", "width": 64, "height": 48}],
    "categories": [{"id": 1, "name": "cat"}],
    "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "iscrowd": 0}],
}
ODD_COCO = {
    "images": [{"id": "1", "coco_url": "http://h/p.png?x=1", "width": 64}, {"id": 1.0, "file_name": "images/p.png"},
               {"id": "q", "file_name": "p.png"}],
    "categories": [{"id": 0, "name": "r", "supercategory": "none"}, {"id": 1, "name": 3, "supercategory": "r"}],
    "annotations": [{"id": "a", "image_id": "1", "category_id": "1.0", "segmentation": [[1, 2, 30, 4, 5, 40]]},
                    {"image_id": "q", "category_id": 1, "bbox": ["1", "2", "3", 4], "area": float("nan")}],
}  # fmt: skip
ODD_XML = """<?xml version="1.0" encoding="iso-8859-1"?><annotation xmlns="u:x"><object><name>cat</name><polygon>
<x1>1</x1><y1>2</y1><x2>30</x2><y2>2</y2><x3>9</x3><y3>40</y3></polygon></object></annotation>
"""
YAML = "path: .\ntrain: images\nval: val.txt\nnames: {0: cat, 1: dog}\n"
LABELS = "0 .5 .5 .5 .5\n1 .1 .1 .1 .1\r\n"
FILES = {
    "voc": {"Annotations/p.xml": XML, "ImageSets/Main/train.txt": "p\n"},
    "coco": {"annotations/instances_train.json": json.dumps(COCO, indent=1)},
    "yolo": {"data.yaml": YAML, "labels/p.txt": LABELS, "val.txt": "./images/p.png\n"},
    "odd coco": {"annotations/instances_train.json": json.dumps(ODD_COCO)},
    "odd voc": {"Annotations/p.xml": ODD_XML},
    "pose": {"data.yaml": "names:\n  0: no\n  1: 007\nnc: 3\ntrain: images\nkpt_shape: [2, 2]\ntest: null\n",
             "labels/p.txt": "0.0 .5 .5 .5 .5 .1 .1 .2 .2\n1 .1 .1 .9 .1 .9 .9\n"},
    "darknet": {"obj.data": "names = obj.names\ntrain = train.txt\n", "obj.names": "cat\ndog\n",
                "train.txt": "images/p.png\n", "labels/p.txt": LABELS},
}  # fmt: skip
NAMED = {"voc": "voc", "coco": "coco", "yolo": "yolo", "odd coco": "coco", "odd voc": "voc", "pose": "yolo",
         "darknet": "yolo"}  # fmt: skip
TARGETS = [(kind, name) for kind, files in FILES.items() for name in files]
settings = functools.partial(
    hypothesis.settings, deadline=None, derandomize=True, max_examples=60,
    suppress_health_check=list(hypothesis.HealthCheck),
)  # fmt: skip


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    """A valid data set of each kind."""
    found = {}
    for kind, files in FILES.items():
        found[kind] = root = tmp_path_factory.mktemp(kind)
        for name, text in files.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text)
        (root / "images").mkdir(exist_ok=True)
        Image.new("RGB", (64, 48)).save(root / "images" / "p.png")
    return found


def survives(root, kind, name, content):
    """Read the data set with other content in one file, twice: named, and found by looking."""
    file = root / name
    before = file.read_bytes()
    try:
        file.write_bytes(content)
        for format in (NAMED[kind], "auto"):
            for split in (None, "train"):
                try:
                    found = read_dataset(root, split, format=format)
                except UserError as error:
                    said = str(error)
                    assert "\n" not in said
                else:
                    assert len(found.boxes) == len(found.classes) == found.first[-1]
                    assert (found.boxes[:, 2:] > found.boxes[:, :2]).all()
    finally:
        file.write_bytes(before)


@pytest.mark.parametrize("kind", FILES)
def test_the_undamaged_sets_can_be_read(roots, kind):
    assert len(read_dataset(roots[kind]).boxes) > 0


@pytest.mark.parametrize("kind, name", TARGETS)
def test_damaged_bytes(roots, kind, name):
    whole = FILES[kind][name].encode()

    @settings()
    @hypothesis.given(st.data())
    def holds(data):
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
        survives(roots[kind], kind, name, bytes(content))

    holds()


@pytest.mark.parametrize("kind, name", TARGETS)
def test_any_bytes(roots, kind, name):
    @settings(max_examples=30)
    @hypothesis.given(st.one_of(st.binary(max_size=200), st.text(max_size=100).map(str.encode)))
    def holds(content):
        survives(roots[kind], kind, name, content)

    holds()


VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=4), st.just(1 << 70)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=3), inner, max_size=3)),
    max_leaves=6,
)


def test_any_value_in_any_place_of_a_coco_file(roots):
    @settings(max_examples=150)
    @hypothesis.given(st.data(), VALUES)
    def holds(data, value):
        found = json.loads(json.dumps(COCO))
        section = data.draw(st.sampled_from(sorted(found)))
        key = data.draw(st.sampled_from([None, "list", *sorted(found[section][0])]))
        if key is None:
            found[section] = value
        elif key == "list":
            found[section].append(value)
        else:
            found[section][0][key] = value
        survives(roots["coco"], "coco", "annotations/instances_train.json", json.dumps(found).encode())

    holds()


@settings(max_examples=100)
@hypothesis.given(
    st.lists(st.lists(st.one_of(st.floats().map(str), st.integers().map(str), st.text(max_size=3)), max_size=9))
)
def _lines(roots, lines):
    survives(roots["yolo"], "yolo", "labels/p.txt", "\n".join(map(" ".join, lines)).encode("utf-8", "ignore"))


def test_any_words_in_a_label_file(roots):
    _lines(roots)


MEGABYTE = 1_000_000
LARGE = {
    "json: nested lists": ("coco", b'{"images": ' + b"[" * MEGABYTE),
    "json: nested objects": ("coco", b'{"images": [' + b'{"a":' * (MEGABYTE // 5)),
    "json: empty objects": ("coco", b'{"info": [' + b"{}," * (MEGABYTE // 3) + b"0]}"),
    "json: one long number": ("coco", b'{"info": ' + b"9" * MEGABYTE + b"}"),
    "json: one long text": ("coco", b'{"info": "' + b"\\u0041" * (MEGABYTE // 6)),
    "json: blanks": ("coco", b"{" + b" " * MEGABYTE),
    "json: wrong boxes": ("coco", json.dumps(COCO | {"annotations": [{"image_id": 1, "bbox": 0}] * 30_000}).encode()),
    "json: boxes of no image": ("coco", json.dumps(COCO | {"annotations": [
        {"image_id": n, "bbox": [1, 2, 3, 4], "category_id": 1} for n in range(16_000)]}).encode()),
    "json: missing pictures": ("coco", json.dumps(COCO | {"images": [
        {"id": n, "file_name": f"{n}/{n}/{n}.png"} for n in range(20_000)]}).encode()),
    "xml: objects": ("voc", b"<annotation>" + b"<object></object>" * 58_000 + b"</annotation>"),
    "xml: nested": ("voc", b"<annotation>" + b"<a>" * (MEGABYTE // 3)),
    "xml: a long text": ("voc", b"<annotation><filename>" + b"a&lt;" * (MEGABYTE // 5)),
    "xml: entities": ("voc", b'<!DOCTYPE a [<!ENTITY a "' + b"a" * MEGABYTE + b'">]><annotation>&a;&a;</annotation>'),
    "yolo: short lines": ("yolo", b"1\n" * (MEGABYTE // 2)),
    "yolo: boxes": ("yolo", b"0 .5 .5 .1 .1\n" * (MEGABYTE // 14)),
    "yolo: one line": ("yolo", b"0 " * (MEGABYTE // 2)),
    "yolo: long numbers": ("yolo", b"0 .5 .5 .1 " + b"1" * MEGABYTE),
}  # fmt: skip


@pytest.mark.parametrize("what", LARGE)
def test_a_megabyte_is_read_in_bounded_time_and_memory(roots, what):
    kind, content = LARGE[what]
    name = {"coco": "annotations/instances_train.json", "voc": "Annotations/p.xml", "yolo": "labels/p.txt"}[kind]
    file = roots[kind] / name
    before = file.read_bytes()
    rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        file.write_bytes(content)
        began = time.process_time()
        try:
            read_dataset(roots[kind], format=NAMED[kind])
        except UserError as error:
            said = str(error)
        else:
            said = ""
        assert len(said) < 10_000
        assert time.process_time() - began < 4 * SECONDS  # a busy machine's clock; the law is SECONDS
    finally:
        file.write_bytes(before)
    unit = 1 if sys.platform == "darwin" else 1024
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - rss) * unit < BYTES


@pytest.mark.parametrize("name, content", [
    ("data.yaml", b"names: [" + b"a," * 120_000 + b"]"),
    ("data.yaml", b"names:\n" + b"- a\n" * 60_000),
    ("data.yaml", b"a: &a [x]\n" + b"b: [*a, *a]\n" * 30_000),
    ("data.yaml", b"? " * 100_000),
    ("data.yaml", b"[" * 250_000),
    ("val.txt", b"nowhere/else/p.png\n" * 13_000),
    ("val.txt", b"".join(b"%d/x/p%d.png\n" % (n, n) for n in range(15_000))),
])  # fmt: skip
def test_large_descriptions_and_lists(roots, name, content):
    began = time.process_time()
    survives(roots["yolo"], "yolo", name, content)
    assert time.process_time() - began < 4 * 4 * SECONDS  # it is read four times
