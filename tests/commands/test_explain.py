"""Tests of lookonce.commands.explain."""

import shutil

import pytest

from lookonce import explain
from lookonce.cli import main
from lookonce.data.read import read_dataset
from lookonce.errors import UserError
from lookonce.model.model_file import load_model
from lookonce.model.sizes import num_floats


def test_a_run_decides_size_anchors_and_network(run, squares, tmp_path):
    found = explain(squares, run, split="val", out=tmp_path / "e.html")
    text = found.page.read_text(encoding="utf-8")
    assert found.weights == num_floats(load_model(run).layers)
    assert found.boxes == len(read_dataset(squares, "val").boxes)
    assert "input 96 &times; 96 px" in text
    assert "The loss of one image" in text
    for option in ({"size": 128}, {"anchors": 3}, {"network": "yolov2"}, {"resize": "stretch"}, {"labels": "red"}):
        with pytest.raises(UserError, match=f"--{next(iter(option))}: the model decides it"):
            explain(squares, run, out=tmp_path / "f.html", **option)


def test_without_a_run_the_network_has_no_loss(squares, tmp_path):
    found = explain(squares, network="nano", anchors=2, size=96, labels="red", out=tmp_path / "e.html")
    text = found.page.read_text(encoding="utf-8")
    assert "The loss of one image" not in text
    assert "lookonce explain DATA RUN" in text
    assert "x, y, w, h, objectness + 1 class)" in text
    assert found.page.name in str(found)
    assert found.to_json()["page"] == str(tmp_path / "e.html")


def test_the_image_to_follow_can_be_named(squares, tmp_path):
    options = {"network": "nano", "anchors": 1, "size": 96, "out": tmp_path / "e.html"}
    assert explain(squares, image="train005.png", **options).image == "train005.png"
    with pytest.raises(UserError, match=r"trian005\.png is not among the 24 images .* did you mean train005\.png"):
        explain(squares, image="trian005.png", overwrite=True, **options)


def test_a_darknet_model_is_explained_with_the_classes_it_shares(run, squares, tmp_path):
    from lookonce import export

    export(run, "darknet", out=tmp_path / "m")
    data = shutil.copytree(squares, tmp_path / "s")
    for file in (data / "Annotations").iterdir():
        file.write_text(file.read_text().replace(">red<", ">Red<"))
    found = explain(data, tmp_path / "m.cfg", out=tmp_path / "e.html")
    assert found.boxes == len(read_dataset(squares, "train").boxes)


def test_wrong_input_is_refused_in_one_line(run, squares, tmp_path, capsys):
    for words, message in (
        ([str(run), str(squares)], "the data set comes first: lookonce explain DATA RUN"),
        ([str(squares), "--out", str(tmp_path / "e.txt")], "expected a name that ends in .html"),
        ([str(squares), "--out", str(squares / "e.html")], "inside the data set"),
        ([str(squares), "--size", "100"], "multiples of the stride"),
        ([str(squares), "--size", "0"], "multiples of the stride"),
        ([str(squares), "--network", "yolov9"], "yolov9"),
        ([str(squares), "--anchors", "0"], "expected at least 1"),
    ):
        assert main(["explain", *words]) == 2
        assert message in " ".join(capsys.readouterr().err.split())
    shutil.copytree(squares, tmp_path / "s")
    for file in (tmp_path / "s" / "Annotations").iterdir():
        file.write_text(file.read_text().replace(">red<", ">tree<").replace(">blue<", ">house<"))
    with pytest.raises(UserError, match=r"found the classes house, tree; expected the model's \(blue, red\)"):
        explain(tmp_path / "s", run, out=tmp_path / "e.html")


def test_pages_of_the_default_name_are_numbered(squares, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    pages = [explain(squares, network="nano", anchors=1, size=96).page.name for _ in range(2)]
    assert pages == ["explain.html", "explain-2.html"]
