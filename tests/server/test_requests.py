"""Tests of lookonce.server.requests: what is refused, and how."""

import base64
import time

import pytest

pytest.importorskip("starlette", reason="the extra serve is not installed")
import httpx

from lookonce import Detector
from lookonce.server.limits import RequestError
from lookonce.server.requests import Options, from_base64, parse_options
from served import serving

JSON = {"content-type": "application/json"}


@pytest.mark.parametrize("path, content, headers, status, detail", [
    ("", b"hello, this is text", {}, 422, "the image: a text file, not an image"),
    ("", b"", {}, 400, "no image in the request; expected its bytes as image/... or application/octet-stream"),
    ("", b"<html>", {"content-type": "text/html"}, 415, "content type 'text/html'; expected image/..."),
    ("", b"x", {"content-type": "video/mp4"}, 415, "content type 'video/mp4'"),
    ("", b"{", JSON, 400, "JSON: cannot be read"),
    ("", b"[1]", JSON, 400, "JSON: list; expected an object"),
    ("", b"[" * 100_000, JSON, 400, "JSON: cannot be read"),
    ("", b"{}", JSON, 400, 'JSON: expected "image", an image in base64, or "images"'),
    ("", b'{"image": 7}', JSON, 400, "image 1: int; expected text in base64"),
    ("", b'{"image": "&&&"}', JSON, 400, "image 1: not base64 ('&&&')"),
    ("", b'{"image": "AAAA", "treshold": 1}', JSON, 400, "'treshold': no option; expected some of model, threshold"),
    ("", b'{"image": "AAAA", "threshold": {"a": 1}}', JSON, 400, "threshold: dict; expected text or a number"),
    ("", b'{"image": "AAAA", "threshold": 1e400}', JSON, 400, ""),
    ("", b'{"images": "AAAA"}', JSON, 400, "images: str; expected a list"),
    ("?threshold=2", b"x", {}, 400, "threshold: '2'; expected a number from 0 to 1"),
    ("?threshold=nan", b"x", {}, 400, "threshold: 'nan'; expected a number from 0 to 1"),
    ("?threshold=.1&threshold=.2", b"x", {}, 400, "threshold: 2 values; expected one"),
    ("?iou=-1", b"x", {}, 400, "iou: '-1'; expected a number from 0 to 1"),
    ("?timeout=0", b"x", {}, 400, "timeout: '0'; expected a number of seconds above 0"),
    ("?format=xml", b"x", {}, 400, "format: 'xml'; expected one of json, image, csv"),
    ("?rounded=maybe", b"x", {}, 400, "rounded: 'maybe'; expected true or false"),
    ("?treshold=.5", b"x", {}, 400, "did you mean 'threshold'?"),
    ("?classes=green", b"x", {}, 400, "classes: 'green'; expected one of blue, red"),
    ("?model=none", b"x", {}, 404, "model 'none'; expected one of squares"),
    ("", b"x", {"content-type": "multipart/form-data"}, 400, "multipart/form-data: no boundary in the content type"),
    ("", b"x", {"content-type": "multipart/form-data; boundary=a"}, 400, ""),
])  # fmt: skip
def test_wrong_requests_are_answered_in_plain_words(path, content, headers, status, detail, server):
    with httpx.Client() as http:
        answer = http.post(f"{server.url}/v1/detect{path}", content=content, headers=headers)
    assert answer.status_code == status, answer.text
    assert set(answer.json()) == {"error", "detail"}
    assert detail in answer.json()["detail"]
    assert "Traceback" not in answer.text


def test_a_wrong_image_among_others_is_named(http, files):
    answer = http.post("/v1/detect", files=[("image", ("a.png", files[0].read_bytes())), ("image", ("b.png", b"text"))])
    assert answer.status_code == 422
    assert answer.json()["detail"] == "image 2 of 2 (b.png): a text file, not an image"
    empty = http.post("/v1/detect", files=[("image", ("a.png", b""))])
    assert empty.json()["detail"] == "the image (a.png): 0 bytes; expected the bytes of an image"


def test_half_an_image_is_refused(http, files):
    content = files[0].read_bytes()
    answer = http.post("/v1/detect", content=content[: len(content) // 2])
    assert (answer.status_code, answer.json()["error"]) == (422, "not_an_image")


def test_too_many_images_are_refused(http, files):
    content = files[0].read_bytes()
    assert http.post("/v1/detect", files=[("image", content)] * 33).status_code == 413
    assert http.post("/v1/detect", json={"images": [base64.b64encode(content).decode()] * 33}).status_code == 413
    answer = http.post("/v1/detect?format=image", files=[("image", content)] * 2)
    assert answer.json()["detail"] == "format: 'image' with 2 images; expected one, or format=json"


def test_names_of_files_are_text_in_every_answer(http, files):
    name = '<script>"\n../../etc/passwd'
    answer = http.post("/v1/detect", files={"image": (name, files[0].read_bytes())})
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["images"][0]["file"].startswith("<script>")  # as JSON, which no browser takes for HTML
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_bodies_over_the_limit_are_refused_while_they_arrive(detector):
    def body():
        for _ in range(40):
            yield b"x" * (64 << 10)

    with serving({"m": lambda: Detector(detector.backend)}, max_mb=1) as running:
        try:
            assert httpx.post(f"{running.url}/v1/detect", content=body()).status_code == 413
        except httpx.WriteError:
            pass  # closed while it was being sent
        assert httpx.get(f"{running.url}/healthz").status_code == 200
        assert running.shared.bodies.taken == 0


def test_a_body_that_does_not_arrive_is_given_up(detector):
    def body():
        yield b"x"
        time.sleep(0.8)
        yield b"x"

    with serving({"m": lambda: Detector(detector.backend)}, timeout=0.2) as running:
        answer = httpx.post(f"{running.url}/v1/detect", content=body())
        assert (answer.status_code, answer.json()["error"]) == (408, "request_timeout")


def test_options_from_texts():
    fields = {"threshold": ["0.5"], "classes": ["a", "b"], "rounded": ["False"], "format": ["csv"]}
    assert parse_options(fields) == Options(threshold=0.5, classes=("a", "b"), rounded=False, format="csv")


def test_base64_may_have_line_ends_and_a_data_address():
    assert from_base64("aGVs\nbG8=\n", "image 1") == b"hello"
    assert from_base64("data:image/png;base64,aGVsbG8=", "image 1") == b"hello"
    with pytest.raises(RequestError, match="image 1: not base64"):
        from_base64("aGVsbG8", "image 1")
