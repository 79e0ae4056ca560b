"""Tests of lookonce.inference.backends.settings."""

import gc
import os
import sys

import pytest

from lookonce.data.images import usable_cores
from lookonce.errors import ConfigError
from lookonce.inference.backends.settings import Settings, abandon, follow_forks


@pytest.mark.parametrize("given", [{"backend": "abacus"}, {"precision": "int4"}])
def test_unknown_words_are_told_what_is_known(given):
    name, value = next(iter(given.items()))
    with pytest.raises(ConfigError, match=f"{name}: '{value}'; expected one of auto"):
        Settings(**given)


@pytest.mark.parametrize("asked, gains, meant", [
    ("auto", True, "bf16"), ("auto", False, "fp32"), ("fp32", True, "fp32"), ("bf16", False, "bf16"),
])  # fmt: skip
def test_bf16_is_taken_where_the_machine_gains_from_it(asked, gains, meant):
    assert Settings(precision=asked).precision_where(gains) == meant


def test_less_than_one_thread_is_refused():
    with pytest.raises(ConfigError, match="threads: 0; expected at least 1"):
        Settings(threads=0)


def test_usable_cores_are_those_of_the_process(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 3, 5}, raising=False)
    assert usable_cores() == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert usable_cores() == 1


class Inherited:
    here = None

    def forked(self):
        self.here = os.getpid()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_process_tells_what_it_inherited_and_the_parent_does_not():
    backend, gone = Inherited(), Inherited()
    follow_forks(backend)
    follow_forks(gone)
    del gone
    child = os.fork()
    if child == 0:
        os._exit(backend.here != os.getpid())
    assert os.waitpid(child, 0)[1] == 0
    assert backend.here is None


def test_what_is_abandoned_is_never_closed():
    closed = []

    class Session:
        def __del__(self):
            closed.append(1)

    left, kept = Session(), Session()
    before = sys.getrefcount(kept)
    abandon(kept, None)
    assert sys.getrefcount(kept) == before + 1
    del left, kept
    gc.collect()
    assert closed == [1]
