"""Tests of lookonce.training.identity."""

import json
from dataclasses import replace

import numpy as np
import pytest

from lookonce import read_dataset
from lookonce.errors import UserError
from lookonce.training.identity import Identity


@pytest.fixture(scope="module")
def parts(squares):
    return {name: read_dataset(squares, name) for name in ("train", "val")}


def changed(part, **fields):
    return replace(part, **fields)


def test_what_is_written_is_read_again(parts, tmp_path):
    identity = Identity.of(parts)
    identity.write(tmp_path)
    assert Identity.read(tmp_path) == identity
    assert identity.difference(Identity.of(parts)) == ""
    assert identity.classes == ("blue", "red")
    assert list(identity.splits["val"]) == parts["val"].paths.tolist()
    assert Identity.read(tmp_path / "none") is None


def test_each_kind_of_other_data_is_named(parts):
    train, val = parts["train"], parts["val"]
    moved, hard, named = train.boxes.copy(), train.difficult.copy(), train.classes.copy()
    moved[0, 0] += 1
    hard[0] = True
    named[0] = 1 - named[0]
    first = str(train.paths[0])
    cases = {
        "class 1 was 'red', the data now has 'green'": {"train": changed(train, labels=("blue", "green"))},
        "class 0 was 'blue', the data now has 'red'": {"train": changed(train, labels=("red", "blue"))},
        "the run has 2 classes (blue, red), the data now has 3 (blue, green, red)": {
            "train": changed(train, labels=("blue", "green", "red"))},
        f"of the images of split 'train' 1 are gone, the first: {first}": {"train": train.select(np.arange(1, 24))},
        f"split 'train' 1 have other labels, the first: {first}": {"train": changed(train, boxes=moved)},
        "24 are gone": {"train": val},
        "8 are new": {"train": val},
        "of the images of split 'val' 8 are gone": {"train": train},
        "the images of split 'train' are in another order": {"train": train.select(np.arange(24)[::-1])},
    }  # fmt: skip
    before = Identity.of(parts)
    for said, now in cases.items():
        whole = now if "'val'" in said else {"val": replace(val, labels=now["train"].labels), **now}
        assert said in before.difference(Identity.of(whole)), said
    for fields in ({"difficult": hard}, {"classes": named}):
        found = before.difference(Identity.of({**parts, "train": changed(train, **fields)}))
        assert "1 have other labels" in found


def test_the_place_of_the_data_does_not_matter(parts, tmp_path):
    moved = {name: replace(part, root=tmp_path, name="other") for name, part in parts.items()}
    assert Identity.of(moved) == Identity.of(parts)


@pytest.mark.parametrize("text", [
    "", "[]", "3", "{", '{"format": 2}', '{"format": 1, "classes": "ab", "splits": {}}', "[" * 100_000, "\udcff",
    '{"format": 1, "classes": [1], "splits": {}}', '{"format": 1, "classes": ["a"], "splits": {"train": ["a.png"]}}',
    '{"format": 1, "classes": ["a"], "splits": {"train": {"a.png": 3}}}',
])  # fmt: skip
def test_a_damaged_file_is_one_line(text, tmp_path):
    (tmp_path / "data.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(UserError, match=r"data\.json: cannot be read \(\w+\).*remove the file") as error:
        Identity.read(tmp_path)
    assert "\n" not in str(error.value)


def test_it_is_one_short_line_an_image(parts, tmp_path):
    Identity.of(parts).write(tmp_path)
    text = (tmp_path / "data.json").read_text()
    assert json.loads(text)["format"] == 1
    assert len(text) < 32 * 60 + 200
