"""Tests of lookonce.commands.convert."""

import json
import os

import numpy as np
import pytest
from PIL import Image

from conftest import SHARED, needs_shared
from lookonce.cli import main
from lookonce.commands.convert import convert, unique_names
from lookonce.data.dataset import Record, pack
from lookonce.data.formats import voc
from lookonce.data.read import read_dataset
from lookonce.errors import UserError
from photographs import add


def table(dataset):
    """Image -> its boxes with names, in their order."""
    return {r.path.stem: [(dataset.labels[n], *box) for n, box in zip(r.labels, r.boxes.tolist(), strict=True)]
            for r in dataset.records}  # fmt: skip


def check_round(data, tmp_path):
    convert(data, tmp_path / "c", format="coco")
    convert(tmp_path / "c", tmp_path / "y", format="yolo")
    convert(tmp_path / "y", tmp_path / "v", format="voc")
    first, last = table(read_dataset(data)), table(read_dataset(tmp_path / "v"))
    assert first.keys() == last.keys()
    for stem, objects in first.items():
        assert [o[0] for o in objects] == [o[0] for o in last[stem]]
        if objects:
            np.testing.assert_allclose([o[1:] for o in last[stem]], [o[1:] for o in objects], atol=0.5)


def test_boxes_and_splits_survive_the_round_of_formats(squares, tmp_path):
    check_round(squares, tmp_path)
    for split in ("train", "val", "test"):
        stems = [r.path.stem for r in read_dataset(squares, split).records]
        for folder in "cyv":
            assert [r.path.stem for r in read_dataset(tmp_path / folder, split).records] == stems


def test_names_that_yaml_would_resolve_survive_the_round(tmp_path):
    names = ["no", "on", "007", "12:30", "1e3", "null", "~", "2024-01-01", "猫", "a: b", "#x", "'q'"]
    for n, name in enumerate(names):
        add(tmp_path / "set", f"p{n}", [(name, [1, 2, 30, 40])], seed=n)
    check_round(tmp_path / "set", tmp_path)
    assert sorted(read_dataset(tmp_path / "y").labels) == sorted(names)
    assert sorted(read_dataset(tmp_path / "y" / "obj.data").labels) == sorted(names)


@needs_shared
def test_voc_photographs_survive_the_round_of_formats(tmp_path):
    check_round(SHARED / "data" / "voc100", tmp_path)


@pytest.fixture
def hard(tmp_path):
    root = tmp_path / "hard"
    add(root, "a", [], size=(64, 48))
    boxes = np.array([[1, 2, 30, 40], [5, 5, 20, 20]], np.float32)
    voc.write_annotation(root / "Annotations" / "a.xml", "a.png", (64, 48), boxes, ["cat", "dog"], [True, False])
    return root


def test_what_a_format_cannot_hold_is_counted_and_reported(hard, tmp_path):
    assert "1 difficult objects are written as ordinary" in str(convert(hard, tmp_path / "y", format="yolo"))
    assert "1 difficult objects are marked ignore" in str(convert(hard, tmp_path / "c", format="coco"))
    assert read_dataset(tmp_path / "c").difficult.tolist() == [True, False]
    file = tmp_path / "c" / "annotations" / "instances.json"
    file.write_text(file.read_text().replace('"iscrowd": 0, "ignore": 1', '"iscrowd": 1, "ignore": 0'))
    assert "1 crowd boxes are written as difficult" in str(convert(tmp_path / "c", tmp_path / "v", format="voc"))
    assert "1 crowd boxes are written as ordinary" in str(convert(tmp_path / "c", tmp_path / "y2", format="yolo"))
    assert read_dataset(tmp_path / "v").difficult.tolist() == [True, False]
    assert convert(hard, tmp_path / "v2", format="voc").losses == ()
    (tmp_path / "y" / "obj.data").unlink()
    (tmp_path / "y" / "data.yaml").write_text((tmp_path / "y" / "data.yaml").read_text() + "  2: cow\n")
    assert "1 classes without objects are lost" in str(convert(tmp_path / "y", tmp_path / "v3", format="voc"))


def test_names_stay_apart_and_without_blanks(tmp_path):
    none = np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, bool)
    paths = ["x/a.jpg", "y/A.png", "y/a b.jpg", "z/a.jpg", "z/y_A.jpg", "q.jpg.png"]
    dataset = pack("n", tmp_path, ("c",), [Record(tmp_path / p, (4, 4), *none) for p in paths])
    names = unique_names(dataset)
    assert names[0] == "a.jpg"
    assert names[2] == "a_b.jpg"
    assert names[5] == "q_jpg.png"
    assert len({name.rpartition(".")[0].lower() for name in names}) == len(names)


