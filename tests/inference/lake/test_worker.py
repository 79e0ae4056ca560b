"""Tests of lookonce.inference.lake.worker. Oracle: the Detector on each image."""

import io
import json
import os
import subprocess
import sys

import pytest

from lookonce.data import images
from lookonce.errors import UserError
from lookonce.inference.detector import Detector
from lookonce.inference.lake.job import Job
from lookonce.inference.lake.listing import write_lists
from lookonce.inference.lake.parts import Tally, read_part
from lookonce.inference.lake.worker import ShardWorker


@pytest.fixture
def lake(run, squares, tmp_path, monkeypatch):
    """A job on eight images and two that are none, its folder and lists."""
    monkeypatch.setattr(images, "_most_cores", None)
    (tmp_path / "text.jpg").write_text("no image")
    names = [*map(str, sorted((squares / "JPEGImages").glob("test*.png"))), "text.jpg", "missing.jpg"]
    lists = write_lists(names, tmp_path / "lists", 1)
    job = Job(str(run / "model.safetensors"), "sha256:1", "jsonl", threshold=0.2, base=str(tmp_path))
    return job, tmp_path, lists


def test_a_part_holds_what_the_detector_finds(lake):
    job, folder, lists = lake
    worker = ShardWorker(job, folder, lists, 1)
    tally = worker.run(0)
    rows = read_part(folder / "part-00000.jsonl")
    detector = Detector(job.model, threshold=0.2, precision="auto")
    wanted = [(name, one.name, round(one.score, 6), [round(v, 2) for v in one.box])
              for name in lists.read(0) if name.endswith("png") for one in detector(name)]  # fmt: skip
    corners = ("xmin", "ymin", "xmax", "ymax")
    assert [
        (row["path"], row["label"], row["score"], [row[c] for c in corners]) for row in rows if row["label"]
    ] == wanted
    assert tally == Tally(10, 2, len(wanted))
    errors = {row["path"]: row["error"] for row in rows if row["error"]}
    assert errors == {"text.jpg": "a text file, not an image", "missing.jpg": "no such file"}
    assert {(row["width"], row["height"]) for row in rows if not row["error"]} == {(96, 96)}
    info = detector.backend.info
    assert {(row["model"], row["backend"], row["precision"]) for row in rows} == {
        ("sha256:1", f"{info.name} {info.version} {info.device}", info.precision)}  # fmt: skip


def test_a_worker_uses_its_share_of_the_cores(lake):
    ShardWorker(*lake, 1)
    assert images.usable_cores() == 1


def test_classes_are_those_of_the_model(lake):
    job, folder, lists = lake
    worker = ShardWorker(Job(**job.to_json() | {"labels": ("Red",)}), folder, lists, 1)
    worker.run(0)
    assert {row["label"] for row in read_part(folder / "part-00000.jsonl")} == {"red", None}
    with pytest.raises(UserError, match="labels: 'green'"):
        ShardWorker(Job(**job.to_json() | {"labels": ("green",)}), folder, lists, 1)


def process(order, shards):
    """What a worker process says."""
    code = "from lookonce.inference.lake.worker import main; print('noise'); main()"
    done = subprocess.run([sys.executable, "-c", code], input="\n".join([json.dumps(order), *shards]) + "\n", text=True,
                          capture_output=True, check=False, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
                          timeout=120)  # fmt: skip
    return done.returncode, [json.loads(line) for line in io.StringIO(done.stdout) if line.startswith("{")]


def test_a_process_ends_with_its_driver_and_says_why_it_cannot_work(lake):
    job, folder, lists = lake
    order = {"job": job.to_json() | {"labels": ["green"]}, "folder": str(folder), "lists": str(lists.folder),
             "shards": 1, "threads": 1}  # fmt: skip
    code, answers = process(order, [])
    assert code in (0, 3)  # 3: standard input ended first
    assert all("green" in answer["failed"] for answer in answers)


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="needs Linux")
def test_threads_of_a_worker_may_run_on_every_core(lake):
    """Pinned threads of two workers would share one core, and the other core would be idle."""
    everywhere, before = os.sched_getaffinity(0), set(os.listdir("/proc/self/task"))
    worker = ShardWorker(*lake, 1)
    worker.run(0)
    new = set(os.listdir("/proc/self/task")) - before  # other tests may have detectors that pin theirs
    assert all(os.sched_getaffinity(int(thread)) == everywhere for thread in new)
