"""Mirrors src/lookonce/description.py."""

import json
from dataclasses import replace

import pytest

from conftest import GOLDEN
from lookonce import __version__
from lookonce.errors import UserError
from lookonce.model.model_file import FORMAT, Description, ModelFileError, load_model, not_ours


@pytest.fixture(scope="module", params=["dk_yolov2s_160", "dk_tree_96x64"])
def about(request):
    return replace(load_model(GOLDEN / f"{request.param}.cfg").description, training={"recipe": {"loss": "region"}})


def test_it_comes_back_from_json_as_it_was(about):
    text = json.dumps(about.to_json())
    assert Description.from_text(text, "m") == about
    assert json.loads(text)["version"] == __version__
    deep = replace(about, pixel_range=(51_000.0, 52_000.0), resize="letterbox_antialias")
    assert Description.from_text(json.dumps(deep.to_json()), "m") == deep
    before = {name: value for name, value in about.to_json().items() if name != "pixel_range"}
    assert Description.from_text(json.dumps(before), "m") == about  # a file from before there was one


@pytest.mark.parametrize("change, message", [
    ({"format": FORMAT + 1}, f"m: format {FORMAT + 1}, and this lookonce reads {FORMAT}; use its own version"),
    ({"resize": "crop"}, "m: resize 'crop'; expected one of"),
    ({"labels": ["a"]}, "1 labels for a network of"),
    ({"thresholds": [0.5]}, "1 thresholds for"),
    ({"pixel_range": [5, 1]}, "m: pixel_range '[5, 1]'; expected two growing numbers"),
    ({"pixel_range": ["a", 1]}, "m: pixel_range"), ({"pixel_range": 3}, "m: pixel_range"),
    ({"pixel_range": [0, float("inf")]}, "m: pixel_range"), ({"input_size": None}, "m: its description cannot be read"),
    ({"cfg": "[net]\n[warp]\n"}, "m:2"),
])  # fmt: skip
def test_what_does_not_hold_together_is_told(about, change, message):
    with pytest.raises(UserError) as told:
        Description.from_text(json.dumps({**about.to_json(), **change}), "m")
    assert message in str(told.value)


@pytest.mark.parametrize("change", [
    {"cfg": []}, {"cfg": None}, {"input_size": [0, 0]}, {"input_size": [96]}, {"input_size": [160, float("inf")]},
    {"input_size": [160, 1e9]}, {"input_size": [160, True]}, {"input_size": [160, -32]}, {"input_size": [2**40, 2**40]},
    {"seen": float("inf")}, {"seen": -1}, {"seen": 2**70}, {"labels": [1, 2]}, {"labels": "ab"},
    {"thresholds": [float("nan")] * 2}, {"thresholds": {}}, {"training": [1]}, {"training": {"recipe": 5}},
    {"tree": 5}, {"tree": {"parents": [None]}}, {"resize": []}, {"format": "a\nb"}, {"format": None},
])  # fmt: skip
def test_values_of_another_kind_are_one_line(about, change):
    with pytest.raises(UserError) as told:
        Description.from_text(json.dumps({**about.to_json(), **change}), "m")
    assert str(told.value).startswith("m: ")
    assert len(str(told.value).splitlines()) == 1


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "null", "[" * 100_000])
def test_what_is_no_description_is_one_line(text):
    with pytest.raises(ModelFileError, match="m: its description cannot be read") as told:
        Description.from_text(text, "m")
    assert "\n" not in str(told.value)


def test_a_foreign_file_is_told_what_to_do():
    assert "write it with lookonce export" in str(not_ours("m.onnx", "an ONNX file"))