def test_a_full_folder_is_left_alone(squares, tmp_path):
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(UserError, match="already exists"):
        convert(squares, tmp_path, format="coco")
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]
    with pytest.raises(UserError, match="format: 'tfrecord'"):
        convert(squares, tmp_path / "new", format="tfrecord")


def test_a_failure_leaves_nothing_behind(squares, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lookonce.commands.convert._copy", full)
    with pytest.raises(UserError, match="No space left on device; nothing was changed"):
        convert(squares, tmp_path / "out", format="coco")
    assert list(tmp_path.iterdir()) == []


def test_on_the_command_line(squares, tmp_path, capsys):
    assert main(["convert", str(squares), str(tmp_path / "out"), "--format", "coco", "--labels", "red"]) == 0
    assert "40 images" in capsys.readouterr().out
    assert read_dataset(tmp_path / "out").labels == ("red",)


def test_a_converted_set_stays_out_of_the_one_that_is_read(squares):
    with pytest.raises(UserError, match=r"new: is inside the data set .*; name a folder outside it"):
        convert(squares, squares / "new", format="yolo")
    assert not (squares / "new").exists()


def coco_of(folder, names):
    """A COCO set that gives the size of each image, so that none has to be opened."""
    images = [{"id": n, "file_name": name, "width": 64, "height": 48} for n, name in enumerate(names)]
    boxes = [{"id": n, "image_id": n, "category_id": 1, "bbox": [1, 2, 30, 40]} for n in range(len(names))]
    folder.mkdir(exist_ok=True)
    Image.new("RGB", (64, 48)).save(folder / "a.png")
    content = {"categories": [{"id": 1, "name": "cat"}], "images": images, "annotations": boxes}
    (folder / "instances.json").write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize("name", ["id_rsa", "key.png"])
def test_only_images_are_copied_whatever_the_labels_name(tmp_path, name, caplog):
    """A file without an image's ending, and one with it but of another content."""
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / name).write_text("PRIVATE KEY")
    data = coco_of(tmp_path / "set", [f"../secret/{name}", "a.png", str(tmp_path / "secret" / name)])
    found = convert(data, tmp_path / "out", format="yolo")
    assert (found.images, found.objects) == (1, 1)
    assert b"PRIVATE" not in b"".join(file.read_bytes() for file in (tmp_path / "out").rglob("*") if file.is_file())
    assert f"../secret/{name}" in caplog.text
    assert [r.path.name for r in read_dataset(tmp_path / "out").records] == ["a.png"]
    with pytest.raises(UserError, match=f"../secret/{name}"):
        convert(data, tmp_path / "strict", format="yolo", policy="error")
    assert not (tmp_path / "strict").exists()


def test_images_outside_the_data_set_are_counted(tmp_path, caplog):
    coco_of(tmp_path / "other", [])
    convert(coco_of(tmp_path / "set", ["a.png"]), tmp_path / "c", format="voc")
    assert "outside" not in caplog.text
    convert(coco_of(tmp_path / "set", ["a.png", "../other/a.png"]), tmp_path / "v", format="voc")
    assert f"1 image outside its folder copied, the first: {tmp_path / 'other' / 'a.png'}" in caplog.text


def test_splits_follow_their_images_where_some_are_left_out(tmp_path):
    (tmp_path / "key.png").write_text("PRIVATE KEY")
    data = coco_of(tmp_path / "set", ["../key.png", "a.png"])
    (data / "instances.json").rename(data / "instances_train.json")
    Image.new("RGB", (64, 48)).save(data / "b.png")
    (data / "instances_val.json").write_text((data / "instances_train.json").read_text().replace("a.png", "b.png"))
    convert(data, tmp_path / "out", format="coco")
    assert [[r.path.name for r in read_dataset(tmp_path / "out", s).records] for s in ("train", "val")] == [
        ["a.png"], ["b.png"],
    ]  # fmt: skip


def test_images_are_copies_unless_links_are_asked_for(tmp_path):
    data = coco_of(tmp_path / "set", ["a.png"])
    for link in (False, True):
        convert(data, tmp_path / f"out{link}", format="yolo", link=link)
        assert os.path.samefile(data / "a.png", tmp_path / f"out{link}" / "images" / "a.png") == link
