"""Tests of lookonce.commands.zones."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from lookonce.cli import main
from lookonce.commands import zones as command
from lookonce.commands.zones import has_display, zones
from lookonce.errors import ConfigError, UserError


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a video of 10 frames, grey of 20 n, at 10 a second; no browser opens."""
    writer = cv2.VideoWriter(str(tmp_path / "clip.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 10, (64, 48))
    for n in range(10):
        writer.write(np.full((48, 64, 3), 20 * n, np.uint8))
    writer.release()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(command, "has_display", lambda: False)
    return tmp_path


def still(page: Path) -> np.ndarray:
    found = re.search(r"data:image/jpeg;base64,([^\"]+)", page.read_text(encoding="utf-8"))
    assert found is not None
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(found[1]))))


def test_the_page_has_the_still_at_a_time_and_says_how_to_go_on(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["zones", "clip.mp4", "--at", "0.45", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said == {"page": "clip-zones.html", "file": "clip-zones.yaml",
                    "command": "lookonce detect coco clip.mp4 --zones clip-zones.yaml"}  # fmt: skip
    assert still(here / "clip-zones.html").shape == (48, 64, 3)
    assert still(here / "clip-zones.html").mean() == pytest.approx(100, abs=4)  # frame 5


def test_a_file_is_loaded_and_an_image_will_do(here: Path) -> None:
    Image.new("RGB", (30, 20), (200, 0, 0)).save("photo.png")
    (here / "door.yaml").write_text("lines: {door: [[1, 2], [9, 12.5]]}")
    drawing = zones("photo.png", "door.yaml", out=here / "draw.html")
    text = drawing.page.read_text(encoding="utf-8").replace("&#34;", '"')
    assert '"name": "door", "points": [[1, 2], [9, 12.5]]' in text
    assert drawing.file == "door.yaml"
    assert "Save door.yaml" in text
    with pytest.raises(UserError, match=r"draw\.html: already exists; give another name"):
        zones("photo.png", out=here / "draw.html")
    assert zones("photo.png").page.name == "photo-zones.html"
    assert zones("photo.png").page.name == "photo-zones-2.html"


def test_wrong_input_is_one_sentence_and_leaves_no_page(here: Path) -> None:
    with pytest.raises(UserError, match=r"at: 7 s; clip\.mp4 ends before"):
        zones("clip.mp4", at=7)
    with pytest.raises(UserError, match=r"none\.png: no such file; expected a video, an image"):
        zones("none.png")
    with pytest.raises(ConfigError, match=r"out: page\.txt; expected a name that ends in \.html"):
        zones("clip.mp4", out="page.txt")
    (here / "cross.yaml").write_text("zones: {hall: [[0, 0], [9, 9], [9, 0], [0, 9]]}")
    with pytest.raises(ConfigError, match=r"hall: the edges .* meet or cross"):
        zones("clip.mp4", "cross.yaml")
    assert not list(here.glob("*.html"))


def test_the_browser_opens_the_page_where_there_is_a_display(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr(command.webbrowser, "open", opened.append)
    zones("clip.mp4")
    monkeypatch.setattr(command, "has_display", lambda: True)
    zones("clip.mp4", browser=False)
    assert opened == []
    zones("clip.mp4")
    assert opened == [(here / "clip-zones-3.html").as_uri()]


def test_a_terminal_without_a_display_opens_no_browser(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command.sys, "platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    assert not has_display()
    monkeypatch.setenv("DISPLAY", ":0")
    assert has_display()
