"""Tests of lookonce.inference.lake.processes."""

import os
import signal
import sys

import pytest

from lookonce.inference.lake import processes
from lookonce.inference.lake.job import Job
from lookonce.inference.lake.listing import write_lists
from lookonce.inference.lake.processes import Processes

ECHO = (
    "import sys, json, time\n"
    "print(json.dumps({'ready': json.loads(sys.stdin.readline())['threads']}), flush=True)\n"
    "for line in sys.stdin: print(json.dumps({'done': int(line)}), flush=True)"
)


def started(tmp_path, monkeypatch, code=ECHO, count=2):
    monkeypatch.setattr(processes, "START", code)
    monkeypatch.setattr(processes, "usable_cores", lambda: 6)
    lists = write_lists(["a", "b"], tmp_path / "lists", 2)
    workers = Processes(Job("m", "", "jsonl"), tmp_path, lists, count)
    for worker in range(workers.count):
        workers.start(worker)
    return workers


def test_workers_share_the_cores_and_answer(tmp_path, monkeypatch):
    workers = started(tmp_path, monkeypatch)
    ready = [workers.wait(60) for _ in range(2)]
    assert sorted((event.worker, event.answer["ready"]) for event in ready) == [(0, 3), (1, 3)]
    workers.give(1, 17)
    event = workers.wait(60)
    assert (event.worker, event.answer) == (1, {"done": 17})
    assert workers.wait(0.01) is None
    workers.stop()


@pytest.mark.skipif(sys.platform == "win32", reason="needs signals")
def test_a_worker_that_is_killed_is_told_and_can_be_started_again(tmp_path, monkeypatch):
    workers = started(tmp_path, monkeypatch, count=1)
    assert "ready" in workers.wait(60).answer
    os.kill(workers._running[0].pid, signal.SIGKILL)
    assert workers.wait(60).answer == {"died": -signal.SIGKILL}
    workers.give(0, 1)  # nobody reads it
    workers.start(0)
    assert "ready" in workers.wait(60).answer
    workers.stop()


def test_without_a_number_there_is_one_worker_a_core_and_at_most_eight(tmp_path, monkeypatch):
    lists = write_lists(["a"], tmp_path / "lists", 1)
    for cores, count in ((2, 2), (64, 8)):
        monkeypatch.setattr(processes, "usable_cores", lambda cores=cores: cores)
        assert Processes(Job("m", "", "jsonl"), tmp_path, lists, None).count == count


def test_each_worker_has_a_gpu_of_its_own_while_there_are_some(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    code = (
        "import os, sys, json; sys.stdin.readline()\n"
        "print(json.dumps({'ready': os.environ['CUDA_VISIBLE_DEVICES']}), flush=True); sys.stdin.read()"
    )
    monkeypatch.setattr(processes, "START", code)
    lists = write_lists(["a"], tmp_path / "lists", 1)
    workers = Processes(Job("m", "", "jsonl", device="cuda"), tmp_path, lists, None)
    assert workers.count == 2
    for worker in range(3):
        workers.start(worker)
    events = [workers.wait(60) for _ in range(3)]
    assert sorted((event.worker, event.answer["ready"]) for event in events) == [(0, "2"), (1, "5"), (2, "2")]
    workers.stop()
