"""Tests of lookonce.report.zones_page: the page in a browser, used as a person would."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from browser import Tab, needs_tab
from lookonce.files import free_name
from lookonce.inference.zones import Line, Zone, Zones, read_zones
from lookonce.report.zones_page import ZonesPage, write_zones_page

SIZE = 400, 300
KNOWN = Zones(
    (Line("door", (50.0, 60.0), (150.0, 60.0), ("east", "west")),),
    (Zone("hall <b>", ((200.0, 100.0), (300.0, 100.5), (300.0, 200.0), (200.0, 200.0))),),
    "bottom",
)


def page(folder: Path, zones: Zones) -> Path:
    still = Image.new("RGB", SIZE, (90, 120, 60))
    return write_zones_page(
        free_name(folder / "page.html"), ZonesPage("clip.mp4", still, zones, "clip-zones.yaml", "detect it")
    )


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    with Tab(tmp_path_factory.mktemp("browser")) as opened:
        opened.size(1200, 800)
        yield opened


def go(tab: Tab, file: Path) -> None:
    tab.run("typeof saved === 'string' && (saved = JSON.stringify(state))")  # or it asks whether to leave
    tab.go(file.as_uri())


def mouse(tab: Tab, kind: str, x: float, y: float, clicks: int = 1) -> None:
    """Send an event at a pixel of the still."""
    left, top, wide = tab.run("(() => { const b = svg.getBoundingClientRect(); return [b.x, b.y, b.width]; })()")
    k = wide / SIZE[0]
    buttons = 1 if kind != "mouseReleased" else 0
    tab.send("Input.dispatchMouseEvent", type=kind, x=left + k * x, y=top + k * y, button="left", clickCount=clicks,
             buttons=buttons)  # fmt: skip


def click(tab: Tab, x: float, y: float) -> None:
    mouse(tab, "mousePressed", x, y)
    mouse(tab, "mouseReleased", x, y)


def drag(tab: Tab, start: tuple[float, float], end: tuple[float, float]) -> None:
    mouse(tab, "mousePressed", *start)
    mouse(tab, "mouseMoved", *end)
    mouse(tab, "mouseReleased", *end)


def type_name(tab: Tab, row: int, field: int, text: str) -> None:
    tab.run(f"list.children[{row}].querySelectorAll('input')[{field}].select()")
    tab.send("Input.insertText", text=text)


def as_read(tab: Tab, folder: Path) -> Zones:
    """The zones that Python reads from what the page shows as the file."""
    path = folder / "shown.yaml"
    path.write_text(tab.run("document.querySelector('#yaml').textContent"), encoding="utf-8")
    return read_zones(path)


@needs_tab
def test_lines_and_zones_are_drawn_named_and_saved_as_the_file_that_detect_reads(tab: Tab, tmp_path: Path) -> None:
    go(tab, page(tmp_path, Zones()))
    assert tab.run("document.querySelector('#save').disabled")
    tab.click("#add-line")
    click(tab, 20, 40)
    click(tab, 120, 60)
    tab.click("#add-zone")
    for x, y in ((200, 50), (300, 50), (300, 150), (200, 150), (200, 50)):  # the last click closes it
        click(tab, x, y)
    type_name(tab, 0, 0, "Tür: yes")
    type_name(tab, 0, 1, "no")
    type_name(tab, 1, 0, "on")
    shown = as_read(tab, tmp_path)
    [line], [zone] = shown.lines, shown.zones
    assert (line.name, line.directions, zone.name) == ("Tür: yes", ("no", "out"), "on")
    for points, expected in ((line.points, ((20, 40), (120, 60))),
                             (zone.points, ((200, 50), (300, 50), (300, 150), (200, 150)))):  # fmt: skip
        assert np.array(points) == pytest.approx(np.array(expected), abs=1)  # the screen has whole pixels
    tab.downloads(tmp_path)
    tab.click("#save")
    saved = tmp_path / "clip-zones.yaml"
    end = time.monotonic() + 20
    while not (saved.exists() and saved.stat().st_size) and time.monotonic() < end:
        time.sleep(0.05)
    assert read_zones(saved) == shown
    assert tab.errors == []
    assert [url for url in tab.requests if not url.startswith(("file:", "data:", "blob:", "about:"))] == []


@needs_tab
def test_a_file_is_shown_as_it_is_and_points_are_moved_by_mouse_and_keys(tab: Tab, tmp_path: Path) -> None:
    go(tab, page(tmp_path, KNOWN))
    assert as_read(tab, tmp_path) == KNOWN
    drag(tab, (50, 60), (30, 90))
    tab.key("ArrowRight")
    tab.key("ArrowDown")
    tab.key("ArrowDown")
    assert as_read(tab, tmp_path).lines[0].points == ((31, 92), (150, 60))
    drag(tab, (90, 76), (95, 86))  # the line itself
    assert as_read(tab, tmp_path).lines[0].points == ((36, 102), (155, 70))
    for _ in range(5):
        tab.send("Input.dispatchKeyEvent", type="keyDown", key="z", code="KeyZ", modifiers=2)
    assert as_read(tab, tmp_path) == KNOWN
    drag(tab, (200, 100), (-90, 500))
    assert as_read(tab, tmp_path).zones[0].points[0] == (0, 300)  # never outside


@needs_tab
def test_corners_are_added_and_removed(tab: Tab, tmp_path: Path) -> None:
    go(tab, page(tmp_path, KNOWN))
    for clicks in (1, 2):
        mouse(tab, "mousePressed", 250, 200, clicks)
        mouse(tab, "mouseReleased", 250, 200, clicks)
    assert np.array(as_read(tab, tmp_path).zones[0].points[2:4]) == pytest.approx(
        np.array([(300, 200), (250, 200)]), abs=1
    )
    tab.run("document.querySelector('.zone [data-at=\"3\"]').focus()")
    tab.key("Delete")
    assert as_read(tab, tmp_path).zones == KNOWN.zones
    tab.run("document.querySelector('.line [data-at=\"0\"]').focus()")
    tab.key("Delete")  # a line has two points
    assert as_read(tab, tmp_path).lines == ()


@needs_tab
def test_arrows_point_to_where_the_directions_lead(tab: Tab, tmp_path: Path) -> None:
    go(tab, page(tmp_path, KNOWN))
    place = """(name => { const t = [...document.querySelectorAll('.line text')].find(t => t.textContent === name);
        return +t.getAttribute('y'); })"""
    assert tab.run(f"{place}('east')") > 60 > tab.run(f"{place}('west')")  # east is "in": to the right of 50 -> 150
    tab.click(".flip")
    assert tab.run(f"{place}('east')") < 60 < tab.run(f"{place}('west')")
    assert as_read(tab, tmp_path).lines[0].points == ((150, 60), (50, 60))


@needs_tab
def test_what_detect_would_refuse_is_marked_and_not_saved(tab: Tab, tmp_path: Path) -> None:
    go(tab, page(tmp_path, KNOWN))
    marked = "[...document.querySelectorAll('.problems')].map(p => p.textContent)"
    drag(tab, (300, 200), (180, 110))
    assert tab.run(marked) == ["", "Its edges meet or cross: move a point."]
    assert tab.run("document.querySelector('#save').disabled")
    tab.click("#undo")
    type_name(tab, 1, 0, "door")
    assert tab.run(marked) == ["Another line or zone has this name."] * 2
    type_name(tab, 1, 0, "")
    type_name(tab, 0, 2, "east")
    assert tab.run(marked) == ["It needs two directions with different names.", "It needs a name."]
    go(tab, page(tmp_path, Zones((Line("far", (5, 5), (900, 5)),))))
    assert tab.run(marked) == ["A point is outside the image."]
    tab.click(".inside")
    assert as_read(tab, tmp_path).lines[0].points == ((5, 5), (400, 5))
    assert not tab.run("document.querySelector('#save').disabled")


@needs_tab
def test_the_keyboard_alone_draws_a_line(tab: Tab, tmp_path: Path) -> None:
    go(tab, page(tmp_path, Zones()))
    tab.run("document.querySelector('#add-line').focus()")
    tab.send("Input.dispatchKeyEvent", type="keyDown", key="Enter", code="Enter", text="\r", windowsVirtualKeyCode=13)
    tab.send("Input.dispatchKeyEvent", type="keyDown", key="ArrowUp", code="ArrowUp", modifiers=8)
    assert as_read(tab, tmp_path).lines == (Line("line1", (100, 140), (300, 150)),)
    assert tab.run("document.activeElement.getAttribute('aria-label')").startswith("line1, point 1 at 100, 140")


@needs_tab
@pytest.mark.parametrize("dark", [False, True])
def test_it_fits_a_phone_in_light_and_dark(tab: Tab, tmp_path: Path, dark: bool) -> None:
    tab.size(390, 800, dark)
    go(tab, page(tmp_path, KNOWN))
    assert tab.run("document.documentElement.scrollWidth") <= 390
    tab.size(1200, 800)


def test_names_are_text_in_the_page(tmp_path: Path) -> None:
    text = page(tmp_path, KNOWN).read_text(encoding="utf-8")
    assert "hall <b>" not in text
    assert "default-src 'none'; img-src data:;" in text
