"""Tests of lookonce.inference.lake.ray_actors, on a Ray of this machine. Oracle: the parts of a worker without it."""

import importlib.util
import socket
import sys

import pytest

from lookonce.data import images
from lookonce.errors import UserError
from lookonce.inference.lake.driver import run_job
from lookonce.inference.lake.job import Job
from lookonce.inference.lake.listing import write_lists
from lookonce.inference.lake.ray_actors import RayActors
from lookonce.inference.lake.worker import ShardWorker

needs_ray = pytest.mark.skipif(not importlib.util.find_spec("ray"), reason="needs ray")


@pytest.fixture
def lake(run, squares, tmp_path, monkeypatch):
    monkeypatch.setattr(images, "_most_cores", None)
    names = sorted(map(str, (squares / "JPEGImages").glob("test*.png")))
    lists = write_lists(names, tmp_path / "lists", 3)
    return Job(str(run / "model.safetensors"), "sha256:1", "jsonl", base=str(tmp_path)), tmp_path / "out", lists


@needs_ray
def test_actors_write_the_parts_that_a_worker_here_writes(lake, tmp_path):
    job, out, lists = lake
    out.mkdir()
    outcome = run_job(job, out, lists, RayActors(job, out, lists, 1, "local"))
    assert (outcome.total.images, outcome.images, outcome.deaths) == (8, 8, 0)
    (tmp_path / "here").mkdir()
    worker = ShardWorker(job, tmp_path / "here", lists, 1)
    for shard in range(3):
        worker.run(shard)
        name = f"part-{shard:05}.jsonl"
        assert (out / name).read_bytes() == (tmp_path / "here" / name).read_bytes()


@needs_ray
def test_a_cluster_that_does_not_answer_is_told_at_once(lake):
    with socket.socket() as taken:  # a port that nobody listens on
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=rf"ray 127.0.0.1:{port}: no cluster answers .* start one with"):
            RayActors(*lake, 1, f"127.0.0.1:{port}")


def test_without_ray_the_message_names_the_extra(lake, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"--ray needs Ray, which is not installed; run: pip install 'lookonce\[ray\]'"):
        RayActors(*lake, 1, "local")
