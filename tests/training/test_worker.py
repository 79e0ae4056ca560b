"""Tests of lookonce.training.worker; tests of ranks train with it."""

import pytest

from lookonce.errors import Interrupted, UserError
from lookonce.training import ranks, run, worker


def test_what_a_worker_says_is_one_line_for_rank_0_to_read(monkeypatch):
    monkeypatch.setattr(ranks, "end_with_parent", lambda: None)
    monkeypatch.setattr(worker.signal, "signal", lambda number, handler: None)

    def follow(_):
        raise UserError("data: not here")

    monkeypatch.setattr(run, "follow", follow)
    with pytest.raises(SystemExit, match=r"^data: not here$"):
        worker.main()


def test_a_run_that_was_stopped_is_no_failure_of_a_worker(monkeypatch):
    monkeypatch.setattr(ranks, "end_with_parent", lambda: None)
    monkeypatch.setattr(worker.signal, "signal", lambda number, handler: None)

    def follow(_):
        raise Interrupted("stopped", 15)

    monkeypatch.setattr(run, "follow", follow)
    worker.main()
