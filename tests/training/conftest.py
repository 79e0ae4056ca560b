"""What the tests of training share."""

import pytest


@pytest.fixture(autouse=True)
def no_page(monkeypatch):
    """Train without the page, which takes longer than the training itself. Runs of wider fixtures have theirs."""
    monkeypatch.setattr("lookonce.report.run_page.write_run_page", None)
