"""Mirrors src/lookonce/backends/forking.py. What backends do in forked processes: test_runtimes_opening.py."""

import gc
import os
import sys

import pytest

from lookonce.inference.backends.settings import abandon, follow_forks


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
