"""Names of classes and files may hold anything: they are shown and written as one line of text, by every command."""

import csv
import io
import json
import os
import sys

import numpy as np
import pytest
from PIL import Image

from lookonce import Network, read_dataset
from lookonce.cli import main
from lookonce.commands.convert import unique_names
from lookonce.errors import UNPRINTABLE
from lookonce.model.model_file import Model, save_model
from lookonce.text import clean_name
from sets import nano

NAMES = [
    "[/x]", "[bold]cat", r"$\frac{1}{", "two\nlines", "half \ud800", "bell\x07\x00", "\x1b[31mred\x1b]0;t\x07",
    "x" * 2000,
    "x" * 1999 + "y", "\u202egnp", "<script>alert(1)</script>", '=1+1,"b"', "{{ 7*7 }}", "%s", "a/../../b", "né 猫",
]  # fmt: skip
FILES = [b"caf\xe9.png", b"[red]x.png", b"esc\x1b[31m.png", b"new\nline.png", b"$x_.png", b"%s a.png"]
CLEAN = list(map(clean_name, NAMES))


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hostile") / "images"
    folder.mkdir()
    for n, name in enumerate(FILES):
        with open(folder / os.fsdecode(name) if sys.platform == "linux" else folder / f"{n}.png", "wb") as file:
            Image.fromarray(np.random.default_rng(n).integers(0, 255, (64, 64, 3), np.uint8)).save(file, "PNG")
    return folder


@pytest.fixture(scope="module")
def coco(images):
    """A set of these classes; COCO names files as JSON can, so those that are not UTF-8 are left out."""
    names = [name for name in os.listdir(images) if name.isprintable()]
    content = {
        "categories": [{"id": n, "name": name} for n, name in enumerate(NAMES)],
        "images": [{"id": n, "file_name": name} for n, name in enumerate(names)],
        "annotations": [{"id": n, "image_id": n % len(names), "category_id": n, "bbox": [9, 9, 40, 40]}
                        for n in range(len(NAMES))],
    }  # fmt: skip
    (images.parent / "instances.json").write_text(json.dumps(content))
    return images.parent


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "m.safetensors"
    save_model(Model(Network(nano(len(NAMES), ((1.0, 1.0),))), tuple(NAMES), (64, 64)), path)
    return path


def test_names_are_one_visible_line_and_stay_apart():
    assert len(set(CLEAN)) == len(NAMES)
    assert not any(UNPRINTABLE.search(name) for name in CLEAN)
    assert max(map(len, CLEAN)) == 200
    assert list(map(clean_name, CLEAN)) == CLEAN
    assert clean_name("né 猫") == "né 猫"


@pytest.mark.parametrize("format", ["yolo", "coco", "voc"])
def test_a_converted_set_has_the_same_classes(coco, tmp_path, format, capfd):
    assert main(["convert", str(coco), str(tmp_path / "out"), "--format", format]) == 0
    assert sorted(read_dataset(tmp_path / "out").labels) == sorted(read_dataset(coco).labels) == sorted(CLEAN)
    if format == "yolo":
        assert (tmp_path / "out" / "obj.names").read_text(encoding="utf-8").splitlines() == CLEAN
    assert_plain(capfd.readouterr())


def assert_plain(shown):
    """No character that a terminal obeys, beyond line ends."""
    assert not UNPRINTABLE.search((shown.out + shown.err).replace("\n", ""))


def test_file_names_that_are_not_utf8_are_converted_and_split(images, tmp_path, capfd):
    root = tmp_path / "set"
    (root / "labels").mkdir(parents=True)
    (root / "images").symlink_to(images)
    for name in os.listdir(images):
        (root / "labels" / name).with_suffix(".txt").write_text("0 .5 .5 .5 .5\n")
    (root / "classes.txt").write_text("cat\n")
    assert len(read_dataset(root, "train")) + len(read_dataset(root, "val")) + len(read_dataset(root, "test")) == 6
    names = unique_names(read_dataset(root))
    assert len(set(names)) == 6
    assert not any(UNPRINTABLE.search(name) for name in names)
    assert main(["check", str(root), "--report", str(tmp_path / "page.html"), "--json"]) in (0, 1)
    assert "\x1b[31m" not in (tmp_path / "page.html").read_text(encoding="utf-8")
    assert main(["convert", str(root), str(tmp_path / "out"), "--format", "voc"]) == 0
    assert len(read_dataset(tmp_path / "out")) == 6
    assert_plain(capfd.readouterr())


def test_detections_are_written_in_every_format(model, images, tmp_path, capfd):
    save = ["--save", "csv", "coco", "yolo", "voc", "crops"]
    words = ["detect", str(model), str(images), "--out", str(tmp_path / "out"), "--threshold", "0.01", *save]
    assert main([*words, "--backend", "torch"]) == 0
    assert_plain(capfd.readouterr())
    found = json.loads((tmp_path / "out" / "detections.json").read_bytes())
    assert found["labels"] == CLEAN
    assert sorted(entry["file"] for entry in found["images"]) == sorted(str(path) for path in images.iterdir())
    rows = list(csv.reader(io.StringIO((tmp_path / "out" / "detections.csv").read_text(encoding="utf-8"))))
    assert len(rows) > 1
    assert {len(row) for row in rows} == {len(rows[0])}
    assert (tmp_path / "out" / "classes.txt").read_text(encoding="utf-8").splitlines() == CLEAN
    assert {path.relative_to(tmp_path / "out").parts[0] for path in (tmp_path / "out").rglob("*.jpg")} >= {"crops"}


def test_pages_hold_names_as_text(model, coco, tmp_path, capfd):
    page = tmp_path / "page.html"
    words = ["evaluate", str(model), str(coco), "--split", "all", "--bootstrap", "0", "--backend", "torch"]
    assert main([*words, "--report", str(page)]) == 0
    text = page.read_text(encoding="utf-8")
    assert "&lt;script&gt;alert(1)" in text
    assert "<script>alert" not in text
    assert "\x1b" not in text
    assert_plain(capfd.readouterr())
