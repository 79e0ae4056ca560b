"""Whatever a file holds, a reader gives records or a UserError: nothing else, not slowly, not at any size."""

import functools
import json
import resource
import sys
import time

import fuzz  # benchmarks/fuzz.py: the readers, and what damages their inputs
import pytest

from lookonce import errors
from lookonce.data.read import read_dataset
from lookonce.errors import UserError

hypothesis = pytest.importorskip("hypothesis", reason="hypothesis makes the inputs")
st = hypothesis.strategies
SECONDS, BYTES = 20.0, 500e6
"""Most that 1 MB of input may take. The time is that of this thread alone, with room for a busy machine and for
measuring coverage."""

NAMED = {"voc": "voc", "coco": "coco", "yolo": "yolo", "darknet": "yolo"}
settings = functools.partial(
    hypothesis.settings, deadline=None, derandomize=True, max_examples=60,
    suppress_health_check=list(hypothesis.HealthCheck),
)  # fmt: skip


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    """A valid data set of each kind."""
    found = {}
    for kind in fuzz.SETS:
        found[kind] = root = tmp_path_factory.mktemp(kind)
        fuzz.write_set(kind, root)
    return found


@pytest.mark.parametrize("reader", fuzz.READERS)
def test_a_damaged_input_gives_a_result_or_one_line(reader, tmp_path):
    """The first inputs of `python benchmarks/fuzz.py`, which runs as many as one likes."""
    bench = fuzz.prepare(reader, tmp_path / reader)
    for number in range(60):
        content = bench.input(0, reader, number)
        outcome = fuzz.judge(bench, content)
        assert outcome.kind in ("accepted", "UserError", "slow"), (outcome.what, content[:300])


def test_inputs_are_fixed_by_their_number(tmp_path):
    first, second = (fuzz.prepare("cfg", tmp_path / name) for name in ("a", "b"))
    assert [first.input(3, "cfg", n) for n in range(20)] == [second.input(3, "cfg", n) for n in range(20)]
    assert len({first.input(3, "cfg", n) for n in range(50)}) > 40


def breaking(folder):
    """A reader that raises, by its input, an error of its own kind, one of two lines, or a UserError."""

    def read():
        match (folder / "x").read_bytes()[:1]:
            case b"t":
                raise KeyError("\x1b[31m")
            case b"m":
                error = errors.UserError("fine")
                error.args = ("two\nlines",)
                raise error
            case b"u":
                raise errors.UserError("two\nlines")
            case b"e":
                raise MemoryError

    return fuzz.Bench([b"ok"], folder / "x", read)


def test_each_kind_of_offence_is_seen_and_kept(tmp_path):
    bench = breaking(tmp_path)
    found = {content: fuzz.judge(bench, content) for content in (b"ok", b"t", b"m", b"u", b"e")}
    assert [outcome.kind for outcome in found.values()] == ["accepted", "traceback", "message", "UserError", "memory"]
    assert found[b"t"].what.startswith("KeyError at test_readers_fuzz.py:")
    tally = fuzz.Tally("x", tmp_path / "kept")
    for _ in range(5):
        tally.save(found[b"t"], b"t")
    assert [file.suffix for file in sorted((tmp_path / "kept" / "x").iterdir())] == [".bin", ".txt"]
    assert list(tally.found.values()) == [5]


def test_a_worker_process_counts_what_it_reads(tmp_path):
    tally = fuzz.fuzz("tree", 50, 0, tmp_path)
    assert sum(tally.counts.values()) == 50
    assert not tally.found
    assert tally.row().split()[:2] == ["tree", "50"]


def survives(root, kind, name, content, splits=(None, "train")):
    """Read the data set with other content in one file, twice a split: its format named, and found by looking."""
    file = root / name
    before = file.read_bytes()
    try:
        file.write_bytes(content)
        for format in (NAMED[kind], "auto"):
            for split in splits:
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


@pytest.mark.parametrize("kind", fuzz.SETS)
def test_the_undamaged_sets_can_be_read(roots, kind):
    assert len(read_dataset(roots[kind]).boxes) > 0


VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=4), st.just(1 << 70)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=3), inner, max_size=3)),
    max_leaves=6,
)


def test_any_value_in_any_place_of_a_coco_file(roots):
    @settings(max_examples=75)
    @hypothesis.given(st.data(), VALUES)
    def holds(data, value):
        found = json.loads(json.dumps(fuzz.COCO))
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


@settings()
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
    "json: wrong boxes": ("coco", json.dumps(fuzz.COCO | {"annotations": [
        {"image_id": 1, "bbox": 0}] * 30_000}).encode()),
    "json: boxes of no image": ("coco", json.dumps(fuzz.COCO | {"annotations": [
        {"image_id": n, "bbox": [1, 2, 3, 4], "category_id": 1} for n in range(16_000)]}).encode()),
    "json: missing images": ("coco", json.dumps(fuzz.COCO | {"images": [
        {"id": n, "file_name": f"{n}/{n}/{n}.png"} for n in range(20_000)]}).encode()),
    "xml: objects": ("voc", b"<annotation>" + b"<object></object>" * 58_000 + b"</annotation>"),
    "xml: nested": ("voc", b"<annotation>" + b"<a>" * (MEGABYTE // 3)),
    "xml: nested and closed": ("voc", b"<annotation>" + b"<a>" * 140_000 + b"</a>" * 140_000 + b"</annotation>"),
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
        began = time.thread_time()
        try:
            read_dataset(roots[kind], format=NAMED[kind])
        except UserError as error:
            said = str(error)
        else:
            said = ""
        assert len(said) < 10_000
        assert time.thread_time() - began < SECONDS
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
    ("data.yaml", b"\n" * 250_000),
    ("val.txt", b"nowhere/else/p.png\n" * 13_000),
    ("val.txt", b"".join(b"%d/x/p%d.png\n" % (n, n) for n in range(15_000))),
])  # fmt: skip
def test_large_descriptions_and_lists(roots, name, content):
    began = time.thread_time()
    survives(roots["yolo"], "yolo", name, content, splits=(None,))
    assert time.thread_time() - began < 2 * SECONDS  # it is read twice
