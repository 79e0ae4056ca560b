"""Tests of lookonce.commands.demo."""

import pytest

from lookonce.cli import main
from lookonce.commands import demo as d


@pytest.fixture
def small(monkeypatch):
    """The demo on a few small pages, with the network of the tests."""
    write = d.write_digits
    monkeypatch.setattr(d, "write_digits", lambda folder, **given: write(folder, **{**given, "pages": (9, 2, 3)}))
    monkeypatch.setattr(d, "DIGITS", {**d.DIGITS, "network": "nano", "epochs": 1, "size": 64})


def test_the_demo_walks_the_users_path_and_ends_with_score_and_page(small, tmp_path, capsys):
    assert main(["demo", str(tmp_path / "demo")]) == 0
    lines = capsys.readouterr().out.strip().splitlines()
    assert lines[-2].startswith("mAP@0.5 0.")
    page = tmp_path / "demo" / "runs" / "digits-1" / "demo.html"
    assert lines[-1] == str(page)
    assert page.is_file()
    assert (tmp_path / "demo" / "detections" / "detections.json").is_file()
