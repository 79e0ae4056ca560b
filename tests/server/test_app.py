"""Tests of lookonce.server.app: errors as JSON, and the page in a real browser."""

import io
import json
import re
import time

import pytest

pytest.importorskip("starlette", reason="the extra serve is not installed")
import httpx
import numpy as np
from PIL import Image

from browser import Tab, needs_tab
from lookonce import Detector
from lookonce.data.formats.voc import write_annotation
from lookonce.inference.outputs import ImageResult, yolo_lines
from lookonce.server.app import FILES, HERE
from served import serving


def test_unknown_addresses_and_methods_are_answered_in_plain_words(http):
    answer = http.get("/nothing")
    assert (answer.status_code, answer.json()) == (
        404, {"error": "not_found", "detail": "/nothing: no such address; /docs lists all"},
    )  # fmt: skip
    answer = http.get("/v1/detect")
    assert (answer.status_code, answer.json()["error"]) == (405, "method_not_allowed")
    assert answer.headers["allow"] == "POST"


@pytest.mark.parametrize(
    "path", ["/../../etc/passwd", "/page.js/../app.py", "/%2e%2e/app.py", "/app.py", "//etc/passwd"]
)
def test_no_path_reaches_the_disk(path, http):
    assert http.get(path).status_code == 404


def test_a_bug_is_500_without_its_traceback_in_the_answer(detector, caplog):
    class Broken:
        info, about = detector.backend.info, detector.backend.about
        calls = 0

        def __call__(self, images):
            Broken.calls += 1
            if Broken.calls > 1:
                raise ZeroDivisionError("secret")
            return detector.backend(images)

    with serving({"m": lambda: Detector(Broken())}) as running:
        file = io.BytesIO()
        Image.new("RGB", (96, 96)).save(file, "PNG")
        answer = httpx.post(f"{running.url}/v1/detect", content=file.getvalue())
    assert (answer.status_code, answer.json()["error"]) == (500, "internal_error")
    assert "secret" not in answer.text
    assert "secret" in caplog.text


def test_the_page_names_nothing_outside_and_has_no_inline_script_or_style():
    for name in FILES.values():
        text = (HERE / name).read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?://(?!localhost|127)\w+\.|//cdn|@import|url\(", text), name
    page = (HERE / "page.html").read_text(encoding="utf-8")
    assert not re.search(r"<script(?![^>]*src=)|<style|\sstyle=|\son\w+=", page)
    assert not re.search(r"innerHTML|insertAdjacentHTML|document\.write|eval\(", (HERE / "page.js").read_text())


def test_every_control_of_the_page_has_a_name():
    page = (HERE / "page.html").read_text(encoding="utf-8")
    for tag in re.findall(r"<button[^>]*>[^<]*", page):
        assert re.search(r"aria-label=|>\s*\w", tag), tag
    for name in re.findall(r'<(?:input|select)[^>]*id="([\w-]+)"', page):
        assert f'for="{name}"' in page or re.search(rf'<label[^>]*>[^<]*<select id="{name}"', page) or name == "files"


def test_files_of_the_page_are_asked_for_again_only_if_they_change(http):
    answer = http.get("/page.js")
    assert http.get("/page.js", headers={"If-None-Match": answer.headers["etag"]}).status_code == 304


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    with Tab(tmp_path_factory.mktemp("browser")) as opened:
        opened.size(1280, 860)
        yield opened


def saved(folder, name):
    """What the browser has downloaded."""
    for _ in range(400):
        if (folder / name).is_file() and (folder / name).stat().st_size:
            return (folder / name).read_bytes()
        time.sleep(0.02)
    raise AssertionError(f"{name} was not downloaded: {list(folder.iterdir())}")


ROWS = "[...document.querySelectorAll('#rows tr')].map(row => [...row.cells].map(cell => cell.textContent))"


def set_threshold(tab, percent):
    tab.run(f"(() => {{ const s = document.querySelector('#threshold'); s.value = {percent};"
            " s.dispatchEvent(new Event('input')); s.dispatchEvent(new Event('change')); })()")  # fmt: skip


