"""Tests of lookonce.inference.lake.job."""

from dataclasses import replace

import pytest

from lookonce.errors import UserError
from lookonce.inference.lake.job import Job, open_job, place_of

JOB = Job("/models/m.safetensors", "sha256:1", "jsonl", labels=("red",), threshold=0.5)


@pytest.fixture
def lake(tmp_path):
    """A folder of three images, and one of an output with a part."""
    photos, out = tmp_path / "photos", tmp_path / "out"
    photos.mkdir()
    out.mkdir()
    for name in "abc":
        (photos / f"{name}.jpg").write_bytes(b"x")
    lists = open_job(out, JOB, [str(photos)], 2)
    (out / "part-00000.jsonl").write_text("")
    return photos, out, lists


def test_the_same_command_opens_the_same_lists(lake):
    photos, out, lists = lake
    assert open_job(out, JOB, [str(photos)], None) == lists
    assert open_job(out, replace(JOB, backend="torch", precision="fp32"), [str(photos)], 2) == lists
    assert not [path for path in out.iterdir() if path.name.startswith(".writing")]


def test_a_job_comes_back_from_json():
    assert Job.from_json(JOB.to_json()) == JOB


@pytest.mark.parametrize("change, message", [
    ({"digest": "sha256:2"}, "was begun with model /models/m.safetensors, and it is another file now"),
    ({"threshold": 0.25}, "was begun with threshold 0.5, and it is 0.25"),
    ({"format": "parquet"}, "was begun with format jsonl, and it is parquet"),
    ({"labels": None}, "was begun with labels"),
    ({"iou_threshold": 0.5}, "was begun with iou-threshold 0.45"),
])  # fmt: skip
def test_another_job_is_refused(lake, change, message):
    photos, out, _ = lake
    with pytest.raises(UserError, match=message):
        open_job(out, replace(JOB, **change), [str(photos)], None)


def test_another_number_of_shards_is_refused(lake):
    photos, out, _ = lake
    with pytest.raises(UserError, match="was begun with shards 2, and it is 3; give what it was begun with, or"):
        open_job(out, JOB, [str(photos)], 3)


def test_a_list_that_changed_is_refused(lake):
    photos, out, _ = lake
    (photos / "d.jpg").write_bytes(b"x")
    (photos / "e.jpg").write_bytes(b"x")
    (photos / "a.jpg").unlink()
    with pytest.raises(UserError, match="another list: now 2 names more and 1 fewer; give the list of then"):
        open_job(out, JOB, [str(photos)], None)


def test_a_job_without_a_part_may_change(lake):
    photos, out, _ = lake
    (out / "part-00000.jsonl").unlink()
    assert open_job(out, replace(JOB, threshold=0.1), [str(photos)], 5).shards == 5


def test_files_of_others_are_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(UserError, match=r"holds files already \(thesis.tex\); give another --out"):
        open_job(tmp_path, JOB, ["x"], 2)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"version": 2, "job": {}, "shards": 2}', "[" * 10_000])
def test_a_damaged_description_is_refused(lake, text):
    photos, out, _ = lake
    (out / "lake.json").write_text(text)
    with pytest.raises(UserError, match="not written by this version of lookonce"):
        open_job(out, JOB, [str(photos)], None)


def test_relative_names_start_from_the_folder_of_the_command():
    job = replace(JOB, base="/data")
    assert (place_of("photos/a.jpg", job), place_of("/lake/a.jpg", job)) == ("/data/photos/a.jpg", "/lake/a.jpg")
