"""Tests of lookonce.inference.live_window."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image, ImageGrab

from lookonce.errors import UserError
from lookonce.inference.live_window import LiveWindow

needs_display = pytest.mark.skipif(shutil.which("Xvfb") is None, reason="there is no Xvfb here")
RED, BLUE = (np.full((60, 80, 3), colour, np.uint8) for colour in ((255, 0, 0), (0, 0, 255)))


@pytest.fixture(scope="module")
def display() -> Iterator[str]:
    """A display without a screen."""
    read, write = os.pipe()
    server = subprocess.Popen(["Xvfb", "-displayfd", str(write), "-screen", "0", "400x300x24", "-nolisten", "tcp"],
                              pass_fds=(write,), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
    os.close(write)
    with os.fdopen(read) as said:
        number = said.readline().strip()
    yield f":{number}"
    server.kill()
    server.wait()


@pytest.fixture
def window(display: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[LiveWindow]:
    pytest.importorskip("tkinter")
    monkeypatch.setenv("DISPLAY", display)
    opened = LiveWindow()
    yield opened
    opened.close()


def screen(window: LiveWindow) -> Image.Image:
    """What the window shows."""
    root = window._root
    root.update()
    x, y, wide, high = root.winfo_rootx(), root.winfo_rooty(), root.winfo_width(), root.winfo_height()
    return ImageGrab.grab((x, y, x + wide, y + high), xdisplay=os.environ["DISPLAY"])


@needs_display
def test_the_newest_frames_of_all_sources_are_shown_side_by_side(window: LiveWindow) -> None:
    window.begin(["a", "b"])
    window.put("a", BLUE)
    window.put("a", RED)
    window.put("b", BLUE)
    window.update()
    shown = screen(window)
    assert shown.size == (160, 60)
    assert [shown.getpixel((x, 30)) for x in (40, 120)] == [(255, 0, 0), (0, 0, 255)]


@needs_display
def test_the_next_source_takes_the_place_of_the_first(window: LiveWindow) -> None:
    window.begin(["a"])
    window.put("a", RED)
    window.update()
    window.begin(["b"])
    window.put("a", RED)  # late
    window.put("b", BLUE)
    window.update()
    shown = screen(window)
    assert (shown.size, shown.getpixel((40, 30))) == ((80, 60), (0, 0, 255))


@needs_display
def test_a_frame_larger_than_the_screen_is_reduced(window: LiveWindow) -> None:
    window.begin(["a"])
    window.put("a", np.zeros((2000, 3000, 3), np.uint8))
    window.update()
    assert screen(window).size == (360, 240)


@needs_display
@pytest.mark.parametrize("key", ["q", "<Escape>", "close"])
def test_a_key_or_closing_ends_the_run_as_ctrl_c_does(window: LiveWindow, key: str) -> None:
    window.begin(["a"])
    window.update()
    if key == "close":
        window._root.tk.call("eval", window._root.protocol("WM_DELETE_WINDOW"))
    else:
        window._root.focus_force()
        window._root.update()
        window._root.event_generate(key)
    with pytest.raises(KeyboardInterrupt):
        window.update()


@pytest.mark.skipif(os.name == "nt", reason="Windows always has a display")
def test_without_a_display_the_error_names_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    tkinter = pytest.importorskip("tkinter")

    def refused(**options: str) -> None:
        raise tkinter.TclError("no display name")

    monkeypatch.setattr(tkinter, "Tk", refused)
    with pytest.raises(UserError, match=r"^show: there is no display here; use --show page"):
        LiveWindow()


def test_without_tkinter_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "tkinter", None)
    with pytest.raises(UserError, match=r"^show: Python has no tkinter here.*python3-tk.*--show page"):
        LiveWindow()
