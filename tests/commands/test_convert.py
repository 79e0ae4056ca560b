"""Mirrors src/lookonce/data/converting.py."""

import numpy as np
import pytest
from test_read import add

from conftest import SHARED, needs_shared
from lookonce.cli import main
from lookonce.commands.convert import convert, unique_names
from lookonce.data.dataset import Record, pack
from lookonce.data.formats import voc
from lookonce.data.read import read_dataset
from lookonce.errors import UserError


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
        add(tmp_path / "set", f"p{n}", [(name, [1, 2, 30, 40])])
    check_round(tmp_path / "set", tmp_path)
    assert sorted(read_dataset(tmp_path / "y").labels) == sorted(names)
    assert sorted(read_dataset(tmp_path / "y" / "obj.data").labels) == sorted(names)


@needs_shared
def test_voc_photographs_survive_the_round_of_formats(tmp_path):
    check_round(SHARED / "data" / "voc100", tmp_path)


@pytest.fixture
def hard(tmp_path):
    root = tmp_path / "hard"
    add(root, "a", [("cat", [1, 2, 30, 40])])
    boxes = np.array([[1, 2, 30, 40], [5, 5, 20, 20]], np.float32)
    voc.write_annotation(root / "Annotations" / "a.xml", "a.jpg", (64, 48), boxes, ["cat", "dog"], [True, False])
    return root


def test_what_a_format_cannot_hold_is_counted_and_said(hard, tmp_path):
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
    assert "1 classes have no object" in str(convert(tmp_path / "y", tmp_path / "v3", format="voc"))


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
    with pytest.raises(UserError, match="there already"):
        convert(squares, tmp_path, format="coco")
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]
    with pytest.raises(UserError, match="format: 'tfrecord'"):
        convert(squares, tmp_path / "new", format="tfrecord")


def test_a_failure_leaves_nothing_behind(squares, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lookonce.commands.convert._link", full)
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
