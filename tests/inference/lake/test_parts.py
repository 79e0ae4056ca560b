"""Tests of lookonce.inference.lake.parts."""

import json

import numpy as np
import pytest

from lookonce.errors import UserError
from lookonce.inference.lake.parts import COLUMNS, Tally, error_row, image_rows, part_file, read_part, tally_of, writing
from lookonce.model.detections import Detections

RUN = {"model": "sha256:0", "backend": "openvino 2026.1 cpu", "precision": "fp32"}
FOUND = Detections(np.array([[1.006, 2, 3, 4], [5, 6, 7, 8]], np.float32), np.array([0.5, 0.25], np.float32),
                   np.array([1, 0]), ("red", "blue"))  # fmt: skip
NOTHING = FOUND.only([])
ROWS = [*image_rows("a.jpg", (40, 30), FOUND, RUN), *image_rows("b.jpg", (40, 30), NOTHING, RUN),
        error_row("c.jpg", "no such file", RUN)]  # fmt: skip


@pytest.fixture(params=["jsonl", "parquet"])
def part(request, tmp_path):
    if request.param == "parquet":
        pytest.importorskip("pyarrow", reason="parquet needs pyarrow")
    path = part_file(tmp_path, 12, request.param)
    with writing(path) as writer:
        writer.write(ROWS[:1])
        assert not path.exists()
        writer.write(ROWS[1:])
    return path


def test_a_row_an_object_and_one_for_an_image_without_any(part):
    rows = read_part(part)
    assert [tuple(row) for row in rows] == [COLUMNS] * 4
    assert [row["path"] for row in rows] == ["a.jpg", "a.jpg", "b.jpg", "c.jpg"]
    first = {"path": "a.jpg", "width": 40, "height": 30, "label": "blue", "class_id": 1, "score": 0.5, "ymin": 2.0,
             "xmax": 3.0, "ymax": 4.0, **RUN, "error": None}  # fmt: skip
    assert {name: rows[0][name] for name in first} == first
    assert rows[0]["xmin"] == pytest.approx(1.01, abs=1e-6)
    assert (rows[2]["label"], rows[2]["xmin"], rows[2]["width"]) == (None, None, 40)
    assert (rows[3]["error"], rows[3]["width"]) == ("no such file", None)
    assert tally_of(rows) == Tally(3, 1, 2)


def test_a_part_is_named_by_its_shard(part):
    assert part.name in ("part-00012.jsonl", "part-00012.parquet")
    assert [path.name for path in part.parent.iterdir()] == [part.name]


def test_the_same_rows_are_the_same_bytes(part, tmp_path):
    again = tmp_path / f"part-00013{part.suffix}"
    with writing(again) as writer:
        writer.write(ROWS)
    assert again.read_bytes() == part.read_bytes()


def test_a_failure_leaves_nothing(tmp_path):
    def fail():
        with writing(tmp_path / "part-00000.jsonl") as writer:
            writer.write(ROWS)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert not list(tmp_path.iterdir())


def test_a_name_that_is_not_utf_8_is_written_in_escapes(tmp_path):
    pytest.importorskip("pyarrow", reason="parquet needs pyarrow")
    with writing(tmp_path / "part-00000.parquet") as writer:
        writer.write([error_row("caf\udce9.jpg", "x", RUN)])
    assert read_part(tmp_path / "part-00000.parquet")[0]["path"] == "caf\\udce9.jpg"


def test_damaged_parts_are_told(part):
    part.write_bytes(part.read_bytes()[:40])
    with pytest.raises(UserError, match=r"damaged .* remove it, and the shard is done again"):
        read_part(part)


def test_lines_are_plain_json(tmp_path):
    with writing(tmp_path / "part-00000.jsonl") as writer:
        writer.write(ROWS)
    assert [json.loads(line)["label"] for line in (tmp_path / "part-00000.jsonl").open()] == ["blue", "red", None, None]
