"""Runs of these tests write no page: it takes longer than their training, and tests/report has its own tests."""

import pytest


@pytest.fixture
def with_pages():
    """For a test that needs the page of a run."""


@pytest.fixture(autouse=True)
def without_pages(request, monkeypatch):
    """Runs in this process write no page, unless the test asks for `with_pages`."""
    if "with_pages" not in request.fixturenames:
        monkeypatch.setattr("lookonce.commands.train.write_run_page", lambda report, whole: None)
