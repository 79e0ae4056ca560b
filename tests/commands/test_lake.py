"""Tests of lookonce.commands.lake: detect --format with its worker processes. Oracle: detect on the same images."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from lookonce.cli import main
from lookonce.commands.detect import detect
from lookonce.commands.lake import LakeOptions
from lookonce.errors import UserError
from lookonce.files import held
from lookonce.inference.lake.parts import read_part

TOTALS = ("images", "errors", "objects")


def rows_of(folder):
    return [row for part in sorted(folder.glob("part-*")) for row in read_part(part)]


@pytest.fixture(scope="module")
def lake(run, squares, tmp_path_factory):
    """(photos, the folder of a finished job of two workers, its summary)."""
    photos, out = squares / "JPEGImages", tmp_path_factory.mktemp("lake") / "out"
    return photos, out, detect(run, [str(photos)], out=out, format="jsonl", shards=5, workers=2, precision="fp32")


def test_tables_have_what_detect_finds(run, lake, tmp_path):
    photos, out, summary = lake
    detect(run, [str(photos)], out=tmp_path, save_images=False, precision="fp32")
    said = json.loads((tmp_path / "detections.json").read_text())
    wanted = sorted((entry["file"], one["label"], one["score"], *one["box"]) for entry in said["images"]
                    for one in entry["detections"])  # fmt: skip
    rows = rows_of(out)
    names = ("path", "label", "score", "xmin", "ymin", "xmax", "ymax")
    assert sorted(tuple(row[name] for name in names) for row in rows if row["label"]) == wanted
    assert {row["path"] for row in rows} == {entry["file"] for entry in said["images"]}
    digest = hashlib.sha256((run / "model.safetensors").read_bytes()).hexdigest()
    assert {row["model"] for row in rows} == {f"sha256:{digest}"} == {said["model_digest"]}
    assert {name: summary.to_json()[name] for name in TOTALS} == {"images": 40, "errors": 0, "objects": len(wanted)}
    assert str(summary).startswith(f"{len(wanted)} detections in 40 images -> {out} (5 parts, jsonl); ")


def test_the_same_command_finds_all_done(run, lake):
    photos, out, summary = lake
    before = {path: path.stat().st_mtime_ns for path in out.glob("part-*")}
    again = detect(run, [str(photos)], out=out, format="jsonl", workers=1, precision="fp32")
    assert [again.to_json()[name] for name in TOTALS] == [summary.to_json()[name] for name in TOTALS]
    assert str(again).endswith("all was done already")
    assert before == {path: path.stat().st_mtime_ns for path in out.glob("part-*")}


def test_a_second_driver_is_refused(run, lake):
    photos, out, _ = lake
    with held(out), pytest.raises(UserError, match="is in use by another process"):
        detect(run, [str(photos)], out=out, format="jsonl")


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_after_a_killed_driver_the_rest_is_done_and_nothing_twice(run, lake, tmp_path):
    photos, out, _ = lake
    words = [sys.executable, "-m", "lookonce", "detect", run, photos, "--out", tmp_path, "--format", "jsonl",
             "--shards", "5", "--workers", "1", "--precision", "fp32"]  # fmt: skip
    driver = subprocess.Popen([*map(str, words)], env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
                              stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)  # fmt: skip
    while driver.poll() is None and not list(tmp_path.glob("part-*")):
        time.sleep(0.01)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    detect(run, [str(photos)], out=tmp_path, format="jsonl", workers=1, precision="fp32")
    assert all((tmp_path / part.name).read_bytes() == part.read_bytes() for part in out.glob("part-*"))
    begun = [event["shard"] for line in (tmp_path / "ledger.jsonl").read_text().splitlines()
             for event in [json.loads(line)] if event["event"] == "begun"]  # fmt: skip
    assert len(begun) <= 5 + 1


@pytest.mark.parametrize("words, message", [
    (["--format", "jsonl"], "format: give --out, the folder of the tables"),
    (["--format", "jsonl", "--out", "x", "--track"], "track: not for tables; leave it out, or --format"),
    (["--format", "jsonl", "--out", "x", "--no-save-images"], "no-save-images: not for tables"),
    (["--shards", "3"], "shards: is for tables; give --format parquet or jsonl as well"),
    (["--ray", "auto"], "ray: is for tables"),
    (["--format", "jsonl", "--out", "OUT", "--workers", "0"], "workers: 0; expected 1 to 1,000,000"),
    (["--format", "jsonl", "--out", "OUT", "--labels", "green"], "labels: 'green'; expected one of"),
    (["--format", "jsonl", "--out", "OUT", "--device", "quantum"], "quantum"),
])  # fmt: skip
def test_what_does_not_fit_is_one_line(run, squares, tmp_path, capsys, words, message):
    words = [str(tmp_path / "out") if word == "OUT" else word for word in words]
    assert main(["detect", str(run), str(squares / "JPEGImages"), *words]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


def test_options_are_checked_at_birth():
    with pytest.raises(UserError, match="shards: 0"):
        LakeOptions(0, None, None)
