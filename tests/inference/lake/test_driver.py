"""Tests of lookonce.inference.lake.driver, on workers that only write what they are told."""

import json
from collections import deque

import pytest

from lookonce.errors import Interrupted, UserError
from lookonce.inference.lake.driver import Progress, run_job
from lookonce.inference.lake.job import Job
from lookonce.inference.lake.ledger import Ledger
from lookonce.inference.lake.listing import write_lists
from lookonce.inference.lake.parts import Tally, error_row, part_file, writing
from lookonce.inference.lake.processes import Event

RUN = {"model": "m", "backend": "b", "precision": "fp32"}


class Scripted:
    """Workers in this process. dies: (worker's number of starts, shard) at which it dies instead of answering."""

    where = "here"

    def __init__(self, folder, lists, count=2, dies=(), failure=None, writes=True):
        self.folder, self.lists, self.count, self.dies = folder, lists, count, set(dies)
        self.failure, self.writes = failure, writes
        self.events, self.given, self.starts, self.stopped = deque(), [], 0, False

    def start(self, worker):
        self.starts += 1
        dead = None in self.dies
        answer = {"failed": self.failure} if self.failure else {"died": -9} if dead else {"ready": "b"}
        self.events.append(Event(worker, answer))

    def give(self, worker, shard):
        self.given.append(shard)
        if (self.given.count(shard), shard) in self.dies:
            self.events += [Event(worker, {"images": 1}), Event(worker, {"died": -9})]
            return
        names = self.lists.read(shard)
        if self.writes:
            with writing(part_file(self.folder, shard, "jsonl")) as part:
                part.write(error_row(name, "no such file", RUN) for name in names)
        self.events.append(Event(worker, {"done": shard, "seconds": 1.0, "images": len(names), "errors": len(names),
                                          "objects": 0}))  # fmt: skip

    def wait(self, seconds):
        if not self.events:
            raise KeyboardInterrupt
        return self.events.popleft()

    def stop(self):
        self.stopped = True


@pytest.fixture
def lake(tmp_path):
    return Job("m", "", "jsonl"), tmp_path, write_lists([f"{n}.jpg" for n in range(30)], tmp_path / "lists", 6)


def run(lake, **script):
    job, folder, lists = lake
    workers = Scripted(folder, lists, **script)
    return workers, lambda: run_job(job, folder, lists, workers)


def test_every_shard_is_done_once(lake):
    workers, start = run(lake)
    outcome = start()
    assert sorted(workers.given) == list(range(6))
    assert outcome.total == Tally(30, 30, 0)
    assert outcome.images == 30
    assert workers.stopped
    assert sorted(event["shard"] for event in Ledger(lake[1]).read() if event["event"] == "done") == list(range(6))


def test_parts_that_exist_are_not_done_again(lake):
    run(lake)[1]()
    part_file(lake[1], 3, "jsonl").unlink()
    workers, start = run(lake)
    outcome = start()
    assert workers.given == [3]
    assert outcome.total == Tally(30, 30, 0)
    assert outcome.images == len(lake[2].read(3))


def test_a_part_that_the_ledger_lacks_is_counted(lake):
    run(lake)[1]()
    ledger = lake[1] / "ledger.jsonl"
    lines = ledger.read_text().splitlines()
    ledger.write_text("\n".join(line for line in lines if '"done", "time"' not in line or '"shard": 2' not in line))
    workers, start = run(lake)
    assert start().total == Tally(30, 30, 0)
    assert workers.given == []
    assert [event["shard"] for event in Ledger(lake[1]).read() if event.get("found")] == [2]


def test_the_shard_of_a_worker_that_died_is_done_again_and_counted(lake, caplog):
    workers, start = run(lake, dies=[(1, 4), (2, 4), (1, 0)])
    outcome = start()
    assert (outcome.deaths, outcome.total, outcome.images) == (3, Tally(30, 30, 0), 30)
    assert (workers.given.count(4), workers.given.count(0), len(workers.given)) == (3, 2, 9)
    assert workers.starts == 5
    assert "a worker ended (exit code -9): shard 4 is done again" in caplog.text
    assert [event["shard"] for event in Ledger(lake[1]).read() if event["event"] == "died"].count(4) == 2


def test_a_shard_that_always_ends_its_worker_ends_the_run(lake):
    workers, start = run(lake, dies=[(1, 4), (2, 4), (3, 4)])
    with pytest.raises(UserError, match=r"00004\.jsonl: its worker ended 3 times \(exit code -9\)"):
        start()
    assert workers.stopped


def test_workers_that_never_get_ready_end_the_run(lake):
    with pytest.raises(UserError, match="workers ended 3 times before their first shard"):
        run(lake, dies=[None])[1]()


def test_what_a_worker_cannot_do_ends_the_run(lake):
    with pytest.raises(UserError, match="m: no such model"):
        run(lake, failure="m: no such model")[1]()


def test_a_part_that_is_written_elsewhere_is_told(lake):
    with pytest.raises(UserError, match="is not here, though a worker wrote it; give --out a folder that all"):
        run(lake, writes=False)[1]()


def test_a_stop_says_how_to_go_on(lake):
    workers, start = run(lake)
    workers.give = lambda worker, shard: None
    with pytest.raises(Interrupted, match="stopped after 0 of 6 shards; the same command goes on from there") as stop:
        start()
    assert (stop.value.exit_code, workers.stopped) == (130, True)


def test_progress_shows_the_speed_and_the_time_left(monkeypatch):
    progress = Progress(shards=100, names=1000, done=20, images=100, began=50.0, done_before=10)
    monkeypatch.setattr("lookonce.inference.lake.driver.time.monotonic", lambda: 60.0)
    assert str(progress) == "20 of 100 shards, 10.0 images/s, about 80 s left"
    progress.done = 10
    assert str(progress) == "10 of 100 shards, 10.0 images/s"


def test_the_ledger_is_lines_of_json_that_name_the_event(lake):
    run(lake)[1]()
    lines = [json.loads(line) for line in (lake[1] / "ledger.jsonl").read_text().splitlines()]
    assert lines[0] | {"time": 0} == {"event": "run", "time": 0, "workers": 2, "where": "here", "shards": 6, "done": 0}
    assert {line["event"] for line in lines} == {"run", "begun", "done"}
