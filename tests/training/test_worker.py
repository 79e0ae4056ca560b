"""Tests of lookonce.training.worker; tests of ranks train with it."""

import logging

import pytest

from lookonce.errors import Interrupted, UserError
from lookonce.training import ranks, run, worker


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch):
    """A worker changes its process: signals, the level of the log, and the thread that ends it."""
    monkeypatch.setattr(ranks, "end_with_parent", lambda: None)
    monkeypatch.setattr(worker.signal, "signal", lambda number, handler: None)
    monkeypatch.setattr(logging.getLogger("lookonce"), "setLevel", lambda level: None)


def test_what_a_worker_says_is_one_line_for_rank_0_to_read(monkeypatch):

    def follow(_):
        raise UserError("data: not here")

    monkeypatch.setattr(run, "follow", follow)
    with pytest.raises(SystemExit, match=r"^data: not here$"):
        worker.main()


def test_a_run_that_was_stopped_is_no_failure_of_a_worker(monkeypatch):

    def follow(_):
        raise Interrupted("stopped", 15)

    monkeypatch.setattr(run, "follow", follow)
    worker.main()