@needs_tab
def test_a_person_drops_an_image_moves_the_slider_filters_a_class_and_downloads(tab, server, detector, files, tmp_path):
    tab.downloads(tmp_path)
    tab.go(server.url + "/")
    tab.until("document.querySelector('#about').textContent.includes('2 classes')")
    file = next(f for f in files if len(detector(f)) and set(detector(f, threshold=0.02).names) == {"red", "blue"})
    tab.drop([file])
    tab.until("document.querySelectorAll('#rows tr').length")
    known = detector(file)
    assert [row[:2] for row in tab.run(ROWS)] == [[one.name, f"{one.score:.3f}"] for one in known]

    everything = detector(file, threshold=0.02)
    set_threshold(tab, 2)
    assert [row[:2] for row in tab.run(ROWS)] == [[one.name, f"{one.score:.3f}"] for one in everything]
    tab.click("#classes [data-label=blue]")
    red = everything.only("red")
    assert [row[0] for row in tab.run(ROWS)] == list(red.names)
    tab.click("#save-yolo")
    result = ImageResult(file.name, file.stem, (96, 96), red)
    assert saved(tmp_path, f"{file.stem}.txt").decode() == yolo_lines(result)
    tab.click("#save-voc")
    write_annotation(tmp_path / "known.xml", file.name, (96, 96), red.boxes, red.names)
    known_xml = (tmp_path / "known.xml").read_text().replace(f"<folder>{tmp_path.parent.name}<", "<folder><")
    ours = saved(tmp_path, f"{file.stem}.xml").decode()
    numbers = [[float(x) for x in re.findall(r"[\d.]+", text)] for text in (ours, known_xml)]
    np.testing.assert_allclose(*numbers, rtol=1e-6)
    assert re.sub(r"[\d.]+", "", ours) == re.sub(r"[\d.]+", "", known_xml)
    tab.click("#save-image")
    assert Image.open(io.BytesIO(saved(tmp_path, f"{file.stem}-detections.jpg"))).size == (96, 96)
    copied = "navigator.clipboard.writeText = text => { window.copied = text; return Promise.resolve(); }"
    tab.run(copied)
    tab.click("#copy")
    tab.until("window.copied")
    assert json.loads(tab.run("window.copied"))["detections"] == red.to_json()
    tab.click("#own")
    tab.click("#all")
    assert [row[0] for row in tab.run(ROWS)] == list(known.names)

    tab.drop([*files[:3], HERE / "page.html"])
    tab.until("document.querySelectorAll('#thumbs li').length === 4")
    tab.key("PageUp")
    tab.until(f"document.querySelector('#status').textContent.includes({file.name!r})")
    for key in ("+", "+", "-", "0"):
        tab.key(key)
    assert not tab.errors
    assert {re.match(r"(blob|data):|http://[^/]+", url)[0] for url in tab.requests} <= {"blob:", "data:", server.url}


@needs_tab
def test_what_is_no_image_is_said(tab, server, tmp_path):
    tab.go(server.url + "/")
    tab.until("document.querySelector('#about').textContent")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    tab.drop([tmp_path / "broken.png"])
    tab.until("!document.querySelector('#error').hidden")
    assert tab.run("document.querySelector('#error').textContent").startswith("Broken.png: ")


@needs_tab
def test_the_camera_runs_until_it_is_stopped(tab, server):
    tab.go(server.url + "/")
    tab.until("document.querySelector('#about').textContent")
    tab.click("#camera")
    tab.until("document.querySelector('#fps').textContent.includes('fps')")
    tab.click("#keep")
    tab.until("document.querySelectorAll('#thumbs li').length === 1")
    tab.click("#stop")
    tab.until("document.querySelector('#camera-tools').hidden && !document.querySelector('#video').srcObject")
    assert not tab.errors


@needs_tab
def test_the_page_asks_for_the_token_and_keeps_it_in_the_tab(tab, detector, files):
    with serving({"m": lambda: Detector(detector.backend)}, token="a-secret-token") as running:
        tab.go(running.url + "/")
        tab.until("!document.querySelector('#token-form').hidden")
        tab.run("document.querySelector('#token').value = 'a-secret-token'")
        tab.click("#token-form .primary")
        tab.until("document.querySelector('#token-form').hidden")
        tab.drop([files[0]])
        tab.until("document.querySelectorAll('#thumbs li').length === 1")
        assert "a-secret-token" not in tab.run("JSON.stringify(localStorage) + document.cookie + location.href")


@needs_tab
@pytest.mark.parametrize("width", [390, 820, 1280])
def test_nothing_is_wider_than_the_window(width, tab, server, files):
    tab.size(width, 844)
    for path in ("/", "/docs"):
        tab.go(server.url + path)
        if path == "/":
            tab.until("document.querySelector('#about').textContent")
            tab.drop(files)
            tab.until("document.querySelectorAll('#thumbs li').length === 8")
        assert tab.run("document.documentElement.scrollWidth <= window.innerWidth")
    tab.size(1280, 860)
